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
	validWait  = 500 * time.Millisecond // for a page that was read: it is not locked by a write
	lockedWait = 20 * time.Millisecond  // for a page that may be
	dropWindow = time.Second            // after pages were dropped, writes may be on their way that were copied before
	maxSpans   = 64
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

// inner is what of [off, off+n) is whole pages.
func inner(off, n int64) span {
	s := span{(off + pageSize - 1) &^ (pageSize - 1), (off + n) &^ (pageSize - 1)}
	if s.empty() {
		return span{}
	}
	return s
}

// dropping is a removal of pages under way.
type dropping struct {
	done chan struct{}
	wait time.Duration // what it is worth
}

// startDrop drops pages on a goroutine of its own.
func (fs *FS) startDrop(k kernel, ino uint64, ss spans, wait time.Duration) dropping {
	d := dropping{make(chan struct{}), wait}
	if len(ss) == 0 {
		close(d.done)
		return d
	}
	fs.spawn(func() {
		defer close(d.done)
		for _, s := range ss {
			k.forgetPages(ino, s)
		}
	})
	return d
}

// finish waits for it, no longer than it is worth.
func (d dropping) finish() { waitFor(d.done, d.wait) }

// dropRead drops the pages of s that may be valid, for the writer of them: its
// own last page may be locked by itself.
func (fs *FS) dropRead(in *inode, s span) {
	k := fs.kernel()
	if k == nil {
		return
	}
	in.mu.Lock()
	ss, sure := in.reads.within(s)
	in.reads.drop(s)
	in.mu.Unlock()
	if sure {
		fs.startDrop(k, in.ino, ss, validWait).finish()
		return
	}
	last := span{max(s.lo, s.hi-pageSize), s.hi}
	rest := fs.startDrop(k, in.ino, s.without(spans{last}), validWait)
	fs.startDrop(k, in.ino, spans{last}, lockedWait).finish()
	rest.finish()
}

// dropPages drops the kernel's pages of s for a recall. Pages that are read or
// written right now are locked: the kernel waits for those. Operations that wait
// for this recall must not be waited for: their pages are dropped on the side.
func (fs *FS) dropPages(k kernel, in *inode, s span) {
	in.mu.Lock()
	in.dropped = time.Now()
	before := [2]readPages{in.reads, in.filled}
	in.reads.drop(s)
	in.filled.drop(s)
	in.mu.Unlock()
	deadline := time.Now().Add(noticeWait)
	for {
		in.mu.Lock()
		waiting, valid, maybe := in.waitingPages(s, before)
		wake := in.wake
		in.mu.Unlock()
		free := fs.startDrop(k, in.ino, s.without(waiting), noticeWait)
		sides := []dropping{fs.startDrop(k, in.ino, valid, validWait), fs.startDrop(k, in.ino, maybe, lockedWait)}
		if fs.dropped(in, free.done, wake, waiting, deadline) {
			for _, d := range sides {
				d.finish()
			}
			break
		}
		if time.Now().After(deadline) {
			fs.log.Debug("the kernel is slow to drop pages", "ino", in.ino)
			break
		}
	}
	in.mu.Lock()
	in.dropped = time.Now()
	in.mu.Unlock()
}

// waitingPages are the pages in s of operations that wait: all, those that are
// valid and so not locked, and those of which neither is known. Pages that wait
// to be read are locked and not valid. in.mu is held.
func (in *inode) waitingPages(s span, valids [2]readPages) (all, valid, maybe spans) {
	for o := range in.ops {
		if !o.waiting || !o.span.overlaps(s) {
			continue
		}
		part := span{max(o.span.lo, s.lo), min(o.span.hi, s.hi)}
		all = all.add(part)
		if !o.write {
			continue
		}
		if o.fills.overlaps(part) {
			valid = valid.add(span{max(o.fills.lo, part.lo), min(o.fills.hi, part.hi)})
		}
		known := true
		for _, v := range valids {
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
			// Most often the kernel is done within microseconds all the same.
			return waitFor(done, lockedWait)
		}
	}
}
