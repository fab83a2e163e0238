package offload

import (
	"slices"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/place"
)

// jobState is one job that has not ended, as the term knows it.
type jobState struct {
	job      *wire.Job
	spec     *jobfile.Spec                  // nil: the job file cannot be read
	tasks    []*taskState                   // by number; nil: it waits, and is as those of its array
	alike    *wire.Task                     // what these are like
	pending  []uint32                       // numbers of pending tasks, in order
	queue    *place.Queue                   // the same as place wants them, or the first of them; nil: not made yet
	queued   int                            // numbers below have been put there
	variants map[string][]place.Alternative // by phase, as far as they do not change
	served   time.Time                      // when one of its tasks was last started, or it began to wait; zero: it has not
	done     int
	untold   []*wire.Task // that have failed, as their agents say, and of which the record may not know
	stale    bool         // read the tasks again before deciding anything
	alone    bool         // it has been told that no host can run it
}

// starts takes a task from those that are pending. Mostly it is the first, and
// there may be a hundred thousand.
func (j *jobState) starts(n uint32) {
	switch i, found := slices.BinarySearch(j.pending, n); {
	case !found:
	case i == 0:
		j.pending = j.pending[1:]
	default:
		j.pending = slices.Delete(j.pending, i, i+1)
	}
}

// taskState is one task. The record's State, Attempt, Agent and Failures are
// kept up to date.
type taskState struct {
	t       *wire.Task
	bytes   uint64
	started time.Time     // of the running attempt, as this term knows it
	expect  time.Duration // how long that was predicted to take
	second  *secondState  // beside it; nil: none
	hung    uint32        // the agent of an attempt that was taken back since it may have hung; 0: none
}

func (x *taskState) id() attemptID { return attemptID{x.t.Job, x.t.N, x.t.Attempt} }

// runs says whether an attempt is under way.
func (x *taskState) runs(attempt uint32) bool {
	return x.active() && (attempt == x.t.Attempt || x.second != nil && attempt == x.second.attempt)
}

// active says whether an attempt is under way.
func (x *taskState) active() bool {
	switch x.t.State {
	case StateStaging, StateRunning, StateCommitting:
		return true
	}
	return false
}

// agentState is one agent that has polled in this term, or that a running
// task names.
type agentState struct {
	node     uint32
	runtimes []string
	devices  []*wire.Device
	slots    int     // in all, by its last poll
	speed    float64 // of its processors; 0: not measured
	seen     time.Time
	tasks    map[attemptID]*taskState // under way there
}

func (t *term) agent(node uint32) *agentState {
	a := t.agents[node]
	if a == nil {
		a = &agentState{node: node, seen: t.began, tasks: map[attemptID]*taskState{}}
		t.agents[node] = a
	}
	return a
}

// resyncEvery is how often the tasks that have been under way for so long are
// looked at, in case an agent has ended a task and then itself, and so told nobody
// but the state machine.
const resyncEvery = 10 * time.Second

// doubt marks the jobs of which a task that has been under way for long is not so
// in the state machine. Only rounds call it.
func (t *term) doubt(now time.Time) error {
	if now.Sub(t.synced) <= resyncEvery {
		return nil
	}
	t.synced = now
	t.mu.Lock()
	old := map[attemptID]*taskState{}
	for _, a := range t.agents {
		for _, x := range a.tasks {
			if now.Sub(x.started) > resyncEvery {
				old[x.id()] = x
			}
		}
	}
	t.mu.Unlock()
	for id, x := range old {
		ans, err := t.view.Query(&wire.Query{Cred: rootCred, Op: &wire.Query_GetJob{GetJob: &wire.GetJob{Id: id.job, Tasks: true, First: id.n, Count: 1}}})
		if err != nil {
			return err
		}
		tasks := ans.GetJobs().GetTasks()
		t.mu.Lock()
		j := t.jobs[id.job]
		if j != nil && x.active() && (len(tasks) == 0 || tasks[0].State != x.t.State || tasks[0].Attempt != x.t.Attempt) {
			j.stale = true
		}
		t.mu.Unlock()
	}
	return nil
}

// refresh reads what may have changed: the jobs that have not ended, and the
// tasks of those that are new or marked.
func (t *term) refresh(now time.Time) error {
	jobs, err := t.view.Jobs()
	if err != nil {
		return err
	}
	if err := t.doubt(now); err != nil {
		return err
	}
	open := map[uint64]bool{}
	var reload []*wire.Job
	t.mu.Lock()
	for _, job := range jobs {
		open[job.Id] = true
		j := t.jobs[job.Id]
		if j == nil {
			spec, _ := jobfile.Parse(job.Spec)
			j = &jobState{spec: spec, stale: true}
			t.jobs[job.Id] = j
		}
		j.job = job
		if job.State != StateWaiting && (j.stale || int(job.Tasks) != len(j.tasks)) {
			reload = append(reload, job)
		}
	}
	for id, j := range t.jobs {
		if !open[id] {
			t.unlink(j)
			delete(t.jobs, id)
		}
	}
	t.mu.Unlock()
	for _, job := range reload {
		ans, err := t.view.Query(&wire.Query{Cred: rootCred, Op: &wire.Query_GetJob{GetJob: &wire.GetJob{Id: job.Id, Tasks: true, Recorded: true}}})
		if err != nil {
			return err
		}
		if a := ans.GetJobs(); len(a.GetJobs()) == 1 { // else it is gone
			t.mu.Lock()
			t.load(a.Jobs[0], a.Tasks, a.Template, now)
			t.mu.Unlock()
		}
	}
	return nil
}

// task is a task of a job.
func (j *jobState) task(n uint32) *taskState {
	x := j.tasks[n]
	if x == nil {
		x = &taskState{t: &wire.Task{Job: j.job.Id, N: n, Inputs: j.alike.GetInputs(), State: StatePending, Phase: "map"}, bytes: inputsSize(j.alike)}
		j.tasks[n] = x
	}
	return x
}

// load takes over a job's tasks as they were read: those that have a record, and
// what the others are like. mu is held.
func (t *term) load(job *wire.Job, tasks []*wire.Task, alike *wire.Task, now time.Time) {
	j := t.jobs[job.Id]
	if j == nil {
		return
	}
	old := j.tasks
	for _, x := range tasks {
		if x.N < job.Array {
			x.Inputs = alike.GetInputs()
		}
	}
	t.unlink(j)
	j.job, j.stale, j.done = job, false, 0
	if len(old) == 0 {
		t.remember(j, tasks)
	}
	j.tasks, j.pending, j.queue, j.queued = make([]*taskState, job.Tasks), nil, nil, 0
	j.alike = alike
	next := uint32(0)
	wait := func(upto uint32) {
		for ; next < upto; next++ {
			j.pending = append(j.pending, next)
		}
	}
	for _, x := range tasks {
		i := int(x.N)
		if i >= len(j.tasks) {
			continue
		}
		wait(x.N)
		next++
		s := &taskState{t: shallowTask(x), started: now, bytes: inputsSize(x)}
		if i < len(old) && old[i] != nil && old[i].t.Attempt == x.Attempt {
			s.started = old[i].started
		}
		s.expect = took(x.Placement)
		if i < len(old) && old[i] != nil && old[i].t.Attempt == x.Attempt && !old[i].active() && s.active() {
			// Its agent has told of the end since the record was read.
			s.t.State, s.t.Reason, s.t.Failures = old[i].t.State, old[i].t.Reason, old[i].t.Failures
		}
		j.tasks[i] = s
		second := x.Second
		switch x := s.t; {
		case x.State == StatePending:
			j.pending = append(j.pending, uint32(i))
		case x.State == StateSucceeded:
			j.done++
		case s.active():
			t.agent(x.Agent).tasks[s.id()] = s
			if second != nil {
				s.second = secondOf(second, now)
				t.agent(s.second.agent).tasks[s.second.id(x)] = s
			}
		}
	}
	wait(uint32(len(j.tasks)))
}

// inputsSize is how many bytes a task's inputs have.
func inputsSize(x *wire.Task) (n uint64) {
	for _, in := range x.Inputs {
		n += inputBytes(in)
	}
	return n
}

// shallowTask copies the record, so that its own fields can be changed.
func shallowTask(x *wire.Task) *wire.Task {
	return &wire.Task{
		Job: x.Job, N: x.N, Inputs: x.Inputs, State: x.State, Reason: x.Reason, Attempt: x.Attempt, Agent: x.Agent,
		Host: x.Host, Device: x.Device, StartedNs: x.StartedNs, Phase: x.Phase, Failures: x.Failures, Runtime: x.Runtime, Memo: x.Memo,
		Placement: x.Placement, LastAttempt: x.LastAttempt,
		Memory: x.Memory, Ooms: x.Ooms,
	}
}

// unlink takes a job's tasks away from the agents. mu is held.
func (t *term) unlink(j *jobState) {
	for _, x := range j.tasks {
		if x == nil {
			continue
		}
		if a := t.agents[x.t.Agent]; a != nil {
			delete(a.tasks, x.id())
		}
		t.dropSecond(x)
	}
}

// settle notes that an attempt of x which was under way is over. mu is held.
func (t *term) settle(j *jobState, x *taskState, attempt uint32, state, reason string, failures uint32) {
	if x.second != nil && state != StateSucceeded {
		t.goOn(x, attempt, failures)
		return
	}
	if a := t.agents[x.t.Agent]; a != nil {
		delete(a.tasks, x.id())
	}
	t.dropSecond(x)
	x.t.State, x.t.Reason, x.t.Failures = state, reason, failures
	switch state {
	case StatePending:
		if i, found := slices.BinarySearch(j.pending, x.t.N); !found {
			j.pending = slices.Insert(j.pending, i, x.t.N)
		}
		if j.queue != nil {
			j.queue.Put(j.placeTask(x, t.hosts), true)
		}
	case StateSucceeded:
		j.done++
	}
}

// parts are the inputs of a job's reduce task.
func (j *jobState) parts() []*wire.TaskInput {
	var tasks []*wire.Task
	for _, x := range j.tasks {
		if x != nil {
			tasks = append(tasks, x.t)
		}
	}
	return partsOf(tasks)
}
