package offload

import (
	"context"
	"errors"
	"io"
	"testing"

	"quernfs/internal/wire"
)

// opened is an OverlayFile as programs read and write one.
type opened struct {
	f   OverlayFile
	off int64
}

func (o *opened) Write(p []byte) (int, error) { return o.f.Write(context.Background(), p) }
func (o *opened) Read(p []byte) (int, error) {
	n, err := o.f.ReadAt(context.Background(), p, o.off)
	o.off += int64(n)
	return n, err
}

// TestRequests: the command line has what it needs through a mount, with the rights
// of who asks, and nothing else.
func TestRequests(t *testing.T) {
	r := newRig(t)
	r.write("/x", "text\n")
	o := NewOverlay(OverlayConfig{Files: r.files(), Meta: r})
	api, err := o.Lookup(t.Context(), rootCred, wire.ComputeIno, "api")
	if err != nil || api.Mode != typeReg|0o666 {
		t.Fatalf("%v, %v", api, err)
	}
	as := func(uid uint32) *MountMeta {
		f, err := o.Open(t.Context(), &wire.Cred{Uid: uid, Gid: uid}, api.Ino, true)
		if err != nil {
			t.Fatal(err)
		}
		return NewMountMeta(struct {
			io.Reader
			io.Writer
		}{&opened{f: f}, &opened{f: f}})
	}
	s := Submitter{Files: r.files(), Meta: r}
	id, err := s.Submit(t.Context(), &wire.Cred{Uid: 7, Gid: 7}, "mine", []byte("version: 1\nkernel: sha256sum\nparams: {key: secret}\ninputs: /x\n"))
	if err != nil {
		t.Fatal(err)
	}
	mine, other := as(7), as(8)
	for range 2 { // one open takes one request after the other
		if job, tasks, err := GetJob(t.Context(), mine, "mine"); err != nil || job.Id != id || len(job.Spec) == 0 || len(tasks) != 1 || len(tasks[0].Inputs) != 1 {
			t.Errorf("%v %v %v", job, tasks, err)
		}
	}
	if job, tasks, err := GetJob(t.Context(), other, "mine"); err != nil || len(job.Spec) > 0 || len(job.Kernels) > 0 || len(tasks) != 1 || len(tasks[0].Inputs) > 0 {
		t.Errorf("another sees %v %v %v", job, tasks, err)
	}
	if err := Cancel(t.Context(), other, rootCred, id, "no"); !errors.Is(err, wire.Denied) {
		t.Errorf("another's cancel: %v", err)
	}
	if _, err := RemoveJob(t.Context(), other, rootCred, id, 1); err == nil {
		t.Error("another forgets it")
	}
	command := func(m *MountMeta, c *wire.Command) error {
		_, err := m.Do(t.Context(), c)
		return err
	}
	for name, c := range map[string]*wire.Command{
		"a command of another kind": {Op: &wire.Command_Unlink{Unlink: &wire.Unlink{Parent: wire.RootIno, Name: "x"}}},
		"success":                   {Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: id, State: StateSucceeded}}},
		"a new beginning":           {Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: id, State: StatePending}}},
		"the report of a task":      {Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: &wire.Task{Job: id}}}},
	} {
		if err := command(mine, c); !errors.Is(err, wire.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := mine.Ask(t.Context(), &wire.Query{Op: &wire.Query_GetInode{GetInode: &wire.GetInode{Ino: wire.RootIno}}}); !errors.Is(err, wire.Invalid) {
		t.Errorf("an inode: %v", err)
	}
	// Tasks that come with a change are left out.
	if err := command(mine, &wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: id, SetPriority: true, Priority: 4, Tasks: []*wire.Task{{Phase: "map"}}}}}); err != nil {
		t.Error(err)
	}
	if job, tasks, err := getJob(t.Context(), r, id, true); err != nil || job.Priority != 4 || len(tasks) != 1 {
		t.Errorf("%v %v %v", job, tasks, err)
	}
	if err := Cancel(t.Context(), mine, rootCred, id, "enough"); err != nil {
		t.Error(err)
	}
	for _, raw := range []string{"", "x", "q\xff", "c\xff\xff"} {
		f := &opened{}
		f.f, err = o.Open(t.Context(), rootCred, api.Ino, true)
		if err != nil {
			t.Fatal(err)
		}
		_, werr := f.Write([]byte(raw))
		if answer, err := io.ReadAll(f); err != nil || werr == nil && (len(answer) == 0 || answer[0] != 1) {
			t.Errorf("%q: %v, %q, %v", raw, werr, answer, err)
		}
	}
}
