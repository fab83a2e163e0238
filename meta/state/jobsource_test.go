package state

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// landed makes a file of uid 7 in a directory of its own, and a job about it.
func landed(t *testing.T, r *rig, name string, s *wire.Source) (dir, ino, job uint64) {
	t.Helper()
	r.cred = nil
	dir = r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: wire.RootIno, Name: "dir-" + name, Mode: sIFDIR | 0o755, Exclusive: true}}}).Inode.Attr.Ino
	in := r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: dir, Name: name, Mode: sIFREG | 0o644, Exclusive: true}}}).Inode
	ino = in.Attr.Ino
	for _, x := range []uint64{dir, ino} {
		in = r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: x, Mask: wire.SetUID | wire.SetGID, Uid: 7, Gid: 7}}}).Inode
	}
	s.Parent, s.Name, s.Ino = dir, name, ino
	s.Size, s.MtimeNs, s.CtimeNs = in.Attr.Size, in.Attr.MtimeNs, in.Attr.CtimeNs
	res := submitJob(r, &wire.Job{Name: "job-" + name, Spec: []byte(name), Source: s, Cred: &wire.Cred{Uid: 7, Gid: 7}}, 1, 0)
	if res.Code != 0 {
		t.Fatal(res)
	}
	expect(t, "begin", task(r, res.Value, 0, 1, "running", 0), "ok")
	return dir, ino, res.Value
}

// succeed ends the task of a job.
func succeed(r *rig, job, bytes uint64, v wire.Verdict) string {
	return codeName(r.do(&wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{
		Task: &wire.Task{Job: job, Attempt: 1, State: "succeeded", BytesOut: bytes, Verdict: v},
	}}}).Code)
}

func lastEvent(t *testing.T, r *rig, job uint64) string {
	j := mustJob(t, r, job)
	return j.Events[len(j.Events)-1].Text
}

func there(r *rig, dir uint64, name string) bool {
	_, err := r.s.Entry(dir, name)
	return err == nil
}

// TestSourceByResult: what becomes of a source is decided by the result.
func TestSourceByResult(t *testing.T) {
	r := newRig(t)
	n := 0
	for _, c := range []struct {
		drop    wire.Drop
		bytes   uint64
		verdict wire.Verdict
		stays   bool
	}{
		{wire.Drop_NEVER, 5, 0, true},
		{wire.Drop_ALWAYS, 0, 0, false},
		{wire.Drop_EMPTY, 0, 0, false},
		{wire.Drop_EMPTY, 1, 0, true},
		{wire.Drop_NOT_EMPTY, 0, 0, true},
		{wire.Drop_NOT_EMPTY, 1, 0, false},
		{wire.Drop_FOUND, 9, wire.Verdict_UNKNOWN, true},
		{wire.Drop_FOUND, 9, wire.Verdict_ABSENT, true},
		{wire.Drop_FOUND, 9, wire.Verdict_PRESENT, false},
		{wire.Drop_NOT_FOUND, 9, wire.Verdict_UNKNOWN, true},
		{wire.Drop_NOT_FOUND, 9, wire.Verdict_ABSENT, false},
		{wire.Drop_NOT_FOUND, 9, wire.Verdict_PRESENT, true},
		{wire.Drop(77), 9, wire.Verdict_PRESENT, true},
	} {
		n++
		name := fmt.Sprint("f", n)
		dir, _, job := landed(t, r, name, &wire.Source{Drop: c.drop})
		expect(t, fmt.Sprintf("%+v", c), succeed(r, job, c.bytes, c.verdict), "ok")
		if got := there(r, dir, name); got != c.stays {
			t.Errorf("%+v: there %v; %s", c, got, lastEvent(t, r, job))
		}
	}
	r.check()
	r.replay(1, 7)
}

// TestSourceIsNotLost does something to a source while its job runs: it goes
// only if it is what was processed, and as the job's owner may.
func TestSourceIsNotLost(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(r *rig, dir, ino uint64)
		want string
		gone bool
	}{
		{"nothing", func(*rig, uint64, uint64) {}, "was removed", true},
		{"read", func(r *rig, _, ino uint64) {
			r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: ino, Mask: wire.SetAtime, AtimeNs: 5, Handle: true}}})
		}, "was removed", true},
		{"write", func(r *rig, _, ino uint64) {
			r.commit(nil, &wire.FileUpdate{Ino: ino, Inline: []byte("x"), HasInline: true})
		}, "it has changed since", false},
		{"write, times set back", func(r *rig, _, ino uint64) {
			in, _ := r.s.Inode(ino)
			r.commit(nil, &wire.FileUpdate{Ino: ino, Inline: []byte("x"), HasInline: true})
			r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: ino, Mask: wire.SetSize | wire.SetMtime, Size: in.Attr.Size, MtimeNs: in.Attr.MtimeNs}}})
		}, "it has changed since", false},
		{"rename", func(r *rig, dir, _ uint64) {
			r.must(&wire.Command{Op: &wire.Command_Rename{Rename: &wire.Rename{Parent: dir, Name: "rename", NewParent: wire.RootIno, NewName: "elsewhere"}}})
		}, "is not there any more", false},
		{"replaced", func(r *rig, dir, _ uint64) {
			r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: dir, Name: "new", Mode: sIFREG | 0o644}}})
			r.must(&wire.Command{Op: &wire.Command_Rename{Rename: &wire.Rename{Parent: dir, Name: "new", NewParent: dir, NewName: "replaced"}}})
		}, "is not there any more", false},
		{"directory gone", func(r *rig, dir, _ uint64) {
			r.must(&wire.Command{Op: &wire.Command_Unlink{Unlink: &wire.Unlink{Parent: dir, Name: "directory gone"}}})
			r.must(&wire.Command{Op: &wire.Command_Unlink{Unlink: &wire.Unlink{Parent: wire.RootIno, Name: "dir-directory gone", Dir: true}}})
		}, "its directory is gone", false},
		{"no right", func(r *rig, dir, _ uint64) {
			r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: dir, Mask: wire.SetMode, Mode: 0o500}}})
		}, "may not remove it", false},
		{"not its own", func(r *rig, dir, _ uint64) {
			r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: dir, Mask: wire.SetUID, Uid: 8}}})
		}, "may not remove it", false},
	} {
		r := newRig(t)
		dir, ino, job := landed(t, r, c.name, &wire.Source{Drop: wire.Drop_ALWAYS})
		c.do(r, dir, ino)
		expect(t, c.name, succeed(r, job, 1, 0), "ok")
		if got := lastEvent(t, r, job); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
		if there(r, dir, c.name) && c.gone {
			t.Errorf("%s: it is still there", c.name)
		}
		if _, err := r.s.Inode(ino); err == nil && c.gone || err != nil && !c.gone && c.name != "replaced" && c.name != "directory gone" {
			t.Errorf("%s: the inode: %v", c.name, err)
		}
		r.check()
	}
}

// TestSourceStaysUnlessItsJobSucceeds: failed and cancelled jobs, stale attempts,
// and jobs that had nothing to do, remove nothing; who has it open keeps it.
func TestSourceStaysUnlessItsJobSucceeds(t *testing.T) {
	r := newRig(t)
	drop := func() *wire.Source { return &wire.Source{Drop: wire.Drop_ALWAYS} }
	dir, _, job := landed(t, r, "failed", drop())
	expect(t, "fail", task(r, job, 0, 1, "failed", 0), "ok")
	if !there(r, dir, "failed") {
		t.Error("a failed job removed its source")
	}
	dir, _, job = landed(t, r, "cancelled", drop())
	expect(t, "cancel", updateJob(r, &wire.UpdateJob{Id: job, State: "cancelled"}), "ok")
	expect(t, "stale", succeed(r, job, 1, 0), "Stale")
	if !there(r, dir, "cancelled") {
		t.Error("a cancelled job removed its source")
	}
	dir, _, job = landed(t, r, "nothing", drop())
	expect(t, "nothing to do", updateJob(r, &wire.UpdateJob{Id: job, State: "succeeded"}), "ok")
	if !there(r, dir, "nothing") {
		t.Error("a job that did nothing removed its source")
	}
	session := r.openSession("reader")
	dir, ino, job := landed(t, r, "open", drop())
	r.do(&wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{
		Task: &wire.Task{Job: job, Attempt: 1, State: "succeeded"}, SourceSessions: []uint64{session},
	}}})
	if _, err := r.s.Inode(ino); there(r, dir, "open") || err != nil {
		t.Errorf("there %v, inode %v", there(r, dir, "open"), err)
	}
	r.endSession(session)
	if _, err := r.s.Inode(ino); err == nil {
		t.Error("the inode outlives its last reader")
	}
	// Where a result may have been left out, the file is all there is.
	s := drop()
	dir, _, job = landed(t, r, "skip", s)
	j := mustJob(t, r, job)
	res := submitJob(r, &wire.Job{Name: "skipping", Source: j.Source, OutParent: dir, IfExists: wire.IfExists_SKIP, Cred: j.Cred}, 1, 0)
	expect(t, "begin", task(r, res.Value, 0, 1, "running", 0), "ok")
	expect(t, "skipped", succeed(r, res.Value, 1, 0), "ok")
	if !there(r, dir, "skip") || !strings.Contains(lastEvent(t, r, res.Value), "if_exists: skip") {
		t.Errorf("with results left out: %s", lastEvent(t, r, res.Value))
	}
	// Of several tasks it is the last that removes it.
	dir, _, job = landed(t, r, "two", drop())
	expect(t, "another task", updateJob(r, &wire.UpdateJob{Id: job, Tasks: []*wire.Task{{Phase: "map"}}}), "ok")
	expect(t, "the first", succeed(r, job, 1, 0), "ok")
	if !there(r, dir, "two") {
		t.Error("removed before all tasks were done")
	}
	expect(t, "begin", task(r, job, 1, 1, "running", 0), "ok")
	expect(t, "the second", task(r, job, 1, 1, "succeeded", 0), "ok")
	if there(r, dir, "two") {
		t.Error("it stays")
	}
	r.check()
}

// TestNotify: the command that ends a job leaves one line, as its owner may.
func TestNotify(t *testing.T) {
	r := newRig(t)
	dir := r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: wire.RootIno, Name: "log", Mode: sIFDIR | 0o777, Exclusive: true}}}).Inode.Attr.Ino
	content := func(name string) string {
		d, err := r.s.Entry(dir, name)
		if err != nil {
			return ""
		}
		in, err := r.s.Inode(d.Ino)
		if err != nil || in.Attr.Size != uint64(len(in.Inline)) {
			t.Fatalf("%s: %v %v", name, in, err)
		}
		return string(in.Inline)
	}
	n := 0
	job := func(uid uint32, name string) uint64 {
		n++
		res := submitJob(r, &wire.Job{Name: fmt.Sprint("j", n), Rule: "R", Cred: &wire.Cred{Uid: uid, Gid: uid}, Notify: &wire.Entry{Parent: dir, Name: name}}, 1, 0)
		return res.Value
	}
	id := job(7, "ends")
	expect(t, "begin", task(r, id, 0, 1, "running", 0), "ok")
	expect(t, "end", task(r, id, 0, 1, "succeeded", 0), "ok")
	line := content("ends")
	if !strings.HasPrefix(line, `{"job":1,"name":"j1","state":"succeeded","reason":"all tasks done","rule":"R","uid":7,"tasks":1,"tasks_failed":0,"submitted":"1970-01-01T00:00:00.`) || strings.Count(line, "\n") != 1 {
		t.Errorf("%q", line)
	}
	if d, _ := r.s.Entry(dir, "ends"); d != nil {
		if in, _ := r.s.Inode(d.Ino); in.Attr.Uid != 7 || in.Attr.Mode != sIFREG|0o644 {
			t.Errorf("%v", in.Attr)
		}
	}
	// A job that is tried again ends again.
	id = job(7, "ends")
	expect(t, "cancel", updateJob(r, &wire.UpdateJob{Id: id, State: "cancelled"}), "ok")
	expect(t, "again", updateJob(r, &wire.UpdateJob{Id: id, State: "pending"}), "ok")
	expect(t, "cancel", updateJob(r, &wire.UpdateJob{Id: id, State: "expired"}), "ok")
	if got := content("ends"); strings.Count(got, "\n") != 3 || !strings.HasPrefix(got, line) || !strings.Contains(got, `"expired"`) {
		t.Errorf("%q", got)
	}
	// Another user's file is not written to.
	before := content("ends")
	id = job(8, "ends")
	updateJob(r, &wire.UpdateJob{Id: id, State: "cancelled"})
	if content("ends") != before || !strings.Contains(lastEvent(t, r, id), "may not write to it") {
		t.Errorf("%q: %s", content("ends"), lastEvent(t, r, id))
	}
	// A full one is put aside; no line is lost, none is there twice.
	want := strings.Count(before, "\n")
	for range 200 {
		updateJob(r, &wire.UpdateJob{Id: job(7, "ends"), State: "cancelled"})
		want++
	}
	a := r.ask(&wire.Query{Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: dir}}})
	lines, files := 0, 0
	for _, d := range a.GetDir().GetEntries() {
		text := content(d.Name)
		if len(text) > notifyFile || !strings.HasSuffix(text, "\n") {
			t.Errorf("%s: %d bytes", d.Name, len(text))
		}
		lines += strings.Count(text, "\n")
		files++
	}
	if lines != want || files < 2 {
		t.Errorf("%d lines in %d files, want %d", lines, files, want)
	}
	for name, do := range map[string]func(){
		"a directory": func() {
			r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: dir, Name: "a directory", Mode: sIFDIR | 0o777, Exclusive: true}}})
		},
		"not there": func() {
			r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: dir, Mask: wire.SetMode, Mode: 0o755}}})
		},
	} {
		do()
		id := job(9, name)
		expect(t, name, updateJob(r, &wire.UpdateJob{Id: id, State: "cancelled"}), "ok")
		if got := lastEvent(t, r, id); !strings.HasPrefix(got, "no notice in "+name) {
			t.Errorf("%s: %s", name, got)
		}
	}
	r.check()
	r.replay(1, 13)
}

// TestRefusals holds refusals against a map, over a long time.
func TestRefusals(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t)
	type entry struct {
		ino, number uint64
		at          int64
		text        string
	}
	type owned struct {
		uid  uint32
		name string
	}
	model := map[owned]entry{}
	// most keeps the newest of those that fits picks.
	most := func(max int, fits func(owned) bool) {
		for {
			n, oldest := 0, owned{}
			for k, e := range model {
				if !fits(k) {
					continue
				}
				if n++; oldest.name == "" || e.number < model[oldest].number {
					oldest = k
				}
			}
			if n <= max {
				return
			}
			delete(model, oldest)
		}
	}
	trim := func(uid uint32) {
		if uid != 0 {
			most(maxOwnRefusals, func(k owned) bool { return k.uid == uid })
		}
		if len(model) > maxRefusals {
			most(maxRefusals, func(owned) bool { return true })
		}
		for n, e := range model {
			if r.now-10-e.at > refusalAge {
				delete(model, n)
			}
		}
	}
	steps, users := 8000, 45 // as many as all may have, and as each may
	if testing.Short() {
		steps, users = 2500, 12
	}
	for range steps {
		name, ino := fmt.Sprint("n", rng.IntN(1500)), uint64(rng.IntN(400))
		k := owned{uint32(rng.IntN(users)), name}
		cred := &wire.Cred{Uid: k.uid}
		switch rng.IntN(20) {
		case 0:
			r.now += rng.Int64N(refusalAge / 50)
		case 1:
			r.must(&wire.Command{Cred: cred, Op: &wire.Command_ClearRefusal{ClearRefusal: &wire.ClearRefusal{Name: name}}})
			delete(model, k)
		case 2:
			r.must(&wire.Command{Op: &wire.Command_ClearRefusal{ClearRefusal: &wire.ClearRefusal{Ino: ino}}})
			for n, e := range model {
				if ino != 0 && e.ino == ino {
					delete(model, n)
				}
			}
		default:
			text := fmt.Sprint("line ", rng.Uint32())
			at := r.now
			res := r.must(&wire.Command{Cred: cred, Op: &wire.Command_PutRefusal{PutRefusal: &wire.PutRefusal{Name: name, Ino: ino, Text: text}}})
			model[k] = entry{ino, res.Value, at, text}
			trim(k.uid)
		}
	}
	all := r.ask(&wire.Query{Op: &wire.Query_ListRefusals{ListRefusals: &wire.ListRefusals{}}}).GetRefusals().GetRefusals()
	if len(all) != len(model) {
		t.Errorf("%d refusals, want %d", len(all), len(model))
	}
	about, of := map[uint64]int{}, map[uint32]int{}
	for i, x := range all {
		of[x.Uid]++
		if e := model[owned{x.Uid, x.Name}]; e.text != x.Text || e.ino != x.Ino || e.number != x.Number || i > 0 && all[i-1].Number >= x.Number {
			t.Errorf("%v, want %v", x, e)
		}
		about[x.Ino]++
	}
	for uid, n := range of {
		got := r.ask(&wire.Query{Op: &wire.Query_ListRefusals{ListRefusals: &wire.ListRefusals{Own: true, Uid: uid}}}).GetRefusals().GetRefusals()
		if len(got) != n {
			t.Errorf("uid %d: %d, want %d", uid, len(got), n)
		}
		for i, x := range got {
			if x.Uid != uid || i > 0 && got[i-1].Number >= x.Number {
				t.Errorf("uid %d: %v", uid, x)
			}
		}
	}
	for ino, n := range about {
		if got := r.ask(&wire.Query{Op: &wire.Query_ListRefusals{ListRefusals: &wire.ListRefusals{Ino: ino}}}).GetRefusals().GetRefusals(); ino != 0 && len(got) != n {
			t.Errorf("about %d: %d, want %d", ino, len(got), n)
		}
	}
	// A job of the name that is taken ends its refusal, and those about its file.
	r.must(&wire.Command{Op: &wire.Command_PutRefusal{PutRefusal: &wire.PutRefusal{Name: "top", Text: "line 3"}}})
	r.must(&wire.Command{Op: &wire.Command_PutRefusal{PutRefusal: &wire.PutRefusal{Name: "file", Ino: 4711, Text: "line 4"}}})
	r.must(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{Job: &wire.Job{Name: "top"}, About: []uint64{4711}}}})
	for _, q := range []*wire.ListRefusals{{Name: "top"}, {Name: "file"}, {Ino: 4711}} {
		if got := r.ask(&wire.Query{Op: &wire.Query_ListRefusals{ListRefusals: q}}).GetRefusals().GetRefusals(); len(got) != 0 {
			t.Errorf("%v: %v", q, got)
		}
	}
	for _, bad := range []*wire.PutRefusal{{Name: "", Text: "x"}, {Name: "a/b", Text: "x"}, {Name: "n"}, {Name: "n", Text: strings.Repeat("x", maxRefusalText+1)}} {
		if res := r.do(&wire.Command{Op: &wire.Command_PutRefusal{PutRefusal: bad}}); res.Code == 0 {
			t.Errorf("%.40v is taken", bad)
		}
	}
	r.check()
	r.replay(3)
}
