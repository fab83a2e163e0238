package chunkd

import (
	"context"
	"errors"
	"sync"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// Meta is the leader of the metadata servers, as a chunk server sees it.
type Meta interface {
	Heartbeat(ctx context.Context, hb *wire.Heartbeat) (*wire.HeartbeatReply, error)
}

const (
	rebuildWorkers   = 2
	rebuildQueue     = 256 // more are asked for again by the leader
	rebuildTimeout   = 2 * time.Minute
	heartbeatTimeout = 10 * time.Second
	firstScrub       = time.Minute // after the start
)

// Run reports to the leader, deletes and rebuilds what the leader asks for,
// reading others' shards through blocks, and scrubs. It returns when ctx is
// done, with everything it started ended.
func (s *Store) Run(ctx context.Context, meta Meta, blocks *Client) error {
	rebuilds := make(chan *wire.Rebuild, rebuildQueue)
	removals := make(chan []*wire.ShardID, 1)
	var wg sync.WaitGroup
	for range rebuildWorkers {
		wg.Go(func() { s.rebuildAll(ctx, rebuilds, blocks) })
	}
	wg.Go(func() { s.removeAll(ctx, removals) })
	wg.Go(func() { s.scrubAll(ctx) })
	defer func() {
		wg.Wait()
		select {
		case ids := <-removals:
			s.work.endRemoval(ids, false)
		default:
		}
	}()

	inv := &inventory{every: s.cfg.InventoryEvery, size: inventoryPage}
	every := time.NewTimer(0)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-every.C:
		case <-s.work.wake:
		}
		s.probe()
		reply, err := s.heartbeat(ctx, meta, inv)
		every.Reset(s.cfg.HeartbeatEvery)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Debug("heartbeat", "error", err)
			}
			// Else a wake-up that is still pending would be tried at once.
			select {
			case <-s.work.wake:
			default:
			}
			continue
		}
		if n := reply.GetNodes(); len(n) > 0 && blocks != nil {
			blocks.SetNodes(n)
		}
		if ids := s.work.beginRemoval(reply.GetRemove()); len(ids) > 0 {
			select {
			case removals <- ids:
			default: // busy: the leader will ask again
				s.work.endRemoval(ids, false)
			}
		}
		for _, r := range reply.GetRebuild() {
			id := shardID{r.GetBlock().GetId(), r.GetIndex()}
			if !s.work.begin(id) {
				continue
			}
			select {
			case rebuilds <- r:
			default:
				s.work.end(id, nil)
			}
		}
	}
}

// heartbeat sends one heartbeat and notes what the leader knows by its answer.
func (s *Store) heartbeat(ctx context.Context, meta Meta, inv *inventory) (*wire.HeartbeatReply, error) {
	st := s.Stats()
	hb := &wire.Heartbeat{
		Node: s.cfg.Node, Boot: s.boot,
		Total: uint64(st.Total), Free: uint64(st.Free), Shards: uint64(max(st.Shards, 0)), ReadOnly: st.ReadOnly,
		Disk: st.Disk, Full: st.Full && st.Fault == nil,
	}
	s.work.report(hb)
	if err := inv.report(s, hb); err != nil {
		s.log.Warn("listing the shards for the leader", "error", err)
	}
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	reply, err := meta.Heartbeat(ctx, hb)
	if err != nil {
		return nil, err
	}
	inv.told(hb, reply)
	if drop := s.work.told(hb); len(drop) > 0 {
		// Unless it was written anew meanwhile.
		if err := s.remove(ctx, drop, s.work.toldBad); err != nil {
			s.log.Warn("dropping damaged shards", "error", err)
		}
	}
	return reply, nil
}

func (s *Store) removeAll(ctx context.Context, removals <-chan []*wire.ShardID) {
	for {
		select {
		case <-ctx.Done():
			return
		case ids := <-removals:
			err := s.Delete(ctx, ids)
			if err != nil && ctx.Err() == nil {
				s.log.Warn("deleting shards", "error", err)
			}
			s.work.endRemoval(ids, err == nil)
		}
	}
}

func (s *Store) rebuildAll(ctx context.Context, rebuilds <-chan *wire.Rebuild, blocks *Client) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-rebuilds:
			out := s.rebuild(ctx, r, blocks)
			if ctx.Err() != nil {
				out = nil
			}
			s.work.end(shardID{r.GetBlock().GetId(), r.GetIndex()}, out)
		}
	}
}

// rebuild makes a shard here and says how that went.
func (s *Store) rebuild(ctx context.Context, r *wire.Rebuild, blocks *Client) *wire.Rebuilt {
	out := &wire.Rebuilt{Block: r.GetBlock().GetId(), Index: r.GetIndex(), From: r.GetFrom()}
	ctx, cancel := context.WithTimeout(ctx, rebuildTimeout)
	defer cancel()
	root, proof, err := s.rebuildShard(ctx, r, blocks)
	if err != nil {
		out.Code = uint32(wire.CodeOf(err))
		if ctx.Err() == nil {
			s.log.Warn("rebuilding a shard", "block", out.Block, "index", out.Index, "error", err)
		}
		return out
	}
	out.Shard = &wire.Shard{Server: s.cfg.Node, Root: root, Proof: proof}
	return out
}

func (s *Store) rebuildShard(ctx context.Context, r *wire.Rebuild, blocks *Client) (root, proof []byte, err error) {
	b, index := r.GetBlock(), r.GetIndex()
	id := shardID{b.GetId(), index}
	if err := checkBlock(b); err != nil {
		return nil, nil, err
	}
	if int(index) >= len(b.GetShards()) {
		return nil, nil, wire.Errorf(wire.Invalid, "rebuild", id.String(), "the block has %d shards", len(b.GetShards()))
	}
	want := b.GetShards()[index].GetRoot()
	// It may be here already, and whole: the last answer got lost.
	if e, err := s.verify(ctx, id); err == nil && (len(want) == 0 || [32]byte(want) == e.root) {
		return e.root[:], s.proof(id, e), nil
	}
	if blocks == nil {
		return nil, nil, wire.Errorf(wire.Unavailable, "rebuild", id.String(), "this server cannot read from others")
	}
	buf := getBuffer(int(b.GetShardLength()))
	defer putBuffer(buf)
	if err := blocks.readShard(ctx, b, int(index), s.cfg.Node, *buf); err != nil {
		return nil, nil, err
	}
	leaves := block.LeavesOf([][]byte{*buf})[0]
	got := block.Root(len(*buf), leaves)
	if len(want) > 0 && [32]byte(want) != got {
		return nil, nil, wire.Errorf(wire.Corrupt, "rebuild", id.String(), "what was decoded does not match the block's record")
	}
	proof, err = s.Put(ctx, &wire.PutShard{
		Block: id.block, Index: index, Length: b.GetShardLength(), Leaves: leaves, Root: got[:],
	}, *buf)
	return got[:], proof, err
}

// scrubAll scrubs again and again.
func (s *Store) scrubAll(ctx context.Context) {
	if s.cfg.ScrubEvery < 0 {
		return
	}
	next := time.NewTimer(min(firstScrub, s.cfg.ScrubEvery))
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		start := s.cfg.Now()
		got, err := s.Scrub(ctx, s.cfg.ScrubRate)
		switch {
		case err == nil:
			s.log.Info("scrubbed", "shards", got.Shards, "bytes", got.Bytes, "bad", len(got.Bad))
		case ctx.Err() == nil && !errors.Is(err, wire.Shutdown):
			s.log.Warn("scrubbing", "error", err)
		}
		next.Reset(max(s.cfg.ScrubEvery-s.cfg.Now().Sub(start), time.Second))
	}
}
