package sim

import (
	"fmt"
	"slices"
	"strings"

	"quernfs/offload/place"
	"quernfs/offload/place/predict"
)

// Policy decides which tasks start now. It is given what package place is
// given.
type Policy struct {
	Name   string
	About  string
	decide func(tasks []place.Task, agents []place.Agent, o place.Options) []place.Choice
}

// Policies are those that can be compared; the first is ours.
var Policies = []Policy{
	{"ours", "package place: expected time decides", func(tasks []place.Task, agents []place.Agent, o place.Options) []place.Choice {
		return place.Place(tasks, agents, o).Starts()
	}},
	{"data-local", "only where most of a task's bytes lie on a host that can run it, in order of arrival", dataLocal},
	{"cheapest-host", "the device where the run itself is shortest, wherever the bytes lie, in order of arrival", cheapest},
}

// PolicyNamed finds a policy.
func PolicyNamed(name string) (Policy, error) {
	var names []string
	for _, p := range Policies {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Policy{}, fmt.Errorf("there is no policy %q; there are %s", name, strings.Join(names, ", "))
}

// spot is a device that the simple policies give tasks to.
type spot struct {
	agent *place.Agent
	dev   *place.Device
	free  int64
	mem   int64
}

func spots(agents []place.Agent) (out []spot) {
	for i := range agents {
		a := &agents[i]
		for k := range a.Devices {
			out = append(out, spot{a, &a.Devices[k], a.Devices[k].Free.Slots, 0})
		}
	}
	return out
}

// first gives each task in turn the best device by cost, and lets it wait if
// that has no room.
func first(tasks []place.Task, agents []place.Agent, o place.Options, cost func(*place.Task, *place.Alternative, *spot) (float64, bool)) (out []place.Choice) {
	all := spots(agents)
	memory := map[uint32]int64{}
	for i := range agents {
		memory[agents[i].Node] = agents[i].Free.Memory
	}
	free := int64(0)
	for i := range all {
		free += all[i].free
	}
	for i := range tasks {
		if free == 0 {
			break
		}
		t := &tasks[i]
		best, alt, least := -1, 0, 0.0
		for s := range all {
			for k := range t.Alternatives {
				if t.Alternatives[k].Class != all[s].dev.Class {
					continue
				}
				c, ok := cost(t, &t.Alternatives[k], &all[s])
				if ok && (best < 0 || c < least || c == least && all[s].free > all[best].free) {
					best, alt, least = s, k, c
				}
			}
		}
		if best < 0 {
			continue
		}
		s := &all[best]
		need := t.Alternatives[alt].Need
		if s.free == 0 || s.agent.Capacity.Memory > 0 && memory[s.agent.Node] < need.Memory {
			continue
		}
		s.free, free = s.free-1, free-1
		memory[s.agent.Node] -= need.Memory
		out = append(out, place.Choice{Task: t.ID, Now: true, Node: s.agent.Node, Device: s.dev.Name, Alt: alt})
	}
	return out
}

func dataLocal(tasks []place.Task, agents []place.Agent, o place.Options) []place.Choice {
	classes := map[string][]string{} // host → classes
	for i := range agents {
		for k := range agents[i].Devices {
			classes[agents[i].Host] = append(classes[agents[i].Host], agents[i].Devices[k].Class)
		}
	}
	return first(tasks, agents, o, func(t *place.Task, _ *place.Alternative, s *spot) (float64, bool) {
		mine, most := uint64(0), uint64(0)
		for _, h := range t.Local {
			if slices.ContainsFunc(t.Alternatives, func(a place.Alternative) bool { return slices.Contains(classes[h.Host], a.Class) }) {
				most = max(most, h.Bytes)
			}
			if h.Host == s.agent.Host {
				mine = h.Bytes
			}
		}
		return 0, mine == most
	})
}

func cheapest(tasks []place.Task, agents []place.Agent, o place.Options) []place.Choice {
	return first(tasks, agents, o, func(t *place.Task, alt *place.Alternative, s *spot) (float64, bool) {
		fit := o.Fit(predict.Key{Kernel: alt.Kernel, Class: s.dev.Class})
		return fit.Predict(t.Bytes, o.Model.Prior(*alt, *s.dev)).Median.Seconds() / s.dev.Speed, true
	})
}
