package offload

import (
	"errors"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// straggler is a rig in which a job's only task runs on p and is late, and q has
// been given a second attempt of it.
func straggler(t *testing.T, cfg SchedulerConfig, more string) (r *rig, stop func(), id uint64, p, q *puppet, first, second *wire.Assignment) {
	t.Helper()
	r = newRig(t)
	cfg.LateAfter = 10 * time.Millisecond
	stop = r.lead(cfg)
	p = &puppet{r: r, node: r.addNode("agent", "p", "h1")}
	q = &puppet{r: r, node: r.addNode("agent", "q", "h2")}
	// The kernel is known to take a millisecond.
	known := bigTasks(r, "known", 20, "")
	for range 20 {
		if err := p.end(p.get(1)[0], StateSucceeded, 0); err != nil {
			t.Fatal(err)
		}
	}
	r.wait(known)
	id = bigTasks(r, "late", 1, more)
	first = p.get(1)[0]
	second = q.get(1)[0]
	if second.Task.Job != id || second.Task.Attempt != first.Task.Attempt+1 || second.Task.Agent != q.node {
		t.Fatalf("first %v\nsecond %v", first.Task, second.Task)
	}
	return r, stop, id, p, q, first, second
}

func (p *puppet) stops(s *wire.Assignment) {
	p.r.t.Helper()
	p.r.until("it is told to stop", func() bool {
		reply, err := p.poll(p.r.t.Context(), 0, 200)
		if err != nil {
			return false
		}
		for _, x := range reply.Stop {
			if x.Job == s.Task.Job && x.N == s.Task.N && x.Attempt == s.Task.Attempt {
				return true
			}
		}
		return false
	})
}

func TestSecondWins(t *testing.T) {
	r, _, id, p, q, first, second := straggler(t, SchedulerConfig{}, "")
	if err := q.end(second, StateSucceeded, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := q.poll(t.Context(), 0, 0); err != nil {
		t.Fatal(err)
	}
	p.stops(first)
	if err := p.end(first, StateSucceeded, 0); !errors.Is(err, wire.Stale) {
		t.Errorf("the loser commits: %v", err)
	}
	if job, tasks := r.wait(id); job.State != StateSucceeded || tasks[0].Attempt != 2 || tasks[0].Agent != q.node || tasks[0].Second != nil {
		t.Errorf("%s: %v", job.State, tasks[0])
	}
}

func TestFirstWins(t *testing.T) {
	r, _, id, p, q, first, second := straggler(t, SchedulerConfig{}, "")
	if err := p.end(first, StateSucceeded, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.poll(t.Context(), 0, 0); err != nil {
		t.Fatal(err)
	}
	q.stops(second)
	if err := q.end(second, StateSucceeded, 0); !errors.Is(err, wire.Stale) {
		t.Errorf("the loser commits: %v", err)
	}
	if job, tasks := r.wait(id); job.State != StateSucceeded || tasks[0].Attempt != 1 {
		t.Errorf("%s: %v", job.State, tasks[0])
	}
}

// TestSecondFails: the first goes on; a third attempt does not take the number
// of the second.
func TestSecondFails(t *testing.T) {
	r, _, id, p, q, first, second := straggler(t, SchedulerConfig{}, "retries: 0\n")
	if err := q.end(second, StateFailed, 1); err != nil {
		t.Fatal(err)
	}
	third := q.get(1)[0]
	if third.Task.Attempt != 3 {
		t.Errorf("%v", third.Task)
	}
	if err := q.end(second, StateSucceeded, 0); !errors.Is(err, wire.Stale) {
		t.Errorf("a failed attempt commits: %v", err)
	}
	if err := p.end(first, StateSucceeded, 0); err != nil {
		t.Fatal(err)
	}
	if job, _ := r.wait(id); job.State != StateSucceeded {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
}

// TestFirstIsLost: the second goes on alone, also under a new leader.
func TestFirstIsLost(t *testing.T) {
	cfg := SchedulerConfig{LostAfter: 300 * time.Millisecond}
	r, stop, id, p, q, first, second := straggler(t, cfg, "retries: 0\n")
	stop()
	r.lead(cfg)
	r.until("the first host is lost", func() bool {
		if _, err := q.poll(t.Context(), 0, 20); err != nil {
			return false
		}
		_, tasks, err := getJob(t.Context(), r, id, true)
		return err == nil && tasks[0].Attempt == 2 && tasks[0].Second == nil && tasks[0].State == StateRunning
	})
	if err := p.end(first, StateSucceeded, 0); !errors.Is(err, wire.Stale) {
		t.Errorf("the lost attempt commits: %v", err)
	}
	if reply, err := q.poll(t.Context(), 0, 20); err != nil || len(reply.Stop) != 0 {
		t.Errorf("%v, %v", reply, err)
	}
	if err := q.end(second, StateSucceeded, 0); err != nil {
		t.Fatal(err)
	}
	if job, tasks := r.wait(id); job.State != StateSucceeded || tasks[0].Agent != q.node {
		t.Errorf("%s: %v", job.State, tasks[0])
	}
}

// TestNoSpeculation: a job that does not want it gets no second attempt, though
// another that is as late does.
func TestNoSpeculation(t *testing.T) {
	r, _, _, p, q, _, second := straggler(t, SchedulerConfig{}, "")
	id := bigTasks(r, "alone", 1, "speculation: false\n")
	s := p.get(1)[0]
	if s.Task.Job != id {
		t.Fatalf("%v", s.Task)
	}
	if err := q.end(second, StatePending, 0); err != nil { // its host gives it back
		t.Fatal(err)
	}
	for range 2 { // the late one again and again, the other never
		again := q.get(1)[0]
		if again.Task.Job == id {
			t.Fatalf("a second attempt of %v", again.Task)
		}
		if err := q.end(again, StatePending, 0); err != nil {
			t.Fatal(err)
		}
	}
}
