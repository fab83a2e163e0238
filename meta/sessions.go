package meta

import (
	"context"
	"slices"
	"sync"
	"time"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/group"
)

const helloWait = 10 * time.Second // from the opening of a stream to its Hello

// maxPushes bounds what waits for a client that takes nothing. One that has more
// waiting is cut off: it comes back, says what it holds, and is asked again
// for what it has not answered.
const maxPushes = 64 << 10

// stream is the push stream of one session. put never blocks; a writer of its
// own sends.
type stream struct {
	out    transport.Stream
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	msgs []*wire.Push
	wake chan struct{} // capacity 1
}

func newStream(ctx context.Context, out transport.Stream) *stream {
	st := &stream{out: out, wake: make(chan struct{}, 1)}
	st.ctx, st.cancel = context.WithCancel(ctx)
	return st
}

func (st *stream) put(m *wire.Push) {
	st.mu.Lock()
	if m.GetNodes() != nil { // the newest map says all that the older ones do
		st.msgs = slices.DeleteFunc(st.msgs, func(old *wire.Push) bool { return old.GetNodes() != nil })
	}
	full := len(st.msgs) >= maxPushes
	if full {
		st.msgs = nil
	} else {
		st.msgs = append(st.msgs, m)
	}
	st.mu.Unlock()
	if full {
		st.cancel()
		return
	}
	wake(st.wake)
}

// write sends until the stream ends.
func (st *stream) write() {
	defer st.cancel()
	for {
		st.mu.Lock()
		msgs := st.msgs
		st.msgs = nil
		st.mu.Unlock()
		for _, m := range msgs {
			if st.out.Send(m) != nil {
				return
			}
		}
		if len(msgs) > 0 {
			continue
		}
		select {
		case <-st.wake:
		case <-st.ctx.Done():
			return
		}
	}
}

// close ends the stream; the handler notices.
func (st *stream) close() { st.cancel() }

// session serves MethodSession.
func (s *Server) session(ctx context.Context, peer transport.Peer, out transport.Stream) error {
	hello, err := receiveHello(out)
	if err != nil {
		return err
	}
	refuse := func(err error) error {
		w := &wire.Welcome{Code: uint32(wire.CodeOf(err))}
		if wire.CodeOf(err) == wire.NotLeader {
			addr, id := s.raft.LeaderWithID()
			if id != s.group.ID() {
				w.Leader = group.AddrOf(addr)
			}
		}
		return out.Send(&wire.Push{Op: &wire.Push_Welcome{Welcome: w}})
	}
	l, err := s.leading("hello")
	if err != nil {
		return refuse(err)
	}
	if err := l.admission(peer).session("hello", hello.Session); err != nil {
		return err
	}
	st := newStream(ctx, out)
	defer st.cancel()
	stop := context.AfterFunc(l.ctx, st.cancel)
	defer stop()
	if err := l.welcome(st, hello); err != nil {
		return refuse(err)
	}
	defer l.leave(hello.Session, st)
	var wg sync.WaitGroup
	wg.Go(st.write)
	end := context.AfterFunc(st.ctx, func() { out.Close() })
	defer wg.Wait()
	defer st.cancel()
	defer end()
	for {
		m, err := out.Recv()
		if err != nil {
			return nil // the client reconnects, or does not
		}
		if msg, ok := m.(*wire.FromClient); ok {
			l.receive(hello.Session, st, msg)
		}
	}
}

// receiveHello takes the first message, within helloWait.
func receiveHello(s transport.Stream) (*wire.Hello, error) {
	late := time.AfterFunc(helloWait, func() { s.Close() })
	defer late.Stop()
	m, err := s.Recv()
	if err != nil {
		return nil, err
	}
	msg, _ := m.(*wire.FromClient)
	if msg.GetHello() == nil || msg.GetHello().Session == 0 {
		return nil, wire.Errorf(wire.Invalid, "session", "", "a stream begins with a hello")
	}
	return msg.GetHello(), nil
}

// sessionLife is how long a session lives if it renews now.
func (l *leader) sessionLife() time.Time { return time.Now().Add(l.s.cfg.LeaseTime) }

// welcome takes a session in: its lease is renewed, what it holds is noted, and
// what it has been asked before is asked again.
func (l *leader) welcome(st *stream, h *wire.Hello) error {
	id := h.Session
	until := l.sessionLife()
	if err := l.cover(until); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.unlock()
	if !l.table.Renew(id, until) || l.ending[id] {
		return wire.Errorf(wire.NoSession, "hello", "", "the session has ended")
	}
	if old := l.streams[id]; old != nil {
		old.close()
	}
	l.streams[id] = st
	held := l.table.Reclaim(id, h.Held)
	if !l.reclaimed[id] {
		// Only a leader that has just taken office needs to be told the locks:
		// later its own table is right, and the list may be behind.
		l.reclaimed[id] = true
		l.locks.Reclaim(id, h.Locks)
		l.grace.Arrived(id)
		l.tryOpen(time.Now())
	}
	st.put(&wire.Push{Op: &wire.Push_Welcome{Welcome: &wire.Welcome{
		LeaseMs: uint64(l.s.cfg.LeaseTime / time.Millisecond), Held: held, Capability: l.capability(id),
	}}})
	st.put(&wire.Push{Op: &wire.Push_Nodes{Nodes: &wire.NodesAnswer{Nodes: l.nodes.list()}}})
	l.table.Again(id)
	return nil
}

// leave notes that the stream has ended. The session lives on until its lease
// runs out and somebody minds.
func (l *leader) leave(id uint64, st *stream) {
	l.mu.Lock()
	defer l.unlock()
	if l.streams[id] == st {
		delete(l.streams, id)
	}
}

// receive handles one message of a session.
func (l *leader) receive(id uint64, st *stream, m *wire.FromClient) {
	switch op := m.Op.(type) {
	case *wire.FromClient_Renew:
		until := l.sessionLife()
		if err := l.cover(until); err != nil {
			return // no confirmation: the client's lease is not extended
		}
		l.mu.Lock()
		known := l.table.Renew(id, until)
		l.unlock()
		if !known {
			st.close()
			return
		}
		st.put(&wire.Push{Op: &wire.Push_Renewed{Renewed: &wire.Renewed{N: op.Renew.N, Capability: l.capability(id)}}})
	case *wire.FromClient_Recalled:
		l.mu.Lock()
		l.table.Recalled(id, op.Recalled)
		l.unlock()
	case *wire.FromClient_Release:
		l.mu.Lock()
		l.table.Release(id, op.Release.Grants)
		l.unlock()
	}
}
