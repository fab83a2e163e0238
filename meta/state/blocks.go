package state

import (
	"bytes"
	"errors"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// delta is how the use of a block changes.
type delta struct{ refs, live int64 }

// ref notes a change in the use of a block, for settle.
func (t *tx) ref(id uint64, refs, live int64) {
	d := t.refs[id]
	t.refs[id] = delta{d.refs + refs, d.live + live}
}

var (
	errLost     = errors.New("an extent names a block that does not exist")
	errShortKey = errors.New("a key of the wrong length")
)

// settle brings the block records up to date with what ref has noted. A block that
// nothing refers to any more goes to the delayed-deletion queue.
func (t *tx) settle() {
	for id, d := range t.refs {
		b := t.block(id)
		if b == nil {
			t.fail(corrupt(blockKey(nil, id), errLost))
			continue
		}
		b = editBlock(b)
		b.Refs += uint64(d.refs)
		b.Live += uint64(d.live)
		t.counts[countLive] += uint64(d.live)
		if b.Refs == 0 && b.FreedIndex == 0 {
			b.FreedIndex, b.FreedNs = t.index, t.now
			t.wkey = freedKey(t.wkey[:0], t.now, id)
			t.setRaw(t.wkey, nil)
			t.counts[countFreed]++
			if holds(b, 0) >= 0 {
				t.setHeld(0, id, false)
				t.counts[countDegraded]--
			}
		}
		t.putBlock(b)
	}
	clear(t.refs)
}

// holds is the index of the first shard of b on server, -1 if there is none.
// Server 0 holds the shards that are missing.
func holds(b *wire.Block, server uint32) int {
	for i, s := range b.Shards {
		if s.GetServer() == server {
			return i
		}
	}
	return -1
}

func (t *tx) setHeld(server uint32, id uint64, held bool) {
	t.wkey = heldKey(t.wkey[:0], server, id)
	if held {
		t.setRaw(t.wkey, nil)
	} else {
		t.del(t.wkey)
	}
}

// addBlock makes the record of a checked block, to which nothing refers yet.
func (t *tx) addBlock(b *wire.Block) {
	b = editBlock(b)
	b.Live, b.Refs, b.MadeIndex, b.FreedIndex, b.FreedNs = 0, 0, t.index, 0, 0
	shards := make([]*wire.Shard, len(b.Shards))
	for i, s := range b.Shards {
		shards[i] = &wire.Shard{Server: s.Server, Root: s.Root}
		if s.Server != 0 {
			t.setHeld(s.Server, b.Id, true)
		}
	}
	b.Shards = shards
	if holds(b, 0) >= 0 {
		t.setHeld(0, b.Id, true)
		t.counts[countDegraded]++
	}
	t.putBlock(b)
	t.counts[countBlocks]++
	t.ref(b.Id, 0, 0)
}

func (t *tx) reserveBlocks(op *wire.ReserveBlocks) *wire.Result {
	if op.Count == 0 || op.Count > 1<<32 {
		return failf(wire.Invalid, "%d block ids asked for", op.Count)
	}
	return &wire.Result{Value: t.take(nextBlock, op.Count)}
}

// expireTickets moves the limit below which no new block is taken any more, so
// that shards of blocks below it which have no record can be deleted safely. It
// never moves back.
func (t *tx) expireTickets(op *wire.ExpireTickets) *wire.Result {
	if op.Below > t.counts[nextBlock] {
		return failf(wire.Invalid, "block ids from %d on have not been given out", t.counts[nextBlock])
	}
	t.counts[ticketFloor] = max(t.counts[ticketFloor], op.Below)
	return &wire.Result{Value: t.counts[ticketFloor]}
}

// setShard replaces the holder of one shard, and keeps the index of holders and
// of blocks that miss a shard.
func (t *tx) setShard(b *wire.Block, index int, server uint32) {
	was, wasDegraded := b.Shards[index].Server, holds(b, 0) >= 0
	shards := append([]*wire.Shard(nil), b.Shards...)
	shards[index] = &wire.Shard{Server: server, Root: shards[index].Root}
	b = editBlock(b)
	b.Shards = shards
	if was != 0 {
		t.setHeld(was, b.Id, false)
	}
	if server != 0 {
		t.setHeld(server, b.Id, true)
	}
	if degraded := holds(b, 0) >= 0; degraded != wasDegraded && b.FreedIndex == 0 {
		t.setHeld(0, b.Id, degraded)
		if degraded {
			t.counts[countDegraded]++
		} else {
			t.counts[countDegraded]--
		}
	}
	t.putBlock(b)
}

func (t *tx) moveShard(op *wire.MoveShard) *wire.Result {
	b := t.block(op.Block)
	server := op.Shard.GetServer()
	switch {
	case b == nil:
		return fail(wire.NotFound)
	case int(op.Index) >= len(b.Shards) || server == 0:
		return fail(wire.Invalid)
	case b.Shards[op.Index].Server == server: // done before
		return new(wire.Result)
	case b.Shards[op.Index].Server != op.From:
		return fail(wire.Stale)
	case holds(b, server) >= 0:
		return failf(wire.Invalid, "server %d has another shard of block %d", server, b.Id)
	case !bytes.Equal(b.Shards[op.Index].Root, op.Shard.Root):
		return failf(wire.Corrupt, "block %d shard %d: not the root that was committed", b.Id, op.Index)
	case !block.VerifyProof(t.vkey, server, b.Id, op.Index, b.ShardLength, op.Shard.Root, op.Shard.Proof):
		return failf(wire.Invalid, "block %d shard %d: server %d has not signed for it", b.Id, op.Index, server)
	}
	t.setShard(b, int(op.Index), server)
	return new(wire.Result)
}

func (t *tx) loseShard(op *wire.LoseShard) *wire.Result {
	b := t.block(op.Block)
	switch {
	case b == nil:
		return fail(wire.NotFound)
	case int(op.Index) >= len(b.Shards) || op.Server == 0:
		return fail(wire.Invalid)
	case b.Shards[op.Index].Server != op.Server:
		return fail(wire.Stale)
	}
	t.setShard(b, int(op.Index), 0)
	return new(wire.Result)
}

// purgeBlocks passes over blocks that are gone; it refuses if one is in use.
func (t *tx) purgeBlocks(op *wire.PurgeBlocks) *wire.Result {
	for _, id := range op.Blocks {
		if b := t.block(id); b != nil && b.FreedIndex == 0 {
			return failf(wire.Busy, "block %d is in use", id)
		}
	}
	for _, id := range op.Blocks {
		b := t.block(id)
		if b == nil {
			continue
		}
		for _, s := range b.Shards {
			if s.Server != 0 {
				t.setHeld(s.Server, id, false)
			}
		}
		t.wkey = freedKey(t.wkey[:0], b.FreedNs, id)
		t.del(t.wkey)
		t.blocks.put(id, nil)
		t.counts[countBlocks]--
		t.counts[countFreed]--
	}
	return new(wire.Result)
}
