package meta

import (
	"cmp"
	"context"
	"math"
	"slices"

	"quernfs/internal/wire"
	"quernfs/meta/state"
)

const (
	maxPage    = 8192  // shards in one heartbeat
	maxCompare = 16384 // recorded shards that one page is compared with
	maxOrphans = 16384 // waiting to be deleted on one server
	loseEach   = 1024  // losses recorded by one command
)

// page is what a chunk server says it holds: all shards above after (nil: from
// the first) and up to upto, in order.
type page struct {
	after *shardKey
	upto  shardKey
	holds []shardKey
	index uint64 // what the server knew to be applied before it listed them
}

func compareKeys(a, b shardKey) int {
	return cmp.Or(cmp.Compare(a.block, b.block), cmp.Compare(a.index, b.index))
}

// pageOf reads the page of a heartbeat; nil if there is none.
func pageOf(hb *wire.Heartbeat) (*page, error) {
	if hb.InventoryUpto == nil {
		return nil, nil
	}
	bad := func(text string) error { return wire.Errorf(wire.Invalid, "inventory", "", "%s", text) }
	if len(hb.Inventory) > maxPage {
		return nil, bad("the page is too long")
	}
	key := func(id *wire.ShardID) shardKey { return shardKey{id.GetBlock(), id.GetIndex()} }
	p := &page{upto: key(hb.InventoryUpto), index: hb.InventoryIndex}
	last := p.after
	if hb.InventoryAfter != nil {
		k := key(hb.InventoryAfter)
		p.after, last = &k, &k
	}
	for _, id := range hb.Inventory {
		k := key(id)
		if last != nil && compareKeys(*last, k) >= 0 || compareKeys(k, p.upto) > 0 {
			return nil, bad("the page is not in order")
		}
		p.holds, last = append(p.holds, k), &k
	}
	return p, nil
}

// from is what to give OnServer so that its answer begins with the page.
func (p *page) from() uint64 {
	if p.after == nil || p.after.block == 0 {
		return 0
	}
	return p.after.block - 1
}

// cut shortens the page, so that it ends with upto.
func (p *page) cut(upto shardKey) {
	p.upto = upto
	n, found := slices.BinarySearchFunc(p.holds, upto, compareKeys)
	if found {
		n++
	}
	p.holds = p.holds[:n]
}

// compare holds the page against what the state has recorded on the server, at
// least within the page, in order. strays are here but not recorded here; lost
// are recorded here and not here, although they were before the page was made.
func (p *page) compare(recorded []state.Held) (strays, lost []shardKey) {
	i := 0
	for _, r := range recorded {
		k := shardKey{r.Block, r.Index}
		if p.after != nil && compareKeys(k, *p.after) <= 0 {
			continue
		}
		if compareKeys(k, p.upto) > 0 {
			break
		}
		for i < len(p.holds) && compareKeys(p.holds[i], k) < 0 {
			strays = append(strays, p.holds[i])
			i++
		}
		switch {
		case i < len(p.holds) && p.holds[i] == k:
			i++
		case !r.Freed && r.Made <= p.index:
			lost = append(lost, k)
		}
	}
	return append(strays, p.holds[i:]...), lost
}

// orphans picks from a server's strays those that belong to nobody and never
// will: blocks holds the records of all their blocks that are below the floor,
// nil for one without. Of a block with a record these are surplus copies: another
// server is recorded and alive, and no copy is on its way (moving) to this one. A
// shard of which nobody, or nobody who is there, is recorded as the holder is
// kept: it may be the last copy.
func orphans(strays []shardKey, server uint32, blocks map[uint64]*wire.Block, alive func(uint32) bool, moving func(shardKey) bool) (out []shardKey) {
	for _, k := range strays {
		b, expired := blocks[k.block]
		switch {
		case !expired: // it may be committed yet
		case b == nil, int(k.index) >= len(b.Shards):
			out = append(out, k)
		default:
			holder := b.Shards[k.index].Server
			if holder != 0 && holder != server && alive(holder) && !moving(k) {
				out = append(out, k)
			}
		}
	}
	return out
}

// inventory does what follows from the page of a heartbeat: orphans go on the
// list of deletions, what is lost is recorded so. again: there was too much for
// one time.
func (l *leader) inventory(ctx context.Context, hb *wire.Heartbeat) (again bool, err error) {
	p, err := pageOf(hb)
	if p == nil || err != nil {
		return false, err
	}
	st, w := l.s.fsm.state(), &l.work
	recorded, err := st.OnServer(hb.Node, p.from(), maxCompare)
	if err != nil {
		return false, err
	}
	whole := len(recorded) < maxCompare
	if !whole {
		if end := recorded[maxCompare-1]; compareKeys(shardKey{end.Block, math.MaxUint32}, p.upto) < 0 {
			p.cut(shardKey{end.Block, math.MaxUint32})
		} else {
			whole = true
		}
	}
	strays, lost := p.compare(recorded)
	// Shards that a later heartbeat reported as rebuilt are recorded and not in
	// this page.
	if !l.nodes.newest(hb) {
		lost = nil
	}
	if err := l.lose(ctx, hb.Node, lost); err != nil {
		return false, err
	}
	ids := make([]uint64, len(strays))
	for i, k := range strays {
		ids[i] = k.block
	}
	_, blocks, err := st.Expired(ids)
	if err != nil {
		return false, err
	}
	alive := map[uint32]bool{}
	for _, n := range l.nodes.list() {
		alive[n.Node.Id] = n.Alive
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	ordered := 0
	for _, k := range orphans(strays, hb.Node, blocks, func(id uint32) bool { return alive[id] }, func(k shardKey) bool {
		r := w.repairs[k]
		return r != nil && r.target == hb.Node
	}) {
		if _, known := w.remove[hb.Node][k]; known {
			continue
		}
		if len(w.remove[hb.Node]) >= maxOrphans {
			again = true
			break
		}
		w.toRemove(hb.Node, k)
		ordered++
	}
	if ordered > 0 {
		l.log.Info("shards that belong to nobody are being deleted", "server", hb.Node, "shards", ordered)
	}
	return again || !whole && ordered+len(lost) > 0, nil
}

// lose records that a server does not have shards any more.
func (l *leader) lose(ctx context.Context, server uint32, lost []shardKey) error {
	for part := range slices.Chunk(lost, loseEach) {
		if ctx.Err() != nil { // the server does not wait any more
			return wire.Errorf(wire.CodeOf(ctx.Err()), "inventory", "", "the heartbeat is over")
		}
		batch := new(wire.Batch)
		for _, k := range part {
			batch.Commands = append(batch.Commands, &wire.Command{Op: &wire.Command_LoseShard{
				LoseShard: &wire.LoseShard{Block: k.block, Index: k.index, Server: server},
			}})
		}
		// What has changed meanwhile is refused within the batch.
		if _, err := l.internal(&wire.Command{Op: &wire.Command_Batch{Batch: batch}}, "lose shards"); err != nil {
			return err
		}
	}
	if len(lost) > 0 {
		l.log.Warn("shards are missing on a server, and will be made anew", "server", server, "shards", len(lost), "first block", lost[0].block)
	}
	return nil
}

// newest: no later heartbeat of the server has come.
func (m *nodeMap) newest(hb *wire.Heartbeat) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[hb.Node]
	return n != nil && n.last.Boot == hb.Boot && n.last.Number == hb.Number
}
