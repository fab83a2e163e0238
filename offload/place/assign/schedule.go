package assign

import (
	"cmp"
	"math"
	"slices"
)

// Schedule has the rows of each column, in the order in which they run. Rows
// that can run nowhere are in none.
type Schedule [][]int

// Problem is n rows that queue at m columns: Run[i][j] is how long row i takes
// at column j, Ready[j] when column j is free.
type Problem struct {
	Run   [][]float64
	Ready []float64
}

// Sum is the sum of the completion times.
func (p Problem) Sum(s Schedule) (sum float64) {
	for j, rows := range s {
		at := p.Ready[j]
		for _, i := range rows {
			at += p.Run[i][j]
			sum += at
		}
	}
	return sum
}

// Finish is the last completion time. A column without rows does not count.
func (p Problem) Finish(s Schedule) (last float64) {
	for j, rows := range s {
		if len(rows) > 0 {
			last = max(last, p.load(j, rows))
		}
	}
	return last
}

func (p Problem) load(j int, rows []int) float64 {
	at := p.Ready[j]
	for _, i := range rows {
		at += p.Run[i][j]
	}
	return at
}

// Completion is the schedule with the least sum of completion times. It takes
// O(n³·m) steps.
func (p Problem) Completion() Schedule {
	n, m := len(p.Run), len(p.Ready)
	cost := make([][]float64, n)
	capacity := make([]int, n*m)
	for k := range capacity {
		capacity[k] = 1
	}
	for i := range n {
		cost[i] = make([]float64, n*m)
		for j := range m {
			for k := range n { // k rows run after this one
				cost[i][j*n+k] = p.Ready[j] + float64(k+1)*p.Run[i][j]
			}
		}
	}
	to, _ := Capacitated(cost, capacity)
	s := make(Schedule, m)
	for i, c := range to {
		if c != None {
			s[c/n] = append(s[c/n], i)
		}
	}
	p.shortestFirst(s)
	return s
}

// shortestFirst puts each column's rows into the order of least sum.
func (p Problem) shortestFirst(s Schedule) {
	for j, rows := range s {
		slices.SortFunc(rows, func(a, b int) int {
			return cmp.Or(cmp.Compare(p.Run[a][j], p.Run[b][j]), cmp.Compare(a, b))
		})
	}
}

// longestFirst puts each column's rows in the order of falling time: what is
// predicted badly then matters least at the end.
func (p Problem) longestFirst(s Schedule) {
	for j, rows := range s {
		slices.SortFunc(rows, func(a, b int) int {
			return cmp.Or(cmp.Compare(p.Run[b][j], p.Run[a][j]), cmp.Compare(a, b))
		})
	}
}

// best returns the column where row i ends first, when that is, and when it
// would end at the second best column.
func (p Problem) best(i int, ready []float64) (col int, end, second float64) {
	col, end, second = None, math.Inf(1), math.Inf(1)
	for j, r := range ready {
		switch e := r + p.Run[i][j]; {
		case math.IsInf(e, 1):
		case e < end:
			col, end, second = j, e, end
		case e < second:
			second = e
		}
	}
	return col, end, second
}

// Sufferage gives, again and again, the row that would suffer most from not
// getting its best column that column. A row with only one column suffers
// infinitely.
func (p Problem) Sufferage() Schedule {
	s := make(Schedule, len(p.Ready))
	ready := slices.Clone(p.Ready)
	type choice struct {
		col         int
		end, second float64
	}
	choices := make([]choice, len(p.Run))
	left := make([]int, len(p.Run))
	for i := range left {
		left[i] = i
		col, end, second := p.best(i, ready)
		choices[i] = choice{col, end, second}
	}
	for len(left) > 0 {
		at := None
		for k, i := range left {
			c := choices[i]
			if c.col == None {
				continue
			}
			if at == None || suffers(c.end, c.second, choices[left[at]].end, choices[left[at]].second) {
				at = k
			}
		}
		if at == None {
			break
		}
		i := left[at]
		col := choices[i].col
		s[col] = append(s[col], i)
		ready[col] = choices[i].end
		left = slices.Delete(left, at, at+1)
		for _, k := range left {
			// Only this column has become later: the others keep their choice.
			if c := choices[k]; c.col == col || ready[col]-p.Run[i][col]+p.Run[k][col] <= c.second {
				b, end, second := p.best(k, ready)
				choices[k] = choice{b, end, second}
			}
		}
	}
	return s
}

// suffers says whether a loses more than b without its best column.
func suffers(endA, secondA, endB, secondB float64) bool {
	switch infA, infB := math.IsInf(secondA, 1), math.IsInf(secondB, 1); {
	case infA && infB:
		return endA < endB
	case infA || infB:
		return infA
	}
	return secondA-endA > secondB-endB
}

// listed takes, again and again, the row that ends first, or the one whose
// earliest end is the latest (min-min and max-min in Maheswaran's paper).
func (p Problem) listed(longest bool) Schedule {
	s := make(Schedule, len(p.Ready))
	ready := slices.Clone(p.Ready)
	left := make([]int, len(p.Run))
	for i := range left {
		left[i] = i
	}
	for len(left) > 0 {
		at, atCol, atEnd := None, None, 0.0
		for k, i := range left {
			col, end, _ := p.best(i, ready)
			if col != None && (at == None || !longest && end < atEnd || longest && end > atEnd) {
				at, atCol, atEnd = k, col, end
			}
		}
		if at == None {
			break
		}
		s[atCol] = append(s[atCol], left[at])
		ready[atCol] = atEnd
		left = slices.Delete(left, at, at+1)
	}
	return s
}
