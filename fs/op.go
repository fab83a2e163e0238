package fs

import (
	"context"
	"time"

	"quernfs/internal/wire"
)

// op is one read or write of a file's data, or of attributes under the write
// lease. While it is under way the kernel may hold locks on the pages of its
// span.
type op struct {
	need    wire.Mode
	span    span // pages of the kernel's cache; empty: none
	write   bool
	append  bool // may be one part of a record
	waiting bool // for a lease, or for a recall to end
	delayed bool // it did wait
}

// recalling is a recall of one file's lease while it is carried out. See
// recall.go.
type recalling struct {
	to      wire.Mode
	drop    bool // pages go: admission depends on phase
	phase   phase
	touched spans // pages that were read or written since they were last dropped
	active  spans // pages being dropped right now
}

type phase int

const (
	draining phase = iota // all goes on under the old lease, and is remembered
	closing               // only what touches remembered pages goes on
	shut                  // nothing goes on
)

// admits says whether an operation may go on under the lease that is being
// recalled.
func (r *recalling) admits(o *op) bool {
	if o.append {
		return false // else its second part might not be admitted
	}
	if !r.drop {
		return o.need <= r.to
	}
	switch r.phase {
	case draining:
		return true
	case closing:
		return r.touched.overlaps(o.span) || r.active.overlaps(o.span)
	}
	return false
}

// acquiring is a call for a lease that several operations may wait for.
type acquiring struct {
	mode wire.Mode
	done chan struct{}
}

// begin waits until the operation may go on under a sufficient lease, and
// keeps that lease until end. It returns with in.mu released.
func (in *inode) begin(ctx context.Context, o *op) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ops[o] = struct{}{}
	for {
		r := in.recall
		ok := in.usable(o.need) && (o.need < wire.Mode_READ || !in.stale && in.rec != nil)
		switch {
		case in.gone:
			delete(in.ops, o)
			return wire.Errorf(wire.Stale, "open file", "", "the file is gone")
		case ok && (r == nil || r.admits(o)):
			if r != nil && r.drop {
				r.touched = r.touched.add(o.span)
			}
			o.waiting = false
			if in.isReg() && o.need >= wire.Mode_READ {
				in.contents()
				in.cached = in.cached || !o.write || o.span.hi-o.span.lo > pageSize
			}
			if !o.write {
				in.served = in.served.add(o.span).atMost(maxServed)
			}
			return nil
		case r != nil:
			if err := in.await(ctx, o); err != nil {
				return err
			}
		default:
			if err := in.take(ctx, o); err != nil {
				delete(in.ops, o)
				in.changed()
				return err
			}
		}
	}
}

// await waits for something to change. in.mu is held, and released meanwhile.
func (in *inode) await(ctx context.Context, o *op) error {
	o.wait(in)
	wake := in.wake
	in.mu.Unlock()
	defer in.mu.Lock()
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		in.mu.Lock()
		delete(in.ops, o)
		in.changed()
		in.mu.Unlock()
		return wire.Errorf(wire.CodeOf(ctx.Err()), "wait for lease", "", "another mount does not let go of it in time")
	}
}

func (o *op) wait(in *inode) {
	if !o.waiting {
		o.waiting, o.delayed = true, true
		in.changed() // a recall under way must not wait for this one's pages
	}
}

// take asks meta for the lease that o needs, or waits for a call that already
// does. in.mu is held, and released meanwhile; when it returns nil the caller
// looks again.
func (in *inode) take(ctx context.Context, o *op) error {
	o.wait(in)
	if a := in.acquire; a != nil {
		in.mu.Unlock()
		defer in.mu.Lock()
		select {
		case <-a.done:
			return nil
		case <-ctx.Done():
			return wire.Errorf(wire.CodeOf(ctx.Err()), "acquire lease", "", "another mount does not let go of it in time")
		}
	}
	a := &acquiring{mode: o.need, done: make(chan struct{})}
	in.acquire = a
	in.mu.Unlock()
	ans, err := in.fs.meta.Ask(ctx, &wire.Query{Cred: rootCred, Op: &wire.Query_Acquire{Acquire: &wire.Acquire{Ino: in.ino, Mode: o.need}}})
	in.mu.Lock()
	in.acquire = nil
	close(a.done)
	if err == nil {
		in.learn(ans.GetInode().GetInode(), grantOf(ans.Grants, in.ino))
	}
	in.changed()
	return err
}

// ensure takes a lease of at least mode without an operation under it.
func (in *inode) ensure(ctx context.Context, mode wire.Mode) error {
	o := &op{need: mode}
	if err := in.begin(ctx, o); err != nil {
		return err
	}
	in.end(o)
	return nil
}

// maxServed bounds the memory for spans; beyond, gaps between them count too.
const maxServed = 32

// dropWindow is how long after pages were dropped a write may still be on its
// way that had been copied into one of them before.
const dropWindow = time.Second

// end ends an operation.
//
// The kernel copies a write into a valid page, unlocks the page and only then
// sends the request. If the page is dropped on the way and read again before
// the write was applied, the kernel keeps a page that lacks the write. So a
// write drops, before it is answered, pages that were read since they were
// dropped. The write itself does not have those locked, for it locks only pages
// that are not valid; should it be otherwise, the wait is short.
func (in *inode) end(o *op) {
	in.mu.Lock()
	var over spans
	if o.write && !o.span.empty() && (o.delayed || time.Since(in.dropped) < dropWindow) {
		over = in.served.within(o.span)
	}
	if k := in.fs.kernel(); k != nil && len(over) > 0 {
		in.served = in.served.less(o.span)
		in.mu.Unlock()
		done := make(chan struct{})
		in.fs.spawn(func() {
			defer close(done)
			for _, s := range over {
				k.forgetPages(in.ino, s)
			}
		})
		waitFor(done, lockedWait)
		in.mu.Lock()
	}
	delete(in.ops, o)
	if in.recall != nil {
		in.changed()
	}
	in.mu.Unlock()
}

// waitingSpans are the pages of operations that wait. in.mu is held.
func (in *inode) waitingSpans() spans {
	var ss spans
	for o := range in.ops {
		if o.waiting {
			ss = ss.add(o.span)
		}
	}
	return ss
}
