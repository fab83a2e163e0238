package data

import (
	"sync"

	"quernfs/internal/wire"
)

// recordsKept bounds the block records in memory (about 1 KiB each).
const recordsKept = 32 << 10

// records keeps the records of blocks that were used lately, in two
// generations: when the young one is full it becomes the old one, and what was
// not used since is gone.
type records struct {
	mu         sync.Mutex
	young, old map[uint64]*wire.Block
}

func (r *records) get(id uint64) *wire.Block {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.young[id]; b != nil {
		return b
	}
	b := r.old[id]
	if b != nil {
		r.put(b)
	}
	return b
}

// add keeps b without the proofs, which only a commit needs.
func (r *records) add(b *wire.Block) {
	kept := &wire.Block{Id: b.GetId(), K: b.GetK(), M: b.GetM(), Length: b.GetLength(), ShardLength: b.GetShardLength()}
	for _, s := range b.GetShards() {
		kept.Shards = append(kept.Shards, &wire.Shard{Server: s.GetServer(), Root: s.GetRoot()})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(kept)
}

func (r *records) put(b *wire.Block) {
	if len(r.young) >= recordsKept/2 {
		r.old, r.young = r.young, nil
	}
	if r.young == nil {
		r.young = map[uint64]*wire.Block{}
	}
	r.young[b.GetId()] = b
}
