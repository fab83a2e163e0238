package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"quernfs/chunkd"
	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta"
	"quernfs/meta/client"
)

// cluster is a whole cluster in this process: one metadata server and chunk
// servers, joined by function calls.
type cluster struct {
	t     testing.TB
	dir   string
	local *transport.Local
	log   *slog.Logger
	ep    *wire.Endpoint
	names atomic.Int32
	store chunkd.Config // what every chunk server has of it
}

func newCluster(t testing.TB, servers int, policy string, change ...func(*cluster)) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), local: transport.NewLocal()}
	for _, f := range change {
		f(c)
	}
	level := slog.LevelWarn
	if os.Getenv("QUERN_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	for _, d := range []string{c.dir, filepath.Dir(c.dir)} {
		must(t, os.Chmod(d, 0o755)) // other users are to get at the mounts
	}
	c.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	key := []byte("0123456789abcdef0123456789abcdef")
	p, err := block.ParsePolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	server, mux, pool := c.serve("meta", "meta-1")
	right := filepath.Join(c.dir, "right")
	must(t, os.WriteFile(right, nil, 0o600))
	m, err := meta.Open(t.Context(), meta.Config{
		Right: right,
		Dir:   filepath.Join(c.dir, "meta-1"), Name: "meta-1", Addr: "meta-1", Key: key, Server: server, Mux: mux, Pool: pool, Policy: p,
		Members: []meta.Member{{Name: "meta-1", Addr: "meta-1", Endpoint: server.Endpoint()}}, Log: c.log,
		Timing: meta.Timing{Heartbeat: 200 * time.Millisecond, LeaderLease: 150 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.closes("meta", m.Close)
	c.ep = server.Endpoint()
	for i := range servers {
		c.chunkd(fmt.Sprintf("chunkd-%d", i+1), key)
	}
	return c
}

func (c *cluster) closes(what string, f func(context.Context) error) {
	c.t.Cleanup(func() {
		ctx, done := context.WithTimeout(context.Background(), 2*time.Minute)
		defer done()
		if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
			c.t.Errorf("close %s: %v", what, err)
		}
	})
}

func (c *cluster) serve(role, name string) (*transport.Server, *transport.Mux, *transport.Pool) {
	mux := transport.NewMux()
	s, err := transport.NewServer(transport.ServerConfig{Mux: mux, Local: c.local, Name: name, Log: c.log})
	if err != nil {
		c.t.Fatal(err)
	}
	c.closes(name, s.Close)
	return s, mux, c.pool(role, name)
}

func (c *cluster) pool(role, name string) *transport.Pool {
	p := transport.NewPool(transport.PoolConfig{Local: c.local, Role: role, Name: name, Log: c.log})
	c.closes(name, func(context.Context) error { return p.Close() })
	return p
}

type beats struct{ c *client.Client }

func (b beats) Heartbeat(ctx context.Context, hb *wire.Heartbeat) (*wire.HeartbeatReply, error) {
	resp, err := b.c.Call(ctx, wire.MethodHeartbeat, hb)
	if err != nil {
		return nil, err
	}
	return resp.(*wire.HeartbeatReply), nil
}

func (c *cluster) chunkd(name string, key []byte) {
	server, mux, pool := c.serve("chunkd", name)
	cl, err := client.Open(c.t.Context(), client.Config{Servers: []*wire.Endpoint{c.ep}, Pool: pool, Name: name, Log: c.log})
	if err != nil {
		c.t.Fatal(err)
	}
	c.closes(name, cl.Close)
	id, err := cl.RegisterNode(c.t.Context(), &wire.Node{Name: name, Kind: "chunkd", Endpoint: server.Endpoint(), State: "up"})
	if err != nil {
		c.t.Fatal(err)
	}
	cfg := c.store
	cfg.Dir, cfg.Node, cfg.Key, cfg.Log = filepath.Join(c.dir, name), id, key, c.log
	store, err := chunkd.Open(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.closes(name, func(context.Context) error { return store.Close() })
	store.Register(mux)
	blocks := chunkd.NewClient(chunkd.ClientConfig{Pool: pool, Log: c.log})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx, beats{cl}, blocks) }()
	c.closes(name, func(context.Context) error { cancel(); return <-done })
}

// fs opens a session.
func (c *cluster) fs(change ...func(*Config)) *FS {
	c.t.Helper()
	name := fmt.Sprintf("client-%d", c.names.Add(1))
	pool := c.pool("client", name)
	chunks := chunkd.NewClient(chunkd.ClientConfig{Pool: pool, Log: c.log})
	c.closes(name, func(context.Context) error { return chunks.Close() })
	cfg := Config{Servers: []*wire.Endpoint{c.ep}, Pool: pool, Chunks: chunks, Name: name, Log: c.log}
	for _, f := range change {
		f(&cfg)
	}
	fs, err := New(c.t.Context(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.closes(name, fs.Close)
	return fs
}

// mount mounts a new session, and returns where.
func (c *cluster) mount(change ...func(*Config)) string {
	c.t.Helper()
	_, dir := c.mountFS(change...)
	return dir
}

func (c *cluster) mountFS(change ...func(*Config)) (*FS, string) {
	c.t.Helper()
	needRoot(c.t)
	fs := c.fs(change...)
	dir := filepath.Join(c.dir, "mnt-"+fs.cfg.Name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	m, err := fs.Mount(dir, MountOptions{Suid: true, Dev: true})
	if err != nil {
		c.t.Fatal(err)
	}
	c.closes("mount "+dir, m.Unmount)
	return fs, dir
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if testing.Short() {
		t.Skip("a kernel that waits for a server under the race detector, in one process, runs into its time limits")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse")
	}
}

// must stops the test at an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition that only time brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}
