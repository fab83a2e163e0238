package meta

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/client"
)

const membershipWait = 10 * time.Second

// joined serves MethodJoin: it takes a server in as a voter, or lets one go.
func (s *Server) joined(ctx context.Context, _ transport.Peer, q *wire.JoinMeta) (*wire.Empty, error) {
	if _, err := s.leading("join"); err != nil {
		return nil, err
	}
	addr := q.GetEndpoint().GetAddr()
	if addr == "" {
		addr = q.GetEndpoint().GetServer()
	}
	if q.GetName() == "" || addr == "" && !q.Leave {
		return nil, wire.Errorf(wire.Invalid, "join", q.GetName(), "a name and an address are needed")
	}
	var f raft.IndexFuture
	if q.Leave {
		f = s.raft.RemoveServer(raft.ServerID(q.Name), 0, membershipWait)
	} else {
		s.mu.Lock()
		s.endpoints[addr] = q.Endpoint
		s.mu.Unlock()
		f = s.raft.AddVoter(raft.ServerID(q.Name), raft.ServerAddress(addr), 0, membershipWait)
	}
	if err := f.Error(); err != nil {
		if s.raft.State() != raft.Leader {
			return nil, s.notLeader("join")
		}
		return nil, &wire.Error{Code: wire.Unavailable, Op: "join", Object: q.Name, Err: err}
	}
	s.log.Info("the members have changed", "name", q.Name, "addr", addr, "left", q.Leave)
	return &wire.Empty{}, nil
}

// join asks the cluster to take this server in.
func (s *Server) join(ctx context.Context) error {
	c, err := client.Open(ctx, client.Config{Servers: s.cfg.Join, Pool: s.cfg.Pool, Name: s.cfg.Name, Log: s.log})
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	ep := s.cfg.Server.Endpoint()
	ep.Addr = s.cfg.Addr
	_, err = c.Call(ctx, wire.MethodJoin, &wire.JoinMeta{Name: s.cfg.Name, Endpoint: ep})
	return err
}

// member: the log says that this server belongs to a cluster.
func (s *Server) member() bool {
	return len(s.raft.GetConfiguration().Configuration().Servers) > 0
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

func (p *peers) alive(id raft.ServerID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.down[id]
}
