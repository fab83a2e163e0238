package meta

import (
	"context"

	"github.com/hashicorp/raft"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/client"
)

// joined serves MethodJoin: it does the next step for a server that wants to
// vote, or lets one go.
func (s *Server) joined(ctx context.Context, peer transport.Peer, q *wire.JoinMeta) (*wire.JoinReply, error) {
	if _, err := s.leading("join"); err != nil {
		return nil, err
	}
	if q.Name == "" {
		return nil, wire.Errorf(wire.Invalid, "join", "", "a name is needed")
	}
	operator := peer.Role == roleClient && q.Leave
	if member := peer.Role == roleMeta && peer.Name == q.Name; !member && !operator {
		return nil, wire.Errorf(wire.Forbidden, "join", q.Name, "the certificate is that of %s %q", peer.Role, peer.Name)
	}
	if q.Leave {
		if err := s.group.Remove(q.Name); err != nil {
			return nil, s.unlessDeposed(err)
		}
		return &wire.JoinReply{}, nil
	}
	if addr := q.GetEndpoint().GetAddr(); addr != "" {
		s.mu.Lock()
		s.endpoints[addr] = q.Endpoint
		s.mu.Unlock()
	}
	reply, err := s.group.Take(ctx, q)
	if err != nil {
		return nil, s.unlessDeposed(err)
	}
	return reply, nil
}

// unlessDeposed is err, or NotLeader if this server has ceased to lead.
func (s *Server) unlessDeposed(err error) error {
	if s.raft.State() != raft.Leader {
		return s.notLeader("join")
	}
	return err
}

// others are the metadata servers that may know the group, but this one.
func (s *Server) others() []*wire.Endpoint {
	var out []*wire.Endpoint
	for _, m := range s.cfg.Members {
		if m.Name == s.cfg.Name {
			continue
		}
		ep := m.Endpoint
		if ep == nil {
			ep = &wire.Endpoint{Addr: m.Addr}
		}
		out = append(out, ep)
	}
	return append(out, s.cfg.Join...)
}

// askToJoin sends a join to the leader that the others name.
func (s *Server) askToJoin(ctx context.Context, q *wire.JoinMeta) (*wire.JoinReply, error) {
	c, err := client.Open(ctx, client.Config{Servers: s.others(), Pool: s.cfg.Pool, Name: s.cfg.Name, Log: s.log})
	if err != nil {
		return nil, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	r, err := c.Call(ctx, wire.MethodJoin, q)
	if err != nil {
		return nil, err
	}
	reply, ok := r.(*wire.JoinReply)
	if !ok {
		return nil, wire.Errorf(wire.Internal, "join", s.cfg.Name, "the reply is not one of this call")
	}
	return reply, nil
}
