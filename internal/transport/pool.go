package transport

import (
	"context"
	"log/slog"
	"sync"

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
}

// Pool holds one connection for each server that was asked for. All methods
// may be called concurrently.
type Pool struct {
	cfg PoolConfig
	log *slog.Logger

	mu     sync.Mutex // guards what follows
	closed bool
	local  map[*Server]*localConn
}

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
	return &Pool{cfg: cfg, log: cfg.Log, local: map[*Server]*localConn{}}
}

// Get returns a connection to the server at ep: in process if it runs here,
// over its Unix socket if it runs on this host, else over QUIC. It is shared:
// leave closing it to the pool.
func (p *Pool) Get(ctx context.Context, ep *wire.Endpoint) (Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, wire.Errorf(wire.Unavailable, "connect", endpointName(ep), "the pool is closed")
	}
	if s := p.cfg.Local.find(ep); s != nil {
		c := p.local[s]
		if c == nil {
			c = newLocalConn(s, p.cfg.Role, p.cfg.Name)
			p.local[s] = c
		}
		return c, nil
	}
	return nil, wire.Errorf(wire.Unavailable, "connect", endpointName(ep), "no way to reach it")
}

// Close closes all connections of the pool.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.local {
		c.Close()
	}
	clear(p.local)
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
