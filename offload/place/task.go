package place

import (
	"time"

	"quernfs/offload/place/predict"
)

// ID names a task.
type ID struct {
	Job uint64
	N   uint32
}

// Objective is what is minimised for the tasks of a job.
type Objective uint8

// The objectives.
const (
	Sum      Objective = iota // of the times until each task ends
	Makespan                  // the time until the last one ends
)

// Task waits for a place.
type Task struct {
	ID           ID
	User         string // whose share it counts against
	Alternatives []Alternative
	Bytes        uint64          // of its inputs
	Local        []Held          // where its inputs lie; a host at most once
	Output       uint64          // bytes that it is expected to write
	Avoid        []uint32        // agents on which it failed: only if no other could run it
	Shun         []string        // runtimes with which it failed, likewise
	Nodes        map[uint32]bool // only these agents; nil: any
	Ordered      bool            // the first of Alternatives are preferred
	Simulated    bool            // simulated devices are allowed
	Strict       bool            // only on hosts that hold as much of its input as any
	Gang         int             // so many tasks of the job start together or not at all; 0: each for itself
	Priority     int             // before the user's other jobs of lower priority
	Share        float64         // weight among the user's jobs; 0: 1
	Age          time.Duration   // since a task of its job was last started, or the job began to wait
	Objective    Objective
}

// Held is how many bytes of a task's inputs lie on a host.
type Held struct {
	Host  string
	Bytes uint64
}

// Alternative is one way to run a task: a variant of its kernel.
type Alternative struct {
	Runtime string
	Kernel  string // what its run times are learned under
	Digest  string // of the variant's file; see Device.Differs
	Class   string // only devices of this class; "": any that has the runtime
	Need    Amount // zero: OneSlot
	WarmUp  time.Duration
	Hint    predict.Hint
}

func (a *Alternative) need() Amount {
	if a.Need == (Amount{}) {
		return OneSlot
	}
	return a.Need
}

// held is how many of the task's bytes lie on a host.
func (t *Task) held(host string) uint64 {
	for _, h := range t.Local {
		if h.Host == host {
			return min(h.Bytes, t.Bytes)
		}
	}
	return 0
}
