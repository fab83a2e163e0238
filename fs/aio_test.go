package fs

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iocb and ioEvent are those of io_submit(2).
type iocb struct {
	_      [2]uint64 // data, key, rwFlags
	opcode uint16
	_      int16 // prio
	fd     uint32
	buf    uint64
	bytes  uint64
	offset int64
	_      [2]uint64 // reserved, flags, resfd
}

type ioEvent struct {
	_   [2]uint64 // data, obj
	res int64
	_   int64 // res2
}

const iocbWrite = 1

// asyncWriter writes with io_submit.
type asyncWriter struct {
	t   *testing.T
	ctx uintptr
}

func newAsyncWriter(t *testing.T) *asyncWriter {
	w := &asyncWriter{t: t}
	if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, 16, uintptr(unsafe.Pointer(&w.ctx)), 0); e != 0 {
		t.Fatal("io_setup: ", e)
	}
	t.Cleanup(func() { _, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, w.ctx, 0, 0) })
	return w
}

// write writes b, which lies outside Go's heap, and waits for the completion.
func (w *asyncWriter) write(fd int, b []byte, off int64) {
	w.t.Helper()
	cb := &iocb{opcode: iocbWrite, fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&b[0]))), bytes: uint64(len(b)), offset: off}
	list := [1]*iocb{cb}
	if n, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, w.ctx, 1, uintptr(unsafe.Pointer(&list))); n != 1 {
		w.t.Fatal("io_submit: ", e)
	}
	var ev [1]ioEvent
	for {
		n, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, w.ctx, 1, 1, uintptr(unsafe.Pointer(&ev)), 0, 0)
		if e == syscall.EINTR {
			continue
		}
		if n != 1 || ev[0].res != int64(len(b)) {
			w.t.Fatalf("io_getevents: %v, the write gave %d", e, ev[0].res)
		}
		return
	}
}

// TestAsyncDirect writes a file past the kernel's cache, asynchronously, while
// others read it through the cache. What has been written is what they read.
func TestAsyncDirect(t *testing.T) {
	m := newCluster(t, 6, "4+2").mount()
	p := filepath.Join(m, "f")
	const size = 32 << 10
	must(t, os.WriteFile(p, make([]byte, size), 0o644))
	f, err := os.OpenFile(p, os.O_RDWR|unix.O_DIRECT, 0)
	must(t, err)
	defer f.Close()
	r, err := os.Open(p)
	must(t, err)
	defer r.Close()
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	must(t, err)
	defer func() { must(t, unix.Munmap(mem)) }()
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		readers.Go(func() {
			b := make([]byte, size)
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := r.ReadAt(b, 0); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer readers.Wait()
	defer close(done)
	w := newAsyncWriter(t)
	got := make([]byte, size)
	for i := range 300 {
		off, n := int64(i%4)*4096, 4096*(1+i%5)
		for j := range mem[:n] {
			mem[j] = byte(i + 1)
		}
		w.write(int(f.Fd()), mem[:n], off)
		_, err := r.ReadAt(got[:n], off)
		must(t, err)
		if !bytes.Equal(got[:n], mem[:n]) {
			t.Fatalf("write %d of %d bytes at %d has completed, and a read gives %d", i, n, off, got[0])
		}
	}
}
