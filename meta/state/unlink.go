package state

import (
	"quernfs/internal/wire"
)

// mayRemove says why cred may not take the entry in out of dir, in the order in
// which Linux's may_delete asks. asDir: the caller expects a directory.
func (t *tx) mayRemove(dir, in *wire.Inode, asDir bool) wire.Code {
	switch {
	case !t.allowed(dir, t.cred, MayWrite|MayExec):
		return wire.Denied
	case Sticky(dir, in, t.cred):
		return wire.Perm
	case asDir && !isDir(in):
		return wire.NotDir
	case !asDir && isDir(in):
		return wire.IsDir
	case protected(in.Attr.Ino):
		return wire.Busy
	}
	return wire.OK
}

func (t *tx) unlink(op *wire.Unlink) *wire.Result {
	dir, in, code := t.child(op.Parent, op.Name)
	if code != wire.OK {
		return fail(code)
	}
	if in == nil {
		return fail(wire.NotFound)
	}
	if code := t.mayRemove(dir, in, op.Dir); code != wire.OK {
		return fail(code)
	}
	if op.Dir && in.Entries > 0 {
		return fail(wire.NotEmpty)
	}

	t.delDentry(op.Parent, op.Name)
	dir = t.touch(dir)
	dir.Entries--
	if op.Dir {
		dir.Attr.Nlink--
	}
	t.putInode(dir)
	victim := t.dropName(in, op.OpenSessions)
	return &wire.Result{Parent: dir, Victim: victim, Kept: t.kept(victim, op.OpenSessions)}
}

// dropName takes one name from in, all of them from a directory. Without a name
// it lives on while one of open has it open.
func (t *tx) dropName(in *wire.Inode, open []uint64) *wire.Inode {
	in = t.changed(in)
	if in.Attr.Nlink--; isDir(in) {
		in.Attr.Nlink = 0
	}
	switch {
	case in.Attr.Nlink > 0 || t.hold(in.Attr.Ino, open):
		t.putInode(in)
	default:
		t.destroy(in)
	}
	return in
}

func (t *tx) link(op *wire.Link) *wire.Result {
	in := t.inode(op.Ino)
	dir, old, code := t.child(op.NewParent, op.NewName)
	switch {
	case code != wire.OK:
		return fail(code)
	case old != nil:
		return fail(wire.Exists)
	case in == nil:
		return fail(wire.NotFound)
	case !t.allowed(dir, t.cred, MayWrite|MayExec):
		return fail(wire.Denied)
	case isDir(in), t.mayBeUser(dir, op.NewName, in.Attr.Mode&sIFMT) != wire.OK:
		return fail(wire.Perm)
	case in.Attr.Nlink >= wire.MaxLinks:
		return fail(wire.TooManyLinks)
	case in.Attr.Nlink == 0 && !(in.Linkable && t.orphaned(op.Ino, t.session)):
		return fail(wire.NotFound)
	}

	if in.Attr.Nlink == 0 { // a file made without a name gets one
		for _, id := range t.holders(op.Ino) {
			t.wkey = orphanKey(t.wkey[:0], op.Ino, id)
			t.del(t.wkey)
		}
	}
	in = t.changed(in)
	in.Attr.Nlink++
	in.Linkable = false
	t.putInode(in)
	t.putDentry(op.NewParent, op.NewName, op.Ino, in.Attr.Mode&sIFMT)
	dir = t.touch(dir)
	dir.Entries++
	t.putInode(dir)
	return &wire.Result{Inode: in, Parent: dir}
}
