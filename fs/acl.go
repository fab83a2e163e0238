package fs

import (
	"encoding/binary"

	"quernfs/internal/wire"
)

const accessACL = "system.posix_acl_access"

// plainACL returns the permission bits that an access ACL of the kernel's encoding
// stands for, if it says no more than they do: a version (2) in 4 bytes, then
// owner, group and other, of 8 bytes each (tag, permissions, id; little-endian).
func plainACL(b []byte) (perm uint32, ok bool) {
	const version = 2
	if len(b) != 4+3*8 || binary.LittleEndian.Uint32(b) != version {
		return 0, false
	}
	for i, tag := range []uint16{0x01, 0x04, 0x20} {
		e := b[4+8*i:]
		bits := binary.LittleEndian.Uint16(e[2:])
		if binary.LittleEndian.Uint16(e) != tag || bits > 7 {
			return 0, false
		}
		perm = perm<<3 | uint32(bits)
	}
	return perm, true
}

// setPlainACL carries out q as a change of the mode, under the write lease, if it
// is no more than that: cp -p and tar set such an ACL on every file.
func (fs *FS) setPlainACL(in *inode, cred *wire.Cred, q *wire.SetXattr) bool {
	if q.Name != accessACL || q.Remove || q.Flags != 0 {
		return false
	}
	perm, ok := plainACL(q.Value)
	if !ok {
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
