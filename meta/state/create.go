package state

import (
	"quernfs/internal/acl"
	"quernfs/internal/wire"
)

// dirSize is what st_size says of every directory.
const dirSize = 4096

// dir finds the directory ino for an operation on its entries.
func (t *tx) dir(ino uint64) (*wire.Inode, wire.Code) {
	in := t.inode(ino)
	switch {
	case in == nil || in.Attr.Nlink == 0:
		return nil, wire.NotFound
	case !isDir(in):
		return nil, wire.NotDir
	}
	return in, wire.OK
}

// child finds the entry name of directory parent, in which cred may search. A
// missing entry is no error: its inode is nil.
func (t *tx) child(parent uint64, name string) (dir, in *wire.Inode, code wire.Code) {
	dir, code = t.dir(parent)
	if code != wire.OK {
		return nil, nil, code
	}
	if code := checkName(name); code != wire.OK {
		return nil, nil, code
	}
	if !t.allowed(dir, t.cred, MayExec) {
		return nil, nil, wire.Denied
	}
	if d := t.dentry(parent, name); d != nil {
		if in = t.inode(d.Ino); in == nil {
			return nil, nil, wire.Internal
		}
	}
	return dir, in, wire.OK
}

func (t *tx) create(op *wire.Create) *wire.Result {
	kind := op.Mode & sIFMT
	switch kind {
	case 0:
		kind = sIFREG
	case sIFREG, sIFDIR, sIFLNK, sIFCHR, sIFBLK, sIFIFO, sIFSOCK:
	default:
		return fail(wire.Invalid)
	}
	if op.Tmpfile {
		return t.createTmpfile(op, kind)
	}
	dir, old, code := t.child(op.Parent, op.Name)
	switch {
	case code != wire.OK:
		return fail(code)
	case old != nil && (op.Exclusive || kind != sIFREG || isSymlink(old)):
		return fail(wire.Exists)
	case old != nil && isDir(old):
		return fail(wire.IsDir)
	case old != nil:
		return &wire.Result{Inode: old, Parent: dir}
	}
	in, acls, code := t.newInode(op, dir, kind)
	if code != wire.OK {
		return fail(code)
	}
	if code := t.mayBeUser(dir, op.Name, kind); code != wire.OK {
		return fail(code)
	}
	t.asUser(op, in, dir)

	t.addInode(op, in, acls)
	t.putDentry(op.Parent, op.Name, in.Attr.Ino, kind)
	dir = t.touch(dir)
	dir.Entries++
	if kind == sIFDIR {
		dir.Attr.Nlink++
	}
	t.putInode(dir)
	return &wire.Result{Inode: in, Parent: dir, Created: true}
}

// createTmpfile makes a regular file without a name, which lives while the
// session holds it, or until it is linked.
func (t *tx) createTmpfile(op *wire.Create, kind uint32) *wire.Result {
	dir, code := t.dir(op.Parent)
	if code != wire.OK {
		return fail(code)
	}
	if kind != sIFREG || t.session == 0 {
		return failf(wire.Invalid, "a file without a name must be a regular one, of a session")
	}
	in, acls, code := t.newInode(op, dir, kind)
	if code != wire.OK {
		return fail(code)
	}

	in.Attr.Nlink, in.Linkable = 0, true
	t.addInode(op, in, acls)
	t.hold(in.Attr.Ino, []uint64{t.session})
	return &wire.Result{Inode: in, Parent: dir, Created: true}
}

// acls are the ACLs that a new inode starts with.
type acls struct{ access, def []byte }

// newInode checks that cred may make the inode in dir and returns it without
// its number. It writes nothing.
func (t *tx) newInode(op *wire.Create, dir *wire.Inode, kind uint32) (in *wire.Inode, a acls, code wire.Code) {
	switch {
	case !t.allowed(dir, t.cred, MayWrite|MayExec):
		return nil, a, wire.Denied
	case (kind == sIFBLK || kind == sIFCHR && op.Rdev != 0) && !isRoot(t.cred):
		return nil, a, wire.Perm
	case kind == sIFLNK && op.Symlink == "":
		return nil, a, wire.NotFound
	case len(op.Symlink) > wire.MaxSymlink:
		return nil, a, wire.NameTooLong
	case op.Ino != 0 && !t.mayUse(op.Ino):
		return nil, a, wire.Invalid
	}
	gid, mode := Inherit(dir, kind|op.Mode&permBits, t.cred)
	var def []byte
	if dir.HasAcl && kind != sIFLNK {
		def, _ = t.xattr(dir.Attr.Ino, acl.Default)
	}
	if def != nil {
		list, err := acl.Decode(def)
		if err != nil {
			t.fail(corrupt(xattrKey(nil, dir.Attr.Ino, acl.Default), err))
		}
		var access acl.List
		mode, access = list.Create(mode)
		if access != nil {
			a.access = access.Encode()
		}
		if kind == sIFDIR {
			a.def = def
		}
	} else {
		mode &^= op.Umask & 0o777
	}
	in = &wire.Inode{
		Attr: &wire.Attr{
			Mode: mode, Nlink: 1, Uid: t.cred.GetUid(), Gid: gid,
			AtimeNs: t.now, MtimeNs: t.now, CtimeNs: t.now, BtimeNs: t.now, Version: 1,
		},
		Policy: dir.Policy,
	}
	switch kind {
	case sIFDIR:
		in.Attr.Nlink, in.Attr.Size, in.Parent = 2, dirSize, dir.Attr.Ino
	case sIFLNK:
		in.Attr.Mode, in.Attr.Size, in.Symlink = sIFLNK|0o777, uint64(len(op.Symlink)), op.Symlink
	case sIFCHR, sIFBLK:
		in.Attr.Rdev = op.Rdev
	}
	return in, a, wire.OK
}

// addInode numbers in, if it has no number yet, and puts it and its ACLs.
func (t *tx) addInode(op *wire.Create, in *wire.Inode, a acls) {
	switch {
	case op.Ino != 0:
		in.Attr.Ino = op.Ino
		t.spend(op.Ino)
	case in.Attr.Ino == 0:
		in.Attr.Ino = t.take(nextIno, 1)
	}
	if a.access != nil {
		t.putXattr(in.Attr.Ino, acl.Access, a.access)
	}
	if a.def != nil {
		t.putXattr(in.Attr.Ino, acl.Default, a.def)
	}
	in.HasAcl = a.access != nil || a.def != nil
	in.HasXattr = in.HasAcl
	t.putInode(in)
	t.counts[countInodes]++
}
