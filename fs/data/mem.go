package data

import (
	"sync"

	"quernfs/internal/wire"
)

// bufferSize is the size of every pooled buffer: the largest block.
const bufferSize = wire.BlockSize

// keepBuffers is how many free buffers keep their memory. Touching a fresh page
// costs more than copying into it.
const keepBuffers = 16

// buffers hands out block-sized buffers that live outside the garbage
// collector's heap (mem_map.go), so that hundreds of megabytes of data do not
// make it double the heap. Pages that were never touched cost nothing: a small
// block in a fresh buffer occupies little.
//
// Free buffers beyond keepBuffers give their memory back but stay mapped, and
// are used again: whoever should still read one, against the contract of
// Blocks, finds other bytes, which no digest matches, and does not crash.
type buffers struct {
	mu   sync.Mutex
	warm [][]byte
	cold [][]byte
	all  *mapped
}

// get returns a buffer of bufferSize bytes with arbitrary content.
func (b *buffers) get() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, free := range []*[][]byte{&b.warm, &b.cold} {
		if n := len(*free); n > 0 {
			buf := (*free)[n-1]
			*free = (*free)[:n-1]
			return buf
		}
	}
	return b.all.add(mapBuffer())
}

// put takes a buffer back. Nobody may touch it any more.
func (b *buffers) put(buf []byte) {
	b.mu.Lock()
	if len(b.warm) < keepBuffers {
		b.warm = append(b.warm, buf)
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	cool(buf)
	b.mu.Lock()
	b.cold = append(b.cold, buf)
	b.mu.Unlock()
}

// mapped are all buffers of a path. It outlives the path, to give their memory
// back when nothing can reach the path any more.
type mapped struct {
	mu  sync.Mutex
	all [][]byte
}

func (m *mapped) add(buf []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, buf)
	return buf
}

func (m *mapped) cool() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, buf := range m.all {
		cool(buf)
	}
}
