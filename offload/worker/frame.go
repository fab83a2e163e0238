package worker

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// MaxFrame bounds kind and body of a frame, in bytes.
const MaxFrame = 1 << 20

// chunk is how much of an input, or of an output, travels in one frame.
const chunk = 256 << 10

type kind uint8

const (
	kindRun     kind = 1
	kindInput   kind = 2
	kindData    kind = 3
	kindContent kind = 4

	kindReady kind = 16
	kindRead  kind = 17
	kindOut   kind = 18
	kindErr   kind = 19
	kindExit  kind = 20
)

// Run is what a worker is asked to do.
type Run struct {
	Module string // path of the module's file on this host
	Digest []byte // its SHA-256
	Args   []string
	Env    []string
	Memory int64 // bytes, most of them that the module may have
	Inputs int   // how many input frames follow
	// Contents: after each input frame comes one with its content.
	Contents bool `json:",omitempty"`
	// Manifest is the kernel.yaml of a module for a device, which says how it is
	// run.
	Manifest []byte `json:",omitempty"`
	// Signature is who vouches for a module that needs it (package sign).
	Signature []byte `json:",omitempty"`
	// Prepare: only compile the module, into the cache that other workers of the
	// same directory share.
	Prepare bool
}

// Exit is how a run ended.
type Exit struct {
	Code       int    // of the module; -1: it did not exit by itself
	Trap       string // why it did not: a trap, a module that does not compile
	PeakMemory int64  // bytes
	CPU        int64  // nanoseconds
	Device     int64  `json:",omitempty"` // nanoseconds that the kernels ran on a device
	Fault      bool   `json:",omitempty"` // the device failed, or its driver did
	Last       bool   `json:",omitempty"` // the worker ends now: it cannot use its device any more
	Cycles     int64  `json:",omitempty"` // of the clock of a simulated device
}

// link is one end of a socket pair. One goroutine uses it.
type link struct {
	r   *bufio.Reader
	w   io.Writer
	buf []byte
	out []byte // frames that are not written yet
	// since is when a frame was received last. For hold from then on frames may
	// wait for others, until this end receives: so a short run takes one write. What
	// goes to the standard error does not wait, for the worker may be about to crash.
	since time.Time
}

const (
	hold     = 10 * time.Millisecond
	holdMost = 64 << 10 // bytes
)

func newLink(rw io.ReadWriter) *link {
	return &link{r: bufio.NewReaderSize(rw, 64<<10), w: rw}
}

// send writes one frame, or keeps it for the next write.
func (l *link) send(k kind, parts ...[]byte) error {
	n := 1
	for _, p := range parts {
		n += len(p)
	}
	if n > MaxFrame {
		return fmt.Errorf("a frame of %d bytes is too long", n)
	}
	l.out = binary.LittleEndian.AppendUint32(l.out, uint32(n))
	l.out = append(l.out, byte(k))
	for _, p := range parts {
		l.out = append(l.out, p...)
	}
	if k != kindErr && len(l.out) < holdMost && time.Since(l.since) < hold {
		return nil
	}
	return l.flush()
}

// flush writes what send has kept.
func (l *link) flush() error {
	if len(l.out) == 0 {
		return nil
	}
	_, err := l.w.Write(l.out)
	if l.out = l.out[:0]; cap(l.out) > 2*holdMost {
		l.out = nil
	}
	return err
}

// recv writes what send has kept and reads one frame. The body is valid until the
// next call.
func (l *link) recv() (kind, []byte, error) {
	if err := l.flush(); err != nil {
		return 0, nil, err
	}
	defer func() { l.since = time.Now() }()
	var head [5]byte
	if _, err := io.ReadFull(l.r, head[:4]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(head[:4])
	if n < 1 || n > MaxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	k, err := l.r.ReadByte()
	if err != nil {
		return 0, nil, unexpected(err)
	}
	if cap(l.buf) < int(n-1) {
		l.buf = make([]byte, max(int(n-1), 4096))
	}
	body := l.buf[:n-1]
	if _, err := io.ReadFull(l.r, body); err != nil {
		return 0, nil, unexpected(err)
	}
	return kind(k), body, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

type readRequest struct {
	input uint32
	off   uint64
	n     uint32
}

func (q readRequest) encode() []byte {
	b := binary.LittleEndian.AppendUint32(nil, q.input)
	b = binary.LittleEndian.AppendUint64(b, q.off)
	return binary.LittleEndian.AppendUint32(b, q.n)
}

func decodeRead(b []byte) (q readRequest, err error) {
	if len(b) != 16 {
		return q, fmt.Errorf("a read frame of %d bytes", len(b))
	}
	q = readRequest{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint64(b[4:]), binary.LittleEndian.Uint32(b[12:])}
	if q.n > chunk {
		return q, fmt.Errorf("a read of %d bytes", q.n)
	}
	if q.off > 1<<62 {
		return q, fmt.Errorf("a read at %d", q.off)
	}
	return q, nil
}

func encodeInput(size int64, path string) [][]byte {
	return [][]byte{binary.LittleEndian.AppendUint64(nil, uint64(size)), []byte(path)}
}

func decodeInput(b []byte) (size int64, path string, err error) {
	if len(b) < 9 || len(b) > 8+4096 {
		return 0, "", fmt.Errorf("an input frame of %d bytes", len(b))
	}
	n := binary.LittleEndian.Uint64(b)
	if n > 1<<62 {
		return 0, "", fmt.Errorf("an input of %d bytes", n)
	}
	return int64(n), string(b[8:]), nil
}
