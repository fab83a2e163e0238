package data

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

const (
	commitTimeout = 45 * time.Second
	commitBytes   = 1 << 20 // about; one part is never split
	commitFiles   = 4096

	// reuploadLast is the longest wait before a block that meta refuses is
	// stored anew.
	reuploadLast = 30 * time.Second
)

// batch is one commit.
type batch struct {
	msg       *wire.Commit
	updates   []*update
	drafts    map[*draft]bool // whose blocks are in it
	size      int
	abandoned int // Path.abandoned when it was collected
}

// update is what a batch does to one file.
type update struct {
	f       *File
	parts   []*part
	extents spanMap[uint64] // the parts, later over earlier
	change  *change
	msg     *wire.FileUpdate
	drops   uint64 // f.drops when it was collected
	more    bool   // the batch had no room for all of it
}

// commitLoop sends commits one after the other: whatever becomes ready while
// one is in flight goes together into the next. That there is only one makes
// the order of changes to a file that of its parts.
func (p *Path) commitLoop() {
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.wake:
		}
		for p.ctx.Err() == nil {
			b := p.collect()
			if b == nil {
				break
			}
			p.commit(b)
		}
	}
}

// collect takes ready files into a batch; nil if there is nothing to commit.
func (p *Path) collect() *batch {
	b := &batch{msg: &wire.Commit{}, drafts: map[*draft]bool{}}
	p.mu.Lock()
	b.abandoned = p.abandoned
	p.mu.Unlock()
	for b.size < commitBytes && len(b.updates) < commitFiles {
		p.mu.Lock()
		if len(p.ready) == 0 {
			p.mu.Unlock()
			break
		}
		f := p.ready[0]
		if f.alone && len(b.updates) > 0 {
			p.mu.Unlock()
			break
		}
		p.ready[0] = nil
		p.ready = p.ready[1:]
		f.inReady = false
		if f.gates > 0 || f.waiting { // it comes again
			p.mu.Unlock()
			continue
		}
		if f.committing { // it is in this batch already
			f.again = true
			p.mu.Unlock()
			continue
		}
		f.committing = true
		alone := f.alone
		p.mu.Unlock()

		u := f.collect(b)
		if u == nil {
			p.mu.Lock()
			p.endCommit(f)
			p.mu.Unlock()
			continue
		}
		b.updates = append(b.updates, u)
		b.msg.Files = append(b.msg.Files, u.msg)
		if alone {
			break
		}
	}
	if len(b.updates) == 0 {
		return nil
	}
	for d := range b.drafts {
		if !d.committed.Load() {
			b.msg.Blocks = append(b.msg.Blocks, d.block.Load())
		}
	}
	slices.SortFunc(b.msg.Blocks, func(x, y *wire.Block) int {
		return int(int64(x.Id) - int64(y.Id))
	})
	return b
}

// endCommit says that f is not in a commit any more. p.mu is held.
func (p *Path) endCommit(f *File) {
	f.committing = false
	if f.again {
		f.again = false
		p.readyLocked(f)
	}
	if f.gates > 0 {
		close(p.commitEnd)
		p.commitEnd = make(chan struct{})
	}
}

// collect takes what can be committed of f: its oldest parts as far as they are
// stored, the pending change. nil if there is nothing.
func (f *File) collect(b *batch) *update {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := &update{f: f, drops: f.drops, msg: &wire.FileUpdate{Ino: f.ino}}
	size := 0
	for _, pt := range f.parts {
		blk := pt.d.block.Load()
		if blk == nil {
			break
		}
		if n := 24 * pt.spans.count(); len(u.parts) > 0 && b.size+size+n > commitBytes {
			u.more = true
			break
		} else {
			size += n
		}
		for s := range pt.spans.all() {
			u.extents.set(span[uint64]{off: s.off, end: s.end, at: s.at, src: blk.GetId()})
		}
		u.parts = append(u.parts, pt)
	}
	used := map[uint64]bool{}
	for s := range u.extents.all() {
		u.msg.Extents = append(u.msg.Extents, &wire.Extent{
			Off: uint64(s.off), Len: uint32(s.len()), Block: s.src, BlockOff: uint32(s.at),
		})
		used[s.src] = true
	}
	for _, pt := range u.parts {
		// A block that later parts hide entirely stays unreferenced.
		if blk := pt.d.block.Load(); used[blk.GetId()] && !b.drafts[pt.d] {
			b.drafts[pt.d] = true
			size += proto.Size(blk)
		}
	}
	if len(u.parts) == 0 && (f.pending == nil || len(f.parts) > 0) {
		return nil // a change goes with the data that is on its way
	}
	u.change, f.pending, f.sent = f.pending, nil, f.pending
	if c := u.change; c != nil {
		u.msg.Attr = c.attr
		u.msg.MinSize = uint64(c.minSize)
		if c.inline && f.inlined {
			f.growInline()
			u.msg.Inline, u.msg.HasInline = slices.Clone(f.inline), true
			u.msg.MinSize = max(u.msg.MinSize, uint64(len(f.inline)))
		}
	}
	if len(u.parts) > 0 {
		u.msg.MinSize = max(u.msg.MinSize, uint64(u.extents.end()))
		u.msg.DropInline = f.storedInline
	}
	if u.msg.MinSize > 0 || u.msg.HasInline { // meta would stamp its own time on it
		u.msg.Attr = mergeAttr(f.times, u.msg.Attr)
	}
	b.size += size + len(u.msg.Inline) + 128
	return u
}

// commit sends a batch until it has an answer, and does what follows from it.
//
// After a failure that leaves open whether the batch was carried out, the same
// batch is sent again: blocks that exist then are its own, all of them, and
// nothing that was written later can come before it.
func (p *Path) commit(b *batch) {
	res, err := p.send(b)
	for tries := 1; err != nil && unanswered(wire.CodeOf(err)); tries++ {
		p.noteUnanswered(b, err, tries)
		if !p.pause(backOff(tries)) {
			break
		}
		res, err = p.send(b)
		if errors.Is(err, wire.Exists) && b.msg.Blocks != nil {
			for d := range b.drafts {
				d.committed.Store(true)
				p.records.add(d.block.Load())
			}
			b.msg.Blocks = nil
			res, err = p.send(b)
		}
	}
	if err != nil {
		p.commitFailed(b, err)
		return
	}
	p.stats.commits.Add(1)
	p.stats.updates.Add(int64(len(b.updates)))
	inodes := make(map[uint64]*wire.Inode, len(res.GetInodes()))
	for _, inode := range res.GetInodes() {
		if inode.GetAttr() != nil {
			inodes[inode.GetAttr().GetIno()] = inode
		}
	}
	for d := range b.drafts {
		if !d.committed.Swap(true) {
			blk := d.block.Load()
			p.records.add(blk)
			p.keepCommitted(d, blk)
		}
	}
	for _, u := range b.updates {
		u.apply(inodes[u.f.ino], res.GetInodes() != nil)
	}
	if p.cfg.Committed != nil {
		for _, inode := range res.GetInodes() {
			if inode.GetAttr() != nil {
				p.cfg.Committed(inode)
			}
		}
	}
	charged := int64(0)
	for _, u := range b.updates {
		charged += u.end()
	}
	p.mu.Lock()
	if charged > 0 {
		p.chargeLocked(-charged)
	}
	for _, u := range b.updates {
		f := u.f
		f.alone, f.tries, f.lastErr = false, 0, nil
		p.unstick(f)
		p.endCommit(f)
		if u.more {
			p.readyLocked(f)
		}
	}
	p.mu.Unlock()
	for _, u := range b.updates {
		if res.GetInodes() != nil && inodes[u.f.ino] == nil {
			u.f.drop(nil)
		}
		p.forgetClean(u.f)
	}
}

// keepCommitted puts a block that many small files share into the cache: what
// was just written together is often read together.
func (p *Path) keepCommitted(d *draft, blk *wire.Block) {
	if d.private {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.freed {
		p.cells.fill(blk, d.buf[:d.tail])
	}
}

// apply makes what was committed the file's committed state. Meta leaves files
// out that are gone: told that it answered about all, and not about this one,
// the next Flush says so.
func (u *update) apply(inode *wire.Inode, told bool) {
	f := u.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if told && inode == nil && f.drops == u.drops {
		f.lost = wire.Errorf(wire.Stale, "commit", f.object(), "the file is gone")
	}
	for s := range u.extents.all() {
		f.extents.set(s)
		f.known.set(span[struct{}]{off: s.off, end: s.end, at: s.off})
	}
	f.boundExtents()
	if u.msg.DropInline {
		f.storedInline = false
	}
	if u.msg.HasInline {
		f.storedInline = true
	}
	if v := inode.GetAttr().GetVersion(); v > f.version {
		f.version = v
		if v > f.storedAt {
			f.stored, f.storedAt = int64(inode.GetAttr().GetAllocated()), v
		}
	}
	f.counted = false
	f.parts = slices.DeleteFunc(f.parts, func(pt *part) bool { return slices.Contains(u.parts, pt) })
	for _, pt := range u.parts {
		pt.finish()
	}
	f.sent = nil
}

// end releases those who wait for the update, and returns what its change was
// charged.
func (u *update) end() (charged int64) {
	u.f.mu.Lock()
	defer u.f.mu.Unlock()
	for _, pt := range u.parts {
		pt.close()
	}
	if c := u.change; c != nil {
		charged = c.charged
		c.close()
	}
	return charged
}

// giveBack makes the update's change pending again after err, under a newer
// one. refused: it was this update that meta refused.
func (u *update) giveBack(err error, refused bool) {
	f := u.f
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent = nil
	old := u.change
	if old == nil {
		return
	}
	if refused && old.attr != nil {
		// The data must not wait for ever for attributes that meta refuses.
		f.lost = err
		f.times, old.attr = nil, nil
	}
	if f.drops != u.drops {
		f.path.charge(-old.charged)
		old.close()
		return
	}
	c := f.changing()
	c.attr = mergeAttr(old.attr, c.attr)
	if old.inline && f.inlined {
		c.inline = true
	}
	c.charged += old.charged
	c.minSize = max(c.minSize, old.minSize)
	c.done = append(c.done, old.done...)
}

// send sends a batch once, unless it has been abandoned.
func (p *Path) send(b *batch) (*wire.Result, error) {
	ctx, cancel := context.WithTimeout(p.ctx, commitTimeout)
	defer cancel()
	p.mu.Lock()
	if p.abandoned != b.abandoned {
		p.mu.Unlock()
		return nil, wire.Errorf(wire.NoSession, "commit", "", "its data was abandoned")
	}
	p.cancelSend, p.sent = cancel, make(chan struct{})
	p.mu.Unlock()
	res, err := p.meta.Commit(ctx, b.msg)
	p.mu.Lock()
	close(p.sent)
	p.cancelSend, p.sent = nil, nil
	p.mu.Unlock()
	if c := wire.Code(res.GetCode()); err == nil && c != wire.OK {
		err = wire.Errorf(c, "commit", "", "%s", cmp.Or(res.GetMessage(), c.String()))
	}
	if err != nil {
		p.stats.commitErrors.Add(1)
	}
	return res, err
}

// unanswered says that a commit that failed with c may have been carried out,
// or may still be.
func unanswered(c wire.Code) bool {
	switch c {
	case wire.Unavailable, wire.Timeout, wire.NotLeader, wire.Shutdown, wire.Interrupted:
		return true
	}
	return false
}

// noteUnanswered keeps err for those whose Flush runs out of time.
func (p *Path) noteUnanswered(b *batch, err error, tries int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range b.updates {
		u.f.lastErr = err
	}
	if tries == 1 && p.ctx.Err() == nil {
		p.log.Warn("a commit had no answer; it is sent again", "files", len(b.updates), "err", err)
	}
}

// pause waits before b is sent again; it says no when the path is closing.
func (p *Path) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// commitFailed plans the next try of a batch that was not carried out. When the
// answer names a fault the files of the batch are committed one by one, to find
// the one that it is about; for want of space, and the like, one waits.
func (p *Path) commitFailed(b *batch, err error) {
	code := wire.CodeOf(err)
	single := len(b.updates) == 1
	passing := passes(code)
	for _, u := range b.updates {
		u.giveBack(err, single && (code == wire.Perm || code == wire.Denied || code == wire.Invalid))
	}
	gone := single && (code == wire.NotFound || code == wire.Stale) && p.gone(b.updates[0].f)

	p.mu.Lock()
	for _, u := range b.updates {
		f := u.f
		p.endCommit(f)
		switch {
		case gone:
			continue
		case !passing && !single:
			f.alone = true
			p.readyLocked(f)
			continue
		}
		f.lastErr = err
		f.tries++
		f.waiting = true
		if f.tries == 1 && p.ctx.Err() == nil {
			p.log.Warn("a commit failed; it is tried again", "files", len(b.updates), "err", err)
		}
		if noSpace(err) {
			p.stick(f)
		}
		wait := backOff(f.tries)
		if !passing {
			wait = min(reuploadLast, retryFirst<<min(f.tries, 12))
		}
		p.after(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			f.waiting = false
			p.readyLocked(f)
		})
	}
	p.mu.Unlock()

	if gone {
		u := b.updates[0]
		u.f.drop(wire.Errorf(wire.Stale, "flush", u.f.object(), "the file is gone"))
		return
	}
	if single && !passing {
		p.storeAnew(b)
	}
}

// passes says that an error need not be the fault of what was committed.
func passes(c wire.Code) bool {
	switch c {
	case wire.NoSpace, wire.Quota, wire.TooFew, wire.Busy, wire.Again, wire.NoSession:
		return true
	}
	return unanswered(c)
}

// gone asks meta whether the inode does not exist any more.
func (p *Path) gone(f *File) bool {
	ctx, cancel := context.WithTimeout(p.ctx, commitTimeout)
	defer cancel()
	_, err := p.meta.Extents(ctx, &wire.GetExtents{Ino: f.ino, Len: 1, Limit: 1})
	return errors.Is(err, wire.NotFound) || errors.Is(err, wire.Stale)
}

// storeAnew has the blocks of a batch that meta refuses stored again, with new
// ids: their shards may be gone, or their proofs be out of date.
func (p *Path) storeAnew(b *batch) {
	for d := range b.drafts {
		d.mu.Lock()
		again := !d.freed && len(d.parts) > 0
		if again {
			d.block.Store(nil)
			d.committed.Store(false)
		}
		d.mu.Unlock()
		if !again {
			continue
		}
		p.mu.Lock()
		d.tries++
		wait := min(reuploadLast, retryFirst<<min(d.tries, 12))
		p.mu.Unlock()
		p.after(wait, func() {
			p.mu.Lock()
			d.rank = idle
			p.mu.Unlock()
			p.enqueue(d, pressed)
		})
	}
}
