package fs

import (
	"errors"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
)

func (r *raw) GetAttr(cancel <-chan struct{}, q *fuse.GetAttrIn, out *fuse.AttrOut) (st fuse.Status) {
	ctx, done := r.bound(&q.InHeader)
	defer done(&st)
	if isVirtual(q.NodeId) {
		return r.virtualAttr(q.NodeId, out)
	}
	in := r.fs.inode(q.NodeId)
	if err := r.fs.know(ctx, rootCred, in); err != nil {
		return r.gone(err)
	}
	r.fs.weigh(ctx, in)
	r.fs.raiseSize(in)
	a, keep := r.shown(q.Unique, in)
	putAttr(&out.Attr, a)
	out.SetTimeout(keep)
	return fuse.OK
}

func (r *raw) virtualAttr(ino uint64, out *fuse.AttrOut) fuse.Status {
	o := r.fs.over()
	if o == nil {
		return fuse.ENOENT
	}
	ctx, done := r.fs.bound()
	defer done()
	a, err := o.GetAttr(ctx, ino)
	if err != nil {
		return r.status(err)
	}
	putAttr(&out.Attr, attrsOf(a))
	return fuse.OK
}

func (r *raw) Statx(cancel <-chan struct{}, q *fuse.StatxIn, out *fuse.StatxOut) (st fuse.Status) {
	ctx, done := r.bound(&q.InHeader)
	defer done(&st)
	var a attrs
	if isVirtual(q.NodeId) {
		o := r.fs.over()
		if o == nil {
			return fuse.ENOENT
		}
		v, err := o.GetAttr(ctx, q.NodeId)
		if err != nil {
			return r.status(err)
		}
		a = attrsOf(v)
	} else {
		in := r.fs.inode(q.NodeId)
		if err := r.fs.know(ctx, rootCred, in); err != nil {
			return r.gone(err)
		}
		r.fs.weigh(ctx, in)
		r.fs.raiseSize(in)
		shown, keep := r.shown(q.Unique, in)
		a = shown
		out.SetTimeout(keep)
	}
	x := &out.Statx
	x.Mask = unix.STATX_BASIC_STATS | unix.STATX_BTIME
	x.Blksize = 1 << 20
	x.Nlink, x.Uid, x.Gid, x.Mode, x.Ino = a.nlink, a.uid, a.gid, uint16(a.mode), a.ino
	x.Size, x.Blocks = a.size, (a.allocated+511)/512
	x.Atime.Sec, x.Atime.Nsec = split(a.atimeNs)
	x.Mtime.Sec, x.Mtime.Nsec = split(a.mtimeNs)
	x.Ctime.Sec, x.Ctime.Nsec = split(a.ctimeNs)
	x.Btime.Sec, x.Btime.Nsec = split(a.btime)
	x.RdevMajor, x.RdevMinor = unix.Major(uint64(a.rdev)), unix.Minor(uint64(a.rdev))
	return fuse.OK
}

func (r *raw) SetAttr(cancel <-chan struct{}, q *fuse.SetAttrIn, out *fuse.AttrOut) (st fuse.Status) {
	if isVirtual(q.NodeId) {
		return r.virtualAttr(q.NodeId, out) // a job's control file is opened with O_TRUNC
	}
	ctx, done := r.bound(&q.InHeader)
	defer done(&st)
	in := r.fs.inode(q.NodeId)
	in.locked()
	defer in.unlocked()
	set := setAttrOf(&q.SetAttrInCommon)
	err := r.fs.know(ctx, rootCred, in)
	if err == nil && set.Mask != 0 {
		err = r.fs.setattr(ctx, in, cred(&q.InHeader), set)
	}
	if err == nil {
		err = r.fs.know(ctx, rootCred, in)
	}
	if err != nil {
		return r.gone(err)
	}
	r.fs.weigh(ctx, in)
	a, keep := r.shown(q.Unique, in)
	putAttr(&out.Attr, a)
	out.SetTimeout(keep)
	return fuse.OK
}

// setAttrOf translates the kernel's request.
func setAttrOf(q *fuse.SetAttrInCommon) *wire.SetAttr {
	set := &wire.SetAttr{
		Mode: q.Mode & permMask, Uid: q.Owner.Uid, Gid: q.Owner.Gid, Size: q.Size,
		AtimeNs: join(q.Atime, q.Atimensec), MtimeNs: join(q.Mtime, q.Mtimensec),
		KillSuid: q.Valid&fuse.FATTR_KILL_SUIDGID != 0, Handle: q.Valid&fuse.FATTR_FH != 0,
	}
	for _, b := range []struct{ in, out uint32 }{
		{fuse.FATTR_MODE, wire.SetMode}, {fuse.FATTR_UID, wire.SetUID}, {fuse.FATTR_GID, wire.SetGID}, {fuse.FATTR_SIZE, wire.SetSize},
	} {
		if q.Valid&b.in != 0 {
			set.Mask |= b.out
		}
	}
	switch {
	case q.Valid&fuse.FATTR_ATIME_NOW != 0:
		set.Mask |= wire.AtimeNow
	case q.Valid&fuse.FATTR_ATIME != 0:
		set.Mask |= wire.SetAtime
	}
	switch {
	case q.Valid&fuse.FATTR_MTIME_NOW != 0:
		set.Mask |= wire.MtimeNow
	case q.Valid&fuse.FATTR_MTIME != 0:
		set.Mask |= wire.SetMtime
	}
	return set
}

// Access is not asked: the kernel checks permissions by itself.
func (r *raw) Access(cancel <-chan struct{}, q *fuse.AccessIn) fuse.Status { return fuse.OK }

func (r *raw) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if isVirtual(h.NodeId) {
		return 0, fuse.ENOATTR
	}
	ctx, done := r.fs.bound()
	defer done()
	v, err := r.fs.getAttribute(ctx, r.fs.inode(h.NodeId), cred(h), name)
	if err != nil {
		return 0, r.gone(err)
	}
	return put(dest, v)
}

// put copies a value for the caller; an empty dest asks for its size.
func put(dest, v []byte) (uint32, fuse.Status) {
	if len(v) > len(dest) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

func (r *raw) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if isVirtual(h.NodeId) {
		return 0, fuse.OK
	}
	ctx, done := r.fs.bound()
	defer done()
	names, err := r.fs.listAttributes(ctx, r.fs.inode(h.NodeId), cred(h))
	if err != nil {
		return 0, r.gone(err)
	}
	var b strings.Builder
	for _, n := range names {
		b.WriteString(n)
		b.WriteByte(0)
	}
	return put(dest, []byte(b.String()))
}

func (r *raw) SetXAttr(cancel <-chan struct{}, q *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	if isVirtual(q.NodeId) {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	value = append([]byte{}, value[:min(int(q.Size), len(value))]...)
	return r.changeXattr(&q.InHeader, cred(&q.InHeader), &wire.SetXattr{Name: name, Value: value, Flags: q.Flags})
}

func (r *raw) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if isVirtual(h.NodeId) {
		return fuse.ENOATTR
	}
	if isSettle(h.Pid, name) {
		return fuse.ENOATTR
	}
	by := cred(h)
	if name == capability {
		// The kernel has judged: removexattr(2) needs CAP_SETFCAP. It also removes the
		// capability by itself, in the name of whoever writes to the file.
		by = rootCred
	}
	return r.changeXattr(h, by, &wire.SetXattr{Name: name, Remove: true})
}

func (r *raw) changeXattr(h *fuse.InHeader, by *wire.Cred, q *wire.SetXattr) fuse.Status {
	ctx, done := r.fs.bound()
	defer done()
	in := r.fs.inode(h.NodeId)
	in.locked()
	defer in.unlocked()
	err := r.fs.setAttribute(ctx, in, by, q)
	if strings.HasPrefix(q.Name, "system.") && err == nil {
		r.conn.forgetAttrs(in.ino) // an ACL changes the mode
	}
	if errors.Is(err, wire.NotFound) {
		return fuse.Status(syscall.ESTALE)
	}
	return r.status(err)
}
