package offload

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// jobState is one job that has not ended, as the term knows it.
type jobState struct {
	job     *wire.Job
	spec    *jobfile.Spec // nil: the job file cannot be read
	tasks   []*taskState  // by number
	pending []uint32      // numbers of pending tasks, in order
	done    int
	stale   bool // read the tasks again before deciding anything
	alone   bool // it has been told that no host can run it
}

// taskState is one task. The record's State, Attempt, Agent and Failures are
// kept up to date.
type taskState struct {
	t       *wire.Task
	bytes   uint64
	started time.Time // of the running attempt, as this term knows it
}

func (x *taskState) id() attemptID { return attemptID{x.t.Job, x.t.N, x.t.Attempt} }

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
	name     string
	runtimes []string
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

// refresh reads what may have changed: new jobs, the records of known ones,
// and the tasks of those that are marked.
func (t *term) refresh(now time.Time) error {
	if err := t.discover(now); err != nil {
		return err
	}
	t.mu.Lock()
	var ids []uint64
	for id := range t.jobs {
		ids = append(ids, id)
	}
	t.mu.Unlock()
	slices.Sort(ids)
	for _, id := range ids {
		job, _, err := t.read(id, false)
		if err != nil && !errors.Is(err, wire.NotFound) {
			return err
		}
		t.mu.Lock()
		j := t.jobs[id]
		if err != nil || Ended(job.State) {
			t.forget(j)
			t.mu.Unlock()
			continue
		}
		j.job = job
		reload := j.stale || int(job.Tasks) != len(j.tasks)
		t.mu.Unlock()
		if !reload {
			continue
		}
		job, tasks, err := t.read(id, true)
		if err != nil {
			return err
		}
		t.mu.Lock()
		t.load(job, tasks, now)
		t.mu.Unlock()
	}
	return nil
}

// discover finds jobs that the term does not know: new ones by their number,
// old ones that are tried again by looking through all, at a twentieth of the
// time at most.
func (t *term) discover(now time.Time) error {
	after := t.last
	if !now.Before(t.scanNext) {
		after = 0
	}
	begin := time.Now()
	for {
		ans, err := t.view.Query(&wire.Query{Cred: rootCred, Op: &wire.Query_ListJobs{ListJobs: &wire.ListJobs{After: after, Limit: 1000}}})
		if err != nil {
			return err
		}
		jobs := ans.GetJobs().GetJobs()
		for _, j := range jobs {
			after = j.Id
			t.last = max(t.last, j.Id)
			if Ended(j.State) {
				continue
			}
			t.mu.Lock()
			if t.jobs[j.Id] == nil {
				spec, _ := jobfile.Parse(j.Spec)
				t.jobs[j.Id] = &jobState{job: j, spec: spec, stale: true}
			}
			t.mu.Unlock()
		}
		if len(jobs) == 0 {
			break
		}
	}
	if !now.Before(t.scanNext) {
		t.scanNext = now.Add(max(tick, 20*time.Since(begin)))
	}
	return nil
}

func (t *term) read(id uint64, tasks bool) (*wire.Job, []*wire.Task, error) {
	ans, err := t.view.Query(&wire.Query{Cred: rootCred, Op: &wire.Query_GetJob{GetJob: &wire.GetJob{Id: id, Tasks: tasks}}})
	if err != nil {
		return nil, nil, err
	}
	jobs := ans.GetJobs().GetJobs()
	if ans.GetCode() != 0 || len(jobs) == 0 {
		return nil, nil, &wire.Error{Code: wire.NotFound, Op: "job", Object: strconv.FormatUint(id, 10)}
	}
	return jobs[0], ans.GetJobs().GetTasks(), nil
}

// load takes over a job's tasks as they were read. mu is held.
func (t *term) load(job *wire.Job, tasks []*wire.Task, now time.Time) {
	j := t.jobs[job.Id]
	if j == nil {
		return
	}
	old := j.tasks
	t.unlink(j)
	j.job, j.stale, j.done = job, false, 0
	j.tasks, j.pending = make([]*taskState, len(tasks)), nil
	for i, x := range tasks {
		s := &taskState{t: shallowTask(x), started: now}
		for _, in := range x.Inputs {
			s.bytes += in.Size
		}
		if i < len(old) && old[i].t.Attempt == x.Attempt {
			s.started = old[i].started
		}
		j.tasks[i] = s
		switch {
		case x.State == StatePending:
			j.pending = append(j.pending, uint32(i))
		case x.State == StateSucceeded:
			j.done++
		case s.active():
			t.agent(x.Agent).tasks[s.id()] = s
		}
	}
}

// shallowTask copies the record, so that its own fields can be changed.
func shallowTask(x *wire.Task) *wire.Task {
	return &wire.Task{
		Job: x.Job, N: x.N, Inputs: x.Inputs, State: x.State, Reason: x.Reason, Attempt: x.Attempt, Agent: x.Agent,
		Host: x.Host, Device: x.Device, StartedNs: x.StartedNs, Phase: x.Phase, Failures: x.Failures,
	}
}

// unlink takes a job's tasks away from the agents. mu is held.
func (t *term) unlink(j *jobState) {
	for _, x := range j.tasks {
		if a := t.agents[x.t.Agent]; a != nil {
			delete(a.tasks, x.id())
		}
	}
}

func (t *term) forget(j *jobState) {
	t.unlink(j)
	delete(t.jobs, j.job.Id)
}

// settle notes that the running attempt of x is over. mu is held.
func (t *term) settle(j *jobState, x *taskState, state, reason string, failures uint32) {
	if a := t.agents[x.t.Agent]; a != nil {
		delete(a.tasks, x.id())
	}
	x.t.State, x.t.Reason, x.t.Failures = state, reason, failures
	switch state {
	case StatePending:
		if i, found := slices.BinarySearch(j.pending, x.t.N); !found {
			j.pending = slices.Insert(j.pending, i, x.t.N)
		}
	case StateSucceeded:
		j.done++
	}
}
