package fs

import (
	"context"
	"errors"
	"slices"
	"time"

	"quernfs/internal/wire"
)

// found is the answer to a look-up, or what an operation made.
type found struct {
	in   *inode // nil: there is no such entry
	dir  *inode
	gen  uint64 // of dir when the answer was known to be right
	sure bool   // right for as long as dir.gen stays the same and the lease is held
}

// believed: the kernel may keep the entry.
func (f *found) believed() bool {
	if !f.sure {
		return false
	}
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	return f.dir.gen == f.gen && f.dir.usable(wire.Mode_READ) && f.dir.recall == nil && f.dir.naming == 0
}

// lookup finds an entry. An entry that does not exist is no error: found.in is
// nil then.
func (fs *FS) lookup(ctx context.Context, cred *wire.Cred, dir uint64, name string) (found, error) {
	switch name {
	case ".":
		in := fs.inode(dir)
		return found{in: in}, fs.know(ctx, cred, in)
	case "..":
		return fs.parent(ctx, cred, dir)
	}
	if len(name) > wire.MaxName {
		return found{}, wire.Errorf(wire.NameTooLong, "look up", "", "more than 255 bytes")
	}
	d := fs.inode(dir)
	if f, ok := d.remembered(name); ok {
		if f.in == nil {
			return f, nil
		}
		err := fs.know(ctx, cred, f.in)
		switch {
		case err == nil && f.in.safe():
			f.in.seenAt(dir, name)
			return f, nil
		case err != nil && !errors.Is(err, wire.NotFound):
			return found{}, err
		}
		// It is losing its name, or has lost it: meta says what the name is then.
	}
	ans, err := fs.ask(ctx, cred, d, name)
	if err != nil && (ans == nil || !errors.Is(err, wire.NotFound)) {
		return found{}, err
	}
	f := found{dir: d}
	var c child
	if rec := ans.GetInode().GetInode(); err == nil && rec != nil {
		f.in = fs.inode(rec.Attr.Ino)
		f.in.mu.Lock()
		f.in.learn(rec, grantOf(ans.Grants, rec.Attr.Ino))
		f.in.at = place{dir, name}
		f.in.mu.Unlock()
		c = child{rec.Attr.Ino, rec.Attr.Mode & typeMask}
	}
	d.mu.Lock()
	if f.sure = d.learn(ans.GetInode().GetParent(), grantOf(ans.Grants, dir)); f.sure {
		d.entries.learn(name, c, ans.Index)
		f.gen = d.gen
	}
	d.mu.Unlock()
	return f, nil
}

const owedWait = time.Millisecond // for a recall to arrive here, or its answer at meta

// ask has meta look an entry up.
func (fs *FS) ask(ctx context.Context, cred *wire.Cred, d *inode, name string) (*wire.Answer, error) {
	for {
		ans, err := fs.meta.Ask(ctx, &wire.Query{Cred: cred, Op: &wire.Query_Lookup{Lookup: &wire.Lookup{Parent: d.ino, Name: name, Lease: true}}})
		if !ans.GetOwed() || d.tellsLeaving(name) || ctx.Err() != nil {
			return ans, err
		}
		// The recall has been answered, and meta did not know yet; or is about to come.
		select {
		case <-time.After(owedWait):
		case <-ctx.Done():
		}
	}
}

// remembered answers from the directory's cache.
func (d *inode) remembered(name string) (f found, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.usable(wire.Mode_READ) || d.recall != nil {
		return found{}, false
	}
	c, ok := d.entries.find(name)
	if !ok {
		return found{}, false
	}
	f = found{dir: d, gen: d.gen, sure: true}
	if c.ino != 0 {
		f.in = d.fs.inode(c.ino)
	}
	return f, true
}

// parent is "..".
func (fs *FS) parent(ctx context.Context, cred *wire.Cred, dir uint64) (found, error) {
	d := fs.inode(dir)
	if err := fs.know(ctx, cred, d); err != nil {
		return found{}, err
	}
	d.mu.Lock()
	up := d.rec.Parent
	d.mu.Unlock()
	if up == 0 {
		return found{}, wire.Errorf(wire.NotFound, "look up", "", "the directory has been removed")
	}
	p := fs.inode(up)
	return found{in: p}, fs.know(ctx, cred, p)
}

// know makes sure that there are attributes of in to be shown: those believed,
// or else those that meta has now.
func (fs *FS) know(ctx context.Context, cred *wire.Cred, in *inode) error {
	in.mu.Lock()
	ok := in.believed()
	in.mu.Unlock()
	if ok {
		return nil
	}
	ans, err := fs.meta.Ask(ctx, &wire.Query{Cred: cred, Op: &wire.Query_GetInode{GetInode: &wire.GetInode{Ino: in.ino, Lease: true}}})
	if err != nil {
		return err
	}
	rec := ans.GetInode().GetInode()
	if rec == nil {
		return wire.Errorf(wire.Internal, "get inode", "", "the answer holds no inode")
	}
	in.mu.Lock()
	in.learn(rec, grantOf(ans.Grants, in.ino))
	in.mu.Unlock()
	return nil
}

// change is a change of directories under way: which generation they had
// before, so that what another session changed meanwhile is not believed.
type change struct {
	fs    *FS
	dirs  []*inode
	gens  []uint64
	names []changedName

	unheard bool // it may still be carried out, though it has failed
}

// changedName is a name that a change is about, and its directory's object,
// which may be forgotten meanwhile.
type changedName struct {
	dir  *inode
	name string
}

// changing begins a change of names. Its caller calls over when everything
// about them has been recorded.
func (fs *FS) changing(names ...place) *change {
	c := &change{fs: fs}
	for _, n := range slices.Compact(names) {
		d := fs.inode(n.dir)
		c.names = append(c.names, changedName{d, n.name})
		d.mu.Lock()
		d.entries.begin(n.name)
		if !slices.Contains(c.dirs, d) {
			c.dirs = append(c.dirs, d)
			c.gens = append(c.gens, d.gen)
		}
		d.mu.Unlock()
	}
	return c
}

// over ends the change.
func (c *change) over() {
	if !c.unheard {
		c.end()
		return
	}
	c.fs.whenSettled(func() {
		for _, n := range c.names {
			n.dir.mu.Lock()
			n.dir.entries.forget([]string{n.name})
			n.dir.mu.Unlock()
		}
		c.end()
	})
}

func (c *change) end() {
	for _, n := range c.names {
		n.dir.mu.Lock()
		n.dir.entries.end(n.name)
		n.dir.mu.Unlock()
	}
}

// done records what a command has made of an entry. recs are the directories as
// the result shows them.
func (c *change) done(dir uint64, name string, to child, r *wire.Result, recs ...*wire.Inode) found {
	for i, d := range c.dirs {
		if d.ino != dir {
			continue
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, rec := range recs {
			if rec != nil && rec.Attr.Ino == dir {
				d.learn(rec, grantOf(r.Grants, dir))
			}
		}
		f := found{dir: d, gen: d.gen, sure: d.gen == c.gens[i] && d.usable(wire.Mode_READ)}
		if f.sure {
			d.entries.set(name, to, r.Index)
		} else {
			d.entries.forget([]string{name})
		}
		return f
	}
	return found{}
}

// refused: the command failed with err; it was about inodes beside the entries.
func (c *change) refused(err error, inodes ...*inode) {
	c.unheard = mayHaveRun(err)
	for _, n := range c.names {
		c.failed(n.name)
	}
	c.fs.unheard(err, append(inodes, c.dirs...)...)
}

// failed: a command did not succeed, or nobody knows; the entry is not believed
// any more.
func (c *change) failed(names ...string) {
	for _, d := range c.dirs {
		d.mu.Lock()
		d.entries.forget(names)
		d.mu.Unlock()
	}
}

// create makes an entry of any type, or, for a regular file that need not be
// new, finds it.
func (fs *FS) create(ctx context.Context, cred *wire.Cred, q *wire.Create) (f found, created bool, err error) {
	return fs.createThen(ctx, cred, q, func(*inode) {})
}

// createOpen is create for a file that is opened: the handle is counted before
// anybody can ask whether it is open, so that it lives on if another mount
// removes it at once. Call keep next.
func (fs *FS) createOpen(ctx context.Context, cred *wire.Cred, q *wire.Create) (f found, created bool, err error) {
	return fs.createThen(ctx, cred, q, func(in *inode) { in.open++ })
}

// createThen calls then, with the inode's lock held, at the moment when the
// lease is recorded.
func (fs *FS) createThen(ctx context.Context, cred *wire.Cred, q *wire.Create, then func(*inode)) (f found, created bool, err error) {
	if len(q.Name) > wire.MaxName {
		return found{}, false, wire.Errorf(wire.NameTooLong, "create", "", "more than 255 bytes")
	}
	ch := fs.changing(place{q.Parent, q.Name})
	defer ch.over()
	r, err := fs.meta.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_Create{Create: q}})
	if err != nil {
		ch.refused(err)
		return found{}, false, err
	}
	rec := r.GetInode()
	if rec == nil {
		return found{}, false, wire.Errorf(wire.Internal, "create", "", "the result holds no inode")
	}
	in := fs.inode(rec.Attr.Ino)
	in.mu.Lock()
	in.at = place{q.Parent, q.Name}
	if in.learn(rec, grantOf(r.Grants, in.ino)) && r.Created && in.isDir() {
		in.entries.created()
	}
	in.alone = q.Tmpfile
	then(in)
	in.mu.Unlock()
	if !q.Tmpfile {
		f = ch.done(q.Parent, q.Name, child{rec.Attr.Ino, rec.Attr.Mode & typeMask}, r, r.Parent)
	}
	f.in = in
	return f, r.Created, nil
}

// unlink removes an entry.
func (fs *FS) unlink(ctx context.Context, cred *wire.Cred, dir uint64, name string, rmdir bool) error {
	if err := fs.settleEntry(ctx, cred, dir, name); err != nil {
		return err
	}
	ch := fs.changing(place{dir, name})
	defer ch.over()
	r, err := fs.meta.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_Unlink{Unlink: &wire.Unlink{Parent: dir, Name: name, Dir: rmdir}}})
	if err != nil {
		ch.refused(err)
		return err
	}
	ch.done(dir, name, child{}, r, r.Parent)
	fs.victim(ctx, r)
	return nil
}

// victim records that a command of ours has taken a name from an inode.
func (fs *FS) victim(ctx context.Context, r *wire.Result) {
	if r.Victim == nil {
		return
	}
	in := fs.inode(r.Victim.Attr.Ino)
	in.mu.Lock()
	in.learn(r.Victim, nil)
	in.alone = r.Victim.Attr.Nlink == 0 && !r.Kept
	in.dropsLink(ctx)
	in.mu.Unlock()
	fs.letGo(in)
}

// Flags of rename, as in renameat2(2).
const (
	renameNoReplace = 1
	renameExchange  = 2
	renameWhiteout  = 4
)

// rename moves an entry. A file with data that is not stored yet is flushed
// before it replaces another: a crash leaves the old content or the new, never
// an empty file.
func (fs *FS) rename(ctx context.Context, cred *wire.Cred, q *wire.Rename) error {
	if len(q.NewName) > wire.MaxName {
		return wire.Errorf(wire.NameTooLong, "rename", "", "more than 255 bytes")
	}
	if err := fs.flushBeforeReplace(ctx, cred, q); err != nil {
		return err
	}
	if err := fs.settleEntry(ctx, cred, q.Parent, q.Name); err != nil {
		return err
	}
	if err := fs.settleEntry(ctx, cred, q.NewParent, q.NewName); err != nil {
		return err
	}
	ch := fs.changing(place{q.Parent, q.Name}, place{q.NewParent, q.NewName})
	defer ch.over()
	r, err := fs.meta.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_Rename{Rename: q}})
	if err != nil {
		ch.refused(err)
		return err
	}
	if rec := r.Inode; rec != nil {
		in := fs.inode(rec.Attr.Ino)
		in.mu.Lock()
		in.learn(rec, grantOf(r.Grants, in.ino))
		in.at = place{q.NewParent, q.NewName}
		in.mu.Unlock()
		moved, left := child{rec.Attr.Ino, rec.Attr.Mode & typeMask}, child{}
		if v := r.Victim; v != nil && v.Attr.Ino == rec.Attr.Ino {
			// Two names of one inode: rename does nothing.
			ch.failed(q.Name, q.NewName)
			return nil
		} else if v != nil && q.Flags&renameExchange != 0 {
			other := fs.inode(v.Attr.Ino)
			other.tell(place{q.Parent, q.Name})
			left = child{v.Attr.Ino, v.Attr.Mode & typeMask}
		} else if q.Flags&renameWhiteout != 0 && len(r.Inodes) == 1 {
			w := r.Inodes[0].Attr
			left = child{w.Ino, w.Mode & typeMask}
		}
		in.tell(place{q.NewParent, q.NewName})
		ch.done(q.Parent, q.Name, left, r, r.Parent, r.OldParent)
		ch.done(q.NewParent, q.NewName, moved, r, r.Parent, r.OldParent)
	} else {
		ch.failed(q.Name, q.NewName)
	}
	fs.victim(ctx, r)
	return nil
}

func (fs *FS) flushBeforeReplace(ctx context.Context, cred *wire.Cred, q *wire.Rename) error {
	if q.Flags&(renameNoReplace|renameExchange) != 0 {
		return nil
	}
	f, ok := fs.inode(q.Parent).remembered(q.Name)
	if !ok {
		var err error
		if f, err = fs.lookup(ctx, cred, q.Parent, q.Name); err != nil {
			return err
		}
	}
	if f.in == nil || !f.in.dirty() {
		return nil
	}
	over, err := fs.lookup(ctx, cred, q.NewParent, q.NewName)
	if err != nil || over.in == nil || over.in == f.in {
		return nil // what is wrong, the rename itself will say
	}
	return fs.flush(ctx, f.in)
}

// link gives an inode another name.
func (fs *FS) link(ctx context.Context, cred *wire.Cred, ino, dir uint64, name string) (found, error) {
	if len(name) > wire.MaxName {
		return found{}, wire.Errorf(wire.NameTooLong, "link", "", "more than 255 bytes")
	}
	if cred.GetUid() != 0 {
		if err := fs.settle(ctx, fs.inode(ino)); err != nil {
			return found{}, err
		}
	}
	ch := fs.changing(place{dir, name})
	defer ch.over()
	r, err := fs.meta.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_Link{Link: &wire.Link{Ino: ino, NewParent: dir, NewName: name}}})
	if err != nil {
		ch.refused(err, fs.inode(ino))
		return found{}, err
	}
	in := fs.inode(ino)
	in.mu.Lock()
	in.learn(r.Inode, grantOf(r.Grants, ino))
	typ := uint32(0)
	if in.rec != nil {
		typ = in.rec.Attr.Mode & typeMask
	}
	in.mu.Unlock()
	f := ch.done(dir, name, child{ino, typ}, r, r.Parent)
	f.in = in
	return f, fs.know(ctx, cred, in)
}

// readlink returns a symbolic link's target.
func (fs *FS) readlink(ctx context.Context, cred *wire.Cred, in *inode) (string, error) {
	if err := fs.know(ctx, cred, in); err != nil {
		return "", err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.rec.Attr.Mode&typeMask != typeLink {
		return "", wire.Errorf(wire.Invalid, "readlink", "", "not a symbolic link")
	}
	return in.rec.Symlink, nil
}
