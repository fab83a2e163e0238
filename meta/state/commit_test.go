package state

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"quernfs/internal/wire"
)

// TestCommitRefused: what a Commit must not be; none of it changes anything.
func TestCommitRefused(t *testing.T) {
	r := newRig(t)
	r.cred = new(wire.Cred)
	x := &script{rig: r, sessions: map[string]uint64{}, vars: map[string]string{}}
	for _, line := range [][]string{
		{"create", "/f", "0644"}, {"write", "/f", "0", "100"}, {"create", "/i", "0644"}, {"inline", "/i", "text"},
		{"mkdir", "/d", "0755"}, {"create", "/z", "0644"}, {"write", "/z", "0", "10"}, {"unlink", "/z"},
	} {
		if got := x.line(line); got != "ok" {
			t.Fatal(line, got)
		}
	}
	f, i, d := x.ino("/f"), x.ino("/i"), x.ino("/d")
	for _, test := range []struct {
		what, want string
		change     func(c *wire.Commit)
	}{
		{"id 0", "Invalid", func(c *wire.Commit) { c.Blocks[0].Id = 0 }},
		{"id not given out", "Invalid", func(c *wire.Commit) { c.Blocks[0].Id = 1 << 30 }},
		{"id committed before", "Exists", func(c *wire.Commit) { c.Blocks[0].Id = 1 }},
		{"block twice", "Invalid", func(c *wire.Commit) { c.Blocks = append(c.Blocks, c.Blocks[0]) }},
		{"no length", "Invalid", func(c *wire.Commit) { c.Blocks[0].Length = 0 }},
		{"too long", "Invalid", func(c *wire.Commit) { c.Blocks[0].Length = wire.BlockSize + 1 }},
		{"shard length", "Invalid", func(c *wire.Commit) { c.Blocks[0].ShardLength++ }},
		{"k", "Invalid", func(c *wire.Commit) { c.Blocks[0].K = 33 }},
		{"m", "Invalid", func(c *wire.Commit) { c.Blocks[0].M = 4_000_000_000 }},
		{"a shard too few", "Invalid", func(c *wire.Commit) { c.Blocks[0].Shards = c.Blocks[0].Shards[:2] }},
		{"no shard", "Invalid", func(c *wire.Commit) { c.Blocks[0].Shards[0] = nil }},
		{"short root", "Invalid", func(c *wire.Commit) { c.Blocks[0].Shards[0].Root = []byte("x") }},
		{"another root", "Invalid", func(c *wire.Commit) { c.Blocks[0].Shards[0].Root = bytes.Repeat([]byte("x"), 32) }},
		{"another server's proof", "Invalid", func(c *wire.Commit) { c.Blocks[0].Shards[0].Server = 9 }},
		{"no proof", "Invalid", func(c *wire.Commit) { c.Blocks[0].Shards[1].Proof = nil }},
		{"two on one server", "Invalid", func(c *wire.Commit) {
			s := c.Blocks[0].Shards
			s[1].Server = s[0].Server
			s[1].Proof = proofOf(s[1].Server, c.Blocks[0], 1)
		}},
		{"one shard too few stored", "TooFew", func(c *wire.Commit) {
			c.Blocks[0].Shards[0].Server, c.Blocks[0].Shards[1].Server = 0, 0
		}},
		{"extent of no length", "Invalid", func(c *wire.Commit) { c.Files[0].Extents[0].Len = 0 }},
		{"extent beyond the block", "Invalid", func(c *wire.Commit) { c.Files[0].Extents[0].BlockOff = 91 }},
		{"extent at the end of offsets", "FileTooBig", func(c *wire.Commit) { c.Files[0].Extents[0].Off = 1<<64 - 1 }},
		{"extents out of order", "Invalid", func(c *wire.Commit) {
			c.Files[0].Extents = append(c.Files[0].Extents, &wire.Extent{Off: 5, Len: 5, Block: c.Blocks[0].Id})
		}},
		{"no extent", "Stale", func(c *wire.Commit) { c.Files[0].Extents[0] = nil }},
		{"unknown block", "Stale", func(c *wire.Commit) { c.Files[0].Extents[0].Block = 77 }},
		{"freed block", "Stale", func(c *wire.Commit) { c.Files[0].Extents[0].Block = 2 }},
		{"a directory", "Invalid", func(c *wire.Commit) { c.Files[0].Ino = d }},
		{"a file twice", "Invalid", func(c *wire.Commit) { c.Files = append(c.Files, c.Files[0]) }},
		{"size too big", "FileTooBig", func(c *wire.Commit) { c.Files[0].MinSize = 1 << 63 }},
		{"truncating", "Invalid", func(c *wire.Commit) { c.Files[0].Attr = &wire.SetAttr{Mask: wire.SetSize} }},
		{"inline and extents", "Invalid", func(c *wire.Commit) { c.Files[0].HasInline = true }},
		{"inline too long", "Invalid", func(c *wire.Commit) {
			c.Files[0].Extents, c.Files[0].HasInline, c.Files[0].Inline = nil, true, make([]byte, wire.InlineMax+1)
		}},
		{"inline content lost", "Invalid", func(c *wire.Commit) { c.Files[0].Ino, c.Files[0].Extents[0].Off = i, 1 }},
	} {
		b := signed(benchKey, 100, 2, 1, 100)
		c := &wire.Commit{Blocks: []*wire.Block{b}, Files: []*wire.FileUpdate{{Ino: f, Extents: []*wire.Extent{{Len: 10, Block: 100}}}}}
		test.change(c)
		results, err := r.s.Apply([]Entry{{Index: uint64(len(r.log) + 1), Term: 1, Command: &wire.Command{TimeNs: 5, Op: &wire.Command_Commit{Commit: c}}}})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, test.what, codeName(results[0].Code), test.want)
		r.log = append(r.log, Entry{Index: uint64(len(r.log) + 1), Term: 1, Command: new(wire.Command)})
	}
	r.check()
	expect(t, "nothing has changed", x.line([]string{"counts"}), "inodes=10 blocks=2 live=100 degraded=0 freed=1")
	expect(t, "nothing has changed", x.line([]string{"extents", "/f"}), "0-100=1+0")
	expect(t, "nothing has changed", x.line([]string{"extents", "/i"}), `"text"`)
}

// TestCommitDegraded: with one server too few a block is committed, and is on
// the list for repair.
func TestCommitDegraded(t *testing.T) {
	r := newRig(t)
	ino := r.newFile("f")
	b := signed(benchKey, 1, 2, 2, 100)
	b.Shards[3] = &wire.Shard{Root: b.Shards[3].Root}
	file := &wire.FileUpdate{Ino: ino, Extents: []*wire.Extent{{Len: 100, Block: 1}}, MinSize: 500}
	res := r.commit([]*wire.Block{b}, file)
	if res.Code != 0 || res.Inodes[0].Attr.Size != 500 {
		t.Fatal(res)
	}
	degraded, err := r.s.Degraded(0, 10)
	if err != nil || len(degraded) != 1 || degraded[0].Shards[0].Proof != nil {
		t.Fatal(degraded, err)
	}
	held, err := r.s.OnServer(2, 0, 10)
	if err != nil || len(held) != 1 || held[0].Block != 1 || held[0].Index != 1 || held[0].Freed || held[0].Made != degraded[0].MadeIndex {
		t.Errorf("on server 2: %v %v", held, err)
	}
	r.check()
}

// TestExpiredTickets: below the floor no block is taken any more; what was
// committed before stays.
func TestExpiredTickets(t *testing.T) {
	r := newRig(t)
	ino := r.newFile("f")
	expire := func(below uint64) *wire.Result {
		return r.leader(&wire.Command{Op: &wire.Command_ExpireTickets{ExpireTickets: &wire.ExpireTickets{Below: below}}})
	}
	write := func(off uint64, ids ...uint64) *wire.Result {
		var blocks []*wire.Block
		file := &wire.FileUpdate{Ino: ino}
		for _, id := range ids {
			blocks = append(blocks, signed(benchKey, id, 2, 1, 100))
			file.Extents = append(file.Extents, &wire.Extent{Off: off, Len: 10, Block: id})
			off += 10
		}
		return r.commit(blocks, file)
	}
	code := func(what string, res *wire.Result, want string) {
		t.Helper()
		expect(t, what, codeName(res.Code), want)
	}
	floor := func(want uint64, known ...uint64) {
		t.Helper()
		now, blocks, err := r.s.Expired([]uint64{1, 2, 3, 4, 5, 6, 2})
		if one, err2 := r.s.Floor(); err != nil || err2 != nil || now != want || one != want {
			t.Errorf("floor %d and %d, want %d: %v %v", now, one, want, err, err2)
		}
		if n := min(max(int(want), 1)-1, 6); len(blocks) != n {
			t.Errorf("%d blocks below %d", len(blocks), want)
		}
		for id, b := range blocks {
			if (b != nil) != slices.Contains(known, id) || b != nil && b.Id != id {
				t.Errorf("block %d: %v", id, b)
			}
		}
	}
	floor(0)
	code("before", write(0, 2), "ok")
	code("beyond what was given out", expire(1<<20+2), "Invalid")
	if res := expire(5); res.Code != 0 || res.Value != 5 {
		t.Fatal(res)
	}
	if res := expire(3); res.Code != 0 || res.Value != 5 {
		t.Errorf("the floor has fallen: %v", res)
	}
	floor(5, 2)
	code("below", write(100, 4), "Stale")
	code("one of two below", write(100, 7, 4), "Stale")
	code("committed before", write(0, 2), "Exists")
	code("at the floor", write(100, 5), "ok")
	code("refused, so not used", write(200, 7), "ok")
	// What refers to an old block, and replies that are stored, do not care.
	code("an old block", r.commit(nil, &wire.FileUpdate{Ino: ino, Extents: []*wire.Extent{{Off: 300, Len: 5, Block: 2}}}), "ok")
	r.session = r.openSession("s")
	again := &wire.Command{Session: r.session, Seq: 1, Op: &wire.Command_Commit{Commit: &wire.Commit{
		Blocks: []*wire.Block{signed(benchKey, 8, 2, 1, 100)},
		Files:  []*wire.FileUpdate{{Ino: ino, Extents: []*wire.Extent{{Off: 400, Len: 10, Block: 8}}}},
	}}}
	code("first", r.do(again), "ok")
	expire(9)
	code("repeated", r.do(again), "ok")
	counts, err := r.s.Counts()
	if err != nil || counts.Floor != 9 || counts.Blocks != 4 {
		t.Errorf("%+v %v", counts, err)
	}
	// A block whose record has been purged cannot come back.
	r.session = 0
	r.must(&wire.Command{Op: &wire.Command_Unlink{Unlink: &wire.Unlink{Parent: 1, Name: "f"}}})
	r.must(&wire.Command{Op: &wire.Command_PurgeBlocks{PurgeBlocks: &wire.PurgeBlocks{Blocks: []uint64{2, 5, 7, 8}}}})
	floor(9)
	ino = r.newFile("g")
	code("purged", write(0, 2), "Stale")
	r.check()
	r.replay(1<<20, 1, 3)
}

// TestDeferredAttributes: what a holder of the write lease changed comes with
// the data.
func TestDeferredAttributes(t *testing.T) {
	r := newRig(t)
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: 1, Mask: wire.SetMode, Mode: 0o777}}})
	in := r.do(&wire.Command{Cred: &wire.Cred{Uid: 7, Gid: 8}, Op: &wire.Command_Create{Create: &wire.Create{Parent: 1, Name: "f", Mode: 0o6777}}}).Inode
	attr := &wire.SetAttr{
		Mask: wire.SetMtime | wire.SetAtime | wire.SetCtime, MtimeNs: 1, AtimeNs: 2, CtimeNs: 1 << 40, KillSuid: true,
	}
	res := r.commit(nil, &wire.FileUpdate{Ino: in.Attr.Ino, HasInline: true, Inline: []byte("x"), Attr: attr})
	a := res.Inodes[0].Attr
	if a.MtimeNs != 1 || a.AtimeNs != 2 || a.CtimeNs != 1<<40 || a.Mode != sIFREG|0o777 || a.Version != in.Attr.Version+1 {
		t.Errorf("attributes %v", a)
	}
	res = r.commit(nil, &wire.FileUpdate{Ino: in.Attr.Ino, Attr: &wire.SetAttr{Mask: wire.SetMode | wire.SetUID, Mode: 0o4600, Uid: 9}})
	if a := res.Inodes[0].Attr; a.Mode != sIFREG|0o4600 || a.Uid != 9 || a.MtimeNs != 1 {
		t.Errorf("attributes %v", a)
	}
	// A change in meta that came after what was deferred keeps its time of change.
	before := r.must(&wire.Command{Op: &wire.Command_SetXattr{SetXattr: &wire.SetXattr{Ino: in.Attr.Ino, Name: "user.a"}}}).Inode.Attr
	res = r.commit(nil, &wire.FileUpdate{Ino: in.Attr.Ino, HasInline: true, Inline: []byte("y"), Attr: &wire.SetAttr{
		Mask: wire.SetMtime | wire.SetCtime, MtimeNs: 1, CtimeNs: 3}})
	if a := res.Inodes[0].Attr; a.MtimeNs != 1 || a.CtimeNs != before.CtimeNs {
		t.Errorf("attributes %v", a)
	}
	before = res.Inodes[0].Attr
	res = r.commit(nil, &wire.FileUpdate{Ino: in.Attr.Ino, Attr: &wire.SetAttr{Mask: wire.SetAtime, AtimeNs: 77}})
	if a := res.Inodes[0].Attr; a.AtimeNs != 77 || a.CtimeNs != before.CtimeNs || a.MtimeNs != before.MtimeNs {
		t.Errorf("attributes after a read %v", a)
	}
	r.check()
}

// TestLargeFileGoesInSteps: what is left of a deleted file goes with the
// commands that follow.
func TestLargeFileGoesInSteps(t *testing.T) {
	r := newRig(t)
	ino := r.newFile("f")
	const pieces = 4*trashStep + trashStep/2
	f := &wire.FileUpdate{Ino: ino}
	for i := range uint64(pieces) {
		f.Extents = append(f.Extents, &wire.Extent{Off: 3 * i, Len: 1, Block: 1, BlockOff: uint32(i)})
	}
	r.commit([]*wire.Block{r.newBlock(pieces)}, f)
	r.must(&wire.Command{Op: &wire.Command_Unlink{Unlink: &wire.Unlink{Parent: 1, Name: "f"}}})
	for want := uint64(pieces - 2*trashStep); want > trashStep; want -= trashStep {
		r.check()
		if b, err := r.s.Block(1); err != nil || b.Refs != want {
			t.Fatalf("%v %v, want %d references", b, err, want)
		}
		r.must(&wire.Command{Op: &wire.Command_LeaseHorizon{LeaseHorizon: &wire.LeaseHorizon{}}})
	}
	r.must(&wire.Command{Op: &wire.Command_LeaseHorizon{LeaseHorizon: &wire.LeaseHorizon{}}})
	if b, err := r.s.Block(1); err != nil || b.FreedIndex == 0 {
		t.Errorf("block %v %v", b, err)
	}
	r.check()
	r.replay(1 << 20)
}

// TestReadDirPages: a listing by pages has every entry once, whatever the limit;
// entries with equal hashes are never torn apart.
func TestReadDirPages(t *testing.T) {
	r := newRig(t)
	const files = 3000
	f := &feeder{tb: t, s: r.s, index: uint64(len(r.log)), batch: 1000}
	for i := range files {
		c := create(wire.RootIno, fmt.Sprint("name-", i), 0)
		c.Session, c.Cred = 0, nil
		f.add(c)
	}
	f.flush()
	for _, limit := range []uint32{1, 7, 1000, 0, 1 << 31} {
		seen, after, calls := map[string]bool{}, uint64(0), 0
		for eof := false; !eof; calls++ {
			a := r.ask(&wire.Query{Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: wire.RootIno, After: after, Limit: limit}}}).GetDir()
			for _, e := range a.Entries {
				if seen[e.Name] || e.Cookie <= 2 {
					t.Fatalf("entry %v", e)
				}
				seen[e.Name] = true
			}
			if len(a.Entries) > 0 {
				after = a.Entries[len(a.Entries)-1].Cookie
			}
			eof = a.Eof
		}
		if len(seen) != files+1 {
			t.Errorf("limit %d: %d entries", limit, len(seen))
		}
		if limit == 1<<31 && calls != 1 {
			t.Errorf("%d calls", calls)
		}
	}
}

// TestEqualHashes: a page never ends between entries whose cookies are equal.
func TestEqualHashes(t *testing.T) {
	r := newRig(t)
	dir := r.must(mkdirAt(0, 0, 0, "d")).Inode.Attr.Ino
	value, err := marshal.Marshal(&wire.Dentry{Ino: wire.QueueIno, Type: sIFDIR})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []struct {
		hash uint64
		name string
	}{{3, "a"}, {7, "b"}, {7, "c"}, {7, "d"}, {9, "e"}} {
		key := append(be64(key8(nil, kDentry, dir), e.hash), e.name...)
		if err := r.s.db.Set(key, value, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	after, pages := uint64(0), ""
	for eof := false; !eof; pages += "|" {
		a := r.ask(&wire.Query{Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: dir, After: after, Limit: 2}}}).GetDir()
		for _, e := range a.Entries {
			pages, after = pages+e.Name, e.Cookie
		}
		eof = a.Eof
	}
	expect(t, "pages", pages, "abcd|e|")
}

// TestBefore: attributes that go with a command that changes content come before
// it, and the command takes away what it takes away.
func TestBefore(t *testing.T) {
	r := newRig(t)
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: 1, Mask: wire.SetMode, Mode: 0o777}}})
	owner, member, stranger := &wire.Cred{Uid: 7, Gid: 8}, &wire.Cred{Uid: 9, Gid: 9, Groups: []uint32{8}}, &wire.Cred{Uid: 9, Gid: 9}
	src := r.newFile("src")
	r.commit(nil, &wire.FileUpdate{Ino: src, HasInline: true, Inline: []byte("source")})
	for i, c := range []struct {
		cred *wire.Cred
		mode uint32
		want uint32
	}{
		{owner, 0o6777, 0o777}, {member, 0o6777, 0o777}, {stranger, 0o6777, 0o777}, {nil, 0o6777, 0o6777},
		{owner, 0o2767, 0o2767}, {member, 0o2767, 0o2767}, {stranger, 0o2767, 0o767},
	} {
		for name, command := range map[string]func(ino uint64, before *wire.SetAttr) *wire.Command{
			"truncate": func(ino uint64, before *wire.SetAttr) *wire.Command {
				return &wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: ino, Mask: wire.SetSize, Size: 1, Handle: true, Before: before}}}
			},
			"allocate": func(ino uint64, before *wire.SetAttr) *wire.Command {
				return &wire.Command{Op: &wire.Command_Fallocate{Fallocate: &wire.Fallocate{Ino: ino, Mode: fallocKeepSize, Len: 1, Before: before}}}
			},
			"zero": func(ino uint64, before *wire.SetAttr) *wire.Command {
				return &wire.Command{Op: &wire.Command_Fallocate{Fallocate: &wire.Fallocate{Ino: ino, Mode: fallocZeroRange, Len: 1, Before: before}}}
			},
			"clone": func(ino uint64, before *wire.SetAttr) *wire.Command {
				return &wire.Command{Op: &wire.Command_Clone{Clone: &wire.Clone{Src: src, Dst: ino, Len: 3, Before: before}}}
			},
		} {
			in := r.do(&wire.Command{Cred: owner, Op: &wire.Command_Create{Create: &wire.Create{Parent: 1, Name: fmt.Sprint(name, i), Mode: 0o666}}}).Inode
			r.must(&wire.Command{Op: &wire.Command_SetXattr{SetXattr: &wire.SetXattr{Ino: in.Attr.Ino, Name: capability, Value: []byte("x")}}})
			cmd := command(in.Attr.Ino, &wire.SetAttr{Mask: wire.SetMode | wire.SetMtime | wire.SetCtime | wire.SetAtime, Mode: c.mode, MtimeNs: 1, CtimeNs: 1, AtimeNs: 5})
			cmd.Cred = c.cred
			got := r.do(cmd).Inode
			if a := got.Attr; a.Mode != sIFREG|c.want || a.MtimeNs <= 1 || a.MtimeNs != a.CtimeNs || a.AtimeNs != 5 || got.HasXattr {
				t.Errorf("%s of %o by %v: %v, attributes left: %v", name, c.mode, c.cred, a, got.HasXattr)
			}
		}
	}
	r.check()
	r.replay(1<<20, 1, 3)
}
