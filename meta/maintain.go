package meta

import (
	"context"
	"slices"
	"sync"
	"time"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

const (
	maintainEvery  = time.Second
	maxDeleting    = 4096             // freed blocks being deleted at once
	maxRemoveReply = 1024             // deletions in one heartbeat's reply
	removeAgain    = 5 * time.Second  // an order that is not confirmed is repeated
	maxRepairs     = 64               // shards being rebuilt at once
	maxPerServer   = 8                // of these on one server
	rebuildAgain   = 10 * time.Second // an order is repeated while it is open
	rebuildGiveUp  = 150 * time.Second
	repairPause    = 15 * time.Second // after a failure, before the shard is tried again
	lacksEach      = 512              // looked at in one round
	maxReports     = 4096
)

// work is what the leader has the chunk servers do. It is a plan made again and
// again from the state: losing it with the term loses nothing.
type work struct {
	wake chan struct{} // capacity 1

	mu       sync.Mutex
	deleting map[uint64]map[uint32]bool        // freed block → servers that still hold shards of it
	remove   map[uint32]map[shardKey]time.Time // server → shards to delete, and when that was last said
	repairs  map[shardKey]*repair              // being rebuilt, or resting after a failure
	reports  map[shardKey]uint32               // bad shards that clients have found, and on which server
	cursor   map[uint32]uint64                 // of the scans: server (0: degraded blocks) → last block seen
}

type repair struct {
	order
	began, sent time.Time
	rest        time.Time // not to be tried before; zero: under way
}

func newWork() work {
	return work{
		wake: make(chan struct{}, 1), deleting: map[uint64]map[uint32]bool{}, remove: map[uint32]map[shardKey]time.Time{},
		repairs: map[shardKey]*repair{}, reports: map[shardKey]uint32{}, cursor: map[uint32]uint64{},
	}
}

// maintain plans until the term ends.
func (l *leader) maintain() {
	t := time.NewTicker(maintainEvery)
	defer t.Stop()
	for {
		now := time.Now()
		if err := l.planDeletions(now); err != nil && l.ctx.Err() == nil {
			l.log.Warn("planning deletions", "err", err)
		}
		if err := l.planRepairs(now); err != nil && l.ctx.Err() == nil {
			l.log.Warn("planning repairs", "err", err)
		}
		if err := l.expireTickets(now); err != nil && l.ctx.Err() == nil {
			l.log.Warn("expiring tickets", "err", err)
		}
		select {
		case <-t.C:
		case <-l.ctx.Done():
			return
		}
	}
}

// given up: nothing more is expected of the server.
func (l *leader) givenUp(id uint32, now time.Time) bool {
	away, known := l.nodes.absent(id, now)
	return !known || away > l.s.cfg.DeadAfter || l.nodes.state(id) == "out" && away > silentFor
}

func (m *nodeMap) state(id uint32) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.nodes[id]; n != nil {
		return n.rec.State
	}
	return ""
}

// shortDeleteDelay is DeleteDelay while a server is full, or almost: somebody waits
// for the room, or will. A reader that is late then looks the file up again.
const shortDeleteDelay = time.Second

// planDeletions takes blocks from the delayed-deletion queue, and purges the
// records of those that no server holds any more.
func (l *leader) planDeletions(now time.Time) error {
	w := &l.work
	w.mu.Lock()
	room := maxDeleting - len(w.deleting)
	w.mu.Unlock()
	if room > 0 {
		delay := l.s.cfg.DeleteDelay
		if l.nodes.short() {
			delay = min(delay, shortDeleteDelay)
		}
		dead, err := l.s.fsm.state().Dead(now.Add(-delay).UnixNano(), maxDeleting)
		if err != nil {
			return err
		}
		w.mu.Lock()
		for _, b := range dead {
			if room == 0 {
				break
			}
			if w.deleting[b.Id] != nil {
				continue
			}
			room--
			w.deleting[b.Id] = map[uint32]bool{}
			for i, s := range b.Shards {
				if s.Server != 0 {
					w.deleting[b.Id][s.Server] = true
					w.toRemove(s.Server, shardKey{b.Id, uint32(i)})
				}
			}
		}
		w.mu.Unlock()
	}
	var purge []uint64
	w.mu.Lock()
	for id, servers := range w.deleting {
		for server := range servers {
			if l.givenUp(server, now) {
				delete(servers, server)
			}
		}
		if len(servers) == 0 {
			purge = append(purge, id)
		}
	}
	for server := range w.remove {
		if l.givenUp(server, now) {
			delete(w.remove, server)
		}
	}
	w.mu.Unlock()
	if len(purge) == 0 {
		return nil
	}
	slices.Sort(purge)
	_, err := l.internal(&wire.Command{Op: &wire.Command_PurgeBlocks{PurgeBlocks: &wire.PurgeBlocks{Blocks: purge}}}, "purge blocks")
	if err != nil {
		return err
	}
	w.mu.Lock()
	for _, id := range purge {
		delete(w.deleting, id)
	}
	w.mu.Unlock()
	return nil
}

// toRemove puts a shard on a server's list of deletions. mu is held.
func (w *work) toRemove(server uint32, k shardKey) {
	if w.remove[server] == nil {
		w.remove[server] = map[shardKey]time.Time{}
	}
	w.remove[server][k] = time.Time{}
}

// planRepairs looks for shards that are missing, or lie on servers that are to
// be emptied or have been silent too long, and orders new ones.
func (l *leader) planRepairs(now time.Time) error {
	lacks, err := l.lacks(now)
	if err != nil {
		return err
	}
	w := &l.work
	sites := l.nodes.sites(nil)
	alive := map[uint32]bool{}
	for _, n := range l.nodes.list() {
		alive[n.Node.Id] = n.Alive
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	load := map[uint32]int{}
	for key, r := range w.repairs {
		switch {
		case !r.rest.IsZero():
			if now.After(r.rest) {
				delete(w.repairs, key)
			}
		case now.Sub(r.began) > rebuildGiveUp || !alive[r.target]:
			delete(w.repairs, key)
		default:
			load[r.target]++
		}
	}
	open := 0
	for _, n := range load {
		open += n
	}
	lacks = slices.DeleteFunc(lacks, func(k lack) bool { return w.repairs[k.key()] != nil })
	for _, o := range planRepairs(lacks, sites, func(id uint32) bool { return alive[id] }, load, maxRepairs-open, maxPerServer) {
		if _, leaving := w.remove[o.target][o.key()]; leaving {
			continue // an older copy is being deleted there
		}
		w.repairs[o.key()] = &repair{order: o, began: now}
	}
	return nil
}

// lacks scans on from where the last round ended.
func (l *leader) lacks(now time.Time) ([]lack, error) {
	st, w := l.s.fsm.state(), &l.work
	var out []lack
	degraded, err := st.Degraded(w.at(0), lacksEach)
	if err != nil {
		return nil, err
	}
	for _, b := range degraded {
		for i, s := range b.Shards {
			if s.Server == 0 {
				out = append(out, lack{block: b, index: uint32(i)})
			}
		}
	}
	if n := len(degraded); n < lacksEach {
		w.move(0, 0)
	} else {
		w.move(0, degraded[n-1].Id)
	}
	for _, n := range l.nodes.list() {
		id := n.Node.Id
		away, _ := l.nodes.absent(id, now)
		if n.Node.Kind != "chunkd" || inService(n) && away <= l.s.cfg.DeadAfter {
			continue
		}
		held, err := st.OnServer(id, w.at(id), lacksEach)
		if err != nil {
			return nil, err
		}
		for _, h := range held {
			if h.Freed {
				continue
			}
			if b, err := st.Block(h.Block); err == nil {
				out = append(out, lack{block: b, index: h.Index, from: id})
			}
		}
		if m := len(held); m < lacksEach {
			w.move(id, 0)
		} else {
			w.move(id, held[m-1].Block)
		}
	}
	return append(out, l.reported()...), nil
}

func (w *work) at(server uint32) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cursor[server]
}

func (w *work) move(server uint32, to uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cursor[server] = to
}

// reported are the shards that clients found bad and that still are where they
// found them.
func (l *leader) reported() []lack {
	w := &l.work
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []lack
	for key, server := range w.reports {
		b, err := l.s.fsm.state().Block(key.block)
		if err != nil || b.FreedIndex != 0 || int(key.index) >= len(b.Shards) || b.Shards[key.index].Server != server {
			delete(w.reports, key)
			continue
		}
		out = append(out, lack{block: b, index: key.index, from: server, bad: true})
	}
	return out
}

// badShard serves MethodBadShard. A client's word does not make a shard lost: a
// new one is made, and the old one is counted on until then.
func (s *Server) badShard(_ context.Context, _ transport.Peer, r *wire.BadShard) (*wire.Empty, error) {
	l, err := s.leading("bad shard")
	if err != nil {
		return nil, err
	}
	w := &l.work
	w.mu.Lock()
	if len(w.reports) < maxReports {
		w.reports[shardKey{r.Block, r.Index}] = r.Server
	}
	w.mu.Unlock()
	l.log.Info("a client found a bad shard", "block", r.Block, "shard", r.Index, "server", r.Server, "corrupt", r.Corrupt)
	return &wire.Empty{}, nil
}

// reported takes a server's report: what it lost, deleted and rebuilt.
func (w *work) reported(l *leader, hb *wire.Heartbeat) error {
	for _, b := range hb.Bad {
		_, err := l.internal(&wire.Command{Op: &wire.Command_LoseShard{LoseShard: &wire.LoseShard{Block: b.Block, Index: b.Index, Server: hb.Node}}}, "lose shard")
		if err != nil && !settledCode(err) {
			return err
		}
	}
	w.mu.Lock()
	for _, d := range hb.Deleted {
		if servers := w.deleting[d.Block]; servers != nil {
			delete(servers, hb.Node)
		}
		delete(w.remove[hb.Node], shardKey{d.Block, d.Index})
	}
	w.mu.Unlock()
	for _, r := range hb.Rebuilt {
		if err := w.rebuilt(l, hb.Node, r); err != nil {
			return err
		}
	}
	return nil
}

// settledCode: the state has answered that there is nothing to do any more.
func settledCode(err error) bool {
	switch wire.CodeOf(err) {
	case wire.Stale, wire.NotFound, wire.Invalid, wire.Corrupt:
		return true
	}
	return false
}

// rebuilt records a shard that a server has made.
func (w *work) rebuilt(l *leader, server uint32, r *wire.Rebuilt) error {
	key := shardKey{r.Block, r.Index}
	failed := r.Code != 0 || r.Shard == nil
	if !failed {
		_, err := l.internal(&wire.Command{Op: &wire.Command_MoveShard{MoveShard: &wire.MoveShard{
			Block: r.Block, Index: r.Index, From: r.From, Shard: r.Shard,
		}}}, "move shard")
		if err != nil && !settledCode(err) {
			return err
		}
		failed = err != nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if o := w.repairs[key]; o != nil && o.target == server {
		delete(w.repairs, key)
		if failed {
			o.rest = time.Now().Add(repairPause)
			w.repairs[key] = o
		}
	}
	switch {
	case failed:
		l.log.Debug("a shard could not be rebuilt", "block", r.Block, "shard", r.Index, "server", server, "code", r.Code)
	case w.reports[key] == r.From:
		delete(w.reports, key)
		fallthrough
	default:
		if r.From != 0 && r.From != server {
			w.toRemove(r.From, key)
		}
	}
	return nil
}

// next is what a server is to do, in the reply to its heartbeat.
func (w *work) next(l *leader, server uint32, now time.Time) *wire.HeartbeatReply {
	st := l.s.fsm.state()
	reply := new(wire.HeartbeatReply)
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, said := range w.remove[server] {
		if len(reply.Remove) == maxRemoveReply {
			break
		}
		if now.Sub(said) < removeAgain {
			continue
		}
		// A shard that has come back here meanwhile is not to be deleted.
		if b, err := st.Block(key.block); err == nil && b.FreedIndex == 0 && int(key.index) < len(b.Shards) && b.Shards[key.index].Server == server {
			delete(w.remove[server], key)
			continue
		}
		w.remove[server][key] = now
		reply.Remove = append(reply.Remove, &wire.ShardID{Block: key.block, Index: key.index})
	}
	for key, r := range w.repairs {
		if r.target != server || !r.rest.IsZero() || now.Sub(r.sent) < rebuildAgain {
			continue
		}
		b, err := st.Block(key.block)
		if err != nil || b.FreedIndex != 0 || int(key.index) >= len(b.Shards) || b.Shards[key.index].Server != r.from {
			delete(w.repairs, key)
			continue
		}
		r.sent = now
		reply.Rebuild = append(reply.Rebuild, &wire.Rebuild{Block: b, Index: key.index, From: r.from})
	}
	return reply
}
