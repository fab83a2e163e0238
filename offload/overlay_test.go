package offload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"quernfs/internal/wire"
)

// shell is what a person sees of an overlay and the real entries beside it.
type shell struct {
	t    *testing.T
	r    *rig
	o    *Overlay
	cred *wire.Cred
}

func newShell(t *testing.T, r *rig, uid uint32) *shell {
	return &shell{t, r, NewOverlay(OverlayConfig{Files: r.files(), Meta: r}), &wire.Cred{Uid: uid, Gid: uid}}
}

// find walks a path below /.compute.
func (s *shell) find(path string) (*wire.Attr, error) {
	ino := wire.ComputeIno
	a := &wire.Attr{Ino: ino, Mode: typeDir}
	for name := range strings.SplitSeq(path, "/") {
		var err error
		if a, err = s.o.Lookup(s.t.Context(), s.cred, a.Ino, name); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (s *shell) cat(path string) (string, error) {
	a, err := s.find(path)
	if err != nil {
		return "", err
	}
	f, err := s.o.Open(s.t.Context(), s.cred, a.Ino, false)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(readerAt{s.t.Context(), f}, 0, 1<<20))
	return string(data), err
}

type readerAt struct {
	ctx context.Context
	f   OverlayFile
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(r.ctx, p, off) }

func (s *shell) echo(text, path string) error {
	a, err := s.find(path)
	if err != nil {
		return err
	}
	f, err := s.o.Open(s.t.Context(), s.cred, a.Ino, true)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(s.t.Context(), []byte(text+"\n"))
	return err
}

func (s *shell) ls(path string) string {
	s.t.Helper()
	ino := wire.ComputeIno
	if path != "" {
		a, err := s.find(path)
		if err != nil {
			s.t.Fatal(path, err)
		}
		ino = a.Ino
	}
	entries, err := s.o.ReadDir(s.t.Context(), s.cred, ino)
	if err != nil {
		s.t.Fatal(path, err)
	}
	var names []string
	for _, d := range entries {
		names = append(names, d.Name)
		// What a listing says agrees with a lookup.
		a, err := s.o.Lookup(s.t.Context(), s.cred, ino, d.Name)
		if err != nil || a.Ino != d.Ino || a.Mode&typeMask != d.Type {
			s.t.Errorf("%s/%s: %v, %v; listed as %d %o", path, d.Name, a, err, d.Ino, d.Type)
		}
	}
	if !slices.IsSorted(names) {
		s.t.Errorf("%s is not sorted: %v", path, names)
	}
	return strings.Join(names, " ")
}

// queue renames a file into the queue.
func (s *shell) queue(name, spec string) error {
	s.t.Helper()
	ino := s.r.write("/tmp/"+strings.ReplaceAll(name, "/", "_"), spec)
	return s.o.Enqueue(s.t.Context(), s.cred, name, ino)
}

func TestOverlay(t *testing.T) {
	r := newRig(t)
	agent := r.addNode("agent", "node-1", "h1")
	r.addNode("chunkd", "chunkd-1", "h1")
	s := newShell(t, r, 1000)
	for i := range 3 {
		r.write(fmt.Sprintf("/in/%d.txt", i), strings.Repeat("x", 9<<20))
	}
	if got := s.ls(""); got != "README accounting api by-name errors hosts jobs" {
		t.Errorf("ls: %s", got)
	}
	if got, err := s.cat("README"); err != nil || !strings.Contains(got, "queue/NAME.yaml") || !strings.Contains(got, "\n  classify   the classes that a model") {
		t.Errorf("README: %v\n%s", err, got)
	}
	spec := "version: 1\nkernel: sha256sum\ninputs: [/in/*.txt]\nreduce: {}\n"
	if err := s.queue("sums.yaml", spec); err != nil {
		t.Fatal(err)
	}
	if got := s.ls("jobs") + "|" + s.ls("by-name") + "|" + s.ls("errors") + "|" + s.ls("hosts"); got != "1|sums||node-1" {
		t.Errorf("ls: %s", got)
	}
	if got := s.ls("jobs/1"); got != "ctl events failed out plan provenance reason spec state tasks usage wait" {
		t.Errorf("ls jobs/1: %s", got)
	}
	if got := s.ls("jobs/1/tasks"); got != "0 1 2" {
		t.Errorf("ls tasks: %s", got)
	}
	if got := s.ls("jobs/1/tasks/1"); got != "attempt device exit host state stderr stdout usage" {
		t.Errorf("ls tasks/1: %s", got)
	}
	link, err := s.find("by-name/sums")
	if err != nil || link.Mode&typeMask != typeLink {
		t.Fatal(link, err)
	}
	if to, err := s.o.ReadLink(t.Context(), link.Ino); err != nil || to != "../jobs/1" {
		t.Errorf("by-name/sums → %s, %v", to, err)
	}
	job, _, err := getJob(t.Context(), r, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.find("jobs/1/out"); err != nil || out.Ino != job.OutDir || wire.PartitionOf(out.Ino) != 0 {
		t.Errorf("out: %v, %v; the job's is %d", out, err, job.OutDir)
	}
	for path, want := range map[string]string{
		"jobs/1/spec":            spec,
		"jobs/1/state":           "pending\n",
		"jobs/1/reason":          "waiting for a host\n",
		"jobs/1/events":          "submitted",
		"jobs/1/plan":            "/in/2.txt",
		"jobs/1/provenance":      "map kernel sha256sum@1 sha256:",
		"jobs/1/usage":           "tasks 3\ndone 0\n",
		"jobs/1/ctl":             "cancel, retry",
		"jobs/1/tasks/2/state":   "pending: waiting for a host\n",
		"jobs/1/tasks/2/attempt": "0\n",
		"hosts/node-1/devices":   "cpu runtimes=wasm slots=2 speed=105%\n",
		"hosts/node-1/load":      "alive busy=0 slots=2\n",
	} {
		if got, err := s.cat(path); err != nil || !strings.Contains(got, want) {
			t.Errorf("cat %s: %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"jobs/2", "jobs/01", "jobs/x", "jobs/1/nothing", "jobs/1/tasks/3", "jobs/1/tasks/9999999999", "by-name/other", "errors/sums", "hosts/chunkd-1", "queue", "jobs/1/tasks/0/nothing"} {
		if a, err := s.find(path); !errors.Is(err, wire.NotFound) {
			t.Errorf("%s: %v, %v", path, a, err)
		}
	}
	if job.Cred.Uid != 1000 || job.Tasks != 3 || job.Kernel != "sha256sum@1" || len(job.Kernels) != 2 {
		t.Errorf("job %+v", job)
	}
	if a, err := s.find("jobs/1/ctl"); err != nil || a.Uid != 1000 || a.Mode != typeReg|0o600 {
		t.Errorf("ctl: %v, %v", a, err)
	}
	if a, err := s.find("hosts/node-1"); err != nil || a.Ino != low(kindHost, uint64(agent)).ino() {
		t.Errorf("hosts/node-1: %v, %v", a, err)
	}
	if r.syncs == 0 {
		t.Error("the inputs were pinned before what had been written was stored")
	}
}

func TestSubmission(t *testing.T) {
	r := newRig(t)
	s := newShell(t, r, 1000)
	r.write("/in/a.txt", "a")
	secret := r.write("/secret/b.txt", "b")
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: secret, Mask: wire.SetMode, Mode: 0o600}}})
	r.write("/.compute/kernels/broken/1/kernel.yaml", "version: 1\nwsam: k.wasm\n")
	r.write("/.compute/kernels/empty/1/kernel.yaml", "version: 1\n")
	r.write("/not.wasm", "hello")
	good := "version: 1\nkernel: sha256sum\ninputs: [/in/a.txt]\n"
	for i, c := range []struct {
		name, spec string
		code       wire.Code
		sentence   string
	}{
		{"good.yaml", good, wire.OK, ""},
		{"good.yaml", good, wire.OK, ""},
		{"good.yml", good, wire.OK, ""},
		{".good.yaml.swp", "anything", wire.OK, ""},
		{"good.yaml", good + "# other\n", wire.Exists, "job 1 has this name already, with other content; give this one another name"},
		{"good.txt", good, wire.Invalid, `a job file's name ends in .yaml; "good.txt" does not`},
		{"typo.yaml", strings.Replace(good, "inputs", "intputs", 1), wire.Invalid, `line 3: unknown field "intputs"; did you mean "inputs"?`},
		{"name.yaml", good + "name: other\n", wire.Invalid, `line 4: the name is "other" but the file is called name.yaml; leave the name out or make them the same`},
		{"named.yaml", good + "name: named\n", wire.OK, ""},
		{"missing.yaml", "version: 1\nkernel: sha256sum\ninputs:\n- /in/a.txt\n- /in/b.txt\n", wire.NotFound, "line 5: there is no /in/b.txt"},
		{"glob.yaml", "version: 1\nkernel: sha256sum\ninputs:\n- /in/*.go\n", wire.NotFound, "line 4: no file matches /in/*.go"},
		{"globdir.yaml", "version: 1\nkernel: sha256sum\ninputs:\n- /no/*.go\n", wire.NotFound, "line 4: there is no /no"},
		{"file.yaml", "version: 1\nkernel: sha256sum\ninputs:\n- /in/a.txt/*\n", wire.NotDir, "line 4: /in/a.txt is not a directory"},
		{"kernel.yaml", "version: 1\nkernel: sha256sun\ninputs: [/in]\n", wire.NotFound, `line 2: there is no kernel "sha256sun"; did you mean "sha256sum"?; ls /.compute/kernels shows those that were registered, the README those that come with quern`},
		{"version.yaml", "version: 1\nkernel: sha256sum@9\ninputs: [/in]\n", wire.NotFound, `line 2: there is no kernel "sha256sum@9"`},
		{"registered.yaml", "version: 1\nkernel: empty@2\ninputs: [/in]\n", wire.NotFound, `line 2: kernel empty has no version 2; it has 1`},
		{"broken.yaml", "version: 1\nkernel: broken\ninputs: [/in]\n", wire.Invalid, `line 2: /.compute/kernels/broken/1/kernel.yaml: line 2: unknown field "wsam"; did you mean "wasm"?`},
		{"empty.yaml", "version: 1\nkernel: empty\ninputs: [/in]\n", wire.NotFound, `line 2: there is no /.compute/kernels/empty/1/k.wasm`},
		{"wasm.yaml", "version: 1\nwasm: /not.wasm\ninputs: [/in]\n", wire.Invalid, `line 2: /not.wasm is not a WebAssembly module`},
		{"reduce.yaml", good + "reduce:\n  kernel: none\n", wire.NotFound, `line 5: there is no kernel "none"`},
		{"denied.yaml", "version: 1\nkernel: sha256sum\ninputs: [/secret]\n", wire.Denied, "line 3: no permission to read /secret/b.txt"},
		{"long.yaml", strings.Repeat("#", 65<<10), wire.Invalid, "a job file has at most 64 KiB"},
	} {
		err := s.queue(c.name, c.spec)
		if wire.CodeOf(err) != c.code {
			t.Errorf("%d %s: %v, want %v", i, c.name, err, c.code)
			continue
		}
		key, ok := JobName(c.name)
		if !ok {
			key = c.name
		}
		text, catErr := s.cat("errors/" + key)
		switch {
		case c.code == wire.OK && !errors.Is(catErr, wire.NotFound):
			t.Errorf("%s was accepted, and errors says %q", c.name, text)
		case c.code != wire.OK && (!strings.HasPrefix(text, c.sentence) || strings.Count(text, "\n") != 1):
			t.Errorf("errors/%s: %q, %v\nwant %q", key, text, catErr, c.sentence)
		}
	}
	if got := s.ls("by-name"); got != "good named" {
		t.Errorf("ls by-name: %s", got)
	}
	// A corrected file forgets the refusal.
	if err := s.queue("typo.yaml", good); err != nil {
		t.Error(err)
	}
	if _, err := s.find("errors/typo"); !errors.Is(err, wire.NotFound) {
		t.Errorf("errors/typo: %v", err)
	}
	// Another mount, or this one after a restart, tells the same.
	for i := range 3 {
		_ = s.queue(fmt.Sprintf("bad%d.yaml", i), "")
	}
	other, stranger := newShell(t, r, 1000), newShell(t, r, 1001)
	if want, got := s.ls("errors"), other.ls("errors"); got != want || !strings.Contains(got, "bad0 bad1 bad2") {
		t.Errorf("errors: %q on another mount, %q here", got, want)
	}
	if text, err := other.cat("errors/bad1"); err != nil || text != "a job file is empty\n" {
		t.Errorf("errors/bad1: %q, %v", text, err)
	}
	// Of others nobody learns, nor loses: a name is each user's own.
	if text, err := stranger.cat("errors/bad1"); !errors.Is(err, wire.NotFound) {
		t.Errorf("errors/bad1 of somebody else: %q, %v", text, err)
	}
	for name, text := range map[string]string{"bad1.yaml": "nonsense", "bad2.yaml": good + "priority: -2\n"} {
		err := stranger.o.Enqueue(t.Context(), stranger.cred, name, r.write("/tmp/stranger-"+name, text)) // a file of his own
		if (err == nil) != (text != "nonsense") {
			t.Errorf("%s of a stranger: %v", name, err)
		}
	}
	for i := range 200 {
		_ = stranger.queue(fmt.Sprintf("flood%d.yaml", i), "")
	}
	for name, want := range map[string]string{"bad1": "a job file is empty\n", "bad2": "a job file is empty\n"} {
		if text, err := other.cat("errors/" + name); err != nil || text != want {
			t.Errorf("errors/%s, after a stranger's: %q, %v", name, text, err)
		}
	}
	if got := len(strings.Fields(stranger.ls("errors"))); got != 128 {
		t.Errorf("a stranger has %d refusals", got)
	}
	if err := other.queue("bad1.yaml", good+"priority: 1\n"); err != nil {
		t.Error(err)
	}
	if _, err := s.find("errors/bad1"); !errors.Is(err, wire.NotFound) {
		t.Errorf("errors/bad1: %v", err)
	}
}

// TestExpand: which files a pattern names.
func TestExpand(t *testing.T) {
	r := newRig(t)
	for _, f := range []string{"/src/a.go", "/src/b.txt", "/src/x/c.go", "/src/x/.hidden.go", "/src/.git/d.go", "/src/x/y/e.go", "/top.go"} {
		r.write(f, f)
	}
	r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: wire.RootIno, Name: "link.go", Mode: typeLink | 0o777, Symlink: "top.go"}}})
	for patterns, want := range map[string]string{
		"[/src/*.go]":                  "/src/a.go",
		"[/src/**/*.go]":               "/src/a.go /src/x/c.go /src/x/y/e.go",
		"[/src/x]":                     "/src/x/.hidden.go /src/x/c.go /src/x/y/e.go",
		"[/src/x/*, /src/x/c.go]":      "/src/x/c.go",
		"[/src/x/c.go, '/src/x/*.go']": "/src/x/c.go",
		"[/*.go]":                      "/top.go",
		"[/src/*/*.go]":                "/src/x/c.go",
		"['/src/[ab].*']":              "/src/a.go /src/b.txt",
		"[/]":                          "/src/.git/d.go /src/a.go /src/b.txt /src/x/.hidden.go /src/x/c.go /src/x/y/e.go /top.go",
	} {
		name := fmt.Sprintf("job %x", patterns)
		id := r.submit(name, "version: 1\nkernel: sha256sum\ninputs: "+patterns+"\n")
		_, tasks, err := getJob(t.Context(), r, id, true)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, x := range tasks {
			for _, in := range x.Inputs {
				got = append(got, in.Path)
				if in.Ino == 0 || in.Version == 0 || in.MtimeNs == 0 || len(x.Inputs) <= 3 && len(in.Servers) != 1 {
					t.Errorf("not pinned: %v", in)
				}
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", patterns, got, want)
		}
	}
	s := Submitter{Files: r.files(), Meta: r}
	if _, err := s.Submit(t.Context(), rootCred, "link", []byte("version: 1\nkernel: grep\ninputs: [/link.go]\n")); sentence(err) != "line 3: /link.go is a symbolic link; name what it points to" {
		t.Error(err)
	}
}

func TestCtl(t *testing.T) {
	r := newRig(t)
	r.write("/in/a.txt", "a")
	s, other := newShell(t, r, 1000), newShell(t, r, 1001)
	const spec = "version: 1\nkernel: sha256sum\ninputs: [/in]\n"
	if err := s.queue("a.yaml", spec); err != nil {
		t.Fatal(err)
	}
	if err := other.echo("cancel", "jobs/1/ctl"); !errors.Is(err, wire.Denied) {
		t.Errorf("another user: %v", err)
	}
	if err := s.echo("explode", "jobs/1/ctl"); !errors.Is(err, wire.Invalid) {
		t.Errorf("an unknown verb: %v", err)
	}
	if err := s.echo("retry", "jobs/1/ctl"); !errors.Is(err, wire.Invalid) {
		t.Errorf("retry of a job that has not ended: %v", err)
	}
	if err := s.echo("", "jobs/1/ctl"); err != nil {
		t.Errorf("an empty line: %v", err)
	}
	// wait blocks, can be interrupted, and then tells the end.
	a, err := s.find("jobs/1/wait")
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.o.Open(t.Context(), s.cred, a.Ino, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error)
	go func() {
		_, err := f.ReadAt(ctx, make([]byte, 100), 0)
		waited <- err
	}()
	cancel()
	if err := <-waited; !errors.Is(err, wire.Interrupted) {
		t.Errorf("an interrupted wait: %v", err)
	}
	go func() {
		buf := make([]byte, 100)
		n, err := f.ReadAt(t.Context(), buf, 0)
		if !errors.Is(err, io.EOF) || !strings.HasPrefix(string(buf[:n]), "cancelled: cancelled by uid 1000: written to ctl\n") {
			t.Errorf("wait: %q, %v", buf[:n], err)
		}
		waited <- nil
	}()
	if err := s.echo("cancel", "jobs/1/ctl"); err != nil {
		t.Fatal(err)
	}
	<-waited
	if got, err := s.cat("jobs/1/state"); err != nil || got != "cancelled\n" {
		t.Errorf("state %q, %v", got, err)
	}
	if err := s.echo("retry", "jobs/1/ctl"); err != nil {
		t.Error(err)
	}
	if got, _ := s.cat("jobs/1/reason"); got != "retried by uid 1000\n" {
		t.Errorf("reason %q", got)
	}
	// Removing the queue's entry cancels; again is no error.
	if err := other.o.Dequeue(t.Context(), other.cred, "a.yaml"); !errors.Is(err, wire.Perm) {
		t.Errorf("another user: %v", err)
	}
	for range 2 {
		if err := s.o.Dequeue(t.Context(), s.cred, "a.yaml"); err != nil {
			t.Error(err)
		}
	}
	if got, _ := s.cat("jobs/1/reason"); !strings.Contains(got, "removed from the queue") {
		t.Errorf("reason %q", got)
	}
	for _, name := range []string{"nothing.yaml", "x.txt", ".hidden"} {
		if err := s.o.Dequeue(t.Context(), s.cred, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNodeNumbers(t *testing.T) {
	seen := map[uint64]node{}
	for k := kindReadme; k < kindHostFile0+kind(len(hostFiles)); k++ {
		for _, job := range []uint64{0, 1, 1<<jobBits - 1} {
			for _, task := range []uint32{0, 7, maxTasks - 1} {
				n := node{k, job, task}
				got, ok := parseNode(n.ino())
				if !ok || got != n {
					t.Errorf("%+v came back as %+v, %v", n, got, ok)
				}
				if old, twice := seen[n.ino()]; twice {
					t.Errorf("%+v and %+v have one number", old, n)
				}
				seen[n.ino()] = n
			}
		}
	}
	if kindHostFile0+kind(len(hostFiles)) > 1<<(48-lowBits) {
		t.Error("the kinds need more bits")
	}
	if n, _ := parseNode(low(kindHost, 0xFFFFFFFF).ino()); n.kind != kindHost || n.low() != 0xFFFFFFFF {
		t.Errorf("%+v", n)
	}
	if _, ok := parseNode(wire.FirstIno); ok {
		t.Error("a real inode was taken for a synthetic one")
	}
}

func TestManyJobs(t *testing.T) {
	r := newRig(t)
	r.write("/in/a.txt", "a")
	in, err := r.Stat(t.Context(), "/in/a.txt")
	if err != nil {
		t.Fatal(err)
	}
	const n = 1000
	for i := range n {
		r.must(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{
			Job:   &wire.Job{Name: fmt.Sprint("job", i), Spec: []byte("version: 1\n")},
			Tasks: []*wire.Task{{Inputs: []*wire.TaskInput{{Path: "/in/a.txt", Ino: in.Attr.Ino}}}},
		}}})
	}
	s := newShell(t, r, 0)
	if got := len(strings.Fields(s.ls("jobs"))); got != n {
		t.Errorf("%d jobs are listed", got)
	}
}
