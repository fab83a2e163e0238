package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// callLimit bounds the calls that one pipe has in flight; further ones are
// answered with wire.Busy.
const callLimit = 16 << 10

// runningLimit bounds those of all peers of a server together.
const runningLimit = 128 << 10

// openLimit is how long a new pipe may take to say what it is for.
const openLimit = 10 * time.Second

// servedPipe is a pipe at the server.
type servedPipe struct {
	s    *Server
	p    pipe
	r    *frameReader
	peer Peer
	use  uint32
	send *sender // of a call pipe

	ctx    context.Context // of the handlers: ends with the pipe
	cancel context.CancelFunc

	mu    sync.Mutex // guards calls
	calls map[uint64]context.CancelFunc

	turn chan struct{} // bulk: holds an element while a call is handled
}

// servePipe serves one pipe until it ends. peer is who the transport has proved
// to be there; a zero role: whoever the opening says.
func (s *Server) servePipe(ctx context.Context, p pipe, peer Peer) {
	if !s.track(p) {
		p.Close()
		return
	}
	defer s.untrack(p)
	sp := &servedPipe{s: s, p: p, r: newFrameReader(p), peer: peer, calls: map[uint64]context.CancelFunc{}}
	sp.ctx, sp.cancel = context.WithCancel(ctx)
	defer sp.cancel()

	opening, err := sp.readOpening()
	if err != nil {
		p.Close()
		return
	}
	sp.use = opening.GetUse()
	if isUrgent(sp.use) {
		p.urgent()
	}
	switch sp.use {
	case useCalls:
		sp.serveCalls()
	case useBulk, useFiles:
		sp.serveBulk()
	case useStream:
		sp.serveStream(wire.Method(opening.GetMethod()))
	case useRaw:
		sp.serveRaw(wire.Method(opening.GetMethod()), opening)
	default:
		sp.refuse(wire.Errorf(wire.Unsupported, "connect", "", "a pipe for use %d is not known here", sp.use))
	}
}

func (sp *servedPipe) readOpening() (*wire.Opening, error) {
	sp.p.SetReadDeadline(time.Now().Add(openLimit))
	h, err := sp.r.next()
	if err != nil {
		return nil, err
	}
	if h.kind != frameOpen || h.message > 4096 {
		return nil, frameError("type %d with %d bytes is no opening", h.kind, h.message)
	}
	o := new(wire.Opening)
	if err := sp.r.message(h, o); err != nil {
		return nil, err
	}
	if sp.peer.Role == "" {
		sp.peer.Role, sp.peer.Name = o.GetRole(), o.GetName()
	}
	return o, sp.p.SetReadDeadline(time.Time{})
}

// accept answers the opening; refuse answers it with an error, and ends the
// pipe.
func (sp *servedPipe) accept() error {
	frame, err := appendFrame(nil, header{kind: frameAccept}, nil, 0)
	if err != nil {
		return err
	}
	return write(sp.p, frame)
}

func (sp *servedPipe) refuse(err error) {
	if frame, err := failureFrame(nil, header{}, err); err == nil {
		if write(sp.p, frame) == nil {
			sp.p.finish()
			return
		}
	}
	sp.p.Close()
}

// failureFrame appends the frame that carries err in answer to h.
func failureFrame(b []byte, h header, err error) ([]byte, error) {
	f := wire.ToFailure(err)
	h.kind, h.payload, h.millis = frameFailure, 0, 0
	return appendFrame(b, h, f, proto.Size(f))
}

// serveCalls reads small calls and hands each to a worker; replies leave as
// they become ready.
func (sp *servedPipe) serveCalls() {
	sp.send = newSender(sp.p, func(error) { sp.p.Close() })
	stopped := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() { sp.send.run(stopped) })
	if sp.accept() == nil {
		sp.s.keepCaller(sp)
		for sp.readCall() == nil {
		}
	}
	sp.s.forgetCaller(sp)
	sp.cancel()
	sp.send.stop(net.ErrClosed)
	sp.p.Close()
	close(stopped)
	writer.Wait()
}

// serveBulk reads calls with payload, one after another. While one is handled
// it waits for the next, and so learns when the caller goes away.
func (sp *servedPipe) serveBulk() {
	sp.turn = make(chan struct{}, 1)
	if sp.use == useFiles && sp.peer.Kind != Unix {
		sp.refuse(wire.Errorf(wire.Unsupported, "connect", "", "files are passed within one host only"))
		return
	}
	if sp.accept() == nil {
		for sp.readCall() == nil {
		}
	}
	sp.cancel()
	sp.p.Close()
}

// readCall takes one frame from the caller; an error ends the pipe.
func (sp *servedPipe) readCall() error {
	h, err := sp.r.next()
	if err != nil {
		return err
	}
	switch h.kind {
	case frameCall:
	case framePulse:
		return sp.r.message(h, nil)
	case frameCancel:
		sp.mu.Lock()
		cancel := sp.calls[h.id]
		sp.mu.Unlock()
		if cancel != nil {
			cancel()
		}
		return sp.r.message(h, nil)
	default:
		return frameError("type %d from a caller", h.kind)
	}
	if h.payload > 0 && sp.use != useBulk {
		return frameError("a payload on a pipe for small calls")
	}
	if sp.turn != nil {
		select {
		case sp.turn <- struct{}{}:
		case <-sp.ctx.Done():
			return sp.ctx.Err()
		}
	}
	c := &servedCall{sp: sp, h: h}
	shape, known := wire.Shapes[h.method]
	if known {
		c.req = Request{Method: h.method, Msg: shape.Req(), Peer: sp.peer}
		err = sp.r.message(h, c.req.Msg)
	} else {
		err = sp.r.skip(int(h.message))
	}
	if err != nil {
		return err
	}
	if h.payload > 0 {
		if c.payload, err = sp.r.take(int(h.payload)); err != nil {
			return err
		}
		c.req.Payload = (*c.payload)[:h.payload]
	}
	if !known {
		c.refused = wire.Errorf(wire.Unsupported, h.method.String(), "", "this server does not know it")
	}
	switch _, running, ok := sp.s.begin(nil); {
	case !ok:
		c.refused = errStopped
	default:
		c.counted = true
		if running > runningLimit {
			c.refused = wire.Errorf(wire.Busy, h.method.String(), "", "%d calls are in flight at this server", runningLimit)
		}
	}
	c.ctx, c.cancel = context.WithTimeout(sp.ctx, time.Duration(max(h.millis, 1))*time.Millisecond)
	sp.mu.Lock()
	if len(sp.calls) >= callLimit {
		c.refused = wire.Errorf(wire.Busy, h.method.String(), "", "%d calls are in flight on one connection", callLimit)
	} else {
		sp.calls[h.id] = c.cancel
	}
	sp.mu.Unlock()
	sp.s.workers.do(c)
	return nil
}

// servedCall is one call being handled.
type servedCall struct {
	sp      *servedPipe
	h       header
	req     Request
	payload *[]byte // pooled memory of req.Payload
	ctx     context.Context
	cancel  context.CancelFunc
	counted bool  // among the server's running calls
	refused error // answer this, do not call the handler
}

// run handles the call and sends the answer.
func (c *servedCall) run() {
	sp := c.sp
	var reply Reply
	err := c.refused
	if err == nil {
		reply, err = sp.s.answer(c.ctx, &c.req)
	}
	if ctxErr := c.ctx.Err(); err != nil && ctxErr != nil {
		// What the handler makes of that says less.
		err = waitError(ctxErr, c.h.method, sp.s.cfg.Name)
		if sp.s.ctx.Err() != nil {
			err = errStopped
		}
	}
	if sendErr := c.respond(&reply, err); sendErr != nil {
		sp.p.Close() // the reader ends the pipe
	}
	if err == nil {
		reply.release()
	}
	putBuffer(c.payload) // only now: the reply may be made of it
	c.cancel()
	sp.mu.Lock()
	delete(sp.calls, c.h.id)
	sp.mu.Unlock()
	if c.counted {
		sp.s.end(0)
	}
	if sp.turn != nil {
		<-sp.turn
	}
}

// inflight is how many calls of the pipe are being handled.
func (sp *servedPipe) inflight() int {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return len(sp.calls)
}

// respond sends the reply, or err in its place.
func (c *servedCall) respond(reply *Reply, err error) error {
	sp := c.sp
	h := header{kind: frameReply, method: c.h.method, id: c.h.id}
	size := 0
	if err == nil {
		size = proto.Size(reply.Msg)
		if size > MaxMessage {
			err = messageTooLong(h.method, "", size)
		} else if n := reply.size(); sp.use == useBulk && n > MaxPayload {
			err = payloadTooLong(h.method, "", n)
		} else if sp.use == useBulk {
			h.payload = uint32(n)
		}
	}
	buf := getBuffer(headerSize + size)
	defer putBuffer(buf)
	var frame []byte
	if err == nil {
		frame, err = appendFrame((*buf)[:0], h, reply.Msg, size)
	}
	if err != nil {
		h.payload = 0
		if frame, err = failureFrame((*buf)[:0], h, err); err != nil {
			return err
		}
		reply = &Reply{}
	}
	switch {
	case sp.send != nil:
		return sp.send.send(frame, nil, sp.inflight() >= crowd)
	case sp.use == useFiles && reply.File != nil:
		return sp.p.writeFile(frame, reply.File)
	case h.payload > 0:
		// Past its deadline nobody waits for the rest.
		defer context.AfterFunc(c.ctx, func() { sp.p.Close() })()
		return sp.p.writeAll(append(net.Buffers{frame}, reply.Payload...))
	}
	return write(sp.p, frame)
}

// serveStream runs the handler of one stream.
func (sp *servedPipe) serveStream(m wire.Method) {
	r, err := sp.s.cfg.Mux.route(m, sp.peer)
	shape, known := wire.Shapes[m]
	if err == nil && (r.stream == nil || !known) {
		err = wire.Errorf(wire.Invalid, m.String(), "", "it is a call, not a stream")
	}
	if err != nil {
		sp.refuse(err)
		return
	}
	st := newFramedStream(m, sp.peer.Name, sp.p, shape.Req, func(m wire.Method, err error) error {
		if err == io.EOF || err == io.ErrUnexpectedEOF || errors.Is(err, net.ErrClosed) {
			err = errors.New("the connection ended")
		}
		return lostError(m, sp.peer.Name, err)
	})
	finished := make(chan struct{})
	if !sp.s.goStream(func(sctx context.Context) {
		defer close(finished)
		if sp.accept() != nil {
			sp.p.Close()
			return
		}
		st.start(sp.r)
		ctx, cancel := context.WithCancel(sp.ctx)
		defer cancel()
		stopServer := context.AfterFunc(sctx, func() { st.shut(lostError(m, sp.peer.Name, errStopped), true, errStopped) })
		defer stopServer()
		sp.s.wg.Go(func() { // ends with the stream, which this function ends at the latest
			<-st.closed
			cancel()
		})
		err := sp.s.runStream(ctx, m, r, sp.peer, st)
		st.shut(closedError(m, sp.peer.Name), true, err)
		st.reader.Wait()
	}) {
		sp.refuse(errStopped)
		return
	}
	<-finished
}

// serveRaw gives the pipe to the handler, which closes it.
func (sp *servedPipe) serveRaw(m wire.Method, opening *wire.Opening) {
	r, err := sp.s.cfg.Mux.route(m, sp.peer)
	if err == nil && r.raw == nil {
		err = wire.Errorf(wire.Invalid, m.String(), "", "it is not a raw stream")
	}
	if err == nil {
		err = r.admit(opening)
	}
	if err != nil {
		sp.refuse(err)
		return
	}
	if sp.accept() != nil {
		sp.p.Close()
		return
	}
	conn := &servedRaw{rawPipe: rawPipe{sp.p, sp.r}, closed: make(chan struct{})}
	r.raw(sp.peer, conn)
	select {
	case <-conn.closed:
	case <-sp.ctx.Done():
		conn.Close()
	}
}

// servedRaw tells when its user has closed it.
type servedRaw struct {
	rawPipe
	once   sync.Once
	closed chan struct{}
}

func (c *servedRaw) Close() error {
	c.once.Do(func() {
		c.rawPipe.Close()
		close(c.closed)
	})
	return nil
}

// track keeps p among the pipes that the server closes when it ends.
func (s *Server) track(p pipe) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.pipes[p] = struct{}{}
	return true
}

func (s *Server) untrack(p pipe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pipes, p)
}

// keepCaller keeps a call pipe among those that are told when the server stops,
// or tells it at once.
func (s *Server) keepCaller(sp *servedPipe) {
	s.mu.Lock()
	closing := s.closing
	if !closing {
		s.callers = append(s.callers, sp)
	}
	s.mu.Unlock()
	if closing {
		sp.sayBye()
	}
}

func (s *Server) forgetCaller(sp *servedPipe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.callers, sp)
	if i < 0 {
		return
	}
	s.callers = slices.Delete(s.callers, i, i+1)
	if s.closing && len(s.callers) == 0 {
		close(s.left)
	}
}

// sayBye tells every caller that no more calls are taken.
func (s *Server) sayBye() {
	s.mu.Lock()
	callers := slices.Clone(s.callers)
	s.mu.Unlock()
	for _, sp := range callers {
		sp.sayBye()
	}
}

func (sp *servedPipe) sayBye() {
	frame, err := appendFrame(nil, header{kind: frameBye}, nil, 0)
	if err == nil {
		sp.send.send(frame, atOnce, false) // a pipe that is broken needs no bye
	}
}
