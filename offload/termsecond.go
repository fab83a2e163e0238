package offload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/place"
)

// A task that is late, by what was predicted of its run, gets a second attempt
// on another host if a slot there is idle (see meta/state/second.go for what
// becomes of the two).

// secondState is a second attempt under way.
type secondState struct {
	attempt   uint32
	agent     uint32
	host      string
	device    string
	runtime   string
	started   time.Time
	expect    time.Duration
	placement *wire.Placement
}

func secondOf(s *wire.SecondAttempt, now time.Time) *secondState {
	return &secondState{s.Attempt, s.Agent, s.Host, s.Device, s.Runtime, now, took(s.Placement), s.Placement}
}

func (s *secondState) id(x *wire.Task) attemptID { return attemptID{x.Job, x.N, s.attempt} }

// dropSecond forgets the second attempt of a task. mu is held.
func (t *term) dropSecond(x *taskState) {
	if x.second == nil {
		return
	}
	if a := t.agents[x.second.agent]; a != nil {
		delete(a.tasks, x.second.id(x.t))
	}
	x.t.LastAttempt = max(x.t.LastAttempt, x.second.attempt)
	x.second = nil
}

// goOn notes that one of two attempts has ended without success: the task goes
// on with the other. mu is held.
func (t *term) goOn(x *taskState, over, failures uint32) {
	s := x.second
	if over == s.attempt {
		t.dropSecond(x)
	} else {
		if a := t.agents[x.t.Agent]; a != nil {
			delete(a.tasks, x.id())
		}
		x.t.Attempt, x.t.Agent, x.t.Host, x.t.Device, x.t.Runtime, x.t.Placement = s.attempt, s.agent, s.host, s.device, s.runtime, s.placement
		x.started, x.expect, x.second = s.started, s.expect, nil
	}
	x.t.Failures = max(x.t.Failures, failures)
}

// attemptTask is the record of a task as the agent of one of its attempts is to
// see it.
func (x *taskState) attemptTask(attempt uint32) *wire.Task {
	t := shallowTask(x.t)
	if s := x.second; s != nil && attempt == s.attempt {
		t.Attempt, t.Agent, t.Host, t.Device, t.Runtime, t.Placement = s.attempt, s.agent, s.host, s.device, s.runtime, s.placement
	}
	return t
}

// device is what an attempt runs on, and with.
func (x *taskState) device(attempt uint32) (device, runtime string) {
	if s := x.second; s != nil && attempt == s.attempt {
		return s.device, s.runtime
	}
	return x.t.Device, x.t.Runtime
}

// since is when an attempt was started, and how long it was expected to take.
func (x *taskState) since(attempt uint32) (time.Time, time.Duration) {
	if s := x.second; s != nil && attempt == s.attempt {
		return s.started, s.expect
	}
	return x.started, x.expect
}

// late says whether the only attempt of a task has passed the 95th percentile of
// what was learned of its run.
func (x *taskState) late(least time.Duration, now time.Time) bool {
	p := x.t.Placement
	if x.second != nil || !x.active() || int(p.GetChosen()) >= len(p.GetPlaces()) {
		return false
	}
	c := p.Places[p.Chosen]
	return c.Source == learnedSource && now.Sub(x.started) > max(PlaceLate(c), least)
}

// stragglers are second attempts of tasks that are late, the latest first, on
// slots that starts leave idle. mu is held.
func (t *term) stragglers(agents []place.Agent, starts []start, now time.Time) (out []start) {
	var late []*taskState
	for _, a := range t.agents {
		for _, x := range a.tasks {
			j := t.jobs[x.t.Job]
			if j != nil && !j.stale && j.spec != nil && !j.spec.NoSpeculation && !j.job.Paused && x.late(t.s.cfg.LateAfter, now) {
				late = append(late, x)
			}
		}
	}
	if len(late) == 0 {
		return nil
	}
	slices.SortFunc(late, func(a, b *taskState) int {
		return cmp.Or(a.started.Compare(b.started), cmp.Compare(a.t.Job, b.t.Job), cmp.Compare(a.t.N, b.t.N))
	})
	type spot struct {
		node   uint32
		device string
	}
	taken := map[spot]int64{}
	for _, s := range starts {
		taken[spot{s.node, s.device}]++
	}
	for _, x := range late {
		j := t.jobs[x.t.Job]
		own := j.placeTask(x, t.hosts)
		p := t.of(t.pattern(j, x.t.Phase), &own)
		p.Gang = 0
		var others []place.Agent
		for _, a := range agents {
			a.Devices = slices.Clone(a.Devices)
			free := int64(0)
			for i := range a.Devices {
				d := &a.Devices[i]
				d.Free.Slots = max(0, d.Free.Slots-taken[spot{a.Node, d.Name}])
				free += d.Free.Slots
			}
			if free > 0 && a.Node != x.t.Agent {
				others = append(others, a)
			}
		}
		if len(others) == 0 {
			continue
		}
		plan := place.Place([]place.Task{p}, others, place.Options{Model: t.s.cfg.Model, Fit: t.s.known.fit, Rows: placeRows})
		for _, c := range plan.Starts() {
			if c.Cost.Total() < now.Sub(x.started) {
				taken[spot{c.Node, c.Device}]++
				out = append(out, start{x, c.Node, c.Device, runtimeName(p.Alternatives[c.Alt].Runtime), placementOf(&c, p.Alternatives), 0})
			}
		}
	}
	return out
}

// startSecond records a second attempt and hands it to the poll k.
func (t *term) startSecond(ctx context.Context, s start, k *parked, name string, now time.Time) error {
	t.mu.Lock()
	x := s.x
	first := x.t.Attempt
	next := &wire.Task{
		Job: x.t.Job, N: x.t.N, Attempt: wire.NextAttempt(x.t), State: StateRunning, Reason: fmt.Sprintf("attempt %d is late", first),
		Agent: s.node, Host: name, Device: s.device, Runtime: s.runtime, Placement: s.placement,
	}
	t.mu.Unlock()
	err := t.propose(ctx, &wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: next, Second: true}}})
	t.mu.Lock()
	defer t.mu.Unlock()
	j := t.jobs[next.Job]
	switch {
	case j == nil:
		return nil // it ended meanwhile
	case err != nil || !x.active() || x.t.Attempt != first || x.second != nil:
		j.stale = true // the record says what has become of it
		if errors.Is(err, wire.Stale) || errors.Is(err, wire.NotFound) {
			return nil
		}
		return err
	}
	x.second = &secondState{next.Attempt, s.node, name, s.device, s.runtime, now, took(s.placement), s.placement}
	x.t.LastAttempt = next.Attempt
	k.agent.tasks[x.second.id(x.t)] = x
	if t.parked[k] && !k.closed {
		k.give(j, x, next.Attempt)
	}
	t.s.log.Info("task is late: a second attempt", "job", next.Job, "task", next.N, "attempt", next.Attempt, "node", s.node)
	return nil
}
