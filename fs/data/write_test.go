package data

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// TestPackSmallFiles: files written one after the other share blocks and
// commits, in the order in which they were made.
func TestPackSmallFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := New(Config{}, c, c)
		const n, size = 2000, 5000
		for i := range n {
			f := p.File(c.create(uint64(2000+i), policy(4, 2, 0, 0)))
			mustWrite(t, f, fill(i, size), 0)
			f.SetAttr(&wire.SetAttr{Mask: wire.SetMtime, MtimeNs: int64(i + 1)})
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		blocks, commits := c.counts()
		if want := (n*size + 4<<20 - 1) / (4 << 20); blocks > want+1 {
			t.Errorf("%d blocks for %d bytes, want %d", blocks, n*size, want)
		}
		if commits > blocks+2 || p.Stats().Updates > int64(n+blocks) {
			t.Errorf("%d commits, %d updates", commits, p.Stats().Updates)
		}
		for i := range n {
			if in := c.inode(uint64(2000 + i)); in.Attr.MtimeNs != int64(i+1) || !bytes.Equal(c.content(uint64(2000+i)), fill(i, size)) {
				t.Fatalf("file %d: mtime %d, size %d", i, in.Attr.MtimeNs, in.Attr.Size)
			}
		}
		closed(t, p)

		// Another mount reads them in that order: each block is read about once,
		// in longer and longer runs.
		q := New(Config{}, c, c)
		for i := range n {
			wantContent(t, q.File(c.inode(uint64(2000+i))), fill(i, size))
		}
		if c.readBytes > n*size*11/10 || c.reads > n/50 {
			t.Errorf("%d reads of %d bytes for %d files of %d", c.reads, c.readBytes, n, size)
		}
		closed(t, q)
	})
}

// TestJustWritten: what this mount has packed is in its cache.
func TestJustWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := New(Config{}, c, c)
		for i := range 300 {
			mustWrite(t, p.File(c.create(uint64(2000+i), policy(4, 2, 0, 0))), fill(i, 9000), 0)
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			wantContent(t, p.Lookup(uint64(2000+i)), fill(i, 9000))
		}
		if c.reads != 0 {
			t.Errorf("%d reads", c.reads)
		}
		closed(t, p)
	})
}

func TestInline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := New(Config{}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 2048)))
		mustWrite(t, f, []byte("hello"), 3)
		mustFlush(t, f)
		if in := c.inode(7); !in.HasInline || string(in.Inline) != "\x00\x00\x00hello" {
			t.Fatalf("inline %v %q", in.HasInline, in.Inline)
		}
		if blocks, commits := c.counts(); blocks != 0 || commits != 1 {
			t.Fatalf("%d blocks, %d commits", blocks, commits)
		}
		// Growing beyond the limit folds the inline bytes into the extents.
		mustWrite(t, f, fill(1, 3000), 100)
		mustFlush(t, f)
		want := append([]byte("\x00\x00\x00hello"), make([]byte, 92)...)
		want = append(want, fill(1, 3000)...)
		if in := c.inode(7); in.HasInline || !bytes.Equal(c.content(7), want) {
			t.Fatalf("inline %v, %d bytes", in.HasInline, in.Attr.Size)
		}
		wantContent(t, f, want)
		// Truncated to nothing it may be inline again.
		err := f.Truncate(t.Context(), 0, func(context.Context) (*wire.Inode, error) { return c.setSize(7, 0), nil })
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, f, []byte("again"), 0)
		mustFlush(t, f)
		if in := c.inode(7); !in.HasInline || string(in.Inline) != "again" {
			t.Fatalf("inline %v %q", in.HasInline, in.Inline)
		}
		if err := f.MakeExtents(t.Context(), 1, 1); err != nil {
			t.Fatal(err)
		}
		if in := c.inode(7); in.HasInline || string(c.content(7)) != "again" {
			t.Fatal("still inline")
		}
		closed(t, p)
	})
}

// TestFlushIsDirect: a small fsync is one block and one commit, with no timer
// in the way, and does not drag a large shared draft with it.
func TestFlushIsDirect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := New(Config{}, c, c)
		for i := range 100 {
			mustWrite(t, p.File(c.create(uint64(2000+i), policy(4, 2, 0, 0))), fill(i, 20000), 0)
		}
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		mustWrite(t, f, fill(7, 10000), 0)
		start := time.Now()
		mustFlush(t, f)
		if time.Since(start) != 0 {
			t.Errorf("flush waited %v", time.Since(start))
		}
		if blocks, commits := c.counts(); blocks != 1 || commits != 1 || len(c.commits[0].Files) != 1 || c.commits[0].Blocks[0].Length != 10000 {
			t.Errorf("%d blocks, %d commits: %s", blocks, commits, extentsOf(c.commits[0]))
		}
		closed(t, p)
	})
}

// TestGroupCommit: many concurrent fsyncs share blocks and commits.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.onWrite = func(context.Context, []byte) error { time.Sleep(2 * time.Millisecond); return nil }
		c.onCommit = func(context.Context, *wire.Commit) (error, error) { time.Sleep(time.Millisecond); return nil, nil }
		p := New(Config{}, c, c)
		var wg sync.WaitGroup
		for i := range 200 {
			f := p.File(c.create(uint64(2000+i), policy(4, 2, 0, 0)))
			wg.Go(func() {
				for j := range 5 {
					mustWrite(t, f, fill(i, 4096), int64(j)*4096)
					mustFlush(t, f)
				}
			})
		}
		wg.Wait()
		if blocks, commits := c.counts(); blocks > 100 || commits > 100 {
			t.Errorf("%d blocks and %d commits for 1000 fsyncs", blocks, commits)
		}
		closed(t, p)
	})
}

// TestSequential: a large file becomes full blocks of its own that begin at
// multiples of the block size, uploaded in the background.
func TestSequential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := New(Config{}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		want := fill(3, 12<<20)
		for off := 0; off < len(want); off += 128 << 10 {
			mustWrite(t, f, want[off:off+128<<10], int64(off))
		}
		synctest.Wait()
		if blocks, _ := c.counts(); blocks != 3 {
			t.Errorf("%d blocks before any flush", blocks)
		}
		for s := range c.files[7].extents.all() {
			if s.off%(4<<20) != 0 || s.len() != 4<<20 || s.at != 0 {
				t.Errorf("extent %v", s)
			}
		}
		wantContent(t, f, want)
		closed(t, p)
	})
}

// TestScattered: a hundred thousand ranges cost neither quadratic time nor a
// block each, and ranges that turn out to be neighbours become one extent.
func TestScattered(t *testing.T) {
	c := newCluster(t)
	p := New(Config{DirtyLimit: 1 << 30, FlushAfter: time.Hour}, c, c)
	f := p.File(c.create(7, policy(4, 2, 0, 0)))
	n := 100_000
	if testing.Short() {
		n = 20_000
	}
	rng := rand.New(rand.NewPCG(1, 2))
	buf := fill(1, 1024)
	start := time.Now()
	for _, i := range rng.Perm(n) {
		buf[0] = byte(i)
		mustWrite(t, f, buf, int64(i)*2048)
	}
	mustFlush(t, f)
	t.Logf("%d ranges in %v", n, time.Since(start))
	if blocks, _ := c.counts(); blocks > n*1024/(4<<20)+2 {
		t.Errorf("%d blocks", blocks)
	}
	if got := c.files[7].extents.count(); got != n {
		t.Errorf("%d extents", got)
	}
	b := make([]byte, 1)
	for range 1000 {
		i := rng.IntN(n)
		if _, err := f.ReadAt(t.Context(), b, int64(i)*2048); err != nil || b[0] != byte(i) {
			t.Fatalf("range %d: %d, %v", i, b[0], err)
		}
	}
	closed(t, p)

	g := New(Config{}, c, c)
	f = g.File(c.create(8, policy(4, 2, 0, 0)))
	for _, i := range rng.Perm(1000) {
		mustWrite(t, f, buf, int64(i)*1024)
	}
	mustFlush(t, f)
	if got := c.files[8].extents.count(); got != 1 {
		t.Errorf("a region written in random order became %d extents", got)
	}
	closed(t, g)
}

// TestBackPressure: writers wait for uploads at the limit, and memory stays
// below it.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		gate := make(chan struct{})
		c.onWrite = func(ctx context.Context, _ []byte) error {
			select {
			case <-gate:
			case <-ctx.Done():
			}
			return ctx.Err()
		}
		const limit = 16 << 20
		p := New(Config{DirtyLimit: limit}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		var done atomic.Int64
		go func() {
			buf := fill(1, 1<<20)
			for i := range 100 {
				mustWrite(t, f, buf, int64(i)<<20)
				done.Add(1)
			}
		}()
		synctest.Wait()
		if n := done.Load(); n != limit>>20 || p.Stats().Dirty > limit {
			t.Errorf("%d MiB were taken, %d dirty", n, p.Stats().Dirty)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := f.WriteAt(ctx, fill(1, 1<<20), 0); !errors.Is(err, wire.Timeout) {
			t.Errorf("a write past its deadline: %v", err)
		}
		cancel()
		close(gate)
		for done.Load() < 100 {
			time.Sleep(time.Millisecond)
			if d := p.Stats().Dirty; d > limit {
				t.Fatalf("%d dirty", d)
			}
		}
		mustFlush(t, f)
		closed(t, p)
	})
}

// TestMemoryOfManySmall: the limit holds for inline files and for rewriting the
// same ranges too.
func TestMemoryOfManySmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.onCommit = func(context.Context, *wire.Commit) (error, error) { time.Sleep(time.Millisecond); return nil, nil }
		p := New(Config{DirtyLimit: 1 << 20}, c, c)
		for i := range 4000 {
			f := p.File(c.create(uint64(2000+i), policy(4, 2, 0, 2048)))
			mustWrite(t, f, fill(i, 1000), 0)
			mustWrite(t, f, fill(i, 1000), 0)
			if d := p.Stats().Dirty; d > 1<<20 {
				t.Fatalf("%d dirty", d)
			}
		}
		if _, commits := c.counts(); commits > 40 {
			t.Errorf("%d commits", commits)
		}
		closed(t, p)
	})
}

// TestTemporaryFiles: files deleted before they are flushed cost no upload.
func TestTemporaryFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := New(Config{DirtyLimit: 8 << 20}, c, c)
		for i := range 60 {
			f := p.File(c.create(uint64(2000+i), policy(4, 2, 0, 0)))
			mustWrite(t, f, fill(i, 1_000_000), 0)
			f.Discard()
			p.Forget(f.Ino())
		}
		if blocks, commits := c.counts(); blocks+commits != 0 {
			t.Errorf("%d blocks, %d commits", blocks, commits)
		}
		if s := p.Stats(); s.Dirty != 0 || s.Files != 0 {
			t.Errorf("%+v", s)
		}
		closed(t, p)
	})
}

// TestOverwriteInFlight: the later of two writes to a range wins although the
// first is being uploaded, and Flush promises the first at least.
func TestOverwriteInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		first := make(chan struct{})
		n := 0
		c.onWrite = func(ctx context.Context, _ []byte) error {
			if n++; n == 1 {
				<-first
			}
			return nil
		}
		p := New(Config{}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, block.NeverInline)))
		mustWrite(t, f, bytes.Repeat([]byte{1}, 9000), 0)
		flushed := make(chan error, 2)
		go func() { flushed <- f.Flush(t.Context()) }()
		synctest.Wait() // the upload of the first hangs
		mustWrite(t, f, bytes.Repeat([]byte{2}, 3000), 3000)
		go func() { flushed <- f.Flush(t.Context()) }()
		synctest.Wait() // the second is stored, but may not be committed before
		if _, commits := c.counts(); commits != 0 {
			t.Fatal("the second part was committed before the first")
		}
		want := bytes.Repeat([]byte{1}, 9000)
		copy(want[3000:], bytes.Repeat([]byte{2}, 3000))
		wantContent(t, f, want)
		close(first)
		for range 2 {
			if err := <-flushed; err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(c.content(7), want) {
			t.Error("the older write won")
		}
		wantContent(t, f, want)
		closed(t, p)
	})
}

// TestTruncateInFlight: blocks being uploaded do not bring back what was cut.
func TestTruncateInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		gate := make(chan struct{})
		c.onWrite = func(context.Context, []byte) error { <-gate; return nil }
		p := New(Config{}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		g := p.File(c.create(8, policy(4, 2, 0, 0)))
		mustWrite(t, f, fill(1, 10000), 0)
		mustWrite(t, g, fill(2, 10000), 0)
		go f.Flush(t.Context())
		synctest.Wait()
		err := f.Truncate(t.Context(), 4000, func(context.Context) (*wire.Inode, error) { return c.setSize(7, 4000), nil })
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, f, []byte("end"), 6000)
		close(gate)
		mustFlush(t, f)
		want := append(fill(1, 10000)[:4000:4000], make([]byte, 2000)...)
		want = append(want, "end"...)
		if !bytes.Equal(c.content(7), want) {
			t.Errorf("%d bytes committed", len(c.content(7)))
		}
		wantContent(t, f, want)
		wantContent(t, g, fill(2, 10000))
		closed(t, p)
	})
}

// TestPolicyChange: what is written after a change of policy goes by the new one.
func TestPolicyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := New(Config{}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		mustWrite(t, f, fill(1, 10000), 0)
		c.files[7].inode.Policy = policy(1, 2, 0, 0).ToWire()
		f.Reset(c.inode(7))
		mustWrite(t, f, fill(2, 10000), 10000)
		mustFlush(t, f)
		ks := map[uint32]int{}
		for _, b := range c.blocks {
			ks[b.K]++
		}
		if fmt.Sprint(ks) != "map[1:1 4:1]" {
			t.Errorf("blocks by k: %v", ks)
		}
		closed(t, p)
	})
}

func TestMergeAttr(t *testing.T) {
	for _, tc := range []struct{ name, a, b, want string }{
		{"later wins", "mask:1 mode:420", "mask:1 mode:384", "mask:1 mode:384"},
		{"now over time", "mask:32 mtime_ns:5", "mask:256", "mask:256"},
		{"time over now", "mask:256", "mask:32 mtime_ns:5", "mask:32 mtime_ns:5"},
		{"no size", "mask:8 size:5", "mask:2 uid:7", "mask:2 uid:7"},
		{"kill after mode", "mask:1 mode:3565", "kill_suid:true", "mask:1 mode:493 kill_suid:true"},
		{"mode after kill", "kill_suid:true", "mask:1 mode:2541", "mask:1 mode:2541"},
	} {
		got := mergeAttr(attrOf(t, tc.a), attrOf(t, tc.b))
		if want := attrOf(t, tc.want); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", tc.name, got, want)
		}
	}
}
