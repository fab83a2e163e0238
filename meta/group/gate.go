package group

import (
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// Transport is what raft needs of the network here.
type Transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// gate stands between raft and its transport. Outgoing messages get the id of
// the member that they are meant for (transport.RaftTarget). Of the incoming
// ones it answers those itself that raft would answer wrongly: raft grants
// votes while it knows no configuration, and installs snapshots that are behind
// its log.
type gate struct {
	Transport
	g    *Group
	out  chan raft.RPC
	done chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	beating sync.RWMutex // held for reading while raft handles a heartbeat
}

var _ Transport = (*gate)(nil)

func newGate(g *Group, inner Transport) *gate {
	t := &gate{Transport: inner, g: g, out: make(chan raft.RPC), done: make(chan struct{})}
	t.wg.Go(t.run)
	return t
}

func (t *gate) Consumer() <-chan raft.RPC { return t.out }

// SetHeartbeatHandler has f called until Close. Raft handles a heartbeat in the
// goroutine that reads it, and does not wait for it when it shuts down: it would
// write its term into a log that is closed.
func (t *gate) SetHeartbeatHandler(f func(raft.RPC)) {
	if f == nil {
		t.Transport.SetHeartbeatHandler(nil)
		return
	}
	t.Transport.SetHeartbeatHandler(func(rpc raft.RPC) {
		t.beating.RLock()
		defer t.beating.RUnlock()
		select {
		case <-t.done:
			return // the stream ends with the transport
		default:
		}
		f(rpc)
	})
}

func (t *gate) run() {
	for {
		select {
		case rpc := <-t.Transport.Consumer():
			if t.answer(rpc) {
				continue
			}
			select {
			case t.out <- rpc:
			case <-t.done:
				return
			}
		case <-t.done:
			return
		}
	}
}

// answer says whether the message was answered here.
func (t *gate) answer(rpc raft.RPC) bool {
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.g.rec.ID), Addr: []byte(t.LocalAddr())}
	switch q := rpc.Command.(type) {
	case *raft.RequestVoteRequest:
		if t.g.votes() {
			return false
		}
		rpc.Respond(&raft.RequestVoteResponse{RPCHeader: header, Term: t.g.term()}, nil)
	case *raft.RequestPreVoteRequest:
		if t.g.votes() {
			return false
		}
		rpc.Respond(&raft.RequestPreVoteResponse{RPCHeader: header, Term: t.g.term()}, nil)
	case *raft.TimeoutNowRequest:
		if t.g.votes() {
			return false
		}
		rpc.Respond(&raft.TimeoutNowResponse{RPCHeader: header}, wire.Errorf(wire.Forbidden, "raft", t.g.rec.ID, "it has no vote"))
	case *raft.InstallSnapshotRequest:
		has, err := t.g.holds(q)
		if !has && err == nil {
			return false
		}
		t.wg.Go(func() { // ends with the stream
			io.Copy(io.Discard, rpc.Reader)
			rpc.Respond(&raft.InstallSnapshotResponse{RPCHeader: header, Term: q.Term, Success: err == nil}, err)
		})
	default:
		return false
	}
	return true
}

func (t *gate) Close() error {
	var err error
	t.once.Do(func() {
		close(t.done)
		t.beating.Lock() // the heartbeats under way have ended, and no other begins
		//lint:ignore SA2001 it waits
		t.beating.Unlock()
		err = t.Transport.Close()
		t.wg.Wait()
	})
	return err
}

func meant(id raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(transport.RaftTarget(string(id), string(addr)))
}

func (t *gate) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	return t.Transport.AppendEntriesPipeline(id, meant(id, addr))
}

func (t *gate) AppendEntries(id raft.ServerID, addr raft.ServerAddress, q *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	return t.Transport.AppendEntries(id, meant(id, addr), q, r)
}

func (t *gate) RequestVote(id raft.ServerID, addr raft.ServerAddress, q *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	return t.Transport.RequestVote(id, meant(id, addr), q, r)
}

func (t *gate) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, q *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	return t.Transport.RequestPreVote(id, meant(id, addr), q, r)
}

func (t *gate) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, q *raft.InstallSnapshotRequest, r *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.Transport.InstallSnapshot(id, meant(id, addr), q, r, data)
}

func (t *gate) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, q *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	return t.Transport.TimeoutNow(id, meant(id, addr), q, r)
}
