package place

import (
	"fmt"
	"slices"
	"testing"
)

// TestQueue compares with a plain list.
func TestQueue(t *testing.T) {
	rnd := seeded(t)
	for range 50 {
		var q Queue
		var model []Task
		index := func(n uint32) int { return slices.IndexFunc(model, func(x Task) bool { return x.ID.N == n }) }
		for range 400 {
			n := uint32(rnd.Intn(150))
			switch i := index(n); {
			case rnd.Intn(2) == 0 && i >= 0:
				q.Take(n)
				model = slices.Delete(model, i, i+1)
			case i < 0:
				x := task(1, n, mb, Held{fmt.Sprint("h", n%5), mb})
				if rnd.Intn(4) == 0 {
					q.Put(x, true)
					model = slices.Insert(model, 0, x)
				} else {
					q.Put(x, false)
					model = append(model, x)
				}
			}
			most, each := rnd.Intn(6), 1+rnd.Intn(3)
			var want []uint32
			for _, x := range model[:min(most, len(model))] {
				want = append(want, x.ID.N)
			}
			found := 0
			for _, x := range model {
				if x.Local[0].Host == "h2" && found < each {
					if found++; !slices.Contains(want, x.ID.N) {
						want = append(want, x.ID.N)
					}
				}
			}
			var got []uint32
			for _, x := range q.Pick(nil, most, []string{"h2"}, each) {
				got = append(got, x.ID.N)
			}
			if !slices.Equal(got, want) || q.Len() != len(model) {
				t.Fatalf("%v, want %v; %d tasks, want %d", got, want, q.Len(), len(model))
			}
		}
	}
}
