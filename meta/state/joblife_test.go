package state

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// submitJob submits a job of n map tasks and returns the result.
func submitJob(r *rig, j *wire.Job, n int, maxOpen uint32) *wire.Result {
	op := &wire.SubmitJob{Job: j, MaxOpen: maxOpen}
	op.Staged, op.Tasks = stage(r, mapTasks(n))
	return r.do(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: op}})
}

func mustJob(t *testing.T, r *rig, id uint64) *wire.Job {
	t.Helper()
	j, err := r.s.Job(id)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestJobWaitsForOthers(t *testing.T) {
	r := newRig(t)
	a := submit(r, "a", "a", 1).Value
	id := submitJob(r, &wire.Job{Name: "b", Spec: []byte("b"), After: []*wire.After{{Job: a, Name: "a", When: "ok"}, {Job: a, Name: "c", When: "any"}}}, 0, 0).Value
	if j := mustJob(t, r, id); j.State != stateWaiting || j.Reason != "waiting for a, c (any)" {
		t.Errorf("%s: %s", j.State, j.Reason)
	}
	if got := updateJob(r, &wire.UpdateJob{Id: id, State: stateCancelled}); got != "ok" {
		t.Error(got)
	}
	if got := updateJob(r, &wire.UpdateJob{Id: id, State: statePending}); got != "ok" {
		t.Error(got)
	}
	if j := mustJob(t, r, id); j.State != stateWaiting || j.EndedNs != 0 {
		t.Errorf("a waiting job that is tried again is %s", j.State)
	}
	if got := updateJob(r, &wire.UpdateJob{Id: id, State: statePending, Reason: "go", Tasks: []*wire.Task{{Phase: "map"}}}); got != "ok" {
		t.Error(got)
	}
	expect(t, "after all have ended", jobState(t, r, id), "pending 0/1 failed=0")
	r.check()
}

func TestJobQuota(t *testing.T) {
	r := newRig(t)
	r.session = r.openSession("m")
	r.cred = &wire.Cred{Uid: 7, Gid: 7}
	for i := range 3 {
		want := "ok"
		if i == 2 {
			want = "code 20"
		}
		expect(t, fmt.Sprint("job ", i), codeName(submitJob(r, &wire.Job{Name: fmt.Sprint("j", i)}, 1, 2).Code), want)
	}
	expect(t, "one that exists", codeName(submitJob(r, &wire.Job{Name: "j1"}, 1, 2).Code), "ok")
	expect(t, "end of one", updateJob(r, &wire.UpdateJob{Id: 1, State: stateCancelled}), "ok")
	expect(t, "then", codeName(submitJob(r, &wire.Job{Name: "j2"}, 1, 2).Code), "ok")
	r.cred = &wire.Cred{Uid: 8}
	expect(t, "another user", codeName(submitJob(r, &wire.Job{Name: "k"}, 1, 2).Code), "ok")
	r.cred = &wire.Cred{}
	for i := range 4 {
		expect(t, "root", codeName(submitJob(r, &wire.Job{Name: fmt.Sprint("r", i)}, 1, 2).Code), "ok")
	}
	r.check()
}

func TestJobControl(t *testing.T) {
	r := newRig(t)
	id := submitJob(r, &wire.Job{Name: "a", Priority: 3, DeadlineAfterNs: int64(time.Minute)}, 1, 0).Value
	j := mustJob(t, r, id)
	if j.Priority != 3 || j.DeadlineNs != j.SubmittedNs+int64(time.Minute) {
		t.Errorf("%v", j)
	}
	updateJob(r, &wire.UpdateJob{Id: id, SetPriority: true, Priority: -5, Pause: true, Reason: "paused"})
	if j = mustJob(t, r, id); j.Priority != -5 || !j.Paused || j.Reason != "paused" || j.State != statePending {
		t.Errorf("%v", j)
	}
	updateJob(r, &wire.UpdateJob{Id: id, Resume: true})
	if j = mustJob(t, r, id); j.Priority != -5 || j.Paused {
		t.Errorf("%v", j)
	}
	updateJob(r, &wire.UpdateJob{Id: id, State: stateCancelled, Reason: "enough"})
	updateJob(r, &wire.UpdateJob{Id: id, Reason: "waiting: no host"}) // said at the same moment
	if j = mustJob(t, r, id); j.State != stateCancelled || j.Reason != "enough" {
		t.Errorf("%v", j)
	}
	r.check()
}

// TestResultDir: a result goes to a directory below the one that its job names, as
// long as that lies there and the job's owner may write to it.
func TestResultDir(t *testing.T) {
	r := newRig(t)
	mkdir := func(parent uint64, name string, uid uint32) uint64 {
		r.cred = &wire.Cred{Uid: uid}
		defer func() { r.cred = nil }()
		return r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: parent, Name: name, Mode: sIFDIR | 0o755, Exclusive: true}}}).Inode.Attr.Ino
	}
	out := mkdir(wire.RootIno, "out", 0)
	below, others, elsewhere := mkdir(out, "below", 0), mkdir(out, "others", 0), mkdir(wire.RootIno, "elsewhere", 0)
	for _, ino := range []uint64{out, below, elsewhere} {
		r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: ino, Mask: wire.SetUID, Uid: 7}}})
	}
	id := submitJob(r, &wire.Job{Name: "a", Cred: &wire.Cred{Uid: 7}, OutParent: out}, 1, 0).Value
	update := func(u *wire.UpdateTask) string {
		return codeName(r.do(&wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: u}}).Code)
	}
	expect(t, "its start", update(&wire.UpdateTask{Task: &wire.Task{Job: id, State: stateRunning, Attempt: 1}}), "ok")
	report := func(dir uint64) string {
		return update(&wire.UpdateTask{
			Task: &wire.Task{Job: id, State: stateSucceeded, Attempt: 1}, ResultDir: dir,
			Names: []string{"x"}, Files: []*wire.OutputFile{{Name: "x", Content: []byte("text")}},
		})
	}
	expect(t, "outside", report(elsewhere), "NotFound")
	expect(t, "of others", report(others), "Denied")
	expect(t, "gone", report(1<<40), "NotFound")
	expect(t, "below", report(below), "ok")
	if d, err := r.s.Entry(below, "x"); err != nil || d == nil {
		t.Errorf("%v, %v", d, err)
	}
	r.check()
}

// TestRemoveJob removes jobs of many tasks and outputs in steps; a file that has
// another name stays.
func TestRemoveJob(t *testing.T) {
	r := newRig(t)
	id := submitJob(r, &wire.Job{Name: "a", TtlNs: 500}, 2300, 0).Value
	remove := func() *wire.Result {
		return r.do(&wire.Command{Op: &wire.Command_RemoveJob{RemoveJob: &wire.RemoveJob{Id: id}}})
	}
	expect(t, "one that runs", codeName(remove().Code), "Busy")
	j := mustJob(t, r, id)
	dir := j.OutDir
	create := func(parent uint64, name string, mode uint32) uint64 {
		return r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: parent, Name: name, Mode: mode, Exclusive: true}}}).Inode.Attr.Ino
	}
	sub := create(dir, "sub", sIFDIR|0o755)
	deep := create(sub, "deep", sIFDIR|0o755)
	kept := create(deep, "kept", sIFREG|0o644)
	for i := range 1500 {
		create(sub, fmt.Sprint("f", i), sIFREG|0o644)
	}
	r.must(&wire.Command{Op: &wire.Command_Link{Link: &wire.Link{Ino: kept, NewParent: wire.RootIno, NewName: "kept"}}})
	updateJob(r, &wire.UpdateJob{Id: id, State: stateCancelled})
	j = mustJob(t, r, id)
	list := func(at int64) int {
		return len(r.ask(&wire.Query{Op: &wire.Query_ListJobs{ListJobs: &wire.ListJobs{DueNs: at, Limit: 10}}}).GetJobs().GetJobs())
	}
	if n := list(j.EndedNs + 500); n != 0 {
		t.Errorf("%d jobs are due before their time", n)
	}
	if n := list(j.EndedNs + 501); n != 1 {
		t.Errorf("%d jobs are due", n)
	}
	r.cred = &wire.Cred{Uid: 9}
	expect(t, "by another", codeName(remove().Code), "Perm")
	r.cred = nil
	steps := 0
	for {
		res := remove()
		steps++
		r.check()
		if res.Code != 0 || steps > 20 {
			t.Fatal(res, steps)
		}
		if res.Value == 0 {
			break
		}
	}
	if steps < 4 {
		t.Errorf("%d steps", steps)
	}
	expect(t, "then", codeName(remove().Code), "NotFound")
	if n := list(1 << 62); n != 0 {
		t.Errorf("%d jobs are due still", n)
	}
	if in, err := r.s.Inode(kept); err != nil || in.Attr.Nlink != 1 {
		t.Errorf("the file with another name: %v, %v", in, err)
	}
	if in, err := r.s.Inode(deep); err == nil {
		t.Errorf("a directory is left: %v", in)
	}
	expect(t, "the name is free", codeName(submitJob(r, &wire.Job{Name: "a", Spec: []byte("other")}, 1, 0).Code), "ok")
	r.check()
}

// TestResultsElsewhere has results go to a directory of the mount.
func TestResultsElsewhere(t *testing.T) {
	for _, how := range []string{"made", "small"} {
		for _, c := range []struct {
			exists wire.IfExists
			uid    uint32
			want   string
			size   uint64 // of the result called taken
		}{
			{wire.IfExists_REPLACE, 0, "ok", 3},
			{wire.IfExists_SKIP, 0, "ok", 0},
			{wire.IfExists_FAIL, 0, "Exists", 0},
			{wire.IfExists_REPLACE, 5, "Denied", 0},
		} {
			t.Run(fmt.Sprint(how, c.exists, c.uid), func(t *testing.T) {
				r := newRig(t)
				dir := r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: wire.RootIno, Name: "results", Mode: sIFDIR | 0o755, Exclusive: true}}}).Inode.Attr.Ino
				old := r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: dir, Name: "taken", Mode: sIFREG | 0o644, Exclusive: true}}}).Inode.Attr.Ino
				session := r.openSession("reader")
				id := submitJob(r, &wire.Job{Name: "a", OutParent: dir, IfExists: c.exists, Cred: &wire.Cred{Uid: c.uid}}, 2, 0).Value
				for n, name := range []string{"taken", "new"} {
					u := &wire.UpdateTask{Task: &wire.Task{Job: id, N: uint32(n), Attempt: 1, State: stateRunning}}
					r.must(&wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: u}})
					u = &wire.UpdateTask{Task: &wire.Task{Job: id, N: uint32(n), Attempt: 1, State: stateSucceeded}, Names: []string{name}, OpenSessions: []uint64{session}}
					if how == "small" {
						u.Files = []*wire.OutputFile{{Name: name, Content: []byte("new")}}
					} else {
						u.OutIno = r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: wire.OutputsIno, Name: fmt.Sprint("attempt", n), Mode: sIFDIR | 0o700, Exclusive: true}}}).Inode.Attr.Ino
						in := r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: u.OutIno, Name: name, Mode: sIFREG | 0o644, Exclusive: true}}}).Inode.Attr.Ino
						r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: in, Mask: wire.SetSize, Size: 3}}})
					}
					res := r.leader(&wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: u}})
					want := c.want
					if want == "Exists" && name == "new" {
						want = "ok"
					}
					expect(t, name, codeName(res.Code), want)
					if res.Code != 0 && !strings.Contains(res.Message, "result") {
						t.Errorf("%q", res.Message)
					}
					r.check()
				}
				d, err := r.s.Entry(dir, "taken")
				if err != nil {
					t.Fatal(err)
				}
				in, err := r.s.Inode(d.Ino)
				if err != nil || in.Attr.Size != c.size || (in.Attr.Ino == old) == (c.size > 0) {
					t.Errorf("the name that was taken: %v, %v", in, err)
				}
				if c.size > 0 {
					if in, err := r.s.Inode(old); err != nil || in.Attr.Nlink != 0 {
						t.Errorf("what was replaced, and is open: %v, %v", in, err)
					}
				}
				if d, _ := r.s.Entry(dir, "new"); (d != nil) != (c.uid == 0) {
					t.Errorf("the other result: %v", d)
				}
				if in, err := r.s.Inode(mustJob(t, r, id).OutDir); err != nil || in.Entries != 0 {
					t.Errorf("the job's own directory: %v, %v", in, err)
				}
			})
		}
	}
}
