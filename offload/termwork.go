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
	_, err := t.proposed(ctx, cmd)
	return err
}

// proposed is propose for whom the result matters.
func (t *term) proposed(ctx context.Context, cmd *wire.Command) (*wire.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeLimit)
	defer cancel()
	cmd.Cred = rootCred
	return t.view.Propose(ctx, cmd)
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
		lost bool // it was not the task's fault
		hang bool // it may hang where it runs
	}
	var losses []loss
	take := func(j *jobState, x *taskState, attempt uint32, fault bool, reason string) {
		next := x.attemptTask(attempt)
		next.Inputs = nil // kept by the state machine
		if fault {
			next.Failures++
		}
		retries := 0
		if j.spec != nil {
			retries = j.spec.Retries
		}
		next.State, next.Reason = afterFailure(next.Attempt, next.Failures, retries, fault, reason)
		losses = append(losses, loss{j, x, next, !fault, false})
	}
	t.mu.Lock()
	for node, a := range t.agents {
		silent := now.Sub(a.seen)
		lost := silent > t.s.cfg.LostAfter && !t.isParked(a)
		for id, x := range a.tasks {
			j := t.jobs[x.t.Job]
			started, _ := x.since(id.attempt)
			switch {
			case j == nil:
			case lost:
				host := cmp.Or(x.attemptTask(id.attempt).Host, fmt.Sprint(node))
				take(j, x, id.attempt, false, fmt.Sprintf("host %s has not been heard of for %s", host, silent.Round(time.Second)))
			case j.spec != nil && now.Sub(started) > j.spec.Timeout+overtime:
				take(j, x, id.attempt, true, fmt.Sprintf("time-out: it runs for longer than %s", j.spec.Timeout))
			case now.Sub(started) > t.s.cfg.StuckAfter:
				if limit := t.limit(j, x); limit > 0 && now.Sub(started) > limit {
					take(j, x, id.attempt, false, fmt.Sprintf("it has run for %s, and 95 of 100 like it end within %s: it may hang", short(now.Sub(started)), short(PlaceLate(x.t.Placement.Places[x.t.Placement.Chosen]))))
					losses[len(losses)-1].hang = true
				}
			}
		}
		if lost && len(a.tasks) == 0 {
			delete(t.agents, node)
		}
	}
	t.mu.Unlock()
	slices.SortFunc(losses, func(a, b loss) int {
		return cmp.Or(cmp.Compare(a.next.Job, b.next.Job), cmp.Compare(a.next.N, b.next.N), cmp.Compare(a.next.Attempt, b.next.Attempt))
	})
	var errs []error
	for _, l := range losses {
		next := l.next
		err := t.propose(ctx, &wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: next}}})
		t.mu.Lock()
		if err != nil {
			l.j.stale = true
		} else {
			if l.x.runs(next.Attempt) {
				switch {
				case l.hang:
					l.x.hung = next.Agent
				case l.lost:
					t.s.known.lost(next.Agent)
				}
				t.settle(l.j, l.x, next.Attempt, next.State, next.Reason, next.Failures)
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

// advance moves jobs on to their reduce step, and ends those that cannot go on. That
// tasks have succeeded or failed is for the state machine to conclude from.
func (t *term) advance(ctx context.Context) error {
	if err := t.tell(ctx); err != nil {
		return err
	}
	var cmds []*wire.UpdateJob
	t.mu.Lock()
	for _, j := range t.jobs {
		if u := t.next(j); u != nil {
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

// tell records the failures that agents could tell the scheduler only.
func (t *term) tell(ctx context.Context) error {
	var untold []*wire.Task
	t.mu.Lock()
	for _, j := range t.inOrder() {
		untold = append(untold, j.untold...)
		j.untold = nil
	}
	t.mu.Unlock()
	var errs []error
	for _, x := range untold {
		_, tasks, err := queryJob(ctx, viewMeta{t.view}, &wire.GetJob{Id: x.Job, Tasks: true, First: x.N, Count: 1})
		if err == nil && len(tasks) == 1 && tasks[0].N == x.N && tasks[0].Attempt == x.Attempt && !Ended(tasks[0].State) {
			err = t.propose(ctx, &wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: x}}})
		}
		errs = append(errs, unlessOver(err))
	}
	return errors.Join(errs...)
}

// next is the update that a job needs now, or nil.
func (t *term) next(j *jobState) *wire.UpdateJob {
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
	if last := j.tasks[len(j.tasks)-1]; last != nil && last.t.Phase == "reduce" || !t.reduces(j) { // it comes last
		return nil
	}
	task := &wire.Task{Phase: "reduce"}
	if j.job.TasksFailed == 0 { // else the result is not that of the inputs
		memoiseReduce(j.spec, j.job, task, j.tasks)
	}
	what := "map done: " + count(int(j.job.TasksDone), "task")
	if n := j.job.TasksFailed; n > 0 {
		what += fmt.Sprintf(", %d failed", n)
	}
	return &wire.UpdateJob{Id: j.job.Id, Event: what + "; now the reduce step", Tasks: []*wire.Task{task}}
}

// reduces says whether the reduce step of a job is next: the state machine keeps a job
// going whose tasks have ended only if it is.
func (t *term) reduces(j *jobState) bool {
	return j.spec.Reduce != nil && j.job.TasksDone+j.job.TasksFailed == j.job.Tasks
}

// assign gives pending tasks to the polls that wait.
func (t *term) assign(ctx context.Context, now time.Time) error {
	hosts := map[uint32]string{}
	names := map[uint32]string{}
	programs := map[uint32]*wire.ExecOffer{}
	nodes := t.view.Nodes()
	for _, n := range nodes {
		hosts[n.GetNode().GetId()] = cmp.Or(n.GetNode().GetEndpoint().GetHost(), "node "+fmt.Sprint(n.GetNode().GetId()))
		names[n.GetNode().GetId()] = n.GetNode().GetName()
		programs[n.GetNode().GetId()] = n.GetNode().GetExec()
	}
	t.mu.Lock()
	t.hosts, t.programs, t.nodes, t.facts = hosts, programs, nodes, nil
	agents, polls := t.offers(now)
	offer := reachOf(agents)
	var alone []*wire.UpdateJob
	jobs := t.inOrder()
	for _, j := range jobs {
		if !j.alone && !j.stale && now.Sub(t.began) > t.s.cfg.LostAfter {
			if why := t.missing(j, offer); why != "" {
				j.alone = true
				alone = append(alone, &wire.UpdateJob{Id: j.job.Id, Reason: why})
			}
		}
	}
	var starts, seconds []start
	if len(polls) > 0 {
		starts = t.choose(t.waiting(jobs, agents, now), agents, now)
		seconds = t.stragglers(agents, starts, now)
	}
	t.mu.Unlock()

	var g errgroup.Group
	g.SetLimit(64)
	for _, u := range alone {
		g.Go(func() error {
			return t.propose(ctx, &wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: u}})
		})
	}
	for _, s := range seconds {
		g.Go(func() error {
			return t.startSecond(ctx, s, polls[s.node], names[s.node], now)
		})
	}
	err := t.startAll(ctx, starts, polls, names, now)
	return errors.Join(err, g.Wait())
}

// inOrder are the jobs by number. mu is held.
func (t *term) inOrder() []*jobState {
	jobs := make([]*jobState, 0, len(t.jobs))
	for _, j := range t.jobs {
		jobs = append(jobs, j)
	}
	slices.SortFunc(jobs, func(a, b *jobState) int { return cmp.Compare(a.job.Id, b.job.Id) })
	return jobs
}

// start is a task that is about to start.
type start struct {
	x         *taskState
	node      uint32
	device    string
	runtime   string
	placement *wire.Placement
	priority  int32
}

// choose places tasks. mu is held.
func (t *term) choose(tasks []place.Task, agents []place.Agent, now time.Time) (starts []start) {
	alts := alternativesOf(tasks)
	plan := place.Place(tasks, agents, place.Options{Model: t.s.cfg.Model, Fit: t.s.known.fit, Rows: placeRows})
	for i := range plan.Choices {
		if c := &plan.Choices[i]; c.Now {
			j := t.jobs[c.Task.Job]
			j.served = now
			starts = append(starts, start{j.task(c.Task.N), c.Node, c.Device, runtimeName(alts[c.Task][c.Alt].Runtime), placementOf(c, alts[c.Task]), j.job.Priority})
		}
	}
	slices.SortStableFunc(starts, func(a, b start) int { return cmp.Compare(b.priority, a.priority) })
	return starts
}

// lookAhead is how many tasks of all jobs explain looks at.
const lookAhead = 256

// look says where the next tasks of all jobs would go, and when, on which agents.
// mu is held.
func (t *term) look(now time.Time) (map[place.ID]*wire.Placement, []place.Agent) {
	agents, _ := t.offers(now)
	tasks := t.waiting(t.inOrder(), agents, now)
	alts := alternativesOf(tasks)
	out := map[place.ID]*wire.Placement{}
	for _, c := range place.Look(tasks, agents, lookAhead, place.Options{Model: t.s.cfg.Model, Fit: t.s.known.fit, Rows: placeRows}) {
		if c.Node != 0 {
			out[c.Task] = placementOf(&c, alts[c.Task])
		}
	}
	return out, agents
}

func alternativesOf(tasks []place.Task) map[place.ID][]place.Alternative {
	alts := make(map[place.ID][]place.Alternative, len(tasks))
	for i := range tasks {
		alts[tasks[i].ID] = tasks[i].Alternatives
	}
	return alts
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

// avoid is the agent of an attempt that failed, and its runtime, if that is one
// of several.
func avoid(x *wire.Task) (agents []uint32, runtimes []string) {
	if x.Failures > 0 && x.Agent != 0 {
		agents = []uint32{x.Agent}
		if onDevice(x) {
			runtimes = []string{x.Runtime}
		}
	}
	return agents, runtimes
}
