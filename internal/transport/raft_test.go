package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"quernfs/internal/wire"
)

// raftNode is a meta server as raft sees it.
type raftNode struct {
	server *Server
	pool   *Pool
	layer  *RaftLayer
}

// raftNodes makes n nodes that reach each other in one way.
func raftNodes(t *testing.T, kind Kind, n int) []*raftNode {
	local := NewLocal()
	nodes := make([]*raftNode, n)
	byAddr := map[string]*wire.Endpoint{}
	for i := range nodes {
		id := pki().issue(pki().ca, "meta", string(rune('a'+i)))
		conf := ServerConfig{Mux: NewMux(), Identity: id, Name: "meta-" + id.Name, Addr: "127.0.0.1:0"}
		if kind == InProcess {
			conf.Local = local
		}
		if kind == Unix {
			conf.UnixPath = filepath.Join(t.TempDir(), "s")
		}
		s, err := NewServer(conf)
		if err != nil {
			t.Fatal(err)
		}
		pool := NewPool(PoolConfig{Identity: id, Local: local, Force: kind})
		addr := s.Endpoint().Addr
		byAddr[addr] = s.Endpoint()
		nodes[i] = &raftNode{server: s, pool: pool, layer: NewRaftLayer(s, pool, addr)}
		nodes[i].layer.Resolve = func(addr string) *wire.Endpoint { return byAddr[addr] }
		t.Cleanup(func() {
			nodes[i].layer.Close()
			pool.Close()
			s.Close(testContext(t))
		})
	}
	return nodes
}

func dialRaft(t *testing.T, from, to *raftNode) (near, far net.Conn) {
	t.Helper()
	near, err := from.layer.Dial(raft.ServerAddress(to.layer.Addr().String()), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	far, err = to.layer.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// The streams are net.Conns: bytes both ways, deadlines, an end.
func TestRaftStreams(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		nodes := raftNodes(t, kind, 2)
		near, far := dialRaft(t, nodes[0], nodes[1])
		data := pattern(3, 3<<20)
		var wg sync.WaitGroup
		for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
			wg.Go(func() {
				if _, err := pair[0].Write(data); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				got := make([]byte, len(data))
				if _, err := io.ReadFull(pair[1], got); err != nil || sum(got) != sum(data) {
					t.Errorf("other bytes, or %v", err)
				}
			})
		}
		wg.Wait()

		for _, c := range []net.Conn{near, far} {
			if err := c.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			_, err := c.Read(make([]byte, 1))
			var ne net.Error
			if !errors.Is(err, os.ErrDeadlineExceeded) && (!errors.As(err, &ne) || !ne.Timeout()) {
				t.Errorf("after the deadline: %v", err)
			}
			if err := c.SetDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		wg.Go(func() { near.Write([]byte("x")) })
		if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
			t.Errorf("after a deadline that was taken back: %v", err)
		}
		wg.Wait()

		near.Close()
		if _, err := far.Read(make([]byte, 1)); err == nil {
			t.Error("the end of one side is not the end of the other")
		}
		if near.LocalAddr() == nil || near.RemoteAddr() == nil {
			t.Error("no addresses")
		}
	})
}

func TestRaftClose(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		nodes := raftNodes(t, kind, 2)
		near, far := dialRaft(t, nodes[0], nodes[1])
		nodes[1].layer.Close()
		if _, err := nodes[1].layer.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
		if err := nodes[1].server.Close(testContext(t)); err != nil {
			t.Error(err)
		}
		for _, c := range []net.Conn{near, far} {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("a stream outlives its server")
			}
		}
		if _, err := nodes[0].layer.Dial(nodes[1].address(), time.Second); err == nil {
			t.Error("a closed server was reached")
		}
	})
}

func (n *raftNode) address() raft.ServerAddress {
	return raft.ServerAddress(n.layer.Addr().String())
}

// Only meta servers may speak raft.
func TestRaftRole(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		nodes := raftNodes(t, kind, 1)
		pool := NewPool(PoolConfig{Identity: pki().ids["chunkd"], Local: nodes[0].pool.cfg.Local, Force: kind})
		defer pool.Close()
		l := NewRaftLayer(nodes[0].server, pool, "nowhere:1")
		l.Resolve = func(string) *wire.Endpoint { return nodes[0].server.Endpoint() }
		_, err := l.Dial(nodes[0].address(), 5*time.Second)
		wantCode(t, err, wire.Forbidden)
	})
}

// Three real raft nodes elect a leader and replicate over the layer.
func TestRaftCluster(t *testing.T) {
	each(t, func(t *testing.T, kind Kind) {
		nodes := raftNodes(t, kind, 3)
		var servers []raft.Server
		for _, n := range nodes {
			servers = append(servers, raft.Server{ID: raft.ServerID(n.address()), Address: n.address()})
		}
		var rafts []*raft.Raft
		var fsms []*raft.MockFSM
		for _, n := range nodes {
			conf := raft.DefaultConfig()
			conf.LocalID = raft.ServerID(n.address())
			conf.HeartbeatTimeout, conf.ElectionTimeout = 500*time.Millisecond, 500*time.Millisecond
			conf.LeaderLeaseTimeout, conf.CommitTimeout = 500*time.Millisecond, 5*time.Millisecond
			conf.LogOutput = io.Discard
			store := raft.NewInmemStore()
			tr := raft.NewNetworkTransport(n.layer, 3, 5*time.Second, io.Discard)
			if err := raft.BootstrapCluster(conf, store, store, raft.NewInmemSnapshotStore(), tr, raft.Configuration{Servers: servers}); err != nil {
				t.Fatal(err)
			}
			fsm := &raft.MockFSM{}
			r, err := raft.NewRaft(conf, fsm, store, store, raft.NewInmemSnapshotStore(), tr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := r.Shutdown().Error(); err != nil {
					t.Error(err)
				}
				tr.Close()
			})
			rafts, fsms = append(rafts, r), append(fsms, fsm)
		}
		leader := waitLeader(t, rafts)
		for i := range 50 {
			if err := leader.Apply(pattern(i, 100), 10*time.Second).Error(); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range fsms { // raft counts an entry as applied before it has been
			deadline := time.Now().Add(2 * time.Minute)
			for len(f.Logs()) < 50 {
				if time.Now().After(deadline) {
					t.Fatalf("%d of 50 entries applied", len(f.Logs()))
				}
				<-time.After(time.Millisecond)
			}
		}
	})
}

func waitLeader(t *testing.T, rafts []*raft.Raft) *raft.Raft {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		for _, r := range rafts {
			if r.State() == raft.Leader {
				return r
			}
		}
		select {
		case <-deadline:
			t.Fatal("no leader")
		case <-time.After(5 * time.Millisecond):
		}
	}
}
