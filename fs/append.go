package fs

import "time"

// An append is one record, and stays in one piece whatever other mounts append.
// But the kernel sends a record that is larger than a request in several, one
// after the other under the inode's lock, and nothing marks them as one. Through
// its cache, which only those use that set O_APPEND after they have opened the
// file, a request also ends where a page ends that the kernel has not read. So
// after a request that looks unfinished the lease is kept for a moment.

// appendWait is that moment.
const appendWait = 100 * time.Millisecond

// unfinished: the record of n bytes may go on in another request. One without the
// kernel's cache holds as many pages as a request can, of which the first may be
// used in part.
func unfinished(w writing, n int64) bool {
	if w.cached {
		return (w.off+n)%pageSize == 0
	}
	return n > maxWrite-pageSize
}

// appendChain is an append that may be continued. The zero value is none.
type appendChain struct {
	next  int64 // where the next request would begin, as the kernel reckons
	until time.Time
}

func chainAfter(end int64, now time.Time) appendChain {
	return appendChain{end, now.Add(appendWait)}
}

func (c appendChain) open(now time.Time) bool { return now.Before(c.until) }

// continues: o is the next part of a record.
func (c appendChain) continues(o *op, now time.Time) bool {
	return c.open(now) && o.off == c.next
}

// awaitAppends waits until no append is under way or half done; a recall is
// being carried out, so that no record begins. One who appends whole pages
// without a pause looks as if he never were done: that ends the patience.
func (in *inode) awaitAppends() {
	last := time.Now().Add(4 * appendWait)
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		now := time.Now()
		wait := time.Until(last)
		if in.chain.open(now) {
			wait = min(wait, in.chain.until.Sub(now))
		} else if !in.appendsNow() {
			return
		}
		if wait <= 0 {
			return
		}
		wake := in.wake
		limit := time.NewTimer(wait)
		in.mu.Unlock()
		select {
		case <-wake:
		case <-limit.C:
		}
		limit.Stop()
		in.mu.Lock()
	}
}

// appendsNow: an append is being carried out. in.mu is held.
func (in *inode) appendsNow() bool {
	for o := range in.ops {
		if o.append && !o.waiting {
			return true
		}
	}
	return false
}
