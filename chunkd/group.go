package chunkd

import (
	"context"
	"sync"
)

// group shares one fdatasync among all who wait for it: whoever comes while one
// runs waits for the next, which one of them carries out.
type group struct {
	sync func() error

	mu      sync.Mutex // guards what follows
	running bool
	next    *round
	failed  error // of the first sync that failed: none is tried after it
	rounds  uint64
}

// round is one fdatasync to come: start is closed when the one before it has
// ended, done when it has.
type round struct {
	start, done chan struct{}
	err         error
}

// wait returns when everything that was written before the call is durable. It
// may return early with ctx's error unless the caller has become the one who
// syncs for the others.
func (g *group) wait(ctx context.Context) error {
	g.mu.Lock()
	if g.failed != nil {
		g.mu.Unlock()
		return g.failed
	}
	if r := g.next; r != nil {
		g.mu.Unlock()
		select {
		case <-r.done:
			return r.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r := &round{start: make(chan struct{}), done: make(chan struct{})}
	if g.running {
		g.next = r
		g.mu.Unlock()
		<-r.start
	} else {
		g.running = true
		g.mu.Unlock()
	}
	// From here on g.next is not r: who comes now waits for the round after.
	err := g.failure()
	if err == nil {
		err = g.sync()
	}
	r.err = err
	close(r.done)

	g.mu.Lock()
	defer g.mu.Unlock()
	g.rounds++
	if err != nil && g.failed == nil {
		g.failed = err
	}
	if n := g.next; n != nil {
		g.next = nil
		close(n.start)
	} else {
		g.running = false
	}
	return err
}

// failure is the error of the sync that failed, if one did.
func (g *group) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed
}
