package chunkd

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// file is a segment open for appending. Tests put faults between it and the
// disk.
type file interface {
	io.ReaderAt
	io.WriterAt
	Datasync() error
	Allocate(off, n int64) error // keeps the file's size
	Punch(off, n int64) error
	Truncate(size int64) error
	Close() error
}

type diskFile struct{ *os.File }

func (f diskFile) Datasync() error {
	return retry(func() error { return unix.Fdatasync(int(f.Fd())) })
}

func (f diskFile) Allocate(off, n int64) error {
	return retry(func() error { return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, n) })
}

func (f diskFile) Punch(off, n int64) error {
	return retry(func() error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, off, n)
	})
}

// retry repeats a system call that a signal interrupted; Go's own preemption
// signals do that to fallocate.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// outOfSpace says whether err means that the disk or a quota is full.
func outOfSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// trim cuts f to size and gives back the space that was allocated beyond it.
func trim(f file, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	// Where that made the file longer, ext4 keeps the space beyond; once more
	// frees it.
	return f.Truncate(size)
}
