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

// awaitAppend waits until no append is half done. One who appends whole pages
// without a pause looks as if he never were done: that ends the patience. in.mu
// is held, and released meanwhile.
func (in *inode) awaitAppend() {
	last := time.Now().Add(2 * appendWait)
	for in.chain.open(time.Now()) && in.recall == nil && time.Now().Before(last) {
		wake := in.wake
		limit := time.NewTimer(time.Until(in.chain.until))
		in.mu.Unlock()
		select {
		case <-wake:
		case <-limit.C:
		}
		limit.Stop()
		in.mu.Lock()
	}
}
