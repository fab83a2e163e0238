package chunkd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// Store holds the shards of one chunk server. All methods may be called
// concurrently.
type Store struct {
	cfg   Config
	log   *slog.Logger
	lock  io.Closer
	index *index
	files *fileCache
	boot  uint64
	work  *work // what Run does and reports

	mu          sync.Mutex // guards what follows, and the order of changes of the index
	closed      bool
	users       sync.WaitGroup // calls under way; Add under mu
	segments    map[uint64]*segment
	active      *segment // appended to; nil: the next put makes one
	nextSegment uint64
	pending     map[place]struct{} // records reserved and not yet indexed or given up
	flights     map[shardID]*flight
	live        usage
	sinceBytes  int64 // written since the last checkpoint
	sinceCount  int
	noAllocate  bool // the file system cannot allocate ahead
	full        bool // the disk said that it is full
	fullAt      time.Time
	fault       error // the disk failed a write; cleared when one succeeds
	space       diskSpace

	counters counters
}

// counters grow for ever.
type counters struct {
	puts, putBytes, reads, readBytes, deletes, badShards atomic.Uint64
}

// flight excludes others from a shard while it is put or deleted.
type flight struct{ done chan struct{} }

// Put stores a shard durably (see doc.go) and returns the proof. payload is not
// kept.
//
// Codes: Invalid (lengths or digests do not fit together), Exists (stored with
// another root), NoSpace (this server is full), Unavailable (its disk fails),
// Shutdown.
func (s *Store) Put(ctx context.Context, req *wire.PutShard, payload []byte) ([]byte, error) {
	id := shardID{req.GetBlock(), req.GetIndex()}
	if err := checkPut(req, payload); err != nil {
		return nil, s.fail("put", id, err)
	}
	if err := s.enter(); err != nil {
		return nil, s.fail("put", id, err)
	}
	defer s.users.Done()
	land, err := s.take(ctx, []shardID{id})
	if err != nil {
		return nil, s.fail("put", id, err)
	}
	defer land()

	root := [32]byte(req.GetRoot())
	old, err := s.index.get(id)
	if err != nil {
		return nil, s.fail("put", id, corruptIndex(err))
	}
	if old != nil && !s.work.isBad(id) {
		if old.root != root || old.length != len(payload) {
			return nil, s.fail("put", id, wire.Errorf(wire.Exists, "", "", "it is stored here with another digest"))
		}
		return s.proof(id, old), nil
	}
	if err := s.room(recordSize(len(req.GetLeaves()), len(payload))); err != nil {
		return nil, s.fail("put", id, err)
	}
	r := &record{id: id, length: uint32(len(payload)), leaves: uint32(len(req.GetLeaves())), root: root}
	seg, err := s.append(ctx, r, req.GetLeaves(), payload, !req.GetRelaxed())
	if err != nil {
		return nil, s.fail("put", id, err)
	}
	e := &entry{at: r.at, length: len(payload), root: root}
	if err := s.commit([]change{{id, e}}, []*entry{old}, seg, r); err != nil {
		return nil, s.fail("put", id, err)
	}
	if old != nil { // it was bad, and is whole again
		s.work.good(id)
		s.punch(old.at, old.size())
	}
	s.counters.puts.Add(1)
	s.counters.putBytes.Add(uint64(len(payload)))
	return s.proof(id, e), nil
}

// checkPut says what is wrong with a request. That the payload matches the
// leaves is left to readers, who check it anyway.
func checkPut(req *wire.PutShard, payload []byte) error {
	switch n := len(payload); {
	case n < 1 || n > block.MaxBlockSize || uint32(n) != req.GetLength():
		return wire.Errorf(wire.Invalid, "", "", "%d bytes came where %d (1 to %d) were announced", n, req.GetLength(), block.MaxBlockSize)
	case req.GetIndex() >= maxIndex:
		return wire.Errorf(wire.Invalid, "", "", "no block has so many shards")
	case !block.VerifyRoot(n, req.GetLeaves(), req.GetRoot()):
		return wire.Errorf(wire.Invalid, "", "", "the leaf digests do not match the root")
	}
	return nil
}

// enter says that a call uses the store, so that Close waits for it.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return wire.Errorf(wire.Shutdown, "", "", "the chunk server is stopping")
	}
	s.users.Add(1)
	return nil
}

// take waits until nobody else puts or deletes any of ids, and keeps others
// away until the returned function is called. ids are sorted.
func (s *Store) take(ctx context.Context, ids []shardID) (land func(), err error) {
	own := &flight{done: make(chan struct{})}
	taken := 0
	land = func() {
		s.mu.Lock()
		for _, id := range ids[:taken] {
			delete(s.flights, id)
		}
		s.mu.Unlock()
		close(own.done)
	}
	for taken < len(ids) {
		s.mu.Lock()
		other := s.flights[ids[taken]]
		if other == nil {
			s.flights[ids[taken]] = own
			taken++
		}
		s.mu.Unlock()
		if other == nil {
			continue
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			land()
			return nil, ctx.Err()
		}
	}
	return land, nil
}

// append writes a record to the log and, if durable is set, waits for the
// fdatasync. It fills in the record's place. After an error the record does not
// count; whether a replay finds it does not matter, since nobody was told of it.
func (s *Store) append(ctx context.Context, r *record, leaves, data []byte, durable bool) (*segment, error) {
	r.bodyCRC = bodyCRC(leaves, data)
	s.mu.Lock()
	seg, off, err := s.reserve(r.size())
	if err != nil {
		s.failed(err)
		s.mu.Unlock()
		return nil, s.writeError(err)
	}
	s.mu.Unlock()
	r.nonce, r.at = seg.nonce, place{seg.id, off}

	if _, err = seg.f.WriteAt(append(r.encode(), leaves...), off); err == nil {
		_, err = seg.f.WriteAt(data, r.data())
	}
	if err == nil && durable {
		err = seg.group.wait(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.fault = nil
		return seg, nil
	}
	gaveUp := ctx.Err() != nil && errors.Is(err, ctx.Err())
	if !gaveUp {
		s.failed(err)
	}
	if gaveUp || (outOfSpace(err) && seg.group.failure() == nil) {
		// The place stays empty.
		if seg.f.Punch(off, r.size()) == nil {
			seg.allocated = min(seg.allocated, off)
		}
	} else if !seg.sealed {
		// Nothing more is put behind a failed write or sync.
		s.log.Error("a segment is closed after a failed write", "segment", seg.id, "error", err)
		s.seal(seg)
	}
	s.done(seg, off)
	return nil, s.writeError(err)
}

// failed notes what the disk answered. Store.mu is held.
func (s *Store) failed(err error) {
	if outOfSpace(err) {
		if !s.full {
			s.log.Warn("the disk is full: no shards are taken until there is room", "dir", s.cfg.Dir)
		}
		s.full, s.fullAt = true, s.cfg.Now()
		return
	}
	s.fault = err
}

// writeError turns what the disk answered into what the writer is told.
func (s *Store) writeError(err error) error {
	switch {
	case outOfSpace(err):
		return wire.Errorf(wire.NoSpace, "", "", "the disk is full: %w", err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return wire.Errorf(wire.Unavailable, "", "", "the disk fails: %w", err)
}

// commit brings changes into the index, which their record r in seg made
// durable. old are the entries that they replace.
func (s *Store) commit(changes []change, old []*entry, seg *segment, r *record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.change(changes, old)
	s.done(seg, r.at.off)
	if err != nil {
		return err
	}
	s.sinceBytes += r.size()
	s.sinceCount++
	if s.sinceBytes >= checkpointBytes || s.sinceCount >= checkpointRecords {
		s.checkpoint(false)
	}
	return nil
}

// change applies changes to the index and to the counts, both in one batch.
// Store.mu is held.
func (s *Store) change(changes []change, old []*entry) error {
	used := map[uint64]usage{}
	add := func(e *entry, sign int64) {
		u, ok := used[e.at.segment]
		if !ok {
			if seg := s.segments[e.at.segment]; seg != nil {
				u = seg.live
			}
		}
		u.shards += sign
		u.bytes += sign * e.size()
		used[e.at.segment] = u
	}
	for i, c := range changes {
		if old[i] != nil {
			add(old[i], -1)
		}
		if c.entry != nil {
			add(c.entry, +1)
		}
	}
	if err := s.index.apply(changes, used); err != nil {
		return corruptIndex(err)
	}
	for id, u := range used {
		seg := s.segments[id]
		if seg == nil { // its file is missing
			continue
		}
		s.live.shards += u.shards - seg.live.shards
		s.live.bytes += u.bytes - seg.live.bytes
		seg.live = u
	}
	return nil
}

// checkpoint notes in the index how far it covers the log. Store.mu is held.
func (s *Store) checkpoint(flush bool) error {
	c := checkpoint{next: s.nextSegment, at: place{s.nextSegment, 0}}
	if s.active != nil {
		c.at = place{s.active.id, s.active.tail}
	}
	for p := range s.pending {
		if p.before(c.at) {
			c.at = p
		}
	}
	err := s.index.mark(c, flush)
	if err != nil {
		s.log.Error("checkpoint of the index", "dir", s.cfg.Dir, "error", err)
		return err
	}
	s.sinceBytes, s.sinceCount = 0, 0
	if flush {
		s.reap(c.at)
	}
	return nil
}

// reap removes the segments in which nothing lives, if they end before
// covered: the durable index needs their tombstones no more. Store.mu is held.
func (s *Store) reap(covered place) {
	var gone []uint64
	for id, seg := range s.segments {
		if seg.sealed && seg.pending == 0 && seg.live.shards == 0 && id < covered.segment {
			gone = append(gone, id)
		}
	}
	for _, id := range gone {
		if err := s.cfg.Disk.FS().Remove(s.segmentPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("removing a dead segment", "segment", id, "error", err)
			continue
		}
		delete(s.segments, id)
		s.files.drop(id)
	}
	if len(gone) > 0 {
		if err := s.index.forget(gone); err != nil {
			s.log.Warn("forgetting dead segments", "error", err)
		}
	}
}

// Delete removes shards; those that are not here count as removed. When it
// returns nil the deletion is durable.
func (s *Store) Delete(ctx context.Context, shards []*wire.ShardID) error {
	ids := make([]shardID, len(shards))
	for i, id := range shards {
		ids[i] = shardID{id.GetBlock(), id.GetIndex()}
	}
	return s.remove(ctx, ids, nil)
}

// remove deletes shards, those for which only (if set) says so.
func (s *Store) remove(ctx context.Context, ids []shardID, only func(shardID) bool) error {
	if err := s.enter(); err != nil {
		return s.fail("delete", shardID{}, err)
	}
	defer s.users.Done()
	ids = slices.Clone(ids)
	slices.SortFunc(ids, compareIDs)
	ids = slices.Compact(ids)
	for part := range slices.Chunk(ids, maxTombstones) {
		if err := s.removePart(ctx, part, only); err != nil {
			return s.fail("delete", part[0], err)
		}
	}
	return nil
}

func (s *Store) removePart(ctx context.Context, ids []shardID, only func(shardID) bool) error {
	land, err := s.take(ctx, ids)
	if err != nil {
		return err
	}
	defer land()
	var changes []change
	var old []*entry
	var dead []shardID
	for _, id := range ids {
		if only != nil && !only(id) {
			continue
		}
		e, err := s.index.get(id)
		if err != nil {
			return corruptIndex(err)
		}
		if e != nil {
			changes, old, dead = append(changes, change{id, nil}), append(old, e), append(dead, id)
		}
	}
	if len(dead) > 0 {
		if err := s.bury(ctx, changes, old, dead); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if only == nil || only(id) {
			s.work.good(id)
		}
	}
	return nil
}

// bury writes the tombstone of dead shards and takes them from the index.
func (s *Store) bury(ctx context.Context, changes []change, old []*entry, dead []shardID) error {
	body := encodeTombstones(dead)
	r := &record{tombstone: true, length: uint32(len(body))}
	seg, err := s.append(ctx, r, nil, body, true)
	punched := false
	if outOfSpace(err) {
		// The disk is so full that not even a tombstone fits. Destroying the
		// shards first makes room; should we die before the tombstone is
		// written, the leader, who has not been told, will ask again.
		for _, e := range old {
			s.punch(e.at, e.size())
		}
		punched = true
		seg, err = s.append(ctx, r, nil, body, true)
	}
	if err != nil {
		return err
	}
	if err := s.commit(changes, old, seg, r); err != nil {
		return err
	}
	s.counters.deletes.Add(uint64(len(dead)))
	if !punched {
		for _, e := range old {
			s.punch(e.at, e.size())
		}
	}
	return nil
}

func compareIDs(a, b shardID) int {
	switch {
	case a.block != b.block && a.block < b.block, a.block == b.block && a.index < b.index:
		return -1
	case a == b:
		return 0
	}
	return 1
}

func (s *Store) proof(id shardID, e *entry) []byte {
	return block.Proof(s.cfg.Key, s.cfg.Node, id.block, id.index, uint32(e.length), e.root[:])
}

// fail gives err an operation and an object.
func (s *Store) fail(op string, id shardID, err error) error {
	if err == nil {
		return nil
	}
	object := fmt.Sprintf("%v on server %d", id, s.cfg.Node)
	var e *wire.Error
	if errors.As(err, &e) && e.Op == "" {
		return &wire.Error{Code: e.Code, Op: op + " shard", Object: object, Err: e.Err}
	}
	return &wire.Error{Code: wire.CodeOf(err), Op: op + " shard", Object: object, Err: err}
}

func corruptIndex(err error) error {
	return wire.Errorf(wire.Corrupt, "", "", "the index is damaged: %w", err)
}

// Close waits for the calls under way, brings the index up to date and gives
// the directory free. It may be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.users.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.checkpoint(true)
	for _, seg := range s.segments {
		if seg.f == nil {
			continue
		}
		err = errors.Join(err, trim(seg.f, seg.tail), seg.f.Close())
		seg.f = nil
	}
	s.files.close()
	return errors.Join(err, s.index.close(), s.lock.Close())
}
