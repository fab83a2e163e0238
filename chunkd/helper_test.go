package chunkd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

var testKey = bytes.Repeat([]byte{7}, block.KeySize)

// seeded returns a source that QUERN_SEED, if set, repeats.
func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("QUERN_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("QUERN_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		le.PutUint64(b[i:], r.Uint64())
	}
	for i := n &^ 7; i < n; i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}

// shardBytes are what the tests store as (block, index): the same every time.
func shardBytes(id shardID, n int) []byte {
	return randomBytes(rand.New(rand.NewPCG(id.block, uint64(id.index))), n)
}

func testConfig(dir string) Config {
	return Config{Dir: dir, Node: 1, Key: testKey, Reserve: -1, ScrubEvery: -1, HeartbeatEvery: 50 * time.Millisecond}
}

func openStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func putRequest(id shardID, data []byte) *wire.PutShard {
	leaves := block.Leaves(data)
	root := block.Root(len(data), leaves)
	return &wire.PutShard{Block: id.block, Index: id.index, Length: uint32(len(data)), Leaves: leaves, Root: root[:]}
}

func put(t testing.TB, s *Store, id shardID, data []byte) {
	t.Helper()
	req := putRequest(id, data)
	proof, err := s.Put(t.Context(), req, data)
	if err != nil {
		t.Fatal(err)
	}
	if !block.VerifyProof(testKey, s.cfg.Node, id.block, id.index, req.Length, req.Root, proof) {
		t.Fatalf("%v: the proof does not verify", id)
	}
}

// get reads a whole shard and verifies it.
func get(s *Store, id shardID) ([]byte, error) {
	l, err := s.Locate(context.Background(), id.block, id.index)
	if err != nil {
		return nil, err
	}
	p := make([]byte, l.Length)
	if _, err := s.ReadAt(context.Background(), id.block, id.index, p, 0); err != nil {
		return nil, err
	}
	if !block.VerifyRange(l.Leaves, 0, p) {
		return nil, wire.Errorf(wire.Corrupt, "get", id.String(), "bad bytes")
	}
	return p, nil
}

func mustHave(t testing.TB, s *Store, id shardID, want []byte) {
	t.Helper()
	got, err := get(s, id)
	if err != nil {
		t.Fatalf("%v: %v", id, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%v: the bytes differ", id)
	}
}

func mustCode(t testing.TB, err error, want wire.Code) {
	t.Helper()
	if wire.CodeOf(err) != want {
		t.Fatalf("got %v (code %d), want %v", err, wire.CodeOf(err), want)
	}
}

// damage flips a bit of a shard on the disk.
func damage(t testing.TB, s *Store, id shardID, at int) {
	t.Helper()
	l, err := s.Locate(t.Context(), id.block, id.index)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, s.segmentPath(l.Segment), l.Off+int64(at))
}

func flip(t testing.TB, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// copyDir copies a store's directory, as a crash at this moment would leave it
// to the next start. It starts anew when the index changes its files meanwhile.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	for {
		to, before := t.TempDir(), indexFiles(t, from)
		err := copyTree(from, to)
		if err == nil && indexFiles(t, from) == before {
			return to
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// indexFiles tells the files of a store's index and their sizes. Whatever Pebble does
// makes its manifest grow, so a copy is of one moment if they are the same before and
// after it.
func indexFiles(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "index"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			fmt.Fprintln(&all, e.Name(), info.Size())
		}
	}
	return all.String()
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(filepath.Join(to, rel))
		if err != nil {
			return err
		}
		defer out.Close()
		_, err = io.Copy(out, in)
		return err
	})
}

// faults makes the disk below segments fail.
type faults struct {
	mu    sync.Mutex
	write error // what WriteAt and Allocate return
	sync  error // what Datasync returns
	syncs int
}

func (x *faults) set(write, sync error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.write, x.sync = write, sync
}

func (x *faults) get() (write, sync error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.write, x.sync
}

func (x *faults) wrap(_ string, f file) file { return &faultyFile{f, x} }

type faultyFile struct {
	file
	x *faults
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if err, _ := f.x.get(); err != nil {
		n, _ := f.file.WriteAt(p[:len(p)/2], off) // a short write
		return n, err
	}
	return f.file.WriteAt(p, off)
}

func (f *faultyFile) Allocate(off, n int64) error {
	if err, _ := f.x.get(); err != nil {
		return err
	}
	return f.file.Allocate(off, n)
}

func (f *faultyFile) Datasync() error {
	f.x.mu.Lock()
	f.x.syncs++
	err := f.x.sync
	f.x.mu.Unlock()
	if err != nil {
		return err
	}
	return f.file.Datasync()
}

// network joins clients with the stores of a test, as a Dialer.
type network struct {
	mu    sync.Mutex
	nodes map[string]*testNode
}

// testNode is one chunk server on the network.
type testNode struct {
	id       uint32
	store    *Store
	handlers map[wire.Method]transport.Handler
	kind     transport.Kind
	role     string // the callers'

	mu    sync.Mutex
	down  bool
	stall map[wire.Method]chan struct{} // calls wait until it is closed, or their context ends
	calls map[wire.Method]int
}

func (n *testNode) Handle(m wire.Method, _ []string, h transport.Handler) { n.handlers[m] = h }

func (n *testNode) setDown(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}

// hold makes calls of m wait; the returned function lets them go on.
func (n *testNode) hold(m wire.Method) (release func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ch := make(chan struct{})
	n.stall[m] = ch
	return sync.OnceFunc(func() {
		n.mu.Lock()
		delete(n.stall, m)
		n.mu.Unlock()
		close(ch)
	})
}

func (n *testNode) count(m wire.Method) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls[m]
}

func (w *network) Get(_ context.Context, ep *wire.Endpoint) (transport.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.nodes[ep.GetServer()]
	if n == nil {
		return nil, wire.Errorf(wire.Unavailable, "connect", ep.GetServer(), "nobody there")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return nil, wire.Errorf(wire.Unavailable, "connect", ep.GetServer(), "connection refused")
	}
	return testConn{n}, nil
}

type testConn struct{ n *testNode }

func (c testConn) Kind() transport.Kind  { return c.n.kind }
func (c testConn) Close() error          { return nil }
func (c testConn) Done() <-chan struct{} { return nil }
func (c testConn) Stream(context.Context, wire.Method) (transport.Stream, error) {
	return nil, wire.Unsupported
}

func (c testConn) do(ctx context.Context, m wire.Method, req proto.Message, payload []byte) (transport.Reply, error) {
	c.n.mu.Lock()
	down, stall, h := c.n.down, c.n.stall[m], c.n.handlers[m]
	c.n.calls[m]++
	c.n.mu.Unlock()
	if down {
		return transport.Reply{}, wire.Errorf(wire.Unavailable, m.String(), "", "connection lost")
	}
	if stall != nil {
		select {
		case <-stall:
		case <-ctx.Done():
			return transport.Reply{}, &wire.Error{Code: wire.CodeOf(ctx.Err()), Op: m.String(), Err: ctx.Err()}
		}
	}
	reply, err := h(ctx, &transport.Request{Method: m, Msg: req, Payload: payload, Peer: transport.Peer{Role: c.n.role, Kind: c.n.kind}})
	if err != nil {
		return reply, wire.ToFailure(err).Err() // as it travels
	}
	return reply, nil
}

func release(r transport.Reply) {
	if r.Release != nil {
		r.Release()
	}
}

func (c testConn) Call(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, error) {
	r, err := c.do(ctx, m, req, nil)
	defer release(r)
	return r.Msg, err
}

func (c testConn) CallBulk(ctx context.Context, m wire.Method, req proto.Message, payload [][]byte, into []byte) (proto.Message, int, error) {
	var body []byte
	if len(payload) > 0 { // this client sends one piece
		body = payload[0]
	}
	r, err := c.do(ctx, m, req, body)
	defer release(r)
	if err != nil {
		return nil, 0, err
	}
	n := 0
	for _, p := range r.Payload {
		n += copy(into[n:], p)
	}
	return r.Msg, n, nil
}

func (c testConn) CallFile(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, *os.File, error) {
	if c.n.kind == transport.QUIC {
		return nil, nil, wire.Unsupported
	}
	r, err := c.do(ctx, m, req, nil)
	defer release(r)
	if err != nil {
		return nil, nil, err
	}
	fd, err := syscall.Dup(int(r.File.Fd()))
	return r.Msg, os.NewFile(uintptr(fd), r.File.Name()), err
}

// cluster is a client and n chunk servers.
type cluster struct {
	t      testing.TB
	net    *network
	nodes  []*testNode // nodes[i] has id i+1
	client *Client

	mu  sync.Mutex
	bad []*wire.BadShard
}

func newCluster(t testing.TB, n int, kind transport.Kind) *cluster {
	return newClusterIn(t, n, kind, t.TempDir())
}

func newClusterIn(t testing.TB, n int, kind transport.Kind, dir string) *cluster {
	c := &cluster{t: t, net: &network{nodes: map[string]*testNode{}}}
	for i := range n {
		cfg := testConfig(filepath.Join(dir, strconv.Itoa(i+1)))
		cfg.Node = uint32(i + 1)
		node := &testNode{
			id: cfg.Node, store: openStore(t, cfg), kind: kind, role: "client",
			handlers: map[wire.Method]transport.Handler{}, stall: map[wire.Method]chan struct{}{}, calls: map[wire.Method]int{},
		}
		node.store.Register(node)
		c.net.nodes[serverOf(node.id)] = node
		c.nodes = append(c.nodes, node)
	}
	c.client = c.newClient(10 * time.Second)
	return c
}

func serverOf(id uint32) string { return fmt.Sprintf("chunkd-%d", id) }

func (c *cluster) newClient(timeout time.Duration) *Client {
	client := NewClient(ClientConfig{Pool: c.net, Timeout: timeout, Log: slog.New(slog.DiscardHandler), OnBad: func(b *wire.BadShard) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.bad = append(c.bad, b)
	}})
	client.SetNodes(c.status())
	client.SetCapability(block.Capability(testKey, 1, time.Now().Add(time.Hour)))
	c.t.Cleanup(func() { client.Close() })
	return client
}

// fresh returns a client that remembers nothing.
func (c *cluster) fresh() *Client { return c.newClient(10 * time.Second) }

func (c *cluster) status() []*wire.NodeStatus {
	var out []*wire.NodeStatus
	for _, n := range c.nodes {
		out = append(out, &wire.NodeStatus{Alive: true, Node: &wire.Node{Id: n.id, Kind: "chunkd", Endpoint: &wire.Endpoint{Server: serverOf(n.id)}}})
	}
	return out
}

// reported says whether OnBad was told of a shard.
func (c *cluster) reported(block uint64, index uint32, corrupt bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.bad {
		if b.Block == block && b.Index == index && b.Corrupt == corrupt {
			return true
		}
	}
	return false
}

// ticket places shard i on server i+1.
func ticket(id uint64, p block.Policy) *wire.Ticket {
	t := &wire.Ticket{Block: id}
	for i := range p.Shards() {
		t.Servers = append(t.Servers, uint32(i+1))
	}
	return t
}

func (c *cluster) write(id uint64, p block.Policy, data []byte) *wire.Block {
	c.t.Helper()
	b, err := c.client.WriteBlock(c.t.Context(), p, ticket(id, p), nil, data)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}
