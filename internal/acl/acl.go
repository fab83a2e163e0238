// Package acl has POSIX access control lists (POSIX.1e draft 17), in the encoding
// in which the kernel reads and writes them as extended attributes, with the
// rules of Linux.
package acl

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Names of the attributes.
const (
	Access  = "system.posix_acl_access"
	Default = "system.posix_acl_default"
)

// Permissions of an entry.
const (
	Exec  = 1 // run a file, search a directory
	Write = 2
	Read  = 4
)

// Tags of ACL entries, in the order in which a valid ACL has them.
const (
	TagUserObj  = 0x01 // the owner
	TagUser     = 0x02
	TagGroupObj = 0x04 // the owning group
	TagGroup    = 0x08
	TagMask     = 0x10 // bounds TagUser, TagGroupObj, TagGroup
	TagOther    = 0x20
)

const (
	version = 2
	noID    = 0xFFFFFFFF // id of the entries that have none
)

// Entry is one line of an ACL. ID is a uid or gid with TagUser and TagGroup.
type Entry struct {
	Tag  uint16
	Perm uint16 // Read | Write | Exec
	ID   uint32
}

// List is an access control list. Its encoding is a version (2) in 4 bytes, then 8
// bytes an entry: tag, perm, id; all little-endian.
type List []Entry

// Decode reads the kernel's encoding and checks that the ACL is valid. An
// ACL without entries is none.
func Decode(b []byte) (List, error) {
	if len(b) < 4 || (len(b)-4)%8 != 0 {
		return nil, fmt.Errorf("an ACL of %d bytes", len(b))
	}
	if v := binary.LittleEndian.Uint32(b); v != version {
		return nil, fmt.Errorf("ACL version %d, not %d", v, version)
	}
	b = b[4:]
	a := make(List, 0, len(b)/8)
	for ; len(b) > 0; b = b[8:] {
		a = append(a, Entry{
			Tag:  binary.LittleEndian.Uint16(b),
			Perm: binary.LittleEndian.Uint16(b[2:]),
			ID:   binary.LittleEndian.Uint32(b[4:]),
		})
	}
	if len(a) == 0 {
		return nil, nil
	}
	return a, a.valid()
}

// Encode is the inverse of Decode.
func (a List) Encode() []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+8*len(a)), version)
	for _, e := range a {
		id := e.ID
		if e.Tag != TagUser && e.Tag != TagGroup {
			id = noID
		}
		b = binary.LittleEndian.AppendUint16(b, e.Tag)
		b = binary.LittleEndian.AppendUint16(b, e.Perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return b
}

// valid checks what Linux's posix_acl_valid does: the entries in order, one
// owner, one owning group, one other, and a mask if users or groups are named.
func (a List) valid() error {
	state, needMask := TagUserObj, false
	for _, e := range a {
		if e.Perm&^7 != 0 {
			return errors.New("an ACL entry with unknown permissions")
		}
		ok := false
		switch e.Tag {
		case TagUserObj:
			ok, state = state == TagUserObj, TagUser
		case TagUser:
			ok, needMask = state == TagUser && e.ID != noID, true
		case TagGroupObj:
			ok, state = state == TagUser, TagGroup
		case TagGroup:
			ok, needMask = state == TagGroup && e.ID != noID, true
		case TagMask:
			ok, state = state == TagGroup, TagOther
		case TagOther:
			ok = state == TagOther || state == TagGroup && !needMask
			state = 0
		}
		if !ok {
			return errors.New("the entries of an ACL are wrong or not in order")
		}
	}
	if state != 0 {
		return errors.New("an ACL without all of owner, group and other")
	}
	return nil
}

func (a List) find(tag uint16) *Entry {
	for i := range a {
		if a[i].Tag == tag {
			return &a[i]
		}
	}
	return nil
}

// Permits is Linux's posix_acl_permission: whether the user uid, who is not the
// owner and of whose groups inGroup knows, has all the rights of want on a file of
// the group owning.
func (a List) Permits(uid, owning uint32, inGroup func(gid uint32) bool, want uint16) bool {
	masked := func(perm uint16) bool {
		if m := a.find(TagMask); m != nil {
			perm &= m.Perm
		}
		return perm&want == want
	}
	named := false
	for _, e := range a {
		switch e.Tag {
		case TagUser:
			if uid == e.ID {
				return masked(e.Perm)
			}
		case TagGroupObj, TagGroup:
			gid := e.ID
			if e.Tag == TagGroupObj {
				gid = owning
			}
			if inGroup(gid) {
				named = true
				if e.Perm&want == want {
					return masked(e.Perm)
				}
			}
		case TagOther:
			return !named && e.Perm&want == want
		}
	}
	return false
}

// Mode gives the permission bits that the ACL stands for, and whether these
// bits say all of it.
func (a List) Mode() (perm uint32, whole bool) {
	whole = true
	var mask *Entry
	for i, e := range a {
		switch e.Tag {
		case TagUserObj:
			perm |= uint32(e.Perm) << 6
		case TagGroupObj:
			perm |= uint32(e.Perm) << 3
		case TagOther:
			perm |= uint32(e.Perm)
		case TagMask:
			mask, whole = &a[i], false
		default:
			whole = false
		}
	}
	if mask != nil {
		perm = perm&^0o070 | uint32(mask.Perm)<<3
	}
	return perm, whole
}

// Chmod returns the ACL after a chmod to perm: owner, other, and the mask (the
// owning group, if there is no mask) follow.
func (a List) Chmod(perm uint32) List {
	out := append(List(nil), a...)
	group := out.find(TagMask)
	if group == nil {
		group = out.find(TagGroupObj)
	}
	if group != nil {
		group.Perm = uint16(perm >> 3 & 7)
	}
	if e := out.find(TagUserObj); e != nil {
		e.Perm = uint16(perm >> 6 & 7)
	}
	if e := out.find(TagOther); e != nil {
		e.Perm = uint16(perm & 7)
	}
	return out
}

// Create derives from a directory's default ACL what a file made in it with
// mode gets: its mode, and its access ACL, nil if the mode says all of it.
func (a List) Create(mode uint32) (newMode uint32, access List) {
	out := append(List(nil), a...)
	perm := mode & 0o777
	both := func(e *Entry, shift uint) {
		if e == nil {
			return
		}
		e.Perm &= uint16(perm >> shift & 7)
		perm = perm&^(7<<shift) | uint32(e.Perm)<<shift
	}
	both(out.find(TagUserObj), 6)
	both(out.find(TagOther), 0)
	if mask := out.find(TagMask); mask != nil {
		both(mask, 3)
	} else {
		both(out.find(TagGroupObj), 3)
	}
	newMode = mode&^0o777 | perm
	if _, whole := out.Mode(); whole {
		return newMode, nil
	}
	return newMode, out
}
