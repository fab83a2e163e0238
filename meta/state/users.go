package state

import (
	"strconv"

	"quernfs/internal/wire"
)

// Below /.compute/users each user has what is his: a directory whose name is his
// number. Everybody may make an entry there, so that nobody has to ask; and therefore
// an entry is that directory and no other, so that nobody has the name of another user.

// usersMode are the permissions of /.compute/users.
const usersMode = 0o1777

// mayBeUser says whether cred may give an entry of dir this name.
func (t *tx) mayBeUser(dir *wire.Inode, name string, kind uint32) wire.Code {
	own := strconv.FormatUint(uint64(t.cred.GetUid()), 10)
	if dir.Attr.Ino != wire.UsersIno || isRoot(t.cred) || kind == sIFDIR && name == own {
		return wire.OK
	}
	return wire.Perm
}

// asUser completes a new inode: what a user keeps is seen by others once he lets
// them, and the directory of users that root makes in a cluster of before is that one.
func (t *tx) asUser(op *wire.Create, in *wire.Inode, dir *wire.Inode) {
	switch {
	case !isDir(in):
	case dir.Attr.Ino == wire.UsersIno && !isRoot(t.cred):
		in.Attr.Mode &^= 0o077
	case dir.Attr.Ino == wire.ComputeIno && op.Name == "users" && op.Ino == 0 && isRoot(t.cred) && t.inode(wire.UsersIno) == nil:
		in.Attr.Ino, in.Attr.Mode = wire.UsersIno, sIFDIR|usersMode
	}
}
