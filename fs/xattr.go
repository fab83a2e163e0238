package fs

import (
	"context"
	"errors"
	"strings"

	"quernfs/internal/wire"
)

// getxattr returns the value of an extended attribute, wire.NoAttr if there is
// none.
func (fs *FS) getxattr(ctx context.Context, in *inode, cred *wire.Cred, name string) ([]byte, error) {
	none := wire.Errorf(wire.NoAttr, "getxattr", name, "")
	acl := strings.HasPrefix(name, "system.posix_acl_")
	_, rest, _ := strings.Cut(name, ".")
	in.mu.Lock()
	if in.believed() && rest != "" { // without it the name is wrong, as meta says
		if !strings.HasPrefix(name, "user.quern.") && !in.rec.HasXattr && !(acl && in.rec.HasAcl) {
			in.mu.Unlock()
			return nil, none
		}
		if v, ok := in.xattrs[name]; ok {
			in.mu.Unlock()
			if v == nil {
				return nil, none
			}
			return v, nil
		}
	}
	gen, keep := in.gen, in.believed()
	in.mu.Unlock()
	if cred.GetUid() != 0 {
		if err := fs.settle(ctx, in); err != nil {
			return nil, err
		}
	}
	ans, err := fs.meta.Ask(ctx, &wire.Query{Cred: cred, Op: &wire.Query_GetXattr{GetXattr: &wire.GetXattr{Ino: in.ino, Name: name}}})
	if err != nil && !errors.Is(err, wire.NoAttr) {
		return nil, err
	}
	var v []byte
	if err == nil {
		if v = ans.GetXattr().GetValue(); v == nil {
			v = []byte{}
		}
	}
	in.mu.Lock()
	// Another process with fewer rights must not be answered from here.
	if keep && in.believed() && in.gen == gen && !strings.HasPrefix(name, "trusted.") {
		if in.xattrs == nil {
			in.xattrs = map[string][]byte{}
		}
		in.xattrs[name] = v
	}
	in.mu.Unlock()
	return v, err
}

// listxattr returns the names of all extended attributes that cred may see.
func (fs *FS) listxattr(ctx context.Context, in *inode, cred *wire.Cred) ([]string, error) {
	in.mu.Lock()
	none := in.believed() && !in.rec.HasXattr && !in.rec.HasAcl
	in.mu.Unlock()
	if none {
		return nil, nil
	}
	ans, err := fs.meta.Ask(ctx, &wire.Query{Cred: cred, Op: &wire.Query_ListXattr{ListXattr: &wire.ListXattr{Ino: in.ino}}})
	if err != nil {
		return nil, err
	}
	return ans.GetXattr().GetNames(), nil
}

// setxattr sets or removes an extended attribute.
func (fs *FS) setxattr(ctx context.Context, in *inode, cred *wire.Cred, q *wire.SetXattr) error {
	q.Ino = in.ino
	if fs.setPlainACL(in, cred, q) {
		return nil
	}
	if cred.GetUid() != 0 || strings.HasPrefix(q.Name, "system.") {
		// An ACL changes the mode: what was changed before must not come after.
		if err := fs.settle(ctx, in); err != nil {
			return err
		}
	}
	_, err := fs.doInode(ctx, in, cred, &wire.Command{Op: &wire.Command_SetXattr{SetXattr: q}})
	in.mu.Lock()
	in.xattrs = nil
	in.gen++
	in.capsGone = false
	in.mu.Unlock()
	return err
}
