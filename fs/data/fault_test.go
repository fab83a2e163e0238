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

// TestRetry: a failing upload reports its error to Flush when time is up, and is
// tried until it succeeds.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		var down atomic.Bool
		down.Store(true)
		tries := 0
		c.onWrite = func(context.Context, []byte) error {
			if down.Load() {
				tries++
				return wire.Errorf(wire.TooFew, "write block", "", "two of six servers are up")
			}
			return nil
		}
		p := New(Config{}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		mustWrite(t, f, fill(1, 10000), 0)
		start := time.Now()
		err := f.Flush(t.Context())
		if !errors.Is(err, wire.TooFew) || time.Since(start) > 30*time.Second {
			t.Errorf("flush: %v after %v", err, time.Since(start))
		}
		if tries < 10 || tries > 30 {
			t.Errorf("%d tries in %v", tries, time.Since(start))
		}
		if !f.Dirty() {
			t.Error("the data is gone")
		}
		wantContent(t, f, fill(1, 10000))
		down.Store(false)
		mustFlush(t, f)
		if !bytes.Equal(c.content(7), fill(1, 10000)) {
			t.Error("content differs")
		}
		closed(t, p)
	})
}

// TestNoSpace: errors come at once, nothing is lost, and writing goes on when
// there is space again or the data concerned is deleted.
func TestNoSpace(t *testing.T) {
	for _, where := range []string{"allocate", "write", "commit"} {
		for _, way := range []string{"space", "delete"} {
			t.Run(where+"/"+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCluster(t)
					var full atomic.Bool
					full.Store(true)
					err := func(at string) error {
						if where == at && full.Load() {
							return wire.NoSpace
						}
						return nil
					}
					c.onAllocate = func() error { return err("allocate") }
					c.onWrite = func(context.Context, []byte) error { return err("write") }
					c.onCommit = func(context.Context, *wire.Commit) (error, error) { return err("commit"), nil }
					p := New(Config{}, c, c)
					f := p.File(c.create(7, policy(4, 2, 0, 0)))
					g := p.File(c.create(8, policy(4, 2, 0, 0)))
					mustWrite(t, f, fill(1, 10000), 0)
					start := time.Now()
					if where != "commit" {
						if err := f.Flush(t.Context()); !errors.Is(err, wire.NoSpace) || time.Since(start) > time.Second {
							t.Errorf("flush: %v after %v", err, time.Since(start))
						}
					} else {
						go f.Flush(t.Context())
						synctest.Wait()
					}
					if _, err := g.WriteAt(t.Context(), []byte("x"), 0); !errors.Is(err, wire.NoSpace) || time.Since(start) > time.Second {
						t.Errorf("write: %v", err)
					}
					wantContent(t, f, fill(1, 10000))
					if err := f.Refused(); !errors.Is(err, wire.NoSpace) || g.Refused() != nil {
						t.Errorf("refused: %v, and %v without data", err, g.Refused())
					}
					if way == "space" {
						full.Store(false)
						time.Sleep(3 * time.Second)
						synctest.Wait()
						if !bytes.Equal(c.content(7), fill(1, 10000)) {
							t.Error("the data was not stored when there was space again")
						}
					} else {
						f.Discard()
					}
					mustWrite(t, g, []byte("x"), 0)
					if f.Refused() != nil {
						t.Error("still refused")
					}
					full.Store(false)
					mustFlush(t, g)
					closed(t, p)
				})
			})
		}
	}
}

// TestGone: a file that was removed from meta does not hold up the others, and
// says so.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := New(Config{}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		g := p.File(c.create(8, policy(4, 2, 0, 0)))
		mustWrite(t, f, fill(1, 10000), 0)
		mustWrite(t, g, fill(2, 10000), 0)
		c.remove(7)
		mustFlush(t, g)
		if err := f.Flush(t.Context()); !errors.Is(err, wire.Stale) {
			t.Errorf("flush of a file that is gone: %v", err)
		}
		closed(t, p)
	})
}

// TestRefused: one update that meta refuses does not hold up the others, and its
// block is stored anew.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		bad := map[uint64]bool{}
		c.onCommit = func(_ context.Context, m *wire.Commit) (error, error) {
			for _, u := range m.Files {
				if u.Ino == 7 && len(bad) < 2 {
					for _, e := range u.Extents {
						bad[e.Block] = true
					}
					if len(m.Files) == 1 || len(bad) < 2 {
						return wire.Internal, nil
					}
				}
			}
			return nil, nil
		}
		p := New(Config{}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		g := p.File(c.create(8, policy(4, 2, 0, 0)))
		mustWrite(t, f, fill(1, 10000), 0)
		mustWrite(t, g, fill(2, 10000), 0)
		mustFlush(t, g)
		mustFlush(t, f)
		if !bytes.Equal(c.content(7), fill(1, 10000)) || !bytes.Equal(c.content(8), fill(2, 10000)) {
			t.Error("content differs")
		}
		closed(t, p)
	})
}

// TestLostAnswer: a commit that was carried out without an answer is completed,
// and nothing is committed twice or out of order.
func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		n := 0
		c.onCommit = func(context.Context, *wire.Commit) (error, error) {
			if n++; n <= 3 {
				return nil, wire.Timeout
			}
			return nil, nil
		}
		var told atomic.Int64
		p := New(Config{Committed: func(in *wire.Inode) { told.Store(int64(in.Attr.Size)) }}, c, c)
		f := p.File(c.create(7, policy(4, 2, 0, 0)))
		mustWrite(t, f, fill(1, 10000), 0)
		mustFlush(t, f)
		if told.Load() != 10000 {
			t.Errorf("told of size %d", told.Load())
		}
		wantContent(t, f, fill(1, 10000))
		closed(t, p)
	})
}

// TestAbandon: the session has ended; each file that lost data says so once.
func TestAbandon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.onCommit = func(ctx context.Context, _ *wire.Commit) (error, error) {
			<-ctx.Done()
			return wire.Unavailable, nil
		}
		p := New(Config{}, c, c)
		var files []*File
		for i := range 3 {
			files = append(files, p.File(c.create(uint64(10+i), policy(4, 2, 0, 0))))
		}
		mustWrite(t, files[0], fill(1, 10000), 0)
		mustWrite(t, files[1], fill(1, 100), 0)
		go files[0].Flush(t.Context())
		synctest.Wait() // a commit is in flight
		if n := p.Abandon(); n != 2 {
			t.Errorf("%d files lost data", n)
		}
		c.onCommit = nil
		synctest.Wait()
		for i, f := range files {
			err := f.Flush(t.Context())
			if i == 0 {
				continue // the Flush above may have taken it
			}
			if i == 1 != errors.Is(err, wire.NoSession) {
				t.Errorf("file %d: %v", i, err)
			}
			mustFlush(t, f)
			f.Reset(c.inode(f.Ino()))
			wantContent(t, f, nil)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, commits := c.counts(); commits != 0 {
			t.Errorf("%d commits of abandoned data", commits)
		}
		closed(t, p)
	})
}

// TestOneDeadline: the steps of a call share its time.
func TestOneDeadline(t *testing.T) {
	const limit = 28 * time.Second
	for name, call := range map[string]func(f *File) error{
		"write": func(f *File) error {
			_, err := f.WriteAt(context.Background(), fill(2, 8<<20), 0)
			return err
		},
		"mutate": func(f *File) error {
			return f.Mutate(context.Background(), func(ctx context.Context) (*wire.Inode, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		},
		"truncate": func(f *File) error {
			go f.Truncate(context.Background(), 5, func(context.Context) (*wire.Inode, error) {
				time.Sleep(20 * time.Second)
				return nil, wire.Unavailable
			})
			synctest.Wait()
			return f.Truncate(context.Background(), 5, func(ctx context.Context) (*wire.Inode, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				var quick atomic.Bool
				c.onWrite = func(context.Context, []byte) error {
					if !quick.Load() {
						time.Sleep(20 * time.Second)
					}
					return nil
				}
				p := New(Config{DirtyLimit: 256 << 10, Uploads: 1, FlushTimeout: limit}, c, c)
				f := p.File(c.create(7, policy(2, 1, 64<<10, 0)))
				mustWrite(t, f, fill(1, 10000), 0)
				began := time.Now()
				err := call(f)
				if took := time.Since(began); err == nil || took != limit {
					t.Errorf("%v after %v, want an error after %v", err, took, limit)
				}
				quick.Store(true)
				mustFlush(t, f)
				closed(t, p)
			})
		})
	}
}
