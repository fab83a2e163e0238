package fs

import (
	"encoding/binary"
	"errors"
	"log"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	maxWrite   = 1 << 20
	headerSize = int(unsafe.Sizeof(fuse.OutHeader{}))
	smallSize  = 8 << 10 // requests and replies without data fit
	maxReaders = 4       // goroutines that wait for a request at once
)

// Codes of notifications that go-fuse does not know how to send.
const (
	notifyInvalInode = 2
	notifyInvalEntry = 3
	notifyStore      = 4
	notifyIncEpoch   = 8 // since Linux 6.16
)

// conn is the connection to the kernel: it reads requests from the device,
// has go-fuse decode them and call the RawFileSystem, and writes the replies.
// go-fuse's own server does the same, but does not say when a reply has been
// written, which recalls must know, and has no epochs.
type conn struct {
	file  *os.File
	fd    int
	dir   string // where it is mounted
	proto *fuse.ProtocolServer
	log   *slog.Logger

	bufs  [3]sync.Pool // request and reply buffers, by size class
	idle  atomic.Int32 // readers that wait for a request
	wg    sync.WaitGroup
	ready chan struct{} // closed when the first request (INIT) has been answered
	once  sync.Once

	epochs atomic.Bool // the kernel knows notifyIncEpoch

	sent sentHooks
}

var classes = [3]int{smallSize, 128<<10 + smallSize, maxWrite + smallSize}

// sentHooks are functions to be called once the reply to a request has been
// written.
type sentHooks struct {
	shards [64]struct {
		mu sync.Mutex
		m  map[uint64][]func()
	}
}

// promise notes that the reply to the request unique lets the kernel keep
// attributes of in.
func (h *sentHooks) promise(unique uint64, in *inode) { h.then(unique, in.promised) }

// then has f called once the reply to the request unique has been written.
func (h *sentHooks) then(unique uint64, f func()) {
	s := &h.shards[unique>>1%64]
	s.mu.Lock()
	if s.m == nil {
		s.m = map[uint64][]func(){}
	}
	s.m[unique] = append(s.m[unique], f)
	s.mu.Unlock()
}

func (h *sentHooks) done(unique uint64) {
	s := &h.shards[unique>>1%64]
	s.mu.Lock()
	list := s.m[unique]
	if list != nil {
		delete(s.m, unique)
	}
	s.mu.Unlock()
	for _, f := range list {
		f()
	}
}

func newConn(f *os.File, raw fuse.RawFileSystem, logger *slog.Logger) *conn {
	c := &conn{file: f, fd: int(f.Fd()), log: logger, ready: make(chan struct{})}
	for i, n := range classes {
		c.bufs[i].New = func() any { b := make([]byte, n); return &b }
	}
	c.proto = fuse.NewProtocolServer(raw, &fuse.MountOptions{
		Name: "quern", FsName: "quern", AllowOther: true,
		MaxWrite: maxWrite, MaxReadAhead: maxWrite, MaxBackground: 256,
		EnableLocks: true, EnableAcl: true, EnableSymlinkCaching: true, ExplicitDataCacheControl: true,
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_EXPORT_SUPPORT | fuse.CAP_DONT_MASK | fuse.CAP_READDIRPLUS_AUTO |
			fuse.CAP_ASYNC_DIO | fuse.CAP_PARALLEL_DIROPS | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_DIRECT_IO_ALLOW_MMAP |
			fuse.CAP_SETXATTR_EXT | fuse.CAP_IOCTL_DIR,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH | fuse.CAP_ALLOW_IDMAP | fuse.CAP_AUTO_INVAL_DATA | fuse.CAP_WRITEBACK_CACHE,
		Logger:               log.New(slogWriter{logger}, "", 0),
		PanicHandler: func(v any) fuse.Status {
			logger.Error("a request made the filesystem panic", "panic", v, "stack", stack())
			return fuse.EIO
		},
	})
	return c
}

// serve starts answering, and returns at once; wait waits for the end, which
// comes when the filesystem is unmounted.
func (c *conn) serve() {
	c.wg.Add(1)
	go c.loop()
}

func (c *conn) wait() { c.wg.Wait() }

func (c *conn) get(n int) *[]byte {
	for i, size := range classes {
		if n <= size {
			return c.bufs[i].Get().(*[]byte)
		}
	}
	b := make([]byte, n)
	return &b
}

func (c *conn) put(b *[]byte) {
	for i, size := range classes {
		if len(*b) == size {
			c.bufs[i].Put(b)
		}
	}
}

// loop reads and answers requests. While one is being answered, another
// goroutine reads.
func (c *conn) loop() {
	defer c.wg.Done()
	for {
		if c.idle.Add(1) > maxReaders {
			c.idle.Add(-1)
			return
		}
		buf := c.get(maxWrite + smallSize)
		n, err := unix.Read(c.fd, *buf)
		left := c.idle.Add(-1)
		if err != nil {
			c.put(buf)
			switch {
			case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAGAIN):
				continue
			case !errors.Is(err, unix.ENODEV):
				c.log.Error("the connection to the kernel failed", "err", err)
			}
			return
		}
		if n < int(unsafe.Sizeof(fuse.InHeader{})) {
			c.put(buf)
			c.log.Error("the kernel sent a short request", "bytes", n)
			continue
		}
		if left == 0 {
			c.wg.Add(1)
			go c.loop()
		}
		if n <= smallSize {
			small := c.get(n)
			copy(*small, (*buf)[:n])
			c.put(buf)
			buf = small
		}
		c.answer((*buf)[:n])
		c.put(buf)
	}
}

// Operations whose replies carry data, and the one that starts it all.
const (
	opRead        = 15
	opGetXattr    = 22
	opListXattr   = 23
	opReadDir     = 28
	opIoctl       = 39
	opReadDirPlus = 44
)

// replySize bounds the reply to a request.
func replySize(req []byte) int {
	h := (*fuse.InHeader)(unsafe.Pointer(&req[0]))
	switch h.Opcode {
	case opRead, opReadDir, opReadDirPlus:
		if len(req) >= int(unsafe.Sizeof(fuse.ReadIn{})) {
			return int((*fuse.ReadIn)(unsafe.Pointer(&req[0])).Size) + smallSize
		}
	case opGetXattr, opListXattr:
		if len(req) >= int(unsafe.Sizeof(fuse.GetXAttrIn{})) {
			return int((*fuse.GetXAttrIn)(unsafe.Pointer(&req[0])).Size) + smallSize
		}
	case opIoctl:
		if len(req) >= int(unsafe.Sizeof(fuse.IoctlIn{})) {
			return int((*fuse.IoctlIn)(unsafe.Pointer(&req[0])).OutSize) + smallSize
		}
	}
	return smallSize
}

func (c *conn) answer(req []byte) {
	unique := (*fuse.InHeader)(unsafe.Pointer(&req[0])).Unique
	out := c.get(replySize(req))
	defer c.put(out)
	in := [1][]byte{req}
	reply := [1][]byte{*out}
	n, status := c.proto.HandleRequest(in[:], reply[:])
	if status == fuse.OK && n > 0 {
		if err := c.write((*out)[:n]); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			c.log.Warn("a reply could not be given to the kernel", "err", err)
		}
	} else if status != fuse.OK {
		c.fail(unique, status)
	}
	c.sent.done(unique)
	c.once.Do(func() { close(c.ready) })
}

// fail answers with a bare status.
func (c *conn) fail(unique uint64, status fuse.Status) {
	var b [16]byte
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], uint32(-int32(status)))
	binary.NativeEndian.PutUint64(b[8:], unique)
	_ = c.write(b[:])
}

func (c *conn) write(b []byte) error {
	for {
		_, err := unix.Write(c.fd, b)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// notify sends a notification; body follows the header.
func (c *conn) notify(code uint32, body []byte) error {
	b := make([]byte, headerSize, headerSize+len(body))
	b = append(b, body...)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], code)
	return c.write(b)
}

// probeEpochs finds out whether the kernel knows epochs.
func (c *conn) probeEpochs() { c.epochs.Store(c.notify(notifyIncEpoch, nil) == nil) }

func (c *conn) newEpoch() bool {
	return c.epochs.Load() && c.notify(notifyIncEpoch, nil) == nil
}

func (c *conn) forgetEntry(dir uint64, name string) { c.invalEntry(dir, name, 0) }

func (c *conn) expireEntry(dir uint64, name string) { c.invalEntry(dir, name, expireOnly) }

// expireOnly is FUSE_EXPIRE_ONLY, since Linux 6.2; older ones drop the name.
const expireOnly = 1

func (c *conn) invalEntry(dir uint64, name string, flags uint32) {
	b := make([]byte, 16, 16+len(name)+1)
	binary.NativeEndian.PutUint64(b[0:], dir)
	binary.NativeEndian.PutUint32(b[8:], uint32(len(name)))
	binary.NativeEndian.PutUint32(b[12:], flags)
	b = append(b, name...)
	b = append(b, 0)
	c.told(c.notify(notifyInvalEntry, b))
}

func (c *conn) forgetAttrs(ino uint64) bool {
	return !errors.Is(c.invalInode(ino, -1, 0), unix.ENOENT)
}

func (c *conn) forgetPages(ino uint64, s span) {
	if s.empty() {
		return
	}
	n := s.hi - s.lo
	if s.hi == maxOff {
		n = 0 // to the end
	}
	_ = c.invalInode(ino, s.lo, n)
}

func (c *conn) invalInode(ino uint64, off, n int64) error {
	var b [24]byte
	binary.NativeEndian.PutUint64(b[0:], ino)
	binary.NativeEndian.PutUint64(b[8:], uint64(off))
	binary.NativeEndian.PutUint64(b[16:], uint64(n))
	err := c.notify(notifyInvalInode, b[:])
	c.told(err)
	return err
}

// raiseSize is a store of the file's last byte from memory that cannot be read.
// The kernel takes the size first, fails to read the byte, and changes no page.
func (c *conn) raiseSize(ino uint64, size int64) {
	if size > 0 {
		c.store(ino, span{size - 1, size}, unreadable())
	}
}

func (c *conn) clear(ino uint64, s span, z *zeros) {
	if len(z.b) > 0 {
		c.store(ino, s, uintptr(unsafe.Pointer(&z.b[0])))
	}
}

// store makes the kernel copy into its page of s what lies at the address from (0:
// nothing). If that cannot be read, it only takes the size.
func (c *conn) store(ino uint64, s span, from uintptr) {
	if from == 0 {
		return
	}
	n := s.hi - s.lo
	b := make([]byte, headerSize+24)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)+int(n)))
	binary.NativeEndian.PutUint32(b[4:], notifyStore)
	out := b[headerSize:]
	binary.NativeEndian.PutUint64(out[0:], ino)
	binary.NativeEndian.PutUint64(out[8:], uint64(s.lo))
	binary.NativeEndian.PutUint32(out[16:], uint32(n))
	iov := [2]unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	for {
		*(*uintptr)(unsafe.Pointer(&iov[1].Base)), iov[1].Len = from, uint64(n)
		_, _, no := unix.Syscall(unix.SYS_WRITEV, uintptr(c.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		switch no {
		case unix.EINTR:
			continue
		case 0, unix.EFAULT:
		default:
			c.told(no)
		}
		return
	}
}

// unreadable is the address of a page that nobody may read; 0: there is none.
var unreadable = sync.OnceValue(func() uintptr {
	b, err := unix.Mmap(-1, 0, pageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return 0
	}
	return uintptr(unsafe.Pointer(&b[0]))
})

// told looks at the outcome of a notification. That the kernel does not know
// the inode or the name is the best of news.
func (c *conn) told(err error) {
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.EBADF) {
		c.log.Warn("the kernel did not take a notification", "err", err)
	}
}

// close ends the connection for good; whoever still uses the mount gets
// ENOTCONN.
func (c *conn) close() error { return c.file.Close() }

// slogWriter gives go-fuse's few messages to slog.
type slogWriter struct{ log *slog.Logger }

func (w slogWriter) Write(p []byte) (int, error) {
	w.log.Debug("fuse", "message", string(p))
	return len(p), nil
}

// initTimeout bounds the first exchange with the kernel.
const initTimeout = 10 * time.Second
