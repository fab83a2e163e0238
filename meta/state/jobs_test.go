package state

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"quernfs/internal/wire"
)

func submit(r *rig, name, spec string, tasks int, kernels ...string) *wire.Result {
	op := &wire.SubmitJob{Job: &wire.Job{Name: name, Spec: []byte(spec)}}
	op.Staged, op.Tasks = stage(r, mapTasks(tasks))
	for _, k := range kernels {
		op.Job.Kernels = append(op.Job.Kernels, &wire.KernelRef{Name: k})
	}
	return r.do(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: op}})
}

func mapTasks(n int) (tasks []*wire.Task) {
	for range n {
		tasks = append(tasks, &wire.Task{Phase: "map", Inputs: []*wire.TaskInput{{Path: "/in"}}})
	}
	return tasks
}

// stage puts aside what is too much for one command, and returns the rest.
func stage(r *rig, tasks []*wire.Task) (id uint64, rest []*wire.Task) {
	for first := uint32(0); len(tasks) > maxPiece; first += maxPiece {
		res := r.do(&wire.Command{Op: &wire.Command_StageTasks{StageTasks: &wire.StageTasks{Id: id, First: first, Tasks: tasks[:maxPiece]}}})
		if res.Code != 0 {
			r.tb.Fatal(res)
		}
		id, tasks = res.Value, tasks[maxPiece:]
	}
	return id, tasks
}

// task sends an update of a task; out is the attempt's directory, or 0.
func task(r *rig, job uint64, n, attempt uint32, state string, out uint64) string {
	res := r.do(&wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{
		Task: &wire.Task{Job: job, N: n, Attempt: attempt, State: state, Agent: 7}, OutIno: out,
	}}})
	return codeName(res.Code)
}

func updateJob(r *rig, op *wire.UpdateJob) string {
	return codeName(r.do(&wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: op}}).Code)
}

func jobState(t *testing.T, r *rig, id uint64) string {
	t.Helper()
	j, err := r.s.Job(id)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %d/%d failed=%d", j.State, j.TasksDone, j.Tasks, j.TasksFailed)
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func TestSubmitOnce(t *testing.T) {
	r := newRig(t)
	first := submit(r, "count", "a: 1", 2)
	if first.Code != 0 || !first.Created {
		t.Fatal(first)
	}
	if again := submit(r, "count", "a: 1", 2); again.Value != first.Value || again.Created || again.Code != 0 {
		t.Errorf("the same job again: %v", again)
	}
	expect(t, "another job of that name", codeName(submit(r, "count", "a: 2", 2).Code), "Exists")
	expect(t, "no name", codeName(submit(r, "", "a: 2", 2).Code), "Invalid")
	j, err := r.s.Job(first.Value)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256([]byte("a: 1")); string(j.Digest) != string(sum[:]) || j.Reason == "" || j.SubmittedNs == 0 {
		t.Errorf("job %v", j)
	}
	out, err := r.s.Inode(j.OutDir)
	if err != nil || out.Parent != wire.OutputsIno {
		t.Errorf("output directory %v %v", out, err)
	}
	a := r.ask(&wire.Query{Op: &wire.Query_ListJobs{ListJobs: &wire.ListJobs{Name: "count"}}})
	if n := len(a.GetJobs().Jobs); n != 1 {
		t.Errorf("%d jobs of that name", n)
	}
	a = r.ask(&wire.Query{Op: &wire.Query_GetJob{GetJob: &wire.GetJob{Id: first.Value, Tasks: true}}})
	if n := len(a.GetJobs().Tasks); n != 2 {
		t.Errorf("%d tasks", n)
	}
	r.check()
}

func TestAttempts(t *testing.T) {
	r := newRig(t)
	id := submit(r, "j", "x", 2).Value
	agent := r.openSession("agent")
	r.session = agent
	steps := []struct {
		n, attempt uint32
		state      string
		want       string
		job        string
	}{
		{0, 0, "running", "Stale", "pending 0/2 failed=0"},
		{0, 2, "running", "Stale", "pending 0/2 failed=0"},
		{0, 1, "staging", "ok", "running 0/2 failed=0"},
		{0, 1, "running", "ok", "running 0/2 failed=0"},
		{0, 1, "nonsense", "Invalid", "running 0/2 failed=0"},
		{0, 2, "running", "ok", "running 0/2 failed=0"}, // the first host is lost
		{0, 1, "succeeded", "Stale", "running 0/2 failed=0"},
		{0, 2, "pending", "ok", "running 0/2 failed=0"},
		{0, 2, "succeeded", "Stale", "running 0/2 failed=0"},
		{0, 3, "running", "ok", "running 0/2 failed=0"},
		{0, 3, "succeeded", "ok", "running 1/2 failed=0"},
		{0, 3, "succeeded", "Stale", "running 1/2 failed=0"},
		{0, 4, "running", "Stale", "running 1/2 failed=0"},
		{1, 1, "running", "ok", "running 1/2 failed=0"},
		{1, 1, "failed", "ok", "failed 1/2 failed=1"},
		{1, 1, "running", "Stale", "failed 1/2 failed=1"},
		{1, 2, "running", "Stale", "failed 1/2 failed=1"},
		{1, 0, "again", "ok", "pending 1/2 failed=0"},
		{1, 1, "running", "Stale", "pending 1/2 failed=0"},
		{1, 2, "running", "ok", "running 1/2 failed=0"},
		{1, 2, "succeeded", "ok", "succeeded 2/2 failed=0"},
		{9, 1, "running", "NotFound", "succeeded 2/2 failed=0"},
	}
	for i, s := range steps {
		if s.state == "again" {
			expect(t, fmt.Sprint("step ", i), updateJob(r, &wire.UpdateJob{Id: id, State: statePending}), s.want)
		} else {
			expect(t, fmt.Sprint("step ", i), task(r, id, s.n, s.attempt, s.state, 0), s.want)
		}
		expect(t, fmt.Sprint("job after step ", i), jobState(t, r, id), s.job)
		r.check()
	}
	jobs, err := r.s.Jobs()
	if err != nil || len(jobs) != 0 {
		t.Errorf("jobs that have not ended: %v %v", jobs, err)
	}
	done, err := r.s.Tasks(id, "succeeded")
	if err != nil || len(done) != 2 || done[0].StartedNs == 0 || done[0].EndedNs == 0 || len(done[0].Inputs) != 1 {
		t.Errorf("tasks that are done: %v %v", done, err)
	}
	r.replay(1 << 20)
}

// TestReasonOfFailure: whichever task ends last, the job says why one has failed.
func TestReasonOfFailure(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		name, last string
		want       string
	}{
		{"one", "succeeded", "task 1 (/in): "},
		{"two", "failed", "2 of 3 tasks failed; task 1 (/in): "},
	} {
		id := submitJob(r, &wire.Job{Name: c.name, OnFailure: wire.OnFailure_CONTINUE}, 3, 0).Value
		for n := range uint32(3) {
			expect(t, "starts", task(r, id, n, 1, "running", 0), "ok")
		}
		expect(t, "succeeds", task(r, id, 0, 1, "succeeded", 0), "ok")
		expect(t, "fails", task(r, id, 1, 1, "failed", 0), "ok")
		expect(t, "ends", task(r, id, 2, 1, c.last, 0), "ok")
		if j := mustJob(t, r, id); j.State != stateFailed || !strings.HasPrefix(j.Reason, c.want) {
			t.Errorf("%s: %s, %s", c.name, j.State, j.Reason)
		}
	}
	r.check()
	r.replay(1 << 20)
}

// TestOutputs: the outputs of the winning attempt appear with its success.
func TestOutputs(t *testing.T) {
	r := newRig(t)
	x := &script{rig: r, sessions: map[string]uint64{}, vars: map[string]string{}}
	res := submit(r, "j", "x", 3)
	id, out := res.Value, res.Inode.Attr.Ino
	run := func(line ...string) {
		t.Helper()
		if got := x.line(line); got != "ok" {
			t.Fatalf("%v: %s", line, got)
		}
	}
	for n, dir := range []string{"/a0", "/a1", "/a2"} {
		run("mkdir", dir, "0755")
		run("create", dir+"/same", "0644")
		run("mkdir", dir+"/sub", "0755")
		run("create", fmt.Sprintf("%s/sub/%d", dir, n), "0644")
		run("create", fmt.Sprintf("%s/part.%d", dir, n), "0644")
		expect(t, "start", task(r, id, uint32(n), 1, "running", 0), "ok")
	}
	expect(t, "first", task(r, id, 0, 1, "succeeded", x.ino("/a0")), "ok")
	expect(t, "late", task(r, id, 0, 1, "succeeded", x.ino("/a1")), "Stale")
	expect(t, "the job's own directory", task(r, id, 1, 1, "succeeded", out), "Invalid")
	expect(t, "an ancestor of it", task(r, id, 1, 1, "succeeded", wire.OutputsIno), "Invalid")
	expect(t, "no directory", task(r, id, 1, 1, "succeeded", x.ino("/a1/same")), "NotDir")
	expect(t, "not there", task(r, id, 1, 1, "succeeded", 1<<40), "NotFound")
	second := x.ino("/a1/same")
	expect(t, "second", task(r, id, 1, 1, "succeeded", x.ino("/a1")), "ok")
	expect(t, "outputs", x.line([]string{"ls", fmt.Sprint("@", out)}), "part.0 part.1 same sub")
	if d, err := r.s.Entry(out, "same"); err != nil || d.Ino != second {
		t.Errorf("the later file has not replaced the earlier: %v %v", d, err)
	}
	sub, err := r.s.Entry(out, "sub")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "merged", x.line([]string{"ls", fmt.Sprint("@", sub.Ino)}), "0 1")
	expect(t, "left", x.line([]string{"stat", "/a1", "nlink", "entries"}), "2 0")
	run("unlink", "/a2/same")
	run("mkdir", "/a2/same", "0755")
	expect(t, "a directory for a file", task(r, id, 2, 1, "succeeded", x.ino("/a2")), "Exists")
	expect(t, "nothing moved", x.line([]string{"ls", "/a2"}), "part.2 same sub")
	r.check()
	r.replay(1 << 20)
}

func TestReducePhase(t *testing.T) {
	r := newRig(t)
	id := submit(r, "j", "x", 1, "map", "reduce").Value
	task(r, id, 0, 1, "running", 0)
	task(r, id, 0, 1, "succeeded", 0)
	expect(t, "the maps are done", jobState(t, r, id), "running 1/1 failed=0")
	expect(t, "add", updateJob(r, &wire.UpdateJob{Id: id, Tasks: []*wire.Task{{Phase: "reduce"}}, Event: "reduce"}), "ok")
	expect(t, "with a reduce task", jobState(t, r, id), "running 1/2 failed=0")
	expect(t, "start", task(r, id, 1, 1, "running", 0), "ok")
	expect(t, "end", task(r, id, 1, 1, "succeeded", 0), "ok")
	expect(t, "done", jobState(t, r, id), "succeeded 2/2 failed=0")
	r.check()
}

func TestCancelAndRetry(t *testing.T) {
	r := newRig(t)
	r.cred = &wire.Cred{Uid: 1000}
	id := submit(r, "j", "x", 2).Value
	task(r, id, 0, 1, "running", 0)
	r.cred = &wire.Cred{Uid: 1001}
	expect(t, "not the owner", updateJob(r, &wire.UpdateJob{Id: id, State: "cancelled"}), "Perm")
	r.cred = &wire.Cred{Uid: 1000}
	expect(t, "cancel", updateJob(r, &wire.UpdateJob{Id: id, State: "cancelled", Reason: "no longer needed"}), "ok")
	expect(t, "cancelled", jobState(t, r, id), "cancelled 0/2 failed=0")
	expect(t, "late", task(r, id, 0, 1, "succeeded", 0), "Stale")
	expect(t, "cancel again", updateJob(r, &wire.UpdateJob{Id: id, State: "cancelled"}), "Stale")
	r.check()
	expect(t, "retry", updateJob(r, &wire.UpdateJob{Id: id, State: "pending"}), "ok")
	expect(t, "retried", jobState(t, r, id), "pending 0/2 failed=0")
	r.session = r.openSession("agent")
	expect(t, "the old attempt", task(r, id, 0, 1, "succeeded", 0), "Stale")
	expect(t, "the next", task(r, id, 0, 2, "running", 0), "ok")
	expect(t, "unknown state", updateJob(r, &wire.UpdateJob{Id: id, State: "odd"}), "Invalid")
	expect(t, "unknown job", updateJob(r, &wire.UpdateJob{Id: 99, State: "cancelled"}), "NotFound")
	r.check()
	r.replay(1 << 20)
}

// Small outputs come with the report: they are made if, and only if, it is
// accepted.
func TestSmallOutputs(t *testing.T) {
	r := newRig(t)
	res := r.do(&wire.Command{Cred: &wire.Cred{Uid: 7, Gid: 8}, Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{
		Job: &wire.Job{Name: "j", Cred: &wire.Cred{Uid: 7, Gid: 8}}, Tasks: []*wire.Task{{Phase: "map"}, {Phase: "map"}},
	}}})
	job := res.Value
	dir := res.Inode.Attr.Ino
	report := func(n, attempt uint32, state string, files ...*wire.OutputFile) string {
		return codeName(r.do(&wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{
			Task: &wire.Task{Job: job, N: n, Attempt: attempt, State: state, Agent: 7}, Files: files,
		}}}).Code)
	}
	file := func(name, content string) *wire.OutputFile {
		return &wire.OutputFile{Name: name, Content: []byte(content)}
	}
	content := func(name string) string {
		d, err := r.s.Entry(dir, name)
		if err != nil {
			return codeName(uint32(wire.CodeOf(err)))
		}
		in, err := r.s.Inode(d.Ino)
		if err != nil {
			t.Fatal(err)
		}
		a := in.Attr
		return fmt.Sprintf("%s size=%d uid=%d gid=%d mode=%o nlink=%d", in.Inline, a.Size, a.Uid, a.Gid, a.Mode, a.Nlink)
	}
	expect(t, "start", report(0, 1, stateRunning, file("early", "x")), "ok")
	expect(t, "an output of a task that runs", content("early"), "NotFound")
	expect(t, "too large", report(0, 1, stateSucceeded, file("a", string(make([]byte, wire.InlineMax+1)))), "Invalid")
	expect(t, "a name of two parts", report(0, 1, stateSucceeded, file("a/b", "x")), "Invalid")
	expect(t, "the end", report(0, 1, stateSucceeded, file("a", "one"), file("empty", "")), "ok")
	expect(t, "a", content("a"), "one size=3 uid=7 gid=8 mode=100644 nlink=1")
	expect(t, "empty", content("empty"), " size=0 uid=7 gid=8 mode=100644 nlink=1")
	expect(t, "the end again", report(0, 1, stateSucceeded, file("a", "two")), "Stale")
	expect(t, "a", content("a"), "one size=3 uid=7 gid=8 mode=100644 nlink=1")
	expect(t, "another task", report(1, 1, stateRunning), "ok")
	expect(t, "the same name", report(1, 1, stateSucceeded, file("a", "three")), "ok")
	expect(t, "a", content("a"), "three size=5 uid=7 gid=8 mode=100644 nlink=1")
	in, err := r.s.Inode(dir)
	if err != nil || in.Entries != 2 {
		t.Errorf("%d entries, %v", in.GetEntries(), err)
	}
	expect(t, "the job", jobState(t, r, job), "succeeded 2/2 failed=0")
	r.check()
}
