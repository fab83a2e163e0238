package chunkd

import (
	"math/bits"
	"sync"
)

// Buffers for leaves and shards come from pools by size, in powers of two from
// 64 KiB to 16 MiB.
const minBufferBits, maxBufferBits = 16, 24

var buffers [maxBufferBits - minBufferBits + 1]sync.Pool

// getBuffer returns a buffer of n bytes, its content arbitrary.
func getBuffer(n int) *[]byte {
	c := max(bits.Len(uint(max(n, 1)-1))-minBufferBits, 0)
	if c >= len(buffers) {
		b := make([]byte, n)
		return &b
	}
	if b, ok := buffers[c].Get().(*[]byte); ok {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, 1<<(minBufferBits+c))
	return &b
}

// putBuffer gives a buffer of getBuffer back; nil is allowed.
func putBuffer(b *[]byte) {
	if b == nil {
		return
	}
	if c := bits.Len(uint(cap(*b))) - 1 - minBufferBits; c >= 0 && c < len(buffers) && cap(*b) == 1<<(minBufferBits+c) {
		buffers[c].Put(b)
	}
}
