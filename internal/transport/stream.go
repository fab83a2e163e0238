package transport

import (
	"context"
	"net"
	"sync"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// framedStream is one end of a stream over a pipe of its own. A goroutine reads
// ahead by streamBuffer messages, and notices the end of the pipe while nobody
// receives.
type framedStream struct {
	method wire.Method
	peer   string
	p      pipe
	fresh  func() proto.Message // what Recv returns
	in     chan proto.Message
	fault  func(wire.Method, error) error

	sending sync.Mutex // one frame at a time

	once   sync.Once
	closed chan struct{}
	err    error // of later calls; set before closed is closed
	reader sync.WaitGroup
}

func newFramedStream(m wire.Method, peer string, p pipe, fresh func() proto.Message, fault func(wire.Method, error) error) *framedStream {
	return &framedStream{
		method: m,
		peer:   peer,
		p:      p,
		fresh:  fresh,
		fault:  fault,
		in:     make(chan proto.Message, streamBuffer),
		closed: make(chan struct{}),
	}
}

// start begins to read from r.
func (s *framedStream) start(r *frameReader) {
	s.reader.Go(func() {
		err := s.read(r)
		s.shut(err, false, nil)
	})
}

// read takes messages until the stream ends; it returns why.
func (s *framedStream) read(r *frameReader) error {
	for {
		h, err := r.next()
		if err != nil {
			return s.fault(s.method, err)
		}
		switch h.kind {
		case frameMessage:
			m := s.fresh()
			if err := r.message(h, m); err != nil {
				return s.fault(s.method, err)
			}
			select {
			case s.in <- m:
			case <-s.closed:
				return s.err
			}
		case frameEnd:
			if h.message == 0 {
				return endError(s.method, s.peer)
			}
			failure, err := readFailure(r, h)
			if err != nil {
				return s.fault(s.method, err)
			}
			return failure
		default:
			return frameError("type %d on a stream", h.kind)
		}
	}
}

// shut ends this end of the stream: later calls fail with err. With tell, the
// peer is told, with failure (nil: an orderly end).
func (s *framedStream) shut(err error, tell bool, failure error) {
	s.once.Do(func() {
		s.err = err
		close(s.closed)
		if !tell {
			s.p.Close()
			return
		}
		h := header{kind: frameEnd, method: s.method}
		var frame []byte
		if failure == nil {
			frame, _ = appendFrame(nil, h, nil, 0)
		} else {
			f := wire.ToFailure(failure)
			frame, _ = appendFrame(nil, h, f, proto.Size(f))
		}
		// A sender that is stuck in the middle of a frame leaves no room for
		// another: then the end of the pipe says it all.
		if s.sending.TryLock() {
			n, err := s.p.try(frame)
			s.sending.Unlock()
			if err == nil && n == len(frame) {
				s.p.finish()
				return
			}
		}
		s.p.Close()
	})
}

func (s *framedStream) Close() error {
	s.shut(closedError(s.method, s.peer), true, nil)
	s.reader.Wait()
	return nil
}

func (s *framedStream) Send(m proto.Message) error {
	size := proto.Size(m)
	if size > MaxMessage {
		return messageTooLong(s.method, s.peer, size)
	}
	buf := getBuffer(headerSize + size)
	defer putBuffer(buf)
	frame, err := appendFrame((*buf)[:0], header{kind: frameMessage, method: s.method}, m, size)
	if err != nil {
		return err
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	select {
	case <-s.closed:
		return s.err
	default:
	}
	if err := write(s.p, frame); err != nil {
		s.shut(s.fault(s.method, err), false, nil)
		return s.err
	}
	return nil
}

func (s *framedStream) Recv() (proto.Message, error) {
	return receive(s.in, s.closed, &s.err)
}

// Stream opens a stream on a pipe of its own.
func (c *framedConn) Stream(ctx context.Context, m wire.Method) (Stream, error) {
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
	opening, cancel := withDefault(ctx)
	defer cancel()
	p, r, _, err := c.open(opening, useStream, m, nil)
	if err != nil {
		c.leave()
		return nil, err
	}
	s := newFramedStream(m, c.peer, p, shape.Resp, c.fault)
	s.start(r)
	c.wg.Go(func() { // ends with the stream, the connection or ctx
		defer c.leave()
		select {
		case <-s.closed:
		case <-c.gone:
			s.shut(lostError(m, c.peer, c.why()), false, nil)
		case <-ctx.Done():
			s.shut(waitError(ctx.Err(), m, c.peer), true, ctx.Err())
		}
		s.reader.Wait()
	})
	return s, nil
}

// OpenRaw opens a stream of bytes. It outlives ctx; its user closes it.
func (c *framedConn) OpenRaw(ctx context.Context, m wire.Method, meant *wire.Opening) (net.Conn, error) {
	if err := c.enter(m); err != nil {
		return nil, err
	}
	defer c.leave()
	ctx, cancel := withDefault(ctx)
	defer cancel()
	p, r, _, err := c.open(ctx, useRaw, m, meant)
	if err != nil {
		return nil, err
	}
	return rawPipe{p, r}, nil
}
