package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"quernfs/chunkd"
	"quernfs/fs"
	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta"
	"quernfs/meta/client"
)

// Config says what is simulated.
type Config struct {
	Seed    uint64
	Members int // metadata servers
	Servers int // chunk servers
	Clients int
	Policy  block.Policy
	Rounds  int           // each with its faults, and a check at its end
	Round   time.Duration // of simulated time, before everything is mended
	Log     *slog.Logger
}

// ConfigOf is the cluster of a seed: most have three members and 2+1.
func ConfigOf(seed uint64) Config {
	r := stream(seed, "config")
	cfg := Config{
		Seed:    seed,
		Members: [...]int{3, 3, 3, 3, 5, 1}[r.IntN(6)],
		Policy:  [...]block.Policy{{K: 2, M: 1}, {K: 2, M: 1}, {K: 1, M: 1}, {K: 1, M: 2}, {K: 3, M: 2}}[r.IntN(5)],
		Clients: 2 + r.IntN(3),
		Rounds:  1,
		Round:   time.Minute,
	}
	cfg.Servers = cfg.Policy.K + cfg.Policy.M + 1 + r.IntN(3)
	return cfg
}

var key = []byte("0123456789abcdef0123456789abcdef")

// gone is a context that is over: what is closed with it does not linger.
func gone() context.Context {
	ctx, done := context.WithCancel(context.Background())
	done()
	return ctx
}

// cluster is all hosts of one simulation.
type cluster struct {
	cfg     Config
	log     *slog.Logger
	net     *network
	crashes *rand.Rand // what disks keep

	members []*member
	servers []*server
	clients []*mount

	ends sync.WaitGroup // of killed processes

	digests  map[uint64]digest // of the state, by entry
	glances  int
	scrubbed int64
	rotten   *server // a bit of its disk was turned over, and nobody has scrubbed since

	mu    sync.Mutex
	wrong []string
	began time.Time
}

// violation notes that something happened that must not.
func (c *cluster) violation(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := fmt.Sprintf("after %v: ", time.Since(c.began).Round(time.Millisecond)) + fmt.Sprintf(format, args...)
	c.log.Error("VIOLATION", "what", text)
	if len(c.wrong) < 50 {
		c.wrong = append(c.wrong, text)
	}
}

// right is the file that lets the first member begin the cluster.
const right = "/right"

func newCluster(cfg Config) *cluster {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &cluster{cfg: cfg, log: cfg.Log, net: newNetwork(cfg.Seed), crashes: stream(cfg.Seed, "crashes"), began: time.Now(), digests: map[uint64]digest{}}
	for i := range cfg.Members {
		c.members = append(c.members, &member{c: c, host: fmt.Sprintf("meta-%d", i+1), disk: newDisk()})
	}
	c.members[0].disk.touch(right)
	for i := range cfg.Servers {
		c.servers = append(c.servers, &server{c: c, host: fmt.Sprintf("chunkd-%d", i+1), disk: newDisk()})
	}
	for i := range cfg.Clients {
		c.clients = append(c.clients, &mount{c: c, slot: i})
	}
	return c
}

// start starts everything for the first time.
func (c *cluster) start() error {
	for _, m := range c.members {
		if err := m.start(); err != nil {
			return err
		}
	}
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	if err := c.members[0].meta.WaitLeader(ctx); err != nil {
		return err
	}
	for c.lacksMembers() != "" {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the members do not come together: %w", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, s := range c.servers {
		if err := s.start(); err != nil {
			return err
		}
	}
	for _, m := range c.clients {
		if err := m.start(); err != nil {
			return err
		}
	}
	return nil
}

// endpoints of the metadata servers.
func (c *cluster) endpoints() []*wire.Endpoint {
	var all []*wire.Endpoint
	for _, m := range c.members {
		all = append(all, endpoint(m.host))
	}
	return all
}

// later runs what ends a killed process.
func (c *cluster) later(f func()) { c.ends.Go(f) }

// member is a metadata server's host.
type member struct {
	c    *cluster
	host string
	disk *disk

	proc *process // nil: not running
	pool *transport.Pool
	meta *meta.Server
}

func (m *member) start() error {
	p, err := m.c.net.start("meta", m.host)
	if err != nil {
		return err
	}
	var members []meta.Member
	for _, o := range m.c.members {
		members = append(members, meta.Member{Name: o.host, Addr: o.host, Endpoint: endpoint(o.host)})
	}
	pool := p.pool()
	s, err := meta.Open(context.Background(), meta.Config{
		Disk: m.disk.meta(), Dir: "/meta", Name: m.host, Addr: m.host, Key: key, Server: p.server, Mux: p.mux, Pool: pool, Members: members, Right: right,
		Policy: m.c.cfg.Policy, DeleteDelay: 20 * time.Second, DeadAfter: 2 * time.Minute, Log: m.c.log,
		Timing: meta.Timing{SnapshotLag: 300, Segment: 128 << 10, TicketLife: 10 * time.Minute, Courtesy: 2 * time.Minute},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", m.host, err)
	}
	m.proc, m.pool, m.meta = p, pool, s
	return nil
}

// crash ends the member as a power cut would: its disk keeps what was synced.
func (m *member) crash(quiet bool) {
	p, pool, s := m.proc, m.pool, m.meta
	p.kill(quiet)
	m.disk = m.disk.crash(m.c.crashes)
	m.proc, m.pool, m.meta = nil, nil, nil
	m.c.later(func() {
		p.server.Close(gone())
		s.Close(gone())
		pool.Close()
	})
}

// wipe ends the member, and its disk is lost.
func (m *member) wipe() {
	m.crash(true)
	m.disk = newDisk()
}

// stop ends it in an orderly way.
func (m *member) stop() error {
	p, pool, s := m.proc, m.pool, m.meta
	m.proc, m.pool, m.meta = nil, nil, nil
	ctx, done := context.WithTimeout(context.Background(), 20*time.Second)
	defer done()
	err := s.Close(ctx)
	p.server.Close(ctx)
	pool.Close()
	p.kill(false)
	m.disk = &disk{mem: m.disk.mem}
	return err
}

// server is a chunk server's host.
type server struct {
	c    *cluster
	host string
	disk *disk

	run *serverRun // nil: not running
}

// serverRun is one process of a chunk server.
type serverRun struct {
	proc  *process
	store atomic.Pointer[chunkd.Store] // nil: not yet open
	end   func(context.Context)
}

// beats are a chunk server's heartbeats.
type beats struct{ c *client.Client }

func (b beats) Heartbeat(ctx context.Context, hb *wire.Heartbeat) (*wire.HeartbeatReply, error) {
	resp, err := b.c.Call(ctx, wire.MethodHeartbeat, hb)
	if err != nil {
		return nil, err
	}
	return resp.(*wire.HeartbeatReply), nil
}

func (s *server) start() error {
	p, err := s.c.net.start("chunkd", s.host)
	if err != nil {
		return err
	}
	pool := p.pool()
	cl, err := client.Open(context.Background(), client.Config{Servers: s.c.endpoints(), Pool: pool, Name: s.host, Host: s.host, Log: s.c.log})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	blocks := chunkd.NewClient(chunkd.ClientConfig{Pool: pool, Log: s.c.log})
	disk, run := s.disk, &serverRun{proc: p}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// As `quern chunkd` does: without a metadata server it waits.
		id, err := uint32(0), errors.New("not registered")
		for err != nil && ctx.Err() == nil {
			id, err = cl.RegisterNode(ctx, &wire.Node{Name: s.host, Kind: "chunkd", Endpoint: endpoint(s.host), State: "up", Labels: []*wire.Label{{Key: "host", Value: s.host}}})
		}
		if ctx.Err() != nil {
			return
		}
		store, err := chunkd.Open(chunkd.Config{
			Disk: disk, Dir: "/chunkd", Node: id, Key: key, SegmentSize: 1 << 20, ScrubEvery: 10 * time.Minute,
			InventoryEvery: 5 * time.Minute, Log: s.c.log,
		})
		if err != nil {
			if !p.killed() {
				s.c.violation("start %s: %v", s.host, err)
			}
			return
		}
		run.store.Store(store)
		store.Register(p.mux)
		store.Run(ctx, beats{cl}, blocks)
	}()
	run.end = func(closing context.Context) {
		cancel()
		<-done
		p.server.Close(closing)
		blocks.Close()
		cl.Close(closing)
		pool.Close()
		if store := run.store.Load(); store != nil {
			store.Close()
		}
	}
	s.run = run
	return nil
}

// crash ends the server as a power cut would.
func (s *server) crash(quiet bool) {
	run := s.run
	run.proc.kill(quiet)
	s.disk = s.disk.crash(s.c.crashes)
	s.run = nil
	s.c.later(func() { run.end(gone()) })
}

// mount is a client's host, and the file system of its present process.
type mount struct {
	c    *cluster
	slot int

	mu sync.Mutex
	*session
	starts int
}

// session is one process of a client. It is a client of the history: what
// comes after it under the same slot is another.
type session struct {
	number int
	proc   *process
	fs     *fs.FS
	end    func(context.Context) error
}

func (m *mount) start() error {
	m.starts++
	number := m.starts*100 + m.slot
	host := fmt.Sprintf("client-%d", m.slot+1)
	p, err := m.c.net.start("client", host)
	if err != nil {
		return err
	}
	pool := p.pool()
	plain, err := client.Open(context.Background(), client.Config{Servers: m.c.endpoints(), Pool: pool, Name: host, Host: host, Log: m.c.log})
	if err != nil {
		return err
	}
	var reports sync.WaitGroup
	chunks := chunkd.NewClient(chunkd.ClientConfig{Pool: pool, Log: m.c.log, OnBad: func(b *wire.BadShard) {
		reports.Go(func() { plain.Call(context.Background(), wire.MethodBadShard, b) })
	}})
	f, err := fs.New(context.Background(), fs.Config{
		Servers: m.c.endpoints(), Pool: pool, Chunks: chunks, Name: host, Host: host,
		DirtyLimit: 8 << 20, CacheBytes: 8 << 20, Log: m.c.log,
	})
	if err != nil {
		p.kill(false)
		m.c.later(func() { plain.Close(gone()); chunks.Close(); p.server.Close(gone()); pool.Close() })
		return fmt.Errorf("start %s: %w", host, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session = &session{number: number, proc: p, fs: f, end: func(ctx context.Context) error {
		err := f.Close(ctx)
		reports.Wait()
		plain.Close(ctx)
		chunks.Close()
		p.server.Close(ctx)
		pool.Close()
		return err
	}}
	return nil
}

// now is the present session; nil: none.
func (m *mount) now() *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.session
}

// crash ends the process at once; what it had not flushed is lost.
func (m *mount) crash(quiet bool) *session {
	m.mu.Lock()
	s := m.session
	m.session = nil
	m.mu.Unlock()
	s.proc.kill(quiet)
	m.c.later(func() { s.end(gone()) })
	return s
}
