package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// callPipes is how many pipes carry the small calls of one connection. Frames
// of calls that run at once leave together in one write, so few are best.
const callPipes = 2

// idlePipes bounds the bulk pipes that a connection keeps for its next calls.
const idlePipes = 64

// smallMessage is the longest request that goes over a call pipe: longer ones
// would make the calls behind them wait, and take a pipe of their own.
const smallMessage = 64 << 10

// framedConn is a Conn over pipes: a Unix socket's or a QUIC connection's.
type framedConn struct {
	kind  Kind
	peer  string // for messages
	hello *wire.Opening
	link  link

	calls [callPipes]atomic.Pointer[callPipe] // [0] from the start, the others once they are needed
	grow  sync.Mutex                          // held by who makes a further one

	done     chan struct{}
	retired  atomic.Bool  // no new calls: the server is stopping, or the connection ended
	inflight atomic.Int64 // calls and streams

	mu    sync.Mutex // guards what follows
	cause error      // why it ended; set before gone is closed
	idle  []*bulkPipe
	gone  chan struct{} // closed when the link has been

	wg sync.WaitGroup // the goroutines of the call pipes
}

var (
	_ Conn    = (*framedConn)(nil)
	_ RawConn = (*framedConn)(nil)
)

// newFramedConn opens the first call pipe, and so proves both ends to each
// other. It owns l from then on, also when it fails.
func newFramedConn(ctx context.Context, kind Kind, peer, role, name string, l link) (*framedConn, error) {
	c := &framedConn{
		kind:  kind,
		peer:  peer,
		hello: &wire.Opening{Role: role, Name: name},
		link:  l,
		done:  make(chan struct{}),
		gone:  make(chan struct{}),
	}
	if _, err := c.addCallPipe(ctx, 0); err != nil {
		c.fail(err)
		return nil, err
	}
	if kind == QUIC {
		c.wg.Go(c.pulse)
	}
	return c, nil
}

// pulse sends something now and then. A server that was restarted answers it
// with a reset, which QUIC's own keep-alive is too small for: so the calls in
// flight at the old one fail within pulsePeriod, not within idleLimit.
func (c *framedConn) pulse() {
	frame, err := appendFrame(nil, header{kind: framePulse}, nil, 0)
	if err != nil {
		return
	}
	t := time.NewTicker(pulsePeriod)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			c.calls[0].Load().s.send(frame, atOnce, false) // what is broken needs none
		case <-c.gone:
			return
		}
	}
}

func (c *framedConn) Kind() Kind            { return c.kind }
func (c *framedConn) Done() <-chan struct{} { return c.done }

// Close ends the connection and waits for its goroutines.
func (c *framedConn) Close() error {
	c.fail(wire.Errorf(wire.Unavailable, "", "", "the connection was closed on this side"))
	c.wg.Wait()
	return nil
}

// fail ends the connection for cause: calls in flight fail with it.
func (c *framedConn) fail(cause error) {
	c.mu.Lock()
	if c.cause != nil {
		c.mu.Unlock()
		return
	}
	c.cause = cause
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	c.retire()
	close(c.gone)
	for _, b := range idle {
		b.close()
	}
	for i := range c.calls {
		if p := c.calls[i].Load(); p != nil {
			p.end(cause)
		}
	}
	c.link.close()
}

// retire lets no new call begin; those in flight go on.
func (c *framedConn) retire() {
	if !c.retired.Swap(true) {
		close(c.done)
	}
}

// enter counts a call in, unless the connection has been retired.
func (c *framedConn) enter(m wire.Method) error {
	c.inflight.Add(1)
	if c.retired.Load() {
		c.leave()
		return lostError(m, c.peer, c.why())
	}
	return nil
}

// leave counts it out. The last one closes a retired connection, which tells
// the server that all its answers have arrived.
func (c *framedConn) leave() {
	if c.inflight.Add(-1) == 0 && c.retired.Load() {
		c.fail(errStopped)
	}
}

func (c *framedConn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return c.cause
	}
	return errStopped
}

// fault is the error of a call for the error of its pipe.
func (c *framedConn) fault(m wire.Method, err error) error {
	var e *wire.Error
	if !errors.As(err, &e) {
		err = c.link.fault(err)
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF || errors.Is(err, net.ErrClosed) {
		err = errors.New("the connection ended")
	}
	return lostError(m, c.peer, err)
}

// open makes a pipe for use, past its accept. meant, if set, says whom a raw
// stream is meant for.
func (c *framedConn) open(ctx context.Context, use uint32, m wire.Method, meant *wire.Opening) (pipe, *frameReader, *fileReader, error) {
	p, err := c.link.open(ctx)
	if err != nil {
		switch ctxErr := ctx.Err(); {
		case ctxErr != nil:
			return nil, nil, nil, waitError(ctxErr, m, c.peer)
		case errors.Is(err, os.ErrDeadlineExceeded): // the dialer looks at the clock itself
			return nil, nil, nil, waitError(context.DeadlineExceeded, m, c.peer)
		}
		return nil, nil, nil, c.fault(m, err)
	}
	if isUrgent(use) {
		p.urgent()
	}
	stop := context.AfterFunc(ctx, func() { p.Close() })
	var files *fileReader
	var r *frameReader
	if u, ok := p.(*unixPipe); ok && use == useFiles {
		files = newFileReader(u.UnixConn)
		r = newFrameReader(files)
	} else {
		r = newFrameReader(p)
	}
	err = c.greet(p, r, use, m, meant)
	if !stop() {
		err = waitError(ctx.Err(), m, c.peer)
	}
	if err != nil {
		p.Close()
		return nil, nil, nil, err
	}
	return p, r, files, nil
}

// greet sends the opening and waits for the answer.
func (c *framedConn) greet(p pipe, r *frameReader, use uint32, m wire.Method, meant *wire.Opening) error {
	o := &wire.Opening{
		Use: use, Method: uint32(m), Role: c.hello.Role, Name: c.hello.Name,
		Target: meant.GetTarget(), Cluster: meant.GetCluster(),
	}
	frame, err := appendFrame(nil, header{kind: frameOpen, method: m}, o, proto.Size(o))
	if err != nil {
		return err
	}
	if err := write(p, frame); err != nil {
		return c.fault(m, err)
	}
	h, err := r.next()
	if err != nil {
		return c.fault(m, err)
	}
	switch h.kind {
	case frameAccept:
		return r.message(h, nil)
	case frameFailure:
		failure, err := readFailure(r, h)
		if err != nil {
			return c.fault(m, err)
		}
		return failure
	}
	return frameError("type %d in answer to an opening", h.kind)
}

// readFailure takes the message of a failure frame: the peer's error. err says
// that it could not be read.
func readFailure(r *frameReader, h header) (failure, err error) {
	var f wire.Failure
	if err := r.message(h, &f); err != nil {
		return nil, err
	}
	if f.Code == uint32(wire.OK) {
		return nil, frameError("a failure without a code")
	}
	return f.Err(), nil
}

// Call sends a small request over a call pipe.
func (c *framedConn) Call(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, error) {
	size := proto.Size(req)
	if size > MaxMessage {
		return nil, messageTooLong(m, c.peer, size)
	}
	if size > smallMessage {
		resp, _, err := c.CallBulk(ctx, m, req, nil, nil)
		return resp, err
	}
	shape, err := shapeOf(m, c.peer)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, waitError(err, m, c.peer)
	}
	if err := c.enter(m); err != nil {
		return nil, err
	}
	defer c.leave()
	p, err := c.pick(ctx)
	if err != nil {
		return nil, err
	}
	return p.call(ctx, m, shape, req, size)
}

func shapeOf(m wire.Method, peer string) (wire.Shape, error) {
	s, ok := wire.Shapes[m]
	if !ok {
		return s, wire.Errorf(wire.Unsupported, m.String(), peer, "it is not known here")
	}
	return s, nil
}

// busyPipe is how many calls a pipe has in flight before another is made.
const busyPipe = 16

// pick chooses the pipe with the fewest calls in flight.
func (c *framedConn) pick(ctx context.Context) (*callPipe, error) {
	best := c.calls[0].Load()
	for i := 1; i < callPipes; i++ {
		p := c.calls[i].Load()
		if p == nil {
			if best.inflight.Load() >= busyPipe && c.grow.TryLock() {
				defer c.grow.Unlock()
				return c.addCallPipe(ctx, i)
			}
			break
		}
		if p.inflight.Load() < best.inflight.Load() {
			best = p
		}
	}
	return best, nil
}

// millisLeft is the time that ctx leaves a call, at least a millisecond.
func millisLeft(ctx context.Context) uint32 {
	left := time.Duration(DefaultTimeout)
	if d, ok := ctx.Deadline(); ok {
		left = time.Until(d)
	}
	ms := int64((left + time.Millisecond - 1) / time.Millisecond)
	return uint32(min(max(ms, 1), 1<<32-1))
}
