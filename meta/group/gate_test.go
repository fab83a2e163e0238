package group

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
)

// beats is a transport that only hands heartbeats over.
type beats struct {
	Transport
	handler func(raft.RPC)
}

func (b *beats) Consumer() <-chan raft.RPC            { return nil }
func (b *beats) SetHeartbeatHandler(f func(raft.RPC)) { b.handler = f }
func (b *beats) Close() error                         { return nil }

// TestHeartbeatAtTheEnd: Close waits for a heartbeat that is being handled, and
// none is handled afterwards, when the log that raft would write to is closed.
func TestHeartbeatAtTheEnd(t *testing.T) {
	inner := new(beats)
	g := newGate(nil, inner)
	entered := make(chan struct{})
	var ended atomic.Bool
	handled := 0
	g.SetHeartbeatHandler(func(raft.RPC) {
		handled++
		close(entered)
		<-g.done // Close is under way
		for range 1000 {
			runtime.Gosched()
		}
		ended.Store(true)
	})
	go inner.handler(raft.RPC{})
	<-entered
	g.Close()
	if !ended.Load() {
		t.Error("closed while a heartbeat was being handled")
	}
	inner.handler(raft.RPC{})
	if handled != 1 {
		t.Errorf("%d heartbeats were handled", handled)
	}
}
