package fs

import (
	"context"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The kernel counts links itself: when a name goes, it takes one from what it was
// last told. And it refuses to link an open file that has none left by this count,
// without asking. What it was told may be out of date: another mount has given the
// file a further name, or the name that goes was another file's by then. So before
// a removal is answered that would make the count nothing too early, the kernel is
// made to ask for it.

// removal is an operation of the kernel that may take a name away.
type removal struct {
	in      *inode // that the kernel was given for the name; nil: not known
	counted bool   // in.dropping has been raised
}

type removalKey struct{}

// removing is called before such an operation, and before it is said to be under way.
// The operation is carried out within its context.
func (r *raw) removing(dir uint64, name string) *removal {
	rm := &removal{}
	if d := r.fs.peek(dir); d != nil {
		rm.in = d.given(name)
	}
	return rm
}

func (rm *removal) within(ctx context.Context) context.Context {
	return context.WithValue(ctx, removalKey{}, rm)
}

// dropsLink is called when in is known to have lost a name: from now on the kernel is
// told one link more, until it has taken it from its count. in.mu is held.
func (in *inode) dropsLink(ctx context.Context) {
	if rm, ok := ctx.Value(removalKey{}).(*removal); ok && rm.in == in && !rm.counted {
		rm.counted = true
		in.dropping++
	}
}

// removed is called with the outcome, before the reply to the request unique: with
// that the kernel will take a link from its count.
func (r *raw) removed(ctx context.Context, unique uint64, rm *removal, err error) {
	in := rm.in
	if in == nil || err != nil && !rm.counted {
		return
	}
	in.mu.Lock()
	enough := in.links > 1
	none := in.rec == nil || in.isDir() || in.rec.Attr.Nlink == 0 || in.lookups == 0
	in.mu.Unlock()
	if !rm.counted && !none && r.fs.know(ctx, rootCred, in) == nil { // another file had the name by then
		in.mu.Lock()
		none = in.attrs().nlink == 0
		in.dropsLink(ctx)
		in.mu.Unlock()
	}
	if !rm.counted {
		return
	}
	if !none && !enough {
		r.conn.refresh(in.ino)
	}
	r.conn.sent.then(unique, func() {
		in.mu.Lock()
		in.dropping--
		in.links = 0
		in.mu.Unlock()
		if !none {
			r.conn.forgetAttrs(in.ino)
		}
	})
}

const fileidIno64Gen = 0x81 // of file handles; include/linux/exportfs.h

// refresh makes the kernel ask for the attributes of an inode, and returns when it
// has them.
func (c *conn) refresh(ino uint64) {
	err := c.withHandle(ino, func(fd int) error {
		var x unix.Statx_t
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_NLINK, &x)
	})
	if err != nil {
		c.log.Debug("the kernel's count of links could not be corrected", "ino", ino, "err", err)
	}
}

// withHandle calls f with an inode that the kernel has, which need not have a name. It
// needs CAP_DAC_READ_SEARCH.
func (c *conn) withHandle(ino uint64, f func(fd int) error) error {
	root, err := unix.Open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	var b [12]byte
	binary.NativeEndian.PutUint32(b[0:], uint32(ino>>32))
	binary.NativeEndian.PutUint32(b[4:], uint32(ino)) // the generation is always 0
	fd, err := unix.OpenByHandleAt(root, unix.NewFileHandle(fileidIno64Gen, b[:]), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}
