package chunkd

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// The compile-time proof that the real ones fit.
var (
	_ Handlers = (*transport.Mux)(nil)
	_ Dialer   = (*transport.Pool)(nil)
)

// TestOverTransport writes and reads blocks over each kind of real connection,
// and goes on when a server is closed.
func TestOverTransport(t *testing.T) {
	dir := t.TempDir()
	ca, err := transport.CreateAuthority(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	issue := func(role string) *transport.Identity {
		at := filepath.Join(dir, role)
		if err := ca.Issue(role, "one", []string{"127.0.0.1"}, at); err != nil {
			t.Fatal(err)
		}
		id, err := transport.LoadIdentity(at)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	server, client := issue("chunkd"), issue("client")
	for name, kind := range map[string]transport.Kind{"in process": transport.InProcess, "unix": transport.Unix, "quic": transport.QUIC} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			local := transport.NewLocal()
			p := block.Policy{K: 2, M: 1}
			var nodes []*wire.NodeStatus
			var servers []*transport.Server
			for id := range uint32(3) {
				cfg := testConfig(filepath.Join(dir, serverOf(id+1)))
				cfg.Node = id + 1
				mux := transport.NewMux()
				openStore(t, cfg).Register(mux)
				sc := transport.ServerConfig{Mux: mux, Identity: server, Name: serverOf(id + 1)}
				switch kind {
				case transport.InProcess:
					sc.Local = local
				case transport.Unix:
					sc.UnixPath = filepath.Join(cfg.Dir, "sock")
				case transport.QUIC:
					sc.Addr = "127.0.0.1:0"
				}
				srv, err := transport.NewServer(sc)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { closeServer(t, srv) })
				servers = append(servers, srv)
				nodes = append(nodes, &wire.NodeStatus{Alive: true, Node: &wire.Node{Id: id + 1, Kind: "chunkd", Endpoint: srv.Endpoint()}})
			}
			pool := transport.NewPool(transport.PoolConfig{Identity: client, Local: local, Force: kind})
			t.Cleanup(func() { pool.Close() })
			newClient := func() *Client {
				c := NewClient(ClientConfig{Pool: pool})
				c.SetNodes(nodes)
				c.SetCapability(block.Capability(testKey, 1, time.Now().Add(time.Hour)))
				t.Cleanup(func() { c.Close() })
				return c
			}
			r := seeded(t)
			c := newClient()
			data := randomBytes(r, 1<<20+77)
			b, err := c.WriteBlock(t.Context(), p, ticket(1, p), nil, data)
			if err != nil {
				t.Fatal(err)
			}
			readSome(t, r, c, b, data)
			if kind != transport.QUIC && len(c.files.files) == 0 {
				t.Error("no file was passed")
			}
			closeServer(t, servers[0])
			readSome(t, r, newClient(), b, data)
			closeServer(t, servers[1])
			got := make([]byte, len(data))
			start := time.Now()
			mustCode(t, newClient().ReadBlock(t.Context(), b, got, 0), wire.Unavailable)
			if d := time.Since(start); d > 30*time.Second {
				t.Errorf("it took %v to fail", d)
			}
			if bytes.Equal(got, data) {
				t.Error("it was read from nowhere")
			}
		})
	}
}

func closeServer(t *testing.T, s *transport.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Errorf("closing a server: %v", err)
	}
}
