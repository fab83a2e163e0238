package state

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

func mkdirAt(session, seq, ack uint64, name string) *wire.Command {
	return &wire.Command{Session: session, Seq: seq, AckBelow: ack, Cred: &wire.Cred{}, Op: &wire.Command_Create{Create: &wire.Create{
		Parent: wire.RootIno, Name: name, Mode: sIFDIR | 0o755, Exclusive: true,
	}}}
}

func TestExactlyOnce(t *testing.T) {
	r := newRig(t)
	id := r.openSession("a")
	first := r.do(mkdirAt(id, 1, 0, "d"))
	if first.Code != 0 || !first.Created {
		t.Fatal(first)
	}
	if again := r.do(mkdirAt(id, 1, 0, "d")); !proto.Equal(again, first) {
		t.Errorf("repeated: %v, at first %v", again, first)
	}
	refused := r.do(mkdirAt(id, 2, 0, "d"))
	expect(t, "a new command", codeName(refused.Code), "Exists")
	if again := r.do(mkdirAt(id, 2, 0, "other")); !proto.Equal(again, refused) {
		t.Errorf("a refusal repeated: %v", again)
	}
	if stored, ok := r.s.Stored(id, 1); !ok || !proto.Equal(stored, first) {
		t.Errorf("stored: %v", stored)
	}
	expect(t, "out of order", codeName(r.do(mkdirAt(id, 7, 0, "e")).Code), "ok")
	expect(t, "out of order", codeName(r.do(mkdirAt(id, 5, 0, "f")).Code), "ok")
	expect(t, "acknowledging", codeName(r.do(mkdirAt(id, 8, 7, "g")).Code), "ok")
	expect(t, "acknowledged", codeName(r.do(mkdirAt(id, 1, 0, "d")).Code), "Stale")
	if _, ok := r.s.Stored(id, 5); ok {
		t.Error("an acknowledged reply is still stored")
	}
	if _, ok := r.s.Stored(id, 7); !ok {
		t.Error("a reply that was not acknowledged is gone")
	}
	expect(t, "unknown session", codeName(r.do(mkdirAt(99, 1, 0, "h")).Code), "NoSession")
	r.check()

	// It holds over a restart, and until the session ends.
	if err := r.s.Close(); err != nil {
		t.Fatal(err)
	}
	r.s = openMem(t, r.fs)
	again := r.do(mkdirAt(id, 8, 7, "g"))
	if again.Code != 0 || !again.Created {
		t.Errorf("repeated after a restart: %v", again)
	}
	expect(t, "acknowledged", codeName(r.do(mkdirAt(id, 5, 0, "f")).Code), "Stale")
	r.endSession(id)
	expect(t, "ended", codeName(r.do(mkdirAt(id, 8, 7, "g")).Code), "NoSession")
	if _, err := r.s.Session(id); !errors.Is(err, wire.NotFound) {
		t.Errorf("session: %v", err)
	}
	expect(t, "ended twice", codeName(r.endSession(id).Code), "ok")
	r.check()
	r.replay(1<<20, 2)
}

// TestRepeatedInlineCommit: the stored reply has no inline data, the repeated
// one has.
func TestRepeatedInlineCommit(t *testing.T) {
	r := newRig(t)
	r.session = r.openSession("a")
	x := &script{rig: r, sessions: map[string]uint64{}, vars: map[string]string{}}
	x.line([]string{"create", "/g", "0644"})
	c := &wire.Command{Session: r.session, Seq: 50, Op: &wire.Command_Commit{Commit: &wire.Commit{Files: []*wire.FileUpdate{
		{Ino: x.ino("/g"), HasInline: true, Inline: []byte("hello")},
	}}}}
	first := r.do(proto.Clone(c).(*wire.Command))
	if string(first.Inodes[0].Inline) != "hello" {
		t.Fatal(first)
	}
	if again := r.do(c); !proto.Equal(again, first) {
		t.Errorf("repeated: %v, at first %v", again, first)
	}
	if stored, ok := r.s.Stored(r.session, 50); !ok || !proto.Equal(stored, first) {
		t.Errorf("stored: %v", stored)
	}
}

func TestReservedInodes(t *testing.T) {
	r := newRig(t)
	a, b := r.openSession("a"), r.openSession("b")
	r.session = a
	first := r.do(&wire.Command{Op: &wire.Command_ReserveInodes{ReserveInodes: &wire.ReserveInodes{Count: 10}}}).Value
	make := func(session, ino uint64, name string) string {
		r.session = session
		return codeName(r.do(&wire.Command{Cred: &wire.Cred{}, Op: &wire.Command_Create{Create: &wire.Create{
			Parent: wire.RootIno, Name: name, Mode: sIFREG | 0o644, Exclusive: true, Ino: ino,
		}}}).Code)
	}
	expect(t, "in the middle", make(a, first+5, "m"), "ok")
	expect(t, "twice", make(a, first+5, "n"), "Invalid")
	expect(t, "the first", make(a, first, "f"), "ok")
	expect(t, "the last", make(a, first+9, "l"), "ok")
	expect(t, "another's", make(b, first+1, "x"), "Invalid")
	expect(t, "nobody's", make(a, first+10, "x"), "Invalid")
	expect(t, "a well-known one", make(a, wire.RootIno, "x"), "Invalid")
	expect(t, "refused by name, so not used", make(a, first+4, "m"), "Exists")
	expect(t, "still free", make(a, first+4, "y"), "ok")
	r.session = a
	expect(t, "none", codeName(r.do(&wire.Command{Op: &wire.Command_ReserveInodes{ReserveInodes: &wire.ReserveInodes{}}}).Code), "Invalid")
	r.check()
	r.replay(1 << 20)
}

func TestLeaderOnly(t *testing.T) {
	r := newRig(t)
	r.session = r.openSession("a")
	other := r.openSession("b")
	for _, c := range []*wire.Command{
		{Op: &wire.Command_LeaseHorizon{LeaseHorizon: &wire.LeaseHorizon{}}},
		{Op: &wire.Command_ReserveBlocks{ReserveBlocks: &wire.ReserveBlocks{Count: 1}}},
		{Op: &wire.Command_ExpireTickets{ExpireTickets: &wire.ExpireTickets{Below: 1}}},
		{Op: &wire.Command_PutNode{PutNode: &wire.PutNode{Node: &wire.Node{Name: "n"}}}},
		{Op: &wire.Command_MoveShard{MoveShard: &wire.MoveShard{}}},
		{Op: &wire.Command_LoseShard{LoseShard: &wire.LoseShard{}}},
		{Op: &wire.Command_PurgeBlocks{PurgeBlocks: &wire.PurgeBlocks{}}},
		{Op: &wire.Command_Bootstrap{Bootstrap: &wire.Bootstrap{}}},
		{Op: &wire.Command_EndSession{EndSession: &wire.EndSession{Id: other}}},
	} {
		expect(t, c.String(), codeName(r.do(c).Code), "Perm")
	}
	expect(t, "another partition", codeName(r.do(&wire.Command{Partition: 1}).Code), "CrossPart")
	expect(t, "nothing", codeName(r.leader(new(wire.Command)).Code), "Unsupported")
	expect(t, "its own end", codeName(r.do(&wire.Command{Op: &wire.Command_EndSession{EndSession: &wire.EndSession{Id: r.session}}}).Code), "ok")
	r.check()
}

func TestBatchCommand(t *testing.T) {
	r := newRig(t)
	r.session, r.cred = r.openSession("a"), new(wire.Cred)
	batch := func(cmds ...*wire.Command) *wire.Result {
		return r.do(&wire.Command{Op: &wire.Command_Batch{Batch: &wire.Batch{Commands: cmds}}})
	}
	res := batch(
		mkdirAt(0, 0, 0, "d"), mkdirAt(0, 0, 0, "d"), new(wire.Command), &wire.Command{Op: &wire.Command_Batch{Batch: &wire.Batch{}}},
		&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: wire.RootIno, Tmpfile: true, Mode: 0o600}}},
	)
	want := []string{"ok", "Exists", "Unsupported", "Invalid", "ok"}
	for i, inner := range res.Results {
		expect(t, "inner", codeName(inner.Code), want[i])
	}
	holders, err := r.s.Holders(res.Results[4].Inode.Attr.Ino)
	if err != nil || len(holders) != 1 || holders[0] != r.session {
		t.Errorf("holders %v %v", holders, err)
	}
	if again := r.leader(proto.Clone(r.log[len(r.log)-1].Command).(*wire.Command)); !proto.Equal(again, res) {
		t.Errorf("repeated: %v", again)
	}
	r.check()
	r.replay(1 << 20)
}

func TestNodesAndHorizon(t *testing.T) {
	r := newRig(t)
	put := func(n *wire.Node) (uint64, string) {
		res := r.leader(&wire.Command{Op: &wire.Command_PutNode{PutNode: &wire.PutNode{Node: n}}})
		return res.Value, codeName(res.Code)
	}
	a, _ := put(&wire.Node{Name: "a", Kind: "chunkd"})
	b, _ := put(&wire.Node{Name: "b", Kind: "chunkd"})
	if again, _ := put(&wire.Node{Name: "a", State: "draining"}); a == b || again != a {
		t.Errorf("ids %d %d %d", a, b, again)
	}
	_, code := put(&wire.Node{Id: uint32(b), Name: "a"})
	expect(t, "a name that is taken", code, "Exists")
	_, code = put(&wire.Node{Id: 99, Name: "c"})
	expect(t, "an id that was never given", code, "NotFound")
	_, code = put(&wire.Node{})
	expect(t, "no name", code, "Invalid")
	if n, err := r.s.NodeByName("a"); err != nil || uint64(n.Id) != a || n.State != "draining" {
		t.Errorf("node %v %v", n, err)
	}
	for _, until := range []int64{-5, 100, 50} {
		r.must(&wire.Command{Op: &wire.Command_LeaseHorizon{LeaseHorizon: &wire.LeaseHorizon{UntilNs: until}}})
	}
	if h, err := r.s.Horizon(); err != nil || h != 100 {
		t.Errorf("horizon %d %v", h, err)
	}
	if id, err := r.s.ClusterID(); err != nil || string(id) != "0123456789abcdef" {
		t.Errorf("cluster %q %v", id, err)
	}
	expect(t, "set up twice", codeName(r.leader(&wire.Command{Op: &wire.Command_Bootstrap{Bootstrap: &wire.Bootstrap{Policy: &wire.Policy{K: 1}}}}).Code), "Exists")
	r.check()
}

func TestCheckpointAndClose(t *testing.T) {
	r := newRig(t)
	r.do(mkdirAt(0, 0, 0, "d"))
	if err := r.s.Checkpoint("copy"); err != nil {
		t.Fatal(err)
	}
	want := digest(t, r.s)
	r.do(mkdirAt(0, 0, 0, "e"))
	c, err := Open(Config{Dir: "copy", FS: r.fs, Key: benchKey})
	if err != nil {
		t.Fatal(err)
	}
	if got := digest(t, c); got != want {
		t.Errorf("the copy has digest %s, not %s", got, want)
	}
	if i, term := c.Applied(); i != uint64(len(r.log)-1) || term != 1 {
		t.Errorf("the copy is at %d, term %d", i, term)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Query(&wire.Query{}); !errors.Is(err, wire.Shutdown) {
		t.Errorf("a query after Close: %v", err)
	}
	if _, err := c.Apply(nil); !errors.Is(err, wire.Shutdown) {
		t.Errorf("an Apply after Close: %v", err)
	}
	// Entries that the state has are passed over.
	results, err := r.s.Apply(r.log)
	if err != nil || len(results) != len(r.log) || results[0].Inode != nil {
		t.Errorf("applied again: %v %v", results, err)
	}
}

func TestOpenCorrupt(t *testing.T) {
	fs := vfs.NewMem()
	s := openMem(t, fs)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("state")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if len(n) > 8 && n[:8] == "MANIFEST" {
			f, err := fs.Create("state/"+n, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			f.Write([]byte("not a manifest at all, but long enough to look like one"))
			f.Close()
		}
	}
	if _, err := Open(Config{Dir: "state", FS: fs}); err == nil {
		t.Fatal("a corrupt state was opened")
	} else {
		t.Log(err)
	}
}

func TestOpenTwice(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, wire.Busy) {
		t.Errorf("opened twice: %v", err)
	}
}
