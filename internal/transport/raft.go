package transport

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quernfs/internal/wire"
)

// RawConn is a Conn that can also open streams of bytes, as all of this package
// can.
type RawConn interface {
	Conn
	OpenRaw(ctx context.Context, m wire.Method) (net.Conn, error)
}

// RaftLayer carries the traffic of hashicorp/raft over the connections of a
// Pool: a raft.StreamLayer whose addresses are the host:port that meta servers
// advertise.
type RaftLayer struct {
	// Resolve finds the endpoint of a meta server by its address, so that the
	// short cuts within a host and a process are taken. nil, or a nil answer:
	// the address alone. Set it before the first Dial.
	Resolve func(addr string) *wire.Endpoint

	server    *Server
	pool      *Pool
	advertise raftAddr

	incoming chan net.Conn
	once     sync.Once
	closed   chan struct{}
}

var _ raft.StreamLayer = (*RaftLayer)(nil)

// NewRaftLayer serves raft's streams on server and dials them through pool;
// advertise is this server's own raft address.
func NewRaftLayer(server *Server, pool *Pool, advertise string) *RaftLayer {
	l := &RaftLayer{
		server:    server,
		pool:      pool,
		advertise: raftAddr(advertise),
		incoming:  make(chan net.Conn),
		closed:    make(chan struct{}),
	}
	server.cfg.Mux.handleRaw(wire.MethodRaft, []string{"meta"}, l.take)
	return l
}

// take hands an incoming stream to Accept.
func (l *RaftLayer) take(_ Peer, conn net.Conn) {
	select {
	case l.incoming <- conn:
	case <-l.closed:
		conn.Close()
	case <-l.server.streamCtx.Done():
		conn.Close()
	}
}

// Accept waits for the next incoming stream.
func (l *RaftLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Dial opens a stream to the meta server that advertises address.
func (l *RaftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var ep *wire.Endpoint
	if l.Resolve != nil {
		ep = l.Resolve(string(address))
	}
	if ep == nil {
		ep = &wire.Endpoint{Addr: string(address)}
	}
	c, err := l.pool.Get(ctx, ep)
	if err != nil {
		return nil, err
	}
	return c.(RawConn).OpenRaw(ctx, wire.MethodRaft)
}

// Addr is the advertised address.
func (l *RaftLayer) Addr() net.Addr { return l.advertise }

// Close ends Accept; streams that it gave out live on until their users close
// them or the server does.
func (l *RaftLayer) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

type raftAddr string

func (a raftAddr) Network() string { return "quern" }
func (a raftAddr) String() string  { return string(a) }
