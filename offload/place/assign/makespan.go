package assign

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// Makespan is a schedule whose last finish is near the least: the best of four
// starts (sufferage, the longest row first, the shortest first, and the columns
// that the prices of LowerBound prefer), each improved by moves and swaps away
// from the column that finishes last, then by moves of pairs. The best of them is
// then shaken, and improved anew, again and again; up to a dozen rows all schedules
// are searched. Each column's rows come longest first. steps are those of
// LowerBound, and four times as often it is shaken: 100 find good prices, fewer take less time.
func (p Problem) Makespan(steps int) Schedule {
	bound, prices := p.LowerBound(steps)
	starts := []func() Schedule{
		p.Sufferage,
		func() Schedule { return p.listed(true) },
		func() Schedule { return p.priced(prices) },
		func() Schedule { return p.listed(false) },
	}
	var best Schedule
	least := math.Inf(1)
	for _, start := range starts {
		s := p.balance(start())
		if f := p.Finish(s); best == nil || f < least {
			best, least = s, f
		}
		if least <= bound*(1+nearEnough) {
			break
		}
	}
	best, least = p.shake(best, least, bound, min(4*steps, shakeCells/max(1, len(p.Run)*len(p.Ready))))
	if least > bound*(1+nearEnough) && len(p.Run) <= exactRows {
		best = p.search(best, least, bound)
	}
	p.longestFirst(best)
	return best
}

// nearEnough to the bound, no better schedule is looked for.
const nearEnough = 0.002

// A schedule is shaken so often that shakeCells pairs of row and column are looked
// at, about, unless it is within shakeNear of the bound; shakeRows rows of it are
// moved each time.
const (
	shakeNear  = 0.01
	shakeCells = 100_000
	shakeRows  = 3
)

// shake is iterated local search (H. Lourenço, O. Martin and T. Stützle, in
// "Handbook of Metaheuristics", 2003): some rows of the column that finishes last, and
// of others, are moved to columns where they take little longer than at their best,
// and what comes of it is kept if it is no worse. The numbers that choose are the
// same for the same problem.
func (p Problem) shake(best Schedule, least, bound float64, times int) (Schedule, float64) {
	rnd := rand.New(rand.NewPCG(uint64(len(p.Run)), uint64(len(p.Ready))))
	m := len(p.Ready)
	if m < 2 || len(p.Run) < 2 {
		return best, least
	}
	now, finish := best, least
	for range times {
		if least <= bound*(1+shakeNear) {
			break
		}
		s := make(Schedule, m)
		last := 0
		for j := range s {
			s[j] = slices.Clone(now[j])
			if len(s[j]) > 0 && p.load(j, s[j]) > p.load(last, s[last]) {
				last = j
			}
		}
		from := last
		for range shakeRows {
			if len(s[from]) > 0 {
				k := rnd.IntN(len(s[from]))
				i := s[from][k]
				if to := p.near(i, from, rnd); to != None {
					s[from] = slices.Delete(s[from], k, k+1)
					s[to] = append(s[to], i)
				}
			}
			from = rnd.IntN(m)
		}
		s = p.balance(s)
		f := p.Finish(s)
		if f <= finish {
			now, finish = s, f
		}
		if f < least {
			best, least = s, f
		}
	}
	return best, least
}

// near is a column for a row other than from: the better of two that are drawn.
func (p Problem) near(i, from int, rnd *rand.Rand) int {
	to := None
	for range 2 {
		j := rnd.IntN(len(p.Ready))
		if j != from && !math.IsInf(p.Run[i][j], 1) && (to == None || p.Run[i][j] < p.Run[i][to]) {
			to = j
		}
	}
	return to
}

// exactRows is up to how many rows Makespan also searches all schedules, and
// searchNodes how many of them it looks at.
const (
	exactRows   = 12
	searchNodes = 20000
)

// search looks for a schedule that finishes before least, by branch and bound:
// the rows with the longest best time first, each at every column that does not
// finish too late.
func (p Problem) search(best Schedule, least, bound float64) Schedule {
	var rows []int
	shortest := make([]float64, len(p.Run))
	for i, run := range p.Run {
		if len(run) > 0 {
			shortest[i] = slices.Min(run)
		}
		if len(run) > 0 && !math.IsInf(shortest[i], 1) {
			rows = append(rows, i)
		}
	}
	slices.SortFunc(rows, func(a, b int) int { return cmp.Or(cmp.Compare(shortest[b], shortest[a]), cmp.Compare(a, b)) })
	load := slices.Clone(p.Ready)
	at := make([]int, len(p.Run))
	nodes := 0
	var visit func(k int, finish float64)
	visit = func(k int, finish float64) {
		if nodes++; nodes > searchNodes || finish >= least*(1-epsilon) || least <= bound*(1+nearEnough) {
			return
		}
		if k == len(rows) {
			least = finish
			best = make(Schedule, len(p.Ready))
			for _, i := range rows {
				best[at[i]] = append(best[at[i]], i)
			}
			return
		}
		i := rows[k]
		for j := range load {
			if t := p.Run[i][j]; load[j]+t < least*(1-epsilon) {
				load[j] += t
				at[i] = j
				visit(k+1, max(finish, load[j]))
				load[j] -= t
			}
		}
	}
	visit(0, 0)
	return best
}

// priced puts each row where its time at the column's price is least.
func (p Problem) priced(prices []float64) Schedule {
	s := make(Schedule, len(p.Ready))
	for i, run := range p.Run {
		col, least := None, math.Inf(1)
		for j, t := range run {
			if c := prices[j] * t; c < least {
				col, least = j, c
			}
		}
		if col != None {
			s[col] = append(s[col], i)
		}
	}
	return s
}

// balance takes rows away from the column that finishes last as long as the
// later of the two finishes involved falls: a move, else a swap, else a move of
// one row here and another from there to a third column.
func (p Problem) balance(s Schedule) Schedule {
	m := len(s)
	load := make([]float64, m)
	for j := range s {
		load[j] = p.load(j, s[j])
		if len(s[j]) == 0 {
			load[j] = p.Ready[j]
		}
	}
	for range 20 * (len(p.Run) + m) {
		last := None
		for j := range s {
			if len(s[j]) > 0 && (last == None || load[j] > load[last]) {
				last = j
			}
		}
		if last == None || !p.lighten(s, load, last) {
			break
		}
	}
	return s
}

// lighten makes the best change that takes load away from column a.
func (p Problem) lighten(s Schedule, load []float64, a int) bool {
	limit := load[a] * (1 - epsilon)
	best, bi, bb, bk := limit, None, None, None
	for _, i := range s[a] {
		without := load[a] - p.Run[i][a]
		for b := range s {
			if b == a || math.IsInf(p.Run[i][b], 1) {
				continue
			}
			with := load[b] + p.Run[i][b]
			if worst := max(without, with); worst < best {
				best, bi, bb, bk = worst, i, b, None
			}
			for _, k := range s[b] {
				if worst := max(without+p.Run[k][a], with-p.Run[k][b]); worst < best {
					best, bi, bb, bk = worst, i, b, k
				}
			}
		}
	}
	if bi == None {
		return p.chain(s, load, a, limit)
	}
	p.shift(s, load, bi, a, bb)
	if bk != None {
		p.shift(s, load, bk, bb, a)
	}
	return true
}

// chain moves one row from a to b and one from b to c, if all three then finish
// before limit.
func (p Problem) chain(s Schedule, load []float64, a int, limit float64) bool {
	for _, i := range s[a] {
		for b := range s {
			if b == a || load[b]+p.Run[i][b] == math.Inf(1) {
				continue
			}
			for _, k := range s[b] {
				if load[b]+p.Run[i][b]-p.Run[k][b] >= limit {
					continue
				}
				for c := range s {
					if c != a && c != b && load[c]+p.Run[k][c] < limit {
						p.shift(s, load, k, b, c)
						p.shift(s, load, i, a, b)
						return true
					}
				}
			}
		}
	}
	return false
}

func (p Problem) shift(s Schedule, load []float64, i, from, to int) {
	s[from] = slices.DeleteFunc(s[from], func(x int) bool { return x == i })
	s[to] = append(s[to], i)
	load[from] -= p.Run[i][from]
	load[to] += p.Run[i][to]
}
