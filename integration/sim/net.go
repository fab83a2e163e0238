package sim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// idleLimit is how long a connection lives whose other end is silent, as with
// QUIC.
const idleLimit = 10 * time.Second

// network joins the processes. Its choices come from its seed.
type network struct {
	mu      sync.Mutex
	rnd     *rand.Rand
	hosts   map[string]*process // which process runs on a host now
	cut     map[pair]bool
	slow    map[string]time.Duration // more delay from and to a host
	loss    float64                  // of messages: sent again, later
	breaks  float64                  // of messages: their connection ends
	changed chan struct{}            // closed and replaced when cut changes
	sent    int
}

// pair is a direction between two hosts.
type pair struct{ from, to string }

func newNetwork(seed uint64) *network {
	return &network{
		rnd: stream(seed, "network"), hosts: map[string]*process{}, cut: map[pair]bool{},
		slow: map[string]time.Duration{}, changed: make(chan struct{}),
	}
}

// stream is a source of choices of its own for each part, so that what one part
// draws does not move another's.
func stream(seed uint64, part string) *rand.Rand {
	h := uint64(14695981039346656037)
	for _, c := range []byte(part) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return rand.New(rand.NewPCG(seed, h))
}

// process is one process of a host, from its start to its end.
type process struct {
	net    *network
	role   string
	host   string
	local  *transport.Local
	mux    *transport.Mux
	server *transport.Server

	mu    sync.Mutex
	dead  chan struct{} // closed when it is killed: nothing leaves it, nothing reaches it
	quiet bool          // its host is gone: nobody is told
	conns map[*conn]bool
}

// start makes a process of a host, in place of the last one.
func (n *network) start(role, host string) (*process, error) {
	p := &process{net: n, role: role, host: host, local: transport.NewLocal(), mux: transport.NewMux(), dead: make(chan struct{}), conns: map[*conn]bool{}}
	var err error
	p.server, err = transport.NewServer(transport.ServerConfig{Mux: p.mux, Local: p.local, Name: host})
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.hosts[host] = p
	n.mu.Unlock()
	return p, nil
}

// endpoint names a host's process.
func endpoint(host string) *wire.Endpoint { return &wire.Endpoint{Server: host, Addr: host} }

// pool connects a process to the others.
func (p *process) pool() *transport.Pool {
	return transport.NewPool(transport.PoolConfig{Role: p.role, Name: p.host, Dial: p.dial})
}

// kill cuts a process off at this moment. quiet: its peers find out by
// themselves.
func (p *process) kill(quiet bool) {
	p.mu.Lock()
	p.quiet = quiet
	close(p.dead)
	var conns []*conn
	for c := range p.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	p.net.mu.Lock()
	if p.net.hosts[p.host] == p {
		delete(p.net.hosts, p.host)
	}
	p.net.mu.Unlock()
	for _, c := range conns {
		c.lost(p)
	}
}

func (p *process) killed() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// delay is how long a message takes.
func (n *network) delay(from, to string) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent++
	d := 100*time.Microsecond + time.Duration(n.rnd.Int64N(int64(900*time.Microsecond)))
	if n.rnd.IntN(200) == 0 {
		d += time.Duration(n.rnd.Int64N(int64(50 * time.Millisecond)))
	}
	if n.loss > 0 && n.rnd.Float64() < n.loss {
		d += 100*time.Millisecond + time.Duration(n.rnd.Int64N(int64(time.Second)))
	}
	for _, h := range []string{from, to} {
		if s := n.slow[h]; s > 0 {
			d += time.Duration(n.rnd.Int64N(int64(s)))
		}
	}
	return d
}

func (n *network) breaking() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.breaks > 0 && n.rnd.Float64() < n.breaks
}

func (n *network) isCut(from, to string) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[pair{from, to}], n.changed
}

// change alters the conditions.
func (n *network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// heal takes all faults away.
func (n *network) heal() {
	n.change(func() {
		clear(n.cut)
		clear(n.slow)
		n.loss, n.breaks = 0, 0
	})
}

// conn is a connection of one process to another.
type conn struct {
	net      *network
	from, to *process
	pool     *transport.Pool // of inner
	inner    transport.RawConn

	once sync.Once
	done chan struct{}
}

var _ transport.RawConn = (*conn)(nil)

var errLost = errors.New("the connection was lost")

func (p *process) dial(ctx context.Context, ep *wire.Endpoint) (transport.Conn, error) {
	host := ep.GetServer()
	if host == "" {
		host = ep.GetAddr()
	}
	unreachable := wire.Errorf(wire.Unavailable, "connect", host, "the server does not answer")
	// There and back, and there again.
	for i, way := range []pair{{p.host, host}, {host, p.host}, {p.host, host}} {
		if err := p.net.way(ctx, way, p.dead); err != nil {
			return nil, unreachable
		}
		if i == 0 {
			p.net.mu.Lock()
			to := p.net.hosts[host]
			p.net.mu.Unlock()
			if to == nil {
				return nil, unreachable
			}
		}
	}
	p.net.mu.Lock()
	to := p.net.hosts[host]
	p.net.mu.Unlock()
	if to == nil {
		return nil, unreachable
	}
	// The last step is a call into the process, by a pool of its own.
	pool := transport.NewPool(transport.PoolConfig{Role: p.role, Name: p.host, Local: to.local})
	inner, err := pool.Get(ctx, &wire.Endpoint{Server: host})
	if err != nil {
		pool.Close()
		return nil, unreachable
	}
	c := &conn{net: p.net, from: p, to: to, pool: pool, inner: inner.(transport.RawConn), done: make(chan struct{})}
	for _, end := range []*process{p, to} {
		end.mu.Lock()
		if end.killed() {
			end.mu.Unlock()
			c.Close()
			return nil, unreachable
		}
		end.conns[c] = true
		end.mu.Unlock()
	}
	return c, nil
}

// way is the passage of one message. It fails when ctx or the sender ends first.
func (n *network) way(ctx context.Context, p pair, dead <-chan struct{}) error {
	t := time.NewTimer(n.delay(p.from, p.to))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	case <-dead:
		return errLost
	}
	for {
		cut, changed := n.isCut(p.from, p.to)
		if !cut {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-dead:
			return errLost
		}
	}
}

// pass takes a message over the connection, from's to to's side or back. One
// that was on its way when its sender died arrives all the same.
func (c *conn) pass(at time.Time, back bool) error {
	p, sender, receiver := pair{c.from.host, c.to.host}, c.from, c.to
	if back {
		p, sender, receiver = pair{c.to.host, c.from.host}, c.to, c.from
	}
	if at.IsZero() {
		if sender.killed() {
			<-c.done
			return errLost
		}
		at = time.Now().Add(c.net.delay(p.from, p.to))
	}
	if c.net.breaking() {
		c.Close()
		return errLost
	}
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.done:
		return errLost
	}
	idle := time.NewTimer(idleLimit)
	defer idle.Stop()
	for {
		cut, changed := c.net.isCut(p.from, p.to)
		if !cut {
			break
		}
		select {
		case <-changed:
		case <-c.done:
			return errLost
		case <-idle.C:
			c.Close()
			return errLost
		}
	}
	if receiver.killed() {
		<-c.done
		return errLost
	}
	return nil
}

// lost tells the ends of a connection that the process at one of them is gone.
func (c *conn) lost(p *process) {
	p.mu.Lock()
	quiet := p.quiet
	p.mu.Unlock()
	other := c.from
	if other == p {
		other = c.to
	}
	if cut, _ := c.net.isCut(p.host, other.host); !quiet && !cut {
		time.AfterFunc(c.net.delay(p.host, other.host), func() { c.Close() })
		return
	}
	time.AfterFunc(idleLimit, func() { c.Close() })
}

func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.done)
		c.pool.Close()
		for _, end := range []*process{c.from, c.to} {
			end.mu.Lock()
			delete(end.conns, c)
			end.mu.Unlock()
		}
	})
	return nil
}

// Kind says that nothing can be passed but messages.
func (c *conn) Kind() transport.Kind { return transport.QUIC }

func (c *conn) Done() <-chan struct{} { return c.done }

func (c *conn) Call(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, error) {
	resp, _, err := c.CallBulk(ctx, m, req, nil, nil)
	return resp, err
}

func (c *conn) CallFile(context.Context, wire.Method, proto.Message) (proto.Message, *os.File, error) {
	return nil, nil, wire.Errorf(wire.Unsupported, "call", c.to.host, "files are not passed over the network")
}

// answer is what came back of a call.
type answer struct {
	msg     proto.Message
	payload []byte
	err     error
}

// CallBulk carries the call over, whatever becomes of the caller meanwhile.
func (c *conn) CallBulk(ctx context.Context, m wire.Method, req proto.Message, payload [][]byte, into []byte) (proto.Message, int, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, waitError(err, m, c.to.host)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(transport.DefaultTimeout)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	var sent [][]byte
	for _, p := range payload {
		sent = append(sent, append([]byte(nil), p...))
	}
	req = proto.Clone(req)
	there, stop := context.WithDeadline(context.Background(), deadline)
	back := make(chan answer, 1)
	go func() {
		defer stop()
		if c.pass(time.Time{}, false) != nil {
			return
		}
		var a answer
		var n int
		buf := make([]byte, len(into))
		a.msg, n, a.err = c.inner.CallBulk(there, m, req, sent, buf)
		if a.payload = buf[:n]; a.msg != nil {
			a.msg = proto.Clone(a.msg)
		}
		if c.pass(time.Time{}, true) == nil {
			back <- a
		}
	}()
	select {
	case a := <-back:
		return a.msg, copy(into, a.payload), a.err
	case <-c.done:
		return nil, 0, wire.Errorf(wire.Unavailable, m.String(), c.to.host, "the connection ended")
	case <-ctx.Done():
		// The cancellation follows the call.
		go func() {
			if c.pass(time.Time{}, false) == nil {
				stop()
			}
		}()
		return nil, 0, waitError(ctx.Err(), m, c.to.host)
	}
}

func waitError(err error, m wire.Method, host string) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return wire.Errorf(wire.Timeout, m.String(), host, "no answer in time")
	}
	return &wire.Error{Code: wire.Interrupted, Op: m.String(), Object: host, Err: err}
}

// parcel is a message on its way.
type parcel[T any] struct {
	at  time.Time
	msg T
}

// line carries messages one way, in order.
type line[T any] struct {
	c    *conn
	back bool
	ch   chan parcel[T]
	last time.Time
}

func newLine[T any](c *conn, back bool) *line[T] {
	return &line[T]{c: c, back: back, ch: make(chan parcel[T], 1024)}
}

// send puts a message on its way; it arrives after those before it. One
// goroutine calls it.
func (l *line[T]) send(m T, over <-chan struct{}) error {
	from, to := l.c.from, l.c.to
	if l.back {
		from, to = to, from
	}
	if from.killed() {
		<-l.c.done
		return errLost
	}
	at := time.Now().Add(l.c.net.delay(from.host, to.host))
	if at.Before(l.last) {
		at = l.last
	}
	l.last = at
	select {
	case l.ch <- parcel[T]{at, m}:
		return nil
	case <-over:
	case <-l.c.done:
	}
	return errLost
}

// carry delivers what was sent until either end is over.
func (l *line[T]) carry(over <-chan struct{}, deliver func(T) error) {
	for {
		select {
		case p := <-l.ch:
			if l.c.pass(p.at, l.back) != nil || deliver(p.msg) != nil {
				return
			}
		case <-over:
			// What was sent before the end still arrives.
			select {
			case p := <-l.ch:
				if l.c.pass(p.at, l.back) != nil || deliver(p.msg) != nil {
					return
				}
			default:
				return
			}
		case <-l.c.done:
			return
		}
	}
}

// streamEnd is the caller's end of a stream.
type streamEnd struct {
	c      *conn
	m      wire.Method
	up     *line[proto.Message]
	in     chan proto.Message
	mu     sync.Mutex // of Send
	once   sync.Once
	closed chan struct{}
	err    error // set before closed is closed
}

func (c *conn) Stream(ctx context.Context, m wire.Method) (transport.Stream, error) {
	if err := c.net.way(ctx, pair{c.from.host, c.to.host}, c.done); err != nil {
		return nil, wire.Errorf(wire.Unavailable, m.String(), c.to.host, "%v", err)
	}
	far, err := c.inner.Stream(context.Background(), m)
	if err != nil {
		return nil, err
	}
	s := &streamEnd{c: c, m: m, up: newLine[proto.Message](c, false), in: make(chan proto.Message, 64), closed: make(chan struct{})}
	down := newLine[proto.Message](c, true)
	farOver := make(chan struct{})
	go func() {
		s.up.carry(s.closed, far.Send)
		// The end of the stream reaches the server like a message, unless the
		// connection is gone: then it finds out by itself.
		if c.pass(time.Time{}, false) != nil {
			<-c.done
		}
		far.Close()
	}()
	go func() {
		defer close(farOver)
		for {
			msg, err := far.Recv()
			if err != nil {
				return
			}
			if down.send(proto.Clone(msg), s.closed) != nil {
				return
			}
		}
	}()
	go func() {
		down.carry(farOver, func(msg proto.Message) error {
			select {
			case s.in <- msg:
				return nil
			case <-s.closed:
				return errLost
			}
		})
		// The server has left the stream.
		if c.pass(time.Time{}, true) != nil {
			<-c.done
		}
		s.end(wire.Errorf(wire.Unavailable, m.String(), c.to.host, "the stream ended"))
	}()
	stop := context.AfterFunc(ctx, func() { s.end(waitError(ctx.Err(), m, c.to.host)) })
	go func() {
		defer stop()
		select {
		case <-s.closed:
		case <-c.done:
			s.end(wire.Errorf(wire.Unavailable, m.String(), c.to.host, "the connection ended"))
		}
	}()
	return s, nil
}

func (s *streamEnd) end(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.closed)
	})
}

func (s *streamEnd) Send(m proto.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return s.err
	default:
	}
	if s.up.send(proto.Clone(m), s.closed) != nil {
		return wire.Errorf(wire.Unavailable, s.m.String(), s.c.to.host, "the stream ended")
	}
	return nil
}

func (s *streamEnd) Recv() (proto.Message, error) {
	select {
	case m := <-s.in:
		return m, nil
	default:
	}
	select {
	case m := <-s.in:
		return m, nil
	case <-s.closed:
		return nil, s.err
	}
}

func (s *streamEnd) Close() error {
	s.end(wire.Errorf(wire.Unavailable, s.m.String(), s.c.to.host, "the stream was closed"))
	return nil
}

// OpenRaw joins a pipe here with one into the server, by two lines of bytes.
func (c *conn) OpenRaw(ctx context.Context, m wire.Method, opening *wire.Opening) (net.Conn, error) {
	if err := c.net.way(ctx, pair{c.from.host, c.to.host}, c.done); err != nil {
		return nil, err
	}
	far, err := c.inner.OpenRaw(ctx, m, opening)
	if err != nil {
		return nil, err
	}
	mine, near := net.Pipe()
	ended := make(chan struct{})
	var once sync.Once
	end := func() { once.Do(func() { close(ended); near.Close(); far.Close() }) }
	join := func(r, w net.Conn, back bool) {
		l := newLine[[]byte](c, back)
		over := make(chan struct{})
		go func() {
			defer close(over)
			for {
				buf := make([]byte, 64<<10)
				n, err := r.Read(buf)
				if n > 0 && l.send(buf[:n], ended) != nil {
					return
				}
				if err != nil {
					return
				}
			}
		}()
		go func() {
			defer end()
			l.carry(over, func(b []byte) error {
				_, err := w.Write(b)
				return err
			})
			if c.pass(time.Time{}, back) != nil {
				<-c.done
			}
		}()
	}
	join(near, far, false)
	join(far, near, true)
	go func() {
		select {
		case <-ended:
		case <-c.done:
			end()
		}
	}()
	return mine, nil
}

var _ io.Closer = (*conn)(nil)
