package fs

import (
	"context"
	"sync"
	"time"
)

// bound is the context of one request: it ends after opTimeout, or with the FS.
// Most requests are answered from memory and never look at it, so the timer is
// only made for those who do.
func (fs *FS) bound() (context.Context, context.CancelFunc) {
	return fs.boundUntil(time.Now().Add(opTimeout))
}

func (fs *FS) boundUntil(until time.Time) (context.Context, context.CancelFunc) {
	b := &bounded{fs: fs, until: until}
	return b, b.end
}

type bounded struct {
	fs    *FS
	until time.Time

	mu     sync.Mutex
	real   context.Context // nil: nobody has looked yet
	cancel context.CancelFunc
	over   bool
}

var _ context.Context = (*bounded)(nil)

func (b *bounded) Deadline() (time.Time, bool) { return b.until, true }

func (b *bounded) made() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.real == nil {
		b.real, b.cancel = context.WithDeadline(b.fs.ctx, b.until)
		if b.over {
			b.cancel()
		}
	}
	return b.real
}

func (b *bounded) Done() <-chan struct{} { return b.made().Done() }
func (b *bounded) Err() error            { return b.made().Err() }
func (b *bounded) Value(any) any         { return nil }

func (b *bounded) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	if b.cancel != nil {
		b.cancel()
	}
}
