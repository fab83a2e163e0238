package fs

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"quernfs/internal/wire"
)

// raw answers the kernel's requests out of an FS: it translates, and knows
// what the kernel knows. Node ids are inode numbers, the root's is 1 in both;
// numbers are never reused, so the generation is always 0.
type raw struct {
	fs          *FS
	conn        *conn
	listCompute bool // see MountOptions

	calls calls

	mu      sync.RWMutex
	handles map[uint64]*handle
	last    uint64
}

var _ fuse.RawFileSystem = (*raw)(nil)

// handle is one open file description or directory stream.
type handle struct {
	in    *inode // nil: the overlay's
	ino   uint64
	flags uint32

	direct bool // the kernel keeps no pages of what goes through it
	file   OverlayFile

	mu     sync.Mutex
	stream *dirStream       // directories
	extra  []*wire.DirEntry // directories with synthetic entries: the whole listing
	owners map[uint64]bool  // lock owners that set POSIX or OFD locks through this handle
	wrote  bool             // since the queue was last told
}

func newRaw(fs *FS, listCompute bool) *raw {
	return &raw{fs: fs, listCompute: listCompute, handles: map[uint64]*handle{}}
}

func (r *raw) String() string    { return "quern" }
func (r *raw) SetDebug(bool)     {}
func (r *raw) Init(*fuse.Server) {}
func (r *raw) OnUnmount()        {}

// ended: the kernel has let go of everything at once.
func (r *raw) ended() {
	r.mu.Lock()
	list := r.handles
	r.handles = map[uint64]*handle{}
	r.mu.Unlock()
	for _, h := range list {
		r.drop(h)
	}
	for _, in := range r.fs.all() {
		in.mu.Lock()
		known := in.lookups > 0
		in.lookups = 0
		in.mu.Unlock()
		if known {
			r.fs.letGo(in)
		}
	}
}

func (r *raw) add(h *handle) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	r.handles[r.last] = h
	return r.last
}

func (r *raw) handle(fh uint64) *handle {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.handles[fh]
}

func (r *raw) remove(fh uint64) *handle {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.handles[fh]
	delete(r.handles, fh)
	return h
}

// drop ends a handle.
func (r *raw) drop(h *handle) {
	if h.file != nil {
		if err := h.file.Close(); err != nil {
			r.fs.log.Debug("close of a synthetic file", "err", err)
		}
	}
	if h.in != nil {
		r.fs.closed(h.in)
	}
}

const staleStatus = fuse.Status(syscall.ESTALE)

// status turns an error into what the kernel is told. What becomes EIO says
// nothing to the user, so the log has the cause.
func (r *raw) status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	no := wire.ErrnoOf(err)
	if no == syscall.EIO {
		r.fs.log.Warn("a request failed", "err", err)
	}
	return fuse.Status(no)
}

// gone is status for requests about an inode: one that is not there any more is
// stale, for the kernel had its number from us.
func (r *raw) gone(err error) fuse.Status {
	if errors.Is(err, wire.NotFound) {
		return fuse.Status(syscall.ESTALE)
	}
	return r.status(err)
}

// cred is who makes a request. The supplementary groups of anyone but root are
// read from /proc: they may change with every call.
func cred(h *fuse.InHeader) *wire.Cred {
	c := &wire.Cred{Uid: h.Uid, Gid: h.Gid}
	if h.Uid != 0 && h.Pid != 0 {
		c.Groups = groupsOf(h.Pid)
	}
	return c
}

func groupsOf(pid uint32) []uint32 {
	b, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil {
		return nil
	}
	return parseGroups(string(b))
}

// parseGroups finds the supplementary groups in the text of /proc/PID/status.
func parseGroups(s string) []uint32 {
	_, s, ok := strings.Cut(s, "\nGroups:")
	if !ok {
		return nil
	}
	s, _, _ = strings.Cut(s, "\n")
	var list []uint32
	for _, f := range strings.Fields(s) {
		if n, err := strconv.ParseUint(f, 10, 32); err == nil {
			list = append(list, uint32(n))
		}
	}
	return list
}

// untilCancel is a context for what may wait long: it ends when the kernel
// interrupts the request.
func (r *raw) untilCancel(cancel <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, done := context.WithCancel(r.fs.ctx)
	stop := make(chan struct{})
	go func() {
		select {
		case <-cancel:
			done()
		case <-stop:
		}
	}()
	return ctx, func() { close(stop); done() }
}

func putAttr(out *fuse.Attr, a attrs) {
	*out = fuse.Attr{
		Ino: a.ino, Size: a.size, Blocks: (a.allocated + 511) / 512, Mode: a.mode, Nlink: a.nlink,
		Owner: fuse.Owner{Uid: a.uid, Gid: a.gid}, Rdev: a.rdev, Blksize: 1 << 20,
	}
	out.Atime, out.Atimensec = split(a.atimeNs)
	out.Mtime, out.Mtimensec = split(a.mtimeNs)
	out.Ctime, out.Ctimensec = split(a.ctimeNs)
}

// split makes seconds and nanoseconds, the latter never negative.
func split(ns int64) (uint64, uint32) {
	sec, rest := ns/1e9, ns%1e9
	if rest < 0 {
		sec--
		rest += 1e9
	}
	return uint64(sec), uint32(rest)
}

// The first and the last second that a time can have: nanoseconds since 1970 are
// kept in 64 bits. It is from 1677 to 2262.
const (
	minTime = -9223372036
	maxTime = 9223372036
)

// join makes nanoseconds of seconds, which may be negative, and nanoseconds. A time
// beyond what can be kept becomes the first or the last second, as on Linux's own
// filesystems.
func join(sec uint64, nsec uint32) int64 {
	switch s := int64(sec); {
	case s <= minTime:
		return minTime * 1e9
	case s >= maxTime:
		return maxTime * 1e9
	default:
		return s*1e9 + int64(nsec)
	}
}

// shown returns the attributes of in and how long the kernel may keep them.
// If it may, that is noted until the reply to the request is written.
func (r *raw) shown(unique uint64, in *inode) (attrs, time.Duration) {
	keep, ok := in.promise()
	if ok {
		r.conn.sent.promise(unique, in)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	a, exact := in.weighed()
	a.nlink += in.dropping
	if !exact {
		return a, 0 // the kernel asks again, and then it is weighed
	}
	if ok {
		in.links = a.nlink
	}
	in.tells, in.told = keep > 0, a.allocated
	return a, keep
}

// entry fills in a reply that gives the kernel a name for an inode: it counts
// as one look-up, to be forgotten later.
func (r *raw) entry(unique uint64, f *found, at place, out *fuse.EntryOut) {
	f.in.mu.Lock()
	f.in.find()
	f.in.mu.Unlock()
	if at.name != "" {
		f.in.tell(at)
	}
	r.fill(unique, f, out)
}

// made is entry for a reply to an operation that makes the name. The kernel takes
// the attributes in these, also where a notice has overtaken them: if it knows
// the inode by another name already, it may not keep them.
func (r *raw) made(unique uint64, f *found, at place, out *fuse.EntryOut) {
	f.in.mu.Lock()
	known := f.in.lookups > 0
	f.in.mu.Unlock()
	r.entry(unique, f, at, out)
	if known {
		out.SetAttrTimeout(0)
	}
}

// fill is entry for a look-up that has been counted.
func (r *raw) fill(unique uint64, f *found, out *fuse.EntryOut) {
	in := f.in
	a, keep := r.shown(unique, in)
	out.NodeId = in.ino
	putAttr(&out.Attr, a)
	out.SetAttrTimeout(keep)
	out.SetEntryTimeout(ttl(f.believed()))
}

func (r *raw) virtualEntry(a *wire.Attr, out *fuse.EntryOut) {
	out.NodeId = a.Ino
	putAttr(&out.Attr, attrsOf(a))
}

// Forget: the kernel has dropped n of the names it was given for an inode.
func (r *raw) Forget(nodeid, n uint64) {
	if isVirtual(nodeid) {
		return
	}
	in := r.fs.peek(nodeid)
	if in == nil {
		return
	}
	in.mu.Lock()
	in.lookups -= min(n, in.lookups)
	last := in.lookups == 0
	if last {
		in.pages.gone(span{0, maxOff})
	}
	in.mu.Unlock()
	if last {
		r.fs.letGo(in)
	}
}

// StatFs says how much room there is.
func (r *raw) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	ctx, done := r.fs.bound()
	defer done()
	a, err := r.fs.space(ctx)
	if err != nil {
		return r.status(err)
	}
	const unit = 4096
	*out = fuse.StatfsOut{
		Blocks: a.Total / unit, Bfree: a.Free / unit, Bavail: a.Free / unit, Bsize: unit, Frsize: unit, NameLen: wire.MaxName,
		Files: a.Inodes + a.Free/unit, Ffree: a.Free / unit,
	}
	return fuse.OK
}
