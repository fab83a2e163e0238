package meta

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/client"
)

// rig is a cluster in this process, joined in process or by Unix sockets.
type rig struct {
	t       testing.TB
	unix    bool
	local   *transport.Local
	dir     string
	key     []byte
	timing  Timing
	lease   time.Duration
	sole    bool
	adjust  func(*Config)
	members []Member
	nodes   []*member
}

type member struct {
	Member
	dir    string
	server *transport.Server
	pool   *transport.Pool
	meta   *Server
}

func newRig(t testing.TB, n int, opts ...func(*rig)) *rig {
	r := &rig{t: t, local: transport.NewLocal(), dir: t.TempDir(), key: make([]byte, 32), lease: 2 * time.Second}
	for _, o := range opts {
		o(r)
	}
	for i := range n {
		m := Member{Name: fmt.Sprintf("meta-%d", i+1), Addr: fmt.Sprintf("meta-%d", i+1)}
		m.Endpoint = r.endpoint(m.Name)
		r.members = append(r.members, m)
	}
	for i := range n {
		r.nodes = append(r.nodes, &member{Member: r.members[i], dir: filepath.Join(r.dir, r.members[i].Name)})
	}
	if err := os.WriteFile(r.right(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		r.start(i)
	}
	r.whole()
	t.Cleanup(func() {
		for i := range r.nodes {
			r.stop(i)
		}
	})
	return r
}

// right is the file that lets the first member begin the cluster.
func (r *rig) right() string { return filepath.Join(r.dir, "right") }

// whole waits until all members that run vote.
func (r *rig) whole() {
	r.t.Helper()
	eventually(r.t, "all members vote", func() bool {
		for _, n := range r.nodes {
			if n.meta != nil && n.meta.group.Voters() != len(r.nodes) {
				return false
			}
		}
		return true
	})
}

func overUnix(r *rig) { r.unix = true }

func (r *rig) socket(name string) string { return filepath.Join(r.dir, name+".sock") }

func (r *rig) endpoint(name string) *wire.Endpoint {
	if r.unix {
		return &wire.Endpoint{Addr: name, Host: transport.HostID(), Unix: r.socket(name)}
	}
	return &wire.Endpoint{Addr: name, Server: name}
}

func testLog(t testing.TB) *slog.Logger {
	var out io.Writer = io.Discard
	if os.Getenv("QUERN_TEST_LOG") != "" {
		out = os.Stderr
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (r *rig) newPool(role, name string) *transport.Pool {
	cfg := transport.PoolConfig{Role: role, Name: name}
	if !r.unix {
		cfg.Local = r.local
	}
	return transport.NewPool(cfg)
}

func (r *rig) start(i int) {
	r.t.Helper()
	if err := r.tryStart(i, r.members, nil); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tryStart(i int, members []Member, join []*wire.Endpoint) error {
	n := r.nodes[i]
	mux := transport.NewMux()
	cfg := transport.ServerConfig{Mux: mux, Name: n.Name}
	if r.unix {
		cfg.UnixPath = r.socket(n.Name)
	} else {
		cfg.Local = r.local
	}
	srv, err := transport.NewServer(cfg)
	if err != nil {
		return err
	}
	pool := r.newPool("meta", n.Name)
	c := Config{
		Dir: n.dir, Name: n.Name, Addr: n.Addr, Key: r.key, Server: srv, Mux: mux, Pool: pool, Members: members, Join: join,
		Policy: block.Policy{K: 2, M: 1}, LeaseTime: r.lease, Timing: r.timing, Log: testLog(r.t),
	}
	if i == 0 {
		c.Right = r.right()
	}
	if r.adjust != nil {
		r.adjust(&c)
	}
	ctx, done := context.WithTimeout(context.Background(), 2*time.Minute)
	defer done()
	m, err := Open(ctx, c)
	if err != nil {
		srv.Close(ctx)
		pool.Close()
		return err
	}
	n.server, n.pool, n.meta = srv, pool, m
	return nil
}

// stop ends a member in an orderly way.
func (r *rig) stop(i int) {
	n := r.nodes[i]
	if n.meta == nil {
		return
	}
	ctx, done := context.WithTimeout(context.Background(), 2*time.Minute)
	defer done()
	if err := n.meta.Close(ctx); err != nil {
		r.t.Errorf("close %s: %v", n.Name, err)
	}
	n.server.Close(ctx)
	n.pool.Close()
	n.meta = nil
}

// kill cuts a member off at once: nothing is handed over.
func (r *rig) kill(i int) {
	n := r.nodes[i]
	gone, done := context.WithCancel(context.Background())
	done()
	n.server.Close(gone)
	n.pool.Close()
	n.meta.stop()
	n.meta = nil
}

func (r *rig) leader() int {
	r.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) {
		for i, n := range r.nodes {
			if n.meta != nil && n.meta.Leads() {
				return i
			}
		}
		pause(10 * time.Millisecond)
	}
	r.t.Fatal("no leader")
	return -1
}

// lead is the leader's half, for looking into.
func (r *rig) lead() *leader {
	r.t.Helper()
	l, err := r.nodes[r.leader()].meta.leading("test")
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

func pause(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		pause(5 * time.Millisecond)
	}
}

func (r *rig) servers() []*wire.Endpoint {
	var all []*wire.Endpoint
	for _, m := range r.members {
		all = append(all, m.Endpoint)
	}
	return all
}

// gate is a client's Dialer that can be shut.
type gate struct {
	pool *transport.Pool
	shut atomic.Bool
}

func (g *gate) Get(ctx context.Context, e *wire.Endpoint) (transport.Conn, error) {
	if g.shut.Load() {
		return nil, wire.Errorf(wire.Unavailable, "connect", "", "the network is cut")
	}
	return g.pool.Get(ctx, e)
}

func (g *gate) open() { g.shut.Store(false) }

// cut takes a user off the network: its stream ends and it reaches nobody.
func (r *rig) cut(u *user) {
	l := r.lead()
	id := u.Session()
	u.gate.shut.Store(true)
	l.mu.Lock()
	st := l.streams[id]
	l.mu.Unlock()
	st.close()
}

// user is a client with a holder that obeys.
type user struct {
	*client.Client
	gate *gate
	t    testing.TB
	mu   sync.Mutex

	held    map[uint64]*wire.Grant
	recalls map[uint64]uint64 // highest id seen
	locks   []*wire.LockClaim
	seen    []*wire.Recall
	open    map[uint64]bool
	events  []string
	nodes   []*wire.NodeStatus
	// onRecall, if set, runs before the answer.
	onRecall func(*wire.Recall)
	stuck    bool // answers no recall
	release  chan struct{}
}

func (r *rig) user(name string) *user {
	r.t.Helper()
	u := &user{t: r.t, gate: &gate{pool: r.newPool("client", name)}, held: map[uint64]*wire.Grant{}, recalls: map[uint64]uint64{}, open: map[uint64]bool{}, release: make(chan struct{})}
	ctx, done := context.WithTimeout(context.Background(), 2*time.Minute)
	defer done()
	c, err := client.Open(ctx, client.Config{Servers: r.servers(), Pool: u.gate, Name: name, Sole: r.sole, Holder: u, CallTimeout: 20 * time.Second, Log: testLog(r.t)})
	if err != nil {
		r.t.Fatal(err)
	}
	u.mu.Lock()
	u.Client = c
	u.mu.Unlock()
	r.t.Cleanup(func() {
		u.unstick()
		ctx, done := context.WithTimeout(context.Background(), 3*time.Second)
		defer done()
		c.Close(ctx)
		u.gate.pool.Close()
	})
	return u
}

func (u *user) unstick() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.release != nil {
		close(u.release)
		u.release = nil
	}
}

func (u *user) Recall(r *wire.Recall) *wire.Recalled {
	u.mu.Lock()
	u.seen = append(u.seen, r)
	f, stuck, release := u.onRecall, u.stuck, u.release
	u.mu.Unlock()
	if stuck && release != nil {
		<-release
	}
	if f != nil {
		f(r)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.recalls[r.Ino] = max(u.recalls[r.Ino], r.Id)
	a := &wire.Recalled{Id: r.Id, Ino: r.Ino}
	g := u.held[r.Ino]
	if g != nil {
		mode := min(g.Mode, r.Mode)
		if mode == wire.Mode_OPEN && !u.open[r.Ino] {
			mode = wire.Mode_NONE
		}
		if mode == wire.Mode_NONE {
			delete(u.held, r.Ino)
		} else {
			u.held[r.Ino] = &wire.Grant{Ino: g.Ino, Mode: mode, Id: g.Id}
		}
		a.Mode = mode
	}
	a.Open = u.open[r.Ino]
	return a
}

func (u *user) Held() []*wire.Grant {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []*wire.Grant
	for _, g := range u.held {
		all = append(all, g)
	}
	return all
}

func (u *user) Locks() []*wire.LockClaim {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.locks
}

func (u *user) Reclaimed(held []*wire.Grant) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = map[uint64]*wire.Grant{}
	for _, g := range held {
		u.held[g.Ino] = g
	}
	u.events = append(u.events, "reclaimed")
}

func (u *user) event(s string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.events = append(u.events, s)
}

func (u *user) Lapsed() { u.event("lapsed") }
func (u *user) Ended() {
	u.event("ended")
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = map[uint64]*wire.Grant{}
	u.locks = nil
}
func (u *user) Nodes(n []*wire.NodeStatus) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.nodes = n
}
func (u *user) Capability([]byte) {}

// note records grants by the rules.
func (u *user) note(grants []*wire.Grant) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, g := range grants {
		if g.Id > u.recalls[g.Ino] && g.Id > u.Floor() {
			u.held[g.Ino] = g
		}
	}
}

func (u *user) mode(ino uint64) wire.Mode {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.held[ino].GetMode()
}

func (u *user) had(f func(*wire.Recall) bool) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range u.seen {
		if f(r) {
			return true
		}
	}
	return false
}

func (u *user) happened(event string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range u.events {
		if e == event {
			return true
		}
	}
	return false
}

var root = &wire.Cred{}

func testCtx(t testing.TB) context.Context {
	ctx, done := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(done)
	return ctx
}

func (u *user) do(cmd *wire.Command) (*wire.Result, error) {
	cmd.Cred = root
	r, err := u.Do(testCtx(u.t), cmd)
	if r != nil {
		u.note(r.Grants)
	}
	return r, err
}

func (u *user) must(cmd *wire.Command) *wire.Result {
	u.t.Helper()
	r, err := u.do(cmd)
	if err != nil {
		u.t.Fatal(err)
	}
	return r
}

func (u *user) ask(q *wire.Query) (*wire.Answer, error) {
	q.Cred = root
	a, err := u.Ask(testCtx(u.t), q)
	if a != nil {
		u.note(a.Grants)
	}
	return a, err
}

func (u *user) mustAsk(q *wire.Query) *wire.Answer {
	u.t.Helper()
	a, err := u.ask(q)
	if err != nil {
		u.t.Fatal(err)
	}
	return a
}

func create(dir uint64, name string) *wire.Command {
	return &wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: dir, Name: name, Mode: typeFile | 0o644, Exclusive: true}}}
}

func mkdir(dir uint64, name string) *wire.Command {
	return &wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: dir, Name: name, Mode: typeDir | 0o755}}}
}

func unlink(dir uint64, name string) *wire.Command {
	return &wire.Command{Op: &wire.Command_Unlink{Unlink: &wire.Unlink{Parent: dir, Name: name}}}
}

func chmod(ino uint64, mode uint32) *wire.Command {
	return &wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: ino, Mask: wire.SetMode, Mode: mode}}}
}

func getInode(ino uint64, lease bool) *wire.Query {
	return &wire.Query{Op: &wire.Query_GetInode{GetInode: &wire.GetInode{Ino: ino, Lease: lease}}}
}

func lookup(dir uint64, name string) *wire.Query {
	return &wire.Query{Op: &wire.Query_Lookup{Lookup: &wire.Lookup{Parent: dir, Name: name, Lease: true}}}
}

func acquire(ino uint64, mode wire.Mode) *wire.Query {
	return &wire.Query{Op: &wire.Query_Acquire{Acquire: &wire.Acquire{Ino: ino, Mode: mode}}}
}
