package offload

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"quernfs/internal/wire"
	"quernfs/offload/kernels"
)

// as makes a file with its directories as a user does.
func (r *rig) as(cred *wire.Cred, path, data string, mode uint32) uint64 {
	r.t.Helper()
	parts := strings.Split(strings.Trim(path, "/"), "/")
	dir, at := wire.RootIno, ""
	for _, p := range parts[:len(parts)-1] {
		at += "/" + p
		in, err := r.Stat(context.Background(), at)
		if err != nil {
			res := r.must(&wire.Command{Cred: cred, Op: &wire.Command_Create{Create: &wire.Create{Parent: dir, Name: p, Mode: typeDir | 0o755, Exclusive: true}}})
			in = res.Inode
		}
		dir = in.Attr.Ino
	}
	ino := r.write(path, data)
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: ino, Mask: wire.SetUID | wire.SetGID, Uid: cred.Uid, Gid: cred.Gid}}})
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: ino, Mask: wire.SetMode, Mode: mode}}})
	return ino
}

func (r *rig) chmod(path string, mode uint32) {
	r.t.Helper()
	in, err := r.Stat(context.Background(), path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: in.Attr.Ino, Mask: wire.SetMode, Mode: mode}}})
}

// TestKernelsOfOnesOwn: a kernel of a user's own is one that is asked for as such. It
// takes nobody's place, others use it once its owner lets them, and what does not
// belong to the user whose number it has does not count.
func TestKernelsOfOnesOwn(t *testing.T) {
	r := newRig(t)
	wasm, _, err := kernels.Module()
	if err != nil {
		t.Fatal(err)
	}
	ann, bob := &wire.Cred{Uid: 1000, Gid: 1000}, &wire.Cred{Uid: 1001, Gid: 1001}
	r.write("/in/a", "one two one\n")
	put := func(cred *wire.Cred, dir, manifest string) {
		r.as(cred, dir+"/kernel.yaml", manifest, 0o644)
		r.as(cred, dir+"/k.wasm", string(wasm), 0o644)
	}
	put(ann, "/.compute/users/1000/kernels/wordcount/1", "version: 1\nargs: [sha256sum]\n")
	put(ann, "/.compute/users/1000/kernels/wordcount/2", "version: 1\nargs: [grep]\nsplits: [file, none]\n")
	put(ann, "/.compute/users/1000/kernels/device/1", "version: 1\nopencl: {file: k.cl, input: [{stream: in, type: uchar}], run: [{entry: x, args: [in], global: [in.n]}], output: {raw: in}}\n")
	put(ann, "/.compute/users/1000/kernels/both/1", "version: 1\nwasm: k.wasm\nopencl: {file: k.cl, input: [{stream: in, type: uchar}], run: [{entry: x, args: [in], global: [in.n]}], output: {raw: in}}\n")
	// What root puts under Bob's number is not Bob's.
	put(rootCred, "/.compute/users/1001/kernels/planted/1", "version: 1\nargs: [sha256sum]\n")
	n := 0
	submit := func(cred *wire.Cred, kernel, more string) (string, error) {
		n++
		s := Submitter{Files: r.files(), Meta: r}
		id, err := s.Submit(t.Context(), cred, fmt.Sprint("j", n), []byte("version: 1\ninputs: /in/a\nkernel: "+kernel+"\n"+more))
		if err != nil {
			return "", err
		}
		j, _, err := getJob(t.Context(), r, id, false)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(j.Kernel, " ", j.Kernels[0].Args, j.Kernels[0].Runtimes), nil
	}
	check := func(what string, cred *wire.Cred, kernel, more, want string) {
		t.Helper()
		got, err := submit(cred, kernel, more)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %q, not %q", what, got, want)
		}
	}
	check("the shared one", ann, "wordcount", "", "wordcount@1 [wordcount]")
	check("one's own", ann, "~/wordcount", "", "~1000/wordcount@2 [grep] [wasm]")
	check("an older version", ann, "~/wordcount@1", "", "~1000/wordcount@1 [sha256sum]")
	check("by number", ann, "~1000/wordcount@1", "", "~1000/wordcount@1")
	check("a version that there is not", ann, "~/wordcount@3", "", "has no version 3; it has 1, 2")
	check("no such kernel", ann, "~/wordcont", "", "there is no kernel ~/wordcont: it would be /.compute/users/1000/kernels/wordcont of uid 1000")
	check("a way to cut that it does not know", ann, "~/wordcount", "split: lines\n", "does not work with split: lines")
	check("as the reduce step", ann, "cat", "reduce: {kernel: ~/wordcount@1}\n", "cat@1")
	check("only for a device", ann, "~/device", "", "has no variant for wasm")
	check("for a device, too", ann, "~/both", "", "~1000/both@1 [] []")
	check("on the device", ann, "~/both", "runtime: opencl\n", "has no variant for opencl")
	check("the shared one of another", bob, "wordcount", "", "wordcount@1 [wordcount]")
	check("root's own, of which there are none", rootCred, "~/wordcount", "", "there is no kernel ~/wordcount")
	check("another's that is closed", bob, "~1000/wordcount", "", "permission")
	check("one that was planted", bob, "~/planted", "", "there is no kernel ~/planted")
	check("one that was planted, for its maker", rootCred, "~1001/planted", "", "there is no kernel ~1001/planted")
	check("a user that there is not", ann, "~nobody-of-this-name/k", "", "there is no user nobody-of-this-name")
	check("up", ann, "~/../kernels", "", "kernel must be NAME")
	check("a shared one by a way around", ann, "~1000/../../kernels/x", "", "kernel must be NAME")

	r.chmod("/.compute/users/1000", 0o755)
	check("another's that is open", bob, "~1000/wordcount@1", "", "~1000/wordcount@1 [sha256sum]")
	r.chmod("/.compute/users/1000/kernels/wordcount/1/k.wasm", 0o600)
	check("another's of which the module is closed", bob, "~1000/wordcount@1", "", "permission")
	r.chmod("/.compute/users/1000/kernels/wordcount", 0o711)
	check("another's that cannot be listed", bob, "~1000/wordcount", "", "permission")
	// A link in the place of a directory leads nowhere.
	dir, err := r.Stat(t.Context(), "/.compute/users/1000/kernels")
	if err != nil {
		t.Fatal(err)
	}
	r.must(&wire.Command{Cred: ann, Op: &wire.Command_Create{Create: &wire.Create{Parent: dir.Attr.Ino, Name: "link", Mode: typeLink | 0o777, Symlink: "../../1000/kernels/wordcount", Exclusive: true}}})
	if got, err := submit(ann, "~/link", ""); err == nil {
		t.Errorf("through a link: %s", got)
	}
}

// TestRulesOfOnesOwn: a rule of a user's own is for what that user writes, whoever else
// may write there, and runs as that user; nobody makes one for another.
func TestRulesOfOnesOwn(t *testing.T) {
	r := newRig(t)
	ann, bob := newShell(t, r, 1000), newShell(t, r, 1001)
	root := newShell(t, r, 0)
	const count = "version: 1\nmatch: {path: '/in/*.txt'}\njob: {kernel: wordcount}\n"
	put := func(s *shell, uid uint32, name, text string, mode uint32) error {
		t.Helper()
		p := fmt.Sprint("/.compute/users/", uid, "/rules/", name)
		ino := r.as(s.cred, p, text, mode)
		dir, err := r.Stat(t.Context(), fmt.Sprint("/.compute/users/", uid, "/rules"))
		if err != nil {
			t.Fatal(err)
		}
		if !s.o.OwnRules(t.Context(), s.cred, dir.Attr.Ino) {
			return nil
		}
		if err = s.o.CheckRule(t.Context(), s.cred, dir.Attr.Ino, name, ino); err != nil {
			_ = r.Remove(t.Context(), dir.Attr.Ino, name, false)
		}
		return err
	}
	if err := put(ann, 1000, "count.yaml", count, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := put(ann, 1000, "bad.yaml", "version: 1\nmatch: {path: /in}\njob: {kernel: wordcoun}\n", 0o600); err == nil {
		t.Error("a wrong rule was taken")
	}
	if got, err := ann.cat("errors/~bad"); err != nil || !strings.Contains(got, "did you mean") {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := bob.cat("errors/~bad"); err == nil {
		t.Error("another sees why the rule was refused")
	}
	if !ann.land("/in/a.txt", "one\n") || bob.land("/in/b.txt", "two\n") || root.land("/in/c.txt", "three\n") {
		t.Error("the rule is for its owner's files, and only these")
	}
	if got := strings.Join(root.jobs(), " "); got != "~count-a.txt" {
		t.Errorf("jobs: %s", got)
	}
	job, _, err := getJob(t.Context(), r, 1, false)
	if err != nil || job.Cred.Uid != 1000 || job.Rule != "~count" {
		t.Errorf("%v, %v", job, err)
	}
	// Bob puts a rule of his, and one of Ann's, where Ann's are (she has let him): neither counts
	// for her, nor for him.
	r.chmod("/.compute/users/1000", 0o777)
	r.chmod("/.compute/users/1000/rules", 0o777)
	before := len(root.jobs())
	if err := put(bob, 1000, "trap.yaml", strings.Replace(count, "wordcount", "sha256sum", 1), 0o644); err != nil {
		t.Fatal(err)
	}
	ann.land("/in/d.txt", "four\n")
	bob.land("/in/e.txt", "five\n")
	if got := root.jobs()[before:]; len(got) != 1 || got[0] != "~count-d.txt" {
		t.Errorf("jobs: %s", got)
	}
	// A directory with Ann's number that is not hers has no rules for her.
	in, err := r.Stat(t.Context(), "/.compute/users/1000/rules")
	if err != nil {
		t.Fatal(err)
	}
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: in.Attr.Ino, Mask: wire.SetUID, Uid: 1001}}})
	if ann.land("/in/f.txt", "six\n") {
		t.Error("rules in another's directory count")
	}
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: in.Attr.Ino, Mask: wire.SetUID, Uid: 1000}}})

	// One that is written in place is checked when it is closed, also the first one.
	carl := newShell(t, r, 1002)
	carl.r.as(carl.cred, "/.compute/users/1002/rules/typo.yaml", "version: 1\nmach: x\n", 0o600)
	closed := func(s *shell, p string) error {
		x := r.target(p, nil)
		_, err := s.o.Standing(t.Context(), s.cred, false, func() (string, uint64) { return p, x.Inode.Attr.Size })
		return err
	}
	if err := closed(carl, "/.compute/users/1002/rules/typo.yaml"); wire.CodeOf(err) != wire.Invalid {
		t.Errorf("written in place: %v", err)
	}
	if err := closed(ann, "/.compute/users/1000/rules/count.yaml"); err != nil {
		t.Errorf("written in place: %v", err)
	}
	// There are at most so many of a user's own.
	before = len(root.jobs())
	for i := range maxOwnRules + 5 {
		r.as(carl.cred, fmt.Sprintf("/.compute/users/1002/rules/r%03d.yaml", i), count, 0o600)
	}
	carl.land("/in/g.txt", "seven\n")
	if got := root.jobs()[before:]; len(got) != maxOwnRules {
		t.Errorf("%d rules fired", len(got))
	}
}
