package place

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"
)

func task(job uint64, n uint32, bytes uint64, local map[string]uint64) Task {
	return Task{ID: ID{job, n}, Runtime: "wasm", Bytes: bytes, Local: local}
}

func agent(node uint32, host string, slots int, busy ...time.Duration) Agent {
	return Agent{Node: node, Host: host, Runtimes: []string{"wasm"}, Slots: slots, Busy: busy}
}

func TestPlace(t *testing.T) {
	const mb = 1e6
	for _, c := range []struct {
		name   string
		tasks  []Task
		agents []Agent
		want   []Decision
	}{
		{"nothing", nil, nil, nil},
		{"no agents", []Task{task(1, 0, mb, nil)}, nil, nil},
		{"to the data", []Task{task(1, 0, 100*mb, map[string]uint64{"b": 100 * mb})},
			[]Agent{agent(1, "a", 1), agent(2, "b", 1)}, []Decision{{ID{1, 0}, 2}}},
		{"equal: the lower node", []Task{task(1, 0, mb, nil)},
			[]Agent{agent(2, "b", 1), agent(1, "a", 1)}, []Decision{{ID{1, 0}, 1}}},
		{"spread", []Task{task(1, 0, mb, nil), task(1, 1, mb, nil)},
			[]Agent{agent(1, "a", 2), agent(2, "b", 2)}, []Decision{{ID{1, 0}, 1}, {ID{1, 1}, 2}}},
		{"waits for the data's host when that is sooner",
			[]Task{task(1, 0, 1000*mb, map[string]uint64{"b": 1000 * mb})},
			[]Agent{agent(1, "a", 1), agent(2, "b", 0, time.Second)}, nil},
		{"does not wait when it is later",
			[]Task{task(1, 0, 1000*mb, map[string]uint64{"b": 1000 * mb})},
			[]Agent{agent(1, "a", 1), agent(2, "b", 0, time.Minute)}, []Decision{{ID{1, 0}, 1}}},
		{"another host after a failure", []Task{{ID: ID{1, 0}, Runtime: "wasm", Avoid: []uint32{1}}},
			[]Agent{agent(1, "a", 1), agent(2, "b", 1)}, []Decision{{ID{1, 0}, 2}}},
		{"the same host if it is the only one", []Task{{ID: ID{1, 0}, Runtime: "wasm", Avoid: []uint32{1}}},
			[]Agent{agent(1, "a", 1)}, []Decision{{ID{1, 0}, 1}}},
		{"only where the runtime is", []Task{{ID: ID{1, 0}, Runtime: "cuda"}, task(2, 0, mb, nil)},
			[]Agent{agent(1, "a", 4)}, []Decision{{ID{2, 0}, 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Place(c.tasks, c.agents, Default); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestPlaceProperties checks on random instances: no slot is given twice, no
// task starts twice or where it cannot run, the order of agents does not
// matter, and a slot stays empty only if every task that is left would end
// sooner elsewhere.
func TestPlaceProperties(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	for range 2000 {
		tasks, agents := instance(rnd)
		got := Place(tasks, agents, Default)
		if err := valid(tasks, agents, got); err != nil {
			t.Fatalf("seed %d: %v\ntasks %+v\nagents %+v\ngot %v", seed, err, tasks, agents, got)
		}
		shuffled := slices.Clone(agents)
		rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := Place(tasks, shuffled, Default); !slices.Equal(got, again) {
			t.Fatalf("seed %d: the order of agents changes the decisions", seed)
		}
	}
}

func instance(rnd *rand.Rand) (tasks []Task, agents []Agent) {
	hosts := 1 + rnd.Intn(6)
	for i := range hosts {
		a := agent(uint32(i+1), fmt.Sprint("h", i), rnd.Intn(4))
		for range rnd.Intn(3) {
			a.Busy = append(a.Busy, time.Duration(1+rnd.Intn(5000))*time.Millisecond)
		}
		if rnd.Intn(5) == 0 {
			a.Runtimes = append(a.Runtimes, "cuda")
		}
		agents = append(agents, a)
	}
	for i := range rnd.Intn(30) {
		bytes := uint64(rnd.Intn(1 << 30))
		x := task(uint64(i%3), uint32(i), bytes, map[string]uint64{fmt.Sprint("h", rnd.Intn(hosts)): bytes})
		if rnd.Intn(6) == 0 {
			x.Runtime = "cuda"
		}
		tasks = append(tasks, x)
	}
	return tasks, agents
}

func valid(tasks []Task, agents []Agent, got []Decision) error {
	left := map[uint32]int{}
	can := map[uint32]Agent{}
	for _, a := range agents {
		left[a.Node], can[a.Node] = a.Slots, a
	}
	byID := map[ID]Task{}
	for _, t := range tasks {
		byID[t.ID] = t
	}
	started := map[ID]bool{}
	for _, d := range got {
		t, ok := byID[d.Task]
		if !ok || started[d.Task] {
			return fmt.Errorf("%v starts twice or does not exist", d.Task)
		}
		started[d.Task] = true
		if !slices.Contains(can[d.Node].Runtimes, t.Runtime) {
			return fmt.Errorf("%v cannot run on %d", d.Task, d.Node)
		}
		if left[d.Node]--; left[d.Node] < 0 {
			return fmt.Errorf("node %d has too few slots", d.Node)
		}
	}
	for _, a := range agents {
		if left[a.Node] == 0 {
			continue
		}
		for _, t := range tasks {
			if started[t.ID] || !slices.Contains(a.Runtimes, t.Runtime) {
				continue
			}
			here := Default.Run(t.Bytes, t.Local[a.Host])
			sooner := false
			for _, b := range agents {
				if slices.Contains(b.Runtimes, t.Runtime) && Default.Run(t.Bytes, t.Local[b.Host]) < here {
					sooner = true
				}
			}
			if !sooner {
				return fmt.Errorf("%v waits though node %d has a slot and no host would be faster", t.ID, a.Node)
			}
		}
	}
	return nil
}

func TestInterleave(t *testing.T) {
	got := Interleave([][]Task{{{ID: ID{1, 0}}, {ID: ID{1, 1}}, {ID: ID{1, 2}}}, {{ID: ID{2, 0}}}})
	want := []ID{{1, 0}, {2, 0}, {1, 1}, {1, 2}}
	for i, x := range got {
		if x.ID != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}
