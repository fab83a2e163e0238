package transport

import (
	"os"
	"path/filepath"
	"testing"

	"quernfs/internal/wire"
)

// reachableServer serves in all three ways.
func reachableServer(t *testing.T, local *Local) *Server {
	t.Helper()
	s, err := NewServer(ServerConfig{
		Mux: echoMux(), Identity: pki().ids["meta"], Name: "server-1",
		Addr: "127.0.0.1:0", UnixPath: filepath.Join(t.TempDir(), "s"), Local: local,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(testContext(t)) })
	return s
}

// The pool takes the shortest way that the endpoint and the places of both ends
// allow.
func TestShortestWay(t *testing.T) {
	local := NewLocal()
	s := reachableServer(t, local)
	full := s.Endpoint()
	for name, test := range map[string]struct {
		ep    *wire.Endpoint
		local *Local
		want  Kind
	}{
		"same process":          {full, local, InProcess},
		"by name":               {&wire.Endpoint{Server: "server-1"}, local, InProcess},
		"by address":            {&wire.Endpoint{Addr: full.Addr}, local, InProcess},
		"same host":             {full, NewLocal(), Unix},
		"same host, by address": {&wire.Endpoint{Addr: full.Addr}, nil, Unix},
		"by socket":             {&wire.Endpoint{Unix: full.Unix}, nil, Unix},
		"another host":          {&wire.Endpoint{Addr: full.Addr, Unix: full.Unix, Host: "elsewhere", Server: "server-1"}, local, QUIC},
		"another process of the name": {
			&wire.Endpoint{Addr: full.Addr, Unix: full.Unix + "2", Host: full.Host, Server: "server-1"}, local, QUIC},
		"socket out of sight": {&wire.Endpoint{Addr: full.Addr, Unix: full.Unix + "2", Host: full.Host}, nil, QUIC},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewPool(PoolConfig{Identity: pki().ids["client"], Local: test.local})
			defer p.Close()
			c, err := p.Get(testContext(t), test.ep)
			if err != nil {
				t.Fatal(err)
			}
			if c.Kind() != test.want {
				t.Errorf("connected by %v, want %v", c.Kind(), test.want)
			}
			query(t, c, 1)
		})
	}
}

func TestUnreachable(t *testing.T) {
	p := NewPool(PoolConfig{Role: "client", Name: "one"})
	defer p.Close()
	_, err := p.Get(testContext(t), &wire.Endpoint{Server: "nobody"})
	wantText(t, err, "no such server in this process")
	_, err = p.Get(testContext(t), &wire.Endpoint{Addr: "127.0.0.1:1"})
	wantText(t, err, "this process has none")
}

// A server that listens everywhere lends its port to the pool: what a peer sees
// is the address that it would itself dial.
func TestOnePort(t *testing.T) {
	far := reachableServer(t, nil)
	near, err := NewServer(ServerConfig{Mux: NewMux(), Identity: pki().ids["chunkd"], Addr: ":0"})
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close(testContext(t))
	p := NewPool(PoolConfig{Identity: pki().ids["chunkd"], Server: near, Force: QUIC})
	defer p.Close()
	c, err := p.Get(testContext(t), far.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	query(t, c, 1)
	if p.dialer.udp != nil {
		t.Error("the pool has opened a port of its own")
	}
}

func TestListenRefusals(t *testing.T) {
	s := reachableServer(t, nil)
	ep := s.Endpoint()
	conf := ServerConfig{Mux: NewMux(), Identity: pki().ids["meta"], Name: "two"}

	quic := conf
	quic.Addr = ep.Addr
	_, err := NewServer(quic)
	wantText(t, err, "the UDP port is in use")
	quic.Addr = "nonsense"
	_, err = NewServer(quic)
	wantText(t, err, "is no address to listen on")
	quic.Addr, quic.Identity = "127.0.0.1:0", nil
	_, err = NewServer(quic)
	wantText(t, err, "QUIC needs a certificate")

	unix := conf
	unix.UnixPath = ep.Unix
	_, err = NewServer(unix)
	wantText(t, err, "another server listens there")
	unix.UnixPath = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(unix.UnixPath, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = NewServer(unix)
	wantText(t, err, "in the way and not a socket")
	unix.UnixPath = "/" + string(make([]byte, maxSocketPath))
	_, err = NewServer(unix)
	wantText(t, err, "at most 107 bytes")

	local := conf
	local.Local = NewLocal()
	first, err := NewServer(local)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close(testContext(t))
	local.Addr = "127.0.0.1:0"
	_, err = NewServer(local)
	wantCode(t, err, wire.Exists)
	if p := NewPool(PoolConfig{Local: local.Local}); must(p.Get(testContext(t), first.Endpoint())).Kind() != InProcess {
		t.Error("the refused server took the place of the first")
	}
}

// A socket that a killed server left behind is no obstacle, and only its owner
// may use it.
func TestSocketLeftBehind(t *testing.T) {
	r := newRig(t, Unix, echoMux())
	path := r.conf.UnixPath
	r.server.unix.SetUnlinkOnClose(false)
	r.stop()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	r.start()
	query(t, r.connOf(r.newPool("client")), 1)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	r.stop()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	r.start()
}
