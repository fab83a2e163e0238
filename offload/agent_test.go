package offload

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// TestJobEndToEnd: a tree of files, two agents, map and reduce.
func TestJobEndToEnd(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	r.startAgent("b", nil)
	for i := range 600 {
		r.write(fmt.Sprintf("/src/d%d/f%d.txt", i%7, i), strings.Repeat("apple ", i%3)+"pear\n")
	}
	id := r.submit("top", "version: 1\nkernel: wordcount\nparams: {top: 2}\ninputs: [/src/**/*.txt]\nreduce: {}\noutput: words\n")
	job, tasks := r.wait(id)
	if job.State != StateSucceeded || job.Reason == "" {
		t.Fatalf("%s: %s", job.State, job.Reason)
	}
	out := r.outputs(id)
	if out["words"] != "600 apple\n600 pear\n" {
		t.Errorf("the result is %q", out["words"])
	}
	if len(tasks) != 3 || tasks[2].Phase != "reduce" || len(out) != 3 {
		t.Errorf("%d tasks, outputs %d", len(tasks), len(out))
	}
	for _, x := range tasks {
		if x.State != StateSucceeded || x.Attempt != 1 || x.Host == "" || x.Device != "cpu" || x.BytesIn == 0 || x.BytesOut == 0 || x.PeakMemory == 0 {
			t.Errorf("task %+v", x)
		}
	}
	if left := r.attempts(); len(left) > 0 {
		t.Errorf("attempts left behind: %v", left)
	}
}

// TestOwner: results belong to whom the job belongs to.
func TestOwner(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	r.write("/x", "some text\n")
	s := Submitter{Files: r.files(), Meta: r}
	id, err := s.Submit(t.Context(), &wire.Cred{Uid: 1000, Gid: 100}, "mine", []byte("version: 1\nkernel: sha256sum\ninputs: /x\n"))
	if err != nil {
		t.Fatal(err)
	}
	job, _ := r.wait(id)
	entries, err := r.ReadDirInode(t.Context(), job.OutDir)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	for _, ino := range []uint64{job.OutDir, entries[0].Ino} {
		if in, err := r.inode(ino); err != nil || in.Attr.Uid != 1000 || in.Attr.Gid != 100 {
			t.Errorf("ino %d: %v, %v", ino, in, err)
		}
	}
}

// TestKernelFromTheMount: a registered kernel, its highest version, and one
// named by its path.
func TestKernelFromTheMount(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	wasm := bundledWasm(t)
	for _, v := range []string{"1.9", "1.10"} {
		r.write("/.compute/kernels/mine/"+v+"/kernel.yaml", "version: 1\nargs: [sha256sum]\n")
		r.write("/.compute/kernels/mine/"+v+"/k.wasm", wasm)
	}
	r.write("/k.wasm", wasm)
	r.write("/data/x", "hello\n")
	const want = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  /data/x\n"
	for name, spec := range map[string]string{
		"latest": "kernel: mine", "pinned": "kernel: mine@1.9", "path": "wasm: /k.wasm\nargs: [sha256sum]",
	} {
		id := r.submit(name, "version: 1\n"+spec+"\ninputs: [/data/x]\n")
		job, _ := r.wait(id)
		if job.State != StateSucceeded || r.outputs(id)["output"] != want {
			t.Errorf("%s: %s %s: %q", name, job.State, job.Reason, r.outputs(id))
		}
		if name == "latest" && job.Kernel != "mine@1.10" {
			t.Errorf("the latest version of 1.9 and 1.10 is %s", job.Kernel)
		}
	}
}

// TestFailures: what goes wrong inside a kernel costs its attempts, is told in
// one sentence, and disturbs no other job.
func TestFailures(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", func(c *AgentConfig) { c.OutputLimit = 1 << 20 })
	r.write("/x", "some text\n")
	for name, body := range testModules {
		r.write("/"+name+".wasm", string(body))
	}
	type want struct {
		state, reason string
		attempts      uint32
	}
	jobs := map[string]struct {
		spec string
		want want
	}{
		"exit":    {"wasm: /exit.wasm\nretries: 1", want{StateFailed, "exited with status 3 (the last of 2 attempts that failed)", 2}},
		"trap":    {"wasm: /trap.wasm\nretries: 0", want{StateFailed, "trap: unreachable", 1}},
		"loop":    {"wasm: /loop.wasm\ntimeout: 1s\nretries: 0", want{StateFailed, "time-out: stopped after 1s", 1}},
		"memory":  {"wasm: /grow.wasm\nmemory: 8MiB\nretries: 0", want{StateFailed, "out of memory twice, the second time with 12 MiB, half as much again as the job file says", 2}},
		"spam":    {"wasm: /spam.wasm\nretries: 0", want{StateFailed, "it wrote more than is allowed (1024 KiB: output_limit in the job file, or --output-limit of the host's agent)", 1}},
		"pattern": {"kernel: grep\nargs: ['[']\nretries: 0", want{StateFailed, "missing closing ]", 1}},
		"data":    {"wasm: /data.wasm\nretries: 5", want{StateFailed, "exited with status 65", 1}},
		"wrong":   {"kernel: gunzip\nretries: 5", want{StateFailed, "exited with status 65", 1}},
		"fine":    {"kernel: sha256sum", want{StateSucceeded, "all tasks done", 1}},
	}
	ids := map[string]uint64{}
	for name, c := range jobs {
		ids[name] = r.submit(name, "version: 1\ninputs: [/x]\n"+c.spec+"\n")
	}
	for name, c := range jobs {
		job, tasks := r.wait(ids[name])
		if job.State != c.want.state || !strings.Contains(job.Reason, c.want.reason) || tasks[0].Attempt != c.want.attempts {
			t.Errorf("%s: %s after %d attempts: %q\nwant %s after %d: %q", name, job.State, tasks[0].Attempt, job.Reason, c.want.state, c.want.attempts, c.want.reason)
		}
		if out := r.outputs(ids[name]); c.want.state == StateFailed && len(out) > 0 {
			t.Errorf("%s failed and left %v", name, out)
		}
	}
	r.until("the attempts are removed", func() bool { return len(r.attempts()) == 0 })
}

// TestChangedInput: a job reads what it was given or fails and says so.
func TestChangedInput(t *testing.T) {
	r := newRig(t)
	r.write("/x", "some text\n")
	r.write("/y", "some text\n")
	id := r.submit("changed", "version: 1\nkernel: sha256sum\nretries: 0\ninputs: [/x]\n")
	touched := r.submit("touched", "version: 1\nkernel: sha256sum\nretries: 0\ninputs: [/y]\n")
	r.write("/x", "another text\n")
	in, err := r.Stat(t.Context(), "/y")
	if err != nil {
		t.Fatal(err)
	}
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: in.Attr.Ino, Mask: wire.SetAtime, AtimeNs: 1}}})
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	if job, _ := r.wait(id); job.State != StateFailed || !strings.Contains(job.Reason, "input /x has changed since the job was submitted") {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
	if job, _ := r.wait(touched); job.State != StateSucceeded {
		t.Errorf("a new access time: %s: %s", job.State, job.Reason)
	}
}

// TestRemovedInput: one that is gone is told apart from one that has changed, and
// neither is tried again.
func TestRemovedInput(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"changed", "removed", "replaced"} {
		r.write("/in/"+name, "some text\n")
		r.submit(name, "version: 1\nkernel: sha256sum\nretries: 5\ninputs: [/in/"+name+"]\n")
	}
	dir, err := r.Stat(t.Context(), "/in")
	if err != nil {
		t.Fatal(err)
	}
	r.write("/in/changed", "another text\n")
	for _, name := range []string{"removed", "replaced"} {
		if err := r.Remove(t.Context(), dir.Attr.Ino, name, false); err != nil {
			t.Fatal(err)
		}
	}
	r.write("/in/replaced", "some text\n")
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	for i, want := range []string{
		"input /in/changed has changed since the job was submitted",
		"input /in/removed has been removed since the job was submitted",
		"input /in/replaced has changed since the job was submitted",
	} {
		job, tasks := r.wait(uint64(i + 1))
		if job.State != StateFailed || !strings.HasSuffix(job.Reason, ": "+want) || tasks[0].Attempt != 1 {
			t.Errorf("%s after %d attempts: %s", job.State, tasks[0].Attempt, job.Reason)
		}
	}
}

// TestRefusedResults walks all codes with which meta could refuse a result: one that
// may pass is asked again, any other ends the task, with its sentence, in its first
// attempt.
func TestRefusedResults(t *testing.T) {
	r := newRig(t)
	r.write("/x", "some text\n")
	refusal := map[string]wire.Code{} // of the job's first report of success
	all := map[string]wire.Code{}     // of all of its reports
	r.fail = func(cmd *wire.Command) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, u := range updates(cmd) {
			job, err := r.st.Job(u.Task.Job)
			if err != nil || cmd.GetBatch() != nil {
				continue // it is asked again alone
			}
			if c, ok := all[job.Name]; ok {
				return wire.Errorf(c, "mutate", "", "meta says no")
			}
			if c, ok := refusal[job.Name]; ok && u.Task.State == StateSucceeded {
				delete(refusal, job.Name)
				return wire.Errorf(c, "mutate", "", "meta says no")
			}
		}
		return nil
	}
	r.lead(SchedulerConfig{})
	r.startAgent("a", func(c *AgentConfig) { c.Slots = 1 })
	known := 0
	for c := wire.OK + 1; c < 64; c++ {
		if strings.HasPrefix(c.String(), "code ") || c == wire.Stale { // that the attempt is over
			continue
		}
		known++
		name := fmt.Sprintf("code%d", c)
		r.mu.Lock()
		refusal[name] = c
		r.mu.Unlock()
		id := r.submit(name, "version: 1\nkernel: sha256sum\nretries: 5\ninputs: [/x]\n")
		job, tasks := r.wait(id)
		want := "failed: task 0 (/x): meta says no"
		if c.MayPass() {
			want = "succeeded: all tasks done"
		}
		if got := job.State + ": " + job.Reason; got != want || tasks[0].Attempt != 1 {
			t.Errorf("%v: attempt %d: %s, not %s", c, tasks[0].Attempt, got, want)
		}
	}
	if known < 30 {
		t.Errorf("%d codes", known)
	}
	// Not even that it has failed is taken: the scheduler hears of it.
	r.mu.Lock()
	all["mute"] = wire.NameTooLong
	r.mu.Unlock()
	id := r.submit("mute", "version: 1\nkernel: sha256sum\nretries: 5\ninputs: [/x]\n")
	if job, tasks := r.wait(id); job.State != StateFailed || !strings.HasSuffix(job.Reason, "its end could not be stored: meta says no") || tasks[0].Attempt != 1 {
		t.Errorf("%s after %d attempts: %s", job.State, tasks[0].Attempt, job.Reason)
	}
}

// TestUnreadableInput: bytes that cannot be had cost no retry.
func TestUnreadableInput(t *testing.T) {
	r := newRig(t)
	ino := r.write("/x", "some text\n")
	r.openErr[ino] = wire.Errorf(wire.Unavailable, "open", "", "too few chunk servers")
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	id := r.submit("unreadable", "version: 1\nkernel: sha256sum\nretries: 0\ninputs: [/x]\n")
	r.until("a second attempt", func() bool {
		_, tasks, err := getJob(context.Background(), r, id, true)
		return err == nil && tasks[0].Attempt > 1
	})
	r.mu.Lock()
	delete(r.openErr, ino)
	r.mu.Unlock()
	job, tasks := r.wait(id)
	if job.State != StateSucceeded || tasks[0].Failures != 0 {
		t.Errorf("%s: %s, %d failures", job.State, job.Reason, tasks[0].Failures)
	}
}

// TestCancel: a running task is stopped, its worker gone, its job cancelled;
// retry runs it again.
func TestCancel(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	r.write("/x", "some text\n")
	r.write("/loop.wasm", string(testModules["loop"]))
	id := r.submit("loop", "version: 1\nwasm: /loop.wasm\ninputs: [/x]\n")
	running := func(attempt uint32) func() bool {
		return func() bool {
			_, tasks, err := getJob(context.Background(), r, id, true)
			return err == nil && tasks[0].State == StateRunning && tasks[0].Attempt == attempt && r.busy() == 1
		}
	}
	r.until("it runs", running(1))
	if err := Cancel(t.Context(), r, rootCred, id, "enough"); err != nil {
		t.Fatal(err)
	}
	if job, tasks := r.wait(id); job.State != StateCancelled || job.Reason != "enough" || tasks[0].State != StateCancelled {
		t.Errorf("%s: %s; task %s", job.State, job.Reason, tasks[0].State)
	}
	r.until("the attempt is gone", func() bool { return r.busy() == 0 && len(r.attempts()) == 0 })
	if err := Retry(t.Context(), r, rootCred, id, "once more"); err != nil {
		t.Fatal(err)
	}
	r.until("it runs again", running(2))
	if err := Cancel(t.Context(), r, rootCred, id, "enough"); err != nil {
		t.Fatal(err)
	}
	r.until("the attempt is gone", func() bool { return r.busy() == 0 && len(r.attempts()) == 0 })
}

// TestAgentStops: what runs on an agent that is stopped goes to another, at
// once and without costing a retry.
func TestAgentStops(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{LostAfter: time.Hour})
	_, stop := r.startAgent("a", nil)
	r.write("/x", "some text\n")
	r.write("/loop.wasm", string(testModules["loop"]))
	id := r.submit("loop", "version: 1\nwasm: /loop.wasm\ninputs: [/x]\nretries: 0\n")
	r.until("it runs", func() bool { return r.busy() == 1 })
	_, _ = r.startAgent("b", nil)
	stop()
	r.until("it runs on the other", func() bool {
		_, tasks, err := getJob(context.Background(), r, id, true)
		return err == nil && tasks[0].State == StateRunning && tasks[0].Host == "b" && tasks[0].Failures == 0
	})
	if err := Cancel(t.Context(), r, rootCred, id, "enough"); err != nil {
		t.Fatal(err)
	}
}

// TestReportsSurvive: ends that meta did not hear, or answered into the void,
// are told again; every result is there once.
func TestReportsSurvive(t *testing.T) {
	r := newRig(t)
	n := 0
	r.fail = func(cmd *wire.Command) error {
		if !reportsSuccess(cmd) {
			return nil
		}
		r.mu.Lock()
		n++
		k := n
		r.mu.Unlock()
		switch k % 3 {
		case 0: // carried out, the answer lost
			_, _ = r.apply(cmd)
			return wire.Errorf(wire.Timeout, "mutate", "", "no answer")
		case 1:
			return wire.Errorf(wire.Unavailable, "mutate", "", "no leader")
		}
		return nil
	}
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	r.startAgent("b", nil)
	for i := range 5 {
		r.write(fmt.Sprintf("/big/%d", i), strings.Repeat("x", 9<<20))
	}
	id := r.submit("sums", "version: 1\nkernel: sha256sum\ninputs: [/big]\n")
	job, tasks := r.wait(id)
	if job.State != StateSucceeded || len(tasks) != 5 {
		t.Fatalf("%s: %s, %d tasks", job.State, job.Reason, len(tasks))
	}
	out := r.outputs(id)
	for i := range 5 {
		if got := out[fmt.Sprintf("output.%05d", i)]; !strings.HasSuffix(got, fmt.Sprintf("  /big/%d\n", i)) {
			t.Errorf("output %d is %q", i, got)
		}
		if tasks[i].Attempt != 1 {
			t.Errorf("task %d took %d attempts", i, tasks[i].Attempt)
		}
	}
}

func reportsSuccess(cmd *wire.Command) bool {
	return cmd.GetUpdateTask().GetTask().GetState() == StateSucceeded || slices.ContainsFunc(cmd.GetBatch().GetCommands(), reportsSuccess)
}

// Reports that come while one is on its way go together, and each is answered
// by itself.
func TestReportsGoTogether(t *testing.T) {
	r := newRig(t)
	r.write("/x", "text")
	const tasks = 600
	spec := &wire.SubmitJob{Job: &wire.Job{Name: "many", Spec: []byte("version: 1")}}
	for range tasks {
		spec.Tasks = append(spec.Tasks, &wire.Task{Phase: "map"})
	}
	job := r.must(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: spec}}).Value
	var commands atomic.Int32
	release := make(chan struct{})
	r.fail = func(cmd *wire.Command) error {
		if commands.Add(1) == 1 {
			<-release
		}
		return nil
	}
	send := &reports{meta: r}
	update := func(n uint32, attempt uint32, state string) error {
		return send.send(t.Context(), &wire.UpdateTask{Task: &wire.Task{Job: job, N: n, Attempt: attempt, State: state, Agent: 1}})
	}
	var wg sync.WaitGroup
	for n := range uint32(tasks) {
		wg.Go(func() {
			if err := update(n, 1, StateRunning); err != nil {
				t.Error(err)
			}
			if n%100 == 99 {
				if err := update(n, 7, StateSucceeded); wire.CodeOf(err) != wire.Stale {
					t.Errorf("an attempt that never began: %v", err)
				}
			}
		})
	}
	r.until("all wait", func() bool {
		send.mu.Lock()
		defer send.mu.Unlock()
		return len(send.queue) >= tasks-reportBatch
	})
	close(release)
	wg.Wait()
	if n := commands.Load(); n > 20 {
		t.Errorf("%d reports took %d commands", tasks+tasks/100, n)
	}
}

// TestSweep: an agent removes what it left behind in an earlier life, and
// nobody else's.
func TestSweep(t *testing.T) {
	r := newRig(t)
	node := r.addNode("agent", "x", "host-x")
	for _, name := range []string{fmt.Sprintf("attempt.%d.7.0.1", node), "attempt.99.7.0.1"} {
		dir, err := r.Mkdir(t.Context(), wire.OutputsIno, name, 0o700)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Create(t.Context(), dir.Attr.Ino, "output", 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.startAgent("y", func(c *AgentConfig) { c.Node = node })
	r.until("the sweep", func() bool { return len(r.attempts()) == 1 })
	if left := r.attempts(); left[0] != "attempt.99.7.0.1" {
		t.Errorf("left: %v", left)
	}
}

func TestAgentConfig(t *testing.T) {
	r := newRig(t)
	good := AgentConfig{Node: 1, Files: r.files(), Meta: r, Worker: []string{"x"}, Dir: filepath.Join(t.TempDir(), "compute")}
	if _, err := NewAgent(good); err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(filepath.Join(good.Dir, "compiled")); err != nil || !fi.IsDir() {
		t.Error(err)
	}
	for name, breakIt := range map[string]func(*AgentConfig){
		"node": func(c *AgentConfig) { c.Node = 0 }, "files": func(c *AgentConfig) { c.Files = nil },
		"worker": func(c *AgentConfig) { c.Worker = nil }, "dir": func(c *AgentConfig) { c.Dir = "" },
	} {
		bad := good
		breakIt(&bad)
		if _, err := NewAgent(bad); err == nil {
			t.Errorf("an agent without %s was made", name)
		}
	}
}
