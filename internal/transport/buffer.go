package transport

import (
	"math/bits"
	"sync"

	"quernfs/internal/wire"
)

// Buffers come in powers of two, 4 KiB to MaxPayload, each size from a pool of
// its own: allocating (and zeroing) a large buffer for each call made bulk
// calls several times slower.
const (
	minBufferBits = 12
	maxBufferBits = 26
)

var buffers [maxBufferBits - minBufferBits + 1]sync.Pool

// getBuffer returns a buffer with room for n ≤ MaxPayload bytes; its length is
// its capacity, its content arbitrary.
func getBuffer(n int) *[]byte {
	c := 0
	if n > 1<<minBufferBits {
		c = bits.Len(uint(n-1)) - minBufferBits
	}
	if b, ok := buffers[c].Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 1<<(minBufferBits+c))
	return &b
}

// putBuffer gives a buffer of getBuffer back; nil is allowed.
func putBuffer(b *[]byte) {
	if b == nil {
		return
	}
	*b = (*b)[:cap(*b)]
	buffers[bits.Len(uint(cap(*b)-1))-minBufferBits].Put(b)
}

// size is the length of the reply's payload.
func (r *Reply) size() int {
	n := 0
	for _, p := range r.Payload {
		n += len(p)
	}
	return n
}

func payloadTooLong(m wire.Method, peer string, n int) error {
	return wire.Errorf(wire.Range, m.String(), peer, "a payload of %d bytes is longer than the %d allowed", n, MaxPayload)
}

func messageTooLong(m wire.Method, peer string, n int) error {
	return wire.Errorf(wire.Range, m.String(), peer, "a message of %d bytes is longer than the %d allowed", n, MaxMessage)
}

func replyTooLong(m wire.Method, peer string, n, room int) error {
	return wire.Errorf(wire.Range, m.String(), peer, "the reply's %d bytes do not fit into %d", n, room)
}

func noFile(m wire.Method, peer string) error {
	return wire.Errorf(wire.Internal, m.String(), peer, "the reply carries no file")
}
