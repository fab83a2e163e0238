package state

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// TestCommandsStayShort: no command about a job of very many tasks reads or writes
// more than some thousand records, so that none holds up those behind it.
func TestCommandsStayShort(t *testing.T) {
	const (
		many      = 100_000
		mostKeys  = 3000
		mostBytes = 1 << 20
	)
	r := newRig(t)
	worst := map[string]int{}
	do := func(what string, c *wire.Command) *wire.Result {
		t.Helper()
		if n := proto.Size(c); n > mostBytes {
			t.Errorf("%s: a command of %d bytes", what, n)
		}
		res := r.do(c)
		if wire.Code(res.Code) != wire.OK {
			t.Fatalf("%s: %s %s", what, codeName(res.Code), res.Message)
		}
		keys := r.s.tx.wrote + r.s.tx.read
		if worst[what] = max(worst[what], keys); keys > mostKeys || r.s.tx.bytes > mostBytes {
			t.Errorf("%s: %d keys written, %d read, %d bytes", what, r.s.tx.wrote, r.s.tx.read, r.s.tx.bytes)
		}
		return res
	}
	kernels := []*wire.KernelRef{{Name: "a"}, {Name: "b"}}
	array := do("submit an array", &wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{
		Job: &wire.Job{Name: "array", Array: many, Kernels: kernels, OnFailure: wire.OnFailure_CONTINUE}, Template: &wire.Task{Inputs: []*wire.TaskInput{{Path: "/in"}}},
	}}}).Value
	var id uint64
	for first := 0; first < many; first += maxPiece {
		piece := mapTasks(min(maxPiece, many-first))
		id = do("stage", &wire.Command{Op: &wire.Command_StageTasks{StageTasks: &wire.StageTasks{Id: id, First: uint32(first), Tasks: piece}}}).Value
	}
	list := do("submit what was staged", &wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{
		Staged: id, Job: &wire.Job{Name: "list", Kernels: kernels, OnFailure: wire.OnFailure_CONTINUE}}}}).Value
	for _, job := range []uint64{array, list} {
		update := func(n, attempt uint32, state string) {
			do("a task is "+state, &wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{
				Task: &wire.Task{Job: job, N: n, Attempt: attempt, State: state}}}})
		}
		update(many-1, 1, stateRunning)
		update(many-1, 1, stateSucceeded)
		update(7, 1, stateRunning)
		update(7, 1, stateFailed)
		for _, state := range []string{stateFailed, statePending, stateCancelled, statePending} {
			do("the job is "+state, &wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: job, State: state}}})
			if j := mustJob(t, r, job); j.Tasks != many || j.TasksDone != 1 {
				t.Errorf("%s: %d tasks, %d done", state, j.Tasks, j.TasksDone)
			}
		}
		for n := range uint32(200) {
			update(n, 2-min(1, n^7), stateRunning)
			update(n, 2-min(1, n^7), stateSucceeded)
		}
		tasks, err := r.s.Tasks(job, statePending)
		if err != nil || len(tasks) != many-201 || tasks[0].N != 200 || len(tasks[0].Inputs) != 1 {
			t.Errorf("%d tasks wait, %v", len(tasks), err)
		}
		do("the job is cancelled", &wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: job, State: stateCancelled}}})
		for do("remove", &wire.Command{Op: &wire.Command_RemoveJob{RemoveJob: &wire.RemoveJob{Id: job}}}).Value == 1 {
		}
	}
	// What was staged and never submitted goes bit by bit.
	id = do("stage", &wire.Command{Op: &wire.Command_StageTasks{StageTasks: &wire.StageTasks{Tasks: mapTasks(maxPiece)}}}).Value
	for i := range uint32(3) {
		do("stage", &wire.Command{Op: &wire.Command_StageTasks{StageTasks: &wire.StageTasks{Id: id, First: maxPiece * (i + 1), Tasks: mapTasks(maxPiece)}}})
	}
	do("give up", &wire.Command{Op: &wire.Command_DropStaged{DropStaged: &wire.DropStaged{Id: id}}})
	for range 10 {
		do("anything", &wire.Command{Op: &wire.Command_ClearRefusal{ClearRefusal: new(wire.ClearRefusal)}})
	}
	if n := r.s.tx.counts[countDropped]; n != 0 {
		t.Errorf("what was staged under %d numbers is still there", n)
	}
	r.check()
	t.Log(worst)
}

// TestStagedTasks: a job appears with all tasks that its session has staged, and
// what a session has staged goes with it.
func TestStagedTasks(t *testing.T) {
	r := newRig(t)
	mine, other := r.openSession("a"), r.openSession("b")
	r.session, r.cred = mine, &wire.Cred{Uid: 5}
	send := func(op *wire.StageTasks) *wire.Result {
		return r.do(&wire.Command{Op: &wire.Command_StageTasks{StageTasks: op}})
	}
	id := send(&wire.StageTasks{Tasks: mapTasks(3)}).Value
	expect(t, "a gap", codeName(send(&wire.StageTasks{Id: id, First: 4, Tasks: mapTasks(1)}).Code), "Invalid")
	expect(t, "too many at once", codeName(send(&wire.StageTasks{Id: id, First: 3, Tasks: mapTasks(maxPiece + 1)}).Code), "Invalid")
	expect(t, "too many tasks", codeName(send(&wire.StageTasks{Id: id, First: 3, Tasks: mapTasks(2), MaxTasks: 4}).Code), "code 20")
	expect(t, "too many bytes", codeName(send(&wire.StageTasks{Id: id, First: 3, Tasks: mapTasks(2), MaxBytes: 20}).Code), "code 20")
	expect(t, "more", codeName(send(&wire.StageTasks{Id: id, First: 3, Tasks: mapTasks(2)}).Code), "ok")
	if _, err := r.s.Job(id); err == nil {
		t.Error("the job is there before it was submitted")
	}
	expect(t, "a task of no job", task(r, id, 0, 1, "running", 0), "NotFound")
	submit := func(name string) *wire.Result {
		return r.do(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{Staged: id, Job: &wire.Job{Name: name}, Tasks: mapTasks(1)}}})
	}
	r.session = other
	expect(t, "another session", codeName(submit("x").Code), "NotFound")
	r.session, r.cred = mine, &wire.Cred{Uid: 6}
	expect(t, "another user", codeName(submit("x").Code), "NotFound")
	r.cred = &wire.Cred{Uid: 5}
	if res := submit("x"); res.Value != id {
		t.Fatal(res)
	}
	if j := mustJob(t, r, id); j.Tasks != 6 || j.State != statePending {
		t.Errorf("%v", j)
	}
	expect(t, "twice", codeName(submit("y").Code), "NotFound")
	r.check()

	for range maxStaged {
		send(&wire.StageTasks{Tasks: mapTasks(700)})
	}
	expect(t, "too many at a time", codeName(send(&wire.StageTasks{Tasks: mapTasks(1)}).Code), "code 20")
	r.check()
	r.endSession(mine)
	r.check()
	r.session, r.cred = 0, nil
	for range 3 * maxStaged {
		r.newFile(fmt.Sprint("f", r.now))
	}
	tasks := 0
	if err := r.s.read(func(v *view) {
		v.prefix([]byte{kJob, jTask}, func([]byte, []byte) bool {
			tasks++
			return true
		})
	}); err != nil || tasks != 6 {
		t.Errorf("%d tasks are left, %v", tasks, err)
	}
	r.check()
	r.replay(1<<20, 3)
}

// jobModel is what a job is to be, in the simplest way: every task by itself.
type jobModel struct {
	id     uint64
	state  string
	tasks  []taskModel
	reduce bool // it has a second kernel
	keeps  bool // it goes on when a task fails
}

type taskModel struct {
	state        string
	attempt, top uint32 // top: the highest number given away
	reduce       bool
}

// TestJobModel gives random commands about jobs with arrays, lists and reduce steps,
// and compares every task with the model; QUERN_SEED repeats a run.
func TestJobModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("QUERN_SEED"); v != "" {
		seed, _ = strconv.ParseUint(v, 10, 64)
	}
	t.Log("QUERN_SEED=", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t)
	var jobs []*jobModel
	states := []string{stateRunning, stateSucceeded, stateSucceeded, stateFailed, statePending, stateCancelled, stateStaging}
	for i := range 1200 {
		switch x := rng.IntN(20); {
		case x == 0 && len(jobs) < 12 || len(jobs) == 0:
			jobs = append(jobs, newJobModel(r, rng, i))
		case x < 16:
			randomUpdate(t, r, rng, jobs[rng.IntN(len(jobs))], states[rng.IntN(len(states))])
		case x < 18:
			jobs[rng.IntN(len(jobs))].end(t, r, []string{stateFailed, stateCancelled, stateExpired}[rng.IntN(3)])
		case x == 18:
			jobs[rng.IntN(len(jobs))].retry(t, r)
		default:
			n := rng.IntN(len(jobs))
			if m := jobs[n]; ended(m.state) && rng.IntN(4) == 0 {
				r.must(&wire.Command{Op: &wire.Command_RemoveJob{RemoveJob: &wire.RemoveJob{Id: m.id}}})
				jobs = slices.Delete(jobs, n, n+1)
			}
		}
		for _, m := range jobs {
			m.compare(t, r)
		}
		if i%50 == 0 {
			r.check()
		}
		if t.Failed() {
			t.Fatalf("after %d commands", i+1)
		}
	}
	r.check()
	r.replay(1<<20, 1+rng.IntN(30))
}

func newJobModel(r *rig, rng *rand.Rand, i int) *jobModel {
	m := &jobModel{state: statePending, reduce: rng.IntN(2) == 0, keeps: rng.IntN(2) == 0}
	op := &wire.SubmitJob{Job: &wire.Job{Name: fmt.Sprint("j", i), Kernels: []*wire.KernelRef{{Name: "a"}}}}
	if m.reduce {
		op.Job.Kernels = append(op.Job.Kernels, &wire.KernelRef{Name: "b"})
	}
	if m.keeps {
		op.Job.OnFailure, op.Job.ReduceRest = wire.OnFailure_CONTINUE, m.reduce
	}
	n := 1 + rng.IntN(5)
	switch rng.IntN(3) {
	case 0:
		op.Job.Array, op.Template = uint32(n), &wire.Task{Inputs: []*wire.TaskInput{{Path: "/t"}}}
	case 1:
		op.Tasks = mapTasks(n)
	default:
		op.Staged = r.do(&wire.Command{Op: &wire.Command_StageTasks{StageTasks: &wire.StageTasks{Tasks: mapTasks(n - 1)}}}).Value
		op.Tasks = mapTasks(1)
	}
	m.tasks = make([]taskModel, n)
	for i := range m.tasks {
		m.tasks[i].state = statePending
	}
	m.id = r.must(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: op}}).Value
	return m
}

func (m *jobModel) count(state string) (n int) {
	for _, x := range m.tasks {
		if x.state == state {
			n++
		}
	}
	return n
}

// settle is the state of the job after a task has changed.
func (m *jobModel) settle(last string) {
	opened := slices.ContainsFunc(m.tasks, func(x taskModel) bool { return !ended(x.state) })
	done, failed := m.count(stateSucceeded), m.count(stateFailed)
	reduced := m.tasks[len(m.tasks)-1].reduce
	awaits := m.reduce && !reduced && (done == len(m.tasks) || m.keeps && done > 0 && done+failed == len(m.tasks))
	switch {
	case failed > 0 && !m.keeps:
		m.state = stateFailed
		for i := range m.tasks {
			if !ended(m.tasks[i].state) {
				m.tasks[i].state = stateCancelled
			}
		}
	case opened || awaits:
		if active(last) || done > 0 {
			m.state = stateRunning
		} else if ended(m.state) {
			m.state = statePending
		}
	case failed > 0:
		m.state = stateFailed
	case done < len(m.tasks):
		m.state = stateCancelled
	default:
		m.state = stateSucceeded
	}
}

func randomUpdate(t *testing.T, r *rig, rng *rand.Rand, m *jobModel, state string) {
	n := rng.IntN(len(m.tasks))
	x := &m.tasks[n]
	attempt := x.attempt
	if begin := rng.IntN(3) > 0; begin {
		attempt = x.top + 1
		if state != stateFailed && state != stateCancelled {
			state = stateRunning
		}
	}
	want := "ok"
	switch {
	case x.state == stateSucceeded || x.state == stateCancelled || x.state == stateExpired:
		want = "Stale"
	case ended(m.state):
		want = "Stale"
	}
	expect(t, fmt.Sprintf("job %d, task %d, attempt %d, %s", m.id, n, attempt, state), task(r, m.id, uint32(n), attempt, state, 0), want)
	if want != "ok" {
		return
	}
	x.state, x.attempt, x.top = state, attempt, max(x.top, attempt)
	m.settle(state)
	if awaits := m.reduce && !m.tasks[len(m.tasks)-1].reduce && !ended(m.state) && m.count(stateSucceeded) > 0 &&
		m.count(stateSucceeded)+m.count(stateFailed) == len(m.tasks); awaits {
		expect(t, "the reduce step", updateJob(r, &wire.UpdateJob{Id: m.id, Tasks: []*wire.Task{{Phase: phaseReduce}}}), "ok")
		m.tasks = append(m.tasks, taskModel{state: statePending, reduce: true, top: m.tasks[0].reduceTop(r, m.id)})
	}
}

// reduceTop is the attempt that a reduce step which was taken back had.
func (taskModel) reduceTop(r *rig, job uint64) uint32 {
	j, err := r.s.Job(job)
	if err != nil {
		r.tb.Fatal(err)
	}
	return j.ReduceAttempt
}

func (m *jobModel) end(t *testing.T, r *rig, state string) {
	want := "ok"
	if ended(m.state) {
		want = "Stale"
	}
	expect(t, "the end", updateJob(r, &wire.UpdateJob{Id: m.id, State: state}), want)
	if want != "ok" {
		return
	}
	m.state = state
	for i := range m.tasks {
		if !ended(m.tasks[i].state) {
			m.tasks[i].state = stateCancelled
		}
	}
}

func (m *jobModel) retry(t *testing.T, r *rig) {
	if !ended(m.state) || m.state == stateSucceeded {
		return
	}
	expect(t, "again", updateJob(r, &wire.UpdateJob{Id: m.id, State: statePending}), "ok")
	m.state = statePending
	if last := len(m.tasks) - 1; m.tasks[last].reduce && m.count(stateFailed) > 0 && m.count(stateSucceeded) < len(m.tasks) {
		if top := max(m.tasks[last].top, m.tasks[last].attempt); top != m.tasks[0].reduceTop(r, m.id) {
			t.Errorf("the reduce step had attempts up to %d, the job says %d", top, m.tasks[0].reduceTop(r, m.id))
		}
		m.tasks = m.tasks[:last]
	}
	for i := range m.tasks {
		if m.tasks[i].state != stateSucceeded {
			m.tasks[i].state = statePending
		}
	}
}

func (m *jobModel) compare(t *testing.T, r *rig) {
	t.Helper()
	j := mustJob(t, r, m.id)
	got := fmt.Sprintf("%s %d/%d failed=%d", j.State, j.TasksDone, j.Tasks, j.TasksFailed)
	want := fmt.Sprintf("%s %d/%d failed=%d", m.state, m.count(stateSucceeded), len(m.tasks), m.count(stateFailed))
	if got != want {
		t.Errorf("job %d: %s, the model says %s", m.id, got, want)
	}
	tasks, err := r.s.Tasks(m.id)
	if err != nil || len(tasks) != len(m.tasks) {
		t.Fatalf("job %d: %d tasks, the model has %d: %v", m.id, len(tasks), len(m.tasks), err)
	}
	for i, x := range tasks {
		if w := m.tasks[i]; x.State != w.state || x.Attempt != w.attempt || x.N != uint32(i) || (x.Phase == phaseReduce) != w.reduce || len(x.Inputs) == 0 && !w.reduce || x.Reason == "" {
			t.Errorf("job %d, task %d: %v, the model says %+v", m.id, i, x, w)
		}
	}
}
