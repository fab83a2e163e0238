package fs

import (
	"context"

	"quernfs/fs/data"
	"quernfs/internal/wire"
)

// setattr changes attributes: here, when the write lease permits it, else by a
// command.
func (fs *FS) setattr(ctx context.Context, in *inode, cred *wire.Cred, q *wire.SetAttr) error {
	q.Ino = in.ino
	if q.Mask&wire.SetSize != 0 {
		if err := fs.know(ctx, cred, in); err != nil {
			return err
		}
		in.mu.Lock()
		reg, dir := in.isReg(), in.isDir()
		in.mu.Unlock()
		switch {
		case dir:
			return wire.Errorf(wire.IsDir, "truncate", "", "is a directory")
		case !reg:
			return wire.Errorf(wire.Invalid, "truncate", "", "not a regular file")
		}
		if q.Mask != wire.SetSize || !q.Handle && cred.GetUid() != 0 {
			if err := fs.settle(ctx, in); err != nil {
				return err
			}
		}
		return fs.truncate(ctx, in, cred, q)
	}
	if fs.setLocally(in, cred, q) {
		return nil
	}
	if err := fs.settle(ctx, in); err != nil { // what was changed before must not come after
		return err
	}
	return fs.setInMeta(ctx, in, cred, q)
}

// setInMeta makes the change by a command. Where this mount may have data that
// meta lacks, the commit of that data repeats the times of the file: it waits, and
// then repeats those that the command has set. An access time that the command
// overrides goes with it, and so comes before it.
func (fs *FS) setInMeta(ctx context.Context, in *inode, cred *wire.Cred, q *wire.SetAttr) error {
	in.mu.Lock()
	ahead, read := in.writes(), in.local.atime
	in.mu.Unlock()
	var err error
	if ahead {
		err = fs.setAfter(ctx, in, cred, q)
	} else {
		_, err = fs.doInode(ctx, in, cred, &wire.Command{Op: &wire.Command_SetAttr{SetAttr: q}})
	}
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	// The access time of a read that nobody but this mount knew is over.
	if q.Mask&(wire.SetAtime|wire.AtimeNow|wire.SetMtime|wire.MtimeNow) != 0 && (!in.writes() || in.local.atime == read) {
		in.local.mask &^= wire.SetAtime
	}
	return nil
}

// setAfter is a command that sets attributes, under the write lease. It changes no
// content, so that nothing dirty is dropped.
func (fs *FS) setAfter(ctx context.Context, in *inode, cred *wire.Cred, q *wire.SetAttr) error {
	return fs.holding(ctx, in, func(f *data.File) error {
		return f.Punch(ctx, 0, 0, func(ctx context.Context) (*wire.Inode, error) {
			return fs.doAfter(ctx, in, cred, func(before *wire.SetAttr) *wire.Command {
				q.Before = before
				return &wire.Command{Op: &wire.Command_SetAttr{SetAttr: q}}
			})
		})
	})
}

// settle makes meta know the attributes that were changed here: before it
// judges by them, or changes them itself.
func (fs *FS) settle(ctx context.Context, in *inode) error {
	in.mu.Lock()
	pending := (in.local.mask|in.carried.mask)&^wire.SetAtime != 0 && in.file != nil && in.held.mode == wire.Mode_WRITE
	in.mu.Unlock()
	if !pending {
		return nil
	}
	return fs.flush(ctx, in)
}

// settleEntry is settle for what has a name in a directory, if meta is to judge
// by its attributes whether cred may do what it asks: root may.
func (fs *FS) settleEntry(ctx context.Context, cred *wire.Cred, dir uint64, name string) error {
	if cred.GetUid() == 0 {
		return nil
	}
	f, ok := fs.inode(dir).remembered(name)
	if !ok {
		var err error
		if f, err = fs.lookup(ctx, rootCred, dir, name); err != nil {
			return err
		}
	}
	if f.in == nil {
		return nil
	}
	return fs.settle(ctx, f.in)
}

// setLocally makes the change under the write lease, if that is held and the
// change is plainly allowed.
func (fs *FS) setLocally(in *inode, cred *wire.Cred, q *wire.SetAttr) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.usable(wire.Mode_WRITE) || in.recall != nil || in.stale || !in.isReg() || in.gone || in.rec.HasAcl && q.Mask&wire.SetMode != 0 {
		return false
	}
	set := planLocal(in.attrs(), cred, q, fs.now())
	if set == nil {
		return false
	}
	in.contents()
	in.local.set(set)
	in.file.SetAttr(set)
	return true
}
