package state

import (
	"errors"
	"strings"

	"quernfs/internal/acl"
	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// PolicyXattr is the attribute through which the policy of a directory or of an
// empty file is set, and that of any of them read: "4+2".
const PolicyXattr = "user.quern.policy"

// Flags of SetXattr, as in setxattr(2).
const (
	xattrCreate  = 1
	xattrReplace = 2
)

// mayXattr checks the rules of xattr(7) that depend on the name's first part.
// missing is the answer to a reader who may not know of the attribute.
func (v *view) mayXattr(in *wire.Inode, cred *wire.Cred, name string, write bool) wire.Code {
	missing := wire.NoAttr
	if write {
		missing = wire.Perm
	}
	if name == "" || len(name) > wire.MaxName {
		return wire.Range
	}
	space, rest, ok := strings.Cut(name, ".")
	if !ok || strings.Contains(name, "\x00") {
		return wire.Unsupported
	}
	if rest == "" && (space == "user" || space == "trusted" || space == "security") {
		return wire.Invalid
	}
	switch space {
	case "user":
		switch {
		case !isRegular(in) && !isDir(in):
			return missing
		case write && isDir(in) && in.Attr.Mode&sISVTX != 0 && !owns(in, cred):
			return wire.Perm
		case write && !v.allowed(in, cred, MayWrite), !write && !v.allowed(in, cred, MayRead):
			return wire.Denied
		}
	case "trusted":
		if !isRoot(cred) {
			return missing
		}
	case "security":
		if write && !isRoot(cred) {
			return wire.Perm
		}
	case "system":
		switch {
		case name != acl.Access && name != acl.Default:
			return wire.Unsupported
		case isSymlink(in):
			return wire.Unsupported
		case write && !owns(in, cred):
			return wire.Perm
		}
	default:
		return wire.Unsupported
	}
	return wire.OK
}

func (t *tx) setXattr(op *wire.SetXattr) *wire.Result {
	in := t.inode(op.Ino)
	if in == nil {
		return fail(wire.NotFound)
	}
	if code := t.mayXattr(in, t.cred, op.Name, true); code != wire.OK {
		return fail(code)
	}
	if len(op.Value) > wire.MaxXattr {
		return fail(wire.Range)
	}
	if op.Name == acl.Access || op.Name == acl.Default {
		return t.setACL(in, op)
	}
	_, exists := t.xattr(op.Ino, op.Name)
	switch {
	case !exists && (op.Remove || op.Flags&xattrReplace != 0):
		return fail(wire.NoAttr)
	case exists && !op.Remove && op.Flags&xattrCreate != 0:
		return fail(wire.Exists)
	}
	policy := in.Policy
	if op.Name == PolicyXattr {
		var r *wire.Result
		if policy, r = t.newPolicy(in, op); r != nil {
			return r
		}
	}

	in = t.changed(in)
	in.Policy = policy
	t.writeXattr(in, op.Name, op.Value, !op.Remove)
	t.putInode(in)
	return &wire.Result{Inode: in}
}

// writeXattr sets or removes one attribute, and the flags of the edited in.
func (t *tx) writeXattr(in *wire.Inode, name string, value []byte, keep bool) {
	if keep {
		t.putXattr(in.Attr.Ino, name, value)
	} else {
		t.delXattr(in.Attr.Ino, name)
	}
	in.HasXattr, in.HasAcl = keep, false
	t.prefix(key8(nil, kXattr, in.Attr.Ino), func(key, _ []byte) bool {
		in.HasXattr = true
		if n := string(key[9:]); n == acl.Access || n == acl.Default {
			in.HasAcl = true
		}
		return !in.HasAcl
	})
}

// newPolicy is the policy of in after op; a Result if it cannot be.
func (t *tx) newPolicy(in *wire.Inode, op *wire.SetXattr) (*wire.Policy, *wire.Result) {
	if !isDir(in) && (in.Attr.Size > 0 || in.Attr.Allocated > 0) {
		return nil, failf(wire.Invalid, "the policy of a file that has data cannot change: copy it below a directory with the policy")
	}
	if op.Remove {
		if isDir(in) && in.Attr.Ino != wire.RootIno {
			if parent := t.inode(in.Parent); parent != nil {
				return parent.Policy, nil
			}
		}
		p := new(wire.Policy)
		if !t.load(paramKey(nil, pPolicy), p) {
			return nil, fail(wire.Internal)
		}
		return p, nil
	}
	p, err := block.ParsePolicy(string(op.Value))
	if err != nil {
		var e *wire.Error
		if errors.As(err, &e) && e.Err != nil {
			err = e.Err
		}
		return nil, failf(wire.Invalid, "%v", err)
	}
	return p.ToWire(), nil
}

// setACL sets or removes an ACL. What the permission bits say as well is not
// stored.
func (t *tx) setACL(in *wire.Inode, op *wire.SetXattr) *wire.Result {
	var list acl.List
	if !op.Remove {
		var err error
		if list, err = acl.Decode(op.Value); err != nil {
			return failf(wire.Invalid, "%v", err)
		}
	}
	if op.Name == acl.Default && !isDir(in) {
		if list == nil {
			return &wire.Result{Inode: in}
		}
		return fail(wire.Denied)
	}

	in = t.changed(in)
	keep := list != nil
	if op.Name == acl.Access && list != nil {
		perm, whole := list.Mode()
		keep = !whole
		in.Attr.Mode = in.Attr.Mode&^0o777 | perm
		if !isRoot(t.cred) && !InGroup(t.cred, in.Attr.Gid) {
			in.Attr.Mode &^= sISGID
		}
	}
	t.writeXattr(in, op.Name, list.Encode(), keep)
	t.putInode(in)
	return &wire.Result{Inode: in}
}
