package transport

import (
	"context"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
)

// socketBuffer is the size asked for of a Unix socket's buffers; the kernel
// gives what its limits allow.
const socketBuffer = 1 << 20

// unixPipe is one Unix socket. Where files are passed (useFiles) the receiver
// reads by ReadMsgUnix alone: bytes of a frame and the descriptor that goes
// with them must not be taken apart.
type unixPipe struct {
	*net.UnixConn

	// For try, so that it does not allocate: the raw write and its arguments.
	// The writer alone touches them.
	raw     rawWriter
	writeFn func(fd uintptr) bool
	buf     []byte
	n       int
	err     error
}

type rawWriter interface {
	Write(func(fd uintptr) bool) error
}

var _ pipe = (*unixPipe)(nil)

func newUnixPipe(c *net.UnixConn) (*unixPipe, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	c.SetWriteBuffer(socketBuffer)
	p := &unixPipe{UnixConn: c, raw: raw}
	p.writeFn = p.writeOnce
	return p, nil
}

func (p *unixPipe) writeOnce(fd uintptr) bool {
	for {
		// MSG_NOSIGNAL: a peer that is gone is an error, not a SIGPIPE.
		p.n, p.err = unix.SendmsgN(int(fd), p.buf, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if p.err != unix.EINTR {
			return true
		}
	}
}

func (p *unixPipe) try(b []byte) (int, error) {
	p.buf = b
	err := p.raw.Write(p.writeFn)
	p.buf = nil
	switch {
	case err != nil:
		return 0, err
	case p.err == unix.EAGAIN:
		return 0, nil
	case p.err != nil:
		return 0, os.NewSyscallError("sendmsg", p.err)
	}
	return p.n, nil
}

func (p *unixPipe) writeAll(bufs net.Buffers) error {
	_, err := bufs.WriteTo(p.UnixConn) // writev
	return err
}

func (p *unixPipe) writeFile(b []byte, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	p.SetWriteDeadline(time.Now().Add(stallLimit))
	var n int
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		n, _, sendErr = p.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil)
	})
	runtime.KeepAlive(f)
	if err == nil {
		err = sendErr
	}
	if err != nil || n == len(b) {
		return err
	}
	return writeSlowly(p, b[n:])
}

func (p *unixPipe) finish() { p.Close() }

func (p *unixPipe) urgent() {} // a socket of its own waits for nobody

// unixLink makes pipes by connecting to a server's socket.
type unixLink struct {
	path string
}

func (l *unixLink) open(ctx context.Context) (pipe, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", l.path)
	if err != nil {
		return nil, err
	}
	p, err := newUnixPipe(c.(*net.UnixConn))
	if err != nil {
		c.Close()
		return nil, err
	}
	return p, nil
}

func (l *unixLink) close()                {}
func (l *unixLink) fault(err error) error { return err }

// fileReader reads a Unix socket together with the descriptors that come along.
type fileReader struct {
	c     *net.UnixConn
	files []*os.File // received, in order, and not taken yet
	oob   []byte
}

// maxFiles is how many descriptors one read may bring; each frame carries one.
const maxFiles = 8

func newFileReader(c *net.UnixConn) *fileReader {
	return &fileReader{c: c, oob: make([]byte, unix.CmsgSpace(4*maxFiles))}
}

func (r *fileReader) Read(b []byte) (int, error) {
	n, oobn, flags, _, err := r.c.ReadMsgUnix(b, r.oob)
	if oobn > 0 {
		if e := r.keep(r.oob[:oobn]); e != nil && err == nil {
			err = e
		}
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = wire.Errorf(wire.Invalid, "receive a file", "", "descriptors were cut off: too many files are open, or the peer sent too many")
	}
	return max(n, 0), err
}

func (r *fileReader) keep(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // not a file
		}
		for _, fd := range fds {
			r.files = append(r.files, os.NewFile(uintptr(fd), "passed file"))
		}
	}
	return nil
}

// take returns the first file that has come, nil if none has.
func (r *fileReader) take() *os.File {
	if len(r.files) == 0 {
		return nil
	}
	f := r.files[0]
	r.files = r.files[1:]
	return f
}

func (r *fileReader) close() {
	for _, f := range r.files {
		f.Close()
	}
	r.files = nil
}

// peerIsUs tells whether the process at the other end runs as this user or as
// root.
func peerIsUs(c *net.UnixConn) (bool, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return false, err
	}
	if credErr != nil {
		return false, os.NewSyscallError("getsockopt SO_PEERCRED", credErr)
	}
	return cred.Uid == 0 || int(cred.Uid) == os.Geteuid(), nil
}
