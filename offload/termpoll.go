package offload

import (
	"context"
	"time"

	"quernfs/internal/wire"
)

// parked is a poll that waits for something to say.
type parked struct {
	agent   *agentState
	free    int                // slots that have not been given away
	running map[attemptID]bool // what the agent says it runs
	reply   *wire.PollReply
	ready   chan struct{} // closed once reply is to be sent
	closed  bool
}

// poll answers an agent: at once if it has to stop something or was given
// something that did not reach it, else when there is a task for it, at the
// latest after p.wait_ms.
func (t *term) poll(ctx context.Context, p *wire.Poll, now time.Time) (*wire.PollReply, error) {
	t.mu.Lock()
	if !t.loaded {
		t.mu.Unlock()
		t.wake()
		return nil, wire.Errorf(wire.Unavailable, "poll", "", "this server has only begun to lead")
	}
	a := t.agent(p.Node)
	a.seen, a.runtimes, a.devices, a.slots, a.speed = now, p.Runtimes, p.Devices, int(p.Slots), float64(p.Speed)/100
	k := &parked{agent: a, free: int(p.Slots), running: map[attemptID]bool{}, reply: new(wire.PollReply), ready: make(chan struct{})}
	for _, r := range p.Running {
		id := attemptID{r.Job, r.N, r.Attempt}
		k.running[id] = true
		if x := a.tasks[id]; x != nil {
			if _, runtime := x.device(id.attempt); isDevice(runtime) {
				continue
			}
		}
		a.slots++
	}
	for _, e := range p.Ended {
		t.learn(e)
	}
	// What was given to this agent, but is not on its list, did not reach it; or
	// it could not report the end: then it runs the attempt again.
	for id, x := range a.tasks {
		if _, runtime := x.device(id.attempt); !k.running[id] && (k.free > 0 || isDevice(runtime)) {
			k.give(t.jobs[id.job], x, id.attempt)
		}
	}
	t.parked[k] = true
	t.check(k)
	t.mu.Unlock()
	t.wake()

	timer := time.NewTimer(time.Duration(min(p.WaitMs, 60_000)) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-k.ready:
	case <-timer.C:
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.parked, k)
	a.seen = time.Now()
	return k.reply, nil
}

// learn takes over how an attempt ended, as its agent tells; without a state
// the agent was told that the attempt was over already. mu is held.
func (t *term) learn(e *wire.EndedTask) {
	j := t.jobs[e.GetTask().GetJob()]
	if j == nil || int(e.Task.N) >= len(j.tasks) {
		return
	}
	x := j.task(e.Task.N)
	switch {
	case !x.runs(e.Task.Attempt):
	case e.State == "":
		j.stale = true
		delete(t.agent(x.attemptTask(e.Task.Attempt).Agent).tasks, attemptID{x.t.Job, x.t.N, e.Task.Attempt})
	default:
		if e.State == StateSucceeded {
			t.observe(j, x.attemptTask(e.Task.Attempt), ended{bytes: x.bytes, in: e.BytesIn, out: e.BytesOut, local: e.BytesLocal, remote: e.BytesRemote, timing: e.Timing, transfers: e.Transfers, modelled: time.Duration(e.DeviceNs)})
		}
		x.t.Memory, x.t.Ooms = e.Memory, e.Ooms
		if e.State == StateFailed {
			told := x.attemptTask(e.Task.Attempt)
			told.Inputs, told.State, told.Reason, told.Failures = nil, e.State, e.Reason, e.Failures
			j.untold = append(j.untold, told)
		}
		t.settle(j, x, e.Task.Attempt, e.State, e.Reason, e.Failures)
	}
}

// give puts an assignment into the reply. mu is held.
func (k *parked) give(j *jobState, x *taskState, attempt uint32) {
	if j == nil {
		return
	}
	if _, runtime := x.device(attempt); !isDevice(runtime) {
		k.free--
	}
	k.running[attemptID{x.t.Job, x.t.N, attempt}] = true
	task := x.attemptTask(attempt)
	if task.Phase == "reduce" && len(task.Inputs) == 0 {
		task.Inputs = j.parts()
	}
	k.reply.Start = append(k.reply.Start, &wire.Assignment{Job: j.job, Task: task})
}

// check marks the poll as ready if its reply says something, or if the agent
// runs what nobody wants any more. mu is held.
func (t *term) check(k *parked) {
	if k.closed {
		return
	}
	for id := range k.running {
		if k.agent.tasks[id] == nil {
			delete(k.running, id)
			k.reply.Stop = append(k.reply.Stop, &wire.RunningTask{Job: id.job, N: id.n, Attempt: id.attempt})
		}
	}
	if len(k.reply.Start)+len(k.reply.Stop) > 0 {
		k.closed = true
		close(k.ready)
	}
}

// release sends the polls that have become ready in a round.
func (t *term) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.parked {
		t.check(k)
	}
}
