// Package place decides which task runs where. It is pure: no clock, no I/O,
// the same input gives the same decisions.
//
// The completion of a task on a host is predicted as
//
//	waiting for a slot + bytes that are not there / network + bytes / processing
//
// and each task in turn goes where that is earliest (list scheduling). A task
// whose best host is busy stays pending rather than start later elsewhere: there
// are no locality time-outs, expected time decides.
package place

import (
	"cmp"
	"slices"
	"time"
)

// ID names a task.
type ID struct {
	Job uint64
	N   uint32
}

// Task waits for a place.
type Task struct {
	ID      ID
	Runtime string
	Bytes   uint64            // of its inputs
	Local   map[string]uint64 // host → bytes of the inputs that lie there
	Avoid   []uint32          // agents on which it failed: only if no other could run it
}

// Agent offers slots.
type Agent struct {
	Node     uint32
	Host     string
	Runtimes []string
	Slots    int             // free now
	Busy     []time.Duration // for each running task: predicted time until it ends
}

// Decision starts a task now.
type Decision struct {
	Task ID
	Node uint32
}

// Model has the rates behind the predictions, in bytes a second.
type Model struct {
	Network float64       // fetching from another host
	Process float64       // reading locally and computing
	Start   time.Duration // of any task
}

// Default is the model before anything has been measured.
var Default = Model{Network: 100e6, Process: 50e6, Start: 20 * time.Millisecond}

// Run predicts how long a task runs that starts on a host with local of its
// bytes.
func (m Model) Run(bytes, local uint64) time.Duration {
	local = min(local, bytes)
	s := float64(bytes)/m.Process + float64(bytes-local)/m.Network
	return m.Start + time.Duration(s*float64(time.Second))
}

// Place decides which of the tasks start now. Tasks come in the order in which
// they should be served (see Interleave); agents in any order.
func Place(tasks []Task, agents []Agent, m Model) []Decision {
	agents = slices.Clone(agents)
	slices.SortFunc(agents, func(a, b Agent) int { return cmp.Compare(a.Node, b.Node) })
	free := 0
	slots := make([][]time.Duration, len(agents)) // when each slot is free, earliest first
	for i, a := range agents {
		slots[i] = append(make([]time.Duration, a.Slots), a.Busy...)
		slices.Sort(slots[i])
		free += a.Slots
	}
	var out []Decision
	for _, t := range tasks {
		if free == 0 {
			break
		}
		best, avoided := -1, false
		var bestEnd time.Duration
		for i, a := range agents {
			if len(slots[i]) == 0 || !slices.Contains(a.Runtimes, t.Runtime) {
				continue
			}
			avoid := slices.Contains(t.Avoid, a.Node)
			if best >= 0 && avoid && !avoided {
				continue
			}
			end := slots[i][0] + m.Run(t.Bytes, t.Local[a.Host])
			if best < 0 || avoided && !avoid || end < bestEnd || end == bestEnd && used(slots[i]) < used(slots[best]) {
				best, bestEnd, avoided = i, end, avoid
			}
		}
		if best < 0 {
			continue
		}
		if slots[best][0] == 0 {
			out = append(out, Decision{t.ID, agents[best].Node})
			free--
		}
		slots[best][0] = bestEnd
		slices.Sort(slots[best])
	}
	return out
}

// used is how many slots are taken.
func used(slots []time.Duration) (n int) {
	for _, s := range slots {
		if s > 0 {
			n++
		}
	}
	return n
}

// Interleave orders tasks so that jobs take turns: the first of each job, then
// the second of each, and so on; within a round the older job comes first.
func Interleave(jobs [][]Task) []Task {
	var out []Task
	for i := 0; ; i++ {
		any := false
		for _, j := range jobs {
			if i < len(j) {
				out, any = append(out, j[i]), true
			}
		}
		if !any {
			return out
		}
	}
}
