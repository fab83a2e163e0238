package transport

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quernfs/internal/wire"
)

// RawConn is a Conn that can also open streams of bytes, as all of this package
// can. meant says for whom a stream is, see wire.Opening; nil: for whoever serves
// the method.
type RawConn interface {
	Conn
	OpenRaw(ctx context.Context, m wire.Method, meant *wire.Opening) (net.Conn, error)
}

// RaftLayer carries the traffic of hashicorp/raft over the connections of a
// Pool: a raft.StreamLayer. Where it dials, an address says which member is
// meant and where that is (RaftTarget): who answers there may be another one by
// now, and must not be taken for it.
type RaftLayer struct {
	// Cluster, if set, says which cluster this member belongs to, and Admit
	// refuses a stream that is meant for another member, or comes from another
	// cluster. Set them before the first Dial.
	Cluster func() []byte
	Admit   func(target string, cluster []byte) error
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
	server.cfg.Mux.handleRaw(wire.MethodRaft, []string{"meta"}, l.admit, l.take)
	return l
}

// RaftTarget is the address to dial for the member id at addr. Of addr, what
// follows a slash tells incarnations of the member apart, and is not dialed.
func RaftTarget(id, addr string) string { return id + "|" + addr }

func cutTarget(target string) (id, addr string) {
	if i := strings.LastIndexByte(target, '|'); i >= 0 {
		id, target = target[:i], target[i+1:]
	}
	addr, _, _ = strings.Cut(target, "/")
	return id, addr
}

func (l *RaftLayer) admit(o *wire.Opening) error {
	if l.Admit == nil {
		return nil
	}
	return l.Admit(o.GetTarget(), o.GetCluster())
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

// Dial opens a stream to a meta server, see RaftTarget.
func (l *RaftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	id, addr := cutTarget(string(address))
	meant := &wire.Opening{Target: id}
	if l.Cluster != nil {
		meant.Cluster = l.Cluster()
	}
	var ep *wire.Endpoint
	if l.Resolve != nil {
		ep = l.Resolve(addr)
	}
	if ep == nil {
		ep = &wire.Endpoint{Addr: addr}
	}
	c, err := l.pool.Get(ctx, ep)
	if err != nil {
		return nil, err
	}
	return c.(RawConn).OpenRaw(ctx, wire.MethodRaft, meant)
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
