package assign

import (
	"math"
	"slices"
)

// epsilon is the least gain, relative, for which a change is made: without it
// rounding could make the search go round in circles.
const epsilon = 1e-9

// Improve changes s by moves of one row and swaps of two, as long as the sum of
// completion times falls, in at most passes passes over all rows.
func (p Problem) Improve(s Schedule, passes int) Schedule {
	p.shortestFirst(s)
	sums := make([]float64, len(s))
	for j := range s {
		sums[j] = p.columnSum(j, s[j])
	}
	for range passes {
		better := false
		for a := range s {
			for k := 0; k < len(s[a]); k++ {
				if p.relocate(s, sums, a, s[a][k]) {
					better = true
					k--
				}
			}
		}
		if !better {
			break
		}
	}
	return s
}

// columnSum is the sum of completion times of the rows at column j, which are
// sorted by time.
func (p Problem) columnSum(j int, rows []int) (sum float64) {
	at := p.Ready[j]
	for _, i := range rows {
		at += p.Run[i][j]
		sum += at
	}
	return sum
}

// relocate moves row i from column a to where the sum falls most, alone or in
// exchange for another row.
func (p Problem) relocate(s Schedule, sums []float64, a, i int) bool {
	bestGain, bestCol, bestRow := epsilon*(1+sums[a]), None, None
	rest := without(slices.Clone(s[a]), i)
	p.sortColumn(a, rest)
	restSum := p.columnSum(a, rest)
	for b := range s {
		if b == a || math.IsInf(p.Run[i][b], 1) {
			continue
		}
		with := p.inserted(b, s[b], i)
		if gain := sums[a] + sums[b] - restSum - p.columnSum(b, with); gain > bestGain {
			bestGain, bestCol, bestRow = gain, b, None
		}
		for _, k := range s[b] {
			if math.IsInf(p.Run[k][a], 1) {
				continue
			}
			newA := p.columnSum(a, p.inserted(a, rest, k))
			newB := 0.0
			at := p.Ready[b]
			for _, x := range with {
				if x != k {
					at += p.Run[x][b]
					newB += at
				}
			}
			if gain := sums[a] + sums[b] - newA - newB; gain > bestGain {
				bestGain, bestCol, bestRow = gain, b, k
			}
		}
	}
	if bestCol == None {
		return false
	}
	s[a] = rest
	s[bestCol] = p.inserted(bestCol, s[bestCol], i)
	if bestRow != None {
		s[a] = p.inserted(a, rest, bestRow)
		s[bestCol] = slices.DeleteFunc(s[bestCol], func(x int) bool { return x == bestRow })
	}
	sums[a], sums[bestCol] = p.columnSum(a, s[a]), p.columnSum(bestCol, s[bestCol])
	return true
}

func (p Problem) sortColumn(j int, rows []int) {
	slices.SortFunc(rows, func(a, b int) int {
		switch {
		case p.Run[a][j] < p.Run[b][j], p.Run[a][j] == p.Run[b][j] && a < b:
			return -1
		}
		return 1
	})
}

// inserted is a copy of the sorted rows with i among them.
func (p Problem) inserted(j int, rows []int, i int) []int {
	out := make([]int, 0, len(rows)+1)
	for k, x := range rows {
		if p.Run[i][j] < p.Run[x][j] {
			return append(append(append(out, rows[:k]...), i), rows[k:]...)
		}
	}
	return append(append(out, rows...), i)
}
