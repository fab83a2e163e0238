package fs

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	"quernfs/internal/wire"
)

// computePrefix begins the names of the attributes that an overlay may know.
const computePrefix = "user.compute."

// OnCloseXattr is the attribute of a directory that an overlay is told of
// whenever a file has been written in it and closed, or moved into it.
const OnCloseXattr = computePrefix + "on_close"

// Target is a file or directory whose attribute is asked for or set: an alias, so
// that an overlay can spell it out.
type Target = struct {
	Ino   uint64
	Inode *wire.Inode // as it is now
	Path  string      // in the namespace; "": not known
	// Stored returns an attribute as it is stored; wire.NoAttr: there is none.
	Stored func(ctx context.Context, name string) ([]byte, error)
}

// Attributes is an Overlay that gives meaning to the attributes user.compute.*.
type Attributes interface {
	// GetAttribute returns the value of an attribute; wire.NoAttr: there is none.
	GetAttribute(ctx context.Context, cred *wire.Cred, t *Target, name string) ([]byte, error)
	// SetAttribute carries out what setting the attribute means, and returns the
	// attributes that are to be stored; an empty value removes one.
	SetAttribute(ctx context.Context, cred *wire.Cred, t *Target, name string, value []byte) (store map[string][]byte, err error)
	// ListAttributes names those of t beyond what is stored.
	ListAttributes(ctx context.Context, cred *wire.Cred, t *Target) []string
	// Landed is told that the file t has been written and closed, or (moved) given a
	// name, in a directory whose attribute on_close is attribute, or for which there
	// is a standing rule (see Rules).
	Landed(ctx context.Context, cred *wire.Cred, t *Target, attribute []byte, moved bool) error
}

// attributes is the overlay, if it has attributes and name is one of them.
func (fs *FS) attributes(name string) Attributes {
	if !strings.HasPrefix(name, computePrefix) {
		return nil
	}
	a, _ := fs.over().(Attributes)
	return a
}

// place is a name that an inode was last seen under.
type place struct {
	dir  uint64
	name string
}

// seenAt notes a name of an inode. It is a hint only: names change.
func (in *inode) seenAt(dir uint64, name string) {
	in.mu.Lock()
	in.at = place{dir, name}
	in.mu.Unlock()
}

// pathOf is the path of an inode, "" if it is not known any more.
func (fs *FS) pathOf(ctx context.Context, in *inode) string {
	var names []string
	for at := in; at.ino != wire.RootIno; {
		at.mu.Lock()
		p := at.at
		at.mu.Unlock()
		if p.dir == 0 || len(names) > 512 {
			return ""
		}
		names = append(names, p.name)
		at = fs.inode(p.dir)
	}
	slices.Reverse(names)
	p := "/" + path.Join(names...)
	found, err := fs.resolve(ctx, p)
	if err != nil || found.ino != in.ino {
		return ""
	}
	return p
}

func (fs *FS) target(ctx context.Context, in *inode, cred *wire.Cred) (*Target, error) {
	if err := fs.know(ctx, cred, in); err != nil {
		return nil, err
	}
	return &Target{
		Ino: in.ino, Inode: in.snapshot(), Path: fs.pathOf(ctx, in),
		Stored: func(ctx context.Context, name string) ([]byte, error) { return fs.getxattr(ctx, in, rootCred, name) },
	}, nil
}

// may asks meta for permission.
func (fs *FS) may(ctx context.Context, in *inode, cred *wire.Cred, mask uint32) error {
	if err := fs.settle(ctx, in); err != nil {
		return err
	}
	_, err := fs.meta.Ask(ctx, &wire.Query{Cred: cred, Op: &wire.Query_Access{Access: &wire.Access{Ino: in.ino, Mask: mask}}})
	return err
}

// getAttribute is getxattr where the overlay may answer.
func (fs *FS) getAttribute(ctx context.Context, in *inode, cred *wire.Cred, name string) ([]byte, error) {
	a := fs.attributes(name)
	if a == nil {
		return fs.getxattr(ctx, in, cred, name)
	}
	if err := fs.may(ctx, in, cred, 4); err != nil {
		return nil, err
	}
	t, err := fs.target(ctx, in, cred)
	if err != nil {
		return nil, err
	}
	return a.GetAttribute(ctx, cred, t, name)
}

// setAttribute is setxattr where the overlay may act.
func (fs *FS) setAttribute(ctx context.Context, in *inode, cred *wire.Cred, q *wire.SetXattr) error {
	a := fs.attributes(q.Name)
	if a == nil || q.Remove {
		return fs.setxattr(ctx, in, cred, q)
	}
	if err := fs.may(ctx, in, cred, 2); err != nil {
		return err
	}
	t, err := fs.target(ctx, in, cred)
	if err != nil {
		return err
	}
	store, err := a.SetAttribute(ctx, cred, t, q.Name, q.Value)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(store))
	for name := range store {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		set := &wire.SetXattr{Name: name, Value: store[name], Remove: len(store[name]) == 0}
		if err := fs.setxattr(ctx, in, cred, set); err != nil && !(set.Remove && errors.Is(err, wire.NoAttr)) {
			return err
		}
	}
	return nil
}

// listAttributes is listxattr with the overlay's.
func (fs *FS) listAttributes(ctx context.Context, in *inode, cred *wire.Cred) ([]string, error) {
	names, err := fs.listxattr(ctx, in, cred)
	a := fs.attributes(computePrefix)
	if err != nil || a == nil || !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, computePrefix) }) {
		return names, err
	}
	t, err := fs.target(ctx, in, cred)
	if err != nil {
		return nil, err
	}
	for _, n := range a.ListAttributes(ctx, cred, t) {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names, nil
}

// landing is what waits for a file that has been written and closed, or moved.
type landing struct {
	attribute []byte // on_close of its directory; empty: none
	moved     bool
}

// landing returns what waits for a file; nil: nothing. Names that begin with a dot
// are other programs' temporary files.
func (fs *FS) landing(ctx context.Context, cred *wire.Cred, in *inode, moved bool) (*landing, error) {
	if fs.attributes(OnCloseXattr) == nil {
		return nil, nil
	}
	in.mu.Lock()
	at, reg := in.at, in.isReg()
	in.mu.Unlock()
	if at.dir == 0 || checked(at.dir) || !reg || strings.HasPrefix(at.name, ".") {
		return nil, nil
	}
	l := &landing{moved: moved}
	dir := fs.inode(at.dir)
	if fs.know(ctx, rootCred, dir) == nil {
		l.attribute, _ = fs.getxattr(ctx, dir, rootCred, OnCloseXattr)
	}
	if len(l.attribute) > 0 {
		return l, nil
	}
	r, ok := fs.over().(Rules)
	if !ok {
		return nil, nil
	}
	standing, err := r.Standing(ctx, cred, moved, func() (string, uint64) {
		in.mu.Lock()
		size := in.attrs().size
		in.mu.Unlock()
		return fs.pathOf(ctx, in), size
	})
	if err != nil || !standing {
		return nil, err
	}
	return l, nil
}

// renamedUnderRule tells the overlay of a file that was moved to where a rule
// waits for it.
func (fs *FS) renamedUnderRule(ctx context.Context, cred *wire.Cred, dir uint64, name string) error {
	if fs.attributes(OnCloseXattr) == nil {
		return nil
	}
	d := fs.inode(dir)
	d.mu.Lock()
	none := d.believed() && !d.rec.HasXattr
	d.mu.Unlock()
	if none {
		r, ok := fs.over().(Rules)
		if !ok {
			return nil
		}
		if any, err := r.Standing(ctx, cred, true, nil); err != nil || !any {
			return err
		}
	}
	f, err := fs.lookup(ctx, rootCred, dir, name)
	if err != nil || f.in == nil {
		return nil
	}
	l, err := fs.landing(ctx, cred, f.in, true)
	if err != nil || l == nil {
		return err
	}
	return fs.landed(ctx, cred, f.in, l)
}

// landed tells the overlay of a file that something waits for.
func (fs *FS) landed(ctx context.Context, cred *wire.Cred, in *inode, l *landing) error {
	if err := fs.flush(ctx, in); err != nil {
		return err
	}
	t, err := fs.target(ctx, in, cred)
	if err != nil {
		return err
	}
	return fs.attributes(OnCloseXattr).Landed(ctx, cred, t, l.attribute, l.moved)
}
