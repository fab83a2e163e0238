package transport

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// callPipe carries many small calls of a connection at once. Its reader
// goroutine hands each reply to the caller that waits for it.
type callPipe struct {
	c        *framedConn
	p        pipe
	s        *sender
	inflight atomic.Int64
	stopped  chan struct{} // ends the sender's goroutine

	mu      sync.Mutex // guards what follows
	waiting map[uint64]*waiter
	lastID  uint64
	err     error // set once the pipe has ended
}

// crowd is how many calls in flight make it worth a moment to let others send
// along: a system call saved for each of them.
const crowd = 8

// waiter is one call in flight.
type waiter struct {
	shape wire.Shape
	ready chan struct{} // one element: resp or err is set
	resp  proto.Message
	err   error
}

var waiters = sync.Pool{New: func() any { return &waiter{ready: make(chan struct{}, 1)} }}

// addCallPipe makes call pipe i, which there is not yet.
func (c *framedConn) addCallPipe(ctx context.Context, i int) (*callPipe, error) {
	if p := c.calls[i].Load(); p != nil {
		return p, nil
	}
	p, r, _, err := c.open(ctx, useCalls, 0, nil)
	if err != nil {
		return nil, err
	}
	cp := &callPipe{c: c, p: p, stopped: make(chan struct{}), waiting: map[uint64]*waiter{}}
	cp.s = newSender(p, func(err error) { c.fail(c.fault(0, err)) })

	c.mu.Lock()
	cause := c.cause
	if cause == nil {
		c.calls[i].Store(cp)
		c.wg.Go(func() { cp.s.run(cp.stopped) })
		c.wg.Go(func() { cp.read(r) })
	}
	c.mu.Unlock()
	if cause != nil {
		p.Close()
		return nil, cause
	}
	return cp, nil
}

// end fails the calls in flight and ends the pipe's goroutines; it is called
// once.
func (p *callPipe) end(cause error) {
	p.mu.Lock()
	p.err = cause
	waiting := p.waiting
	p.waiting = nil
	p.mu.Unlock()
	p.s.stop(cause)
	close(p.stopped)
	p.p.Close()
	for _, w := range waiting {
		w.err = cause
		w.ready <- struct{}{}
	}
}

// add registers a call and numbers it.
func (p *callPipe) add(w *waiter) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, p.err
	}
	p.lastID++
	p.waiting[p.lastID] = w
	return p.lastID, nil
}

// remove returns the waiter of id, nil if somebody else has removed it.
func (p *callPipe) remove(id uint64) *waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.waiting[id]
	delete(p.waiting, id)
	return w
}

func (p *callPipe) call(ctx context.Context, m wire.Method, shape wire.Shape, req proto.Message, size int) (proto.Message, error) {
	w := waiters.Get().(*waiter)
	w.shape, w.resp, w.err = shape, nil, nil
	id, err := p.add(w)
	if err != nil {
		return nil, lostError(m, p.c.peer, err)
	}
	p.inflight.Add(1)
	defer p.inflight.Add(-1)

	buf := getBuffer(headerSize + size)
	frame, err := appendFrame((*buf)[:0], header{kind: frameCall, method: m, millis: millisLeft(ctx), id: id}, req, size)
	if err == nil {
		err = p.s.send(frame, ctx.Done(), p.inflight.Load() >= crowd)
	}
	putBuffer(buf)
	if err != nil && err != errNoRoom && p.remove(id) != nil {
		return nil, p.c.fault(m, err)
	}

	var late <-chan time.Time
	if _, ok := ctx.Deadline(); !ok {
		t := time.NewTimer(DefaultTimeout)
		defer t.Stop()
		late = t.C
	}
	var gaveUp error
	select {
	case <-w.ready:
	case <-ctx.Done():
		gaveUp = ctx.Err()
	case <-late:
		gaveUp = context.DeadlineExceeded
	}
	if gaveUp != nil && p.remove(id) != nil {
		p.cancel(m, id)
		return nil, waitError(gaveUp, m, p.c.peer)
	}
	if gaveUp != nil {
		<-w.ready // the answer came in the same moment
	}
	resp, err := w.resp, w.err
	w.resp, w.err = nil, nil
	waiters.Put(w)
	if err != nil && p.lost(err) {
		return nil, lostError(m, p.c.peer, err)
	}
	return resp, err
}

// lost tells whether err is the end of the pipe, not the answer of the peer.
func (p *callPipe) lost(err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err != nil && errors.Is(err, p.err)
}

// cancel tells the server that nobody waits for id any more.
func (p *callPipe) cancel(m wire.Method, id uint64) {
	frame, err := appendFrame(nil, header{kind: frameCancel, method: m, id: id}, nil, 0)
	if err == nil {
		p.s.send(frame, atOnce, false) // a broken pipe cancels as well; the deadline does, too
	}
}

// read hands out replies until the pipe ends, and then ends the connection.
func (p *callPipe) read(r *frameReader) {
	for {
		if err := p.readOne(r); err != nil {
			p.c.fail(p.c.fault(0, err))
			return
		}
	}
}

func (p *callPipe) readOne(r *frameReader) error {
	h, err := r.next()
	if err != nil {
		return err
	}
	switch h.kind {
	case frameBye:
		p.c.retire()
		if p.c.inflight.Load() == 0 {
			p.c.fail(errStopped)
		}
		return r.message(h, nil)
	case frameReply, frameFailure:
		if h.payload > 0 {
			return frameError("a payload on a pipe for small calls")
		}
		w := p.remove(h.id)
		if w == nil { // given up
			return r.message(h, nil)
		}
		if h.kind == frameReply {
			w.resp = w.shape.Resp()
			err = r.message(h, w.resp)
		} else {
			w.err, err = readFailure(r, h)
		}
		if err != nil { // of the pipe
			w.err = p.c.fault(0, err)
		}
		w.ready <- struct{}{}
		return err
	}
	return frameError("type %d in answer to calls", h.kind)
}
