package sim

import (
	"fmt"
	"math/rand"
	"testing"
	"time"
)

// family makes random workloads of one kind.
type family struct {
	name string
	make func(rnd *rand.Rand) *Workload
	// local: nothing beats staying with the data, so ours is to come within 3 % of it.
	local bool
}

func between(rnd *rand.Rand, least, most int) int { return least + rnd.Intn(most-least+1) }

func rate(rnd *rand.Rand, least, most int) Size { return Size(between(rnd, least, most)) * 1e6 }

var families = []family{
	{"data lies on few hosts", func(rnd *rand.Rand) *Workload {
		return &Workload{
			Hosts:   []Hosts{{Count: between(rnd, 4, 12), Class: "cpu", Slots: between(rnd, 1, 4), Network: rate(rnd, 30, 120)}},
			Kernels: map[string]Kernel{"scan": {Scatter: 0.15, Classes: map[string]Speed{"cpu": {Rate: rate(rnd, 30, 80)}}}},
			Jobs:    []Job{{User: "a", Kernel: "scan", Tasks: between(rnd, 60, 200), Bytes: rate(rnd, 50, 200), Spread: 3, Skew: true}},
		}
	}, false},
	{"data lies evenly, slow network", func(rnd *rand.Rand) *Workload {
		return &Workload{
			Hosts:   []Hosts{{Count: between(rnd, 4, 12), Class: "cpu", Slots: 2, Network: rate(rnd, 10, 30)}},
			Kernels: map[string]Kernel{"scan": {Scatter: 0.1, Classes: map[string]Speed{"cpu": {Rate: rate(rnd, 50, 100)}}}},
			Jobs:    []Job{{User: "a", Kernel: "scan", Tasks: between(rnd, 100, 200), Bytes: rate(rnd, 50, 200)}},
		}
	}, true},
	{"classes of devices", func(rnd *rand.Rand) *Workload {
		return &Workload{
			Hosts: []Hosts{
				{Count: between(rnd, 3, 6), Class: "cpu", Slots: between(rnd, 2, 4), Network: rate(rnd, 80, 200), Process: 50e6},
				{Count: between(rnd, 1, 3), Class: "cpu", Slots: 2, Network: rate(rnd, 80, 200), Also: []Device{{Class: "gpu", Slots: 1}}},
				{Count: 1, Class: "fpga", Slots: 1, Network: 60e6},
			},
			Kernels: map[string]Kernel{
				"match": {Scatter: 0.1, Output: 0.1, Classes: map[string]Speed{
					"cpu": {Rate: rate(rnd, 5, 15)}, "gpu": {Rate: rate(rnd, 60, 200), Fixed: Span(300 * time.Millisecond), Warm: Span(2 * time.Second)}, "fpga": {Rate: rate(rnd, 40, 120), Warm: Span(5 * time.Second)}}},
				"count": {Scatter: 0.1, Classes: map[string]Speed{"cpu": {Rate: rate(rnd, 20, 60)}}},
			},
			Jobs: []Job{
				{User: "a", Kernel: "match", Tasks: between(rnd, 60, 150), Bytes: rate(rnd, 20, 80), Spread: 2},
				{User: "b", Kernel: "count", Tasks: between(rnd, 60, 150), Bytes: rate(rnd, 20, 80), Spread: 2, At: Span(time.Second)},
			},
		}
	}, false},
	{"sizes of all kinds", func(rnd *rand.Rand) *Workload {
		return &Workload{
			Hosts:   []Hosts{{Count: between(rnd, 4, 10), Class: "cpu", Slots: 2, Network: rate(rnd, 30, 80)}},
			Kernels: map[string]Kernel{"scan": {Scatter: 0.2, Stragglers: 0.02, Classes: map[string]Speed{"cpu": {Rate: rate(rnd, 30, 80)}}}},
			Jobs: []Job{
				{User: "a", Kernel: "scan", Tasks: between(rnd, 100, 200), Bytes: 50e6, Spread: 8, Skew: true},
			},
		}
	}, false},
	{"hosts of many kinds", func(rnd *rand.Rand) *Workload {
		w := &Workload{Kernels: map[string]Kernel{"scan": {Scatter: 0.1, Classes: map[string]Speed{}}},
			Jobs: []Job{{User: "a", Kernel: "scan", Tasks: between(rnd, 100, 200), Bytes: rate(rnd, 20, 100), Spread: 2}}}
		for k := range between(rnd, 3, 6) {
			class := fmt.Sprint("cpu", k)
			w.Hosts = append(w.Hosts, Hosts{Count: between(rnd, 1, 3), Class: class, Slots: between(rnd, 1, 4), Network: rate(rnd, 30, 200)})
			w.Kernels["scan"].Classes[class] = Speed{Rate: rate(rnd, 8, 60)}
		}
		return w
	}, false},
}

// TestFamilies: on random workloads of each family ours has a smaller sum, and ends
// sooner, than placement by data alone and than by the cheapest host, on average over
// the family. The workloads are the same each time: where the network is as fast as
// the kernel the cheapest host is not much worse, and single ones go either way.
func TestFamilies(t *testing.T) {
	long(t)
	rnd := rand.New(rand.NewSource(1))
	const each = 8
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			sum, last, won := map[string]float64{}, map[string]float64{}, map[string]int{}
			for range each {
				w := f.make(rnd)
				w.Version, w.Seed = 1, rnd.Int63()
				if err := w.check(); err != nil {
					t.Fatal(err)
				}
				ours := Run(w, Policies[0])
				for _, p := range Policies {
					r := Run(w, p)
					if p.Name == "ours" && r.Left != 0 {
						t.Fatalf("%d tasks never ran\n%+v", r.Left, w)
					}
					sum[p.Name] += r.Sum / ours.Sum / each
					last[p.Name] += r.Makespan / ours.Makespan / each
					if ours.Sum <= r.Sum {
						won[p.Name]++
					}
				}
			}
			for _, p := range Policies[1:] {
				t.Logf("%-14s sum %.2f, makespan %.2f times ours; ours has the smaller sum in %d of %d", p.Name, sum[p.Name], last[p.Name], won[p.Name], each)
				least := 1.0
				if f.local && p.Name == "data-local" {
					least = 0.97
				}
				if sum[p.Name] < least || last[p.Name] < least {
					t.Errorf("%s has %.3f of our sum and %.3f of our makespan", p.Name, sum[p.Name], last[p.Name])
				}
			}
		})
	}
}
