package offload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// rule puts a rule into place, as a rename does.
func (s *shell) rule(name, text string) error {
	s.t.Helper()
	ino := s.r.write(rulesPath+"/"+name, text)
	err := s.o.CheckRule(s.t.Context(), s.cred, wire.RulesIno, name, ino)
	if err != nil {
		_ = s.r.Remove(s.t.Context(), wire.RulesIno, name, false)
	}
	return err
}

// land writes a file and tells the overlay, as a close does.
func (s *shell) land(path, data string) (standing bool) {
	s.t.Helper()
	s.r.write(path, data)
	return s.landed(path, false)
}

func (s *shell) landed(path string, moved bool) (standing bool) {
	s.t.Helper()
	x := s.r.target(path, nil)
	standing, err := s.o.Standing(s.t.Context(), s.cred, moved, func() (string, uint64) { return path, x.Inode.Attr.Size })
	if err != nil {
		s.t.Fatal(err)
	}
	if standing {
		if err := s.o.Landed(s.t.Context(), s.cred, x, nil, moved); err != nil {
			s.t.Fatal(err)
		}
	}
	return standing
}

// jobs are the names of all jobs, as far as the last dash.
func (s *shell) jobs() (names []string) {
	s.t.Helper()
	err := EachJob(s.t.Context(), s.r, func(j *wire.Job) error {
		names = append(names, j.Name[:strings.LastIndex(j.Name, "-")])
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return names
}

func (s *shell) exists(path string) bool {
	_, err := s.r.Stat(s.t.Context(), path)
	return err == nil
}

// TestRules: which files a rule fires for, and how it comes and goes.
func TestRules(t *testing.T) {
	r := newRig(t)
	s := newShell(t, r, 0)
	if standing, err := s.o.Standing(t.Context(), rootCred, false, nil); standing || err != nil {
		t.Errorf("without rules: %v, %v", standing, err)
	}
	if s.land("/in/before.txt", "x\n") {
		t.Error("a rule before there is one")
	}
	const count = "version: 1\nmatch: {path: '/in/*.txt', min_size: 2}\njob: {kernel: wordcount}\n"
	if err := s.rule("count.yaml", count); err != nil {
		t.Fatal(err)
	}
	if standing, err := s.o.Standing(t.Context(), rootCred, false, nil); !standing || err != nil {
		t.Errorf("with one: %v, %v", standing, err)
	}
	for path, want := range map[string]bool{"/in/a.txt": true, "/in/b.csv": false, "/other/c.txt": false, "/.compute/queue/d.txt": false} {
		if got := s.land(path, "y\n"); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	if s.land("/in/small.txt", "z") {
		t.Error("a file that is too small")
	}
	s.landed("/in/a.txt", false) // closed again, unchanged
	s.landed("/in/a.txt", true)
	if got := s.jobs(); !slices.Equal(got, []string{"count-a.txt"}) {
		t.Errorf("jobs %v", got)
	}
	s.land("/in/a.txt", "another version\n")
	if got := s.jobs(); len(got) != 2 {
		t.Errorf("jobs %v", got)
	}
	job, tasks, err := getJob(t.Context(), r, 2, true)
	if err != nil || job.Rule != "count" || job.Source != nil || len(tasks) != 1 || tasks[0].Inputs[0].Path != "/in/a.txt" {
		t.Errorf("%v %v %v", job, tasks, err)
	}

	// Replaced: the next file sees the new one. Removed: none.
	if err := s.rule("count.yaml", strings.Replace(count, "version: 1\n", "version: 1\nwhen: rename\n", 1)); err != nil {
		t.Fatal(err)
	}
	if s.land("/in/e.txt", "new\n") || !s.landed("/in/e.txt", true) {
		t.Error("the old rule counts")
	}
	if err := r.Remove(t.Context(), wire.RulesIno, "count.yaml", false); err != nil {
		t.Fatal(err)
	}
	s.o.RuleGone(t.Context(), rootCred, wire.RulesIno, "count.yaml")
	if s.landed("/in/e.txt", true) {
		t.Error("a rule that was removed counts")
	}

	// A rule of a user is for what that user writes.
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: r.write(rulesPath+"/mine.yaml", count), Mask: wire.SetUID, Uid: 1000}}})
	if s.land("/in/f.txt", "root's\n") {
		t.Error("a user's rule is for root's files")
	}
	if user := newShell(t, r, 1000); !user.landed("/in/f.txt", false) {
		t.Error("a user's rule is not for the user's files")
	}
	if other := newShell(t, r, 1001); other.landed("/in/f.txt", false) {
		t.Error("a user's rule is for another's files")
	}
	// What cannot be read as a rule does not count, and names that begin with a dot.
	r.write(rulesPath+"/broken.yaml", "version: 1\nmatch\n")
	r.write(rulesPath+"/.hidden.yaml", count)
	if s.landed("/in/f.txt", false) {
		t.Error("a broken rule counts")
	}
}

// TestRuleRefused: a rule is checked whole before it is taken.
func TestRuleRefused(t *testing.T) {
	r := newRig(t)
	r.addNode("agent", "node-1", "h1")
	s := newShell(t, r, 0)
	const head = "version: 1\nmatch: {path: /in}\n"
	for _, c := range []struct {
		name, text string
		code       wire.Code
		want       string
	}{
		{"a.yaml", head + "jobs: {}\n", wire.Invalid, `line 3: unknown field "jobs"; did you mean "job"?`},
		{"b.yaml", head + "job: {kernel: nosuch}\n", wire.NotFound, `line 3: there is no kernel "nosuch"`},
		{"c.yaml", head + "job:\n  kernel: grep\n  output: /nosuch/{file}\n", wire.NotFound, `line 5: there is no /nosuch`},
		{"d.yaml", head + "job: {exec: {argv: [sh]}}\n", wire.Unsupported, `line 3: no host of this cluster runs programs`},
		{"e.yaml", head + "job: {kernel: grep, notify: /no/where.json}\n", wire.NotFound, `line 3: there is no /no`},
		{"f.txt", head + "job: {kernel: grep}\n", wire.Invalid, `a rule's name ends in .yaml; "f.txt" does not`},
		{strings.Repeat("g", 90) + ".yaml", head + "job: {kernel: grep}\n", wire.Invalid, `a rule's name has at most 80 bytes`},
		{"h.yaml", strings.Repeat("#", 65<<10), wire.Invalid, `a rule has at most 64 KiB`},
	} {
		err := s.rule(c.name, c.text)
		if wire.CodeOf(err) != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
		key, ok := JobName(c.name)
		if !ok {
			key = c.name
		}
		if text, err := s.cat("errors/" + key); err != nil || !strings.HasPrefix(text, c.want) {
			t.Errorf("errors/%s: %q, %v", key, text, err)
		}
	}
	if err := s.rule("a.yaml", head+"job: {kernel: grep, args: [x]}\n"); err != nil {
		t.Error(err)
	}
	if _, err := s.find("errors/a"); !errors.Is(err, wire.NotFound) {
		t.Errorf("errors/a: %v", err)
	}
}

// TestRuleDecides runs rules whose results decide what becomes of the file.
func TestRuleDecides(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	s := newShell(t, r, 0)
	r.write("/seen/.keep", "")
	for _, c := range []struct {
		name, then, data string
		stays            bool
	}{
		{"keep", "keep", "a fox\n", true},
		{"drop", "drop", "a fox\n", false},
		{"dropempty", "{drop_if: empty}", "no such animal\n", false},
		{"dropfull", "{drop_if: empty}", "a fox\n", true},
		{"keepif", "{keep_if: nonempty}", "a fox\n", true},
		{"keepifnot", "{keep_if: nonempty}", "nothing\n", false},
		{"match", "{keep_if: {matches: 'red fox$'}}", "a fox\na red fox\n", true},
		{"nomatch", "{keep_if: {matches: 'red fox$'}}", "a fox\nred fox!\n", false},
	} {
		if err := s.rule(c.name+".yaml", fmt.Sprintf("version: 1\nmatch: {path: /in/%s}\nthen: %s\njob:\n  kernel: grep\n  args: [fox]\n  output: /seen/{file}\n", c.name, c.then)); err != nil {
			t.Fatal(c.name, err)
		}
		path := "/in/" + c.name
		if !s.land(path, c.data) {
			t.Fatal(c.name, "no rule")
		}
		id := uint64(len(s.jobs()))
		job, _ := r.wait(id)
		if job.State != StateSucceeded || !s.exists("/seen/"+c.name) {
			t.Errorf("%s: %s: %s; result %v", c.name, job.State, job.Reason, s.exists("/seen/"+c.name))
		}
		if s.exists(path) != c.stays {
			t.Errorf("%s: there %v\n%s", c.name, s.exists(path), jobText("events", job, nil, time.Now()))
		}
	}
	// A version that nobody has processed stays.
	gate := make(chan struct{})
	r.mu.Lock()
	r.fail = func(cmd *wire.Command) error {
		for _, c := range append(cmd.GetBatch().GetCommands(), cmd) {
			if u := c.GetUpdateTask(); u.GetTask().GetState() == StateSucceeded {
				<-gate
			}
		}
		return nil
	}
	r.mu.Unlock()
	s.land("/in/drop", "fox 1\n")
	id := uint64(len(s.jobs()))
	r.until("the task runs", func() bool {
		j, _, err := getJob(context.Background(), r, id, false)
		return err == nil && j.State == StateRunning
	})
	r.write("/in/drop", "fox 2, which nobody has seen\n")
	close(gate)
	r.wait(id)
	if !s.exists("/in/drop") {
		t.Error("a version that was not processed was removed")
	}
}

// TestRulesTogether: all rules for a file fire; it goes after the last of them,
// and only if all have succeeded.
func TestRulesTogether(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	s := newShell(t, r, 0)
	const head = "version: 1\nmatch: {path: /in}\n"
	for name, text := range map[string]string{
		"count.yaml": head + "job: {kernel: wordcount}\n",
		"a.yaml":     head + "job: {kernel: sha256sum}\nthen: drop\n",
		"b.yaml":     head + "job: {kernel: grep, args: [x]}\nthen: drop\n",
		"bad.yaml":   "version: 1\nmatch: {path: /in/bad}\njob: {kernel: grep, args: ['('], retries: 0}\n",
	} {
		if err := s.rule(name, text); err != nil {
			t.Fatal(err)
		}
	}
	s.land("/in/good", "x\n")
	if got := s.jobs(); !slices.Equal(got, []string{"count-good", "a-good", "b-good"}) {
		t.Fatalf("jobs %v", got)
	}
	for id := uint64(1); id <= 3; id++ {
		job, _ := r.wait(id)
		if job.State != StateSucceeded || (job.Source != nil) != (id == 3) || len(job.After) > 0 != (id == 3) {
			t.Errorf("%v", job)
		}
	}
	if s.exists("/in/good") {
		t.Error("it stays")
	}
	s.land("/in/bad", "x\n")
	for id := uint64(4); id <= 7; id++ {
		r.wait(id)
	}
	if !s.exists("/in/bad") {
		t.Error("it was removed though a job over it has failed")
	}
}

func TestFinder(t *testing.T) {
	long := strings.Repeat("x", maxLine-1)
	for _, c := range []struct {
		pattern, text string
		want          wire.Verdict
	}{
		{"", "a", wire.Verdict_UNKNOWN},
		{"(", "a", wire.Verdict_UNKNOWN},
		{"a", "", wire.Verdict_ABSENT},
		{"^b$", "a\nb", wire.Verdict_PRESENT},
		{"^b$", "a\nb\nc\n", wire.Verdict_PRESENT},
		{"^b$", "ab\nbc\n", wire.Verdict_ABSENT},
		{"^$", "a\n", wire.Verdict_ABSENT},
		{"^$", "a\n\n", wire.Verdict_PRESENT},
		{"yy$", long + long + "yy\nz\n", wire.Verdict_PRESENT},
		{"^z$", long + "xxx\nz", wire.Verdict_PRESENT},
	} {
		for _, step := range []int{1, 7, 1 << 20} {
			f := newFinder(&wire.Job{Source: &wire.Source{Pattern: c.pattern}})
			for rest := c.text; rest != ""; {
				n := min(step, len(rest))
				if m, err := f.Write([]byte(rest[:n])); m != n || err != nil {
					t.Fatal(m, err)
				}
				rest = rest[n:]
			}
			if got := f.verdict(); got != c.want {
				t.Errorf("%q in %.20q by %d: %v", c.pattern, c.text, step, got)
			}
		}
	}
}

// TestCombine: what the map tasks wrote is combined where they ran; the reduce
// step reads that alone.
func TestCombine(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	for i := range 3 {
		r.write(fmt.Sprintf("/in/%d.txt", i), strings.Repeat("the quick fox\n", 2000+i))
	}
	// grep passes all lines on, wordcount over them leaves three words of each part.
	id := r.submit("combined", "version: 1\nkernel: grep\nargs: [fox]\ninputs: /in\ntask_bytes: 4KiB\ncombine: {kernel: wordcount, params: {words: identifiers}}\nreduce: {kernel: wordcount}\n")
	job, tasks := r.wait(id)
	if job.State != StateSucceeded || job.Combine.GetName() != "wordcount@1" || len(tasks) != 4 {
		t.Fatalf("%s: %s", job.State, planText(job, tasks))
	}
	for i, x := range tasks[:3] {
		if x.BytesIn < 20000 || x.BytesOut > 200 {
			t.Errorf("task %d read %d bytes and left %d", i, x.BytesIn, x.BytesOut)
		}
	}
	want := fmt.Sprintf("%d fox\n%d quick\n%d the\n", 6003, 6003, 6003)
	if got := r.outputs(id)["output"]; !strings.Contains(got, "6003 fox\n") || !strings.Contains(got, "6003 the\n") {
		t.Errorf("%.200q, want %q", got, want)
	}
	text := jobText("provenance", job, tasks, time.Now())
	for _, want := range []string{"combine kernel wordcount@1 sha256:", "\n  arg \"fox\"\nreduce kernel ", "\n  param words=\"identifiers\"\ntask 0 "} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the provenance:\n%s", want, text)
		}
	}
	// A combine step that fails fails its task, with the reason.
	id = r.submit("bad", "version: 1\nkernel: grep\nargs: [fox]\ninputs: /in\nretries: 0\ncombine: {kernel: grep, args: ['(']}\nreduce: {}\n")
	if job, _ := r.wait(id); job.State != StateFailed || !strings.Contains(job.Reason, "the combine step: ") {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
	// And its limits are those of the task.
	id = r.submit("large", "version: 1\nkernel: grep\nargs: [fox]\ninputs: /in\nretries: 0\noutput_limit: 4KiB\ncombine: {kernel: wordcount}\nreduce: {}\n")
	if job, _ := r.wait(id); job.State != StateFailed || !strings.Contains(job.Reason, "it wrote more than is allowed (4096 bytes: output_limit") {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
}

// TestNotifyFile: a job's end is a line in the file that it names.
func TestNotifyFile(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	r.write("/in/a.txt", "x\n")
	r.write("/log/.keep", "")
	r.wait(r.submit("one", "version: 1\nkernel: wordcount\ninputs: /in\nnotify: /log/ends.json\n"))
	r.wait(r.submit("two", "version: 1\nkernel: grep\nargs: ['(']\nretries: 0\ninputs: /in\nnotify: /log/ends.json\n"))
	in, err := r.Stat(t.Context(), "/log/ends.json")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(in.Inline), "\n"), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], `{"job":1,"name":"one","state":"succeeded"`) || !strings.HasPrefix(lines[1], `{"job":2,"name":"two","state":"failed"`) {
		t.Errorf("%q", lines)
	}
	s := newShell(t, r, 1000)
	if err := s.queue("three.yaml", "version: 1\nkernel: grep\nargs: [x]\ninputs: /in\nnotify: /log/ends.json\n"); !errors.Is(err, wire.Denied) {
		t.Errorf("another's file: %v", err)
	}
	if text, _ := s.cat("errors/three"); !strings.HasPrefix(text, "line 5: no permission to write to /log/ends.json, where the job's end is to be told") {
		t.Errorf("%q", text)
	}
}

// TestRuleHere: the job of an edge rule runs on the host of the mount that the
// file came through.
func TestRuleHere(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	for _, name := range []string{"a", "b"} {
		node, _ := r.startAgent(name, nil)
		r.label(node, "host="+name)
	}
	root := newShell(t, r, 0)
	if err := root.rule("edge.yaml", "version: 1\nmatch: {path: /in}\nwhere: here\njob: {kernel: wordcount}\n"); err != nil {
		t.Fatal(err)
	}
	for i, host := range []string{"a", "b", "b", "a"} {
		s := newShell(t, r, 0)
		s.o.host = host
		if !s.land(fmt.Sprint("/in/", i), "x\n") {
			t.Fatal("no rule")
		}
		if job, tasks := r.wait(uint64(i + 1)); job.State != StateSucceeded || tasks[0].Host != host {
			t.Errorf("%s: %s: %s; it ran on %s", host, job.State, job.Reason, tasks[0].Host)
		}
	}
	// A host that runs no tasks, or has no name: the file tells why.
	for host, want := range map[string]string{"c": "the rule edge: ", "": "the host of this mount has no name"} {
		s := newShell(t, r, 0)
		s.o.host = host
		s.land("/in/x"+host, "x\n")
		if text, err := s.cat("errors/x" + host); err != nil || !strings.Contains(text, want) {
			t.Errorf("%q: %q, %v", host, text, err)
		}
	}
}
