package meta

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/state"
)

// silentFor is how long a node may be silent and still counts as alive.
const silentFor = 5 * time.Second

// node is a node's record and what its heartbeats say. After a change of
// leaders every node counts as alive until silentFor has passed.
type node struct {
	rec   *wire.Node
	seen  time.Time
	alive bool
	last  wire.Heartbeat // no lists
	told  uint64         // version of the map that its server has
}

// nodeMap is the cluster map.
type nodeMap struct {
	mu      sync.Mutex
	nodes   map[uint32]*node
	version uint64 // grows with each change that others must hear of
}

func (m *nodeMap) load(st *state.State, since time.Time) error {
	recs, err := st.Nodes()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes = map[uint32]*node{}
	for _, rec := range recs {
		m.nodes[rec.Id] = &node{rec: rec, seen: since, alive: true}
	}
	m.version++
	return nil
}

// changed takes over a node's record after PutNode, and tells everyone.
func (m *nodeMap) changed(l *leader, id uint32) {
	recs, err := l.s.fsm.state().Nodes()
	if err != nil {
		return
	}
	m.mu.Lock()
	for _, rec := range recs {
		n := m.nodes[rec.Id]
		if n == nil {
			n = &node{}
			m.nodes[rec.Id] = n
		}
		n.rec = rec
		if rec.Id == id { // it is there: it has just called
			n.seen, n.alive = time.Now(), true
		}
	}
	m.version++
	m.mu.Unlock()
	l.announce()
}

// status is the node as others see it. mu is held.
func (n *node) status() *wire.NodeStatus {
	s := &wire.NodeStatus{
		Node: n.rec, Alive: n.alive, Total: n.last.Total, Free: n.last.Free, Shards: n.last.Shards,
		SeenNs: n.seen.UnixNano(), Slots: n.last.Slots, Busy: n.last.Busy, Devices: n.last.Devices, Speed: n.last.Speed,
	}
	if n.rec.GetKind() != "chunkd" {
		return s
	}
	if n.last.ReadOnly {
		s.Free, s.Full, s.Failed = 0, n.last.Full, !n.last.Full
	}
	s.Full = s.Full || !s.Failed && noRoom(s)
	return s
}

// list is all nodes by id.
func (m *nodeMap) list() []*wire.NodeStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*wire.NodeStatus, 0, len(m.nodes))
	for _, n := range m.nodes {
		all = append(all, n.status())
	}
	slices.SortFunc(all, func(a, b *wire.NodeStatus) int { return cmp.Compare(a.Node.Id, b.Node.Id) })
	return all
}

// record is a node's record, nil if there is none; it is not to be changed.
func (m *nodeMap) record(id uint32) *wire.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.nodes[id]; n != nil {
		return n.rec
	}
	return nil
}

func (m *nodeMap) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.nodes)
}

// sites are the chunk servers for placement.
func (m *nodeMap) sites(avoid []uint32) []site {
	var out []site
	for _, n := range m.list() {
		if n.Node.Kind == "chunkd" {
			out = append(out, siteOf(n, slices.Contains(avoid, n.Node.Id)))
		}
	}
	return out
}

// soonFull is how much room may be used up in the time in which deleted blocks give
// theirs back, by who writes the same file again and again.
const soonFull = 8 << 30

// short says that a chunk server in service has no room, or may have none soon.
func (m *nodeMap) short() bool {
	return slices.ContainsFunc(m.list(), func(n *wire.NodeStatus) bool {
		return n.Alive && inService(n) && (n.Full || !n.Failed && n.Free < min(n.Total/4, soonFull))
	})
}

// space adds up the chunk servers that are alive; the free space of a disk that
// several of them share counts once.
func (m *nodeMap) space() (total, free uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	shared := map[string]uint64{}
	for _, n := range m.nodes {
		if n.rec.Kind != "chunkd" || !n.alive {
			continue
		}
		s := n.status()
		total += s.Total - min(n.last.Free, s.Total)
		if s.Full {
			continue // what is left there takes no data
		}
		if d := n.last.Disk; d != "" {
			shared[d] = max(shared[d], s.Free)
		} else {
			free += s.Free
		}
	}
	for _, f := range shared {
		free += f
	}
	return total + free, free
}

// absent says for how long a node has been silent, at now; false: no such node.
func (m *nodeMap) absent(id uint32, now time.Time) (time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[id]
	if n == nil {
		return 0, false
	}
	return now.Sub(n.seen), true
}

// tick finds the nodes that have fallen silent.
func (m *nodeMap) tick(l *leader, now time.Time) {
	var gone []string
	m.mu.Lock()
	for _, n := range m.nodes {
		if n.alive && now.Sub(n.seen) > silentFor {
			n.alive = false
			gone = append(gone, n.rec.Name)
		}
	}
	if len(gone) > 0 {
		m.version++
	}
	m.mu.Unlock()
	if len(gone) > 0 {
		slices.Sort(gone)
		l.log.Warn("nodes have fallen silent", "nodes", gone)
		l.announce()
	}
}

// announce pushes the map to all sessions and wakes those who plan with it.
func (l *leader) announce() {
	m := &wire.Push{Op: &wire.Push_Nodes{Nodes: &wire.NodesAnswer{Nodes: l.nodes.list()}}}
	l.mu.Lock()
	for _, st := range l.streams {
		st.put(m)
	}
	l.mu.Unlock()
	l.jobs.signal()
	wake(l.work.wake)
}

// heartbeat serves MethodHeartbeat.
func (s *Server) heartbeat(ctx context.Context, peer transport.Peer, hb *wire.Heartbeat) (*wire.HeartbeatReply, error) {
	l, err := s.leading("heartbeat")
	if err != nil {
		return nil, err
	}
	if err := l.admission(peer).heartbeat(hb); err != nil {
		return nil, err
	}
	now := time.Now()
	m := &l.nodes
	m.mu.Lock()
	n := m.nodes[hb.Node]
	if n == nil {
		m.mu.Unlock()
		return nil, wire.Errorf(wire.NotFound, "heartbeat", "", "node %d is not registered", hb.Node)
	}
	full := n.status().Full
	news := !n.alive || n.last.Boot != hb.Boot || n.last.ReadOnly != hb.ReadOnly || n.last.Full != hb.Full || n.last.Total == 0 && hb.Total != 0
	n.seen, n.alive = now, true
	n.last.Total, n.last.Free, n.last.Shards, n.last.ReadOnly = hb.Total, hb.Free, hb.Shards, hb.ReadOnly
	n.last.Disk, n.last.Full = hb.Disk, hb.Full
	news = news || full != n.status().Full
	if hb.Boot != n.last.Boot || hb.Number > n.last.Number {
		n.last.Number = hb.Number
	}
	n.last.Slots, n.last.Busy, n.last.Boot, n.last.Devices, n.last.Speed = hb.Slots, hb.Busy, hb.Boot, hb.Devices, hb.Speed
	if news {
		m.version++
	}
	fresh := n.told != m.version
	n.told = m.version
	m.mu.Unlock()
	if news {
		l.announce()
	}
	// The report is done with before the reply, which the node takes for leave
	// to forget it.
	if err := l.work.reported(l, hb); err != nil {
		return nil, err
	}
	again, err := l.inventory(ctx, hb)
	if errors.Is(err, wire.Invalid) {
		l.log.Warn("a server's inventory makes no sense", "node", hb.Node, "err", err)
	} else if err != nil {
		return nil, err
	}
	reply := l.work.next(l, hb.Node, now)
	reply.InventoryAgain = again
	reply.Index, _ = l.s.fsm.state().Applied()
	// What is deleted is deleted because of the state as it is, not as a leader
	// remembers it that has been replaced.
	if len(reply.Remove) > 0 && s.check.verify(ctx, s.raft) != nil {
		return nil, s.notLeader("heartbeat")
	}
	if fresh {
		reply.Nodes = m.list()
	}
	return reply, nil
}

// idRange hands out block ids of a reserved range.
type idRange struct {
	reserving turn // of those who take ids

	mu        sync.Mutex // guards what follows
	next, end uint64
}

const reserveIDs = 65536

func (r *idRange) take(ctx context.Context, l *leader, n uint64) (uint64, error) {
	if err := r.reserving.take(ctx, "reserve blocks"); err != nil {
		return 0, err
	}
	defer r.reserving.pass()
	r.mu.Lock()
	few := r.end-r.next < n
	r.mu.Unlock()
	if few {
		res, err := l.internal(&wire.Command{Op: &wire.Command_ReserveBlocks{ReserveBlocks: &wire.ReserveBlocks{Count: reserveIDs}}}, "reserve blocks")
		if err != nil {
			return 0, err
		}
		r.mu.Lock()
		r.next, r.end = res.Value, res.Value+reserveIDs
		r.mu.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.next
	r.next += n
	return first, nil
}

const maxTickets = 256

// allocate answers Allocate from memory.
func (l *leader) allocate(ctx context.Context, q *wire.Query, op *wire.Allocate) (*wire.Answer, error) {
	p := op.GetPolicy()
	if p.GetK() == 0 {
		root, err := l.s.fsm.state().Policy()
		if err != nil {
			return nil, err
		}
		p = root
	}
	count := max(op.GetCount(), 1)
	if len(op.GetAvoid()) > maxAvoid {
		return nil, wire.Errorf(wire.Invalid, "allocate", "", "%d servers to avoid: at most %d", len(op.GetAvoid()), maxAvoid)
	}
	if count > maxTickets || p.K > 32 || p.M > 8 {
		return nil, wire.Errorf(wire.Invalid, "allocate", "", "%d blocks of policy %d+%d: at most %d of 32+8", count, p.K, p.M, maxTickets)
	}
	first, err := l.ids.take(ctx, l, uint64(count))
	if err != nil {
		return nil, err
	}
	out, err := place(p, first, int(count), l.nodes.sites(op.Avoid))
	if err != nil {
		return nil, err
	}
	return &wire.Answer{Op: &wire.Answer_Allocate{Allocate: out}}, nil
}
