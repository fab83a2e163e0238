package offload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
	"quernfs/offload/sandbox"
)

// programHost is a sandbox for the agents of a test, or skips the test.
func programHost(t *testing.T) *sandbox.Host {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h, err := sandbox.Open(t.Context(), sandbox.Config{
		Dir: filepath.Join(t.TempDir(), "exec"), Init: []string{exe, "exec"}, InitEnv: []string{"QUERN_TEST_ROLE=worker"},
	})
	if err != nil {
		t.Skipf("programs cannot be run in a sandbox here: %v", err)
	}
	return h
}

// startPrograms runs an agent that may run everything.
func (r *rig) startPrograms(name string, change func(*AgentConfig)) {
	r.t.Helper()
	host := programHost(r.t)
	r.startAgent(name, func(c *AgentConfig) {
		c.Exec = &ExecConfig{Host: host, Allow: []string{"*"}}
		c.Slots = 4
		if change != nil {
			change(c)
		}
		r.offer(c.Node, c.Exec.Offer())
	})
}

// offer is what a node registers.
func (r *rig) offer(node uint32, o *wire.ExecOffer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, n := range r.nodes {
		if n.Node.Id == node { // who has the old one keeps it as it is
			r.nodes[i] = proto.CloneOf(n)
			r.nodes[i].Node.Exec = o
		}
	}
}

// tree are the files of a job's output directory and below.
func (r *rig) tree(id uint64) map[string]string {
	r.t.Helper()
	job, _, err := getJob(context.Background(), r, id, false)
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]string{}
	var walk func(ino uint64, at string)
	walk = func(ino uint64, at string) {
		entries, err := r.ReadDirInode(context.Background(), ino)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, d := range entries {
			if d.Name == logDir {
				continue
			}
			if isDir(d.Type) {
				walk(d.Ino, at+d.Name+"/")
				continue
			}
			r.mu.Lock()
			out[at+d.Name] = string(r.data(d.Ino))
			r.mu.Unlock()
		}
	}
	walk(job.OutDir, "")
	return out
}

// TestProgram: inputs, arguments, environment and outputs of programs, in one
// task, in several, and with a reduce step.
func TestProgram(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startPrograms("a", nil)
	r.write("/data/a.txt", "apple\n")
	r.write("/data/b.txt", "banana\n")
	big := strings.Repeat("x", 17<<20)
	r.write("/big/1", big)
	r.write("/big/2", big)
	r.write("/code/lib/run.sh", "cat \"$@\"; echo $QUERN_TOP $MODE $QUERN_JOB $QUERN_TASK $QUERN_ATTEMPT $QUERN_PHASE\n")
	for _, c := range []struct {
		name, spec string
		want       map[string]string
	}{
		{"stdin", "exec: {argv: [sort, -r]}\ninputs: /data\n", map[string]string{"output": "banana\napple\n"}},
		{"args", "exec:\n  argv: [sh, /in/code/lib/run.sh, '{inputs}']\n  binds: [/code]\n  env: {MODE: fast}\nparams: {top: 3}\ninputs: /data/*.txt\noutput: res\n",
			map[string]string{"res": "apple\nbanana\n3 fast 2 0 1 single\n"}},
		{"files", "exec: {argv: [sh, -c, 'mkdir -p /out/d/e && cp /in/data/a.txt /out/d/e/f && head -c 100000 /dev/zero | tr \"\\0\" y > /out/g; echo not an output']}\ninputs: /data\n",
			map[string]string{"d/e/f": "apple\n", "g": strings.Repeat("y", 100000)}},
		{"several", "exec: {argv: [sh, -c, 'wc -c > /out/n; echo $QUERN_TASK > /out/t']}\ninputs: /big\noutput: o\n",
			map[string]string{"o.00000/n": "17825792\n", "o.00000/t": "0\n", "o.00001/n": "17825792\n", "o.00001/t": "1\n"}},
		{"reduce", "exec: {argv: [sh, -c, 'wc -c > /out/any-name']}\ninputs: /big\nreduce: {exec: {argv: [sh, -c, 'cat /in/.part.00001 /in/.part.00000 \"$@\"', sh, '{inputs}']}}\noutput: o\n",
			map[string]string{".part.00000": "17825792\n", ".part.00001": "17825792\n", "o": strings.Repeat("17825792\n", 4)}},
		{"mixed", "kernel: wordcount\ninputs: /data\nreduce: {exec: {argv: [sed, s/^/total /]}}\n",
			map[string]string{".part.00000": "1 apple\n1 banana\n", "output": "total 1 apple\ntotal 1 banana\n"}},
		{"nothing", "exec: {argv: ['true']}\ninputs: /data\n", map[string]string{"output": ""}},
	} {
		id := r.submit(c.name, "version: 1\n"+c.spec)
		job, tasks := r.wait(id)
		if job.State != StateSucceeded {
			t.Errorf("%s: %s: %s", c.name, job.State, job.Reason)
			continue
		}
		got := r.tree(id)
		if len(got) != len(c.want) {
			t.Errorf("%s: %d outputs", c.name, len(got))
		}
		for name, want := range c.want {
			if got[name] != want {
				t.Errorf("%s: %s is %.100q", c.name, name, got[name])
			}
		}
		for _, x := range tasks {
			if x.Attempt != 1 || x.BytesIn == 0 {
				t.Errorf("%s: task %+v", c.name, x)
			}
		}
	}
	if left := r.attempts(); len(left) > 0 {
		t.Errorf("attempts left behind: %v", left)
	}
}

// TestProgramsInTurn: a job reads, by exec.binds, what one before it has made;
// results that go to a directory of the mount have the name that the job gives.
func TestProgramsInTurn(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startPrograms("a", nil)
	r.write("/data/x", "x\n")
	r.write("/models/old", "")
	first := r.submit("train", "version: 1\nexec: {argv: [sh, -c, 'echo a model > /out/any']}\ninputs: /data\noutput: /models/{job}.bin\n")
	second := r.submit("use", "version: 1\nafter: [train]\nexec: {argv: [cat, /in/models/train.bin, '{inputs}'], binds: [/models/train.bin]}\ninputs: /data\n")
	tree := r.submit("tree", "version: 1\nexec: {argv: [sh, -c, 'mkdir /out/d; echo 1 > /out/d/a; echo 2 > /out/b']}\narray: 2\noutput: /models/{job}-{task}\n")
	for _, id := range []uint64{first, second, tree} {
		if job, _ := r.wait(id); job.State != StateSucceeded {
			t.Errorf("%s: %s: %s", job.Name, job.State, job.Reason)
		}
	}
	if got := r.tree(second)["output"]; got != "a model\nx\n" {
		t.Errorf("the job after it read %q", got)
	}
	for _, name := range []string{"/models/train.bin", "/models/tree-00000/d/a", "/models/tree-00001/b"} {
		if _, err := r.Stat(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if out := r.tree(tree); len(out) > 0 {
		t.Errorf("there is more: %v", out)
	}
}

// TestProgramOwner: a program runs as the job's owner, and its outputs are the
// owner's.
func TestProgramOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: an agent that is not runs its own user's programs only")
	}
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startPrograms("a", nil)
	r.write("/x", "some text\n")
	s := Submitter{Files: r.files(), Meta: r}
	id, err := s.Submit(t.Context(), &wire.Cred{Uid: 1000, Gid: 100, Groups: []uint32{7}}, "mine",
		[]byte("version: 1\nexec: {argv: [sh, -c, 'mkdir /out/d && id > /out/d/who']}\ninputs: /x\n"))
	if err != nil {
		t.Fatal(err)
	}
	job, _ := r.wait(id)
	if job.State != StateSucceeded {
		t.Fatal(job.Reason)
	}
	if got := r.tree(id)["d/who"]; !strings.HasPrefix(got, "uid=1000") || !strings.Contains(got, "gid=100") || !strings.Contains(got, "7") {
		t.Errorf("it ran as %s", got)
	}
	d, err := r.ReadDirInode(t.Context(), job.OutDir)
	if err != nil || len(d) != 1 {
		t.Fatal(d, err)
	}
	who, err := r.ReadDirInode(t.Context(), d[0].Ino)
	if err != nil || len(who) != 1 {
		t.Fatal(who, err)
	}
	for _, ino := range []uint64{d[0].Ino, who[0].Ino} {
		if in, err := r.inode(ino); err != nil || in.Attr.Uid != 1000 || in.Attr.Gid != 100 {
			t.Errorf("%v, %v", in, err)
		}
	}
}

// TestProgramsMisbehave: whatever a program does it is one sentence, and a job
// beside it succeeds.
func TestProgramsMisbehave(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startPrograms("a", func(c *AgentConfig) { c.OutputLimit = 4 << 20 })
	r.write("/x", "text\n")
	groups := programHost(t).Limits()
	grouped := groups.Memory != sandbox.ByRlimit
	cases := []struct{ name, argv, more, want string }{
		{"loops", "[sh, -c, 'while :; do :; done']", "timeout: 1s\n", "time-out: stopped after 1s"},
		{"ignores SIGTERM", "[sh, -c, 'trap \"\" TERM; while :; do :; done']", "timeout: 1s\n", "time-out: stopped after 1s"},
		{"eats memory", `[perl, -e, 'push @x, "x" x 1000000 while 1']`, "memory: 64MiB\n",
			"out of memory twice, the second time with 96 MiB, half as much again as the job file says"},
		{"forks", "[perl, -e, 'while (defined($p = fork)) { $p or sleep } die']", "timeout: 1h\n",
			"the program exited with status 11: Died at -e line 1.; it tried to have more than 1024 processes and threads at once"},
		{"forks without end", "[perl, -e, 'fork while 1']", "timeout: 2s\n", "time-out: stopped after 2s"},
		{"writes elsewhere", "[sh, -c, 'echo x > /usr/bin/x']", "", "the program exited with status 2: sh: 1: cannot create /usr/bin/x: Read-only file system"},
		{"writes to its input", "[sh, -c, 'echo x > /in/x']", "", "the program exited with status 2: sh: 1: cannot create /in/x: Read-only file system"},
		{"exits", "[sh, -c, 'echo because >&2; exit 7']", "", "the program exited with status 7: because"},
		{"is killed", "[sh, -c, 'kill -SEGV $$']", "", "the program was killed by SIGSEGV"},
		{"prints without end", "['yes']", "", "it wrote more than is allowed (4096 KiB: output_limit in the job file, or --output-limit of the host's agent)"},
		{"complains without end", "[sh, -c, 'yes >&2']", "timeout: 1s\n", "time-out: stopped after 1s"},
		{"fills its output", "[sh, -c, 'yes > /out/x; sleep 1000']", "", "it wrote more than 4 MiB to /out"},
		{"fills its scratch space", "[sh, -c, 'for i in 1 2 3 4 5 6 7 8; do head -c 1M /dev/zero > x$i; done; sleep 1000']", "resources: {scratch: 3MiB}\n",
			"it wrote more than 3 MiB to /scratch (resources.scratch in the job file)"},
		{"leaves a link", "[sh, -c, 'ln -s /etc/shadow /out/x']", "", "/out/x is neither a file nor a directory, and so cannot be an output"},
		{"leaves a pipe", "[sh, -c, 'mkfifo /out/x']", "", "/out/x is neither a file nor a directory, and so cannot be an output"},
		{"leaves too little", "[sh, -c, 'echo > /out/x; echo > /out/y']", "reduce: {}\n", "it left 2 files and directories in /out; before a reduce step it must be one file"},
		{"is not there", "[no-such-program]", "", "no-such-program could not be started: no such file or directory"},
		{"is not a program", "[/in/x]", "", "/in/x could not be started: permission denied"},
	}
	ids, beside := map[string]uint64{}, map[string]uint64{}
	for _, c := range cases {
		if (c.name == "eats memory" || strings.HasPrefix(c.name, "forks")) && (!grouped || groups.Pids == sandbox.ByRlimit) {
			t.Logf("%s: not tried, there is no control group for it here", c.name)
			continue
		}
		ids[c.name] = r.submit(c.name, "version: 1\ninputs: /x\nretries: 0\nexec:\n  argv: "+c.argv+"\n"+c.more)
		beside[c.name] = r.submit("beside "+c.name, "version: 1\ninputs: /x\nexec: {argv: [cat]}\n")
	}
	for _, c := range cases {
		id := ids[c.name]
		if id == 0 {
			continue
		}
		job, tasks := r.wait(id)
		reason := job.Reason
		if c.name == "forks without end" { // how many it gets to in its time is the machine's
			reason, _, _ = strings.Cut(reason, ";")
		}
		if c.name == "complains without end" { // and whether it gets to its first line
			reason = strings.TrimSuffix(reason, ": y")
		}
		if want := "task 0 (/x): " + c.want; job.State != StateFailed || reason != want {
			t.Errorf("%s: %s\n got %s\nwant %s", c.name, job.State, job.Reason, want)
		}
		if n := len(tasks[0].StderrTail); n > tailBytes {
			t.Errorf("%s: %d bytes of standard error", c.name, n)
		}
		if job, _ := r.wait(beside[c.name]); job.State != StateSucceeded {
			t.Errorf("the job beside %s: %s: %s", c.name, job.State, job.Reason)
		}
		if out := r.tree(id); len(out) > 0 && c.name != "leaves too little" {
			t.Errorf("%s: outputs %v", c.name, len(out))
		}
	}
	id := r.submit("wrong data", "version: 1\ninputs: /x\nretries: 5\nexec: {argv: [sh, -c, 'echo no table >&2; exit 65']}\n")
	if job, tasks := r.wait(id); job.Reason != "task 0 (/x): the program exited with status 65: no table" || tasks[0].Attempt != 1 {
		t.Errorf("%s after %d attempts", job.Reason, tasks[0].Attempt)
	}
	if id, ok := ids["eats memory"]; ok {
		_, tasks, err := getJob(t.Context(), r, id, true)
		if err != nil || tasks[0].Attempt != 2 || tasks[0].Ooms != 2 || tasks[0].Memory != 96<<20 {
			t.Errorf("%v, %v", tasks, err)
		}
	}
	if left := r.attempts(); len(left) > 0 {
		t.Errorf("attempts left behind: %v", left)
	}
}

// TestStoppedWithItsLastLine: the reason of a time-out has what the program said last.
func TestStoppedWithItsLastLine(t *testing.T) {
	timeout := errors.New("time-out: stopped after 1s")
	r := &attemptRun{}
	r.stderr = newTaskLog(r, "stderr")
	for _, c := range []struct{ said, want string }{{"", ""}, {"one\ntwo\n", ": two"}} {
		fmt.Fprint(r.stderr, c.said)
		if err := r.judgeProgram(sandbox.Exit{}, timeout, timeout); !errors.Is(err, timeout) || err.Error() != timeout.Error()+c.want {
			t.Errorf("%q: %v", c.said, err)
		}
	}
}

// TestMoreMemory: a program that needs a little more than it has said gets it at
// its second attempt, without a retry.
func TestMoreMemory(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startPrograms("a", nil)
	if programHost(t).Limits().Memory == sandbox.ByRlimit {
		t.Skip("no control group limits memory here")
	}
	r.write("/x", "text\n")
	id := r.submit("more", "version: 1\ninputs: /x\nretries: 0\nmemory: 64MiB\nexec: {argv: [sh, -c, 'head -c 70M /dev/zero | tail -c 70M | wc -c']}\n")
	job, tasks := r.wait(id)
	if job.State != StateSucceeded || tasks[0].Attempt != 2 || tasks[0].Ooms != 1 || tasks[0].Failures != 0 || r.tree(id)["output"] != "73400320\n" {
		t.Errorf("%s: %s, %+v", job.State, job.Reason, tasks[0])
	}
}

// TestProgramCancel: SIGTERM first.
func TestProgramCancel(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startPrograms("a", nil)
	r.write("/x", "text\n")
	id := r.submit("long", "version: 1\ninputs: /x\nexec: {argv: [sh, -c, 'sleep 1000']}\n")
	r.until("it runs", func() bool {
		job, _, err := getJob(t.Context(), r, id, false)
		return err == nil && job.State == StateRunning
	})
	if err := Cancel(t.Context(), r, rootCred, id, "enough"); err != nil {
		t.Fatal(err)
	}
	if job, _ := r.wait(id); job.State != StateCancelled || job.Reason != "enough" {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
	r.until("its attempt is gone", func() bool { return len(r.attempts()) == 0 })
}

// TestProgramRefused: what no host could ever run is refused when it is
// submitted, with the reason.
func TestProgramRefused(t *testing.T) {
	r := newRig(t)
	r.write("/x", "text\n")
	submit := func(name, more string, cred *wire.Cred) error {
		s := Submitter{Files: r.files(), Meta: r}
		_, err := s.Submit(t.Context(), cred, name, []byte("version: 1\ninputs: /x\nexec: {argv: [python3]"+more))
		return err
	}
	check := func(name, more string, cred *wire.Cred, code wire.Code, want string) {
		t.Helper()
		err := submit(name, more, cred)
		if wire.CodeOf(err) != code || err != nil && sentence(err) != want {
			t.Errorf("%s: %v, wanted %v: %s", name, err, code, want)
		}
	}
	check("no hosts", "}\n", rootCred, wire.OK, "") // it waits for one
	a := r.addNode("agent", "a", "host-a")
	check("no programs", "}\n", rootCred, wire.Unsupported, "line 3: no host of this cluster runs programs: an administrator lets one with --exec-allow python3")
	o := &wire.ExecOffer{Allow: []string{"perl"}, Uid: 5, Cpus: 2, Memory: 1 << 30}
	r.offer(a, o)
	check("program", "}\n", rootCred, wire.Denied, "line 3: no host allows the program python3: an administrator lets one with --exec-allow python3")
	o.Allow = append(o.Allow, "python*")
	check("user", "}\n", rootCred, wire.Denied, "line 3: the host a cannot run this: its agent is not root, and so runs programs of its own user only")
	me := &wire.Cred{Uid: 5}
	check("network", ", network: host}\n", me, wire.Denied, "line 3: the host a cannot run this: its administrator has not allowed programs the network")
	check("share", "}\nresources: {cpu: 1}\n", me, wire.Unsupported, "line 3: the host a cannot run this: it cannot limit the share of processors (resources.cpu), for want of a control group")
	o.LimitsCpu, o.AnyUser, o.Network = true, true, true
	check("cpus", "}\nresources: {cpu: 2.5}\n", me, wire.Unsupported, "line 3: the host a cannot run this: it has fewer processors")
	check("memory", "}\nmemory: 2GiB\n", me, wire.Unsupported, "line 3: the host a cannot run this: it has less memory")
	check("gpu", "}\nresources: {gpu: 1}\n", me, wire.Unsupported, "line 3: the host a cannot run this: it has fewer GPUs")
	o.Gpus = []uint64{0, 16 << 30}
	r.offer(r.addNode("agent", "b", "host-b"), nil)
	check("gpu memory", "}\nresources: {gpu: 2, gpu_memory: 8GiB}\n", me, wire.Unsupported,
		"line 3: none of 2 hosts can run this; the nearest, a: its GPUs have less memory (or do not tell how much)")
	check("fine", ", network: host}\nresources: {gpu: 1, gpu_memory: 8GiB, cpu: 2, memory: 1GiB}\n", me, wire.OK, "")
	check("reduce", "}\nreduce: {exec: {argv: [ruby]}}\n", me, wire.Denied, "line 4: no host allows the program ruby: an administrator lets one with --exec-allow ruby")
}

// TestProgramPlacement: a program goes only where it may run, and the job says
// what it waits for.
func TestProgramPlacement(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{LostAfter: 100 * time.Millisecond})
	r.startAgent("modules", nil)
	r.write("/x", "text\n")
	later := r.addNode("agent", "later", "host-later") // registered, but not connected
	r.offer(later, &wire.ExecOffer{Allow: []string{"cat"}, AnyUser: true, Memory: 1 << 40, Cpus: 64})
	id := r.submit("cat", "version: 1\ninputs: /x\nexec: {argv: [cat]}\n")
	r.until("it says what it waits for", func() bool {
		job, _, err := getJob(t.Context(), r, id, false)
		return err == nil && job.Reason == "waiting: no host that can run cat as this job needs it is connected"
	})
	wasm := r.submit("sum", "version: 1\ninputs: /x\nkernel: sha256sum\n")
	if job, _ := r.wait(wasm); job.State != StateSucceeded {
		t.Errorf("a job behind it: %s", job.Reason)
	}
	r.startPrograms("programs", nil)
	if job, tasks := r.wait(id); job.State != StateSucceeded || tasks[0].Host != "programs" {
		t.Errorf("%s: %s, on %s", job.State, job.Reason, tasks[0].Host)
	}
}

// TestProgramInPlace: with a mount the inputs are not copied, and what changes
// meanwhile is noticed.
func TestProgramInPlace(t *testing.T) {
	mount := t.TempDir() // what the mount of the rig's files would show
	if err := os.Chmod(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"d/a": "A in the mount\n", "d/b": "B in the mount\n", "code/c": "C in the mount\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(mount, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mount, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startPrograms("a", func(c *AgentConfig) { c.Mounted = func() string { return mount } })
	for _, name := range []string{"/d/a", "/d/b", "/code/c"} {
		r.write(name, name+" as a copy\n")
	}
	const all = "A in the mount\nB in the mount\nC in the mount\n"
	for name, c := range map[string]struct{ inputs, want string }{
		"files": {"[/d/a, /d/b]", all},
		"tree":  {"[/d]\nsplit: none", all},
		"glob":  {"['/d/?']", all},
	} {
		id := r.submit(name, "version: 1\nexec: {argv: [sh, -c, 'cat /in/d/a /in/d/b /in/code/c'], binds: [/code]}\ninputs: "+c.inputs+"\n")
		job, _ := r.wait(id)
		if got := r.tree(id)["output"]; got != c.want {
			t.Errorf("%s: %s, %q", name, job.Reason, got)
		}
	}
	// Another file at the path: the one that was submitted is copied.
	r.write("/d/moved", "as it was\n")
	old, err := r.Stat(t.Context(), "/d/moved")
	if err != nil {
		t.Fatal(err)
	}
	run := &attemptRun{agent: &Agent{cfg: AgentConfig{Files: r.files()}}, job: &wire.Job{}, task: &wire.Task{}}
	s := &shown{run: run, files: []*wire.TaskInput{{Path: "/d/moved", Ino: old.Attr.Ino + 1000}}}
	var moved *movedError
	if err := s.check(t.Context()); !errors.As(err, &moved) {
		t.Errorf("another file: %v", err)
	}
	s.files[0] = &wire.TaskInput{Path: "/d/gone", Ino: 1}
	if err := s.check(t.Context()); !errors.As(err, &moved) {
		t.Errorf("no file: %v", err)
	}
	s.files[0] = &wire.TaskInput{Path: "/d/moved", Ino: old.Attr.Ino, Version: old.Attr.Version - 1, Size: 1}
	var differs *changedError
	if err := s.check(t.Context()); !errors.As(err, &differs) {
		t.Errorf("a changed file: %v", err)
	}
}

func TestInPlacePaths(t *testing.T) {
	many := ""
	for i := range maxShown + 1 {
		many += fmt.Sprintf(" /m/%d", i)
	}
	for _, c := range []struct{ inputs, patterns, binds, want string }{
		{"/a /b", "/*", "", "/a /b"},
		{"/d/a /d/b", "/d", "", "/d"},
		{"/d/a /d/b", "/d/*", "", "/d/a /d/b"},
		{"/d/a", "/d/a", "/d /code", "/code /d"},
		{"/d/a /dx", "/d /dx", "/d/a", "/d /dx"},
		{"/a", "/", "", ""},
		{strings.TrimSpace(many), "/m/*", "", ""},
		{strings.TrimSpace(many), "/m", "", "/m"},
	} {
		task, spec, x := inPlaceCase(c.inputs, c.patterns, c.binds)
		got := (&attemptRun{task: task}).inPlace(spec, x)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%.40s of %s with %s: %v", c.inputs, c.patterns, c.binds, got)
		}
	}
}
