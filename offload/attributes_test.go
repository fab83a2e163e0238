package offload

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// target is the file or directory at path, with attributes in memory.
func (r *rig) target(path string, attrs map[string][]byte) *Target {
	r.t.Helper()
	in, err := r.Stat(context.Background(), path)
	if err != nil {
		r.t.Fatal(path, err)
	}
	return &Target{Ino: in.Attr.Ino, Inode: in, Path: path, Stored: func(_ context.Context, name string) ([]byte, error) {
		if v, ok := attrs[name]; ok {
			return v, nil
		}
		return nil, noAttr(name)
	}}
}

// set sets an attribute and stores what is to be stored.
func set(t *testing.T, o *Overlay, x *Target, attrs map[string][]byte, name, value string) error {
	t.Helper()
	store, err := o.SetAttribute(context.Background(), rootCred, x, name, []byte(value))
	for k, v := range store {
		if len(v) == 0 {
			delete(attrs, k)
		} else {
			attrs[k] = v
		}
	}
	return err
}

// TestAttributes runs a kernel over a file and over a tree by attributes alone.
func TestAttributes(t *testing.T) {
	r := newRig(t)
	r.write("/in/a [1].txt", "x y x\n")
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	o := NewOverlay(OverlayConfig{Files: r.files(), Meta: r})
	ctx := context.Background()
	attrs := map[string][]byte{}
	file := r.target("/in/a [1].txt", attrs)
	get := func(x *Target, name string) string {
		t.Helper()
		v, err := o.GetAttribute(ctx, rootCred, x, name)
		if err != nil && !errors.Is(err, wire.NoAttr) {
			t.Errorf("%s: %v", name, err)
		}
		return string(v)
	}
	if got := get(file, attrState); got != "" {
		t.Errorf("state before: %q", got)
	}
	if err := set(t, o, file, attrs, attrParams, "top=1\n"); err != nil {
		t.Fatal(err)
	}
	if err := set(t, o, file, attrs, attrRun, "wordcount"); err != nil {
		t.Fatal(err)
	}
	job, _, err := getJob(ctx, r, 1, false)
	if err != nil || string(attrs[attrJob]) != "1" || !strings.HasPrefix(job.Name, "a [1].txt-") {
		t.Fatal(job, err, attrs)
	}
	if job, _ = r.wait(1); job.Mode != 0o644 {
		t.Errorf("the results have the permissions %o, not those of the file", job.Mode)
	}
	if got := get(file, attrState); got != "succeeded: all tasks done" {
		t.Errorf("state %q", got)
	}
	if got := get(file, attrResult); got != "/.compute/jobs/1/out/output" {
		t.Errorf("result %q", got)
	}
	if got := r.outputs(1)["output"]; got != "2 x\n" {
		t.Errorf("%q", got)
	}
	// The same over the same version is the same job; over another it is another.
	if err := set(t, o, file, attrs, attrRun, "wordcount"); err != nil || string(attrs[attrJob]) != "1" {
		t.Errorf("%v, job %s", err, attrs[attrJob])
	}
	r.write("/in/a [1].txt", "z\n")
	again := r.target("/in/a [1].txt", attrs)
	if err := set(t, o, again, attrs, attrRun, "kernel: grep\nargs: [z]\nparams: {}"); err != nil || string(attrs[attrJob]) != "2" {
		t.Errorf("%v, job %s", err, attrs[attrJob])
	}
	r.wait(2)
	if got := r.outputs(2)["output"]; got != "/in/a [1].txt:1:z\n" {
		t.Errorf("%q", got)
	}
	if got := o.ListAttributes(ctx, rootCred, again); strings.Join(got, " ") != attrState+" "+attrResult {
		t.Errorf("%q", got)
	}
	if got := get(again, attrWhere); !regexp.MustCompile(`^holds a bytes=2\ncandidate a local=2 remote=0 seconds=[0-9.]+ wait=0.00 fetch=0.00 run=[0-9.]+ device=cpu runtime=wasm by=[a-z]+\n$`).MatchString(got) {
		t.Errorf("where: %q", got)
	}

	tree := map[string][]byte{}
	dir := r.target("/in", tree)
	for _, want := range []string{"3", "4"} { // a tree may have changed: always a new job
		if err := set(t, o, dir, tree, attrRun, "wordcount"); err != nil || string(tree[attrJob]) != want {
			t.Errorf("%v, job %s", err, tree[attrJob])
		}
	}
	if err := set(t, o, dir, tree, attrCancel, "1"); err != nil {
		t.Error(err)
	}

	for _, c := range []struct{ name, value, want string }{
		{attrRun, "nosuch", "there is no kernel"},
		{attrRun, "", "it is empty"},
		{attrRun, "kernel: wordcount\ninputs: /x", "inputs is not given here"},
		{attrRun, "kernel: wordcount\nretriez: 3", `unknown field "retriez"`},
		{attrRun, "[a: b", "not valid YAML"},
		{attrParams, "no equals", "NAME=VALUE"},
		{attrOnClose, "wordcount", "belongs to a directory"},
	} {
		if err := set(t, o, file, attrs, c.name, c.value); err == nil {
			t.Errorf("%s=%q is taken", c.name, c.value)
		}
		if got := get(file, attrError); !strings.Contains(got, c.want) {
			t.Errorf("%s=%q: %q", c.name, c.value, got)
		}
	}
	for _, name := range []string{attrState, attrJob, attrResult, attrProvenance} {
		if err := set(t, o, file, attrs, name, "x"); !errors.Is(err, wire.Perm) {
			t.Errorf("%s is set: %v", name, err)
		}
	}
}

// TestLanded fires a rule once for each version of a file.
func TestLanded(t *testing.T) {
	r := newRig(t)
	r.write("/drop/a.txt", "x\n")
	o := NewOverlay(OverlayConfig{Files: r.files(), Meta: r})
	ctx := context.Background()
	rule := []byte("kernel: wordcount\noutput: '/counts/{file}'\n")
	jobs := func() (n int) {
		if err := EachJob(ctx, r, func(*wire.Job) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	file := r.target("/drop/a.txt", nil)
	if err := o.Landed(ctx, rootCred, file, rule, false); err != nil {
		t.Errorf("a rule that does not fit fails the close: %v", err)
	}
	if v, err := o.GetAttribute(ctx, rootCred, file, attrError); err != nil || !strings.Contains(string(v), "there is no /counts") {
		t.Errorf("%q, %v", v, err)
	}
	r.write("/counts/.keep", "")
	for range 3 {
		if err := o.Landed(ctx, rootCred, file, rule, false); err != nil {
			t.Fatal(err)
		}
	}
	if n := jobs(); n != 1 {
		t.Errorf("%d jobs for one version", n)
	}
	r.write("/drop/a.txt", "x y\n")
	if err := o.Landed(ctx, rootCred, r.target("/drop/a.txt", nil), rule, false); err != nil || jobs() != 2 {
		t.Errorf("%v, %d jobs for two versions", err, jobs())
	}
}

// TestOnCloseOfOthers: who owns a directory cannot use the rights of those who
// write to it.
func TestOnCloseOfOthers(t *testing.T) {
	r := newRig(t)
	r.write("/drop/a.txt", "x\n")
	dir, err := r.Stat(t.Context(), "/drop")
	if err != nil {
		t.Fatal(err)
	}
	o := NewOverlay(OverlayConfig{Files: r.files(), Meta: r})
	jobs := func() (n int) {
		if err := EachJob(t.Context(), r, func(*wire.Job) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, c := range []struct {
		owner, writer uint32
		fires         bool
	}{{0, 0, true}, {0, 1001, true}, {1000, 1000, true}, {1000, 1001, false}, {1000, 0, false}} {
		r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: dir.Attr.Ino, Mask: wire.SetUID, Uid: c.owner}}})
		r.write("/drop/a.txt", fmt.Sprintln(c))
		before := jobs()
		cred := &wire.Cred{Uid: c.writer, Gid: c.writer}
		if err := o.Landed(t.Context(), cred, r.target("/drop/a.txt", nil), []byte("wordcount"), false); err != nil {
			t.Fatal(err)
		}
		if fired := jobs() > before; fired != c.fires {
			t.Errorf("%+v: fired %v", c, fired)
		}
		_, err := o.SetAttribute(t.Context(), cred, r.target("/drop", nil), attrOnClose, []byte("wordcount"))
		if may := err == nil; may != (c.writer == 0 || c.writer == c.owner) || err != nil && !errors.Is(err, wire.Perm) {
			t.Errorf("%+v: set: %v", c, err)
		}
	}
}

func TestLiteral(t *testing.T) {
	for _, p := range []string{"/a/b.txt", "/a [1]/*?x", "/ä/[[]", `/a\b`} {
		if l := jobfile.Literal(p); jobfile.CheckPattern(l) != nil || !jobfile.Match(l, p) {
			t.Errorf("%q of %q: %v", l, p, jobfile.CheckPattern(l))
		}
	}
}
