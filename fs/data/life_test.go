package data

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quernfs/internal/wire"
)

// TestForget: a File that is dirty lives on until it is clean, the same for all
// who ask.
func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := New(Config{}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		mustWrite(t, f, fill(1, 10000), 0)
		p.Forget(7)
		if p.File(c.inode(7)) != f {
			t.Fatal("a dirty file was forgotten")
		}
		p.Forget(7)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if p.Lookup(7) != nil {
			t.Error("the file is still there when it is clean")
		}
		wantContent(t, p.File(c.inode(7)), fill(1, 10000))
		p.Forget(7)
		p.Forget(8)
		if n := p.Stats().Files; n != 0 {
			t.Errorf("%d files", n)
		}
		closed(t, p)
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := New(Config{}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		mustWrite(t, f, fill(1, 10000), 0)
		closed(t, p)
		closed(t, p)
		if !bytes.Equal(c.content(7), fill(1, 10000)) {
			t.Error("Close lost data")
		}
		if _, err := f.WriteAt(t.Context(), []byte("x"), 0); !errors.Is(err, wire.Shutdown) {
			t.Errorf("write after Close: %v", err)
		}
	})
}

// TestDeadlines: with a metadata service that does not answer each call ends
// within 30 seconds, and goes on when it is back.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		var dead atomic.Bool
		dead.Store(true)
		c.onCommit = func(ctx context.Context, _ *wire.Commit) (error, error) {
			if dead.Load() {
				<-ctx.Done()
				return wire.Unavailable, nil
			}
			return nil, nil
		}
		p := New(Config{DirtyLimit: 1 << 20}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		mustWrite(t, f, fill(1, 10000), 0)
		within := func(what string, call func() error) {
			t.Helper()
			start := time.Now()
			err := call()
			if took := time.Since(start); err == nil || took > 30*time.Second {
				t.Errorf("%s: %v after %v", what, err, took)
			}
			if code := wire.CodeOf(err); code != wire.Unavailable && code != wire.Timeout {
				t.Errorf("%s: code %v", what, code)
			}
		}
		within("flush", func() error { return f.Flush(t.Context()) })
		within("flush all", func() error { return p.Flush(t.Context()) })
		within("truncate", func() error {
			return f.Truncate(t.Context(), 0, func(context.Context) (*wire.Inode, error) { return c.setSize(7, 0), nil })
		})
		within("write", func() error {
			_, err := f.WriteAt(t.Context(), fill(1, 2<<20), 0)
			return err
		})
		dead.Store(false)
		mustFlush(t, f)
		if got := c.content(7); !bytes.Equal(got[:10000], fill(1, 2<<20)[:10000]) {
			t.Error("content differs")
		}
		closed(t, p)
	})
}

// TestCommittedBeforeFlush: the callback has run when Flush returns.
func TestCommittedBeforeFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		var mtime, size atomic.Int64
		p := New(Config{Committed: func(in *wire.Inode) {
			mtime.Store(in.Attr.MtimeNs)
			size.Store(int64(in.Attr.Size))
		}}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		for i := 1; i < 50; i++ {
			f.SetAttr(&wire.SetAttr{Mask: wire.SetMtime, MtimeNs: int64(i)})
			mustWrite(t, f, fill(i, 3000), int64(i)*3000)
			mustFlush(t, f)
			if size.Load() != int64(i)*3000+3000 || mtime.Load() != int64(i) {
				t.Fatalf("told of size %d and mtime %d", size.Load(), mtime.Load())
			}
			// Data without attributes keeps the last deferred mtime.
			mustWrite(t, f, fill(i, 100), 0)
			mustFlush(t, f)
			if mtime.Load() != int64(i) {
				t.Fatalf("mtime is %d", mtime.Load())
			}
		}
		f.SetAttr(&wire.SetAttr{Mask: wire.SetMode, Mode: 0o600})
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if f.Dirty() || c.inode(7).Attr.Mode != 0o600 {
			t.Error("attributes alone were not committed in time")
		}
		closed(t, p)
	})
}
