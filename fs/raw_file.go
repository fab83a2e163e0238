package fs

import (
	"context"
	"errors"
	"io"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"quernfs/fs/data"
	"quernfs/internal/wire"
)

// openFlags are for every file: recalls take the pages away, so an open never
// has to.
const openFlags = fuse.FOPEN_KEEP_CACHE

const accessMode = syscall.O_ACCMODE

// direct: the handle does without the kernel's cache. An append through the cache
// comes in two requests where it crosses into a page that the kernel has not
// read, and other mounts could append in between; without it, a record comes in
// one request. Reads, and mappings since Linux 6.6, work all the same.
func direct(flags uint32) bool {
	return flags&syscall.O_APPEND != 0 && flags&accessMode != syscall.O_RDONLY
}

// opened makes the handle of an open file.
func (r *raw) opened(in *inode, flags uint32) (fh uint64, kernel uint32) {
	h := &handle{in: in, ino: in.ino, flags: flags, direct: direct(flags)}
	kernel = openFlags
	if h.direct {
		kernel |= fuse.FOPEN_DIRECT_IO
	}
	return r.add(h), kernel
}

func (r *raw) Create(cancel <-chan struct{}, q *fuse.CreateIn, name string, out *fuse.CreateOut) (st fuse.Status) {
	if isVirtual(q.NodeId) {
		return fuse.EPERM
	}
	defer r.dirOp(q.NodeId)()
	ctx, done := r.bound(&q.InHeader)
	defer done(&st)
	c := cred(&q.InHeader)
	for {
		f, created, err := r.fs.createOpen(ctx, c, &wire.Create{
			Parent: q.NodeId, Name: name, Mode: typeReg | q.Mode&permMask, Umask: q.Umask, Exclusive: q.Flags&syscall.O_EXCL != 0,
		})
		if err != nil {
			return r.status(err)
		}
		err = r.fs.keep(ctx, f.in)
		if err == nil && !created {
			// Another mount was faster. The kernel believes that the file is new and
			// checks nothing.
			if err = r.found(ctx, c, f.in, q); err != nil {
				r.fs.closed(f.in)
			}
		}
		switch {
		case err == nil:
			return r.created(q, &f, name, out)
		case created || !errors.Is(err, wire.NotFound) || ctx.Err() != nil:
			return r.status(err)
		}
		// It was removed before it could be opened: then it can be made.
	}
}

// found makes the checks that open(2) makes of a file that exists.
func (r *raw) found(ctx context.Context, c *wire.Cred, in *inode, q *fuse.CreateIn) error {
	if !in.regular() {
		return syscall.ESTALE // the kernel looks again
	}
	mask := uint32(4)
	switch q.Flags & accessMode {
	case syscall.O_WRONLY:
		mask = 2
	case syscall.O_RDWR:
		mask = 6
	}
	if err := r.fs.may(ctx, in, c, mask); err != nil {
		return err
	}
	if q.Flags&syscall.O_TRUNC != 0 {
		return r.fs.truncate(ctx, in, c, &wire.SetAttr{Ino: in.ino, Mask: wire.SetSize, Handle: true, KillSuid: c.Uid != 0})
	}
	return nil
}

// created answers with a file whose handle has been counted.
func (r *raw) created(q *fuse.CreateIn, f *found, name string, out *fuse.CreateOut) fuse.Status {
	if checked(q.NodeId) && name != "" {
		r.fs.queue.note(f.in.ino, q.NodeId, name)
	}
	r.made(q.Unique, f, place{q.NodeId, name}, &out.EntryOut)
	out.Fh, out.OpenFlags = r.opened(f.in, q.Flags)
	return fuse.OK
}

func (r *raw) Tmpfile(cancel <-chan struct{}, q *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if isVirtual(q.NodeId) {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	defer r.dirOp(q.NodeId)()
	ctx, done := r.fs.bound()
	defer done()
	f, _, err := r.fs.createOpen(ctx, cred(&q.InHeader), &wire.Create{
		Parent: q.NodeId, Tmpfile: true, Mode: typeReg | q.Mode&permMask, Umask: q.Umask, Exclusive: true,
	})
	if err == nil {
		err = r.fs.keep(ctx, f.in)
	}
	if err != nil {
		return r.status(err)
	}
	return r.created(q, &f, "", out)
}

func (r *raw) Open(cancel <-chan struct{}, q *fuse.OpenIn, out *fuse.OpenOut) (st fuse.Status) {
	ctx, done := r.bound(&q.InHeader)
	defer done(&st)
	if isVirtual(q.NodeId) {
		return r.openVirtual(ctx, q, out)
	}
	in := r.fs.inode(q.NodeId)
	if err := r.fs.opened(ctx, in); err != nil {
		return r.gone(err)
	}
	if q.Flags&syscall.O_TRUNC != 0 && q.Flags&accessMode != syscall.O_RDONLY {
		set := &wire.SetAttr{Ino: in.ino, Mask: wire.SetSize, Handle: true, KillSuid: q.Mode&fuse.OPEN_KILL_SUIDGID != 0}
		if err := r.fs.truncate(ctx, in, cred(&q.InHeader), set); err != nil {
			r.fs.closed(in)
			return r.gone(err)
		}
	}
	out.Fh, out.OpenFlags = r.opened(in, q.Flags)
	return fuse.OK
}

func (r *raw) openVirtual(ctx context.Context, q *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	o := r.fs.over()
	if o == nil {
		return fuse.ENOENT
	}
	f, err := o.Open(ctx, cred(&q.InHeader), q.NodeId, q.Flags&accessMode != syscall.O_RDONLY)
	if err != nil {
		return r.status(err)
	}
	out.Fh = r.add(&handle{ino: q.NodeId, flags: q.Flags, file: f})
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

// inPlace is the result of a read whose bytes lie where the reply wants them.
type inPlace struct{ b []byte }

func (p inPlace) Bytes([]byte) ([]byte, fuse.Status) { return p.b, fuse.OK }
func (p inPlace) Size() int                          { return len(p.b) }
func (p inPlace) Done()                              {}
func (p inPlace) Readv(dst [][]byte) (int, fuse.Status) {
	n := 0
	for _, d := range dst {
		if n == 0 && len(d) > 0 && len(p.b) > 0 && &d[0] == &p.b[0] && len(d) >= len(p.b) {
			return len(p.b), fuse.OK
		}
		n += copy(d, p.b[n:])
	}
	return n, fuse.OK
}

func (r *raw) Read(cancel <-chan struct{}, q *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h := r.handle(q.Fh)
	if h == nil {
		return nil, fuse.EBADF
	}
	buf = buf[:min(len(buf), int(q.Size))]
	if h.file != nil {
		ctx, done := r.untilCancel(cancel)
		defer done()
		n, err := h.file.ReadAt(ctx, buf, int64(q.Offset))
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, r.status(err)
		}
		return inPlace{buf[:n]}, fuse.OK
	}
	ctx, done := r.fs.bound()
	defer done()
	n, err := r.fs.readBy(ctx, h.in, buf, int64(q.Offset), q.Flags&syscall.O_NOATIME != 0, (*data.File).ReadAt)
	if err != nil {
		return nil, r.gone(err)
	}
	return inPlace{buf[:n]}, fuse.OK
}

func (r *raw) Write(cancel <-chan struct{}, q *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h := r.handle(q.Fh)
	if h == nil {
		return 0, fuse.EBADF
	}
	ctx, done := r.fs.bound()
	defer done()
	if h.file != nil {
		// Not until cancel: who is told EINTR writes again, and then acts twice.
		n, err := h.file.Write(ctx, data)
		return uint32(n), r.status(err)
	}
	cached := q.WriteFlags&fuse.WRITE_CACHE != 0
	if !cached { // what writes back has no lock
		h.in.locked()
		defer h.in.unlocked()
	}
	var kill func() *wire.Cred
	if q.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		kill = func() *wire.Cred { return cred(&q.InHeader) }
	}
	n, err := r.fs.write(ctx, h.in, data, writing{
		off: int64(q.Offset), cached: cached || !h.direct && q.Flags&syscall.O_DIRECT == 0, back: cached,
		append: q.Flags&syscall.O_APPEND != 0 && !cached, kill: kill,
	})
	if n > 0 {
		h.mu.Lock()
		h.wrote = true
		h.mu.Unlock()
		return uint32(n), fuse.OK
	}
	return 0, r.gone(err)
}

func (r *raw) Writev(<-chan struct{}, *fuse.WriteIn, [][]byte) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS // requests come in one piece
}

// Flush is called for every close of a descriptor. Data stays here under the
// write lease; the POSIX locks of the process go.
func (r *raw) Flush(cancel <-chan struct{}, q *fuse.FlushIn) fuse.Status {
	h := r.handle(q.Fh)
	if h == nil {
		return fuse.EBADF
	}
	if h.in == nil {
		return fuse.OK
	}
	h.in.mu.Lock()
	locked := h.in.locks.holds(q.LockOwner, false)
	late := h.in.file != nil && h.in.held.mode != wire.Mode_WRITE && h.in.file.Dirty()
	h.in.mu.Unlock()
	h.mu.Lock()
	wrote := h.wrote
	h.wrote = false
	h.mu.Unlock()
	queued := false
	var rules *landing
	ctx, done := r.fs.bound()
	defer done()
	var err error
	if wrote {
		if _, queued = r.fs.queue.of(h.in.ino); !queued {
			rules, err = r.fs.landing(ctx, cred(&q.InHeader), h.in, false)
		}
	}
	if wrote && !late {
		err = errors.Join(err, r.fs.closing(ctx, h.in))
	}
	if !locked && !late && !queued && rules == nil {
		return r.gone(err)
	}
	if late {
		err = errors.Join(err, r.fs.flush(ctx, h.in))
	}
	if locked {
		r.forgetOwner(h.in, q.LockOwner)
		err = errors.Join(err, r.fs.unlockAll(ctx, h.in, q.LockOwner, false))
	}
	if queued {
		err = errors.Join(err, r.fs.enqueueWritten(ctx, cred(&q.InHeader), h.in))
	}
	if rules != nil {
		err = errors.Join(err, r.fs.landed(ctx, cred(&q.InHeader), h.in, rules))
	}
	return r.gone(err)
}

func (r *raw) Release(cancel <-chan struct{}, q *fuse.ReleaseIn) {
	h := r.remove(q.Fh)
	if h == nil {
		return
	}
	if h.in != nil {
		r.unlockHandle(h, q)
	}
	r.drop(h)
}

func (r *raw) Fsync(cancel <-chan struct{}, q *fuse.FsyncIn) fuse.Status {
	h := r.handle(q.Fh)
	if h == nil {
		return fuse.EBADF
	}
	if h.in == nil {
		return fuse.OK
	}
	h.in.locked()
	defer h.in.unlocked()
	ctx, done := r.fs.bound()
	defer done()
	return r.gone(r.fs.flush(ctx, h.in))
}

func (r *raw) Fallocate(cancel <-chan struct{}, q *fuse.FallocateIn) fuse.Status {
	h := r.handle(q.Fh)
	if h == nil || h.in == nil {
		return fuse.EBADF
	}
	h.in.locked()
	defer h.in.unlocked()
	ctx, done := r.fs.bound()
	defer done()
	return r.gone(r.fs.fallocate(ctx, h.in, cred(&q.InHeader), q.Mode, int64(q.Offset), int64(q.Length)))
}

func (r *raw) Lseek(cancel <-chan struct{}, q *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	const seekData, seekHole = 3, 4
	h := r.handle(q.Fh)
	if h == nil || h.in == nil || q.Whence != seekData && q.Whence != seekHole {
		return fuse.EINVAL
	}
	h.in.locked()
	defer h.in.unlocked()
	ctx, done := r.fs.bound()
	defer done()
	off, err := r.fs.seek(ctx, h.in, int64(q.Offset), q.Whence == seekHole)
	if err != nil {
		return r.gone(err)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

func (r *raw) CopyFileRange(cancel <-chan struct{}, q *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	src, dst := r.handle(q.FhIn), r.handle(q.FhOut)
	if src == nil || dst == nil {
		return 0, fuse.EBADF
	}
	if src.in == nil || dst.in == nil || q.Flags != 0 {
		return 0, fuse.Status(syscall.EOPNOTSUPP) // the kernel copies through
	}
	if dst.flags&syscall.O_APPEND != 0 {
		return 0, fuse.EBADF
	}
	const most = 1 << 30 // the reply has 32 bits
	dst.in.locked()
	defer dst.in.unlocked()
	ctx, done := r.fs.bound()
	defer done()
	n, err := r.fs.clone(ctx, cred(&q.InHeader), src.in, int64(q.OffIn), dst.in, int64(q.OffOut), int64(min(q.Len, most)))
	if err != nil {
		return 0, r.gone(err)
	}
	if n > 0 {
		dst.mu.Lock()
		dst.wrote = true
		dst.mu.Unlock()
	}
	return uint32(n), fuse.OK
}

// Ioctl knows no command. FICLONE never gets here: the kernel's FUSE has no
// remap_file_range.
func (r *raw) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(syscall.ENOTTY)
}
