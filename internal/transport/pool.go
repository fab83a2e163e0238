package transport

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// PoolConfig says who dials, and what it may reach.
type PoolConfig struct {
	Identity *Identity // needed for QUIC
	Local    *Local    // nil: nothing is reached in process
	// Role and Name are declared to servers in process and on Unix sockets; by
	// default those of Identity.
	Role string
	Name string
	// Server, if set, lends its UDP socket to the pool's QUIC connections when
	// it listens on all addresses.
	Server *Server
	Log    *slog.Logger
	Force  Kind // only this kind of connection, for tests; 0: the best one
	// Dial, if set, makes all connections, RawConns for a RaftLayer: a simulation
	// has a network of its own.
	Dial func(ctx context.Context, ep *wire.Endpoint) (Conn, error)
}

// Pool holds one connection for each server that was asked for. All methods
// may be called concurrently.
type Pool struct {
	cfg    PoolConfig
	log    *slog.Logger
	dialer dialer

	ctx    context.Context // of dialing: until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // dialing goroutines

	mu     sync.Mutex // guards what follows
	closed bool
	slots  map[slotKey]*slot
}

// slotKey is an endpoint as a map's key.
type slotKey struct{ server, host, unix, addr string }

// slot is what the pool knows of one endpoint. The pool's mu guards it.
type slot struct {
	conn Conn
	// dialing is closed when the attempt under way has ended; nil: there is none.
	dialing chan struct{}
	// After a failure err is the answer until retry, so that a server that is
	// down costs its callers little; wait grows with each failure in a row.
	err   error
	retry time.Time
	wait  time.Duration
}

// How long a failure to connect is remembered, and how long a caller waits for
// an attempt that follows a failure: one that succeeds does so within
// milliseconds, one that fails takes dialLimit.
const (
	minRetry  = 100 * time.Millisecond
	maxRetry  = 500 * time.Millisecond
	retryWait = 200 * time.Millisecond
)

// NewPool makes a pool; it dials when asked.
func NewPool(cfg PoolConfig) *Pool {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Identity != nil {
		if cfg.Role == "" {
			cfg.Role = cfg.Identity.Role
		}
		if cfg.Name == "" {
			cfg.Name = cfg.Identity.Name
		}
	}
	p := &Pool{cfg: cfg, log: cfg.Log, slots: map[slotKey]*slot{}}
	p.dialer.cfg = cfg
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Get returns a connection to the server at ep: in process if it runs here,
// over its Unix socket if it runs on this host, else over QUIC. It is shared:
// leave closing it to the pool. A connection whose Done is closed is replaced by
// the next Get. For a server that could not be reached a moment ago Get fails at
// once.
func (p *Pool) Get(ctx context.Context, ep *wire.Endpoint) (Conn, error) {
	key := slotKey{ep.GetServer(), ep.GetHost(), ep.GetUnix(), ep.GetAddr()}
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, wire.Errorf(wire.Unavailable, "connect", endpointName(ep), "the pool is closed")
		}
		s := p.slots[key]
		if s == nil {
			s = &slot{}
			p.slots[key] = s
		}
		if s.conn != nil {
			select {
			case <-s.conn.Done():
				s.conn = nil
			default:
				c := s.conn
				p.mu.Unlock()
				return c, nil
			}
		}
		if s.dialing == nil {
			if s.err != nil && time.Now().Before(s.retry) {
				err := s.err
				p.mu.Unlock()
				return nil, err
			}
			s.dialing = make(chan struct{})
			p.wg.Go(func() { p.dial(proto.CloneOf(ep), s) })
		}
		dialing, last := s.dialing, s.err
		p.mu.Unlock()

		// The attempt goes on if this caller gives up: others may wait for it.
		if err := p.await(ctx, dialing, ep, last); err != nil {
			return nil, err
		}
	}
}

// await waits for an attempt to end: after a failure (last) not for long.
func (p *Pool) await(ctx context.Context, dialing <-chan struct{}, ep *wire.Endpoint, last error) error {
	var enough <-chan time.Time
	if last != nil {
		t := time.NewTimer(retryWait)
		defer t.Stop()
		enough = t.C
	}
	select {
	case <-dialing:
		return nil
	case <-enough:
		return last
	case <-ctx.Done():
		return waitError(ctx.Err(), 0, endpointName(ep))
	}
}

// dial makes one attempt to fill s.
func (p *Pool) dial(ep *wire.Endpoint, s *slot) {
	ctx, cancel := context.WithTimeout(p.ctx, dialLimit)
	defer cancel()
	c, err := p.dialer.dial(ctx, ep)

	p.mu.Lock()
	close(s.dialing)
	s.dialing = nil
	closed := p.closed
	switch {
	case closed:
	case err != nil:
		s.wait = min(max(2*s.wait, minRetry), maxRetry)
		s.err, s.retry = err, time.Now().Add(s.wait)
	default:
		s.conn, s.err, s.wait = c, nil, 0
	}
	p.mu.Unlock()
	if closed && c != nil {
		c.Close()
	}
}

// Close closes all connections of the pool.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	slots := p.slots
	p.slots = nil
	p.mu.Unlock()

	p.cancel()
	p.wg.Wait()
	for _, s := range slots {
		if s.conn != nil {
			s.conn.Close()
		}
	}
	p.dialer.close()
	return nil
}

// endpointName says which server ep is, for messages.
func endpointName(ep *wire.Endpoint) string {
	switch {
	case ep.GetServer() != "" && ep.GetAddr() != "":
		return ep.GetServer() + " at " + ep.GetAddr()
	case ep.GetServer() != "":
		return ep.GetServer()
	case ep.GetAddr() != "":
		return ep.GetAddr()
	}
	return ep.GetUnix()
}
