package fs

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"quernfs/internal/wire"
)

// slowFile acts when its time has come; a write that is given up before may have
// acted or not, as one that is under way at a metadata server.
type slowFile struct{ acts int }

func (f *slowFile) wait(ctx context.Context) error {
	select {
	case <-time.After(time.Second):
		return nil
	case <-ctx.Done():
		return wire.Errorf(wire.CodeOf(ctx.Err()), "write", "", "given up")
	}
}

func (f *slowFile) ReadAt(ctx context.Context, p []byte, _ int64) (int, error) {
	return copy(p, "running\n"), f.wait(ctx)
}

func (f *slowFile) Write(ctx context.Context, p []byte) (int, error) {
	f.acts++
	return len(p), f.wait(ctx)
}

func (f *slowFile) Close() error { return nil }

// TestInterruptedWrite: a signal does not end a write to a synthetic file, such as a
// job's ctl, half way. With EINTR its caller would write again, and act twice. A
// read, which may wait for ever, is ended.
func TestInterruptedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &FS{}
		fs.ctx, fs.cancel = context.WithCancel(t.Context())
		defer fs.cancel()
		r := newRaw(fs, false)
		f := &slowFile{}
		fh := r.add(&handle{ino: virtState, file: f})
		cancel := make(chan struct{})
		close(cancel) // the kernel has interrupted the request

		n, st := r.Write(cancel, &fuse.WriteIn{Fh: fh}, []byte("retry\n"))
		if !st.Ok() || n != 6 || f.acts != 1 {
			t.Errorf("an interrupted write: %d bytes, %v, %d acts", n, st, f.acts)
		}
		if _, st := r.Read(cancel, &fuse.ReadIn{Fh: fh, Size: 100}, make([]byte, 100)); st != fuse.EINTR {
			t.Errorf("an interrupted read: %v", st)
		}
	})
}
