package transport

import (
	"context"
	"net"
	"os"
	"time"
)

// pipe is a two-way stream of bytes between two processes: a QUIC stream or a
// Unix socket. One goroutine may read while another writes.
type pipe interface {
	net.Conn // Close ends both directions and wakes whoever waits

	// try writes what it can of b without waiting.
	try(b []byte) (n int, err error)
	// writeAll writes all of bufs, however long the peer takes: what bounds it
	// is the call's context, at whose end the pipe is closed. After an error the
	// pipe is of no more use.
	writeAll(bufs net.Buffers) error
	// writeFile writes b, the descriptor going with its first byte.
	writeFile(b []byte, f *os.File) error
	// urgent marks a pipe whose bytes should not wait behind those of others.
	urgent()
	// finish closes the pipe after what was written has been delivered.
	finish()
}

// stallLimit is how long a sender that no context bounds waits for a receiver
// that takes nothing.
const stallLimit = 10 * time.Second

// stallPiece is how much a receiver takes at a time, at least: so that a slow
// one is not held for a dead one.
const stallPiece = 64 << 10

// write sends b, without waiting if the pipe has room; it fails once the peer
// has taken nothing for stallLimit.
func write(p pipe, b []byte) error {
	n, err := p.try(b)
	if err != nil || n == len(b) {
		return err
	}
	return writeSlowly(p, b[n:])
}

func writeSlowly(p pipe, b []byte) error {
	for len(b) > 0 {
		piece := b[:min(len(b), stallPiece)]
		p.SetWriteDeadline(time.Now().Add(stallLimit))
		if _, err := p.Write(piece); err != nil {
			return err
		}
		b = b[len(piece):]
	}
	return p.SetWriteDeadline(time.Time{})
}

// link makes pipes to one peer.
type link interface {
	// open makes a pipe on which nothing has been sent.
	open(ctx context.Context) (pipe, error)
	// fault explains the error of a pipe in the words of the link: a peer that
	// refused our certificate, say.
	fault(err error) error
	// close ends all pipes. It is called once.
	close()
}

// The uses of a pipe, in its Opening.
const (
	useCalls  = 1 // small calls, many at once, told apart by id
	useBulk   = 2 // calls with payload, one after another
	useFiles  = 3 // calls whose reply carries a file, one after another; Unix only
	useStream = 4 // one stream of messages
	useRaw    = 5 // after the accept, bytes of another protocol
)

// isUrgent tells which uses do not wait behind bulk calls.
func isUrgent(use uint32) bool { return use != useBulk && use != useFiles }

// rawPipe is a pipe whose opening has been read through a frameReader, which
// may hold bytes that came after it.
type rawPipe struct {
	pipe
	r *frameReader
}

func (p rawPipe) Read(b []byte) (int, error) { return p.r.b.Read(b) }
