package group

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"

	"quernfs/internal/wire"
)

// step is what the leader does for a server that wants to join.
type step int

const (
	nothing step = iota // it votes
	await               // it is in the group and has to catch up
	remove              // another of its name, which does not answer, has to go first
	add                 // it comes in, without a vote
	promote             // it gets its vote
	refuse              // another of its name runs
)

// decide chooses the step for the server id at addr, which lacks behind entries.
// other is the server to be removed, or in whose favour it is refused.
func decide(servers []raft.Server, id raft.ServerID, addr raft.ServerAddress, behind uint64, alive func(raft.ServerID) bool) (s step, other raft.ServerID) {
	for _, m := range servers {
		switch {
		case m.ID != id:
		case m.Suffrage != raft.Voter && m.Address != addr:
			return add, "" // its new address
		case m.Suffrage != raft.Voter && behind > nearEnough:
			return await, ""
		case m.Suffrage == raft.Voter && m.Address == addr:
			return nothing, ""
		default: // its vote, or its new address
			return promote, ""
		}
	}
	for _, m := range servers {
		if m.ID == id || NameOf(m.ID) != NameOf(id) {
			continue
		}
		if alive(m.ID) {
			return refuse, m.ID
		}
		return remove, m.ID
	}
	return add, ""
}

// Take does the next step for a server that wants to join. Only the leader can.
func (g *Group) Take(ctx context.Context, q *wire.JoinMeta) (*wire.JoinReply, error) {
	bad := func(text string) error { return wire.Errorf(wire.Invalid, "join", q.GetName(), "%s", text) }
	id, addr := raft.ServerID(q.GetId()), raft.ServerAddress(q.GetAddr())
	switch {
	case q.GetName() == "" || addr == "" || NameOf(id) != q.GetName():
		return nil, bad("a name, an id of it, and an address are needed")
	case raftAddr(q.GetId(), AddrOf(addr)) != string(addr):
		return nil, bad("the address does not fit to the id")
	}
	if err := g.sameCluster(q.GetCluster()); err != nil {
		return &wire.JoinReply{Refused: err.Error()}, nil
	}
	if !g.taking.TryLock() {
		return nil, wire.Errorf(wire.Unavailable, "join", q.GetName(), "the group is being changed just now")
	}
	defer g.taking.Unlock()
	r := g.Raft()
	commit := r.CommitIndex()
	reply := &wire.JoinReply{Applied: commit, Cluster: g.Cluster()}
	what, other := decide(g.servers(), id, addr, commit-min(q.GetApplied(), commit), g.Alive)
	var f raft.IndexFuture
	switch what {
	case nothing:
		reply.Voter = true
		return reply, nil
	case await:
		return reply, nil
	case refuse:
		return nil, wire.Errorf(wire.Exists, "join", q.GetName(), "a server of this name is running, as %s: only one can have the name", other)
	case remove:
		g.log.Info("a metadata server comes back without its state: its old self is removed", "name", q.GetName(), "old", other, "new", id)
		f = r.RemoveServer(other, 0, changeWait)
	case add:
		f = r.AddNonvoter(id, addr, 0, changeWait)
	case promote:
		f = r.AddVoter(id, addr, 0, changeWait)
	}
	if err := g.changed(f); err != nil {
		return nil, err
	}
	g.log.Info("the group of metadata servers has changed", "name", q.GetName(), "id", id, "votes", what == promote)
	reply.Voter = what == promote
	return reply, nil
}

// Remove takes all members of a name out of the group.
func (g *Group) Remove(name string) error {
	g.taking.Lock()
	defer g.taking.Unlock()
	for _, m := range g.servers() {
		if NameOf(m.ID) != name {
			continue
		}
		if err := g.changed(g.Raft().RemoveServer(m.ID, 0, changeWait)); err != nil {
			return err
		}
		g.log.Info("a metadata server has left the group", "id", m.ID)
	}
	return nil
}

func (g *Group) changed(f raft.IndexFuture) error {
	if err := f.Error(); err != nil {
		return &wire.Error{Code: wire.Unavailable, Op: "change the group of metadata servers", Err: err}
	}
	return nil
}

// peers knows which members answered this leader's last heartbeat.
type peers struct {
	mu   sync.Mutex
	down map[raft.ServerID]bool
}

// observe is a raft.FilterFn: it notes what it is shown and lets nothing pass.
func (p *peers) observe(o *raft.Observation) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch d := o.Data.(type) {
	case raft.FailedHeartbeatObservation:
		p.down[d.PeerID] = true
	case raft.ResumedHeartbeatObservation:
		delete(p.down, d.PeerID)
	case raft.PeerObservation:
		delete(p.down, d.Peer.ID)
	case raft.RaftState:
		clear(p.down)
	}
	return false
}

// Alive says whether a member answered the leader's last heartbeat.
func (g *Group) Alive(id raft.ServerID) bool {
	g.peers.mu.Lock()
	defer g.peers.mu.Unlock()
	return !g.peers.down[id]
}
