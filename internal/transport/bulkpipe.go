package transport

import (
	"context"
	"net"
	"os"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// bulkPipe carries one call at a time, with raw bytes either way, or with a
// file coming back. A call that is given up closes its pipe: so the server
// learns of it, whatever either side was about to send.
type bulkPipe struct {
	p     pipe
	r     *frameReader
	files *fileReader // of a pipe for files
}

func (b *bulkPipe) close() {
	b.p.Close()
	if b.files != nil {
		b.files.close()
	}
}

// takeIdle returns a bulk pipe that is not in use, nil if there is none.
func (c *framedConn) takeIdle() *bulkPipe {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.idle)
	if n == 0 {
		return nil
	}
	b := c.idle[n-1]
	c.idle[n-1] = nil
	c.idle = c.idle[:n-1]
	return b
}

// putIdle keeps a bulk pipe for the next call.
func (c *framedConn) putIdle(b *bulkPipe) {
	c.mu.Lock()
	keep := c.cause == nil && len(c.idle) < idlePipes
	if keep {
		c.idle = append(c.idle, b)
	}
	c.mu.Unlock()
	if !keep {
		b.close()
	}
}

func withDefault(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, DefaultTimeout)
}

// CallBulk sends request and payload over a pipe of their own.
func (c *framedConn) CallBulk(ctx context.Context, m wire.Method, req proto.Message, payload [][]byte, into []byte) (proto.Message, int, error) {
	total := 0
	for _, p := range payload {
		total += len(p)
	}
	if total > MaxPayload {
		return nil, 0, payloadTooLong(m, c.peer, total)
	}
	if size := proto.Size(req); size > MaxMessage {
		return nil, 0, messageTooLong(m, c.peer, size)
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, waitError(err, m, c.peer)
	}
	if err := c.enter(m); err != nil {
		return nil, 0, err
	}
	defer c.leave()
	ctx, cancel := withDefault(ctx)
	defer cancel()
	b := c.takeIdle()
	if b == nil {
		p, r, _, err := c.open(ctx, useBulk, m, nil)
		if err != nil {
			return nil, 0, err
		}
		b = &bulkPipe{p: p, r: r}
	}
	resp, n, err := c.exchange(ctx, b, m, req, payload, total, into)
	return resp, n, err
}

// exchange makes one call on b, and then keeps or closes b.
func (c *framedConn) exchange(ctx context.Context, b *bulkPipe, m wire.Method, req proto.Message, payload [][]byte, total int, into []byte) (proto.Message, int, error) {
	stop := context.AfterFunc(ctx, func() { b.p.Close() })
	resp, n, whole, err := c.converse(ctx, b, m, req, payload, total, into)
	if !stop() {
		b.close()
		if !whole {
			return nil, 0, waitError(ctx.Err(), m, c.peer)
		}
		return resp, n, err
	}
	if whole {
		c.putIdle(b)
	} else {
		b.close()
	}
	return resp, n, err
}

// converse sends the call and reads the answer; whole says that all of it was
// read, so that the pipe can be used again.
func (c *framedConn) converse(ctx context.Context, b *bulkPipe, m wire.Method, req proto.Message, payload [][]byte, total int, into []byte) (resp proto.Message, n int, whole bool, err error) {
	shape, err := shapeOf(m, c.peer)
	if err != nil {
		return nil, 0, true, err
	}
	size := proto.Size(req)
	buf := getBuffer(headerSize + size)
	defer putBuffer(buf)
	frame, err := appendFrame((*buf)[:0], header{kind: frameCall, method: m, payload: uint32(total), millis: millisLeft(ctx)}, req, size)
	if err != nil {
		return nil, 0, true, err
	}
	if err := b.p.writeAll(append(net.Buffers{frame}, payload...)); err != nil {
		return nil, 0, false, c.fault(m, err)
	}
	h, err := b.r.next()
	if err != nil {
		return nil, 0, false, c.fault(m, err)
	}
	switch h.kind {
	case frameFailure:
		failure, err := readFailure(b.r, h)
		if err != nil {
			return nil, 0, false, c.fault(m, err)
		}
		return nil, 0, true, failure
	case frameReply:
	default:
		return nil, 0, false, frameError("type %d in answer to a call", h.kind)
	}
	resp = shape.Resp()
	if err := b.r.message(h, resp); err != nil {
		return nil, 0, false, c.fault(m, err)
	}
	if int(h.payload) > len(into) {
		return nil, 0, false, replyTooLong(m, c.peer, int(h.payload), len(into))
	}
	if err := b.r.payload(into[:h.payload]); err != nil {
		return nil, 0, false, c.fault(m, err)
	}
	return resp, int(h.payload), true, nil
}

// CallFile makes a call over a pipe for files. Such calls are few (each file is
// passed once), so each has its own pipe.
func (c *framedConn) CallFile(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, *os.File, error) {
	if c.kind != Unix {
		return nil, nil, wire.Errorf(wire.Unsupported, m.String(), c.peer, "files are passed within one host only")
	}
	if size := proto.Size(req); size > MaxMessage {
		return nil, nil, messageTooLong(m, c.peer, size)
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, waitError(err, m, c.peer)
	}
	if err := c.enter(m); err != nil {
		return nil, nil, err
	}
	defer c.leave()
	ctx, cancel := withDefault(ctx)
	defer cancel()
	p, r, files, err := c.open(ctx, useFiles, m, nil)
	if err != nil {
		return nil, nil, err
	}
	b := &bulkPipe{p: p, r: r, files: files}
	defer b.close()
	stop := context.AfterFunc(ctx, func() { p.Close() })
	resp, _, whole, err := c.converse(ctx, b, m, req, nil, 0, nil)
	if !stop() && !whole {
		err = waitError(ctx.Err(), m, c.peer)
	}
	if err != nil {
		return nil, nil, err
	}
	f := files.take()
	if f == nil {
		return nil, nil, noFile(m, c.peer)
	}
	return resp, f, nil
}
