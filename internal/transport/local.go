package transport

import (
	"context"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// Local knows the servers of this process by name, so that its pools call them
// as functions.
type Local struct {
	mu      sync.RWMutex
	servers map[string]*Server
}

// NewLocal makes an empty registry.
func NewLocal() *Local { return &Local{servers: map[string]*Server{}} }

func (l *Local) add(name string, s *Server) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, taken := l.servers[name]; taken {
		return wire.Errorf(wire.Exists, "serve", name, "a server of this name runs in this process already")
	}
	l.servers[name] = s
	return nil
}

func (l *Local) remove(name string, s *Server) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.servers[name] == s {
		delete(l.servers, name)
	}
}

// find returns the server that ep names, unless ep says that it lives elsewhere
// (another process may serve the same name).
func (l *Local) find(ep *wire.Endpoint) *Server {
	if l == nil || ep.GetServer() == "" {
		return nil
	}
	l.mu.RLock()
	s := l.servers[ep.GetServer()]
	l.mu.RUnlock()
	if s == nil {
		return nil
	}
	own := s.Endpoint()
	if ep.GetHost() != "" && ep.GetHost() != own.GetHost() {
		return nil
	}
	if ep.GetUnix() != "" && own.GetUnix() != "" && ep.GetUnix() != own.GetUnix() {
		return nil
	}
	return s
}

// localConn calls a server of the same process. It holds nothing but the right
// to call.
type localConn struct {
	server *Server
	peer   Peer   // what the server sees
	name   string // the server's

	once   sync.Once
	closed chan struct{}
}

func newLocalConn(s *Server, role, name string) *localConn {
	return &localConn{
		server: s,
		peer:   Peer{Role: role, Name: name, Kind: InProcess},
		name:   s.cfg.Name,
		closed: make(chan struct{}),
	}
}

func (c *localConn) Kind() Kind { return InProcess }

// Done is closed when the server begins to close.
func (c *localConn) Done() <-chan struct{} { return c.server.streamCtx.Done() }

func (c *localConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *localConn) Call(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, error) {
	var resp proto.Message
	err := c.do(ctx, &Request{Method: m, Msg: req}, func(r *Reply) error {
		resp = r.Msg
		return nil
	})
	return resp, err
}

func (c *localConn) CallBulk(ctx context.Context, m wire.Method, req proto.Message, payload [][]byte, into []byte) (proto.Message, int, error) {
	r := &Request{Method: m, Msg: req}
	size := 0
	for _, p := range payload {
		size += len(p)
	}
	if size > MaxPayload {
		return nil, 0, payloadTooLong(m, c.name, size)
	}
	switch len(payload) {
	case 0:
	case 1:
		r.Payload = payload[0]
	default:
		buf := getBuffer(size)
		defer putBuffer(buf)
		at := 0
		for _, p := range payload {
			at += copy((*buf)[at:], p)
		}
		r.Payload = (*buf)[:size]
	}
	var resp proto.Message
	n := 0
	err := c.do(ctx, r, func(r *Reply) error {
		for _, p := range r.Payload {
			if n+len(p) > len(into) {
				return replyTooLong(m, c.name, r.size(), len(into))
			}
			n += copy(into[n:], p)
		}
		resp = r.Msg
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return resp, n, nil
}

func (c *localConn) CallFile(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, *os.File, error) {
	var resp proto.Message
	var file *os.File
	err := c.do(ctx, &Request{Method: m, Msg: req}, func(r *Reply) error {
		if r.File == nil {
			return noFile(m, c.name)
		}
		fd, err := duplicate(r.File)
		if err != nil {
			return wire.Errorf(wire.Internal, m.String(), c.name, "duplicating the file: %v", err)
		}
		file, resp = os.NewFile(uintptr(fd), r.File.Name()), r.Msg
		return nil
	})
	return resp, file, err
}

// do runs the handler on the caller's goroutine; take sees the reply before it
// is released.
func (c *localConn) do(ctx context.Context, req *Request, take func(*Reply) error) error {
	m := req.Method
	if err := ctx.Err(); err != nil {
		return waitError(err, m, c.name)
	}
	select {
	case <-c.closed:
		return closedError(m, c.name)
	default:
	}
	var cancel context.CancelFunc
	if _, ok := ctx.Deadline(); ok {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
	}
	defer cancel()
	id, _, ok := c.server.begin(cancel)
	if !ok {
		return lostError(m, c.name, errStopped)
	}
	defer c.server.end(id)

	req.Peer = c.peer
	reply, err := c.server.answer(ctx, req)
	switch {
	case err == nil:
	case c.server.ctx.Err() != nil:
		return lostError(m, c.name, errStopped)
	case ctx.Err() != nil: // what the handler makes of that says less
		return waitError(ctx.Err(), m, c.name)
	default:
		return carried(err)
	}
	defer reply.release()
	return take(&reply)
}

// duplicate makes a new descriptor of f.
func duplicate(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, dupErr := -1, error(nil)
	err = raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err != nil {
		return -1, err
	}
	return fd, dupErr
}

func (c *localConn) Stream(ctx context.Context, m wire.Method) (Stream, error) {
	select {
	case <-c.closed:
		return nil, closedError(m, c.name)
	default:
	}
	if err := ctx.Err(); err != nil {
		return nil, waitError(err, m, c.name)
	}
	r, err := c.server.cfg.Mux.route(m, c.peer)
	if err != nil {
		return nil, err
	}
	if r.stream == nil {
		return nil, wire.Errorf(wire.Invalid, m.String(), c.name, "it is a call, not a stream")
	}
	mine, theirs := newLocalStreams(m, c.name, c.peer.Name)
	pair := mine.pair
	stop := context.AfterFunc(ctx, func() { pair.end(waitError(ctx.Err(), m, c.name)) })
	started := c.server.goStream(func(sctx context.Context) {
		defer stop()
		hctx, cancel := context.WithCancel(sctx)
		defer cancel()
		defer context.AfterFunc(sctx, func() { pair.end(lostError(m, c.name, errStopped)) })()
		c.server.wg.Go(func() { // ends with the stream, which this function ends at the latest
			<-pair.closed
			cancel()
		})
		if err := c.server.runStream(hctx, m, r, c.peer, theirs); err != nil {
			pair.end(carried(err))
		}
		pair.end(endError(m, c.name))
	})
	if !started {
		stop()
		return nil, lostError(m, c.name, errStopped)
	}
	return mine, nil
}

// OpenRaw joins the caller with the server's raw handler.
func (c *localConn) OpenRaw(ctx context.Context, m wire.Method, meant *wire.Opening) (net.Conn, error) {
	r, err := c.server.cfg.Mux.route(m, c.peer)
	if err != nil {
		return nil, err
	}
	if r.raw == nil {
		return nil, wire.Errorf(wire.Invalid, m.String(), c.name, "it is not a raw stream")
	}
	if err := r.admit(meant); err != nil {
		return nil, carried(err)
	}
	mine, theirs := net.Pipe()
	if !c.server.goStream(func(sctx context.Context) {
		context.AfterFunc(sctx, func() { theirs.Close() })
		r.raw(c.peer, theirs)
	}) {
		mine.Close()
		theirs.Close()
		return nil, lostError(m, c.name, errStopped)
	}
	return mine, nil
}

// streamBuffer is how many messages a stream holds for a receiver that is busy
// before its sender waits.
const streamBuffer = 64

// localPair is what the two ends of an in-process stream share.
type localPair struct {
	once   sync.Once
	closed chan struct{}
	err    error // set before closed is closed
}

// end closes both ends; later calls fail with err.
func (p *localPair) end(err error) {
	p.once.Do(func() {
		p.err = err
		close(p.closed)
	})
}

// localStream is one end of an in-process stream.
type localStream struct {
	method wire.Method
	peer   string // the other end
	in     chan proto.Message
	out    chan proto.Message
	pair   *localPair
}

func newLocalStreams(m wire.Method, server, client string) (mine, theirs *localStream) {
	up, down := make(chan proto.Message, streamBuffer), make(chan proto.Message, streamBuffer)
	pair := &localPair{closed: make(chan struct{})}
	mine = &localStream{method: m, peer: server, in: down, out: up, pair: pair}
	theirs = &localStream{method: m, peer: client, in: up, out: down, pair: pair}
	return mine, theirs
}

func (s *localStream) Close() error {
	s.pair.end(endError(s.method, s.peer))
	return nil
}

func (s *localStream) Send(m proto.Message) error {
	select {
	case <-s.pair.closed:
		return s.pair.err
	default:
	}
	select {
	case s.out <- m:
		return nil
	default:
	}
	stalled := time.NewTimer(stallLimit)
	defer stalled.Stop()
	select {
	case s.out <- m:
		return nil
	case <-s.pair.closed:
	case <-stalled.C:
		s.pair.end(wire.Errorf(wire.Unavailable, s.method.String(), s.peer, "the receiver takes nothing"))
	}
	return s.pair.err
}

func (s *localStream) Recv() (proto.Message, error) {
	return receive(s.in, s.pair.closed, &s.pair.err)
}

// receive takes the next message; those that were sent before the end are still
// to be had after it. err is set before closed is closed.
func receive(in <-chan proto.Message, closed <-chan struct{}, err *error) (proto.Message, error) {
	select {
	case m := <-in:
		return m, nil
	default:
	}
	select {
	case m := <-in:
		return m, nil
	case <-closed:
	}
	select {
	case m := <-in:
		return m, nil
	default:
		return nil, *err
	}
}
