package chunkd

import (
	"context"
	"os"

	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// roles may make the chunk calls. A chunk server that reads is known by its role;
// all else needs a capability that meta signed.
var roles = []string{"client", "chunkd", "edge", "agent", "meta"}

// Handlers is what Register needs of a *transport.Mux.
type Handlers interface {
	Handle(method wire.Method, roles []string, h transport.Handler)
}

// Register serves the chunk calls on mux.
func (s *Store) Register(mux Handlers) {
	mux.Handle(wire.MethodPutShard, roles, s.servePut)
	mux.Handle(wire.MethodGetShard, roles, s.serveGet)
	mux.Handle(wire.MethodOpenShard, roles, s.serveOpen)
	mux.Handle(wire.MethodSegmentFD, roles, s.serveSegment)
}

// allowed checks the capability of a caller. Another chunk server reads without
// one, to rebuild; it stores nothing here.
func (s *Store) allowed(p transport.Peer, token []byte) error {
	if p.Role == "chunkd" {
		return nil
	}
	return s.capable(token)
}

func (s *Store) capable(token []byte) error {
	_, err := block.VerifyCapability(s.cfg.Key, token, s.cfg.Now())
	return err
}

func wrongMessage(req *transport.Request) error {
	return wire.Errorf(wire.Invalid, req.Method.String(), "", "the request is not one of this call")
}

func (s *Store) servePut(ctx context.Context, req *transport.Request) (transport.Reply, error) {
	q, ok := req.Msg.(*wire.PutShard)
	if !ok {
		return transport.Reply{}, wrongMessage(req)
	}
	if err := s.capable(q.GetCapability()); err != nil {
		return transport.Reply{}, err
	}
	proof, err := s.Put(ctx, q, req.Payload)
	if err != nil {
		return transport.Reply{}, err
	}
	return transport.Reply{Msg: &wire.PutShardReply{Proof: proof}}, nil
}

func (s *Store) serveGet(ctx context.Context, req *transport.Request) (transport.Reply, error) {
	q, ok := req.Msg.(*wire.GetShard)
	if !ok {
		return transport.Reply{}, wrongMessage(req)
	}
	if err := s.allowed(req.Peer, q.GetCapability()); err != nil {
		return transport.Reply{}, err
	}
	id := shardID{q.GetBlock(), q.GetIndex()}
	if err := s.enter(); err != nil {
		return transport.Reply{}, s.fail("get", id, err)
	}
	defer s.users.Done()
	reply, err := s.get(id, q)
	return reply, s.fail("get", id, err)
}

// get reads whole leaves of a shard into a pooled buffer.
func (s *Store) get(id shardID, q *wire.GetShard) (transport.Reply, error) {
	var e *entry
	var leaves []byte
	var err error
	if q.GetLeaves() {
		e, leaves, err = s.locate(id)
	} else if e, err = s.index.get(id); err != nil {
		err = corruptIndex(err)
	} else if e == nil {
		err = errNotHere
	}
	if err != nil {
		return transport.Reply{}, err
	}
	off, end := int64(q.GetOff()), int64(q.GetOff())+int64(q.GetLen())
	end = min(end, int64(e.length))
	if off%block.LeafSize != 0 || off >= end || (end%block.LeafSize != 0 && end != int64(e.length)) {
		return transport.Reply{}, wire.Errorf(wire.Invalid, "", "", "bytes %d to %d are not whole leaves of a shard of %d", off, end, e.length)
	}
	buf := getBuffer(int(end - off))
	if err := s.read(id, e, *buf, off); err != nil {
		putBuffer(buf)
		return transport.Reply{}, err
	}
	payload := *buf
	var state []byte
	if tail := int(q.GetTail()); tail > 0 && tail < len(payload) && len(payload) <= block.LeafSize {
		at := block.TailStart(len(payload), tail)
		if state, err = block.TailState(payload[:at]); err != nil {
			putBuffer(buf)
			return transport.Reply{}, err
		}
		payload = payload[at:]
	}
	return transport.Reply{
		Msg:     &wire.GetShardReply{Length: uint32(e.length), Leaves: leaves, State: state},
		Payload: [][]byte{payload},
		Release: func() { putBuffer(buf) },
	}, nil
}

func (s *Store) serveOpen(ctx context.Context, req *transport.Request) (transport.Reply, error) {
	q, ok := req.Msg.(*wire.OpenShard)
	if !ok {
		return transport.Reply{}, wrongMessage(req)
	}
	if err := s.allowed(req.Peer, q.GetCapability()); err != nil {
		return transport.Reply{}, err
	}
	l, err := s.Locate(ctx, q.GetBlock(), q.GetIndex())
	if err != nil {
		return transport.Reply{}, err
	}
	return transport.Reply{Msg: &wire.OpenShardReply{
		Segment: l.Segment, Off: uint64(l.Off), Length: uint32(l.Length), Leaves: l.Leaves,
	}}, nil
}

func (s *Store) serveSegment(ctx context.Context, req *transport.Request) (transport.Reply, error) {
	q, ok := req.Msg.(*wire.SegmentFD)
	if !ok {
		return transport.Reply{}, wrongMessage(req)
	}
	if err := s.allowed(req.Peer, q.GetCapability()); err != nil {
		return transport.Reply{}, err
	}
	if err := s.enter(); err != nil {
		return transport.Reply{}, s.fail("open", shardID{}, err)
	}
	defer s.users.Done()
	f, err := s.SegmentFile(q.GetSegment())
	if err != nil {
		return transport.Reply{}, err
	}
	return transport.Reply{Msg: &wire.SegmentFDReply{}, File: f, Release: func() { closeFile(f) }}, nil
}

// closeFile closes a file that was only read.
func closeFile(f *os.File) { _ = f.Close() }
