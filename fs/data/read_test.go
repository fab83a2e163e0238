package data

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/prototext"

	"quernfs/internal/wire"
)

func attrOf(t *testing.T, s string) *wire.SetAttr {
	a := &wire.SetAttr{}
	if err := prototext.Unmarshal([]byte(s), a); err != nil {
		t.Fatal(err)
	}
	return a
}

// stored makes a committed file by a path of its own.
func storedFile(t *testing.T, c *cluster, ino uint64, content []byte) {
	t.Helper()
	p := New(Config{}, c, c)
	f := p.File(c.create(ino, policy(4, 2, 0, 0)))
	mustWrite(t, f, content, 0)
	closed(t, p)
}

// TestReadAhead: a sequential reader finds its blocks fetched; a random one
// fetches no more than cells.
func TestReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		want := fill(5, 24<<20)
		storedFile(t, c, 7, want)
		var now, most atomic.Int64
		c.onRead = func(ctx context.Context, _ uint64, n int) error {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(5 * time.Millisecond)
			now.Add(-1)
			return nil
		}
		p := New(Config{}, c, c)
		f := p.File(c.inode(7))
		buf := make([]byte, 128<<10)
		for off := 0; off < len(want); off += len(buf) {
			if _, err := f.ReadAt(t.Context(), buf, int64(off)); err != nil {
				t.Fatal(err)
			}
			if firstDiff(buf, want[off:off+len(buf)]) >= 0 {
				t.Fatalf("differs at %d", off)
			}
			time.Sleep(200 * time.Microsecond)
		}
		s := p.Stats()
		if s.Prefetched < 5 || most.Load() < 3 || c.reads > 12 {
			t.Errorf("prefetched %d blocks, %d at once, %d reads", s.Prefetched, most.Load(), c.reads)
		}
		closed(t, p)

		c.reads, c.readBytes = 0, 0
		p = New(Config{}, c, c)
		f = p.File(c.inode(7))
		for i := range 300 {
			off := int64(i) * 7919 * 4096 % int64(len(want)-4096)
			if _, err := f.ReadAt(t.Context(), buf[:4096], off); err != nil || firstDiff(buf[:4096], want[off:off+4096]) >= 0 {
				t.Fatal(off, err)
			}
		}
		if s := p.Stats(); s.Prefetched != 0 || c.readBytes > 300*3*64<<10 {
			t.Errorf("random reads: prefetched %d, %d bytes read", s.Prefetched, c.readBytes)
		}
		closed(t, p)
	})
}

// TestReadBound: no more is cached than CacheBytes, however much is read.
func TestReadBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		want := fill(5, 20<<20)
		storedFile(t, c, 7, want)
		p := New(Config{CacheBytes: 16 << 20}, c, c)
		f := p.File(c.inode(7))
		buf := make([]byte, 100<<10)
		for i := range 1200 {
			n := 4096
			off := int64(i) * 7919 * 4096 % int64(len(want)-len(buf))
			if i%2 == 0 {
				off, n = int64(i)*10000, len(buf)
			}
			if _, err := f.ReadAt(t.Context(), buf[:n], off); err != nil || firstDiff(buf[:n], want[off:off+int64(n)]) >= 0 {
				t.Fatal(off, err)
			}
			p.ahead.mu.Lock()
			held := len(p.ahead.held)
			p.ahead.mu.Unlock()
			if used := p.Stats().CacheUsed; used > 8<<20 || held > 2 {
				t.Fatalf("%d bytes of cells, %d blocks ahead", used, held)
			}
		}
		closed(t, p)
	})
}

// TestOneLoad: many readers of one cell cause one read.
func TestOneLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		want := fill(5, 300<<10)
		storedFile(t, c, 7, want)
		c.onRead = func(context.Context, uint64, int) error { time.Sleep(time.Millisecond); return nil }
		p := New(Config{}, c, c)
		f := p.File(c.inode(7))
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				buf := make([]byte, 1000)
				if _, err := f.ReadAt(t.Context(), buf, int64(i)*3000); err != nil || firstDiff(buf, want[i*3000:i*3000+1000]) >= 0 {
					t.Error(i, err)
				}
			})
		}
		wg.Wait()
		if c.reads != 1 {
			t.Errorf("%d reads", c.reads)
		}
		closed(t, p)
	})
}

// TestReadErrors: a block that cannot be read is looked up once more.
func TestReadErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		storedFile(t, c, 7, fill(5, 300<<10))
		var fail error
		tries, lookups := 0, 0
		c.onRead = func(context.Context, uint64, int) error {
			if tries++; tries <= 1 || errors.Is(fail, wire.Corrupt) {
				return fail
			}
			return nil
		}
		c.onExtents = func() error { lookups++; return nil }
		buf := make([]byte, 5000)
		for _, tc := range []struct {
			fail, want     error
			tries, lookups int
		}{
			{wire.NotFound, nil, 2, 2},
			{wire.Unavailable, nil, 2, 2},
			{wire.Corrupt, wire.Corrupt, 2, 2},
			{wire.Forbidden, wire.Forbidden, 1, 1},
		} {
			p := New(Config{}, c, c)
			fail, tries, lookups = tc.fail, 0, 0
			_, err := p.File(c.inode(7)).ReadAt(t.Context(), buf, 100)
			if !errors.Is(err, tc.want) || tries != tc.tries || lookups != tc.lookups {
				t.Errorf("%v: %v after %d tries, %d lookups", tc.fail, err, tries, lookups)
			}
			closed(t, p)
		}
	})
}

func TestReadEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := New(Config{}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		buf := make([]byte, 10)
		if n, err := f.ReadAt(t.Context(), buf, 0); n != 0 || err != io.EOF {
			t.Errorf("empty file: %d, %v", n, err)
		}
		mustWrite(t, f, []byte("x"), 1<<40)
		if n, err := f.ReadAt(t.Context(), buf, 1<<40-5); n != 6 || err != io.EOF || string(buf[:n]) != "\x00\x00\x00\x00\x00x" {
			t.Errorf("%d, %v, %q", n, err, buf[:n])
		}
		if n, err := f.ReadAt(t.Context(), buf, 1<<39); n != 10 || err != nil {
			t.Errorf("hole: %d, %v", n, err)
		}
		if _, err := f.ReadAt(t.Context(), buf, -1); !errors.Is(err, wire.Invalid) {
			t.Error(err)
		}
		if _, err := f.WriteAt(t.Context(), buf, maxOff-5); !errors.Is(err, wire.FileTooBig) {
			t.Error(err)
		}
		closed(t, p)
	})
}

func TestSeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.pageLimit = 2
		p := New(Config{}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		for i := range 5 { // data in [100k, 110k), [200k, 210k), …
			mustWrite(t, f, fill(i, 10000), int64(i+1)*100_000)
		}
		mustFlush(t, f)
		f = New(Config{}, c, c).File(c.inode(7))
		mustWrite(t, f, []byte("dirty"), 310_000)
		type seek struct {
			off  int64
			hole bool
			want int64
		}
		for _, s := range []seek{
			{0, false, 100_000}, {0, true, 0}, {100_000, false, 100_000}, {100_000, true, 110_000},
			{105_000, true, 110_000}, {110_000, false, 200_000}, {300_000, true, 310_005}, {310_005, false, 400_000},
			{500_000, true, 510_000}, {510_000, false, -1}, {510_000, true, -1}, {-1, true, -1},
		} {
			got, err := f.Seek(t.Context(), s.off, s.hole)
			if err == syscall.ENXIO {
				got = -1
			} else if err != nil {
				t.Error(err)
			}
			if got != s.want {
				t.Errorf("seek from %d hole %v: %d, want %d", s.off, s.hole, got, s.want)
			}
		}
		closed(t, f.path)
		closed(t, p)
	})
}

// TestManyExtents: of a badly fragmented file only a bounded number is cached.
func TestManyExtents(t *testing.T) {
	c := newCluster(t)
	p := New(Config{FlushAfter: time.Hour}, c, c)
	f := p.File(c.create(7, policy(4, 2, 0, 0)))
	for i := range 60_000 {
		mustWrite(t, f, []byte{byte(i), byte(i >> 8)}, int64(i)*10)
	}
	mustFlush(t, f)
	if n := f.extents.count(); n > extentsKept {
		t.Errorf("%d extents cached", n)
	}
	buf := make([]byte, 2)
	for i := 0; i < 60_000; i += 13 {
		if _, err := f.ReadAt(t.Context(), buf, int64(i)*10); err != nil || buf[0] != byte(i) || buf[1] != byte(i>>8) {
			t.Fatal(i, err, buf)
		}
	}
	if n := f.extents.count(); n > extentsKept+extentsPage {
		t.Errorf("%d extents cached", n)
	}
	closed(t, p)
}

// TestLayout: cells cover a block without gap or overlap, and never part of a
// leaf.
func TestLayout(t *testing.T) {
	for _, b := range []*wire.Block{
		{Length: 1, K: 4, ShardLength: 1}, {Length: 4096, K: 4, ShardLength: 1024}, {Length: 4 << 20, K: 4, ShardLength: 1 << 20},
		{Length: 1_000_003, K: 4, ShardLength: 250_001}, {Length: 4 << 20, K: 1, ShardLength: 4 << 20}, {Length: 777_777, K: 32, ShardLength: 24_306},
	} {
		l := layoutOf(b)
		pos := 0
		for i := 0; pos < int(b.Length); i++ {
			lo, hi := l.bounds(i)
			if lo != pos || hi <= lo || hi-lo > cellMax || l.cell(lo) != i || l.cell(hi-1) != i {
				t.Fatalf("block of %d: cell %d is [%d, %d) after %d", b.Length, i, lo, hi, pos)
			}
			s := int(b.ShardLength)
			if lo%s%wire.LeafSize != 0 || hi != int(b.Length) && hi%s != 0 && hi%s%wire.LeafSize != 0 {
				t.Fatalf("block of %d: cell %d [%d, %d) splits a leaf", b.Length, i, lo, hi)
			}
			pos = hi
		}
	}
}
