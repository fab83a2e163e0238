package chunkd

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// Disk is what a store's directory lies on: segments behind OpenSegment, the
// index and small files in FS.
type Disk interface {
	FS() vfs.FS
	// OpenSegment opens a file for reading and writing; create says that it must
	// not exist yet.
	OpenSegment(path string, create bool) (File, error)
	// Lock keeps other processes away until it is closed; ErrLocked: one is there.
	Lock(path string) (io.Closer, error)
	// Space says how many bytes the filesystem of dir has, how many are free, and
	// what it is called; an empty name: it has none.
	Space(dir string) (total, free int64, name string, err error)
}

// ErrLocked is what Disk.Lock says where another process holds the lock.
var ErrLocked = errors.New("another process holds it")

// File is an open segment. Tests put faults between it and the disk.
type File interface {
	io.ReaderAt
	io.WriterAt
	Size() (int64, error)
	Datasync() error
	Allocate(off, n int64) error // keeps the file's size
	Punch(off, n int64) error
	Truncate(size int64) error
	Close() error
}

type file = File

// osDisk is the operating system's.
type osDisk struct{}

func (osDisk) FS() vfs.FS { return vfs.Default }

func (osDisk) OpenSegment(path string, create bool) (File, error) {
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (osDisk) Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, err
	}
	return f, nil
}

func (osDisk) Space(dir string) (total, free int64, name string, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, "", err
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, diskName(&st), nil
}

type diskFile struct{ *os.File }

func (f diskFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

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

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes a directory, for good.
func makeDir(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil {
		return nil
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(fs, filepath.Dir(dir))
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
