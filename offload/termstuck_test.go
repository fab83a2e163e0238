package offload

import (
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// TestStuck: a task that runs far longer than all before is begun anew, on another
// host if there is one, without the cost of a retry; and its old attempt cannot
// commit.
func TestStuck(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{StuckAfter: 50 * time.Millisecond})
	p := &puppet{r: r, node: r.addNode("agent", "a", "h1")}
	id := bigTasks(r, "job", stuckFrom+1, "")
	for range stuckFrom {
		if err := p.finish(p.get(1)[0], &wire.Timing{RunNs: 1e6}); err != nil {
			t.Fatal(err)
		}
	}
	hangs := p.get(1)[0]
	q := &puppet{r: r, node: r.addNode("agent", "b", "h2")}
	again := q.get(1)[0] // p keeps silent for less than LostAfter
	if again.Task.N != hangs.Task.N || again.Task.Attempt != hangs.Task.Attempt+1 || again.Task.Failures != 0 || again.Task.Second != nil {
		t.Fatalf("%+v", again.Task)
	}
	if err := p.end(hangs, StateSucceeded, 0); err == nil || wire.CodeOf(err) != wire.Stale {
		t.Errorf("the old attempt ends with %v", err)
	}
	if err := q.end(again, StateSucceeded, 0); err != nil {
		t.Fatal(err)
	}
	if job, tasks := r.wait(id); job.State != StateSucceeded || tasks[hangs.Task.N].Failures != 0 {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
}

// TestStuckLimit: for whom the learned time-out is, and that it doubles.
func TestStuckLimit(t *testing.T) {
	s := NewScheduler(SchedulerConfig{})
	ref := &wire.KernelRef{Name: "k", Digest: []byte{1}}
	for range stuckFrom {
		s.known.succeeded(ended{node: 1, kernel: variantKey(ref, ""), class: classCPU, bytes: 1 << 20, timing: &wire.Timing{RunNs: 1e9}})
	}
	tm := newTerm(s, nil)
	late := &wire.Place{Node: 1, RunUs: 1e6, P95Us: 20e6, Source: learnedSource} // late after 20 s
	for _, c := range []struct {
		name   string
		more   string
		change func(*taskState)
		want   time.Duration
	}{
		{"ten times", "timeout: 24h\n", nil, 200 * time.Second},
		{"at least a minute", "", func(x *taskState) { late.P95Us = 1e6 }, time.Minute},
		{"twice as much after a loss", "timeout: 24h\n", func(x *taskState) { x.t.Attempt = 2 }, 400 * time.Second},
		{"failures are no losses", "timeout: 24h\n", func(x *taskState) { x.t.Attempt, x.t.Failures = 3, 2 }, 200 * time.Second},
		{"never above the job's", "timeout: 3m\n", nil, 0},
		{"without speculation", "timeout: 24h\nspeculation: false\n", nil, 0},
		{"without input", "timeout: 24h\n", func(x *taskState) { x.bytes = 0 }, 0},
		{"with a second attempt", "timeout: 24h\n", func(x *taskState) { x.second = new(secondState) }, 0},
		{"not learned", "timeout: 24h\n", func(x *taskState) { late.Source = "hint" }, 0},
		{"another kernel", "timeout: 24h\n", func(x *taskState) { x.t.Runtime = "opencl" }, 0},
		{"a program", "timeout: 24h\n", func(x *taskState) { x.t.Phase = "exec" }, 0},
	} {
		late.P95Us, late.Source = 20e6, learnedSource
		x := &taskState{bytes: 1 << 20, t: &wire.Task{Job: 1, State: StateRunning, Attempt: 1, Agent: 1, Phase: "map", Placement: &wire.Placement{Places: []*wire.Place{late}}}}
		if c.change != nil {
			c.change(x)
		}
		head := "version: 1\nkernel: grep\ninputs: /x\n"
		if x.t.Phase == "exec" {
			head, x.t.Phase = strings.Replace(head, "kernel: grep", "exec: {argv: [a]}", 1), "map"
		}
		spec, err := jobfile.Parse([]byte(head + c.more))
		if err != nil {
			t.Fatal(err)
		}
		j := &jobState{spec: spec, job: &wire.Job{Id: 1, Kernels: []*wire.KernelRef{ref}}}
		if got := tm.limit(j, x); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
