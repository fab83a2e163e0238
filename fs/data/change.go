package data

import (
	"context"

	"quernfs/internal/wire"
)

// Command sends a command to meta and returns the inode as it is after it. It is
// called while no commit of the file is in flight or begins, and takes what is
// deferred along (TakeDeferred).
type Command = func(context.Context) (*wire.Inode, error)

// Truncate changes the size: set sends SetAttr{size}. Nothing is flushed:
// commits of this file pause around set, and once set has succeeded dirty data
// at and beyond size is dropped and the inode adopted. If set fails nothing
// has changed. For O_TRUNC and ftruncate, to any size, smaller or larger.
func (f *File) Truncate(ctx context.Context, size int64, set Command) error {
	return f.around(ctx, set, func() {
		f.cut(size, maxOff)
		f.size = min(f.size, size)
		if f.pending != nil {
			f.pending.minSize = min(f.pending.minSize, size)
		}
	})
}

// Punch is Truncate's sibling for a command that makes [off, off+n) a hole or
// zeros: Fallocate with PUNCH_HOLE or ZERO_RANGE. With n = 0 no dirty data is
// dropped, for commands that change no content: Fallocate that allocates, and
// SetAttr that sets times.
func (f *File) Punch(ctx context.Context, off, n int64, cmd Command) error {
	if n > maxOff-off {
		n = maxOff - off
	}
	grows := false
	err := f.around(ctx, cmd, func() {
		if end := off + n; n > 0 && end >= f.size && f.dirtyLocked() {
			// The size may be that of dirty data which goes now.
			f.changing().minSize = f.size
			grows = true
		}
		f.cut(off, off+n)
	})
	if grows {
		f.changeLater()
	}
	return err
}

// Mutate flushes, pauses commits, runs cmd and adopts the inode that it
// returns: for Clone (of the destination) and whatever else changes content
// within meta. What is written meanwhile stays dirty, on top.
func (f *File) Mutate(ctx context.Context, cmd Command) error {
	ctx, cancel := context.WithTimeout(ctx, f.path.cfg.FlushTimeout)
	defer cancel()
	if err := f.Flush(ctx); err != nil {
		return err
	}
	return f.around(ctx, cmd, func() {})
}

// MakeExtents commits inline content as extents, for a Clone that answered
// NeedExtents. The file is not made inline again before Forget. Its content stays
// what it is, and so do its times, which the caller knows.
func (f *File) MakeExtents(ctx context.Context, mtimeNs, ctimeNs int64) error {
	f.mu.Lock()
	f.external = true
	if f.inlined {
		f.times = &wire.SetAttr{Mask: wire.SetMtime | wire.SetCtime, MtimeNs: mtimeNs, CtimeNs: ctimeNs}
		if c := f.pending; c != nil && c.attr != nil { // a write came meanwhile
			f.times = mergeAttr(f.times, timesOf(c.attr))
		}
		f.spill()
	}
	f.mu.Unlock()
	return f.Flush(ctx)
}

// TakeDeferred returns the deferred attributes that meta does not have yet; nil:
// none. They go with the command that calls it, which meta carries out after it
// has set them: committed later they would undo what the command does to
// attributes. It is for a Command only, which calls ReturnDeferred if it fails.
func (f *File) TakeDeferred() *wire.SetAttr {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pending == nil {
		return nil
	}
	a := f.pending.attr
	f.pending.attr = nil
	return a
}

// ReturnDeferred makes attributes deferred again, under those that were deferred
// since.
func (f *File) ReturnDeferred(a *wire.SetAttr) {
	if a == nil {
		return
	}
	f.mu.Lock()
	c := f.changing()
	c.attr = mergeAttr(a, c.attr)
	f.mu.Unlock()
	f.changeLater()
}

// around runs cmd while no commit of this file is in flight or begins, then
// applies what it did. One at a time.
func (f *File) around(ctx context.Context, cmd Command, apply func()) error {
	ctx, cancel := context.WithTimeout(ctx, f.path.cfg.FlushTimeout)
	defer cancel()
	if err := f.enter(ctx); err != nil {
		return err
	}
	defer f.leave()
	inode, err := cmd(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	apply()
	if inode != nil {
		f.adopt(inode)
		f.times = &wire.SetAttr{Mask: wire.SetMtime | wire.SetCtime, MtimeNs: inode.GetAttr().GetMtimeNs(), CtimeNs: inode.GetAttr().GetCtimeNs()}
		if c := f.pending; c != nil && c.attr != nil {
			f.times = mergeAttr(f.times, timesOf(c.attr))
		}
	}
	if c := f.pending; c != nil && c.attr == nil && !c.inline && c.minSize == 0 && c.charged == 0 {
		f.pending = nil // the command took all of it
		c.close()
	}
	return nil
}

// enter takes the file's turn and closes its gate to the committer.
func (f *File) enter(ctx context.Context) error {
	p := f.path
	p.mu.Lock()
	if f.turn == nil {
		f.turn = make(chan struct{}, 1)
	}
	turn := f.turn
	p.mu.Unlock()
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return f.gaveUp(ctx)
	}
	p.mu.Lock()
	f.gates++
	for f.committing {
		end := p.commitEnd
		p.mu.Unlock()
		select {
		case <-end:
		case <-ctx.Done():
			f.leave()
			return f.gaveUp(ctx)
		}
		p.mu.Lock()
	}
	p.mu.Unlock()
	return nil
}

func (f *File) leave() {
	p := f.path
	p.mu.Lock()
	f.gates--
	p.readyLocked(f)
	p.mu.Unlock()
	<-f.turn
}

func (f *File) gaveUp(ctx context.Context) error {
	return &wire.Error{Code: wire.CodeOf(ctx.Err()), Op: "change", Object: f.object(), Err: ctx.Err()}
}
