package fs

import (
	"context"
	"errors"
	"io"
	"syscall"
	"time"

	"quernfs/fs/data"
	"quernfs/internal/wire"
)

// opened counts a handle and makes sure that the session holds at least OPEN,
// so that meta keeps the file when it loses its last name.
func (fs *FS) opened(ctx context.Context, in *inode) error {
	in.mu.Lock()
	in.open++
	in.mu.Unlock()
	return fs.keep(ctx, in)
}

// keep is opened for a handle that has been counted; an error ends it.
func (fs *FS) keep(ctx context.Context, in *inode) error {
	in.mu.Lock()
	for in.releasing {
		wake := in.wake
		in.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			fs.closed(in)
			return wire.Errorf(wire.CodeOf(ctx.Err()), "open file", "", "meta does not answer in time")
		}
		in.mu.Lock()
	}
	in.mu.Unlock()
	err := in.ensure(ctx, wire.Mode_OPEN)
	if err != nil {
		fs.closed(in)
	}
	return err
}

// closed ends a handle.
func (fs *FS) closed(in *inode) {
	in.mu.Lock()
	in.open--
	last := in.open == 0
	in.mu.Unlock()
	if last {
		fs.letGo(in)
	}
}

// read reads from a file; fewer bytes than asked for mean the end.
func (fs *FS) read(ctx context.Context, in *inode, p []byte, off int64) (int, error) {
	return fs.readBy(ctx, in, p, off, false, (*data.File).ReadAt)
}

// readBy is read with a method of the data path. noAtime: the access time stays.
func (fs *FS) readBy(ctx context.Context, in *inode, p []byte, off int64, noAtime bool,
	readAt func(*data.File, context.Context, []byte, int64) (int, error)) (int, error) {
	o := &op{need: wire.Mode_READ, span: pages(off, int64(len(p)))}
	if err := in.begin(ctx, o); err != nil {
		return 0, err
	}
	defer in.end(o)
	n, err := readAt(in.file, ctx, p, off)
	if err == nil || errors.Is(err, io.EOF) {
		if !noAtime {
			fs.accessed(in)
		}
		return n, nil
	}
	return n, err
}

// accessed moves the access time, as relatime does. It is deferred: it goes
// with the next commit under a write lease, or is shown by this mount only.
func (fs *FS) accessed(in *inode) {
	now := fs.now()
	in.mu.Lock()
	due := in.accessDue(now)
	in.mu.Unlock()
	if !due || !fs.movesAtime() {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.accessDue(now) {
		return
	}
	set := &wire.SetAttr{Mask: wire.SetAtime, AtimeNs: now}
	in.local.set(set)
	if in.usable(wire.Mode_WRITE) && in.recall == nil && in.file != nil {
		in.file.SetAttr(set)
	}
}

// accessDue says whether a read at now moves the access time. in.mu is held.
func (in *inode) accessDue(now int64) bool {
	if in.rec == nil {
		return false
	}
	a := in.attrs()
	return relatime(&wire.Attr{AtimeNs: a.atimeNs, MtimeNs: a.mtimeNs, CtimeNs: a.ctimeNs}, now)
}

// writing is what one write asks for.
type writing struct {
	off    int64
	append bool              // O_APPEND: off is only what the kernel believes
	kill   func() *wire.Cred // who writes, if the write takes suid and sgid away; nil: it does not
	cached bool              // the bytes are in the kernel's cache at off
	back   bool              // it writes back a mapping
}

// write writes to a file, into memory: data reaches the servers by fsync,
// recall, timer, or when memory runs short.
func (fs *FS) write(ctx context.Context, in *inode, p []byte, w writing) (int, error) {
	if w.off < 0 || w.off > maxOff-int64(len(p)) {
		return 0, wire.Errorf(wire.FileTooBig, "write", "", "beyond the largest offset")
	}
	o := &op{need: wire.Mode_WRITE, write: true, back: w.back, append: w.append, off: w.off}
	if w.cached {
		o.span, o.fills = pages(w.off, int64(len(p))), inner(w.off, int64(len(p)))
	}
	if err := in.begin(ctx, o); err != nil {
		return 0, err
	}
	defer in.end(o)
	if err := fs.dropCaps(ctx, in); err != nil {
		return 0, err
	}
	off, moved := w.off, false
	if w.append {
		in.appending.Lock()
		defer in.appending.Unlock()
		off, moved = appendAt(w.off, in.file.Size())
	}
	fs.clearTail(in, off, o)
	n, err := in.file.WriteAt(ctx, p, off)
	if n > 0 {
		fs.modified(in, w.kill)
		in.mu.Lock()
		in.tells = false // the kernel asks again after a write
		in.mu.Unlock()
	}
	if w.append {
		in.mu.Lock()
		in.chain = appendChain{}
		if n == len(p) && unfinished(w, int64(n)) {
			in.chain = chainAfter(w.off+int64(n), time.Now())
		}
		in.changed()
		in.mu.Unlock()
	}
	switch {
	case !w.cached:
		fs.dropPast(in, pages(off, int64(n)))
	case moved:
		fs.dropMisplaced(in, o.span)
	}
	return n, err
}

// timeGrain is how coarse times of writes are, as on other filesystems.
const timeGrain = int64(time.Millisecond)

// modified moves the times of a file that was written, in an operation under
// the write lease. kill: who wrote, if that takes suid and sgid away.
func (fs *FS) modified(in *inode, kill func() *wire.Cred) {
	now := fs.now()
	set := &wire.SetAttr{Mask: wire.SetMtime | wire.SetCtime, MtimeNs: now, CtimeNs: now}
	in.mu.Lock()
	if in.local.mask&wire.SetMtime != 0 && now-in.local.mtime < timeGrain && now >= in.local.mtime && kill == nil {
		in.mu.Unlock()
		return // it bears this time already
	}
	killed := false
	if a := in.attrs(); kill != nil && a.mode&(bitSUID|bitSGID) != 0 {
		if m := killSuid(a.mode, inGroup(kill(), a.gid)); m != a.mode {
			set.Mask |= wire.SetMode
			set.Mode = m & permMask
			killed = true
		}
	}
	in.local.set(set)
	in.file.SetAttr(set)
	in.mu.Unlock()
	if killed {
		if k := fs.kernel(); k != nil {
			k.forgetAttrs(in.ino)
		}
	}
}

// capability is the attribute with the capabilities of a program.
const capability = "security.capability"

// dropCaps removes file capabilities before the first write under a lease.
func (fs *FS) dropCaps(ctx context.Context, in *inode) error {
	in.mu.Lock()
	skip := in.capsGone || !in.rec.HasXattr
	in.mu.Unlock()
	if skip {
		return nil
	}
	_, err := fs.meta.Do(ctx, &wire.Command{Cred: rootCred, Op: &wire.Command_SetXattr{
		SetXattr: &wire.SetXattr{Ino: in.ino, Name: capability, Remove: true},
	}})
	if err != nil && !errors.Is(err, wire.NoAttr) {
		return err
	}
	in.mu.Lock()
	in.capsGone = true
	delete(in.xattrs, capability)
	in.mu.Unlock()
	return nil
}

// flush makes everything written to in durable, and what was changed of it
// here.
func (fs *FS) flush(ctx context.Context, in *inode) error {
	in.mu.Lock()
	f := in.file
	in.mu.Unlock()
	if f == nil {
		return nil
	}
	ctx, done := context.WithTimeout(ctx, flushTimeout)
	defer done()
	return f.Flush(ctx)
}

func (in *inode) dirty() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.file != nil && in.file.Dirty()
}

// holding runs f under the write lease: f changes no content.
func (fs *FS) holding(ctx context.Context, in *inode, f func(*data.File) error) error {
	o := &op{need: wire.Mode_WRITE, write: true}
	if err := in.begin(ctx, o); err != nil {
		return err
	}
	defer in.end(o)
	return f(in.file)
}

// alter runs f under the write lease: f changes the content in meta with
// commands of its own.
func (fs *FS) alter(ctx context.Context, in *inode, s span, f func(context.Context, *data.File) error) error {
	o := &op{need: wire.Mode_WRITE, span: s, write: true}
	if err := in.begin(ctx, o); err != nil {
		return err
	}
	defer in.end(o)
	if err := fs.dropCaps(ctx, in); err != nil {
		return err
	}
	in.mu.Lock()
	mode := in.attrs().mode
	in.mu.Unlock()
	if err := f(ctx, in.file); err != nil {
		return err
	}
	in.late.Store(fs.kernel() != nil)
	in.mu.Lock()
	killed := in.attrs().mode != mode
	in.mu.Unlock()
	if k := fs.kernel(); killed && k != nil {
		k.forgetAttrs(in.ino)
	}
	return nil
}

// doAfter carries out a command that changes the content of in, within alter.
// What is deferred goes with it, and comes before it: build makes the command.
func (fs *FS) doAfter(ctx context.Context, in *inode, cred *wire.Cred, build func(before *wire.SetAttr) *wire.Command) (*wire.Inode, error) {
	in.mu.Lock()
	before := in.file.TakeDeferred()
	in.carried, in.local = in.local, deferred{}
	if before.GetMask()&wire.SetAtime == 0 && in.carried.mask&wire.SetAtime != 0 { // shown here only
		in.local.mask, in.local.atime = wire.SetAtime, in.carried.atime
		in.carried.mask &^= wire.SetAtime
	}
	in.mu.Unlock()
	rec, err := fs.doInode(ctx, in, cred, build(before))
	in.mu.Lock()
	defer in.mu.Unlock()
	carried := in.carried
	in.carried = deferred{}
	if err == nil {
		return rec, nil
	}
	if before.GetMask()&wire.SetMode != 0 && cred.GetUid() != 0 && mayHaveRun(err) {
		// Coming after the command the mode must not undo what that takes away.
		a := carried.over(attrsOf(in.rec.Attr))
		before.Mode = killSuid(a.mode, inGroup(cred, a.gid)) & permMask
		carried.mode = before.Mode
	}
	if in.held.mode == wire.Mode_WRITE {
		in.local.under(carried)
		in.file.ReturnDeferred(before)
	}
	if mayHaveRun(err) {
		// The extents known here may be of blocks that are about to be deleted.
		in.stale = true
		if k := fs.kernel(); k != nil {
			fs.spawn(func() { fs.dropPages(k, in, span{0, maxOff}) })
		}
	}
	return nil, err
}

// mayHaveRun says that a command that failed with err may have been carried out.
func mayHaveRun(err error) bool {
	switch wire.CodeOf(err) {
	case wire.Timeout, wire.Unavailable, wire.Interrupted:
		return true
	}
	return false
}

// unheard: a command about these inodes failed with err. If it may have been carried
// out, or may still be, what is known of them is not believed until that is over: meta
// recalls nothing for what the session itself has changed.
func (fs *FS) unheard(err error, list ...*inode) {
	if !mayHaveRun(err) {
		return
	}
	for _, in := range list {
		in.mu.Lock()
		in.unsettled++
		in.doubt()
		in.mu.Unlock()
		if k := fs.kernel(); k != nil {
			k.forgetAttrs(in.ino)
		}
	}
	fs.whenSettled(func() {
		for _, in := range list {
			in.mu.Lock()
			in.unsettled--
			in.doubt()
			in.changed()
			in.mu.Unlock()
		}
	})
}

const settleAgain = 500 * time.Millisecond // between attempts

// whenSettled calls f when no command that has failed can be carried out any more.
func (fs *FS) whenSettled(f func()) {
	meta := fs.meta
	fs.spawn(func() {
		defer f()
		for {
			ctx, done := fs.bound()
			err := meta.Settle(ctx)
			done()
			if err == nil {
				return
			}
			select {
			case <-time.After(settleAgain):
			case <-fs.ctx.Done():
				return
			}
		}
	})
}

// doInode carries out a command whose result shows the inode in.
func (fs *FS) doInode(ctx context.Context, in *inode, cred *wire.Cred, cmd *wire.Command) (*wire.Inode, error) {
	cmd.Cred = cred
	r, err := fs.meta.Do(ctx, cmd)
	if err != nil {
		fs.unheard(err, in)
		return nil, err
	}
	in.mu.Lock()
	in.learn(r.Inode, grantOf(r.Grants, in.ino))
	in.mu.Unlock()
	return r.Inode, nil
}

// truncate sets the size, and whatever else q sets.
func (fs *FS) truncate(ctx context.Context, in *inode, cred *wire.Cred, q *wire.SetAttr) error {
	if q.Size > uint64(maxOff) {
		return wire.Errorf(wire.FileTooBig, "truncate", "", "beyond the largest offset")
	}
	// The kernel drops the pages that go by itself: the operation has none.
	err := fs.alter(ctx, in, span{}, func(ctx context.Context, f *data.File) error {
		in.mu.Lock()
		a := in.attrs()
		in.mu.Unlock()
		if q.Size == 0 && a.size == 0 && q.Mask == wire.SetSize && q.Handle {
			// Nothing to cut off, as with O_TRUNC of a new file.
			var kill func() *wire.Cred
			if q.KillSuid {
				kill = func() *wire.Cred { return cred }
			}
			fs.modified(in, kill)
			return nil
		}
		fs.clearTail(in, int64(q.Size), nil)
		return f.Truncate(ctx, int64(q.Size), func(ctx context.Context) (*wire.Inode, error) {
			return fs.doAfter(ctx, in, cred, func(before *wire.SetAttr) *wire.Command {
				q.Before = before
				return &wire.Command{Op: &wire.Command_SetAttr{SetAttr: q}}
			})
		})
	})
	if err == nil {
		in.mu.Lock()
		in.pages.gone(span{pages(int64(q.Size), pageSize-1).hi, maxOff})
		in.mu.Unlock()
	}
	return err
}

// Modes of fallocate(2).
const (
	fallocKeepSize = 0x01
	fallocPunch    = 0x02
	fallocZero     = 0x10
)

// fallocate allocates, punches or zeroes a range.
func (fs *FS) fallocate(ctx context.Context, in *inode, cred *wire.Cred, mode uint32, off, n int64) error {
	switch {
	case mode&^(fallocKeepSize|fallocPunch|fallocZero) != 0, mode&fallocPunch != 0 && mode&fallocKeepSize == 0:
		return wire.Errorf(wire.Unsupported, "fallocate", "", "only allocating, keeping the size, punching and zeroing are known")
	case off < 0 || n <= 0:
		return wire.Errorf(wire.Invalid, "fallocate", "", "empty range")
	case off > maxOff-n:
		return wire.Errorf(wire.FileTooBig, "fallocate", "", "beyond the largest offset")
	}
	return fs.alter(ctx, in, span{}, func(ctx context.Context, f *data.File) error {
		cmd := func(ctx context.Context) (*wire.Inode, error) {
			return fs.doAfter(ctx, in, cred, func(before *wire.SetAttr) *wire.Command {
				return &wire.Command{Op: &wire.Command_Fallocate{
					Fallocate: &wire.Fallocate{Ino: in.ino, Mode: mode, Off: uint64(off), Len: uint64(n), Before: before},
				}}
			})
		}
		if mode&fallocKeepSize == 0 {
			fs.clearTail(in, off+n, nil)
		}
		if mode&(fallocPunch|fallocZero) != 0 {
			return f.Punch(ctx, off, n, cmd)
		}
		return f.Punch(ctx, off, 0, cmd)
	})
}

// clone makes n bytes of dst share the blocks of src. It returns how many bytes
// there were to share.
func (fs *FS) clone(ctx context.Context, cred *wire.Cred, src *inode, srcOff int64, dst *inode, dstOff, n int64) (int64, error) {
	if err := src.ensure(ctx, wire.Mode_READ); err != nil {
		return 0, err
	}
	src.mu.Lock()
	size := int64(src.attrs().size)
	src.mu.Unlock()
	n = min(n, size-srcOff)
	if n <= 0 {
		return 0, nil
	}
	if dstOff > maxOff-n {
		return 0, wire.Errorf(wire.FileTooBig, "copy", "", "beyond the largest offset")
	}
	if src == dst && srcOff < dstOff+n && dstOff < srcOff+n {
		return 0, wire.Errorf(wire.Invalid, "copy", "", "the ranges overlap")
	}
	if err := fs.flush(ctx, src); err != nil {
		return 0, err
	}
	once := func() error {
		return fs.alter(ctx, dst, span{}, func(ctx context.Context, f *data.File) error {
			fs.clearTail(dst, dstOff, nil)
			return f.Mutate(ctx, func(ctx context.Context) (*wire.Inode, error) {
				return fs.doAfter(ctx, dst, cred, func(before *wire.SetAttr) *wire.Command {
					return &wire.Command{Op: &wire.Command_Clone{Clone: &wire.Clone{
						Src: src.ino, SrcOff: uint64(srcOff), Dst: dst.ino, DstOff: uint64(dstOff), Len: uint64(n), Before: before,
					}}}
				})
			})
		})
	}
	err := once()
	if errors.Is(err, wire.NeedExtents) {
		for _, in := range []*inode{src, dst} {
			err := fs.holding(ctx, in, func(f *data.File) error {
				in.mu.Lock()
				a := in.attrs()
				in.mu.Unlock()
				return f.MakeExtents(ctx, a.mtimeNs, a.ctimeNs)
			})
			if err != nil {
				return 0, err
			}
		}
		err = once()
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}

// seek is SEEK_DATA, or with hole SEEK_HOLE.
func (fs *FS) seek(ctx context.Context, in *inode, off int64, hole bool) (int64, error) {
	if off < 0 {
		return 0, syscall.ENXIO
	}
	o := &op{need: wire.Mode_READ}
	if err := in.begin(ctx, o); err != nil {
		return 0, err
	}
	defer in.end(o)
	return in.file.Seek(ctx, off, hole)
}
