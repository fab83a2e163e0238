package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

const (
	backOffLeast = 10 * time.Millisecond
	backOffMost  = 150 * time.Millisecond
	dialTimeout  = 3 * time.Second
	tryTimeout   = 12 * time.Second // of one attempt that can be repeated
	longWait     = time.Hour        // of one attempt to wait for a lock
)

// finder knows which server led last, and which to try next.
type finder struct {
	pool Dialer

	mu      sync.Mutex
	servers []*wire.Endpoint
	at      int // index of the server to ask
	moves   int // counts changes of at
}

func newFinder(servers []*wire.Endpoint, pool Dialer) *finder {
	return &finder{pool: pool, servers: append([]*wire.Endpoint(nil), servers...)}
}

func (f *finder) target() (*wire.Endpoint, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.servers[f.at], f.moves
}

// failed goes on to another server, to the hinted one if there is a hint,
// unless another call has moved on since the target was asked for.
func (f *finder) failed(moves int, hint string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if moves != f.moves {
		return
	}
	f.moves++
	if hint != "" {
		for i, s := range f.servers {
			if s.Addr == hint || s.Server == hint || s.Unix == hint {
				f.at = i
				return
			}
		}
		f.servers = append(f.servers, &wire.Endpoint{Addr: hint})
		f.at = len(f.servers) - 1
		return
	}
	f.at = (f.at + 1) % len(f.servers)
}

// move goes on to another server.
func (f *finder) move() {
	_, moves := f.target()
	f.failed(moves, "")
}

// dial connects to the server that is believed to lead.
func (f *finder) dial(ctx context.Context) (transport.Conn, int, error) {
	e, moves := f.target()
	ctx, done := context.WithTimeout(ctx, dialTimeout)
	defer done()
	conn, err := f.pool.Get(ctx, e)
	return conn, moves, err
}

// retryable: another attempt, perhaps elsewhere, may succeed.
func retryable(err error) bool {
	switch wire.CodeOf(err) {
	case wire.Unavailable, wire.Timeout, wire.NotLeader, wire.Shutdown:
		return true
	}
	return false
}

// hintOf is the leader that a refusal names.
func hintOf(err error) string {
	var e *wire.Error
	if errors.As(err, &e) {
		return e.Leader
	}
	return ""
}

// backOff waits a little longer each time, with jitter.
type backOff struct{ d time.Duration }

func (b *backOff) wait(ctx context.Context) {
	b.d = min(max(2*b.d, backOffLeast), backOffMost)
	t := time.NewTimer(b.d/2 + rand.N(b.d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// call makes one call at the leader, repeating it until ctx ends. With bounded,
// one attempt takes at most tryTimeout. epoch is that of the push stream when
// the successful attempt began.
func (c *Client) call(ctx context.Context, m wire.Method, req proto.Message, bounded bool) (resp proto.Message, epoch uint64, err error) {
	var pause backOff
	for attempt := 0; ; attempt++ {
		c.mu.Lock()
		epoch = c.epoch
		c.mu.Unlock()
		resp, moves, err := c.try(ctx, m, req, bounded)
		if err == nil || !retryable(err) {
			return resp, epoch, err
		}
		if ctx.Err() != nil {
			return nil, epoch, ctxError(ctx, m.String(), "no metadata server answered in time; the last one said: "+err.Error())
		}
		hint := hintOf(err)
		c.finder.failed(moves, hint)
		if attempt > 0 || hint == "" {
			pause.wait(ctx)
		}
		if ctx.Err() != nil {
			return nil, epoch, ctxError(ctx, m.String(), "no metadata server answered in time; the last one said: "+err.Error())
		}
	}
}

func (c *Client) try(ctx context.Context, m wire.Method, req proto.Message, bounded bool) (proto.Message, int, error) {
	conn, moves, err := c.finder.dial(ctx)
	if err != nil {
		return nil, moves, err
	}
	attempt, done := c.attempt(ctx, bounded)
	defer done()
	resp, err := conn.Call(attempt, m, req)
	if err != nil && ctx.Err() == nil && attempt.Err() != nil {
		err = wire.Errorf(wire.Timeout, m.String(), "", "no answer from this server")
	}
	return resp, moves, err
}

// attempt bounds one attempt: by time, or, for a wait that may be long, by the
// life of the push stream, since a leader that has stopped answering there
// will not answer here.
func (c *Client) attempt(ctx context.Context, bounded bool) (context.Context, context.CancelFunc) {
	c.mu.Lock()
	p := c.push
	c.mu.Unlock()
	if bounded || p == nil {
		return context.WithTimeout(ctx, tryTimeout)
	}
	ctx, done := context.WithTimeout(ctx, longWait)
	stop := context.AfterFunc(p.ctx, done)
	return ctx, func() { stop(); done() }
}
