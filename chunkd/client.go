package chunkd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// Dialer finds connections; *transport.Pool is one.
type Dialer interface {
	Get(ctx context.Context, ep *wire.Endpoint) (transport.Conn, error)
}

// ClientConfig says how a Client works. Only Pool must be given.
type ClientConfig struct {
	Pool Dialer
	Log  *slog.Logger
	// OnBad is told of shards that are missing or fail their digest. It is
	// called from the reader's goroutine, at most once a minute for each, and
	// must return soon.
	OnBad   func(*wire.BadShard)
	Timeout time.Duration // for each attempt at one shard; default 10 s
	// CacheBytes bounds the leaf digests kept; default 16 MiB.
	CacheBytes int
}

// Client writes and reads blocks on chunk servers. All methods may be called
// concurrently; a zero cluster map knows no server, so SetNodes comes first.
type Client struct {
	cfg   ClientConfig
	log   *slog.Logger
	cache *shardCache
	files *clientFiles
	speed latency
	bad   *recent[shardOn] // reported not long ago

	mu         sync.RWMutex // guards what follows
	nodes      map[uint32]*wire.NodeStatus
	capability []byte
	failing    map[uint32]time.Time      // when a server last failed to answer
	full       map[uint32]time.Time      // when a server last had no room
	kinds      map[uint32]transport.Kind // how servers are reached
}

// shardOn is a shard as one server holds it.
type shardOn struct {
	id     shardID
	server uint32
}

const (
	// A server that failed is avoided for so long while there are others.
	failingFor = 15 * time.Second
	reportFor  = time.Minute
)

// NewClient makes a client; it dials when asked.
func NewClient(cfg ClientConfig) *Client {
	setDefault(&cfg.Timeout, 10*time.Second)
	setDefault(&cfg.CacheBytes, 16<<20)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{
		cfg: cfg, log: cfg.Log,
		cache:   newShardCache(cfg.CacheBytes),
		files:   newClientFiles(),
		bad:     newRecent[shardOn](reportFor, 4096),
		nodes:   map[uint32]*wire.NodeStatus{},
		failing: map[uint32]time.Time{},
		full:    map[uint32]time.Time{},
		kinds:   map[uint32]transport.Kind{},
	}
}

// SetNodes replaces the cluster map: where servers are and which are alive.
// Nodes of other kinds than "chunkd" and "edge" are ignored.
func (c *Client) SetNodes(nodes []*wire.NodeStatus) {
	m := make(map[uint32]*wire.NodeStatus, len(nodes))
	for _, n := range nodes {
		if kind := n.GetNode().GetKind(); kind == "" || kind == "chunkd" || kind == "edge" {
			m[n.GetNode().GetId()] = n
		}
	}
	c.mu.Lock()
	old := c.nodes
	c.nodes = m
	for id := range c.failing {
		if n := m[id]; n == nil || (n.GetAlive() && !old[id].GetAlive()) {
			delete(c.failing, id)
		}
	}
	c.mu.Unlock()
	for id, n := range old {
		if m[id] == nil || !sameEndpoint(n.GetNode().GetEndpoint(), m[id].GetNode().GetEndpoint()) {
			c.files.dropServer(id)
		}
	}
}

func sameEndpoint(a, b *wire.Endpoint) bool {
	return a.GetAddr() == b.GetAddr() && a.GetHost() == b.GetHost() && a.GetUnix() == b.GetUnix() && a.GetServer() == b.GetServer()
}

// SetCapability sets the token that calls show from now on.
func (c *Client) SetCapability(token []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.capability = slices.Clone(token)
}

// Failing returns the servers that failed this client, or were full, in the last
// seconds, for Allocate.avoid.
func (c *Client) Failing() []uint32 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []uint32
	for _, m := range []map[uint32]time.Time{c.failing, c.full} {
		for id, at := range m {
			if time.Since(at) < failingFor {
				out = append(out, id)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Close forgets the files of servers on this host. The pool stays open.
func (c *Client) Close() error {
	c.files.close()
	return nil
}

// healthy says whether a server is expected to answer.
func (c *Client) healthy(server uint32) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	at, failed := c.failing[server]
	return c.nodes[server].GetAlive() && !(failed && time.Since(at) < failingFor)
}

// takes says whether a server is expected to take shards.
func (c *Client) takes(server uint32) bool {
	c.mu.RLock()
	at, full := c.full[server]
	c.mu.RUnlock()
	return c.healthy(server) && !(full && time.Since(at) < failingFor)
}

// settle notes how a call to a server went and passes err on. What a healthy
// server may answer does not count against it.
func (c *Client) settle(server uint32, err error) error {
	failed := false
	switch wire.CodeOf(err) {
	case wire.Unavailable, wire.Timeout, wire.Shutdown, wire.Internal:
		failed = true
	case wire.Interrupted:
		return err
	}
	full := wire.CodeOf(err) == wire.NoSpace
	c.mu.RLock()
	_, was := c.failing[server]
	c.mu.RUnlock()
	if !failed && !was && !full {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if failed {
		c.failing[server] = time.Now()
	} else {
		delete(c.failing, server)
	}
	if full {
		c.full[server] = time.Now()
	}
	return err
}

// conn returns a connection to a server and the capability to show it.
func (c *Client) conn(ctx context.Context, server uint32) (transport.Conn, []byte, error) {
	c.mu.RLock()
	ep, token := c.nodes[server].GetNode().GetEndpoint(), c.capability
	c.mu.RUnlock()
	if ep == nil {
		return nil, nil, wire.Errorf(wire.Unavailable, "connect", serverName(server), "the cluster map does not have it")
	}
	conn, err := c.cfg.Pool.Get(ctx, ep)
	return conn, token, err
}

func serverName(server uint32) string { return fmt.Sprintf("chunk server %d", server) }

// report tells OnBad of a shard, once in a while.
func (c *Client) report(id shardID, server uint32, corrupt bool) {
	if server == 0 || !c.bad.first(shardOn{id, server}) {
		return
	}
	c.log.Warn("a shard is bad", "shard", id.String(), "server", server, "corrupt", corrupt)
	if c.cfg.OnBad != nil {
		c.cfg.OnBad(&wire.BadShard{Block: id.block, Index: id.index, Server: server, Corrupt: corrupt})
	}
}

// WriteBlock stores data (1 byte to 4 MiB) as the block of ticket t under
// policy p and returns its record, with a proof for each shard. data is not
// kept. All shards are sent at once; one whose server fails goes to a spare.
//
// It returns when all k+m shards are durable, or, with no spare left, at least
// min(k+1, k+m): then the others have server 0 and are to be repaired. With
// fewer it fails: with wire.NoSpace if there would be enough had the servers that
// answered room, else with wire.TooFew. It never takes longer than three times
// Timeout.
func (c *Client) WriteBlock(ctx context.Context, p block.Policy, t *wire.Ticket, spares []uint32, data []byte) (*wire.Block, error) {
	object := fmt.Sprintf("block %d", t.GetBlock())
	codec, err := block.NewCodec(p.K, p.M)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*c.cfg.Timeout)
	defer cancel()
	buf := getBuffer(codec.BufferSize(len(data)))
	defer putBuffer(buf)
	shards, err := codec.Encode(data, *buf)
	if err != nil {
		return nil, err
	}
	leaves := block.LeavesOf(shards)
	b := &wire.Block{
		Id: t.GetBlock(), K: uint32(p.K), M: uint32(p.M),
		Length: uint32(len(data)), ShardLength: uint32(len(shards[0])),
	}
	for i := range shards {
		root := block.Root(len(shards[i]), leaves[i])
		b.Shards = append(b.Shards, &wire.Shard{Root: root[:]})
	}
	targets := c.targets(t.GetServers(), spares, len(shards))
	errs := make([]error, len(shards))
	var wg sync.WaitGroup
	for i := range shards {
		wg.Go(func() { errs[i] = c.putShard(ctx, b, i, targets, leaves[i], shards[i]) })
	}
	wg.Wait()
	stored, full := 0, targets.full
	var first error
	for i, s := range b.Shards {
		if s.Server != 0 {
			stored++
		} else if first == nil {
			first = errs[i]
		}
	}
	if err := context.Cause(ctx); stored < len(shards) && err == context.Canceled {
		return nil, &wire.Error{Code: wire.Interrupted, Op: "write", Object: object, Err: err}
	}
	switch {
	case stored < p.Enough() && stored+full >= p.Enough():
		return nil, wire.Errorf(wire.NoSpace, "write", object, "%d of %d shards stored, %d needed: %d servers have no room", stored, len(shards), p.Enough(), full)
	case stored < p.Enough():
		return nil, wire.Errorf(wire.TooFew, "write", object, "%d of %d shards stored, %d needed: %w", stored, len(shards), p.Enough(), first)
	}
	return b, nil
}

// targets hands out the servers for the shards of one block: the ticket's own
// first, then the spares, none twice.
type targets struct {
	own []uint32 // for each shard, 0: none

	mu     sync.Mutex // guards what follows
	spares []uint32
	full   int // servers that had no room
}

// targets plans a write. A shard whose server is known to be down starts with a
// spare; the server stays available as the last resort.
func (c *Client) targets(servers, spares []uint32, n int) *targets {
	t := &targets{own: make([]uint32, n)}
	used := map[uint32]bool{0: true}
	for i := range min(n, len(servers)) {
		if !used[servers[i]] {
			t.own[i] = servers[i]
			used[servers[i]] = true
		}
	}
	var healthy, doubtful []uint32
	for _, s := range spares {
		if used[s] {
			continue
		}
		used[s] = true
		if c.takes(s) {
			healthy = append(healthy, s)
		} else {
			doubtful = append(doubtful, s)
		}
	}
	for i, s := range t.own {
		if s != 0 && len(healthy) > 0 && !c.takes(s) {
			t.own[i], healthy = healthy[0], healthy[1:]
			doubtful = append(doubtful, s)
		}
	}
	t.spares = append(healthy, doubtful...)
	return t
}

// take returns the next server to try, 0 if there is none.
func (t *targets) take() uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.spares) == 0 {
		return 0
	}
	s := t.spares[0]
	t.spares = t.spares[1:]
	return s
}

// putShard stores shard i of b on the first server that takes it and fills in
// b.Shards[i].
func (c *Client) putShard(ctx context.Context, b *wire.Block, i int, t *targets, leaves, shard []byte) error {
	req := &wire.PutShard{
		Block: b.Id, Index: uint32(i), Length: b.ShardLength,
		Leaves: leaves, Root: b.Shards[i].Root,
	}
	server := t.own[i]
	if server == 0 {
		server = t.take()
	}
	err := error(wire.Errorf(wire.TooFew, "write", "", "no server for shard %d", i))
	for ; server != 0 && ctx.Err() == nil; server = t.take() {
		var proof []byte
		if proof, err = c.put(ctx, server, req, shard); err == nil {
			b.Shards[i].Server, b.Shards[i].Proof = server, proof
			return nil
		}
		if errors.Is(err, wire.NoSpace) {
			t.mu.Lock()
			t.full++
			t.mu.Unlock()
		}
		c.log.Debug("a shard goes elsewhere", "block", b.Id, "shard", i, "server", server, "error", err)
	}
	return err
}

// put makes one attempt at one server.
func (c *Client) put(ctx context.Context, server uint32, req *wire.PutShard, shard []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	conn, token, err := c.conn(ctx, server)
	if err != nil {
		return nil, c.settle(server, err)
	}
	own := &wire.PutShard{
		Block: req.Block, Index: req.Index, Length: req.Length, Leaves: req.Leaves, Root: req.Root,
		Relaxed: req.Relaxed, Capability: token,
	}
	resp, _, err := conn.CallBulk(ctx, wire.MethodPutShard, own, [][]byte{shard}, nil)
	if err = c.settle(server, err); err != nil {
		return nil, err
	}
	r, ok := resp.(*wire.PutShardReply)
	if !ok || len(r.GetProof()) != block.HashSize {
		return nil, wire.Errorf(wire.Internal, "put shard", serverName(server), "the reply has no proof")
	}
	return r.GetProof(), nil
}
