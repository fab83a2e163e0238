package worker

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"
	"unsafe"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// memory gives a module its linear memory: address space up to its limit,
// reserved once, so that growing copies nothing, and returned to the system at
// the end. What the memory holds can be kept once, and put back.
type memory struct {
	peak   int64 // bytes, the most that it had
	linear *mapped
}

func (m *memory) Allocate(_, most uint64) experimental.LinearMemory {
	b, err := syscall.Mmap(-1, 0, int(max(most, pageSize)), syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE)
	if err != nil {
		b = nil
	}
	m.linear = &mapped{m: m, b: b}
	return m.linear
}

func (m *memory) size() int64 {
	if m.linear == nil {
		return 0
	}
	return int64(m.linear.size)
}

// osPage is the size of a page of most systems. On others copies are dropped.
const osPage = 4096

// keep remembers what the memory holds now. It becomes a file in memory, of which
// the module has a private copy that the kernel makes page by page where it
// writes.
func (m *memory) keep() error {
	p := m.linear
	if p == nil || p.size == 0 {
		return nil
	}
	fd, err := unix.MemfdCreate("kept", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd) // the mapping keeps the file
	if err := unix.Ftruncate(fd, int64(p.size)); err != nil {
		return os.NewSyscallError("ftruncate", err)
	}
	held := p.b[:p.size]
	var zero [osPage]byte
	for off := 0; off < len(held); off += len(zero) { // wasm pages are multiples
		page := held[off : off+len(zero)]
		if [osPage]byte(page) == zero {
			continue
		}
		for done := 0; done < len(page); {
			n, err := unix.Pwrite(fd, page[done:], int64(off+done))
			if err != nil {
				return os.NewSyscallError("pwrite", err)
			}
			done += n
		}
	}
	_, err = unix.MmapPtr(fd, 0, unsafe.Pointer(&held[0]), uintptr(p.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	p.kept = p.size
	if p.original, err = unix.Mmap(fd, 0, int(p.size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	if p.pagemap, err = os.Open("/proc/self/pagemap"); err != nil {
		p.pagemap = nil
	}
	p.entries = make([]byte, p.size/osPage*8)
	return nil
}

// errGrown: what the memory held cannot be put back, for a module cannot lose
// memory that it has.
var errGrown = errors.New("the memory has grown")

// restore puts back what keep remembered. Pages that the module has changed are
// overwritten and stay its own, so that it need not fault for them again; if they
// are many, or cannot be told, all copies are dropped.
func (m *memory) restore() error {
	p := m.linear
	if p == nil || p.size == 0 {
		return nil
	}
	if p.size != p.kept {
		return errGrown
	}
	if p.rewrite() {
		return nil
	}
	return os.NewSyscallError("madvise", unix.Madvise(p.b[:p.kept], unix.MADV_DONTNEED))
}

// Bits of an entry in /proc/PID/pagemap, see Documentation/admin-guide/mm/pagemap.rst
// of Linux.
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62 // or on the move
	pageOfFile  = 1 << 61 // not copied: as it was kept

	rewriteMost = 512 // pages
)

// rewrite puts back the pages that were copied; false: nothing is done.
func (p *mapped) rewrite() bool {
	if p.pagemap == nil || os.Getpagesize() != osPage {
		return false
	}
	first := uintptr(unsafe.Pointer(&p.b[0])) / osPage
	n, err := p.pagemap.ReadAt(p.entries, int64(first)*8)
	if err != nil || n != len(p.entries) {
		return false
	}
	copied := p.copied[:0]
	for i := 0; i < len(p.entries); i += 8 {
		switch e := binary.NativeEndian.Uint64(p.entries[i:]); {
		case e&pageSwapped != 0:
			return false
		case e&pagePresent == 0 || e&pageOfFile != 0:
		case len(copied) == rewriteMost:
			return false
		default:
			copied = append(copied, i/8*osPage)
		}
	}
	for _, off := range copied {
		copy(p.b[off:off+osPage], p.original[off:off+osPage])
	}
	p.copied = copied
	return true
}

// mapped is a linear memory.
type mapped struct {
	m          *memory
	b          []byte // nil: there is no address space left
	size, kept uint64 // bytes

	original []byte   // what was kept, for reading
	pagemap  *os.File // of this process; nil: not to be had
	entries  []byte   // of the pages that were kept
	copied   []int    // offsets; reused
}

func (p *mapped) Reallocate(size uint64) []byte {
	if size > uint64(len(p.b)) {
		return nil
	}
	p.size = size
	p.m.peak = max(p.m.peak, int64(size))
	return p.b[:size]
}

func (p *mapped) Free() {
	if p.b != nil {
		_ = syscall.Munmap(p.b)
		p.b, p.size = nil, 0
	}
	if p.original != nil {
		_ = unix.Munmap(p.original)
		p.original = nil
	}
	if p.pagemap != nil {
		p.pagemap.Close()
		p.pagemap = nil
	}
}
