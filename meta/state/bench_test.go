package state

import (
	"fmt"
	"testing"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

var benchKey = []byte("0123456789abcdef0123456789abcdef")

func openBench(tb testing.TB) *State {
	tb.Helper()
	s, err := Open(Config{Dir: tb.TempDir(), Key: benchKey})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

// feeder gives commands increasing log positions and applies them in batches.
type feeder struct {
	tb      testing.TB
	s       *State
	index   uint64
	pending []Entry
	batch   int
}

func (f *feeder) add(c *wire.Command) {
	f.index++
	c.TimeNs = int64(f.index)
	f.pending = append(f.pending, Entry{Index: f.index, Term: 1, Command: c})
	if len(f.pending) >= f.batch {
		f.flush()
	}
}

func (f *feeder) flush() {
	results, err := f.s.Apply(f.pending)
	if err != nil {
		f.tb.Fatal(err)
	}
	for i, r := range results {
		if r.Code != 0 {
			f.tb.Fatalf("%v: %v %s", f.pending[i].Command, wire.Code(r.Code), r.Message)
		}
	}
	f.pending = f.pending[:0]
}

func newFeeder(tb testing.TB, s *State, batch int) *feeder {
	f := &feeder{tb: tb, s: s, batch: 1}
	f.add(&wire.Command{Op: &wire.Command_Bootstrap{Bootstrap: &wire.Bootstrap{Policy: &wire.Policy{K: 4, M: 2}}}})
	f.add(&wire.Command{Op: &wire.Command_OpenSession{OpenSession: &wire.OpenSession{Name: "bench"}}})
	f.add(&wire.Command{Op: &wire.Command_ReserveBlocks{ReserveBlocks: &wire.ReserveBlocks{Count: 1 << 30}}})
	f.batch = batch
	return f
}

func create(parent uint64, name string, seq uint64) *wire.Command {
	return &wire.Command{
		Session: 1, Seq: seq, AckBelow: max(seq, 64) - 63, Cred: &wire.Cred{Uid: 1000, Gid: 1000},
		Op: &wire.Command_Create{Create: &wire.Create{Parent: parent, Name: name, Mode: sIFREG | 0o644}},
	}
}

func benchCreate(b *testing.B, batch int) {
	s := openBench(b)
	f := newFeeder(b, s, 1)
	f.add(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: 1, Mask: wire.SetMode, Mode: 0o777}}})
	f.batch = batch
	cmds := make([]*wire.Command, b.N)
	for i := range cmds {
		cmds[i] = create(wire.RootIno, fmt.Sprintf("file-%08d", i), uint64(i+1))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, c := range cmds {
		f.add(c)
	}
	f.flush()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
}

func BenchmarkCreate1(b *testing.B)   { benchCreate(b, 1) }
func BenchmarkCreate64(b *testing.B)  { benchCreate(b, 64) }
func BenchmarkCreate512(b *testing.B) { benchCreate(b, 512) }

func signed(key []byte, id uint64, k, m, length int) *wire.Block {
	b := &wire.Block{Id: id, K: uint32(k), M: uint32(m), Length: uint32(length), ShardLength: uint32(block.ShardLength(length, k))}
	for i := range k + m {
		root := block.Root(int(b.ShardLength), []byte(fmt.Sprintf("%032d", id*100+uint64(i))))
		b.Shards = append(b.Shards, &wire.Shard{
			Server: uint32(i + 1), Root: root[:],
			Proof: block.Proof(key, uint32(i+1), id, uint32(i), b.ShardLength, root[:]),
		})
	}
	return b
}

// BenchmarkCommit: one block with the data of 64 small files.
func BenchmarkCommit(b *testing.B) {
	for _, files := range []int{1, 64} {
		b.Run(fmt.Sprintf("files=%d", files), func(b *testing.B) {
			s := openBench(b)
			f := newFeeder(b, s, 1)
			f.add(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: 1, Mask: wire.SetMode, Mode: 0o777}}})
			f.batch = 1000
			for i := range b.N * files {
				f.add(create(wire.RootIno, fmt.Sprintf("file-%08d", i), uint64(i+1)))
			}
			f.flush()
			f.batch = 64
			cmds := make([]*wire.Command, b.N)
			ino := wire.FirstIno
			for i := range cmds {
				c := &wire.Commit{Blocks: []*wire.Block{signed(benchKey, uint64(i+1), 4, 2, files*8192)}}
				for j := range files {
					c.Files = append(c.Files, &wire.FileUpdate{Ino: ino, Extents: []*wire.Extent{{Len: 8192, Block: uint64(i + 1), BlockOff: uint32(j * 8192)}}})
					ino++
				}
				seq := uint64(b.N*files + i + 1)
				cmds[i] = &wire.Command{Session: 1, Seq: seq, AckBelow: max(seq, 64) - 63, Op: &wire.Command_Commit{Commit: c}}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, c := range cmds {
				f.add(c)
			}
			f.flush()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			b.ReportMetric(float64(b.N*files)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	s := openBench(b)
	f := newFeeder(b, s, 1)
	f.add(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: 1, Mask: wire.SetMode, Mode: 0o777}}})
	f.batch = 1000
	const files = 100000
	for i := range files {
		f.add(create(wire.RootIno, fmt.Sprintf("file-%08d", i), uint64(i+1)))
	}
	f.flush()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		a, err := s.Query(&wire.Query{Op: &wire.Query_Lookup{Lookup: &wire.Lookup{
			Parent: wire.RootIno, Name: fmt.Sprintf("file-%08d", i*7919%files),
		}}})
		if err != nil || a.Code != 0 {
			b.Fatal(err, a)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
}

// BenchmarkReadDir lists a directory of a million entries by pages.
func BenchmarkReadDir(b *testing.B) {
	s := openBench(b)
	f := newFeeder(b, s, 1)
	f.add(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: 1, Mask: wire.SetMode, Mode: 0o777}}})
	f.batch = 1000
	const files = 1000000
	for i := range files {
		f.add(create(wire.RootIno, fmt.Sprintf("file-%08d", i), uint64(i+1)))
	}
	f.flush()
	b.ResetTimer()
	for range b.N {
		n, after := 0, uint64(0)
		for eof := false; !eof; {
			a, err := s.Query(&wire.Query{Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: wire.RootIno, After: after}}})
			if err != nil {
				b.Fatal(err)
			}
			d := a.GetDir()
			n += len(d.Entries)
			after, eof = d.Entries[len(d.Entries)-1].Cookie, d.Eof
		}
		if n != files+1 {
			b.Fatalf("%d entries", n)
		}
	}
	b.ReportMetric(float64(b.N*files)/b.Elapsed().Seconds(), "entries/s")
}

func proofOf(server uint32, b *wire.Block, index int) []byte {
	return block.Proof(benchKey, server, b.Id, uint32(index), b.ShardLength, b.Shards[index].Root)
}

// BenchmarkTruncate empties a file of 16 GiB: 4096 blocks of 4 MiB.
func BenchmarkTruncate(b *testing.B) {
	const blocks = 4096
	s := openBench(b)
	f := newFeeder(b, s, 1)
	f.add(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: wire.RootIno, Name: "f", Mode: sIFREG | 0o644}}})
	id := uint64(0)
	for range b.N {
		b.StopTimer()
		for range blocks / 64 {
			c := new(wire.Commit)
			u := &wire.FileUpdate{Ino: wire.FirstIno}
			for range 64 {
				id++
				c.Blocks = append(c.Blocks, signed(benchKey, id, 4, 2, 4<<20))
				u.Extents = append(u.Extents, &wire.Extent{Off: id % blocks << 22, Len: 4 << 20, Block: id})
			}
			if u.Extents[63].Off == 0 { // the last one of a round begins the file
				u.Extents = append(u.Extents[63:], u.Extents[:63]...)
			}
			c.Files = []*wire.FileUpdate{u}
			f.add(&wire.Command{Op: &wire.Command_Commit{Commit: c}})
		}
		b.StartTimer()
		f.add(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: wire.FirstIno, Mask: wire.SetSize}}})
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*blocks), "us/extent")
}

// BenchmarkInventory: what one page of a chunk server's inventory costs the
// leader when all is well, and when nobody knows any of it.
func BenchmarkInventory(b *testing.B) {
	const page = 4096
	s := openBench(b)
	f := newFeeder(b, s, 1)
	f.batch = 1000
	file := create(wire.RootIno, "f", 1)
	file.Cred = nil
	f.add(file)
	for id := uint64(1); id <= page; id++ {
		f.add(&wire.Command{Op: &wire.Command_Commit{Commit: &wire.Commit{
			Blocks: []*wire.Block{signed(benchKey, id, 4, 2, 8192)},
			Files:  []*wire.FileUpdate{{Ino: wire.FirstIno, Extents: []*wire.Extent{{Off: id * 8192, Len: 8192, Block: id}}}},
		}}})
	}
	f.add(&wire.Command{Op: &wire.Command_ExpireTickets{ExpireTickets: &wire.ExpireTickets{Below: 1 << 30}}})
	f.flush()
	b.Run("known", func(b *testing.B) {
		for b.Loop() {
			if held, err := s.OnServer(1, 0, 2*page); err != nil || len(held) != page {
				b.Fatal(len(held), err)
			}
		}
	})
	b.Run("unknown", func(b *testing.B) {
		ids := make([]uint64, page)
		for i := range ids {
			ids[i] = uint64(page + 1 + i)
		}
		for b.Loop() {
			if _, blocks, err := s.Expired(ids); err != nil || len(blocks) != page {
				b.Fatal(len(blocks), err)
			}
		}
	})
}
