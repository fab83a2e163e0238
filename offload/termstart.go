package offload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"quernfs/internal/wire"
)

// startBatch is how many starts go into one command.
const startBatch = 128

// startAll records what a round has chosen, and hands it to the polls, by node:
// the urgent tasks first, those of one priority together.
func (t *term) startAll(ctx context.Context, starts []start, polls map[uint32]*parked, names map[uint32]string, now time.Time) error {
	var errs []error
	for len(starts) > 0 {
		n := 1
		for n < min(len(starts), startBatch) && starts[n].priority == starts[0].priority {
			n++
		}
		errs = append(errs, t.startTasks(ctx, starts[:n], polls, names, now))
		starts = starts[n:]
	}
	return errors.Join(errs...)
}

// startTasks records the next attempts of tasks in one command, and hands to its
// poll each that the state machine has accepted.
func (t *term) startTasks(ctx context.Context, starts []start, polls map[uint32]*parked, names map[uint32]string, now time.Time) error {
	next := make([]*wire.Task, len(starts))
	b := new(wire.Batch)
	t.mu.Lock()
	for i, s := range starts {
		next[i] = s.begin(names[s.node])
		update := shallowTask(next[i])
		update.Inputs = nil
		b.Commands = append(b.Commands, command(&wire.UpdateTask{Task: update}))
	}
	t.mu.Unlock()
	res, err := t.proposed(ctx, &wire.Command{Op: &wire.Command_Batch{Batch: b}})
	errs := resultsOf(res, err, len(starts))
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []error
	for i, s := range starts {
		if err := t.started(s, next[i], errs[i], polls[s.node], now); err != nil {
			out = append(out, err)
		}
	}
	return errors.Join(out...)
}

// begin is the record of a task whose next attempt starts on the host name.
func (s *start) begin(name string) *wire.Task {
	next := shallowTask(s.x.t)
	next.Attempt = wire.NextAttempt(s.x.t)
	next.LastAttempt = 0
	next.State, next.Reason = StateRunning, "running on "+cmp.Or(name, fmt.Sprint("node ", s.node))
	next.Agent, next.Host, next.Device, next.StartedNs = s.node, name, s.device, 0
	next.Runtime = s.runtime
	next.Placement = s.placement
	return next
}

// started notes that an attempt was recorded, err: that it was not. mu is held.
func (t *term) started(s start, next *wire.Task, err error, k *parked, now time.Time) error {
	x := s.x
	j := t.jobs[x.t.Job]
	if j == nil {
		return nil // it ended meanwhile
	}
	if err != nil {
		j.stale = true
		if errors.Is(err, wire.Stale) || errors.Is(err, wire.NotFound) {
			return nil
		}
		return err
	}
	j.starts(x.t.N)
	if j.queue != nil {
		j.queue.Take(x.t.N)
	}
	j.alone = false
	x.t, x.started = next, now
	x.expect = took(next.Placement)
	k.agent.tasks[x.id()] = x
	if t.parked[k] && !k.closed {
		k.give(j, x, next.Attempt)
	}
	// Else the poll has just ended; the agent's next one gets it.
	return nil
}

// resultsOf are the errors of the n commands of a batch; err is that of the batch.
func resultsOf(res *wire.Result, err error, n int) []error {
	if err == nil && len(res.GetResults()) != n {
		err = wire.Errorf(wire.Internal, "batch", "", "%d results of %d commands", len(res.GetResults()), n)
	}
	out := make([]error, n)
	for i := range out {
		if out[i] = err; err != nil {
			continue
		}
		if r := res.Results[i]; wire.Code(r.GetCode()) != wire.OK {
			out[i] = wire.Errorf(wire.Code(r.GetCode()), "batch", "", "%s", r.GetMessage())
		}
	}
	return out
}
