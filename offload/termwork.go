package offload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"quernfs/internal/wire"
	"quernfs/offload/place"
)

const (
	// maxLost is how many attempts of a task may end by no fault of its own.
	maxLost = 20
	// overtime is how long past its time-out a running task is left to its agent.
	overtime = time.Minute
	// proposeLimit bounds one command of the scheduler.
	proposeLimit = 20 * time.Second
)

func (t *term) propose(ctx context.Context, cmd *wire.Command) error {
	ctx, cancel := context.WithTimeout(ctx, proposeLimit)
	defer cancel()
	cmd.Cred = rootCred
	_, err := t.view.Propose(ctx, cmd)
	return err
}

// afterFailure is the state of a task one of whose attempts has failed, and
// why. fault: it was the task's own.
func afterFailure(attempt, failures uint32, retries int, fault bool, reason string) (state, text string) {
	switch {
	case fault && failures > uint32(retries):
		if failures == 1 {
			return StateFailed, reason
		}
		return StateFailed, fmt.Sprintf("%s (the last of %d attempts that failed)", reason, failures)
	case attempt > failures+maxLost:
		return StateFailed, fmt.Sprintf("given up after %d attempts, %d of them lost; the last: %s", attempt, attempt-failures, reason)
	}
	return StatePending, fmt.Sprintf("to be tried again: attempt %d: %s", attempt, reason)
}

// lose puts back the tasks of agents that have not been heard of, and ends
// those that their agents let run too long.
func (t *term) lose(ctx context.Context, now time.Time) error {
	type loss struct {
		j    *jobState
		x    *taskState
		next *wire.Task
	}
	var losses []loss
	take := func(j *jobState, x *taskState, fault bool, reason string) {
		next := shallowTask(x.t)
		next.Inputs = nil // kept by the state machine
		if fault {
			next.Failures++
		}
		retries := 0
		if j.spec != nil {
			retries = j.spec.Retries
		}
		next.State, next.Reason = afterFailure(next.Attempt, next.Failures, retries, fault, reason)
		losses = append(losses, loss{j, x, next})
	}
	t.mu.Lock()
	for node, a := range t.agents {
		silent := now.Sub(a.seen)
		lost := silent > t.s.cfg.LostAfter && !t.isParked(a)
		for _, x := range a.tasks {
			j := t.jobs[x.t.Job]
			switch {
			case j == nil:
			case lost:
				take(j, x, false, fmt.Sprintf("host %s has not been heard of for %s", cmp.Or(x.t.Host, fmt.Sprint(x.t.Agent)), silent.Round(time.Second)))
			case j.spec != nil && now.Sub(x.started) > j.spec.Timeout+overtime:
				take(j, x, true, fmt.Sprintf("time-out: it runs for longer than %s", j.spec.Timeout))
			}
		}
		if lost && len(a.tasks) == 0 {
			delete(t.agents, node)
		}
	}
	t.mu.Unlock()
	slices.SortFunc(losses, func(a, b loss) int {
		return cmp.Or(cmp.Compare(a.next.Job, b.next.Job), cmp.Compare(a.next.N, b.next.N))
	})
	var errs []error
	for _, l := range losses {
		next := l.next
		err := t.propose(ctx, &wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: next}}})
		t.mu.Lock()
		if err != nil {
			l.j.stale = true
		} else {
			if l.x.active() && l.x.t.Attempt == next.Attempt {
				t.settle(l.j, l.x, next.State, next.Reason, next.Failures)
			}
			t.s.log.Info("task taken back", "job", next.Job, "task", next.N, "attempt", next.Attempt, "reason", next.Reason)
		}
		t.mu.Unlock()
		if err != nil && !errors.Is(err, wire.Stale) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (t *term) isParked(a *agentState) bool {
	for k := range t.parked {
		if k.agent == a {
			return true
		}
	}
	return false
}

// advance moves jobs on: to their reduce step, or to their end when a task
// has failed for good. Success is the state machine's own conclusion.
func (t *term) advance(ctx context.Context) error {
	var cmds []*wire.UpdateJob
	t.mu.Lock()
	for _, j := range t.jobs {
		if u := next(j); u != nil {
			cmds = append(cmds, u)
		} else if j.done == len(j.tasks) && len(j.tasks) > 0 {
			// All done, and still not ended: something was not as remembered.
			j.stale = true
		}
	}
	t.mu.Unlock()
	slices.SortFunc(cmds, func(a, b *wire.UpdateJob) int { return cmp.Compare(a.Id, b.Id) })
	var errs []error
	for _, u := range cmds {
		err := t.propose(ctx, &wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: u}})
		t.mu.Lock()
		if j := t.jobs[u.Id]; j != nil {
			j.stale = true
		}
		t.mu.Unlock()
		if err != nil && !errors.Is(err, wire.Stale) {
			errs = append(errs, err)
		}
	}
	if len(cmds) > 0 {
		t.wake()
	}
	return errors.Join(errs...)
}

// next is the update that a job needs now, or nil.
func next(j *jobState) *wire.UpdateJob {
	if j.stale || j.job.State == StateWaiting {
		return nil
	}
	if j.spec == nil {
		return &wire.UpdateJob{Id: j.job.Id, State: StateFailed, Reason: "its job file cannot be read by this version of quern"}
	}
	if len(j.tasks) == 0 && j.job.IfExists == wire.IfExists_SKIP {
		return &wire.UpdateJob{Id: j.job.Id, State: StateSucceeded, Reason: nothingToDo}
	}
	if len(j.tasks) == 0 {
		return &wire.UpdateJob{Id: j.job.Id, State: StateFailed, Reason: "it has no tasks"}
	}
	reduce := false
	for _, x := range j.tasks {
		reduce = reduce || x.t.Phase == "reduce"
		if x.t.State == StateFailed {
			what := fmt.Sprintf("task %d", x.t.N)
			if len(x.t.Inputs) == 1 {
				what += " (" + x.t.Inputs[0].Path + ")"
			}
			return &wire.UpdateJob{Id: j.job.Id, State: StateFailed, Reason: what + ": " + x.t.Reason}
		}
	}
	if j.spec.Reduce == nil || reduce || j.done < len(j.tasks) {
		return nil
	}
	task := &wire.Task{Phase: "reduce"}
	for _, x := range j.tasks {
		task.Inputs = append(task.Inputs, &wire.TaskInput{Path: partName(x.t.N)})
	}
	return &wire.UpdateJob{Id: j.job.Id, Event: fmt.Sprintf("map done: %s; now the reduce step", count(len(j.tasks), "task")), Tasks: []*wire.Task{task}}
}

// assign gives pending tasks to the polls that wait.
func (t *term) assign(ctx context.Context, now time.Time) error {
	hosts := map[uint32]string{}
	names := map[uint32]string{}
	for _, n := range t.view.Nodes() {
		hosts[n.GetNode().GetId()] = cmp.Or(n.GetNode().GetEndpoint().GetHost(), "node "+fmt.Sprint(n.GetNode().GetId()))
		names[n.GetNode().GetId()] = n.GetNode().GetName()
	}
	t.mu.Lock()
	agents, polls := t.offers(hosts, now)
	free := 0
	for _, a := range agents {
		free += a.Slots
	}
	var queues [][]place.Task
	byID := map[place.ID]*taskState{}
	jobs := make([]*jobState, 0, len(t.jobs))
	var alone []*wire.UpdateJob
	for _, j := range t.jobs {
		jobs = append(jobs, j)
	}
	slices.SortFunc(jobs, func(a, b *jobState) int {
		return cmp.Or(cmp.Compare(b.job.Priority, a.job.Priority), cmp.Compare(a.job.Id, b.job.Id))
	})
	var ordered []place.Task // of higher priorities
	urgency := int32(0)
	for _, j := range jobs {
		if j.job.Priority != urgency {
			ordered, queues, urgency = append(ordered, place.Interleave(queues)...), nil, j.job.Priority
		}
		if len(t.agents) == 0 && !j.alone && !j.stale && now.Sub(t.began) > t.s.cfg.LostAfter {
			j.alone = true
			alone = append(alone, &wire.UpdateJob{Id: j.job.Id, Reason: "waiting: no host that runs wasm is connected"})
		}
		if j.stale || j.spec == nil || free == 0 || j.job.Paused || j.job.State == StateWaiting {
			continue
		}
		// No more than could start, and some that may rather wait.
		var q []place.Task
		for _, n := range j.pending[:min(len(j.pending), 4*free)] {
			x := j.tasks[n]
			id := place.ID{Job: j.job.Id, N: n}
			byID[id] = x
			q = append(q, place.Task{ID: id, Runtime: "wasm", Bytes: x.bytes, Local: local(x.t, hosts), Avoid: avoid(x.t)})
		}
		queues = append(queues, q)
	}
	decisions := place.Place(append(ordered, place.Interleave(queues)...), agents, t.s.cfg.Model)
	t.mu.Unlock()

	var g errgroup.Group
	g.SetLimit(64)
	for _, u := range alone {
		g.Go(func() error {
			return t.propose(ctx, &wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: u}})
		})
	}
	for _, d := range decisions {
		g.Go(func() error {
			return t.startTask(ctx, d, byID[d.Task], polls[d.Node], names[d.Node], now)
		})
	}
	return g.Wait()
}

// offers are the agents as place wants them, and the poll of each that has
// slots. mu is held.
func (t *term) offers(hosts map[uint32]string, now time.Time) ([]place.Agent, map[uint32]*parked) {
	polls := map[uint32]*parked{}
	for k := range t.parked {
		if !k.closed && k.free > 0 {
			polls[k.agent.node] = k
		}
	}
	var out []place.Agent
	for node, a := range t.agents {
		o := place.Agent{Node: node, Host: cmp.Or(hosts[node], fmt.Sprint("node ", node)), Runtimes: a.runtimes}
		if k := polls[node]; k != nil {
			o.Slots = k.free
		}
		for _, x := range a.tasks {
			rest := t.s.cfg.Model.Run(x.bytes, 0) - now.Sub(x.started)
			o.Busy = append(o.Busy, max(rest, 10*time.Millisecond))
		}
		out = append(out, o)
	}
	return out, polls
}

// startTask records the next attempt of x and hands it to the poll k.
func (t *term) startTask(ctx context.Context, d place.Decision, x *taskState, k *parked, name string, now time.Time) error {
	next := shallowTask(x.t)
	next.Attempt++
	next.State, next.Reason = StateRunning, "running on "+cmp.Or(name, fmt.Sprint("node ", d.Node))
	next.Agent, next.Host, next.Device, next.StartedNs = d.Node, name, "cpu", 0
	update := shallowTask(next)
	update.Inputs = nil
	err := t.propose(ctx, &wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: update}}})
	t.mu.Lock()
	defer t.mu.Unlock()
	j := t.jobs[d.Task.Job]
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
	if i, found := slices.BinarySearch(j.pending, x.t.N); found {
		j.pending = slices.Delete(j.pending, i, i+1)
	}
	j.alone = false
	x.t, x.started = next, now
	k.agent.tasks[x.id()] = x
	if t.parked[k] && !k.closed {
		k.give(j, x)
	}
	// Else the poll has just ended; the agent's next one gets it.
	return nil
}

// local estimates how many of a task's bytes lie on each host.
func local(x *wire.Task, hosts map[uint32]string) map[string]uint64 {
	out := map[string]uint64{}
	for _, in := range x.Inputs {
		for _, s := range in.Servers {
			out[hosts[s]] += inputBytes(in) / uint64(len(in.Servers))
		}
	}
	return out
}

// avoid is the agent of an attempt that failed.
func avoid(x *wire.Task) []uint32 {
	if x.Failures > 0 && x.Agent != 0 {
		return []uint32{x.Agent}
	}
	return nil
}
