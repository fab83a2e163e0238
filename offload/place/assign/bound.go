package assign

import "math"

// LowerBound is a time before which no schedule finishes: the greater of the
// longest row at its best column, and the Lagrangian dual. For weights λ ≥ 0 with
// Σ λ_j = 1 every schedule of last finish T has
//
//	T ≥ Σ_j λ_j·load_j ≥ Σ_j λ_j·ready_j + Σ_i min_j λ_j·run_ij
//
// (a column that stays empty counts as if T ≥ ready_j, so Ready must not lie
// beyond what the rows need: it is cut at the bound so far). Any λ gives a bound;
// the weights are improved by steps along the loads that they lead to.
func (p Problem) LowerBound(steps int) (bound float64, prices []float64) {
	m := len(p.Ready)
	for i := range p.Run {
		_, end, _ := p.best(i, p.Ready)
		if !math.IsInf(end, 1) {
			bound = max(bound, end)
		}
	}
	prices = make([]float64, m)
	for j := range prices {
		prices[j] = 1 / float64(m)
	}
	if m == 0 || len(p.Run) == 0 {
		return bound, prices
	}
	ready := make([]float64, m)
	λ, load := make([]float64, m), make([]float64, m)
	copy(λ, prices)
	for step := range steps {
		value := 0.0
		for j, r := range p.Ready {
			ready[j] = min(r, bound)
			load[j] = ready[j]
			value += λ[j] * ready[j]
		}
		for _, run := range p.Run {
			col, least := None, math.Inf(1)
			for j, t := range run {
				if c := λ[j] * t; c < least {
					col, least = j, c
				}
			}
			if col != None {
				value += least
				load[col] += run[col]
			}
		}
		if value > bound {
			bound = value
			copy(prices, λ)
		}
		// Columns with more load than the bound become dearer.
		rate := 0.5 / math.Sqrt(float64(step+1))
		total, most := 0.0, 0.0
		for _, l := range load {
			most = max(most, l)
		}
		if most == 0 {
			break
		}
		for j := range m {
			λ[j] *= math.Exp(rate * (load[j] - bound) / most)
			total += λ[j]
		}
		for j := range m {
			λ[j] /= total
		}
	}
	return bound, prices
}
