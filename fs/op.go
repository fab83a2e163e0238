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
	fills   span // those of them that a write covers whole
	write   bool
	back    bool // the kernel writes back a mapped page, which it keeps busy until the reply
	append  bool // may be one part of a record, at off by the kernel's reckoning
	off     int64
	waiting bool      // for a lease, or for a recall to end
	began   time.Time // writes
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
func (r *recalling) admits(o *op, c appendChain) bool {
	if o.append {
		return c.continues(o, time.Now()) // else its second part might not be admitted
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
	if o.write {
		o.began = time.Now()
		if !o.back {
			in.pages.fill(o.fills)
		}
	}
	for {
		r := in.recall
		ok := in.usable(o.need) && (o.need < wire.Mode_READ || !in.stale && in.rec != nil)
		switch {
		case in.gone:
			delete(in.ops, o)
			return wire.Errorf(wire.Stale, "open file", "", "the file is gone")
		case ok && (r == nil && in.unsettled == 0 || r != nil && r.admits(o, in.chain)):
			if r != nil && r.drop {
				r.touched = r.touched.add(o.span)
			}
			o.waiting = false
			if in.isReg() && o.need >= wire.Mode_READ {
				in.contents()
			}
			if !o.write {
				in.pages.read(o.span)
			}
			return nil
		case r != nil, in.unsettled > 0:
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
		o.waiting = true
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

// end ends an operation.
//
// If a page is dropped between the moment when the kernel copied a write into
// it and the moment when the write is applied here, and read again in between,
// the kernel is left with a page that lacks the write. So a write drops such
// pages before it is answered.
func (in *inode) end(o *op) {
	if o.write && !o.back && !o.span.empty() {
		in.fs.dropBehind(in, o)
	}
	in.mu.Lock()
	delete(in.ops, o)
	if in.recall != nil {
		in.changed()
	}
	in.mu.Unlock()
}
