package offload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// list is what lies in a directory: names and contents.
func (r *rig) list(path string) map[string]string {
	r.t.Helper()
	entries, err := r.ReadDir(context.Background(), path)
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]string{}
	for _, d := range entries {
		in, err := r.inode(d.Ino)
		if err != nil {
			r.t.Fatal(err)
		}
		if in.HasInline {
			out[d.Name] = string(in.Inline)
			continue
		}
		r.mu.Lock()
		out[d.Name] = string(r.content[d.Ino])
		r.mu.Unlock()
	}
	return out
}

func (r *rig) state(id uint64) string {
	r.t.Helper()
	j, _, err := getJob(context.Background(), r, id, false)
	if err != nil {
		r.t.Fatal(err)
	}
	return j.State + ": " + j.Reason
}

// TestAfter: a job begins when those before have ended, with what they left as
// its inputs.
func TestAfter(t *testing.T) {
	r := newRig(t)
	r.write("/in/a.txt", "x y\n")
	r.write("/results/.keep", "")
	r.lead(SchedulerConfig{})
	first := r.submit("first", "version: 1\nkernel: wordcount\ninputs: /in\noutput: /results/first\n")
	second := r.submit("second", "version: 1\nkernel: grep\nargs: [x]\ninputs: /results/*\nafter: first\noutput: /results/second\n")
	never := r.submit("never", "version: 1\nkernel: grep\nargs: [x]\ninputs: /in\nafter: {first: failed}\n")
	lost := r.submit("lost", "version: 1\nkernel: grep\nargs: [x]\ninputs: /nowhere\nafter: {first: any}\n")
	if s := r.state(second); s != "waiting: waiting for first" {
		t.Error(s)
	}
	r.startAgent("a", nil)
	for id, want := range map[uint64]string{
		first:  "succeeded: all tasks done",
		second: "succeeded: all tasks done",
		never:  "failed: it was to run after first (failed), and that job is succeeded",
		lost:   "failed: line 4: there is no /nowhere",
	} {
		if r.wait(id); r.state(id) != want {
			t.Errorf("job %d: %s", id, r.state(id))
		}
	}
	got := r.list("/results")
	if got["first"] != "1 x\n1 y\n" || got["second"] != "/results/first:1:1 x\n" || len(got) != 3 {
		t.Errorf("%q", got)
	}
	s := Submitter{Files: r.files(), Meta: r}
	_, err := s.Submit(context.Background(), rootCred, "x", []byte("version: 1\nkernel: grep\ninputs: /in\nafter: [first, nobody]\n"))
	if !errors.Is(err, wire.NotFound) || sentence(err) != `line 4: there is no job "nobody" to wait for; submit it first` {
		t.Errorf("%v", err)
	}
}

// TestHinderedBeginning: a job whose tasks cannot be made for a passing error says so
// while it waits, and begins once the error has passed.
func TestHinderedBeginning(t *testing.T) {
	r := newRig(t)
	r.write("/in/a.txt", "x y\n")
	r.deny = func(q *wire.Query) error {
		if q.GetLookup() != nil {
			return wire.Errorf(wire.Unavailable, "query", "", "the disk is slow")
		}
		return nil
	}
	r.lead(SchedulerConfig{})
	r.submit("first", "version: 1\nkernel: wordcount\ninputs: /in\n")
	id := r.submit("second", "version: 1\nkernel: wordcount\ninputs: /in\nafter: first\n")
	r.startAgent("a", nil)
	var said string
	r.until("the reason says why", func() bool {
		said = r.state(id)
		return strings.HasPrefix(said, "waiting: waiting: it will be tried again: ")
	})
	if !strings.HasSuffix(said, "the disk is slow") {
		t.Error(said)
	}
	r.mu.Lock()
	r.deny = nil
	r.mu.Unlock()
	if r.wait(id); r.state(id) != "succeeded: all tasks done" {
		t.Error(r.state(id))
	}
}

// TestResultsInTheMount has a result for each input, and looks at what is there.
func TestResultsInTheMount(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		r.write(fmt.Sprintf("/in/%d.txt", i), strings.Repeat("x ", i+1))
	}
	r.write("/results/2.count.txt", "old")
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	job := func(name, how string) string {
		return fmt.Sprintf("version: 1\nkernel: wordcount\ninputs: /in\noutput: '/results/{name}.%s.{ext}'\nif_exists: %s\n", name, how)
	}
	s := Submitter{Files: r.files(), Meta: r}
	_, err := s.Submit(context.Background(), rootCred, "count", []byte(job("count", "fail")))
	if !errors.Is(err, wire.Exists) || !strings.Contains(sentence(err), "/results/2.count.txt exists already") {
		t.Errorf("%v", err)
	}
	id := r.submit("skip", job("count", "skip"))
	if _, tasks := r.wait(id); len(tasks) != 4 || r.state(id) != "succeeded: all tasks done" {
		t.Errorf("%d tasks, %s", len(tasks), r.state(id))
	}
	if got := r.list("/results"); len(got) != 5 || got["2.count.txt"] != "old" || got["4.count.txt"] != "5 x\n" {
		t.Errorf("%q", got)
	}
	id = r.submit("skip again", job("count", "skip"))
	if r.wait(id); r.state(id) != "succeeded: "+nothingToDo {
		t.Error(r.state(id))
	}
	id = r.submit("replace", job("count", "replace"))
	if r.wait(id); r.state(id) != "succeeded: all tasks done" {
		t.Error(r.state(id))
	}
	if got := r.list("/results"); len(got) != 5 || got["2.count.txt"] != "3 x\n" {
		t.Errorf("%q", got)
	}
	// It appears while the job is under way.
	r.mu.Lock()
	r.fail = func(cmd *wire.Command) error {
		for _, u := range updates(cmd) {
			if u.Task.State == StateSucceeded && slices.Contains(u.Names, "3.late.txt") {
				r.mu.Lock()
				r.fail = nil
				r.mu.Unlock()
				r.write("/results/3.late.txt", "mine")
			}
		}
		return nil
	}
	r.mu.Unlock()
	id = r.submit("late", job("late", "fail"))
	if r.wait(id); r.state(id) != "failed: task 3: the result 3.late.txt exists already (if_exists: fail)" && !strings.Contains(r.state(id), "3.late.txt exists already") {
		t.Error(r.state(id))
	}
	if got := r.list("/results")["3.late.txt"]; got != "mine" {
		t.Errorf("%q", got)
	}
	if left := r.attempts(); len(left) > 0 {
		t.Errorf("attempts are left: %v", left)
	}
	_, err = s.Submit(context.Background(), &wire.Cred{Uid: 5, Gid: 5}, "denied", []byte(job("denied", "replace")))
	if !errors.Is(err, wire.Denied) || !strings.Contains(sentence(err), "no permission to write to /results") {
		t.Errorf("%v", err)
	}
}

// TestTreeToTree has the results of a tree in a tree of the same shape, whose
// directories belong to the job's owner, with the permissions of the job file.
func TestTreeToTree(t *testing.T) {
	r := newRig(t)
	files := map[string]string{"a.txt": "a", "x/a.txt": "b b", "x/y/a.txt": "c c c", "z/a.txt": "d d d d"}
	for name, text := range files {
		r.write("/in/"+name, text)
	}
	r.write("/out/x/there", "")
	for _, p := range []string{"/out", "/out/x"} {
		in, err := r.Stat(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: in.Attr.Ino, Mask: wire.SetUID, Uid: 7}}})
	}
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	s := Submitter{Files: r.files(), Meta: r}
	owner := &wire.Cred{Uid: 7, Gid: 7}
	id, _, err := s.submit(t.Context(), owner, "tree", []byte("version: 1\nkernel: wordcount\ninputs: /in\noutput: /out/{dir}/{name}.count\nif_exists: fail\n"), addition{mode: typeReg | 0o664})
	if err != nil {
		t.Fatal(err)
	}
	if job, _ := r.wait(id); job.State != StateSucceeded {
		t.Fatalf("%s: %s", job.State, job.Reason)
	}
	for name, want := range map[string]string{"a.count": "1 a\n", "x/a.count": "2 b\n", "x/y/a.count": "3 c\n", "z/a.count": "4 d\n"} {
		in, err := r.Stat(t.Context(), "/out/"+name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r.mu.Lock()
		got := string(r.data(in.Attr.Ino))
		r.mu.Unlock()
		if got != want || in.Attr.Uid != 7 || in.Attr.Mode&0o7777 != 0o664 {
			t.Errorf("%s of %d, %o: %q", name, in.Attr.Uid, in.Attr.Mode, got)
		}
	}
	if in, err := r.Stat(t.Context(), "/out/z"); err != nil || in.Attr.Uid != 7 || in.Attr.Mode&0o7777 != 0o775 {
		t.Errorf("%v, %v", in, err)
	}
	_, err = s.Submit(t.Context(), owner, "again", []byte("version: 1\nkernel: wordcount\ninputs: /in\noutput: /out/{dir}/{name}.count\nif_exists: fail\n#\n"))
	if !errors.Is(err, wire.Exists) || !strings.Contains(sentence(err), ".count exists already") {
		t.Errorf("%v", err)
	}
	id = r.submit("skip", "version: 1\nkernel: wordcount\ninputs: /in\noutput: /out/{dir}/{name}.count\nif_exists: skip\n")
	if r.wait(id); r.state(id) != "succeeded: "+nothingToDo {
		t.Error(r.state(id))
	}
	// The directory is not the owner's to write to: told, and not tried again.
	in, err := r.Stat(t.Context(), "/out/x")
	if err != nil {
		t.Fatal(err)
	}
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: in.Attr.Ino, Mask: wire.SetUID, Uid: 8}}})
	id, err = s.Submit(t.Context(), owner, "denied", []byte("version: 1\nkernel: wordcount\ninputs: /in/x\noutput: /out/x/{path}\n"))
	if err == nil || !errors.Is(err, wire.Denied) {
		t.Errorf("%d, %v", id, err)
	}
	if left := r.attempts(); len(left) > 0 {
		t.Errorf("attempts are left: %v", left)
	}
}

// TestResultsOfOneName: results that could not lie beside each other, or not at
// all, are refused before anything runs.
func TestResultsOfOneName(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"x/a.txt", "y/a.txt", "y/a/b.txt", "...", strings.Repeat("n", 250)} {
		r.write("/in/"+name, "text")
	}
	r.write("/out/there", "")
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	s := Submitter{Files: r.files(), Meta: r}
	for rest, want := range map[string]string{
		"inputs: [/in/x, /in/y]\noutput: /out/{file}\n":               "line 4: the results of /in/x/a.txt and /in/y/a.txt would both be /out/a.txt: tell them apart with {path}, {dir} or {task} in output",
		"inputs: [/in/x, /in/y]\noutput: /out/{path}\n":               "line 4: the results of /in/x/a.txt and /in/y/a.txt would both be /out/a.txt: tell them apart with {path}, {dir} or {task} in output",
		"inputs: [/in/y]\noutput: /out/{dir}/{name}\n":                "line 4: the result of /in/y/a.txt would be /out/a, which has to be a directory for that of /in/y/a/b.txt",
		"inputs: [/in/...]\noutput: /out/{name}\n":                    `line 4: the result of /in/... cannot be called ".."`,
		"inputs: ['/in/nn*']\noutput: /out/{file}.count\n":            "a name has at most 255 bytes, and this has 256",
		"inputs: [/in/x]\noutput: /out/{job}{job}{job}\nreduce: {}\n": "the result of the reduce step cannot be called",
	} {
		name := "same"
		if strings.Contains(rest, "{job}") {
			name = strings.Repeat("j", 100)
		}
		_, err := s.Submit(t.Context(), rootCred, name, []byte("version: 1\nkernel: wordcount\n"+rest))
		if !errors.Is(err, wire.Invalid) || !strings.Contains(sentence(err), want) {
			t.Errorf("%s:\n got %v\nwant %s", rest, err, want)
		}
	}
	id := r.submit("apart", "version: 1\nkernel: wordcount\ninputs: [/in/./x, /in/./y/a.txt]\noutput: /out/{path}\n")
	if r.wait(id); r.state(id) != "succeeded: all tasks done" {
		t.Error(r.state(id))
	}
	// Of a job whose inputs are found later: it fails, and says so.
	id = r.submit("late", "version: 1\nkernel: wordcount\ninputs: [/in/x, /in/y]\noutput: /out/{file}\nafter: apart\n")
	if r.wait(id); !strings.HasPrefix(r.state(id), "failed: line 4: the results of /in/x/a.txt and /in/y/a.txt would both be") {
		t.Error(r.state(id))
	}
}

// updates are the reports in a command.
func updates(cmd *wire.Command) (out []*wire.UpdateTask) {
	if u := cmd.GetUpdateTask(); u != nil {
		return []*wire.UpdateTask{u}
	}
	for _, c := range cmd.GetBatch().GetCommands() {
		out = append(out, updates(c)...)
	}
	return out
}

// TestArray runs one task for each number.
func TestArray(t *testing.T) {
	r := newRig(t)
	r.write("/in/a", "x\n")
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	id := r.submit("a", "version: 1\nkernel: wordcount\ninputs: /in\narray: 12\n")
	r.wait(id)
	got := r.outputs(id)
	names := slices.Sorted(maps.Keys(got))
	if len(names) != 12 || names[11] != "output.00011" || got["output.00005"] != "1 x\n" {
		t.Errorf("%q", got)
	}
	id = r.submit("none", "version: 1\nkernel: wordcount\narray: 2\n")
	if r.wait(id); r.state(id) != "succeeded: all tasks done" {
		t.Error(r.state(id))
	}
}

// TestPriorityPauseDeadline: the urgent job is served first, a paused one not
// at all, and one that is late expires.
func TestPriorityPauseDeadline(t *testing.T) {
	r := newRig(t)
	r.write("/in/a", "x\n")
	r.lead(SchedulerConfig{})
	spec := "version: 1\nkernel: wordcount\ninputs: /in\narray: 3\n"
	low := r.submit("low", spec+"priority: -1\n")
	mid := r.submit("mid", spec)
	high := r.submit("high", spec)
	paused := r.submit("paused", spec+"priority: 9\n")
	late := r.submit("late", spec+"deadline: 1s\n")
	ctx := context.Background()
	if err := SetPriority(ctx, r, rootCred, high, 7, "now"); err != nil {
		t.Fatal(err)
	}
	if err := Pause(ctx, r, rootCred, paused, "paused"); err != nil {
		t.Fatal(err)
	}
	r.wait(late)
	if s := r.state(late); !strings.HasPrefix(s, "expired: its deadline, 20") {
		t.Error(s)
	}
	r.startAgent("a", func(c *AgentConfig) { c.Slots = 1 })
	_, tasks := r.wait(low)
	first := tasks[0].StartedNs
	for _, id := range []uint64{mid, high} {
		_, tasks := r.wait(id)
		for _, x := range tasks {
			if x.StartedNs > first {
				t.Errorf("a task of job %d starts after one of lower priority", id)
			}
		}
	}
	if s := r.state(paused); s != "pending: paused" {
		t.Error(s)
	}
	if err := Resume(ctx, r, rootCred, paused, "resumed"); err != nil {
		t.Fatal(err)
	}
	if r.wait(paused); r.state(paused) != "succeeded: all tasks done" {
		t.Error(r.state(paused))
	}
	if err := Pause(ctx, r, rootCred, paused, "late"); !errors.Is(err, wire.Invalid) {
		t.Errorf("a pause of what has ended: %v", err)
	}
}

// TestTTL: a job that has ended is forgotten, what was linked elsewhere is kept.
func TestTTL(t *testing.T) {
	r := newRig(t)
	r.write("/in/a", "x\n")
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	id := r.submit("a", "version: 1\nkernel: wordcount\ninputs: /in\narray: 3\nttl: 1s\n")
	kept := r.submit("b", "version: 1\nkernel: wordcount\ninputs: /in\n")
	job, _ := r.wait(id)
	entries, err := r.ReadDirInode(context.Background(), job.OutDir)
	if err != nil || len(entries) != 3 {
		t.Fatal(entries, err)
	}
	r.must(&wire.Command{Op: &wire.Command_Link{Link: &wire.Link{Ino: entries[0].Ino, NewParent: wire.RootIno, NewName: "kept"}}})
	r.until("the job is forgotten", func() bool {
		_, _, err := getJob(context.Background(), r, id, false)
		return errors.Is(err, wire.NotFound)
	})
	if _, err := r.inode(entries[0].Ino); err != nil {
		t.Errorf("the output with another name: %v", err)
	}
	if _, err := r.inode(entries[1].Ino); err == nil {
		t.Error("an output is left")
	}
	r.wait(kept)
	if at := time.Now(); at.IsZero() || r.state(kept) != "succeeded: all tasks done" {
		t.Error(r.state(kept))
	}
}

// TestNoHostCouldRunIt: a job that none of the hosts could ever run is refused;
// without any host it waits.
func TestNoHostCouldRunIt(t *testing.T) {
	r := newRig(t)
	r.write("/in/a", "x\n")
	const spec = "version: 1\nkernel: wordcount\ninputs: /in\n"
	r.submit("early", spec)
	r.addNode("agent", "gpu", "h")
	r.mu.Lock()
	r.nodes[0].Node.Runtimes = []string{"cuda"}
	r.mu.Unlock()
	s := Submitter{Files: r.files(), Meta: r}
	_, err := s.Submit(context.Background(), rootCred, "a", []byte(spec))
	if !errors.Is(err, wire.Unsupported) || sentence(err) != "line 2: no host of this cluster runs wasm" {
		t.Errorf("%v", err)
	}
	r.addNode("agent", "cpu", "h2")
	r.submit("b", spec)
}

// TestCtlVerbs writes everything that ctl takes, and what it does not.
func TestCtlVerbs(t *testing.T) {
	r := newRig(t)
	r.write("/in/a", "x\n")
	id := r.submit("a", "version: 1\nkernel: wordcount\ninputs: /in\n")
	o := NewOverlay(OverlayConfig{Files: r.files(), Meta: r})
	ctx := context.Background()
	f, err := o.Open(ctx, rootCred, node{kind: kindJobFile0, job: id}.ino(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ write, state string }{
		{"pause\n", "pending: paused by uid 0"},
		{"resume\n", "pending: resumed by uid 0"},
		{"priority  -12\n", "pending: resumed by uid 0"},
		{"cancel\n", "cancelled: cancelled by uid 0: written to ctl"},
		{"retry\n", "pending: retried by uid 0"},
	} {
		if n, err := f.Write(ctx, []byte(c.write)); err != nil || n != len(c.write) {
			t.Errorf("%q: %v", c.write, err)
		}
		if s := r.state(id); s != c.state {
			t.Errorf("after %q: %s", c.write, s)
		}
	}
	if j, _, _ := getJob(ctx, r, id, false); j.Priority != -12 {
		t.Errorf("priority %d", j.Priority)
	}
	for _, bad := range []string{"stop", "pause now", "priority", "priority high", "priority 1001", "retry"} {
		if _, err := f.Write(ctx, []byte(bad)); !errors.Is(err, wire.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestFarDeadlines: the deadline of a job in the year 9999 is not in the past.
func TestFarDeadlines(t *testing.T) {
	now := time.Now()
	for text, past := range map[string]bool{"9999-12-31T23:59:59Z": false, "2262-05-01T00:00:00Z": false, "1600-01-01T00:00:00Z": true, "2001-01-01T00:00:00Z": true} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		if got := now.UnixNano() > nanoseconds(at); got != past {
			t.Errorf("%s is past: %t", text, got)
		}
	}
}

// TestBegunOnce: a round that has seen a job wait may ask for its tasks after another
// one has made them. The job goes on as it is.
func TestBegunOnce(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.write("/x", "x\n")
	before := r.submit("before", "version: 1\nkernel: wordcount\ninputs: /x\n")
	id := r.submit("waits", "version: 1\nkernel: wordcount\ninputs: /x\nafter: {before: any}\n")
	seen, _, err := getJob(t.Context(), r, id, false)
	if err != nil || seen.State != StateWaiting {
		t.Fatal(seen, err)
	}
	spec, err := jobfile.Parse(seen.Spec)
	if err != nil {
		t.Fatal(err)
	}
	r.must(&wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: before, State: StateCancelled, Reason: "not wanted"}}})
	state := func() (*wire.Job, bool) {
		job, _, err := getJob(t.Context(), r, id, false)
		if err != nil {
			t.Fatal(err)
		}
		return job, job.State == StatePending
	}
	r.until("it begins", func() bool { _, ok := state(); return ok })
	r.sched.mu.Lock()
	term := r.sched.term
	r.sched.mu.Unlock()
	if err := term.makeTasks(t.Context(), seen, spec); err != nil {
		t.Error(err)
	}
	if job, ok := state(); !ok || job.Tasks != 1 {
		t.Errorf("it is %s: %s", job.State, job.Reason)
	}
}
