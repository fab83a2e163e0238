package fs

import (
	"quernfs/internal/acl"
	"quernfs/internal/wire"
)

// setPlainACL carries out q as a change of the mode, under the write lease, if it
// is no more than that: cp -p and tar set such an ACL on every file.
func (fs *FS) setPlainACL(in *inode, cred *wire.Cred, q *wire.SetXattr) bool {
	if q.Name != acl.Access || q.Remove || q.Flags != 0 {
		return false
	}
	list, err := acl.Decode(q.Value)
	if err != nil || list == nil {
		return false
	}
	perm, whole := list.Mode()
	if !whole {
		return false
	}
	in.mu.Lock()
	if in.rec == nil {
		in.mu.Unlock()
		return false
	}
	mode := in.attrs().mode&permMask&^0o777 | perm
	in.mu.Unlock()
	return fs.setLocally(in, cred, &wire.SetAttr{Ino: in.ino, Mask: wire.SetMode, Mode: mode})
}
