package data

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// sink is a cluster that costs nothing: what is measured is this package.
type sink struct{ next atomic.Uint64 }

func (s *sink) Allocate(_ context.Context, q *wire.Allocate) (*wire.AllocateAnswer, error) {
	a := &wire.AllocateAnswer{}
	for range q.Count {
		a.Tickets = append(a.Tickets, &wire.Ticket{Block: s.next.Add(1)})
	}
	return a, nil
}

// Extents says that every file is 1 GiB of full blocks.
func (s *sink) Extents(_ context.Context, q *wire.GetExtents) (*wire.ExtentsAnswer, error) {
	a := &wire.ExtentsAnswer{Inode: &wire.Inode{Attr: &wire.Attr{Ino: q.Ino, Size: 1 << 30}}, Upto: 1 << 30}
	for off := q.Off &^ (4<<20 - 1); off < 1<<30; off += 4 << 20 {
		a.Extents = append(a.Extents, &wire.Extent{Off: off, Len: 4 << 20, Block: 1 + off>>22})
		a.Blocks = append(a.Blocks, &wire.Block{Id: 1 + off>>22, K: 4, M: 2, Length: 4 << 20, ShardLength: 1 << 20})
	}
	return a, nil
}

func (s *sink) Commit(_ context.Context, m *wire.Commit) (*wire.Result, error) {
	return &wire.Result{}, nil
}

func (s *sink) WriteBlock(_ context.Context, p block.Policy, t *wire.Ticket, _ []uint32, data []byte) (*wire.Block, error) {
	return &wire.Block{Id: t.Block, K: uint32(p.K), M: uint32(p.M), Length: uint32(len(data)), ShardLength: uint32(block.ShardLength(len(data), p.K))}, nil
}

func (s *sink) ReadBlock(_ context.Context, _ *wire.Block, p []byte, _ int) error {
	copy(p, zeros[:])
	return nil
}

var zeros [4 << 20]byte

func newInode(ino uint64, size int64) *wire.Inode {
	return &wire.Inode{Attr: &wire.Attr{Ino: ino, Size: uint64(size), Version: 1}, Policy: policy(4, 2, 0, 0).ToWire()}
}

func BenchmarkSequentialWrite(b *testing.B) {
	s := &sink{}
	p := New(Config{}, s, s)
	defer p.Close(context.Background())
	f := p.File(newInode(7, 0))
	buf := fill(1, 128<<10)
	b.SetBytes(int64(len(buf)))
	for i := range b.N {
		if _, err := f.WriteAt(b.Context(), buf, int64(i)*int64(len(buf))); err != nil {
			b.Fatal(err)
		}
	}
	mustFlush(b, f)
}

func BenchmarkSequentialRead(b *testing.B) {
	s := &sink{}
	p := New(Config{}, s, s)
	defer p.Close(context.Background())
	f := p.File(newInode(7, 1<<30))
	buf := make([]byte, 128<<10)
	b.SetBytes(int64(len(buf)))
	for i := range b.N {
		if _, err := f.ReadAt(b.Context(), buf, int64(i)*int64(len(buf))%(1<<30)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRandomRead4K(b *testing.B) {
	s := &sink{}
	p := New(Config{}, s, s)
	defer p.Close(context.Background())
	f := p.File(newInode(7, 1<<30))
	rng := rand.New(rand.NewPCG(1, 1))
	buf := make([]byte, 4096)
	for range b.N {
		if _, err := f.ReadAt(b.Context(), buf, rng.Int64N(1<<18)*4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCachedRead4K(b *testing.B) {
	s := &sink{}
	p := New(Config{}, s, s)
	defer p.Close(context.Background())
	f := p.File(newInode(7, 1<<30))
	rng := rand.New(rand.NewPCG(1, 1))
	buf := make([]byte, 4096)
	for range b.N {
		if _, err := f.ReadAt(b.Context(), buf, rng.Int64N(1<<14)*4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRandomWrite4K(b *testing.B) {
	s := &sink{}
	p := New(Config{}, s, s)
	defer p.Close(context.Background())
	f := p.File(newInode(7, 1<<30))
	rng := rand.New(rand.NewPCG(1, 1))
	buf := fill(1, 4096)
	for range b.N {
		if _, err := f.WriteAt(b.Context(), buf, rng.Int64N(1<<18)*4096); err != nil {
			b.Fatal(err)
		}
	}
	mustFlush(b, f)
}

// BenchmarkSmallFiles creates files, writes and forgets them.
func BenchmarkSmallFiles(b *testing.B) {
	for _, size := range []int{1000, 10000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := &sink{}
			p := New(Config{}, s, s)
			defer p.Close(context.Background())
			buf := fill(1, size)
			b.ReportAllocs()
			for i := range b.N {
				f := p.File(newInode(uint64(i)+10, 0))
				if _, err := f.WriteAt(b.Context(), buf, 0); err != nil {
					b.Fatal(err)
				}
				f.SetAttr(&wire.SetAttr{Mask: wire.SetMtime, MtimeNs: int64(i)})
				p.Forget(uint64(i) + 10)
			}
			if err := p.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkFsync is a write and a Flush of 4 KiB: one block and one commit.
func BenchmarkFsync(b *testing.B) {
	s := &sink{}
	p := New(Config{}, s, s)
	defer p.Close(context.Background())
	f := p.File(newInode(7, 1<<20))
	buf := fill(1, 4096)
	b.ReportAllocs()
	for i := range b.N {
		if _, err := f.WriteAt(b.Context(), buf, int64(i%256)*4096); err != nil {
			b.Fatal(err)
		}
		mustFlush(b, f)
	}
}
