package transport

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// Once pool and server are closed, no goroutine of this package is left,
// whatever was going on.
func TestNoGoroutineLeft(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		m, started, _ := waitingMux()
		m.HandleStream(wire.MethodSession, nil, func(_ context.Context, _ Peer, s Stream) error {
			_, err := s.Recv()
			return err
		})
		r := newRig(t, kind, m)
		c := r.conn()
		query(t, c, 1)
		s, err := c.Stream(testContext(t), wire.MethodSession)
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 3)
		calls := waits(kind)
		for _, wait := range calls {
			go func() { failed <- wait(testContext(t), c) }()
		}
		for range calls {
			soon(t, "start of a handler", started)
		}
		r.pool.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		if err := r.server.Close(ctx); err != nil {
			t.Error(err)
		}
		for range calls {
			if err := <-failed; err == nil {
				t.Error("a call was answered by nobody")
			}
		}
		s.Close()
		deadline := time.Now().Add(2 * time.Minute)
		for {
			left := ours()
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
			}
			<-time.After(5 * time.Millisecond)
		}
	})
}

// ours are the goroutines that run code of this package and are no tests.
func ours() []string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var left []string
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "internal/transport.") && !strings.Contains(g, "testing.tRunner") && !strings.Contains(g, "testing.(*M).Run") {
			left = append(left, g)
		}
	}
	return left
}
