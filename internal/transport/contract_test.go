package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// The contract of Conn: every kind of connection passes the same tests.

func query(t testing.TB, c Conn, n uint64) *wire.Answer {
	t.Helper()
	a, err := Call[*wire.Answer](testContext(t), c, wire.MethodQuery, &wire.Query{Session: n})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestCall(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		c := newRig(t, kind, echoMux()).conn()
		for n := range uint64(100) {
			if a := query(t, c, n); a.Index != n {
				t.Fatalf("got %d, want %d", a.Index, n)
			}
		}
		if a := query(t, c, 1); a.Message != "client:one" {
			t.Errorf("the server sees %q", a.Message)
		}
	})
}

func TestCallWithoutDeadline(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		var left atomic.Int64
		m := NewMux()
		HandleCall(m, wire.MethodQuery, nil, func(ctx context.Context, _ Peer, _ *wire.Query) (*wire.Answer, error) {
			if d, ok := ctx.Deadline(); ok {
				left.Store(int64(time.Until(d)))
			}
			return &wire.Answer{}, nil
		})
		c := newRig(t, kind, m).conn()
		if _, err := c.Call(context.Background(), wire.MethodQuery, &wire.Query{}); err != nil {
			t.Fatal(err)
		}
		if l := left.Load(); l < DefaultTimeout/2 || l > DefaultTimeout+int64(time.Second) {
			t.Errorf("the handler has %v left", time.Duration(l))
		}
	})
}

// Long messages go their own way: the same contract.
func TestLongMessage(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		m := NewMux()
		HandleCall(m, wire.MethodMutate, nil, func(_ context.Context, _ Peer, q *wire.Command) (*wire.Result, error) {
			return &wire.Result{Message: q.GetCreate().GetName()}, nil
		})
		c := newRig(t, kind, m).conn()
		for _, n := range []int{0, 1, readBuffer - 20, readBuffer, smallMessage, smallMessage + 1, 1 << 20, min(MaxMessage-64, largest)} {
			s := strings.Repeat("x", n)
			req := &wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Name: s}}}
			r, err := Call[*wire.Result](testContext(t), c, wire.MethodMutate, req)
			if err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
			if r.Message != s {
				t.Fatalf("%d bytes come back as %d", n, len(r.Message))
			}
		}
	})
}

func TestOversized(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		m := echoMux()
		long := strings.Repeat("x", MaxMessage)
		HandleCall(m, wire.MethodMutate, nil, func(_ context.Context, _ Peer, q *wire.Command) (*wire.Result, error) {
			return &wire.Result{Message: long}, nil
		})
		c := newRig(t, kind, m).conn()
		ctx := testContext(t)
		if kind != InProcess { // a message in memory has no encoded length
			_, err := c.Call(ctx, wire.MethodMutate, &wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Name: long}}})
			wantCode(t, err, wire.Range)
			_, err = c.Call(ctx, wire.MethodMutate, &wire.Command{})
			wantCode(t, err, wire.Range)
		}
		_, _, err := c.CallBulk(ctx, wire.MethodPutShard, &wire.PutShard{}, [][]byte{make([]byte, MaxPayload), {0}}, nil)
		wantCode(t, err, wire.Range)
		_, _, err = c.CallBulk(ctx, wire.MethodGetShard, &wire.GetShard{Len: 101}, nil, make([]byte, 100))
		wantCode(t, err, wire.Range)
		query(t, c, 1) // the connection lives
	})
}

func TestBulk(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		c := newRig(t, kind, echoMux()).conn()
		ctx := testContext(t)
		into := make([]byte, largest)
		for _, n := range []int{0, 1, 4095, 4097, 70_000, 1 << 20, 3<<20 + 17, largest} {
			data := pattern(n, n)
			for _, payload := range [][][]byte{{data}, {data[:n/3], data[n/3 : n/2], data[n/2:]}} {
				resp, got, err := c.CallBulk(ctx, wire.MethodPutShard, &wire.PutShard{Length: uint32(n)}, payload, nil)
				if err != nil || got != 0 {
					t.Fatalf("put %d: %d, %v", n, got, err)
				}
				if want := fmt.Sprint(n, " ", sum(data)); string(resp.(*wire.PutShardReply).Proof) != want {
					t.Fatalf("put %d: the server has %s, want %s", n, resp.(*wire.PutShardReply).Proof, want)
				}
			}
			resp, got, err := c.CallBulk(ctx, wire.MethodGetShard, &wire.GetShard{Off: uint32(n), Len: uint32(n)}, nil, into)
			if err != nil || got != n || resp.(*wire.GetShardReply).Length != uint32(n) {
				t.Fatalf("get %d: %d, %v", n, got, err)
			}
			if !bytes.Equal(into[:got], data) {
				t.Fatalf("get %d: other bytes", n)
			}
		}
	})
}

// A reply may be made of the request's own payload.
func TestBulkBothWays(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		released := make(chan struct{}, 1)
		m := NewMux()
		m.Handle(wire.MethodPutShard, nil, func(_ context.Context, r *Request) (Reply, error) {
			return Reply{Msg: &wire.PutShardReply{}, Payload: [][]byte{r.Payload}, Release: func() { released <- struct{}{} }}, nil
		})
		c := newRig(t, kind, m).conn()
		for n := range 20 {
			data := pattern(n, 100_000)
			into := make([]byte, len(data))
			_, got, err := c.CallBulk(testContext(t), wire.MethodPutShard, &wire.PutShard{}, [][]byte{data}, into)
			if err != nil || got != len(data) || !bytes.Equal(into, data) {
				t.Fatalf("%d bytes, %v", got, err)
			}
			soon(t, "Release", released)
		}
	})
}

func TestConcurrent(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		c := newRig(t, kind, echoMux()).conn()
		ctx := testContext(t)
		var wg sync.WaitGroup
		for g := range 64 {
			wg.Go(func() {
				into := make([]byte, 200_000)
				for i := range 30 {
					n := uint64(g*1000 + i)
					a, err := Call[*wire.Answer](ctx, c, wire.MethodQuery, &wire.Query{Session: n})
					if err != nil || a.Index != n {
						t.Errorf("call %d: %v, %v", n, a, err)
						return
					}
					if i%5 > 0 {
						continue
					}
					size := 1 + int(n*7919)%len(into)
					_, got, err := c.CallBulk(ctx, wire.MethodGetShard, &wire.GetShard{Off: uint32(n), Len: uint32(size)}, nil, into)
					if err != nil || !bytes.Equal(into[:got], pattern(int(n), size)) {
						t.Errorf("get %d: %d bytes, %v", n, got, err)
						return
					}
					data := pattern(int(n)+1, size)
					resp, _, err := c.CallBulk(ctx, wire.MethodPutShard, &wire.PutShard{}, [][]byte{data}, nil)
					if err != nil || string(resp.(*wire.PutShardReply).Proof) != fmt.Sprint(size, " ", sum(data)) {
						t.Errorf("put %d: %v, %v", n, resp, err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// waitingMux has a handler that waits for its context's end, and tells of its
// start and its end.
func waitingMux() (m *Mux, started, ended chan struct{}) {
	m = echoMux()
	started, ended = make(chan struct{}, 100), make(chan struct{}, 100)
	wait := func(ctx context.Context, _ *Request) (Reply, error) {
		started <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return Reply{}, ctx.Err()
	}
	m.Handle(wire.MethodLock, nil, wait)
	m.Handle(wire.MethodOpenShard, nil, wait)
	m.Handle(wire.MethodSegmentFD, nil, wait)
	return m, started, ended
}

// waits are the ways to call a handler of waitingMux.
func waits(kind Kind) map[string]func(context.Context, Conn) error {
	w := map[string]func(context.Context, Conn) error{
		"call": func(ctx context.Context, c Conn) error {
			_, err := c.Call(ctx, wire.MethodLock, &wire.LockCall{})
			return err
		},
		"bulk": func(ctx context.Context, c Conn) error {
			_, _, err := c.CallBulk(ctx, wire.MethodOpenShard, &wire.OpenShard{}, [][]byte{pattern(1, 1000)}, nil)
			return err
		},
	}
	if kind != QUIC {
		w["file"] = func(ctx context.Context, c Conn) error {
			_, _, err := c.CallFile(ctx, wire.MethodSegmentFD, &wire.SegmentFD{})
			return err
		}
	}
	return w
}

func TestDeadline(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		m, started, ended := waitingMux()
		c := newRig(t, kind, m).conn()
		for name, wait := range waits(kind) {
			t.Run(name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				defer cancel()
				err := wait(ctx, c)
				wantCode(t, err, wire.Timeout)
				if !strings.Contains(err.Error(), "server-1") {
					t.Errorf("the error does not name the peer: %v", err)
				}
				soon(t, "start of the handler", started)
				soon(t, "end of the handler", ended)
				query(t, c, 1)
			})
		}
	})
}

func TestCancel(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		m, started, ended := waitingMux()
		c := newRig(t, kind, m).conn()
		for name, wait := range waits(kind) {
			t.Run(name, func(t *testing.T) {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				failed := make(chan error, 1)
				go func() { failed <- wait(ctx, c) }()
				soon(t, "start of the handler", started)
				cancel()
				wantCode(t, <-failed, wire.Interrupted)
				soon(t, "the handler's context ends", ended)
				query(t, c, 1)
			})
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for _, wait := range waits(kind) {
			wantCode(t, wait(ctx, c), wire.Interrupted)
		}
		select {
		case <-started:
			t.Error("a call that was cancelled before it began got to the handler")
		default:
		}
	})
}

func TestErrors(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		var next atomic.Pointer[error]
		m := NewMux()
		m.Handle(wire.MethodQuery, nil, func(context.Context, *Request) (Reply, error) { return Reply{}, *next.Load() })
		m.Handle(wire.MethodPutShard, nil, func(context.Context, *Request) (Reply, error) { return Reply{}, *next.Load() })
		m.Handle(wire.MethodMutate, nil, func(context.Context, *Request) (Reply, error) { panic("a broken invariant") })
		m.Handle(wire.MethodPoll, nil, func(context.Context, *Request) (Reply, error) { return Reply{}, nil })
		c := newRig(t, kind, m).conn()
		ctx := testContext(t)
		for _, test := range []struct {
			err  error
			want wire.Error
		}{
			{wire.NotFound, wire.Error{Code: wire.NotFound}},
			{wire.Errorf(wire.NoSpace, "put shard", "block 4", "full"), wire.Error{Code: wire.NoSpace, Op: "put shard", Object: "block 4", Err: errors.New("full")}},
			{&wire.Error{Code: wire.NotLeader, Op: "mutate", Leader: "h:1"}, wire.Error{Code: wire.NotLeader, Op: "mutate", Leader: "h:1"}},
			{fmt.Errorf("deep: %w", &wire.Error{Code: wire.Stale, Op: "x"}), wire.Error{Code: wire.Stale, Op: "x"}},
			{errors.New("odd"), wire.Error{Code: wire.Internal, Err: errors.New("odd")}},
		} {
			next.Store(&test.err)
			_, err := c.Call(ctx, wire.MethodQuery, &wire.Query{})
			_, _, bulkErr := c.CallBulk(ctx, wire.MethodPutShard, &wire.PutShard{}, [][]byte{{1}}, nil)
			for _, err := range []error{err, bulkErr} {
				var e *wire.Error
				if !errors.As(err, &e) || e.Code != test.want.Code || e.Op != test.want.Op || e.Object != test.want.Object || e.Leader != test.want.Leader || e.Error() != test.want.Error() {
					t.Errorf("handler's %v arrives as %#v", test.err, err)
				}
			}
		}
		_, err := c.Call(ctx, wire.MethodMutate, &wire.Command{})
		wantCode(t, err, wire.Internal)
		if !strings.Contains(err.Error(), "a broken invariant") {
			t.Errorf("panic arrives as %v", err)
		}
		_, err = c.Call(ctx, wire.MethodPoll, &wire.Poll{})
		wantCode(t, err, wire.Internal)
		_, err = c.Call(ctx, wire.MethodHeartbeat, &wire.Heartbeat{})
		wantCode(t, err, wire.Unavailable)
		_, err = c.Stream(ctx, wire.MethodQuery)
		wantCode(t, err, wire.Invalid)
	})
}

func TestRoles(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		m := NewMux()
		roles := []string{"meta", "chunkd"}
		HandleCall(m, wire.MethodHeartbeat, roles, func(context.Context, Peer, *wire.Heartbeat) (*wire.HeartbeatReply, error) {
			return &wire.HeartbeatReply{}, nil
		})
		m.HandleStream(wire.MethodSession, roles, func(context.Context, Peer, Stream) error { return nil })
		r := newRig(t, kind, m)
		for _, role := range knownRoles {
			c := r.connOf(r.newPool(role))
			_, callErr := c.Call(testContext(t), wire.MethodHeartbeat, &wire.Heartbeat{})
			s, streamErr := c.Stream(testContext(t), wire.MethodSession)
			if s != nil {
				s.Close()
			}
			want := wire.Forbidden
			if role == "meta" || role == "chunkd" {
				want = wire.OK
			}
			wantCode(t, callErr, want)
			wantCode(t, streamErr, want)
		}
	})
}

func TestFiles(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		path := filepath.Join(t.TempDir(), "segment")
		if err := os.WriteFile(path, []byte("the bytes of a segment"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m := NewMux()
		m.Handle(wire.MethodSegmentFD, nil, func(_ context.Context, r *Request) (Reply, error) {
			switch r.Msg.(*wire.SegmentFD).Segment {
			case 0:
				return Reply{}, wire.NotFound
			case 1:
				return Reply{Msg: &wire.SegmentFDReply{}}, nil
			}
			return Reply{Msg: &wire.SegmentFDReply{}, File: f}, nil
		})
		c := newRig(t, kind, m).conn()
		ctx := testContext(t)
		if kind == QUIC {
			_, _, err := c.CallFile(ctx, wire.MethodSegmentFD, &wire.SegmentFD{Segment: 2})
			wantCode(t, err, wire.Unsupported)
			return
		}
		_, _, err = c.CallFile(ctx, wire.MethodSegmentFD, &wire.SegmentFD{})
		wantCode(t, err, wire.NotFound)
		_, _, err = c.CallFile(ctx, wire.MethodSegmentFD, &wire.SegmentFD{Segment: 1})
		wantCode(t, err, wire.Internal)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				_, got, err := c.CallFile(ctx, wire.MethodSegmentFD, &wire.SegmentFD{Segment: 2})
				if err != nil {
					t.Error(err)
					return
				}
				defer got.Close()
				b := make([]byte, 5)
				if _, err := got.ReadAt(b, 4); err != nil || string(b) != "bytes" {
					t.Errorf("read %q, %v", b, err)
				}
			})
		}
		wg.Wait()
		if _, err := f.Stat(); err != nil {
			t.Errorf("the server's own file: %v", err)
		}
	})
}

func renew(n uint64) *wire.FromClient {
	return &wire.FromClient{Op: &wire.FromClient_Renew{Renew: &wire.Renew{N: n}}}
}

func renewed(n uint64) *wire.Push {
	return &wire.Push{Op: &wire.Push_Renewed{Renewed: &wire.Renewed{N: n}}}
}

func TestStream(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		m := NewMux()
		m.HandleStream(wire.MethodSession, nil, func(ctx context.Context, p Peer, s Stream) error {
			for {
				msg, err := s.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				n := msg.(*wire.FromClient).GetRenew().GetN()
				if n == 999 {
					return wire.Errorf(wire.NoSession, "session", "7", "ended")
				}
				if n == 1000 {
					return nil
				}
				if err := s.Send(renewed(n)); err != nil {
					return err
				}
			}
		})
		c := newRig(t, kind, m).conn()
		open := func() Stream {
			s, err := c.Stream(testContext(t), wire.MethodSession)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}

		s := open()
		const n = 500
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range uint64(n) {
				if err := s.Send(renew(i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
		for i := range uint64(n) {
			msg, err := s.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if got := msg.(*wire.Push).GetRenewed().GetN(); got != i {
				t.Fatalf("got %d, want %d", got, i)
			}
		}
		wg.Wait()
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
		wantCode(t, s.Send(renew(1)), wire.Unavailable)
		_, err := s.Recv()
		wantCode(t, err, wire.Unavailable)

		// The handler's end comes after what it sent, as io.EOF or as its error.
		for _, end := range []uint64{999, 1000} {
			s := open()
			for _, i := range []uint64{1, 2, end} {
				if err := s.Send(renew(i)); err != nil {
					t.Fatal(err)
				}
			}
			for i := uint64(1); i <= 2; i++ {
				msg, err := s.Recv()
				if err != nil || msg.(*wire.Push).GetRenewed().GetN() != i {
					t.Fatalf("%v, %v", msg, err)
				}
			}
			_, err := s.Recv()
			if end == 999 {
				wantCode(t, err, wire.NoSession)
			} else if !errors.Is(err, io.EOF) {
				t.Errorf("an orderly end arrives as %v", err)
			}
			s.Close()
		}
	})
}

// A stream's handler learns of the client's end without receiving, and a
// blocked Recv of the opener ends with its context.
func TestStreamEnds(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		ended := make(chan struct{}, 1)
		m := NewMux()
		m.HandleStream(wire.MethodSession, nil, func(ctx context.Context, p Peer, s Stream) error {
			<-ctx.Done()
			ended <- struct{}{}
			return nil
		})
		c := newRig(t, kind, m).conn()
		for _, how := range []string{"close", "cancel"} {
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			s, err := c.Stream(ctx, wire.MethodSession)
			if err != nil {
				t.Fatal(err)
			}
			failed := make(chan error, 1)
			go func() {
				_, err := s.Recv()
				failed <- err
			}()
			want := wire.Unavailable
			if how == "close" {
				s.Close()
			} else {
				cancel()
				want = wire.Interrupted
			}
			wantCode(t, <-failed, want)
			soon(t, "end of the handler's context", ended)
		}
	})
}

// Close lets calls in flight finish; new ones are refused, streams end.
func TestServerCloseDrains(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		started, finish := make(chan struct{}, 10), make(chan struct{})
		m := echoMux()
		m.Handle(wire.MethodLock, nil, func(context.Context, *Request) (Reply, error) {
			started <- struct{}{}
			<-finish
			return Reply{Msg: &wire.LockReply{Code: 7}}, nil
		})
		m.Handle(wire.MethodOpenShard, nil, func(context.Context, *Request) (Reply, error) {
			started <- struct{}{}
			<-finish
			return Reply{Msg: &wire.OpenShardReply{}, Payload: [][]byte{pattern(1, 3<<20)}}, nil
		})
		m.HandleStream(wire.MethodSession, nil, func(ctx context.Context, _ Peer, s Stream) error {
			_, err := s.Recv()
			return err
		})
		r := newRig(t, kind, m)
		c := r.conn()
		stream, err := c.Stream(testContext(t), wire.MethodSession)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			resp, err := Call[*wire.LockReply](testContext(t), c, wire.MethodLock, &wire.LockCall{})
			if err != nil || resp.Code != 7 {
				t.Errorf("call in flight: %v, %v", resp, err)
			}
		})
		wg.Go(func() {
			into := make([]byte, 3<<20)
			_, n, err := c.CallBulk(testContext(t), wire.MethodOpenShard, &wire.OpenShard{}, nil, into)
			if err != nil || !bytes.Equal(into[:n], pattern(1, 3<<20)) {
				t.Errorf("bulk call in flight: %d, %v", n, err)
			}
		})
		soon(t, "first handler", started)
		soon(t, "second handler", started)
		closed := make(chan error, 1)
		go func() { closed <- r.server.Close(testContext(t)) }()
		soon(t, "the connection is known to end", c.Done())
		_, err = stream.Recv()
		wantCode(t, err, wire.Shutdown)
		_, err = c.Call(testContext(t), wire.MethodQuery, &wire.Query{})
		wantCode(t, err, wire.Shutdown)
		select {
		case err := <-closed:
			t.Fatalf("Close did not wait: %v", err)
		default:
		}
		close(finish)
		wg.Wait()
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
	})
}

// Close cancels the handlers that are not done in time.
func TestServerCloseCancels(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		m, started, ended := waitingMux()
		r := newRig(t, kind, m)
		c := r.conn()
		failed := make(chan error, 1)
		go func() {
			_, err := c.Call(testContext(t), wire.MethodLock, &wire.LockCall{})
			failed <- err
		}()
		soon(t, "handler", started)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if err := r.server.Close(ctx); err != nil {
			t.Fatal(err)
		}
		soon(t, "end of the handler", ended)
		err := <-failed
		if code := wire.CodeOf(err); code != wire.Shutdown && code != wire.Unavailable {
			t.Errorf("the call fails with %v", err)
		}
	})
}

// After the server comes back at the same address, the pool finds it.
func TestReconnect(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		r := newRig(t, kind, echoMux())
		for range 3 {
			c := r.conn()
			query(t, c, 1)
			r.stop()
			soon(t, "end of the connection", c.Done())
			r.start()
			ctx := testContext(t)
			var err error
			for { // a failure may still be remembered
				if c, err = r.pool.Get(ctx, r.server.Endpoint()); err == nil {
					break
				}
				wantCode(t, err, wire.Unavailable)
			}
			query(t, c, 2)
		}
	})
}

// A server that is down is found out at once, and costs little.
func TestDown(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		r := newRig(t, kind, echoMux())
		ep := r.server.Endpoint()
		r.stop()
		ctx, cancel := context.WithTimeout(context.Background(), dialLimit+2*time.Second)
		defer cancel()
		_, err := r.pool.Get(ctx, ep)
		wantCode(t, err, wire.Unavailable)
		start := time.Now()
		for range 100 {
			_, err := r.pool.Get(ctx, ep)
			wantCode(t, err, wire.Unavailable)
		}
		if d := time.Since(start); d > dialLimit { // to dial each time would take many of it
			t.Errorf("100 failures took %v", d)
		}
	})
}

func TestPoolShares(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		r := newRig(t, kind, echoMux())
		var wg sync.WaitGroup
		conns := make([]Conn, 32)
		for i := range conns {
			wg.Go(func() { conns[i], _ = r.pool.Get(r.ctx(), r.server.Endpoint()) })
		}
		wg.Wait()
		for _, c := range conns {
			if c == nil || c != conns[0] {
				t.Fatal("callers at one time got different connections")
			}
		}
		r.pool.Close()
		_, err := r.pool.Get(r.ctx(), r.server.Endpoint())
		wantCode(t, err, wire.Unavailable)
		_, err = conns[0].Call(r.ctx(), wire.MethodQuery, &wire.Query{})
		wantCode(t, err, wire.Unavailable)
	})
}

func TestDescribe(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		r := newRig(t, kind, NewMux())
		ep, err := Call[*wire.Endpoint](r.ctx(), r.conn(), wire.MethodDescribe, &wire.Empty{})
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(ep, r.server.Endpoint()) || ep.Host == "" || ep.Server != "server-1" {
			t.Errorf("described as %v", ep)
		}
	})
}
