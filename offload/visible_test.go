package offload

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// permits is what the kernel makes of permissions for a mask of R 4, W 2, X 1.
func permits(cred *wire.Cred, a *wire.Attr, mask uint32) bool {
	bits := a.Mode
	switch {
	case cred.Uid == 0:
		return true
	case cred.Uid == a.Uid:
		bits >>= 6
	case cred.Gid == a.Gid || slices.Contains(cred.Groups, a.Gid):
		bits >>= 3
	}
	return bits&mask == mask
}

// TestOthersSeeNothing: a stranger walks all of /.compute, and tries to open whatever he
// finds or knows the name of, whether the kernel would let him or not. Nothing says
// what another's job is given, does or leaves, unless the owner lets him.
func TestOthersSeeNothing(t *testing.T) {
	const secret = "hunter2"
	r := newRig(t)
	in := r.write("/in/a", "one "+secret)
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: in, Mask: wire.SetMode | wire.SetUID | wire.SetGID, Mode: 0o600, Uid: 1000, Gid: 1000}}})
	owner := newShell(t, r, 1000)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	jobs := map[string]uint64{}
	for name, more := range map[string]string{"mine": "", "ours": "visibility: group\n", "all": "visibility: all\n"} {
		file := r.write("/tmp/"+name, "version: 1\nkernel: cat\ninputs: /in/a\nparams: {password: "+secret+"}\n"+more)
		r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: file, Mask: wire.SetMode, Mode: 0o600}}})
		if err := owner.o.Enqueue(t.Context(), owner.cred, name+".yaml", file); err != nil {
			t.Fatal(name, err)
		}
		job, err := findJob(t.Context(), r, name)
		if err != nil {
			t.Fatal(err)
		}
		jobs[name] = job.Id
		if job, _ := r.wait(job.Id); job.State != StateSucceeded {
			t.Fatalf("%s: %s: %s", name, job.State, job.Reason)
		}
	}
	if err := owner.queue("bad.yaml", "version: 1\nkernel: cat\ninputs: /"+secret+"\n"); err == nil {
		t.Error("a wrong job was taken")
	}

	// seen is which jobs' files let the secret out to cred.
	seen := func(cred *wire.Cred, asKernel bool) (out string) {
		s := &shell{t, r, owner.o, cred}
		found := map[string]bool{}
		var walk func(ino uint64, at string)
		walk = func(ino uint64, at string) {
			entries, err := s.o.ReadDir(t.Context(), cred, ino)
			if err != nil {
				return
			}
			for _, e := range entries {
				p := path.Join(at, e.Name)
				if strings.Contains(e.Name, secret) {
					t.Errorf("uid %d sees the name %s", cred.Uid, p)
				}
				a, err := s.o.Lookup(t.Context(), cred, ino, e.Name)
				if err != nil {
					continue
				}
				if a.Ino < wire.VirtualPartition<<48 { // out
					real, err := r.inode(a.Ino)
					if err != nil {
						t.Fatal(err)
					}
					if !permits(cred, real.Attr, 5) {
						continue
					}
					found[at] = true // what is in there has it
					continue
				}
				if asKernel && !permits(cred, a, 4) {
					continue
				}
				if isDir(a.Mode) {
					if !asKernel || permits(cred, a, 5) {
						walk(a.Ino, p)
					}
					continue
				}
				if !isFile(a.Mode) || e.Name == "wait" {
					continue
				}
				f, err := s.o.Open(t.Context(), cred, a.Ino, false)
				if err != nil {
					continue
				}
				data, _ := io.ReadAll(io.NewSectionReader(readerAt{t.Context(), f}, 0, 1<<20))
				if strings.Contains(string(data), secret) || strings.Contains(string(data), "/in/a") {
					found[strings.Join(strings.Split(p, "/")[:2], "/")] = true
				}
			}
		}
		walk(wire.ComputeIno, "")
		for name, id := range jobs {
			if found[fmt.Sprint("jobs/", id)] {
				out += name + " "
			}
			delete(found, fmt.Sprint("jobs/", id))
		}
		if found["errors/bad"] {
			out += "bad "
		}
		delete(found, "errors/bad")
		if len(found) > 0 {
			t.Errorf("uid %d: %v", cred.Uid, found)
		}
		words := strings.Fields(out)
		slices.Sort(words)
		return strings.Join(words, " ")
	}
	for _, asKernel := range []bool{true, false} {
		for _, c := range []struct {
			cred *wire.Cred
			want string
		}{
			{&wire.Cred{Uid: 1000, Gid: 1000}, "all bad mine ours"},
			{rootCred, "all bad mine ours"},
			{&wire.Cred{Uid: 2000, Gid: 2000}, "all"},
			{&wire.Cred{Uid: 2000, Gid: 2000, Groups: []uint32{1000}}, "all ours"},
			{&wire.Cred{Uid: 2000, Gid: 1000}, "all ours"},
		} {
			if got := seen(c.cred, asKernel); got != c.want {
				t.Errorf("as the kernel: %v: uid %d gid %d %v sees %q, may see %q", asKernel, c.cred.Uid, c.cred.Gid, c.cred.Groups, got, c.want)
			}
		}
	}

	// Nor does what the command line asks for.
	stranger := &wire.Cred{Uid: 2000, Gid: 2000}
	for name, id := range jobs {
		for what, q := range map[string]*wire.Query{
			"list": {Op: &wire.Query_ListJobs{ListJobs: &wire.ListJobs{}}},
			"get":  {Op: &wire.Query_GetJob{GetJob: &wire.GetJob{Id: id, Tasks: true}}},
			"raw":  {Op: &wire.Query_GetJob{GetJob: &wire.GetJob{Id: id, Tasks: true, Recorded: true}}},
		} {
			body, err := proto.Marshal(q)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []*wire.Cred{stranger, owner.cred} {
				m, err := owner.o.answer(t.Context(), c, askQuery, body)
				if err != nil {
					t.Fatal(what, err)
				}
				for _, j := range m.(*wire.Answer).GetJobs().GetJobs() {
					open := c != stranger || j.Name == "all"
					text, _ := proto.Marshal(j)
					if got := strings.Contains(string(text), secret) || len(j.Digest) > 0; got != open {
						t.Errorf("%s %s: uid %d is told %v", what, name, c.Uid, j)
					}
				}
				for _, x := range m.(*wire.Answer).GetJobs().GetTasks() {
					open := c != stranger || name == "all"
					if text, _ := proto.Marshal(x); strings.Contains(string(text), "/in/a") != open {
						t.Errorf("%s %s: uid %d is told %v", what, name, c.Uid, x)
					}
				}
			}
		}
	}

	// What a job leaves is as private as its job file was, or as the owner says.
	for name, want := range map[string]string{"mine": "700 600", "ours": "750 640", "all": "755 644"} {
		job, _, err := getJob(t.Context(), r, jobs[name], false)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := r.inode(job.OutDir)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := r.ReadDirInode(t.Context(), job.OutDir)
		if err != nil || len(entries) != 1 {
			t.Fatal(entries, err)
		}
		file, err := r.inode(entries[0].Ino)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%o %o", dir.Attr.Mode&0o7777, file.Attr.Mode&0o7777); got != want {
			t.Errorf("%s: out and its result are %s, want %s", name, got, want)
		}
		if p := r.xattr(file.Attr.Ino, attrProvenance); strings.Contains(p, secret) != (name == "all") {
			t.Errorf("%s: the provenance of a result: %q", name, p)
		}
	}

	// Nor do attributes of a file that others may read.
	attrs := map[string][]byte{attrJob: fmt.Append(nil, jobs["mine"])}
	x := r.target("/in/a", attrs)
	for _, name := range []string{attrState, attrResult, attrError} {
		if v, err := owner.o.GetAttribute(t.Context(), &wire.Cred{Uid: 2000}, x, name); err == nil {
			t.Errorf("a stranger reads %s: %s", name, v)
		}
	}
	if v, err := owner.o.GetAttribute(t.Context(), owner.cred, x, attrState); err != nil {
		t.Errorf("the owner: %s, %v", v, err)
	}
}
