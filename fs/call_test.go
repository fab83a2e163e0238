package fs

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"quernfs/internal/wire"
)

// slowMeta answers each call when its time has come, or its context has ended.
type slowMeta struct {
	metaClient
	lookup, acquire time.Duration
	mu              sync.Mutex
	id              uint64
}

func (m *slowMeta) Floor() uint64 { return 0 }

func (m *slowMeta) Ask(ctx context.Context, q *wire.Query) (*wire.Answer, error) {
	wait, mode := m.lookup, wire.Mode_OPEN
	if q.GetAcquire() != nil {
		wait, mode = m.acquire, q.GetAcquire().Mode
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.id++
	a := &wire.Answer{Op: &wire.Answer_Inode{Inode: &wire.InodeAnswer{Inode: &wire.Inode{Attr: &wire.Attr{Ino: 7, Mode: typeReg | 0o644, Nlink: 1}}}}}
	a.Grants = []*wire.Grant{{Ino: 7, Mode: mode, Id: m.id}}
	return a, nil
}

// TestDeadlineOfACall: open(2) is a look-up and an open, which together take no
// longer than one request may.
func TestDeadlineOfACall(t *testing.T) {
	for _, c := range []struct {
		name            string
		lookup, acquire time.Duration
		pause           time.Duration // between the two requests
		ok              bool
		took            time.Duration
	}{
		{"quick", 0, 0, 0, true, 0},
		{"a quick look-up", 500 * time.Millisecond, 25 * time.Second, 0, true, 25500 * time.Millisecond},
		{"both slow, but in time", 20 * time.Second, 8 * time.Second, 0, true, 28 * time.Second},
		{"both slow", 25 * time.Second, 25 * time.Second, 0, false, opTimeout},
		{"a look-up that fails", time.Hour, 0, 0, false, flushTimeout},
		{"another call", 25 * time.Second, 25 * time.Second, time.Second, true, 51 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &slowMeta{lookup: c.lookup, acquire: c.acquire}
				fs := &FS{meta: m, inodes: map[uint64]*inode{}}
				fs.ctx, fs.cancel = context.WithCancel(t.Context())
				defer fs.cancel()
				fs.log = slog.New(slog.DiscardHandler)
				r := newRaw(fs, false)
				h := fuse.InHeader{NodeId: wire.RootIno, Caller: fuse.Caller{Pid: 77}}
				began := time.Now()
				st := r.Lookup(nil, &h, "f", &fuse.EntryOut{})
				if st.Ok() {
					time.Sleep(c.pause)
					in := fs.peek(7) // what the look-up got is recalled, so that the open asks again
					in.mu.Lock()
					in.held.mode, in.sure = wire.Mode_NONE, false
					in.mu.Unlock()
					h.NodeId = 7
					st = r.Open(nil, &fuse.OpenIn{InHeader: h}, &fuse.OpenOut{})
				}
				if took := time.Since(began); st.Ok() != c.ok || took != c.took {
					t.Errorf("%v after %v, want success: %v after %v", st, took, c.ok, c.took)
				}
			})
		})
	}
}
