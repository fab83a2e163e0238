package assign

import (
	"math"
	"slices"
)

// certifier proves lower bounds that LowerBound is too weak for: with few rows a
// column the linear relaxation lies far below every schedule, since it cuts rows in
// pieces.
//
// No schedule finishes by limit if some values μ of the rows have
//
//	Σ_i μ_i > Σ_j max { Σ_{i∈S} μ_i : ready_j + Σ_{i∈S} run_ij ≤ limit }
//
// since the rows of each column of such a schedule would be one of the sets S: the
// Lagrangian dual that keeps whole rows (M. Fisher, R. Jaikumar and L. Van
// Wassenhove, Management Science 32, 1986, for the generalised assignment problem;
// its value is that of the configuration relaxation). Each maximum is a knapsack,
// solved by dynamic programming over times that are rounded down, which makes it no
// smaller; μ is improved by subgradient steps.
type certifier struct {
	p     Problem
	grid  int // steps of time up to limit
	steps int // of the subgradient
}

// exceeds says whether every schedule was proved to finish after limit.
func (c certifier) exceeds(limit float64) bool {
	n, m := len(c.p.Run), len(c.p.Ready)
	_, prices := c.p.LowerBound(2000)
	μ := make([]float64, n)
	for i, run := range c.p.Run {
		least := math.Inf(1)
		for j, t := range run {
			least = min(least, prices[j]*t)
		}
		μ[i] = least
	}
	best, θ, since := math.Inf(-1), 1.0, 0
	bestμ := slices.Clone(μ)
	times := make([]int, n) // how many columns take the row
	for range c.steps {
		total := 0.0
		for _, x := range μ {
			total += x
		}
		value := total
		clear(times)
		for j := range m {
			value -= c.knapsack(j, limit-c.p.Ready[j], μ, times)
		}
		if value > 1e-9*total {
			return true
		}
		if value > best {
			best, since = value, 0
			copy(bestμ, μ)
		} else if since++; since == 10 {
			θ, since = θ/2, 0
			copy(μ, bestμ)
			continue
		}
		norm := 0.0
		for _, k := range times {
			norm += float64((1 - k) * (1 - k))
		}
		if norm == 0 {
			return false // a schedule
		}
		step := θ * (0.02*total - value) / norm
		for i, k := range times {
			μ[i] = max(0, μ[i]+step*float64(1-k))
		}
	}
	return false
}

// knapsack is the most value of rows that column j does in so much time; times
// counts the rows taken.
func (c certifier) knapsack(j int, capacity float64, μ []float64, times []int) float64 {
	if capacity <= 0 {
		return 0
	}
	value := make([]float64, c.grid+1)
	type item struct {
		row, size int
		taken     []bool
	}
	var items []item
	for i := range μ {
		if t := c.p.Run[i][j]; t <= capacity && μ[i] > 0 {
			x := item{i, int(t / capacity * float64(c.grid)), make([]bool, c.grid+1)}
			for w := c.grid; w >= x.size; w-- {
				if v := value[w-x.size] + μ[i]; v > value[w] {
					value[w], x.taken[w] = v, true
				}
			}
			items = append(items, x)
		}
	}
	at := c.grid
	for _, x := range slices.Backward(items) {
		if x.taken[at] {
			times[x.row]++
			at -= x.size
		}
	}
	return value[c.grid]
}
