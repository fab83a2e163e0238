package interp

import (
	"fmt"
	"slices"
	"sort"
)

// Fault is an access to memory that a kernel may not make.
type Fault struct {
	Misaligned bool
	Text       string
}

func (f *Fault) Error() string { return f.Text }

// Heap is the memory of a device. The zero Heap is empty and without limit.
type Heap struct {
	Limit int64 // bytes in use; 0: none
	used  int64
	next  uint64
	all   []block // by address
	last  int     // where the last access was
}

type block struct {
	base uint64
	mem  []byte
}

const (
	heapBase  = 0x7f00_0000_0000 // not an address of this process, and not an offset in shared memory
	heapAlign = 256              // as drivers give it
	guard     = 4096             // bytes between two blocks that belong to none
	rubbish   = 0xa5
)

// Alloc returns the address of size bytes, or 0 if that is more than there is.
// No address is used twice.
func (h *Heap) Alloc(size int64) uint64 {
	if size <= 0 || h.Limit > 0 && size > h.Limit-h.used {
		return 0
	}
	if h.next == 0 {
		h.next = heapBase
	}
	base := h.next
	mem := make([]byte, size)
	for i := range mem {
		mem[i] = rubbish
	}
	h.next += (uint64(size)+guard+heapAlign-1)/heapAlign*heapAlign + heapAlign
	h.used += size
	h.all = append(h.all, block{base, mem})
	return base
}

// Free gives the memory at an address that Alloc returned back, or says that
// there is none.
func (h *Heap) Free(base uint64) bool {
	i := slices.IndexFunc(h.all, func(b block) bool { return b.base == base })
	if i < 0 {
		return false
	}
	h.used -= int64(len(h.all[i].mem))
	h.all = slices.Delete(h.all, i, i+1)
	return true
}

// Used is how many bytes are in use.
func (h *Heap) Used() int64 { return h.used }

// At is the memory from an address on, size bytes of one block.
func (h *Heap) At(addr uint64, size int) ([]byte, error) {
	if h.last < len(h.all) {
		if b := &h.all[h.last]; addr >= b.base && addr-b.base <= uint64(len(b.mem)) && uint64(size) <= uint64(len(b.mem))-(addr-b.base) {
			return b.mem[addr-b.base:][:size], nil
		}
	}
	i := sort.Search(len(h.all), func(i int) bool { return h.all[i].base > addr }) - 1
	if i >= 0 {
		b := &h.all[i]
		if off := addr - b.base; size >= 0 && off <= uint64(len(b.mem)) && uint64(size) <= uint64(len(b.mem))-off {
			h.last = i
			return b.mem[off:][:size], nil
		}
	}
	return nil, &Fault{Text: fmt.Sprintf("%d bytes at %#x belong to no memory of the device", size, addr)}
}
