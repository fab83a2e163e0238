package fs

import (
	"context"
	"time"

	"quernfs/internal/wire"
)

// Times that bound the steps of a recall. They are passed only when something
// else is wrong; the recall then goes on.
const (
	grantWait     = 10 * time.Millisecond  // for the reply of a call for a lease, so that each lease is used once
	noticeWait    = time.Second            // for the kernel to take a notice
	againWaits    = 20 * time.Millisecond  // for look-ups that are told a name that is recalled, one after the other
	elsewhereWait = 200 * time.Millisecond // the same while this mount changes names elsewhere: who waits to do so may hold the directory's lock
	changeWait    = 5 * time.Millisecond   // the same while an operation changes the directory, which most probably is over sooner
	allWait       = 300 * time.Millisecond // the same for all names, when the session's lease has lapsed; others may change them 0.8 s later
	retryFlush    = 500 * time.Millisecond // between attempts to write back
	promiseWait   = time.Second            // for replies to be written
)

// recallNames forgets entries of a directory that another session changes,
// here and in the kernel, and keeps the lease.
//
// The kernel takes the directory's lock to forget an entry. So when it has
// taken the notice, no operation goes on there that was shown the entry: see
// the package comment, names. An operation that changes the directory holds the
// lock while it waits in this process for meta, which may be waiting for this
// very answer; so the notice is not waited for long then. Instead the kernel is told
// to look up every name again (an epoch), which takes no lock. Replies that are
// on their way carry no time-outs meanwhile.
//
// What the name is may still be told to a look-up meanwhile. Who was told it after
// the notice had been taken is waited for with another one.
func (fs *FS) recallNames(in *inode, r *wire.Recall) {
	in.mu.Lock()
	in.held.recall = max(in.held.recall, r.Id)
	in.naming++
	in.leave(r.Names)
	in.doubt()
	in.entries.forget(r.Names)
	told := in.toldOf(r.Names)
	in.mu.Unlock()
	names := in.showing(r.Names)
	var until time.Time
	for again := true; again; {
		sure := true
		if k := fs.kernel(); k != nil {
			fs.forgetAttrs(k, in)
			sure = fs.forgetEntries(k, in, names)
			in.hide(r.Names)
			fs.awaitPromises(in)
			fs.forgetAttrs(k, in)
		}
		in.mu.Lock()
		if until.IsZero() {
			until = time.Now().Add(againWaits)
		}
		now := in.toldOf(r.Names)
		names = r.Names
		again = sure && now != told && time.Now().Before(until)
		told = now
		if !again {
			in.naming--
			in.stay(r.Names)
		}
		in.mu.Unlock()
	}
}

// forgetEntries makes the kernel forget names of a directory. in.naming is
// raised, so that operations that begin meanwhile say so. It reports whether the
// kernel has taken the notices.
func (fs *FS) forgetEntries(k kernel, in *inode, names []string) bool {
	if len(names) == 0 {
		return true
	}
	busy := func() (bool, <-chan struct{}) {
		in.mu.Lock()
		defer in.mu.Unlock()
		return in.dirOps > 0, in.wake
	}
	done := make(chan struct{})
	started := make(chan struct{})
	fs.spawn(func() {
		defer close(done)
		close(started)
		forgetEach(k, in, names)
	})
	<-started
	limit, soon, look := time.NewTimer(noticeWait), time.NewTimer(elsewhereWait), time.NewTicker(changeWait)
	defer limit.Stop()
	defer soon.Stop()
	defer look.Stop()
	var changes <-chan time.Time // after which a change of the directory is not waited for any longer
	for {
		b, wake := busy()
		switch {
		case !b:
			changes = nil
		case changes == nil:
			changes = time.After(changeWait)
		}
		over := false
		select {
		case <-done:
			return true
		case <-wake:
		case <-changes:
			over, _ = busy()
			changes = nil
		case <-look.C:
			over = in.locksWait(names)
		case <-soon.C:
			over = fs.dirOps.Load() > 0
		case <-limit.C:
			over = true
		}
		if over {
			k.newEpoch() // an old kernel has none: the notice is under way, and that must do
			return false
		}
	}
}

// locksWait: an operation is under way on a file that has one of these names, and has
// the file's lock in the kernel. Who removes or replaces the name takes the directory's
// lock and then waits for that one, and the operation may wait for us. By then he has
// seen all that he decides by himself, and asks meta for the rest.
func (d *inode) locksWait(names []string) bool {
	for _, n := range names {
		if in := d.given(n); in != nil && in.exclusive.Load() > 0 {
			return true
		}
	}
	return false
}

// forgetEach sends the notices of names of a directory. Those of directories are
// expired: if they are still there they stay, with what is mounted below.
func forgetEach(k kernel, in *inode, names []string) {
	expire := in.directories(names)
	for _, n := range names {
		if expire[n] {
			k.expireEntry(in.ino, n)
		} else {
			k.forgetEntry(in.ino, n)
		}
	}
}

// awaitPromises waits for the replies that let the kernel keep attributes of
// in. No new ones are made while a recall is under way.
func (fs *FS) awaitPromises(in *inode) {
	limit := time.NewTimer(promiseWait)
	defer limit.Stop()
	for {
		in.mu.Lock()
		n, wake := in.promises, in.wake
		in.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-wake:
		case <-limit.C:
			return
		}
	}
}

// recallLease brings the lease on in down to mode: what is dirty is written
// back, what the kernel keeps is dropped, and only then the lease falls.
// Before it falls operations go on under it where they must, since the kernel
// holds the locks of their pages; see the package comment. It reports what is
// still held, and whether the file is open.
func (fs *FS) recallLease(in *inode, r *wire.Recall) *wire.Recalled {
	id, to := r.Id, r.Mode
	in.mu.Lock()
	for in.recall != nil { // one at a time
		wake := in.wake
		in.mu.Unlock()
		<-wake
		in.mu.Lock()
	}
	if in.acquire != nil {
		in.awaitGrant()
	}
	// An answer with a lease that is still on its way may be about a file that is
	// to be opened: then OPEN stays.
	coming := r.Grant > max(in.seen, fs.meta.Floor()) && !in.isDir()
	if coming && in.held.mode < wire.Mode_OPEN {
		in.held.mode = wire.Mode_OPEN
	}
	plan := planRecall(in.held.mode, to, in.isDir(), false, r.Victim)
	if in.held.mode <= to && !plan.attrs {
		defer in.mu.Unlock()
		in.held.recall = max(in.held.recall, id)
		return &wire.Recalled{Id: id, Ino: in.ino, Mode: in.held.mode, Open: in.open > 0}
	}
	rec := &recalling{to: to, drop: plan.drop}
	in.recall = rec
	in.held.recall = max(in.held.recall, id)
	in.changed()
	in.mu.Unlock()

	in.awaitAppends()
	k := fs.kernel()
	if k != nil && plan.attrs {
		fs.awaitPromises(in)
		fs.forgetAttrs(k, in)
	}
	if k != nil && plan.entries {
		fs.forgetAll(k, in)
	}
	if plan.drop {
		fs.drain(k, in, rec)
		if k != nil {
			fs.awaitLate(k, in)
		}
	}
	if plan.flush {
		fs.writeBack(in)
	}

	in.mu.Lock()
	if plan.attrs {
		in.doubt()
	}
	// Nor does OPEN go while the kernel may be about to open it: a removal that
	// comes next would ask nobody here. A removal itself has its answer below.
	in.fall(to, id, coming || !r.Victim && !in.isDir() && in.justFound(time.Now()))
	out := &wire.Recalled{Id: id, Ino: in.ino, Mode: in.held.mode, Open: in.open > 0}
	if r.Victim {
		in.alone = false
		out.Open = out.Open || coming || in.justFound(time.Now())
		in.victim = in.victim || out.Open
		in.lost = !out.Open
	}
	in.recall = nil
	in.changed()
	release := in.victim && in.open == 0
	in.mu.Unlock()
	if release {
		fs.releaseLater(in)
	}
	return out
}

// awaitGrant waits a little for the call for a lease that is under way: its
// reply may carry the grant that is being recalled, and the operation that
// wanted it should go on before it is gone. in.mu is held, and released
// meanwhile.
func (in *inode) awaitGrant() {
	limit := time.NewTimer(grantWait)
	defer limit.Stop()
	done := in.acquire.done
	in.mu.Unlock()
	select {
	case <-done:
	case <-limit.C:
	}
	in.mu.Lock()
}

// drain drops the file's pages from the kernel. When it returns nothing goes
// on under the lease, and the kernel holds no page but those of operations that
// wait.
func (fs *FS) drain(k kernel, in *inode, r *recalling) {
	if k != nil {
		fs.dropPages(k, in, span{0, maxOff})
	}
	in.mu.Lock()
	r.phase = closing
	for k != nil && len(r.touched) > 0 {
		r.active, r.touched = r.touched, nil
		in.mu.Unlock()
		for _, s := range r.active {
			fs.dropPages(k, in, s)
		}
		in.mu.Lock()
		r.active = nil
	}
	r.phase = shut
	in.mu.Unlock()
}

// writeBack waits for the operations that go on, and flushes, for others who are to see
// what was written. It tries until it succeeds: an answer to a recall before that would
// be a lie. It ends early only with the session or the filesystem.
func (fs *FS) writeBack(in *inode) {
	said := false
	for {
		in.mu.Lock()
		n, wake, f := in.writing(), in.wake, in.file
		in.mu.Unlock()
		if n > 0 {
			select {
			case <-wake:
			case <-fs.ctx.Done():
				return
			}
			continue
		}
		if f == nil {
			return
		}
		ctx, done := context.WithTimeout(fs.ctx, flushTimeout)
		err := f.Flush(ctx)
		done()
		if err == nil {
			return
		}
		in.mu.Lock()
		over := in.held.mode < wire.Mode_WRITE
		in.mu.Unlock()
		if over || fs.ctx.Err() != nil {
			return
		}
		if !said {
			said = true
			fs.log.Warn("data that others are to see cannot be stored yet", "ino", in.ino, "err", err)
		}
		select {
		case <-time.After(retryFlush):
		case <-fs.ctx.Done():
			return
		}
	}
}

// writing counts the operations that go on and change something. in.mu is held.
func (in *inode) writing() int {
	n := 0
	for o := range in.ops {
		if o.write && !o.waiting {
			n++
		}
	}
	return n
}

// forgetAll makes the kernel look up every name of a directory again.
func (fs *FS) forgetAll(k kernel, in *inode) {
	names, complete := in.allShown()
	if !complete && k.newEpoch() {
		return
	}
	in.mu.Lock()
	in.naming++
	in.mu.Unlock()
	fs.forgetEntries(k, in, names)
	in.mu.Lock()
	in.naming--
	in.mu.Unlock()
}
