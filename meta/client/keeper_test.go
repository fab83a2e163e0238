package client

import (
	"context"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// cluster is a leader that does as it is told.
type cluster struct {
	mu       sync.Mutex
	down     bool
	silent   bool // renewals get no answer
	ended    map[uint64]bool
	sessions uint64
	streams  []*pipe
	hellos   []*wire.Hello
	commands []*wire.Command
	hold     chan struct{} // commands wait for it
	grants   []*wire.Grant // of every result
}

func (c *cluster) Get(context.Context, *wire.Endpoint) (transport.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, wire.Errorf(wire.Unavailable, "connect", "", "down")
	}
	return fakeConn{c}, nil
}

type fakeConn struct{ c *cluster }

func (f fakeConn) Call(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, error) {
	c := f.c
	cmd, ok := req.(*wire.Command)
	if !ok {
		return &wire.Answer{}, nil
	}
	c.mu.Lock()
	c.commands = append(c.commands, cmd)
	hold, grants := c.hold, c.grants
	if cmd.GetOpenSession() != nil {
		c.sessions++
		r := &wire.Result{Value: c.sessions}
		c.mu.Unlock()
		return r, nil
	}
	if c.ended[cmd.Session] {
		c.mu.Unlock()
		return nil, wire.NoSession
	}
	c.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, wire.Errorf(wire.Timeout, "call", "", "late")
		}
	}
	return &wire.Result{Grants: grants}, nil
}

func (f fakeConn) CallBulk(context.Context, wire.Method, proto.Message, [][]byte, []byte) (proto.Message, int, error) {
	return nil, 0, wire.Unsupported
}
func (f fakeConn) CallFile(context.Context, wire.Method, proto.Message) (proto.Message, *os.File, error) {
	return nil, nil, wire.Unsupported
}
func (f fakeConn) Kind() transport.Kind  { return transport.InProcess }
func (f fakeConn) Done() <-chan struct{} { return nil }
func (f fakeConn) Close() error          { return nil }

func (f fakeConn) Stream(context.Context, wire.Method) (transport.Stream, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	p := &pipe{c: f.c, down: make(chan *wire.Push, 64), closed: make(chan struct{})}
	f.c.streams = append(f.c.streams, p)
	return p, nil
}

// pipe is the client's end of a push stream.
type pipe struct {
	c      *cluster
	down   chan *wire.Push
	once   sync.Once
	closed chan struct{}
}

const testLease = 8 * time.Second

func (p *pipe) Send(m proto.Message) error {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch op := m.(*wire.FromClient).Op.(type) {
	case *wire.FromClient_Hello:
		c.hellos = append(c.hellos, op.Hello)
		w := &wire.Welcome{LeaseMs: uint64(testLease / time.Millisecond), Held: op.Hello.Held}
		if c.ended[op.Hello.Session] {
			w = &wire.Welcome{Code: uint32(wire.NoSession)}
		}
		p.down <- &wire.Push{Op: &wire.Push_Welcome{Welcome: w}}
	case *wire.FromClient_Renew:
		if !c.silent {
			p.down <- &wire.Push{Op: &wire.Push_Renewed{Renewed: &wire.Renewed{N: op.Renew.N}}}
		}
	}
	return nil
}

func (p *pipe) Recv() (proto.Message, error) {
	select {
	case m := <-p.down:
		return m, nil
	case <-p.closed:
		return nil, wire.Unavailable
	}
}

func (p *pipe) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

// log is a Holder that notes what happens, and when.
type log struct {
	mu     sync.Mutex
	start  time.Time
	events []string
	times  map[string]time.Duration
	held   []*wire.Grant
}

func (l *log) note(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, s)
	l.times[s] = time.Since(l.start)
}

func (l *log) Recall(r *wire.Recall) *wire.Recalled {
	l.note("recall")
	return &wire.Recalled{Id: r.Id, Ino: r.Ino}
}
func (l *log) Held() []*wire.Grant      { l.mu.Lock(); defer l.mu.Unlock(); return l.held }
func (l *log) Locks() []*wire.LockClaim { return nil }
func (l *log) Reclaimed([]*wire.Grant)  { l.note("reclaimed") }
func (l *log) Lapsed()                  { l.note("lapsed") }
func (l *log) Ended()                   { l.note("ended") }
func (l *log) Nodes([]*wire.NodeStatus) {}
func (l *log) Capability([]byte)        {}

func (l *log) want(t *testing.T, events ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.events, events) {
		t.Fatalf("happened: %v, want %v", l.events, events)
	}
}

func inBubble(t *testing.T, f func(t *testing.T, c *cluster, l *log, cl *Client)) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{ended: map[uint64]bool{}}
		l := &log{start: time.Now(), times: map[string]time.Duration{}, held: []*wire.Grant{{Ino: 5, Mode: wire.Mode_WRITE, Id: 7}}}
		cl, err := Open(context.Background(), Config{Servers: []*wire.Endpoint{{Addr: "a"}, {Addr: "b"}}, Pool: c, Holder: l, Host: "h"})
		if err != nil {
			t.Fatal(err)
		}
		f(t, c, l, cl)
		c.mu.Lock()
		c.down = false
		c.mu.Unlock()
		if err := cl.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// stream is the latest push stream.
func (c *cluster) stream() *pipe {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[len(c.streams)-1]
}

func (c *cluster) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func TestRenewalsKeepTheLease(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, l *log, cl *Client) {
		time.Sleep(time.Hour) // of the bubble's clock
		synctest.Wait()
		l.want(t)
		if n := len(c.streams); n != 1 {
			t.Fatalf("%d streams", n)
		}
	})
}

func TestLapseThenReclaim(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, l *log, cl *Client) {
		time.Sleep(time.Minute)
		c.set(func() { c.silent, c.down = true, true })
		time.Sleep(time.Minute)
		synctest.Wait()
		l.want(t, "lapsed")
		// The last renewal was sent at the minute or up to a quarter of the lease
		// before; nine tenths of the lease later it was over.
		if at := l.times["lapsed"] - time.Minute; at > testLease*9/10 || at < testLease*9/10-testLease/4 {
			t.Errorf("lapsed %v after the servers fell silent", at)
		}
		c.set(func() { c.silent, c.down = false, false })
		time.Sleep(time.Second)
		synctest.Wait()
		l.want(t, "lapsed", "reclaimed")
		last := c.hellos[len(c.hellos)-1]
		if len(last.Held) != 1 || last.Held[0].Ino != 5 {
			t.Errorf("the hello says: %v", last)
		}
	})
}

func TestShortInterruptionIsNoLapse(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, l *log, cl *Client) {
		c.set(func() { c.down = true })
		c.stream().Close()
		time.Sleep(3 * time.Second)
		c.set(func() { c.down = false })
		time.Sleep(time.Second)
		// A recall sent right behind the welcome comes after it.
		c.stream().down <- &wire.Push{Op: &wire.Push_Recall{Recall: &wire.Recall{Id: 9, Ino: 5}}}
		synctest.Wait()
		l.want(t, "reclaimed", "recall")
	})
}

func TestSilentLeaderIsLeft(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, l *log, cl *Client) {
		c.set(func() { c.silent = true })
		time.Sleep(5 * time.Second)
		c.set(func() { c.silent = false })
		time.Sleep(time.Second)
		synctest.Wait()
		if len(c.streams) < 2 {
			t.Fatal("the client waits for a server that does not answer")
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if slices.Contains(l.events, "lapsed") {
			t.Errorf("happened: %v", l.events)
		}
	})
}

func TestEndedSessionIsReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, l *log, cl *Client) {
		old := cl.Session()
		c.set(func() { c.ended[old] = true })
		_, err := cl.Do(context.Background(), &wire.Command{Op: &wire.Command_SetAttr{}})
		if wire.CodeOf(err) != wire.NoSession {
			t.Fatalf("got %v", err)
		}
		// The next one waits for the new session, and belongs to it.
		if _, err := cl.Do(context.Background(), &wire.Command{Op: &wire.Command_SetAttr{}}); wire.CodeOf(err) == wire.NoSession {
			synctest.Wait()
			_, err = cl.Do(context.Background(), &wire.Command{Op: &wire.Command_SetAttr{}})
			if err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		l.want(t, "ended")
		last := c.commands[len(c.commands)-1]
		if last.Session == old || last.Seq != 1 {
			t.Errorf("the command went out as %d of session %d", last.Seq, last.Session)
		}
		if _, err := cl.Do(context.Background(), &wire.Command{Session: old, Op: &wire.Command_SetAttr{}}); wire.CodeOf(err) != wire.NoSession {
			t.Errorf("a command of the old session: %v", err)
		}
	})
}

func TestGrantsOfAnEarlierConnectionAreVoid(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, l *log, cl *Client) {
		c.set(func() { c.grants = []*wire.Grant{{Ino: 6, Mode: wire.Mode_READ, Id: 40}} })
		r, err := cl.Do(context.Background(), &wire.Command{Op: &wire.Command_SetAttr{}})
		if err != nil || len(r.Grants) != 1 {
			t.Fatalf("%v %v", r, err)
		}
		if cl.Floor() != 0 {
			t.Fatalf("floor %d", cl.Floor())
		}
		hold := make(chan struct{})
		c.set(func() { c.hold = hold; c.grants = []*wire.Grant{{Ino: 6, Mode: wire.Mode_READ, Id: 41}} })
		got := make(chan *wire.Result, 1)
		go func() {
			r, _ := cl.Do(context.Background(), &wire.Command{Op: &wire.Command_SetAttr{}})
			got <- r
		}()
		synctest.Wait()
		c.stream().Close()
		time.Sleep(time.Second)
		synctest.Wait()
		close(hold)
		if r := <-got; len(r.Grants) != 0 {
			t.Errorf("a grant from before the reconnection: %v", r)
		}
		if cl.Floor() != 40 {
			t.Errorf("floor %d", cl.Floor())
		}
	})
}

func TestSequence(t *testing.T) {
	var s sequence
	take := func() uint64 { n, _ := s.take(); return n }
	a, b, c := take(), take(), take()
	s.done(b)
	if _, low := s.take(); low != a {
		t.Errorf("low %d while %d is open", low, a)
	}
	s.done(a)
	if _, low := s.take(); low != c {
		t.Errorf("low %d, want %d", low, c)
	}
	if len(s.above) != 0 {
		t.Errorf("kept: %v", s.above)
	}
}

func TestFinderFollowsHints(t *testing.T) {
	f := newFinder([]*wire.Endpoint{{Addr: "a:1"}, {Addr: "b:1"}}, nil)
	_, moves := f.target()
	f.failed(moves, "b:1")
	if e, _ := f.target(); e.Addr != "b:1" {
		t.Fatalf("at %v", e)
	}
	f.failed(moves, "") // an old failure moves nothing
	if e, _ := f.target(); e.Addr != "b:1" {
		t.Fatalf("at %v", e)
	}
	_, moves = f.target()
	f.failed(moves, "c:1") // not among those configured
	if e, _ := f.target(); e.Addr != "c:1" {
		t.Fatalf("at %v", e)
	}
}
