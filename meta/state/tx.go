package state

import (
	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// tx is the state as the command being applied sees it: the view of the batch
// under construction, and in front of it the decoded inodes, blocks, sessions
// and counters, of which the changed ones go into the batch when it is
// complete.
//
// Records are immutable once read or put: a change is a copy (edit) that is
// put in its place. So what a Result holds stays as it was, and a command that
// fails before its first put has changed nothing.
type tx struct {
	view
	batch *pebble.Batch
	vkey  []byte // of proofs

	inodes   records[wire.Inode]
	blocks   records[wire.Block]
	sessions map[uint64]*session
	changes  map[uint64]struct{}  // sessions whose record is not in the batch yet
	jobs     map[uint64]*wire.Job // that the batch puts; nil: removes
	counts   counters
	stored   counters // as in the batch or database

	// Of the command being applied.
	index   uint64
	now     int64
	session uint64
	cred    *wire.Cred

	refs         map[uint64]delta // of blocks, since settle was last called
	wrote, bytes int              // keys, and bytes of keys and values, that it has put or removed

	wkey, wval []byte // reused for writes
}

// records holds decoded records, the recently used ones among them. gone marks
// one whose removal is not in the batch yet.
type records[T any] struct {
	young, old map[uint64]*T
	dirty      map[uint64]struct{}
	max        int // of young
}

func newRecords[T any](max int) records[T] {
	return records[T]{young: map[uint64]*T{}, dirty: map[uint64]struct{}{}, max: max}
}

// find returns the cached record; known is false if it has to be read.
func (r *records[T]) find(id uint64) (rec *T, known bool) {
	if rec, known = r.young[id]; known {
		return rec, true
	}
	if rec, known = r.old[id]; known {
		r.young[id] = rec
	}
	return rec, known
}

func (r *records[T]) put(id uint64, rec *T) {
	r.young[id] = rec
	r.dirty[id] = struct{}{}
}

// flush calls write with every changed record, nil for a removed one, and
// then forgets what has not been used for long.
func (r *records[T]) flush(write func(id uint64, rec *T)) {
	for id := range r.dirty {
		rec, _ := r.find(id)
		write(id, rec)
		if rec == nil {
			delete(r.young, id)
			delete(r.old, id)
		}
	}
	clear(r.dirty)
	if len(r.young) > r.max {
		r.old, r.young = r.young, make(map[uint64]*T, r.max)
	}
}

// counter names a number that the state keeps.
type counter int

const (
	nextIno counter = iota
	nextBlock
	nextSession
	nextNode
	nextJob
	countInodes   // i/ records
	countBlocks   // b/ records
	countLive     // bytes that extents refer to
	countDegraded // blocks in use with a shard that nobody holds
	countFreed    // blocks in the delayed-deletion queue
	countTrash    // z/ records
	ticketFloor   // new blocks with ids below are refused
	nextRefusal
	countRefusals
	countDropped // of staged tasks
	firstAccount // no account ended before this time (ordered)
	lenCounters
)

var counterNames = [lenCounters]string{
	"next-ino", "next-block", "next-session", "next-node", "next-job",
	"inodes", "blocks", "live", "degraded", "freed", "trash", "ticket-floor", "next-refusal", "refusals", "dropped", "first-account",
}

type counters [lenCounters]uint64

// fresh are the counters of a state in which nothing has happened.
var fresh = counters{nextIno: wire.FirstIno, nextBlock: 1, nextSession: 1, nextNode: 1, nextJob: 1, nextRefusal: 1}

func counterKey(b []byte, c counter) []byte {
	return append(paramKey(b, pCounters), counterNames[c]...)
}

func (v *view) counters() counters {
	all := fresh
	for c := range all {
		v.key = counterKey(v.key[:0], counter(c))
		if n, ok := v.number(v.key); ok {
			all[c] = n
		}
	}
	return all
}

// take gives the next n numbers of c and returns the first.
func (t *tx) take(c counter, n uint64) uint64 {
	first := t.counts[c]
	t.counts[c] += n
	return first
}

var marshal = proto.MarshalOptions{Deterministic: true}

func (t *tx) set(key []byte, m proto.Message) {
	var err error
	if t.wval, err = marshal.MarshalAppend(t.wval[:0], m); err != nil {
		t.fail(err)
		return
	}
	t.setRaw(key, t.wval)
}

func (t *tx) setRaw(key, value []byte) {
	t.wrote, t.bytes = t.wrote+1, t.bytes+len(key)+len(value)
	t.fail(t.batch.Set(key, value, nil))
}

func (t *tx) del(key []byte) {
	t.wrote, t.bytes = t.wrote+1, t.bytes+len(key)
	t.fail(t.batch.Delete(key, nil))
}

func (t *tx) inode(ino uint64) *wire.Inode {
	in, known := t.inodes.find(ino)
	if !known {
		if in = t.view.inode(ino); in != nil {
			t.inodes.young[ino] = in
		}
	}
	return in
}

func (t *tx) putInode(in *wire.Inode) { t.inodes.put(in.Attr.Ino, in) }

func (t *tx) block(id uint64) *wire.Block {
	b, known := t.blocks.find(id)
	if !known {
		if b = t.view.block(id); b != nil {
			t.blocks.young[id] = b
		}
	}
	return b
}

func (t *tx) putBlock(b *wire.Block) { t.blocks.put(b.Id, b) }

func (t *tx) putDentry(parent uint64, name string, ino uint64, kind uint32) {
	t.wkey = dentryKey(t.wkey[:0], parent, name)
	t.set(t.wkey, &wire.Dentry{Ino: ino, Type: kind})
}

func (t *tx) delDentry(parent uint64, name string) {
	t.wkey = dentryKey(t.wkey[:0], parent, name)
	t.del(t.wkey)
}

func (t *tx) putXattr(ino uint64, name string, value []byte) {
	t.wkey = xattrKey(t.wkey[:0], ino, name)
	t.setRaw(t.wkey, value)
}

func (t *tx) delXattr(ino uint64, name string) {
	t.wkey = xattrKey(t.wkey[:0], ino, name)
	t.del(t.wkey)
}

// flush moves every changed record into the batch.
func (t *tx) flush() {
	t.inodes.flush(func(ino uint64, in *wire.Inode) {
		t.wkey = inodeKey(t.wkey[:0], ino)
		if in == nil {
			t.del(t.wkey)
		} else {
			t.set(t.wkey, in)
		}
	})
	t.blocks.flush(func(id uint64, b *wire.Block) {
		t.wkey = blockKey(t.wkey[:0], id)
		if b == nil {
			t.del(t.wkey)
		} else {
			t.set(t.wkey, b)
		}
	})
	for id := range t.changes {
		t.wkey = sessionKey(t.wkey[:0], id)
		if s := t.sessions[id]; s != nil {
			t.set(t.wkey, s.rec)
		} else {
			t.del(t.wkey)
		}
	}
	clear(t.changes)
	for c := range t.counts {
		if t.counts[c] == t.stored[c] {
			continue
		}
		// One that is as in the beginning has no key, so that the state does not
		// show whether a batch ended while it was different.
		if t.wkey = counterKey(t.wkey[:0], counter(c)); t.counts[c] == fresh[c] {
			t.del(t.wkey)
		} else {
			t.wval = be64(t.wval[:0], t.counts[c])
			t.setRaw(t.wkey, t.wval)
		}
	}
	t.stored = t.counts
}

// edit returns a copy of in that may be changed and put; its version is the
// next one. What the fields point to, apart from the attributes, is shared and
// must be replaced, not changed.
func edit(in *wire.Inode) *wire.Inode {
	a := in.Attr
	return &wire.Inode{
		Attr: &wire.Attr{
			Ino: a.Ino, Mode: a.Mode, Nlink: a.Nlink, Uid: a.Uid, Gid: a.Gid, Rdev: a.Rdev,
			Size: a.Size, Allocated: a.Allocated,
			AtimeNs: a.AtimeNs, MtimeNs: a.MtimeNs, CtimeNs: a.CtimeNs, BtimeNs: a.BtimeNs,
			Version: a.Version + 1,
		},
		Policy: in.Policy, Inline: in.Inline, HasInline: in.HasInline, Symlink: in.Symlink,
		HasAcl: in.HasAcl, Parent: in.Parent, Entries: in.Entries, HasXattr: in.HasXattr, Linkable: in.Linkable,
	}
}

// editBlock is edit for a block.
func editBlock(b *wire.Block) *wire.Block {
	return &wire.Block{
		Id: b.Id, K: b.K, M: b.M, Length: b.Length, ShardLength: b.ShardLength, Shards: b.Shards,
		Live: b.Live, Refs: b.Refs, MadeIndex: b.MadeIndex, FreedIndex: b.FreedIndex, FreedNs: b.FreedNs,
	}
}

// touch is edit of a directory whose entries change: mtime and ctime are now.
func (t *tx) touch(in *wire.Inode) *wire.Inode {
	in = edit(in)
	in.Attr.MtimeNs, in.Attr.CtimeNs = t.now, t.now
	return in
}

// changed is edit of an inode whose attributes change: ctime is now.
func (t *tx) changed(in *wire.Inode) *wire.Inode {
	in = edit(in)
	in.Attr.CtimeNs = t.now
	return in
}
