package fs

import (
	"sync"

	"golang.org/x/sys/unix"
)

// A program may store bytes through a mapping beyond the end of the file, as far as
// its last page goes. They are not part of the file, and must not become part of it
// when the file grows. Other filesystems make them zeros just before it does; the
// kernel's FUSE does not, and would show them, and write them back. So the kernel
// is made to, by a store of zeros, while it carries out the request that
// makes the file grow and keeps all other changes of the file away.

// clearTail is called before an operation under the write lease makes the file
// grow. What it writes itself begins at from. o: it is a write.
func (fs *FS) clearTail(in *inode, from int64, o *op) {
	k := fs.kernel()
	s, last := tail(in.file.Size(), from)
	if k == nil || s.empty() {
		return
	}
	in.mu.Lock()
	read, _ := in.pages.reads.within(last)
	filled, _ := in.pages.filled.within(last)
	in.mu.Unlock()
	if len(read) == 0 && len(filled) == 0 {
		return
	}
	// The page may be locked by the operation itself, or by one that waits for it;
	// then it is not valid, and has no such bytes.
	most := sureWait
	if o != nil && o.span.overlaps(last) {
		most = lockedWait
	}
	z := newZeros()
	done := make(chan struct{})
	fs.spawn(func() {
		defer close(done)
		k.clear(in.ino, s, z)
		z.free()
	})
	in.awaitDrop(done, spans{last}, most)
	z.withdraw()
}

// tail returns what lies beyond the end of a file of this size, in its last page,
// before the offset from, and that page.
func tail(size, from int64) (s, last span) {
	last = pages(size, 1)
	if size%pageSize == 0 || from <= size {
		return span{}, span{}
	}
	return span{size, min(from, last.hi)}, last
}

// zeros is a page of zeros for the kernel to copy from, until it is withdrawn: a
// copy that comes later changes nothing.
type zeros struct {
	mu sync.Mutex
	b  []byte // nil: freed, or there is no memory
}

func newZeros() *zeros {
	b, err := unix.Mmap(-1, 0, pageSize, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return &zeros{}
	}
	return &zeros{b: b}
}

func (z *zeros) withdraw() {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.b != nil {
		_ = unix.Mprotect(z.b, unix.PROT_NONE)
	}
}

// free is for when nothing is copied any more.
func (z *zeros) free() {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.b != nil {
		_ = unix.Munmap(z.b)
		z.b = nil
	}
}
