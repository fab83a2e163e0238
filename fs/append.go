package fs

import "time"

// An append is one record, and stays in one piece whatever other mounts append.
// But the kernel sends what does not fit into a page that it has not read, or
// is larger than a request, in several requests, one after the other under the
// inode's lock. Nothing marks them as one; but each except the last ends where
// a page ends, by the kernel's reckoning, and the next begins there. So after
// an append that ends at a page's end the lease is kept for a moment.

// appendWait is that moment: only few appends end at a page's end by themselves.
const appendWait = 100 * time.Millisecond

// appendChain is an append that may be continued. The zero value is none.
type appendChain struct {
	next  int64 // where the next request would begin, as the kernel reckons
	until time.Time
}

// after is the chain after n bytes were appended that the kernel believes to
// be at off.
func (appendChain) after(off, n int64, now time.Time) appendChain {
	if (off+n)%pageSize != 0 {
		return appendChain{}
	}
	return appendChain{off + n, now.Add(appendWait)}
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
