package chunkd

import (
	"slices"
	"sync"

	"quernfs/internal/wire"
)

// work is what this server has to tell the leader. What was told is dropped
// only when the heartbeat that carried it was answered.
type work struct {
	mu      sync.Mutex       // guards what follows
	damaged map[shardID]bool // value: the leader has been told
	deleted []*wire.ShardID
	rebuilt []*wire.Rebuilt
	running map[shardID]bool // rebuilds under way
	leaving map[shardID]bool // removals ordered and not done yet
	wake    chan struct{}    // something is to be told now; capacity 1
}

// A heartbeat carries at most so many of each.
const maxReported = 4096

func newWork() *work {
	return &work{damaged: map[shardID]bool{}, running: map[shardID]bool{}, leaving: map[shardID]bool{}, wake: make(chan struct{}, 1)}
}

func (w *work) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// bad notes a damaged shard; false: it was known.
func (w *work) bad(id shardID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.damaged[id]; known {
		return false
	}
	w.damaged[id] = false
	w.poke()
	return true
}

// good forgets that a shard was damaged: it was written anew or deleted.
func (w *work) good(id shardID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.damaged, id)
}

func (w *work) isBad(id shardID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, bad := w.damaged[id]
	return bad
}

// report fills in what is to be told, up to maxReported of each.
func (w *work) report(hb *wire.Heartbeat) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, told := range w.damaged {
		if !told && len(hb.Bad) < maxReported {
			hb.Bad = append(hb.Bad, id.wire())
		}
	}
	hb.Deleted = slices.Clone(w.deleted[:min(len(w.deleted), maxReported)])
	hb.Rebuilt = slices.Clone(w.rebuilt[:min(len(w.rebuilt), maxReported)])
}

// told drops what hb carried, which the leader has answered, and returns the
// damaged shards that may be dropped now. More is to be told if the lists are
// not empty yet.
func (w *work) told(hb *wire.Heartbeat) (drop []shardID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range hb.GetBad() {
		id := shardID{b.GetBlock(), b.GetIndex()}
		if _, still := w.damaged[id]; still {
			w.damaged[id] = true
			drop = append(drop, id)
		}
	}
	w.deleted = slices.Delete(w.deleted, 0, len(hb.GetDeleted()))
	w.rebuilt = slices.Delete(w.rebuilt, 0, len(hb.GetRebuilt()))
	if len(w.deleted)+len(w.rebuilt) > 0 {
		w.poke()
	}
	return drop
}

// toldBad says whether the leader knows that the shard is damaged.
func (w *work) toldBad(id shardID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.damaged[id]
}

// beginRemoval returns those of ids that may be deleted now: not those that are
// being rebuilt here, or have been and the leader does not know yet. It would
// else record a shard that was just deleted. If it still wants them gone when it
// knows, it asks again.
func (w *work) beginRemoval(ids []*wire.ShardID) []*wire.ShardID {
	w.mu.Lock()
	defer w.mu.Unlock()
	var may []*wire.ShardID
	for _, id := range ids {
		k := shardID{id.GetBlock(), id.GetIndex()}
		if !w.running[k] && !w.untold(k) {
			w.leaving[k] = true
			may = append(may, id)
		}
	}
	return may
}

// endRemoval notes that a removal is over; done: the shards are gone.
func (w *work) endRemoval(ids []*wire.ShardID, done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		delete(w.leaving, shardID{id.GetBlock(), id.GetIndex()})
	}
	if done {
		w.deleted = append(w.deleted, ids...)
		w.poke()
	}
}

// untold: a rebuild of the shard is done and about to be told. mu is held.
func (w *work) untold(id shardID) bool {
	return slices.ContainsFunc(w.rebuilt, func(r *wire.Rebuilt) bool {
		return r.GetBlock() == id.block && r.GetIndex() == id.index
	})
}

// begin says whether a rebuild is to be started: not if it is under way, or
// done and about to be told, or while the shard is being removed.
func (w *work) begin(id shardID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running[id] || w.leaving[id] || w.untold(id) {
		return false
	}
	w.running[id] = true
	return true
}

func (w *work) end(id shardID, r *wire.Rebuilt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.running, id)
	if r != nil {
		w.rebuilt = append(w.rebuilt, r)
		w.poke()
	}
}
