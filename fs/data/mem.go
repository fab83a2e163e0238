package data

import (
	"sync"

	"quernfs/internal/wire"
)

// bufferSize is the size of every pooled buffer: the largest block.
const bufferSize = wire.BlockSize

// keepBuffers is how many free buffers are kept; more go back to the system.
// Touching a fresh page costs more than copying into it.
const keepBuffers = 16

// buffers hands out block-sized buffers that live outside the garbage
// collector's heap (mem_map.go), so that hundreds of megabytes of data do not
// make it double the heap. Pages that were never touched cost nothing: a small
// block in a fresh buffer occupies little.
type buffers struct {
	mu   sync.Mutex
	free [][]byte
}

// get returns a buffer of bufferSize bytes with arbitrary content.
func (b *buffers) get() []byte {
	b.mu.Lock()
	if n := len(b.free); n > 0 {
		buf := b.free[n-1]
		b.free = b.free[:n-1]
		b.mu.Unlock()
		return buf
	}
	b.mu.Unlock()
	return mapBuffer()
}

// put takes a buffer back. Nobody may touch it any more.
func (b *buffers) put(buf []byte) {
	b.mu.Lock()
	if len(b.free) < keepBuffers {
		b.free = append(b.free, buf)
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	unmapBuffer(buf)
}

// close gives the free buffers back to the system.
func (b *buffers) close() {
	b.mu.Lock()
	free := b.free
	b.free = nil
	b.mu.Unlock()
	for _, buf := range free {
		unmapBuffer(buf)
	}
}
