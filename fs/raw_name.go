package fs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"quernfs/internal/wire"
)

// dirOp marks directories as locked by the kernel until the returned function
// is called.
func (r *raw) dirOp(dirs ...uint64) func() {
	var list [2]*inode
	for i, d := range dirs {
		if i < 2 && !isVirtual(d) && (i == 0 || d != dirs[0]) {
			list[i] = r.fs.inode(d)
			list[i].beginDirOp()
		}
	}
	r.fs.dirOps.Add(1)
	return func() {
		r.fs.dirOps.Add(-1)
		for _, in := range list {
			if in != nil {
				in.endDirOp()
			}
		}
	}
}

func (r *raw) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) (st fuse.Status) {
	if !isVirtual(h.NodeId) {
		defer r.fs.inode(h.NodeId).looks(name)()
	}
	ctx, done := r.boundLookup(h)
	defer done(&st)
	c := rootCred // the kernel has checked the right to search
	var f found
	if o := r.fs.over(); o != nil && (isVirtual(h.NodeId) || h.NodeId == wire.ComputeIno) && name != ".." && !(name == "." && h.NodeId == wire.ComputeIno) {
		a, err := r.virtualLookup(h, o, name)
		switch {
		case err == nil && isVirtual(a.Ino):
			r.virtualEntry(a, out)
			return fuse.OK
		case err == nil:
			f.in = r.fs.inode(a.Ino)
			if err := r.fs.know(ctx, c, f.in); err != nil {
				return r.status(err)
			}
		case !errors.Is(err, wire.NotFound) || isVirtual(h.NodeId):
			return r.status(err)
		}
	}
	if err := r.find(ctx, &f, h.NodeId, name); err != nil {
		return r.status(err)
	}
	if f.in == nil {
		// No such entry. Node id 0 lets the kernel keep that.
		if f.dir != nil {
			f.dir.mayShowNone(name)
		}
		keep := ttl(f.believed())
		if keep == 0 || h.NodeId == wire.ComputeIno {
			return fuse.ENOENT
		}
		out.SetEntryTimeout(keep)
		return fuse.OK
	}
	if f.dir != nil && checked(f.dir.ino) {
		r.fs.queue.note(f.in.ino, f.dir.ino, name)
	}
	if at := (place{h.NodeId, name}); name != "." && name != ".." {
		before := f.in.shownBefore(at)
		f.in.tell(at)
		r.fill(h.Unique, &f, out)
		if before {
			out.SetEntryTimeout(min(out.EntryTimeout(), comparedTTL))
		}
		return fuse.OK
	}
	r.fill(h.Unique, &f, out)
	return fuse.OK
}

// comparedTTL is how long the kernel may keep a directory's name that it had before.
const comparedTTL = time.Second

const findTries = 10 // more only if somebody replaces the file without a pause

// find looks up what is not found yet, and counts it. What lost its name, or its
// lease, between the look-up and the counting is looked up again: the kernel might
// not be able to open it.
func (r *raw) find(ctx context.Context, f *found, dir uint64, name string) error {
	for n := range findTries {
		if f.in == nil {
			var err error
			if *f, err = r.fs.lookup(ctx, rootCred, dir, name); err != nil || f.in == nil {
				return err
			}
		}
		f.in.mu.Lock()
		f.in.find()
		again := f.in.lost || f.dir != nil && !f.in.asked()
		f.in.mu.Unlock()
		if !again || n == findTries-1 {
			break
		}
		r.Forget(f.in.ino, 1)
		f.in = nil
	}
	return nil
}

func (r *raw) virtualLookup(h *fuse.InHeader, o Overlay, name string) (*wire.Attr, error) {
	ctx, done := r.fs.bound()
	defer done()
	if name == "." {
		return o.GetAttr(ctx, h.NodeId)
	}
	return o.Lookup(ctx, cred(h), h.NodeId, name)
}

func (r *raw) Mknod(cancel <-chan struct{}, q *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return r.make(&q.InHeader, &wire.Create{Name: name, Mode: q.Mode, Rdev: q.Rdev, Umask: q.Umask, Exclusive: true}, out)
}

func (r *raw) Mkdir(cancel <-chan struct{}, q *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return r.make(&q.InHeader, &wire.Create{Name: name, Mode: typeDir | q.Mode&permMask, Umask: q.Umask, Exclusive: true}, out)
}

func (r *raw) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return r.make(h, &wire.Create{Name: name, Mode: typeLink | 0o777, Symlink: target, Exclusive: true}, out)
}

func (r *raw) make(h *fuse.InHeader, q *wire.Create, out *fuse.EntryOut) (st fuse.Status) {
	if isVirtual(h.NodeId) {
		return fuse.EPERM
	}
	defer r.dirOp(h.NodeId)()
	ctx, done := r.bound(h)
	defer done(&st)
	q.Parent = h.NodeId
	f, _, err := r.fs.create(ctx, cred(h), q)
	if err != nil {
		return r.status(err)
	}
	r.made(h.Unique, &f, place{q.Parent, q.Name}, out)
	return fuse.OK
}

func (r *raw) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) (st fuse.Status) {
	if isVirtual(h.NodeId) {
		return fuse.EPERM
	}
	rm := r.removing(h.NodeId, name)
	defer r.dirOp(h.NodeId)()
	defer r.fs.lockedAs(place{h.NodeId, name})()
	ctx, done := r.bound(h)
	defer done(&st)
	ctx = rm.within(ctx)
	err := r.fs.unlinkQueued(ctx, cred(h), h.NodeId, name)
	r.removed(ctx, h.Unique, rm, err)
	return r.status(err)
}

func (r *raw) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) (st fuse.Status) {
	if isVirtual(h.NodeId) {
		return fuse.EPERM
	}
	defer r.dirOp(h.NodeId)()
	ctx, done := r.bound(h)
	defer done(&st)
	return r.status(r.fs.unlink(ctx, cred(h), h.NodeId, name, true))
}

func (r *raw) Rename(cancel <-chan struct{}, q *fuse.RenameIn, from, to string) (st fuse.Status) {
	if isVirtual(q.NodeId) || isVirtual(q.Newdir) {
		return fuse.Status(syscall.EXDEV)
	}
	if q.Flags&^(renameNoReplace|renameExchange|renameWhiteout) != 0 {
		return fuse.EINVAL
	}
	rm := &removal{}
	if q.Flags&renameExchange == 0 {
		rm = r.removing(q.Newdir, to)
	}
	defer r.dirOp(q.NodeId, q.Newdir)()
	defer r.fs.lockedAs(place{q.NodeId, from}, place{q.Newdir, to})()
	ctx, done := r.bound(&q.InHeader)
	defer done(&st)
	ctx = rm.within(ctx)
	c := cred(&q.InHeader)
	r.fs.inode(q.Newdir).mayShowNone(to) // the kernel moves the entry that it has
	err := r.fs.renameQueued(ctx, c, &wire.Rename{
		Parent: q.NodeId, Name: from, NewParent: q.Newdir, NewName: to, Flags: q.Flags,
	})
	r.removed(ctx, q.Unique, rm, err)
	if err == nil {
		err = r.fs.renamedUnderRule(ctx, c, q.Newdir, to)
	}
	return r.status(err)
}

func (r *raw) Link(cancel <-chan struct{}, q *fuse.LinkIn, name string, out *fuse.EntryOut) (st fuse.Status) {
	if isVirtual(q.NodeId) || isVirtual(q.Oldnodeid) {
		return fuse.Status(syscall.EXDEV)
	}
	defer r.dirOp(q.NodeId)()
	old := r.fs.inode(q.Oldnodeid)
	old.locked()
	defer old.unlocked()
	ctx, done := r.bound(&q.InHeader)
	defer done(&st)
	f, err := r.fs.linkQueued(ctx, cred(&q.InHeader), q.Oldnodeid, q.NodeId, name)
	if err != nil {
		return r.status(err)
	}
	r.made(q.Unique, &f, place{q.NodeId, name}, out)
	return fuse.OK
}

func (r *raw) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	ctx, done := r.fs.bound()
	defer done()
	if isVirtual(h.NodeId) {
		o := r.fs.over()
		if o == nil {
			return nil, fuse.ENOENT
		}
		s, err := o.ReadLink(ctx, h.NodeId)
		return []byte(s), r.status(err)
	}
	s, err := r.fs.readlink(ctx, rootCred, r.fs.inode(h.NodeId))
	return []byte(s), r.gone(err)
}
