package offload

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
	"quernfs/meta/state"
)

// remembered is how many tasks of a job took over a result.
func remembered(tasks []*wire.Task) (n int) {
	for _, t := range tasks {
		if t.MemoJob != 0 {
			n++
		}
	}
	return n
}

func (r *rig) xattr(ino uint64, name string) string {
	r.t.Helper()
	ans, err := r.Ask(context.Background(), &wire.Query{Cred: rootCred, Op: &wire.Query_GetXattr{GetXattr: &wire.GetXattr{Ino: ino, Name: name}}})
	if err != nil {
		r.t.Fatalf("%s of %d: %v", name, ino, err)
	}
	return string(ans.GetXattr().GetValue())
}

// TestMemoise runs a tree again of which one file has changed: that file is
// all that is run.
func TestMemoise(t *testing.T) {
	r := newRig(t)
	for i := range 6 {
		r.write(fmt.Sprintf("/in/%d", i), strings.Repeat("w ", i+1))
	}
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	const spec = "version: 1\nkernel: wordcount\ninputs: /in\nreduce: {}\nmemoise: true\n"
	run := func(name, spec, output string, ran int) uint64 {
		t.Helper()
		id := r.submit(name, spec)
		job, tasks := r.wait(id)
		if job.State != StateSucceeded {
			t.Fatalf("%s: %s", name, job.Reason)
		}
		if got := r.outputs(id)["output"]; got != output {
			t.Errorf("%s: %q", name, got)
		}
		if n := len(tasks) - remembered(tasks); n != ran {
			t.Errorf("%s: %d of %d tasks ran, want %d\n%s", name, n, len(tasks), ran, planText(job, tasks))
		}
		return id
	}
	first := run("first", spec, "21 w\n", 7)
	run("second", spec+"# again\n", "21 w\n", 0)
	r.write("/in/3", "w\n")
	run("changed", spec+"# changed\n", "18 w\n", 2) // and the reduce step
	run("other params", spec+"params: {top: 5}\n", "18 w\n", 7)
	run("without", strings.Replace(spec, "memoise: true", "memoise: false", 1), "18 w\n", 2)

	job, tasks, err := getJob(context.Background(), r, first, true)
	if err != nil {
		t.Fatal(err)
	}
	if text := usageText(job, tasks, time.Now()); !strings.Contains(text, "remembered 0\n") {
		t.Errorf("%q", text)
	}
	// The results of a job that is forgotten are forgotten, too; the last job that
	// had one is who has it.
	forget := func(id uint64) {
		t.Helper()
		r.must(&wire.Command{Op: &wire.Command_RemoveJob{RemoveJob: &wire.RemoveJob{Id: id}}})
	}
	forget(first)
	last := run("after the first is gone", spec+"# gone\n", "18 w\n", 0)
	for id := first + 1; id <= last; id++ {
		forget(id)
	}
	last = run("after all are gone", spec+"# all\n", "18 w\n", 7)
	// A result that its owner has changed is not taken for one.
	if job, _, err = getJob(context.Background(), r, last, false); err != nil {
		t.Fatal(err)
	}
	entries, err := r.ReadDirInode(context.Background(), job.OutDir)
	if err != nil || len(entries) != 7 {
		t.Fatal(entries, err)
	}
	for _, d := range entries {
		r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: d.Ino, Mask: wire.SetMtime, MtimeNs: 12345}}})
	}
	run("after they were changed", spec+"# changed results\n", "18 w\n", 7)
}

// TestProvenance: a result says what it was made from, wherever it goes.
func TestProvenance(t *testing.T) {
	r := newRig(t)
	ino := r.write("/in/a.txt", "x y x\n")
	r.write("/results/.keep", "")
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	const spec = "version: 1\nkernel: wordcount\nparams: {top: 1}\ninputs: /in\noutput: /results/{file}\n"
	private := r.submit("private", strings.Replace(spec, "{file}", "private", 1))
	job, tasks := r.wait(private)
	if text := jobText("provenance", job, tasks, time.Now()); !strings.Contains(text, "map kernel wordcount@1 sha256:") || !strings.Contains(text, "\n  param top=\"1\"\ntask 0 ") {
		t.Errorf("the provenance of a private job:\n%s", text)
	}
	if in, err := r.Stat(context.Background(), "/results/private"); err != nil || strings.Contains(r.xattr(in.Attr.Ino, state.ProvenanceXattr), "param") {
		t.Errorf("params of a job that others may not read are with its result: %v", err)
	}
	id := r.submit("count", spec+"visibility: all\n")
	r.wait(id)
	in, err := r.Stat(context.Background(), "/results/a.txt")
	if err != nil {
		t.Fatal(err)
	}
	got := r.xattr(in.Attr.Ino, state.ProvenanceXattr)
	for _, want := range []string{"kernel wordcount@1 sha256:", `param top="1"`, fmt.Sprintf("job %d count sha256:", id), "task 0 attempt 1 on a device cpu\n", fmt.Sprintf("input ino %d version ", ino), "bytes 6 /in/a.txt\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if attrProvenance != state.ProvenanceXattr {
		t.Error("two names of one attribute")
	}
	for i := range 100 {
		r.write(fmt.Sprintf("/many/%s%d", strings.Repeat("n", 80), i), "x")
	}
	id = r.submit("many", "version: 1\nkernel: wordcount\ninputs: /many\n")
	job, _ = r.wait(id)
	entries, err := r.ReadDirInode(context.Background(), job.OutDir)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	got = r.xattr(entries[0].Ino, state.ProvenanceXattr)
	if len(got) > provenanceLimit+100 || !strings.Contains(got, " more inputs, see provenance of the job\n") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}
