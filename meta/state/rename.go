package state

import (
	"quernfs/internal/wire"
)

// Flags of Rename, as in renameat2(2).
const (
	renameNoReplace = 1
	renameExchange  = 2
	renameWhiteout  = 4
)

// move is a rename whose objects have been found.
type move struct {
	op       *wire.Rename
	from, to *wire.Inode // the directories, one inode if they are the same
	in       *wire.Inode // what moves
	victim   *wire.Inode // what is at the new name, or nil
	exchange bool
}

func (t *tx) rename(op *wire.Rename) *wire.Result {
	m, code := t.findMove(op)
	if code != wire.OK {
		return fail(code)
	}
	if m.victim != nil && m.victim.Attr.Ino == m.in.Attr.Ino { // two names of one file: nothing to do
		return &wire.Result{Inode: m.in, Parent: m.to, Victim: m.victim} // by which the caller knows that both names stay
	}
	if code := t.mayMove(m); code != wire.OK {
		return fail(code)
	}
	if m.exchange {
		return t.exchange(m)
	}
	return t.move(m)
}

func (t *tx) findMove(op *wire.Rename) (m *move, code wire.Code) {
	const all = renameNoReplace | renameExchange | renameWhiteout
	if op.Flags&^all != 0 || op.Flags&renameExchange != 0 && op.Flags != renameExchange {
		return nil, wire.Invalid
	}
	m = &move{op: op, exchange: op.Flags&renameExchange != 0}
	if m.from, m.in, code = t.child(op.Parent, op.Name); code != wire.OK {
		return nil, code
	}
	if m.to, m.victim, code = t.child(op.NewParent, op.NewName); code != wire.OK {
		return nil, code
	}
	switch {
	case m.in == nil || m.exchange && m.victim == nil:
		return nil, wire.NotFound
	case m.victim != nil && op.Flags&renameNoReplace != 0:
		return nil, wire.Exists
	}
	return m, wire.OK
}

// mayMove checks a rename in the order in which Linux's vfs_rename does.
func (t *tx) mayMove(m *move) wire.Code {
	if isDir(m.in) && t.below(m.to, m.in.Attr.Ino) ||
		m.exchange && isDir(m.victim) && t.below(m.from, m.victim.Attr.Ino) {
		return wire.Invalid
	}
	if code := t.mayRemove(m.from, m.in, isDir(m.in)); code != wire.OK {
		return code
	}
	if m.victim == nil {
		if !t.allowed(m.to, t.cred, MayWrite|MayExec) {
			return wire.Denied
		}
	} else if code := t.mayRemove(m.to, m.victim, isDir(m.in) && !m.exchange || m.exchange && isDir(m.victim)); code != wire.OK {
		return code
	}
	if code := t.mayBeUser(m.to, m.op.NewName, m.in.Attr.Mode&sIFMT); code != wire.OK {
		return code
	}
	if m.op.Flags&renameWhiteout != 0 {
		if code := t.mayBeUser(m.from, m.op.Name, sIFCHR); code != wire.OK {
			return code
		}
	}
	if m.exchange {
		if code := t.mayBeUser(m.from, m.op.Name, m.victim.Attr.Mode&sIFMT); code != wire.OK {
			return code
		}
	}
	// Moving a directory to another parent changes its "..".
	if m.op.Parent != m.op.NewParent {
		if isDir(m.in) && !t.allowed(m.in, t.cred, MayWrite) ||
			m.exchange && isDir(m.victim) && !t.allowed(m.victim, t.cred, MayWrite) {
			return wire.Denied
		}
	}
	if m.victim != nil && !m.exchange && isDir(m.victim) && m.victim.Entries > 0 {
		return wire.NotEmpty
	}
	return wire.OK
}

// below says whether dir is ino or lies below it.
func (t *tx) below(dir *wire.Inode, ino uint64) bool {
	for dir != nil {
		if dir.Attr.Ino == ino {
			return true
		}
		if dir.Parent == dir.Attr.Ino {
			return false
		}
		dir = t.inode(dir.Parent)
	}
	return false
}

// dirs gives the two directories of a move, copied to be changed; one twice if
// they are the same.
func (t *tx) dirs(m *move) (from, to *wire.Inode) {
	from = t.touch(m.from)
	if m.op.Parent == m.op.NewParent {
		return from, from
	}
	return from, t.touch(m.to)
}

func (t *tx) move(m *move) *wire.Result {
	from, to := t.dirs(m)
	in := t.changed(m.in)
	t.delDentry(m.op.Parent, m.op.Name)
	t.putDentry(m.op.NewParent, m.op.NewName, in.Attr.Ino, in.Attr.Mode&sIFMT)
	from.Entries--
	to.Entries++
	if isDir(in) {
		in.Parent = to.Attr.Ino
		from.Attr.Nlink--
		to.Attr.Nlink++
	}
	r := &wire.Result{Inode: in, Parent: to}
	if m.victim != nil {
		to.Entries--
		if isDir(m.victim) {
			to.Attr.Nlink--
		}
		r.Victim = t.dropName(m.victim, m.op.OpenSessions)
		r.Kept = t.kept(r.Victim, m.op.OpenSessions)
	}
	if m.op.Flags&renameWhiteout != 0 {
		r.Inodes = []*wire.Inode{t.whiteout(m, from)}
	}
	t.putInode(in)
	t.putDirs(r, from, to)
	return r
}

// whiteout leaves at the old name what overlayfs takes for "removed here": a
// character device 0/0. Anybody may make one, as mknod does.
func (t *tx) whiteout(m *move, from *wire.Inode) *wire.Inode {
	gid, mode := Inherit(from, sIFCHR, t.cred)
	w := &wire.Inode{
		Attr: &wire.Attr{
			Mode: mode, Nlink: 1, Uid: t.cred.GetUid(), Gid: gid,
			AtimeNs: t.now, MtimeNs: t.now, CtimeNs: t.now, BtimeNs: t.now, Version: 1,
		},
		Policy: from.Policy,
	}
	t.addInode(&wire.Create{}, w, acls{})
	t.putDentry(m.op.Parent, m.op.Name, w.Attr.Ino, sIFCHR)
	from.Entries++
	return w
}

func (t *tx) exchange(m *move) *wire.Result {
	from, to := t.dirs(m)
	in, other := t.changed(m.in), t.changed(m.victim)
	t.putDentry(m.op.Parent, m.op.Name, other.Attr.Ino, other.Attr.Mode&sIFMT)
	t.putDentry(m.op.NewParent, m.op.NewName, in.Attr.Ino, in.Attr.Mode&sIFMT)
	if isDir(in) {
		in.Parent = to.Attr.Ino
		from.Attr.Nlink--
		to.Attr.Nlink++
	}
	if isDir(other) {
		other.Parent = from.Attr.Ino
		to.Attr.Nlink--
		from.Attr.Nlink++
	}
	t.putInode(in)
	t.putInode(other)
	r := &wire.Result{Inode: in, Parent: to, Victim: other}
	t.putDirs(r, from, to)
	return r
}

// putDirs puts the directories of a move. One of them may be the parent of the
// other, but neither is what moved.
func (t *tx) putDirs(r *wire.Result, from, to *wire.Inode) {
	t.putInode(to)
	if from != to {
		t.putInode(from)
		r.OldParent = from
	}
}
