package state

import (
	"quernfs/internal/acl"
	"quernfs/internal/wire"
)

func (t *tx) setAttr(op *wire.SetAttr) *wire.Result {
	in := t.inode(op.Ino)
	if in == nil {
		return fail(wire.NotFound)
	}
	if code := t.maySetAttr(in, op); code != wire.OK {
		return fail(code)
	}

	in = edit(in)
	t.assignBefore(in, op.Before)
	if op.Mask&wire.SetSize != 0 {
		t.truncate(in, op.Size)
		in.Attr.MtimeNs = t.now
	}
	if op.KillSuid || op.Mask&wire.SetSize != 0 {
		t.killSuid(in)
	}
	if op.Mask&(wire.SetSize|wire.SetUID|wire.SetGID) != 0 {
		t.dropCapability(in)
	}
	t.assign(in, op, t.cred, op.Handle)
	t.putInode(in)
	return &wire.Result{Inode: in}
}

// maySetAttr checks in the order in which Linux's setattr_prepare does.
func (t *tx) maySetAttr(in *wire.Inode, op *wire.SetAttr) wire.Code {
	has := func(bits uint32) bool { return op.Mask&bits != 0 }
	if has(wire.SetSize) {
		switch {
		case isDir(in):
			return wire.IsDir
		case !isRegular(in):
			return wire.Invalid
		case op.Size > wire.MaxFile:
			return wire.FileTooBig
		case !op.Handle && !t.allowed(in, t.cred, MayWrite):
			return wire.Denied
		}
	}
	if (has(wire.SetUID) || has(wire.SetGID)) && !mayChown(in, t.cred, has(wire.SetUID), op.Uid, has(wire.SetGID), op.Gid) {
		return wire.Perm
	}
	if has(wire.SetMode) {
		if !owns(in, t.cred) {
			return wire.Perm
		}
		if isSymlink(in) {
			return wire.Unsupported
		}
	}
	if op.Handle || owns(in, t.cred) {
		return wire.OK
	}
	given := has(wire.SetAtime) && !has(wire.AtimeNow) || has(wire.SetMtime) && !has(wire.MtimeNow)
	if given || has(wire.SetCtime) {
		return wire.Perm
	}
	if has(wire.AtimeNow|wire.MtimeNow) && !t.allowed(in, t.cred, MayWrite) {
		return wire.Denied
	}
	return wire.OK
}

// assignBefore sets what a holder of the write lease had changed, and nobody else
// knew, before the command.
func (t *tx) assignBefore(in *wire.Inode, before *wire.SetAttr) {
	if before == nil {
		return
	}
	if before.KillSuid {
		in.Attr.Mode = KillSuid(in.Attr.Mode, true)
	}
	t.assign(in, before, nil, true)
}

// modify is what every command that changes content begins with: before is
// assigned, times move, and what a change by the command's caller takes away goes.
func (t *tx) modify(in *wire.Inode, before *wire.SetAttr) *wire.Inode {
	in = edit(in)
	t.assignBefore(in, before)
	in.Attr.MtimeNs, in.Attr.CtimeNs = t.now, t.now
	t.killSuid(in)
	t.dropCapability(in)
	return in
}

// capability is the attribute with the capabilities of a program. Whoever changes
// the program's content or owner takes them away, root too.
const capability = "security.capability"

func (t *tx) dropCapability(in *wire.Inode) {
	if !in.HasXattr || isDir(in) {
		return
	}
	if _, ok := t.xattr(in.Attr.Ino, capability); ok {
		t.writeXattr(in, capability, nil, false)
	}
}

// killSuid takes from the edited in what a write by the command's caller does.
func (t *tx) killSuid(in *wire.Inode) {
	if !isRoot(t.cred) {
		in.Attr.Mode = KillSuid(in.Attr.Mode, InGroup(t.cred, in.Attr.Gid))
	}
}

// assign sets the attributes of op, the size apart, on the edited in. cred only
// decides on the set-user-id and set-group-id bits. A lone access time is, if
// byRead, that of a read, which is no change of status: ctime stays.
func (t *tx) assign(in *wire.Inode, op *wire.SetAttr, cred *wire.Cred, byRead bool) {
	a := in.Attr
	has := func(bits uint32) bool { return op.Mask&bits != 0 }
	if has(wire.SetUID | wire.SetGID) {
		a.Mode = KillSuid(a.Mode, isRoot(cred) || InGroup(cred, a.Gid))
		if has(wire.SetUID) {
			a.Uid = op.Uid
		}
		if has(wire.SetGID) {
			a.Gid = op.Gid
		}
	}
	if has(wire.SetMode) {
		t.chmod(in, op.Mode, cred)
	}
	switch {
	case has(wire.AtimeNow):
		a.AtimeNs = t.now
	case has(wire.SetAtime):
		a.AtimeNs = op.AtimeNs
	}
	switch {
	case has(wire.MtimeNow):
		a.MtimeNs = t.now
	case has(wire.SetMtime):
		a.MtimeNs = op.MtimeNs
	}
	switch {
	case has(wire.SetCtime):
		a.CtimeNs = op.CtimeNs
	case byRead && op.Mask != 0 && op.Mask&^(wire.SetAtime|wire.AtimeNow) == 0:
	default:
		a.CtimeNs = t.now
	}
}

// chmod sets the permission bits, and makes the access ACL follow.
func (t *tx) chmod(in *wire.Inode, mode uint32, cred *wire.Cred) {
	mode &= permBits
	if !isRoot(cred) && !InGroup(cred, in.Attr.Gid) {
		mode &^= sISGID
	}
	in.Attr.Mode = in.Attr.Mode&^permBits | mode
	if !in.HasAcl {
		return
	}
	value, ok := t.xattr(in.Attr.Ino, acl.Access)
	if !ok {
		return
	}
	list, err := acl.Decode(value)
	if err != nil {
		t.fail(corrupt(xattrKey(nil, in.Attr.Ino, acl.Access), err))
		return
	}
	t.putXattr(in.Attr.Ino, acl.Access, list.Chmod(mode).Encode())
}
