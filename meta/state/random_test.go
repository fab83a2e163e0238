package state

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// TestModel runs random commands against the model; QUERN_SEED repeats one run.
// Then the log is applied again in other batches, and after crashes, and must
// give the same bytes.
func TestModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("QUERN_SEED"); v != "" {
		seed, _ = strconv.ParseUint(v, 10, 64)
	}
	for run := range uint64(2) {
		t.Run(fmt.Sprint("seed=", seed+run), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed+run, 0))
			x := &random{rig: newRig(t), m: newModel(), rng: rng, seen: map[string]int{}}
			compute := x.m.add(wire.ComputeIno, sIFDIR|0o755, 0, 0, x.m.root)
			x.m.root.children[".compute"] = compute
			x.m.root.nlink++
			for _, d := range []struct {
				name string
				ino  uint64
				mode uint32
			}{{"queue", wire.QueueIno, 0o1777}, {"kernels", wire.KernelsIno, 0o755}, {"rules", wire.RulesIno, 0o755}, {"users", wire.UsersIno, usersMode}} {
				compute.children[d.name] = x.m.add(d.ino, sIFDIR|d.mode, 0, 0, compute)
				compute.nlink++
			}
			for range 4 {
				x.sessions = append(x.sessions, x.openSession("s"))
			}
			x.cred = new(wire.Cred)
			x.do(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: 1, Mask: wire.SetMode, Mode: 0o777}}})
			x.m.root.mode = sIFDIR | 0o777
			for i := range 2500 {
				x.step()
				if t.Failed() {
					t.Fatalf("after %d commands", i+1)
				}
				if i%500 == 499 {
					x.compare()
					x.check()
				}
			}
			x.replay(1<<20, 1+rng.IntN(50))
			x.crash()
			t.Log(x.seen)
		})
	}
}

type random struct {
	*rig
	m        *model
	rng      *rand.Rand
	sessions []uint64
	seen     map[string]int // operation and code → how often
}

var users = []*wire.Cred{
	{}, {}, {}, {}, {}, {Uid: 1000, Gid: 100}, {Uid: 1001, Gid: 200, Groups: []uint32{100}}, {Uid: 1002, Gid: 300},
}

func (x *random) name() string { return string(rune('a' + x.rng.IntN(7))) }

func (x *random) dir() *node {
	return x.m.pick(x.rng, func(n *node) bool { return n.dir() || x.rng.IntN(40) == 0 })
}

func (x *random) file() *node {
	return x.m.pick(x.rng, func(n *node) bool { return n.mode&sIFMT == sIFREG })
}

func (x *random) mode() uint32 {
	modes := []uint32{0o755, 0o777, 0o644, 0o666, 0o700, 0o1777, 0o2775, 0o6755, 0o4711, 0o2644, 0o555, 0o000}
	return modes[x.rng.IntN(len(modes))]
}

// open picks sessions that are said to have a file open.
func (x *random) open() (ids []uint64) {
	for _, id := range x.sessions {
		if x.rng.IntN(4) == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// run applies c, demands the code that the model expects, and sometimes sends
// it again.
func (x *random) run(c *wire.Command, want wire.Code) *wire.Result {
	r := x.do(c)
	x.seen[fmt.Sprintf("%T %s", c.Op, codeName(r.Code))]++
	if wire.Code(r.Code) != want {
		x.tb.Errorf("%v\n as %v: %s %s, the model says %s", c, c.Cred, codeName(r.Code), r.Message, codeName(uint32(want)))
	}
	if x.rng.IntN(20) == 0 {
		session := x.session
		x.session = 0
		if again := x.do(proto.Clone(c).(*wire.Command)); !proto.Equal(again, r) {
			x.tb.Errorf("%v\n repeated: %v\n at first: %v", c, again, r)
		}
		x.session = session
	}
	return r
}

func (x *random) step() {
	x.session = x.sessions[x.rng.IntN(len(x.sessions))]
	x.cred = users[x.rng.IntN(len(users))]
	c, now, m := x.cred, x.now, x.m
	switch x.rng.IntN(15) {
	case 0, 1, 2:
		x.create()
	case 3:
		op := &wire.Unlink{Parent: x.dir().ino, Name: x.name(), OpenSessions: x.open()}
		x.run(&wire.Command{Op: &wire.Command_Unlink{Unlink: op}}, m.unlink(c, now, op))
	case 4:
		op := &wire.Unlink{Parent: x.dir().ino, Name: x.name(), Dir: true, OpenSessions: x.open()}
		x.run(&wire.Command{Op: &wire.Command_Unlink{Unlink: op}}, m.unlink(c, now, op))
	case 5, 6:
		op := &wire.Rename{Parent: x.dir().ino, Name: x.name(), NewParent: x.dir().ino, NewName: x.name(), OpenSessions: x.open()}
		op.Flags = []uint32{0, 0, renameNoReplace, renameExchange}[x.rng.IntN(4)]
		x.run(&wire.Command{Op: &wire.Command_Rename{Rename: op}}, m.rename(c, now, op))
	case 7:
		op := &wire.Link{Ino: m.pick(x.rng, func(*node) bool { return true }).ino, NewParent: x.dir().ino, NewName: x.name()}
		x.run(&wire.Command{Op: &wire.Command_Link{Link: op}}, m.link(c, now, op))
	case 8:
		op := &wire.SetAttr{Ino: m.pick(x.rng, func(n *node) bool { return n.ino >= wire.FirstIno || n.ino == 3 }).ino}
		switch x.rng.IntN(3) {
		case 0:
			op.Mask, op.Mode = wire.SetMode, x.mode()
		case 1:
			op.Mask, op.Size = wire.SetSize, uint64(x.rng.IntN(100))
		default:
			op.Mask = []uint32{wire.SetUID, wire.SetGID, wire.SetUID | wire.SetGID}[x.rng.IntN(3)]
			op.Uid, op.Gid = users[x.rng.IntN(len(users))].Uid, users[x.rng.IntN(len(users))].Gid
		}
		x.run(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: op}}, m.setAttr(c, now, op))
	case 9, 10, 11:
		x.write()
	case 12:
		x.rangeOp()
	case 13:
		x.letGo()
	case 14:
		if x.rng.IntN(4) == 0 {
			x.maintain()
		}
	}
}

func (x *random) create() {
	op := &wire.Create{Parent: x.dir().ino, Name: x.name(), Exclusive: x.rng.IntN(2) == 0, Umask: []uint32{0, 0o022, 0o077}[x.rng.IntN(3)]}
	kind := []uint32{sIFREG, sIFREG, sIFREG, sIFDIR, sIFDIR, sIFLNK, sIFIFO}[x.rng.IntN(7)]
	op.Mode = kind | x.mode()
	if kind == sIFLNK {
		op.Symlink = "target"
	}
	counts, err := x.s.Counts()
	if err != nil {
		x.tb.Fatal(err)
	}
	x.run(&wire.Command{Op: &wire.Command_Create{Create: op}}, x.m.create(x.cred, x.now, op, counts.NextIno))
}

func (x *random) write() {
	op := new(wire.Commit)
	seen := map[uint64]bool{}
	length := uint32(0)
	for range 1 + x.rng.IntN(3) {
		n := x.file()
		if n == nil || seen[n.ino] {
			continue
		}
		seen[n.ino] = true
		f := &wire.FileUpdate{Ino: n.ino}
		if x.rng.IntN(4) == 0 {
			f.HasInline = true
			for range x.rng.IntN(17) {
				f.Inline = append(f.Inline, byte(1+x.rng.IntN(255)))
			}
		} else {
			f.DropInline = n.inline
			at := uint64(0)
			for range 1 + x.rng.IntN(3) {
				ex := &wire.Extent{Off: at + uint64(x.rng.IntN(40)), Len: uint32(1 + x.rng.IntN(20)), Block: x.block + 1, BlockOff: length}
				if old := n.cells[uint64(x.rng.IntN(100))]; old.block != 0 && x.rng.IntN(4) == 0 {
					ex.Block, ex.BlockOff, ex.Len = old.block, old.off, 1
				} else {
					length += ex.Len
				}
				f.Extents = append(f.Extents, ex)
				at = end(ex)
			}
		}
		op.Files = append(op.Files, f)
	}
	if x.rng.IntN(20) == 0 {
		op.Files = append(op.Files, &wire.FileUpdate{Ino: 1 << 40, HasInline: true, Inline: []byte("gone")})
	}
	if length > 0 {
		op.Blocks = append(op.Blocks, x.newBlock(int(length)))
	}
	x.run(&wire.Command{Op: &wire.Command_Commit{Commit: op}}, x.m.commit(x.now, op))
}

func (x *random) rangeOp() {
	n := x.file()
	if n == nil {
		return
	}
	if x.rng.IntN(2) == 0 {
		op := &wire.Fallocate{Ino: n.ino, Mode: fallocPunchHole | fallocKeepSize, Off: uint64(x.rng.IntN(80)), Len: uint64(1 + x.rng.IntN(30))}
		x.run(&wire.Command{Op: &wire.Command_Fallocate{Fallocate: op}}, x.m.punch(x.cred, x.now, op))
		return
	}
	dst := x.file()
	op := &wire.Clone{Src: n.ino, SrcOff: uint64(x.rng.IntN(60)), Dst: dst.ino, DstOff: uint64(x.rng.IntN(60)), Len: uint64(1 + x.rng.IntN(40))}
	if n.inline || dst.inline {
		return // has a script of its own
	}
	x.run(&wire.Command{Op: &wire.Command_Clone{Clone: op}}, x.m.clone(x.cred, x.now, op))
}

func (x *random) letGo() {
	n := x.m.pick(x.rng, func(n *node) bool { return len(n.holders) > 0 })
	if n == nil {
		return
	}
	if x.rng.IntN(3) > 0 {
		x.run(&wire.Command{Op: &wire.Command_ReleaseOrphans{ReleaseOrphans: &wire.ReleaseOrphans{Inos: []uint64{n.ino}}}}, wire.OK)
		delete(n.holders, x.session)
		x.m.collect(n)
		return
	}
	i := x.rng.IntN(len(x.sessions))
	x.endSession(x.sessions[i])
	for _, n := range x.m.nodes {
		delete(n.holders, x.sessions[i])
		x.m.collect(n)
	}
	x.sessions[i] = x.openSession("again")
}

// maintain does what the leader does behind the users' backs.
func (x *random) maintain() {
	dead, err := x.s.Dead(x.now-2000, 10)
	if err != nil {
		x.tb.Fatal(err)
	}
	op := new(wire.PurgeBlocks)
	for _, b := range dead {
		op.Blocks = append(op.Blocks, b.Id)
	}
	x.must(&wire.Command{Op: &wire.Command_PurgeBlocks{PurgeBlocks: op}})
	x.must(&wire.Command{Op: &wire.Command_ExpireTickets{ExpireTickets: &wire.ExpireTickets{Below: x.rng.Uint64N(x.block + 2)}}})
	held, err := x.s.OnServer(uint32(1+x.rng.IntN(3)), x.rng.Uint64N(x.block+1), 3)
	if err != nil {
		x.tb.Fatal(err)
	}
	for _, h := range held {
		b, err := x.s.Block(h.Block)
		if err != nil {
			x.tb.Fatal(err)
		}
		from := b.Shards[h.Index].Server
		x.must(&wire.Command{Op: &wire.Command_LoseShard{LoseShard: &wire.LoseShard{Block: b.Id, Index: h.Index, Server: from}}})
		if x.rng.IntN(2) == 0 {
			shard := &wire.Shard{Server: 10 + from, Root: b.Shards[h.Index].Root}
			shard.Proof = proofOf(shard.Server, b, int(h.Index))
			x.must(&wire.Command{Op: &wire.Command_MoveShard{MoveShard: &wire.MoveShard{Block: b.Id, Index: h.Index, Shard: shard}}})
		}
	}
}

// compare holds every inode, listing and content against the model.
func (x *random) compare() {
	x.tb.Helper()
	counts, err := x.s.Counts()
	if err != nil {
		x.tb.Fatal(err)
	}
	if counts.Inodes != uint64(len(x.m.nodes))+1 { // the outputs directory is not in the model
		x.tb.Errorf("%d inodes, the model has %d", counts.Inodes, len(x.m.nodes)+1)
	}
	for ino, n := range x.m.nodes {
		in, err := x.s.Inode(ino)
		if err != nil {
			x.tb.Errorf("inode %d: %v", ino, err)
			continue
		}
		a := in.Attr
		got := fmt.Sprint(a.Mode, a.Uid, a.Gid, a.Nlink, a.Size, in.Entries)
		if want := fmt.Sprint(n.mode, n.uid, n.gid, n.nlink, n.size, len(n.children)); got != want {
			x.tb.Errorf("inode %d: %s, the model says %s", ino, got, want)
		}
		if ino >= wire.FirstIno && (a.MtimeNs != n.mtime || a.CtimeNs != n.ctime) {
			x.tb.Errorf("inode %d: mtime %d ctime %d, the model says %d %d", ino, a.MtimeNs, a.CtimeNs, n.mtime, n.ctime)
		}
		if n.dir() {
			x.compareDir(n)
		} else {
			x.compareContent(n)
		}
	}
}

func (x *random) compareDir(n *node) {
	seen, after := 0, uint64(0)
	for eof := false; !eof; {
		a := x.ask(&wire.Query{Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: n.ino, After: after, Limit: 3, Plus: true}}})
		for _, e := range a.GetDir().GetEntries() {
			if child := n.children[e.Name]; child == nil || child.ino != e.Ino || e.Inode.GetAttr().GetIno() != e.Ino || e.Cookie <= after {
				x.tb.Errorf("directory %d: %v, the model says %v", n.ino, e, child)
			}
			seen++
		}
		if e := a.GetDir().GetEntries(); len(e) > 0 {
			after = e[len(e)-1].Cookie
		}
		eof = a.GetDir().GetEof()
	}
	if seen != len(n.children) {
		x.tb.Errorf("directory %d: %d entries, the model has %d", n.ino, seen, len(n.children))
	}
}

func (x *random) compareContent(n *node) {
	e := x.ask(&wire.Query{Op: &wire.Query_GetExtents{GetExtents: &wire.GetExtents{Ino: n.ino}}}).GetExtents()
	got := map[uint64]cell{}
	for i, b := range e.Inode.Inline {
		got[uint64(i)] = cell{text: b}
	}
	for _, ex := range e.Extents {
		for i := range uint64(ex.Len) {
			got[ex.Off+i] = cell{block: ex.Block, off: ex.BlockOff + uint32(i)}
		}
	}
	if len(got) != len(n.cells) {
		x.tb.Errorf("file %d: %d bytes, the model has %d", n.ino, len(got), len(n.cells))
	}
	for off, want := range n.cells {
		if got[off] != want {
			x.tb.Errorf("file %d at %d: %v, the model says %v", n.ino, off, got[off], want)
			return
		}
	}
}

// crash replays the log on a filesystem that loses power again and again.
func (x *random) crash() {
	fs := vfs.NewCrashableMem()
	s := openMem(x.tb, fs)
	crashes, seed := 0, x.rng.Uint64()
	for {
		index, _ := s.Applied()
		if index == uint64(len(x.log)) {
			break
		}
		n := min(index+uint64(1+x.rng.IntN(20)), uint64(len(x.log)))
		if _, err := s.Apply(x.log[index:n]); err != nil {
			x.tb.Fatal(err)
		}
		switch x.rng.IntN(60) {
		case 0:
			if err := s.Flush(); err != nil {
				x.tb.Fatal(err)
			}
		case 1, 2:
			if crashes++; crashes > 20 {
				continue
			}
			clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: x.rng.IntN(101), RNG: rand.New(rand.NewPCG(seed, uint64(crashes)))})
			s.Close()
			fs = clone
			s = openMem(x.tb, fs)
			checkState(x.tb, s)
		}
	}
	defer s.Close()
	if got, want := digest(x.tb, s), digest(x.tb, x.s); got != want {
		x.tb.Errorf("after crashes: digest %s, not %s: %s", got, want, difference(x.tb, x.s, s))
	}
}
