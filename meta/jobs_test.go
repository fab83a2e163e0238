package meta

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// TestLimited: the limits are the administrator's, whatever a client sends, and
// nothing else of a command changes.
func TestLimited(t *testing.T) {
	submit := func(name string) *wire.Command {
		return &wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{Job: &wire.Job{Name: name}, Tasks: []*wire.Task{{}}, About: []uint64{3}, MaxOpen: 99}}}
	}
	limits := Limits{Jobs: 5, Tasks: 6, Bytes: 7, Ended: 8, TTL: 9}
	own := submit("a")
	want := proto.CloneOf(own.GetSubmitJob())
	want.MaxOpen, want.MaxTasks, want.MaxBytes, want.TtlNs = 5, 6, 7, 9
	if c := stamped(own, stamping{tree: fakeTree{}, limits: limits}).GetSubmitJob(); !proto.Equal(c, want) || own.GetSubmitJob().MaxOpen != 99 {
		t.Errorf("%v", c)
	}
	batch := &wire.Command{Op: &wire.Command_Batch{Batch: &wire.Batch{Commands: []*wire.Command{submit("b")}}}}
	if c := stamped(batch, stamping{tree: fakeTree{}, limits: limits}).GetBatch().Commands[0].GetSubmitJob(); c.MaxOpen != 5 {
		t.Errorf("in a batch: %v", c)
	}
	stage := &wire.Command{Op: &wire.Command_StageTasks{StageTasks: &wire.StageTasks{Id: 4, MaxTasks: 99}}}
	if c := stamped(stage, stamping{tree: fakeTree{}, limits: limits}).GetStageTasks(); c.Id != 4 || c.MaxTasks != 6 || c.MaxBytes != 7 {
		t.Errorf("%v", c)
	}
	task := &wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: &wire.Task{Job: 4}, MaxEnded: 99}}}
	if c := stamped(task, stamping{tree: fakeTree{}, limits: limits}).GetUpdateTask(); c.Task.Job != 4 || c.MaxEnded != 8 {
		t.Errorf("%v", c)
	}
	update := &wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: 4, MaxTasks: 99, MaxEnded: 99}}}
	if c := stamped(update, stamping{tree: fakeTree{}, limits: limits}).GetUpdateJob(); c.Id != 4 || c.MaxTasks != 6 || c.MaxBytes != 7 || c.MaxEnded != 8 {
		t.Errorf("%v", c)
	}
}

// TestResultTargets: the names that results get in a directory of the mount, and
// what had them, are claimed; who has it open is noted.
func TestResultTargets(t *testing.T) {
	tree := fakeTree{"job/5": 50, "results/5": 60, "60/a": 61}
	cmd := &wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{
		Task: &wire.Task{Job: 5}, OutIno: 70, Names: []string{"a", "b"},
		Provenance: []byte("p"), Files: []*wire.OutputFile{{Name: "a"}},
	}}}
	if got := showClaims(targets(cmd, tree)); got != "change 50, change 70, names 50 a, names 60 a b, victim 61" {
		t.Error(got)
	}
	u := stamped(cmd, stamping{tree: tree, open: func(ino uint64) []uint64 { return []uint64{ino, 3, 3} }}).GetUpdateTask()
	if len(u.OpenSessions) != 2 || u.OpenSessions[0] != 3 || u.OpenSessions[1] != 61 {
		t.Errorf("%v", u)
	}
	if u.OpenSessions = nil; !proto.Equal(u, cmd.GetUpdateTask()) {
		t.Errorf("%v has become %v", cmd, u)
	}
	below := proto.CloneOf(cmd) // in a directory below
	below.GetUpdateTask().ResultDir, tree["65/b"] = 65, 66
	if got := showClaims(targets(below, tree)); got != "change 50, change 70, names 50 a, names 65 a b, victim 66" {
		t.Error(got)
	}
	if u := stamped(below, stamping{tree: tree, open: func(ino uint64) []uint64 { return []uint64{ino} }}).GetUpdateTask(); len(u.OpenSessions) != 1 || u.OpenSessions[0] != 66 || u.ResultDir != 65 {
		t.Errorf("%v", u)
	}
	if got := showClaims(targets(&wire.Command{Op: &wire.Command_RemoveJob{RemoveJob: &wire.RemoveJob{Id: 5}}}, tree)); got != "change 5, change 50" {
		t.Error(got)
	}
}
