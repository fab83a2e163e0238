package state

import (
	"slices"

	"quernfs/internal/acl"
	"quernfs/internal/wire"
)

// Bits of a mask of rights, as in Access queries.
const (
	MayExec  = 1 // run a file, search a directory
	MayWrite = 2
	MayRead  = 4
)

// File types and permission bits, as in stat(2).
const (
	sIFMT   = 0o170000
	sIFSOCK = 0o140000
	sIFLNK  = 0o120000
	sIFREG  = 0o100000
	sIFBLK  = 0o060000
	sIFDIR  = 0o040000
	sIFCHR  = 0o020000
	sIFIFO  = 0o010000

	sISUID = 0o4000
	sISGID = 0o2000
	sISVTX = 0o1000
	sIXGRP = 0o010

	permBits = 0o7777
)

func isDir(in *wire.Inode) bool     { return in.Attr.Mode&sIFMT == sIFDIR }
func isRegular(in *wire.Inode) bool { return in.Attr.Mode&sIFMT == sIFREG }
func isSymlink(in *wire.Inode) bool { return in.Attr.Mode&sIFMT == sIFLNK }

// isRoot says whether cred passes every check. A command without credentials
// is the leader's own.
func isRoot(cred *wire.Cred) bool { return cred.GetUid() == 0 }

// InGroup says whether gid is among the groups of cred.
func InGroup(cred *wire.Cred, gid uint32) bool {
	return cred.GetGid() == gid || slices.Contains(cred.GetGroups(), gid)
}

// Access says whether cred has all the rights of mask on inode. list is the value
// of its system.posix_acl_access attribute, nil if it has none. Like
// Linux's acl_permission_check, an owner never meets the ACL, and one whose mask
// is empty is not looked at. uid 0 may do everything, except run a file that
// nobody may run.
func Access(inode *wire.Inode, list []byte, cred *wire.Cred, mask uint32) bool {
	mode := inode.Attr.Mode
	mask &= 7
	if isRoot(cred) {
		return mask&MayExec == 0 || isDir(inode) || mode&0o111 != 0
	}
	if cred.GetUid() == inode.Attr.Uid {
		return mode>>6&mask == mask
	}
	if len(list) > 0 && mode&0o070 != 0 {
		if a, err := acl.Decode(list); err == nil && len(a) > 0 {
			return a.Permits(cred.GetUid(), inode.Attr.Gid, func(gid uint32) bool { return InGroup(cred, gid) }, uint16(mask))
		}
	}
	if InGroup(cred, inode.Attr.Gid) {
		return mode>>3&mask == mask
	}
	return mode&mask == mask
}

// Sticky says whether the sticky bit of dir keeps cred from removing or
// renaming its entry inode.
func Sticky(dir, inode *wire.Inode, cred *wire.Cred) bool {
	return dir.Attr.Mode&sISVTX != 0 && !isRoot(cred) &&
		cred.GetUid() != inode.Attr.Uid && cred.GetUid() != dir.Attr.Uid
}

// owns says whether cred may do what only the owner may.
func owns(in *wire.Inode, cred *wire.Cred) bool {
	return isRoot(cred) || cred.GetUid() == in.Attr.Uid
}

// Inherit gives the group and the permission bits of a new file in dir, before
// umask or a default ACL: a setgid directory passes on its group, and to a
// directory the bit itself. mode carries the type.
func Inherit(dir *wire.Inode, mode uint32, cred *wire.Cred) (gid, newMode uint32) {
	gid = cred.GetGid()
	if mode&sIFMT == sIFDIR {
		mode &= sIFMT | sISVTX | 0o777
	}
	if dir.Attr.Mode&sISGID == 0 {
		return gid, mode
	}
	gid = dir.Attr.Gid
	switch {
	case mode&sIFMT == sIFDIR:
		mode |= sISGID
	case mode&(sISGID|sIXGRP) == sISGID|sIXGRP && !isRoot(cred) && !InGroup(cred, gid):
		mode &^= sISGID
	}
	return gid, mode
}

// KillSuid returns mode without the bits that a write by one without privileges
// takes away: set-user-id always, set-group-id if the group may execute or
// member is false (the writer is not in the file's group).
func KillSuid(mode uint32, member bool) uint32 {
	if mode&sIFMT == sIFDIR {
		return mode
	}
	mode &^= sISUID
	if mode&sIXGRP != 0 || !member {
		mode &^= sISGID
	}
	return mode
}

// mayChown says whether cred may set the owner, the group, or both, of in.
func mayChown(in *wire.Inode, cred *wire.Cred, setUID bool, uid uint32, setGID bool, gid uint32) bool {
	if isRoot(cred) {
		return true
	}
	if cred.GetUid() != in.Attr.Uid {
		return false
	}
	return (!setUID || uid == in.Attr.Uid) &&
		(!setGID || gid == in.Attr.Gid || InGroup(cred, gid))
}
