package assign

import "math"

// None is the column of a row that has none.
const None = -1

// Capacitated gives each row a column such that the sum of the costs is least
// and column j has at most capacity[j] rows. A row that finds no place has None;
// a row never loses its place to a later one. It takes O(n·(n·m + m²)) steps for
// n rows and m columns.
func Capacitated(cost [][]float64, capacity []int) (to []int, sum float64) {
	n, m := len(cost), len(capacity)
	to = make([]int, n)
	u, v := make([]float64, n), make([]float64, m) // duals: cost - u - v ≥ 0, = 0 where assigned
	rows := make([][]int, m)                       // what each column has
	dist, from, seen := make([]float64, m), make([]int, m), make([]bool, m)
	for r := range n {
		to[r] = None
		for j := range m {
			dist[j], seen[j] = math.Inf(1), false
		}
		scan := func(i int, base float64) {
			c, ui := cost[i], u[i]
			for j := range m {
				if seen[j] {
					continue
				}
				if d := base + c[j] - ui - v[j]; d < dist[j] {
					dist[j], from[j] = d, i
				}
			}
		}
		scan(r, 0)
		sink := None
		for {
			j := None
			for k := range m {
				if !seen[k] && capacity[k] > 0 && !math.IsInf(dist[k], 1) && (j == None || dist[k] < dist[j]) {
					j = k
				}
			}
			if j == None {
				break
			}
			seen[j] = true
			if len(rows[j]) < capacity[j] {
				sink = j
				break
			}
			for _, i := range rows[j] {
				scan(i, dist[j])
			}
		}
		if sink == None {
			continue
		}
		end := dist[sink]
		u[r] += end
		for j := range m {
			if !seen[j] || j == sink {
				continue
			}
			v[j] -= end - dist[j]
			for _, i := range rows[j] {
				u[i] += end - dist[j]
			}
		}
		for j := sink; ; {
			i := from[j]
			old := to[i]
			if old != None {
				rows[old] = without(rows[old], i)
			}
			to[i] = j
			rows[j] = append(rows[j], i)
			if i == r {
				break
			}
			j = old
		}
	}
	for i, j := range to {
		if j != None {
			sum += cost[i][j]
		}
	}
	return to, sum
}

// without removes x, whose order does not matter.
func without(list []int, x int) []int {
	for k, y := range list {
		if y == x {
			list[k] = list[len(list)-1]
			return list[:len(list)-1]
		}
	}
	return list
}
