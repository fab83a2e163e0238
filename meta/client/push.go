package client

import (
	"context"
	"sync"
	"time"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// push is one connected push stream. Its writer never blocks a sender.
type push struct {
	stream transport.Stream
	ctx    context.Context // ends with the stream
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	out  []*wire.FromClient
	wake chan struct{} // capacity 1
}

func newPush(ctx context.Context, s transport.Stream) *push {
	p := &push{stream: s, wake: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

// start runs the writer, and the reader, which hands over each message. Both
// end when the stream does; wait waits for them.
func (p *push) start(receive func(*wire.Push)) {
	p.wg.Add(3)
	go func() {
		defer p.wg.Done()
		defer p.cancel()
		p.write()
	}()
	go func() {
		defer p.wg.Done()
		defer p.cancel()
		for {
			m, err := p.stream.Recv()
			if err != nil {
				return
			}
			if msg, ok := m.(*wire.Push); ok {
				receive(msg)
			}
		}
	}()
	go func() {
		defer p.wg.Done()
		<-p.ctx.Done()
		p.stream.Close()
	}()
}

func (p *push) send(m *wire.FromClient) {
	p.mu.Lock()
	p.out = append(p.out, m)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *push) write() {
	for {
		p.mu.Lock()
		out := p.out
		p.out = nil
		p.mu.Unlock()
		for _, m := range out {
			if p.stream.Send(m) != nil {
				return
			}
		}
		if len(out) > 0 {
			continue
		}
		select {
		case <-p.wake:
		case <-p.ctx.Done():
			return
		}
	}
}

func (p *push) close() { p.cancel() }

func (p *push) wait() { p.cancel(); p.wg.Wait() }

// greet opens a stream to the server that is believed to lead and exchanges
// hellos. sent is when the hello went out: the lease counts from there.
func (c *Client) greet(ctx context.Context, hello *wire.Hello) (p *push, w *wire.Welcome, sent time.Time, err error) {
	conn, moves, err := c.finder.dial(ctx)
	if err != nil {
		c.finder.failed(moves, "")
		return nil, nil, sent, err
	}
	p, w, sent, err = c.exchange(ctx, conn, hello)
	if err == nil && wire.Code(w.Code) == wire.OK {
		return p, w, sent, nil
	}
	if p != nil {
		p.close()
		p.stream.Close()
	}
	hint := hintOf(err)
	if err == nil {
		hint = w.Leader
		err = &wire.Error{Code: wire.Code(w.Code), Op: "hello", Leader: w.Leader}
	}
	if wire.CodeOf(err) != wire.NoSession {
		c.finder.failed(moves, hint)
	}
	return nil, nil, sent, err
}

func (c *Client) exchange(ctx context.Context, conn transport.Conn, hello *wire.Hello) (*push, *wire.Welcome, time.Time, error) {
	s, err := conn.Stream(c.ctx, wire.MethodSession)
	if err != nil {
		return nil, nil, time.Time{}, err
	}
	p := newPush(c.ctx, s)
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	sent := time.Now()
	if err := s.Send(&wire.FromClient{Op: &wire.FromClient_Hello{Hello: hello}}); err != nil {
		return p, nil, sent, err
	}
	m, err := s.Recv()
	if err != nil {
		return p, nil, sent, err
	}
	msg, _ := m.(*wire.Push)
	if msg.GetWelcome() == nil {
		return p, nil, sent, wire.Errorf(wire.Internal, "hello", "", "the first message from the leader is no welcome")
	}
	return p, msg.GetWelcome(), sent, nil
}
