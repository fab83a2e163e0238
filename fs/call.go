package fs

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A system call may come as several requests, one after the other: open(2) looks up
// each name of its path, opens the last, and does it all again if that is stale.
// The time that a system call may take is that of all of them together. So a
// look-up that has waited long leaves its deadline to the next request of its
// thread. A look-up ends a little earlier than the deadline, so that what it is
// for is not refused for want of time alone.

const (
	slowRequest = time.Second            // one that took less leaves nothing
	sameCall    = 100 * time.Millisecond // a request that comes later is another call's
	lookupLeft  = opTimeout - flushTimeout
)

// calls has the system calls that have waited long and go on, by thread.
type calls struct {
	n    atomic.Int32 // entries in open: nearly always none
	mu   sync.Mutex
	open map[uint32]openCall
}

type openCall struct{ until, at time.Time }

// deadline is that of a request of thread tid that begins now.
func (c *calls) deadline(tid uint32, now time.Time) time.Time {
	until := now.Add(opTimeout)
	if c.n.Load() == 0 || tid == 0 {
		return until
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.open[tid]
	if !ok {
		return until
	}
	delete(c.open, tid)
	c.n.Store(int32(len(c.open)))
	if now.Sub(o.at) <= sameCall {
		return o.until
	}
	return until
}

// goesOn: a request has been answered, and its call goes on with another one.
func (c *calls) goesOn(tid uint32, until, now time.Time) {
	if tid == 0 || until.Sub(now) > opTimeout-slowRequest {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, o := range c.open {
		if now.Sub(o.at) > sameCall {
			delete(c.open, id)
		}
	}
	if c.open == nil {
		c.open = map[uint32]openCall{}
	}
	c.open[tid] = openCall{until, now}
	c.n.Store(int32(len(c.open)))
}

// bound is FS.bound for a request that may be part of a longer call. Its end is
// told the status of the answer.
func (r *raw) bound(h *fuse.InHeader) (context.Context, func(*fuse.Status)) {
	return r.boundCall(h, 0)
}

// boundLookup is bound for a look-up: more is to come if it succeeds.
func (r *raw) boundLookup(h *fuse.InHeader) (context.Context, func(*fuse.Status)) {
	return r.boundCall(h, lookupLeft)
}

func (r *raw) boundCall(h *fuse.InHeader, left time.Duration) (context.Context, func(*fuse.Status)) {
	until := r.calls.deadline(h.Pid, time.Now())
	ctx, done := r.fs.boundUntil(until.Add(-left))
	return ctx, func(st *fuse.Status) {
		done()
		if left > 0 && st.Ok() || *st == staleStatus {
			r.calls.goesOn(h.Pid, until, time.Now())
		}
	}
}
