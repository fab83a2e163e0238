package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"quernfs/internal/wire"
)

func lockOf(q *fuse.LkIn) fileLock {
	l := fileLock{owner: q.Owner, flock: q.LkFlags&fuse.LK_FLOCK != 0, typ: q.Lk.Typ, start: q.Lk.Start, end: q.Lk.End, pid: q.Lk.Pid}
	if l.flock {
		l.start, l.end = 0, ^uint64(0)
	}
	if l.end >= uint64(maxOff) {
		l.end = ^uint64(0)
	}
	return l
}

func (r *raw) GetLk(cancel <-chan struct{}, q *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	h := r.handle(q.Fh)
	if h == nil || h.in == nil {
		return fuse.EBADF
	}
	ctx, done := r.fs.bound()
	defer done()
	c, err := r.fs.testLock(ctx, h.in, lockOf(q))
	if err != nil {
		return r.gone(err)
	}
	out.Lk = q.Lk
	if c == nil {
		out.Lk.Typ = wire.Unlock
		return fuse.OK
	}
	out.Lk = fuse.FileLock{Start: c.Start, End: min(c.End, uint64(maxOff)), Typ: c.Type, Pid: c.Pid}
	return fuse.OK
}

func (r *raw) SetLk(cancel <-chan struct{}, q *fuse.LkIn) fuse.Status {
	return r.setLock(cancel, q, false)
}
func (r *raw) SetLkw(cancel <-chan struct{}, q *fuse.LkIn) fuse.Status {
	return r.setLock(cancel, q, true)
}

func (r *raw) setLock(cancel <-chan struct{}, q *fuse.LkIn, wait bool) fuse.Status {
	h := r.handle(q.Fh)
	if h == nil || h.in == nil {
		return fuse.EBADF
	}
	l := lockOf(q)
	if l.typ != wire.Unlock && !l.flock {
		h.mu.Lock()
		if h.owners == nil {
			h.owners = map[uint64]bool{}
		}
		h.owners[l.owner] = true
		h.mu.Unlock()
	}
	ctx, done := r.untilCancel(cancel)
	defer done()
	if !wait {
		ctx, done = r.fs.bound()
		defer done()
	}
	return r.gone(r.fs.lock(ctx, h.in, l, wait))
}

// forgetOwner: the POSIX locks of a process on this file go, through whichever
// handle they were set.
func (r *raw) forgetOwner(in *inode, owner uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, h := range r.handles {
		if h.in == in {
			h.mu.Lock()
			delete(h.owners, owner)
			h.mu.Unlock()
		}
	}
}

// unlockHandle drops the locks that end with an open file description: its BSD
// lock, and OFD locks, whose owner RELEASE does not name. What owners are left
// in the handle are those: a process's own went with its last close.
func (r *raw) unlockHandle(h *handle, q *fuse.ReleaseIn) {
	h.mu.Lock()
	owners := h.owners
	h.owners = nil
	h.mu.Unlock()
	flock := q.ReleaseFlags&fuse.FUSE_RELEASE_FLOCK_UNLOCK != 0
	if !flock && len(owners) == 0 {
		return
	}
	ctx, done := r.fs.bound()
	defer done()
	if flock {
		if err := r.fs.unlockAll(ctx, h.in, q.LockOwner, true); err != nil {
			r.fs.log.Warn("a lock could not be given up", "ino", h.in.ino, "err", err)
		}
	}
	for owner := range owners {
		if err := r.fs.unlockAll(ctx, h.in, owner, false); err != nil {
			r.fs.log.Warn("a lock could not be given up", "ino", h.in.ino, "err", err)
		}
	}
}
