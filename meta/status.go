package meta

import (
	"github.com/hashicorp/raft"

	"quernfs/internal/wire"
	"quernfs/meta/group"
)

// maxStatusScan bounds the blocks looked at to tell degraded from lost.
const maxStatusScan = 20000

// status answers Status.
func (l *leader) status(op *wire.Status) (*wire.Answer, error) {
	st := l.s.fsm.state()
	counts, err := st.Counts()
	if err != nil {
		return nil, err
	}
	out := &wire.StatusAnswer{
		Members: l.members(), Nodes: l.nodes.list(), Inodes: counts.Inodes, LiveBytes: counts.Live, Deleting: counts.Freed,
	}
	out.ClusterId, _ = st.ClusterID()
	out.Policy, _ = st.Policy()
	sessions, err := st.Sessions()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	for _, rec := range sessions {
		s := &wire.SessionStatus{Session: rec}
		if until := l.table.Until(rec.Id); !until.IsZero() {
			s.SeenNs = until.Add(-l.s.cfg.LeaseTime).UnixNano()
		}
		if op.GetLeases() {
			s.LeasesRead, s.LeasesWrite = l.table.Counts(rec.Id)
		}
		out.Sessions = append(out.Sessions, s)
	}
	l.mu.Unlock()
	degraded, lost, err := l.health(out.Nodes)
	if err != nil {
		return nil, err
	}
	used := counts.Blocks - min(counts.Freed, counts.Blocks)
	out.BlocksDegraded, out.BlocksLost = degraded, lost
	out.BlocksHealthy = used - min(degraded+lost, used)
	return &wire.Answer{Op: &wire.Answer_Status{Status: out}}, nil
}

// health counts the blocks that miss a shard, or have one on a server that does
// not answer, and those of which too little is left to decode. Beyond
// maxStatusScan blocks the counts are too low.
func (l *leader) health(nodes []*wire.NodeStatus) (degraded, lost uint64, err error) {
	st := l.s.fsm.state()
	alive := map[uint32]bool{}
	for _, n := range nodes {
		alive[n.Node.Id] = n.Alive
	}
	readable := func(id uint32) bool { return alive[id] }
	seen := map[uint64]bool{}
	count := func(b *wire.Block) {
		if seen[b.Id] || b.FreedIndex != 0 {
			return
		}
		seen[b.Id] = true
		if sound(b, ^uint32(0), readable) < int(b.K) {
			lost++
		} else {
			degraded++
		}
	}
	missing, err := st.Degraded(0, maxStatusScan)
	if err != nil {
		return 0, 0, err
	}
	for _, b := range missing {
		count(b)
	}
	for _, n := range nodes {
		if n.Node.Kind != "chunkd" || n.Alive {
			continue
		}
		held, err := st.OnServer(n.Node.Id, 0, max(maxStatusScan-len(seen), 0))
		if err != nil {
			return 0, 0, err
		}
		for _, h := range held {
			if b, err := st.Block(h.Block); err == nil {
				count(b)
			}
		}
	}
	return degraded, lost, nil
}

// members are the servers of the raft group, as this leader sees them.
func (l *leader) members() []*wire.MemberStatus {
	s := l.s
	var out []*wire.MemberStatus
	for _, m := range s.raft.GetConfiguration().Configuration().Servers {
		st := &wire.MemberStatus{Name: group.NameOf(m.ID), Addr: group.AddrOf(m.Address), Voter: m.Suffrage == raft.Voter}
		if m.ID == s.group.ID() {
			st.Leader, st.Alive = true, true
			st.Applied, _ = s.fsm.state().Applied()
		} else {
			st.Alive = s.group.Alive(m.ID)
		}
		out = append(out, st)
	}
	return out
}
