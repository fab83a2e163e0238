package state

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// rig is a state in memory, with the log of what was applied to it.
type rig struct {
	tb      testing.TB
	fs      *vfs.MemFS
	s       *State
	log     []Entry
	now     int64
	session uint64
	seq     map[uint64]uint64
	cred    *wire.Cred
	block   uint64 // last id used
}

func openMem(tb testing.TB, fs vfs.FS) *State {
	tb.Helper()
	s, err := Open(Config{Dir: "state", Key: benchKey, FS: fs, CacheBytes: 1 << 20, MemTableSize: 1 << 20, Records: 64})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func newRig(tb testing.TB) *rig {
	r := &rig{tb: tb, fs: vfs.NewCrashableMem(), now: 1000, seq: map[uint64]uint64{}}
	r.s = openMem(tb, r.fs)
	tb.Cleanup(func() { r.s.Close() })
	r.must(&wire.Command{Op: &wire.Command_Bootstrap{Bootstrap: &wire.Bootstrap{
		Policy: &wire.Policy{K: 2, M: 1, InlineMax: 16}, RootMode: 0o755, ClusterId: []byte("0123456789abcdef"),
	}}})
	r.must(&wire.Command{Op: &wire.Command_ReserveBlocks{ReserveBlocks: &wire.ReserveBlocks{Count: 1 << 20}}})
	return r
}

// do applies one command, with the rig's session and credentials.
func (r *rig) do(c *wire.Command) *wire.Result {
	r.tb.Helper()
	if c.TimeNs = r.now; c.Cred == nil {
		c.Cred = r.cred
	}
	if r.session != 0 && c.Session == 0 {
		r.seq[r.session]++
		c.Session, c.Seq = r.session, r.seq[r.session]
		if c.Seq > 8 {
			c.AckBelow = c.Seq - 8
		}
	}
	r.now += 10
	// The log holds what travels, not what the test or Apply may change.
	c = proto.Clone(c).(*wire.Command)
	r.log = append(r.log, Entry{Index: uint64(len(r.log) + 1), Term: 1, Command: c})
	results, err := r.s.Apply(r.log[len(r.log)-1:])
	if err != nil {
		r.tb.Fatal(err)
	}
	r.checkJobs()
	return results[0]
}

// checkJobs: the open jobs that are remembered are those that are stored.
func (r *rig) checkJobs() {
	r.tb.Helper()
	got, err1 := r.s.Jobs()
	want, err2 := r.s.storedJobs()
	if err1 != nil || err2 != nil {
		r.tb.Fatal(err1, err2)
	}
	if !slices.EqualFunc(got, want, func(a, b *wire.Job) bool { return proto.Equal(a, b) }) {
		r.tb.Fatalf("open jobs: %v, stored are %v", got, want)
	}
}

// leader applies a command of the leader's own.
func (r *rig) leader(c *wire.Command) *wire.Result {
	r.tb.Helper()
	session, cred := r.session, r.cred
	r.session, r.cred = 0, nil
	defer func() { r.session, r.cred = session, cred }()
	return r.do(c)
}

func (r *rig) must(c *wire.Command) *wire.Result {
	r.tb.Helper()
	res := r.leader(c)
	if res.Code != 0 {
		r.tb.Fatalf("%v: %v %s", c, wire.Code(res.Code), res.Message)
	}
	return res
}

func (r *rig) ask(q *wire.Query) *wire.Answer {
	r.tb.Helper()
	if q.Cred == nil {
		q.Cred = r.cred
	}
	a, err := r.s.Query(q)
	if err != nil {
		r.tb.Fatal(err)
	}
	return a
}

func (r *rig) openSession(name string) uint64 {
	return r.must(&wire.Command{Op: &wire.Command_OpenSession{OpenSession: &wire.OpenSession{Name: name}}}).Value
}

func (r *rig) endSession(id uint64) *wire.Result {
	return r.leader(&wire.Command{Op: &wire.Command_EndSession{EndSession: &wire.EndSession{Id: id}}})
}

// newFile makes an empty file of root's in the root directory.
func (r *rig) newFile(name string) uint64 {
	r.tb.Helper()
	return r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{
		Parent: wire.RootIno, Name: name, Mode: sIFREG | 0o644, Exclusive: true,
	}}}).Inode.Attr.Ino
}

// newBlock makes a signed block of the rig's policy.
func (r *rig) newBlock(length int) *wire.Block {
	r.block++
	return signed(benchKey, r.block, 2, 1, length)
}

func (r *rig) commit(blocks []*wire.Block, files ...*wire.FileUpdate) *wire.Result {
	return r.do(&wire.Command{Op: &wire.Command_Commit{Commit: &wire.Commit{Blocks: blocks, Files: files}}})
}

// check fails the test if the state contradicts itself.
func (r *rig) check() {
	r.tb.Helper()
	checkState(r.tb, r.s)
}

func checkState(tb testing.TB, s *State) {
	tb.Helper()
	problems, err := s.Check()
	if err != nil {
		tb.Fatal(err)
	}
	for _, p := range problems {
		tb.Errorf("check: %v", p)
	}
	if len(problems) > 0 {
		tb.FailNow()
	}
}

func digest(tb testing.TB, s *State) string {
	tb.Helper()
	sum, err := s.Digest()
	if err != nil {
		tb.Fatal(err)
	}
	return fmt.Sprintf("%x", sum[:8])
}

// replay applies the rig's log to new states in batches of other sizes, and
// demands the same bytes.
func (r *rig) replay(sizes ...int) {
	r.tb.Helper()
	want := digest(r.tb, r.s)
	for _, size := range sizes {
		s := openMem(r.tb, vfs.NewMem())
		for log := r.log; len(log) > 0; {
			n := min(size, len(log))
			if _, err := s.Apply(log[:n]); err != nil {
				r.tb.Fatal(err)
			}
			log = log[n:]
		}
		if got := digest(r.tb, s); got != want {
			r.tb.Errorf("batches of %d: digest %s, not %s: %s", size, got, want, difference(r.tb, r.s, s))
		}
		s.Close()
	}
}

// walk finds the inode of a path; "@17" is inode 17.
func (r *rig) walk(path string) (uint64, bool) {
	if n, ok := strings.CutPrefix(path, "@"); ok {
		ino, err := strconv.ParseUint(n, 10, 64)
		return ino, err == nil
	}
	ino := wire.RootIno
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue
		}
		d, err := r.s.Entry(ino, name)
		if err != nil {
			return 0, false
		}
		ino = d.Ino
	}
	return ino, true
}

// split gives the parent's inode and the last name of a path.
func (r *rig) split(path string) (parent uint64, name string) {
	i := strings.LastIndexByte(path, '/')
	parent, ok := r.walk(path[:i])
	if !ok {
		parent = 1 << 40 // no such inode
	}
	return parent, path[i+1:]
}

var codeNames = map[wire.Code]string{
	wire.OK: "ok", wire.Perm: "Perm", wire.NotFound: "NotFound", wire.Denied: "Denied", wire.Exists: "Exists",
	wire.NotDir: "NotDir", wire.IsDir: "IsDir", wire.Invalid: "Invalid", wire.NotEmpty: "NotEmpty",
	wire.NameTooLong: "NameTooLong", wire.TooManyLinks: "TooManyLinks", wire.NoAttr: "NoAttr", wire.Range: "Range",
	wire.Busy: "Busy", wire.Unsupported: "Unsupported", wire.FileTooBig: "FileTooBig", wire.CrossPart: "CrossPart",
	wire.Stale: "Stale", wire.NoSession: "NoSession", wire.NeedExtents: "NeedExtents", wire.TooFew: "TooFew",
	wire.Internal: "Internal", wire.Corrupt: "Corrupt",
}

func codeName(code uint32) string {
	if n, ok := codeNames[wire.Code(code)]; ok {
		return n
	}
	return fmt.Sprint("code ", code)
}

// difference names the first key in which two states differ.
func difference(tb testing.TB, a, b *State) (text string) {
	tb.Helper()
	var keys, values [][]byte
	all := func(s *State) {
		keys, values = nil, nil
		if err := s.read(func(v *view) {
			v.scan(nil, nil, func(key, value []byte) bool {
				keys, values = append(keys, bytes.Clone(key)), append(values, bytes.Clone(value))
				return true
			})
		}); err != nil {
			tb.Fatal(err)
		}
	}
	all(a)
	ka, va := keys, values
	all(b)
	for i := range max(len(ka), len(keys)) {
		switch {
		case i >= len(ka):
			return fmt.Sprintf("key %q only in the second", keys[i])
		case i >= len(keys):
			return fmt.Sprintf("key %q only in the first", ka[i])
		case !bytes.Equal(ka[i], keys[i]):
			return fmt.Sprintf("keys %q and %q", ka[i], keys[i])
		case !bytes.Equal(va[i], values[i]):
			return fmt.Sprintf("key %q: %q and %q", ka[i], va[i], values[i])
		}
	}
	return "none"
}
