package fs

import "time"

// Dropping pages from the kernel, when operations that wait may have some of
// them locked.
//
// The kernel, before it sends a write, copies it into its cache. A page that is
// valid then, or becomes so by being covered whole, it unlocks before it sends
// the request. Of pages that are not valid it keeps the last one locked until
// the reply, and that one stays invalid. So a page that cannot be dropped is no
// danger, and a page that is one can be dropped at once; what is known of
// earlier reads says which is which.

const (
	sureWait   = 5 * time.Second        // for a page that is valid
	validWait  = 500 * time.Millisecond // for one that most probably is
	lockedWait = 20 * time.Millisecond  // for one that may be
	againWait  = 500 * time.Microsecond // before an attempt that leaves out one more operation

	dropWindow  = time.Second            // after a drop, writes may come that were copied before
	orderWindow = 200 * time.Millisecond // requests that came at about the same time may be out of order
	maxSpans    = 64
	maxRecent   = 64
)

// readPages are the pages that were read (or, kept apart, written whole) since
// they were last dropped from the kernel, or more. The zero value has none: the
// kernel has no page of an inode that it does not know.
type readPages struct {
	any bool // more than could be noted
	ss  spans
}

func (p *readPages) read(s span) {
	if p.any {
		return
	}
	if p.ss = p.ss.add(s); len(p.ss) > maxSpans {
		*p = readPages{any: true}
	}
}

func (p *readPages) drop(s span) {
	if s.lo == 0 && s.hi == maxOff {
		*p = readPages{}
		return
	}
	p.ss = p.ss.less(s)
}

// within returns the pages of s that were read; sure: this is known.
func (p *readPages) within(s span) (ss spans, sure bool) {
	if p.any {
		return spans{s}, false
	}
	return p.ss.within(s), true
}

// join adds what o has.
func (p *readPages) join(o *readPages) {
	if o.any {
		*p = readPages{any: true}
		return
	}
	for _, s := range o.ss {
		p.read(s)
	}
}

// pageNotes is what is noted of an inode's pages in the kernel. A page counts as
// read or filled until a drop of it has returned.
type pageNotes struct {
	reads  readPages
	filled readPages // written whole
	drops  map[*pageDrop]struct{}
	last   time.Time // when pages were last dropped

	recent []recentRead // reads since the first drop, the newest maxRecent
	lost   time.Time    // of the newest one that is not among them any more
}

type recentRead struct {
	span span
	at   time.Time
}

// pageDrop is a drop under way, with what was noted since it began.
type pageDrop struct {
	span          span
	reads, filled readPages
}

func (n *pageNotes) read(s span) {
	n.reads.read(s)
	for d := range n.drops {
		d.reads.read(s)
	}
	if n.last.IsZero() {
		return
	}
	if len(n.recent) == maxRecent {
		n.lost = n.recent[0].at
		n.recent = append(n.recent[:0], n.recent[1:]...)
	}
	n.recent = append(n.recent, recentRead{s, time.Now()})
}

func (n *pageNotes) fill(s span) {
	n.filled.read(s)
	for d := range n.drops {
		d.filled.read(s)
	}
}

func (n *pageNotes) begin(s span) *pageDrop {
	d := &pageDrop{span: s}
	if n.drops == nil {
		n.drops = map[*pageDrop]struct{}{}
	}
	n.drops[d] = struct{}{}
	n.last = time.Now()
	return d
}

// end: the drop has returned. What was read before it began is gone; what was
// read since may be there.
func (n *pageNotes) end(d *pageDrop) {
	delete(n.drops, d)
	n.last = time.Now()
	n.reads.drop(d.span)
	n.reads.join(&d.reads)
	n.filled.drop(d.span)
	n.filled.join(&d.filled)
}

// gone: the kernel has dropped pages by itself, or knows the inode no more.
func (n *pageNotes) gone(s span) {
	n.reads.drop(s)
	n.filled.drop(s)
}

// behind returns the pages of a write of s, begun at began, that may have been
// dropped and read again between the moment when the kernel copied the write
// into them and now. Of those in sure the write cannot have one locked: they
// were read while it was on its way.
func (n *pageNotes) behind(s span, began time.Time) (sure, maybe spans) {
	if began.Sub(n.last) > dropWindow {
		return nil, nil
	}
	first := began.Add(-orderWindow)
	for _, r := range n.recent {
		part := span{max(r.span.lo, s.lo), min(r.span.hi, s.hi)}
		switch {
		case part.empty():
		case r.at.After(began):
			sure = sure.add(part)
		case r.at.After(first):
			maybe = maybe.add(part)
		}
	}
	if n.lost.After(first) {
		maybe = maybe.add(s)
	}
	for _, x := range sure {
		maybe = maybe.less(x)
	}
	return sure, maybe
}

// inner is what of [off, off+n) is whole pages.
func inner(off, n int64) span {
	s := span{(off + pageSize - 1) &^ (pageSize - 1), (off + n) &^ (pageSize - 1)}
	if s.empty() {
		return span{}
	}
	return s
}

// startDrop drops pages on a goroutine of its own; the channel is closed when
// they are gone.
func (fs *FS) startDrop(k kernel, in *inode, ss spans) <-chan struct{} {
	done := make(chan struct{})
	if len(ss) == 0 {
		close(done)
		return done
	}
	fs.spawn(func() {
		defer close(done)
		for _, s := range ss {
			in.mu.Lock()
			d := in.pages.begin(s)
			in.mu.Unlock()
			k.forgetPages(in.ino, s)
			in.mu.Lock()
			in.pages.end(d)
			in.mu.Unlock()
		}
	})
	return done
}

// dropBehind drops pages that lack the write o, before it is answered. in.mu is
// not held.
func (fs *FS) dropBehind(in *inode, o *op) {
	k := fs.kernel()
	if k == nil {
		return
	}
	in.mu.Lock()
	sure, maybe := in.pages.behind(o.span, o.began)
	in.mu.Unlock()
	if len(sure) == 0 && len(maybe) == 0 {
		return
	}
	first, second := fs.startDrop(k, in, sure), fs.startDrop(k, in, maybe)
	in.awaitDrop(first, sure, sureWait)
	waitFor(second, lockedWait)
}

// dropMisplaced drops pages into which the kernel copied bytes that went
// elsewhere. The last one may be locked by the write itself, and is then not
// valid.
func (fs *FS) dropMisplaced(in *inode, s span) {
	k := fs.kernel()
	if k == nil {
		return
	}
	last := span{max(s.lo, s.hi-pageSize), s.hi}
	in.mu.Lock()
	read, _ := in.pages.reads.within(last)
	filled, _ := in.pages.filled.within(last)
	in.mu.Unlock()
	rest := fs.startDrop(k, in, s.without(spans{last}))
	if len(read) > 0 || len(filled) > 0 {
		waitFor(fs.startDrop(k, in, spans{last}), lockedWait)
	}
	waitFor(rest, validWait)
}

// dropPast drops the pages of s that the kernel has read or filled, for a write
// that went past its cache.
func (fs *FS) dropPast(in *inode, s span) {
	k := fs.kernel()
	if k == nil {
		return
	}
	in.mu.Lock()
	ss, _ := in.pages.reads.within(s)
	filled, _ := in.pages.filled.within(s)
	in.mu.Unlock()
	for _, x := range filled {
		ss = ss.add(x)
	}
	if len(ss) > 0 {
		in.awaitDrop(fs.startDrop(k, in, ss), ss, sureWait)
	}
}

// raiseSize makes sure, before attributes of an open file are answered, that the
// kernel's size is not below theirs. A read through the cache asks for
// attributes and then ends where the kernel's size says. But the kernel passes over
// attributes that a notice has overtaken, and a recall's notices may come at
// any moment, also after the answer was written. What sets the size at once is a
// store.
func (fs *FS) raiseSize(in *inode) {
	k := fs.kernel()
	if k == nil {
		return
	}
	in.mu.Lock()
	size := in.attrs().size
	due := in.open > 0 && in.isReg() && in.grown > in.raised && size <= uint64(maxOff)
	in.mu.Unlock()
	if !due {
		return
	}
	k.raiseSize(in.ino, int64(size))
	in.mu.Lock()
	in.raised = max(in.raised, min(size, in.grown))
	shrunk := in.attrs().size < size
	in.mu.Unlock()
	if shrunk {
		// Meanwhile the file has become smaller, and the kernel may have been told so
		// before the store: it is to ask again. If it is told only now, that comes last.
		k.forgetAttrs(in.ino)
	}
}

// awaitDrop waits for a drop of valid pages. A read that waits for a recall, or
// for a lease, may have one of them locked: then it is not valid any more.
func (in *inode) awaitDrop(done <-chan struct{}, ss spans, most time.Duration) {
	limit := time.NewTimer(most)
	defer limit.Stop()
	for {
		in.mu.Lock()
		wake := in.wake
		for o := range in.ops {
			if o.waiting && !o.write && ss.overlaps(o.span) {
				in.mu.Unlock()
				waitFor(done, lockedWait)
				return
			}
		}
		in.mu.Unlock()
		select {
		case <-done:
			return
		case <-wake:
		case <-limit.C:
			return
		}
	}
}

// dropPages drops the kernel's pages of s for a recall. Pages that are read or
// written right now are locked: the kernel waits for those. Operations that wait
// for this recall must not be waited for: their pages are dropped on the side.
func (fs *FS) dropPages(k kernel, in *inode, s span) {
	for deadline := time.Now().Add(noticeWait); time.Now().Before(deadline); {
		in.mu.Lock()
		waiting, valid, maybe := in.waitingPages(s)
		wake := in.wake
		in.mu.Unlock()
		free := fs.startDrop(k, in, s.without(waiting))
		side, unsure := fs.startDrop(k, in, valid), fs.startDrop(k, in, maybe)
		if fs.dropped(in, free, wake, waiting, deadline) {
			in.awaitDrop(side, valid, validWait)
			waitFor(unsure, lockedWait)
			return
		}
	}
	fs.log.Debug("the kernel is slow to drop pages", "ino", in.ino)
}

// waitingPages are the pages in s of operations that wait: all, those that are
// valid and so not locked, and those of which neither is known. Pages that wait
// to be read are locked and not valid; a page that is being written back goes to
// the servers as a whole, and is what they have then. in.mu is held.
func (in *inode) waitingPages(s span) (all, valid, maybe spans) {
	for o := range in.ops {
		if !o.waiting || !o.span.overlaps(s) {
			continue
		}
		part := span{max(o.span.lo, s.lo), min(o.span.hi, s.hi)}
		all = all.add(part)
		if !o.write || o.back {
			continue
		}
		if o.fills.overlaps(part) {
			valid = valid.add(span{max(o.fills.lo, part.lo), min(o.fills.hi, part.hi)})
		}
		known := true
		for _, v := range []*readPages{&in.pages.reads, &in.pages.filled} {
			ss, sure := v.within(part)
			for _, x := range ss {
				if sure {
					valid = valid.add(x)
				}
			}
			known = known && sure
		}
		if !known {
			maybe = maybe.add(part)
		}
	}
	for _, x := range valid {
		maybe = maybe.less(x)
	}
	return all, valid, maybe
}

// dropped waits for done. It gives up, for another attempt, when another
// operation has begun to wait: it may hold the lock that the kernel needs.
func (fs *FS) dropped(in *inode, done, wake <-chan struct{}, waiting spans, deadline time.Time) bool {
	limit := time.NewTimer(time.Until(deadline))
	defer limit.Stop()
	for {
		select {
		case <-done:
			return true
		case <-limit.C:
			return false
		case <-wake:
		}
		in.mu.Lock()
		more := false
		for o := range in.ops {
			more = more || o.waiting && len(o.span.without(waiting)) > 0 && !o.span.empty()
		}
		wake = in.wake
		in.mu.Unlock()
		if more {
			return waitFor(done, againWait)
		}
	}
}
