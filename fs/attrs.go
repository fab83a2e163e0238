package fs

import (
	"slices"

	"quernfs/internal/wire"
)

// File types and permission bits, as in stat(2).
const (
	typeMask = 0o170000
	typeDir  = 0o040000
	typeReg  = 0o100000
	typeLink = 0o120000
	permMask = 0o7777
	bitSUID  = 0o4000
	bitSGID  = 0o2000
	bitXGrp  = 0o010
)

// attrs are the attributes of an inode as this mount shows them.
type attrs struct {
	ino, size, allocated             uint64
	mode, nlink, uid, gid, rdev      uint32
	atimeNs, mtimeNs, ctimeNs, btime int64
}

func attrsOf(a *wire.Attr) attrs {
	return attrs{
		ino: a.Ino, size: a.Size, allocated: a.Allocated, mode: a.Mode, nlink: a.Nlink, uid: a.Uid, gid: a.Gid, rdev: a.Rdev,
		atimeNs: a.AtimeNs, mtimeNs: a.MtimeNs, ctimeNs: a.CtimeNs, btime: a.BtimeNs,
	}
}

// deferred are attributes that were changed under a write lease and that meta
// does not have yet. mask has bits of wire.SetMode and so on.
type deferred struct {
	mask           uint32
	mode, uid, gid uint32
	atime, mtime   int64
	ctime          int64
}

const deferrable = wire.SetMode | wire.SetUID | wire.SetGID | wire.SetAtime | wire.SetMtime | wire.SetCtime

// set takes over the attributes that a names.
func (d *deferred) set(a *wire.SetAttr) {
	d.mask |= a.Mask & deferrable
	if a.Mask&wire.SetMode != 0 {
		d.mode = a.Mode & permMask
	}
	if a.Mask&wire.SetUID != 0 {
		d.uid = a.Uid
	}
	if a.Mask&wire.SetGID != 0 {
		d.gid = a.Gid
	}
	if a.Mask&wire.SetAtime != 0 {
		d.atime = a.AtimeNs
	}
	if a.Mask&wire.SetMtime != 0 {
		d.mtime = a.MtimeNs
	}
	if a.Mask&wire.SetCtime != 0 {
		d.ctime = a.CtimeNs
	}
}

// over shows a with the deferred changes.
func (d *deferred) over(a attrs) attrs {
	if d.mask&wire.SetMode != 0 {
		a.mode = a.mode&^permMask | d.mode
	}
	if d.mask&wire.SetUID != 0 {
		a.uid = d.uid
	}
	if d.mask&wire.SetGID != 0 {
		a.gid = d.gid
	}
	if d.mask&wire.SetAtime != 0 {
		a.atimeNs = d.atime
	}
	if d.mask&wire.SetMtime != 0 {
		a.mtimeNs = d.mtime
	}
	if d.mask&wire.SetCtime != 0 {
		a.ctimeNs = max(a.ctimeNs, d.ctime)
	}
	return a
}

// settle forgets what meta now has: a value that was changed again since the
// commit differs from the committed one, and stays.
func (d *deferred) settle(a *wire.Attr) {
	if a.Mode&permMask == d.mode {
		d.mask &^= wire.SetMode
	}
	if a.Uid == d.uid {
		d.mask &^= wire.SetUID
	}
	if a.Gid == d.gid {
		d.mask &^= wire.SetGID
	}
	if a.AtimeNs == d.atime {
		d.mask &^= wire.SetAtime
	}
	if a.MtimeNs == d.mtime {
		d.mask &^= wire.SetMtime
	}
	if a.CtimeNs >= d.ctime {
		d.mask &^= wire.SetCtime
	}
}

// under makes d what it would be if the changes of o had come before its own.
func (d *deferred) under(o deferred) {
	below := o
	below.mask &^= d.mask
	if below.mask&wire.SetMode != 0 {
		d.mode = below.mode
	}
	if below.mask&wire.SetUID != 0 {
		d.uid = below.uid
	}
	if below.mask&wire.SetGID != 0 {
		d.gid = below.gid
	}
	if below.mask&wire.SetAtime != 0 {
		d.atime = below.atime
	}
	if below.mask&wire.SetMtime != 0 {
		d.mtime = below.mtime
	}
	if below.mask&wire.SetCtime != 0 {
		d.ctime = below.ctime
	}
	d.mask |= below.mask
}

// killSuid returns mode without the bits that a write or a chown takes away.
// member: the caller is in the file's group, or privileged.
func killSuid(mode uint32, member bool) uint32 {
	if mode&typeMask != typeReg {
		return mode
	}
	mode &^= bitSUID
	if mode&bitXGrp != 0 || !member {
		mode &^= bitSGID
	}
	return mode
}

// inGroup says whether gid is among the groups of cred, or cred is privileged.
func inGroup(cred *wire.Cred, gid uint32) bool {
	return cred.GetUid() == 0 || cred.GetGid() == gid || slices.Contains(cred.GetGroups(), gid)
}

// planLocal decides whether a change of attributes may be made here and now by
// the holder of the write lease, and what it then comes to. What is not
// plainly allowed is meta's to judge (nil). The kernel has checked permissions
// against attributes that the lease keeps true; this repeats the part that
// needs no group list. now is the time of the change.
func planLocal(a attrs, cred *wire.Cred, q *wire.SetAttr, now int64) *wire.SetAttr {
	const plain = wire.SetMode | wire.SetUID | wire.SetGID | wire.SetAtime | wire.SetMtime | wire.AtimeNow | wire.MtimeNow
	if q.Mask == 0 || q.Mask&^plain != 0 || a.mode&typeMask != typeReg {
		return nil
	}
	root := cred.GetUid() == 0
	if !root && (cred.GetUid() != a.uid || q.Mask&(wire.SetUID|wire.SetGID) != 0) {
		return nil
	}
	out := &wire.SetAttr{Ino: a.ino, Mask: wire.SetCtime, CtimeNs: now}
	mode := a.mode
	if q.Mask&(wire.SetUID|wire.SetGID) != 0 || q.KillSuid {
		mode = killSuid(mode, root)
	}
	if q.Mask&wire.SetMode != 0 {
		mode = mode&^permMask | q.Mode&permMask
		if !root && mode&bitSGID != 0 && cred.GetGid() != a.gid {
			return nil
		}
	}
	if mode != a.mode {
		out.Mask |= wire.SetMode
		out.Mode = mode & permMask
	}
	out.Mask |= q.Mask & (wire.SetUID | wire.SetGID | wire.SetAtime | wire.SetMtime)
	out.Uid, out.Gid, out.AtimeNs, out.MtimeNs = q.Uid, q.Gid, q.AtimeNs, q.MtimeNs
	if q.Mask&wire.AtimeNow != 0 {
		out.Mask |= wire.SetAtime
		out.AtimeNs = now
	}
	if q.Mask&wire.MtimeNow != 0 {
		out.Mask |= wire.SetMtime
		out.MtimeNs = now
	}
	return out
}
