//go:build wasip1

package task

import (
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"syscall"
)

// The inputs are read with WASI's calls alone: opening and listing with package
// os takes longer than the whole of a short task.

// EachFile calls f with every input, in the order of their paths within each
// directory.
func EachFile(f func(path string, r io.Reader) error) error { return walk("", f) }

// walk does so for what is below /in and dir.
func walk(dir string, f func(path string, r io.Reader) error) error {
	entries, err := list("/in" + dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := dir + "/" + e.name
		if e.dir {
			err = walk(path, f)
		} else {
			err = withFile(path, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func withFile(path string, f func(path string, r io.Reader) error) error {
	fd, err := syscall.Open("/in"+path, syscall.O_RDONLY, 0)
	if err != nil {
		return &fileError{"open", path, err}
	}
	defer syscall.Close(fd)
	return f(path, file{fd, path})
}

// file is an open input.
type file struct {
	fd   int
	path string
}

func (f file) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := syscall.Read(f.fd, p)
	if err != nil {
		return 0, &fileError{"read", f.path, err}
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

type fileError struct {
	op, path string
	err      error
}

func (e *fileError) Error() string { return e.op + " " + e.path + ": " + e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }

type entry struct {
	name string
	dir  bool
}

// listing is what directories are listed into. It takes the longest name.
var listing = make([]byte, 32<<10)

// list returns the entries of a directory, by name.
//
// A record is, little-endian: cookie of the next uint64 | inode uint64 | length of
// the name uint32 | type uint8 | 3 bytes | name. The last may be cut off.
func list(dir string) (all []entry, err error) {
	const head = 24
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fileError{"open", dir, err}
	}
	defer syscall.Close(fd)
	cookie := uint64(0)
	for {
		n, err := syscall.ReadDir(fd, listing, cookie)
		if err != nil {
			return nil, &fileError{"list", dir, err}
		}
		for b := listing[:n]; len(b) >= head; {
			end := head + int(binary.LittleEndian.Uint32(b[16:]))
			if end > len(b) {
				break
			}
			cookie = binary.LittleEndian.Uint64(b)
			if name := string(b[head:end]); name != "." && name != ".." {
				all = append(all, entry{name, b[20] == uint8(syscall.FILETYPE_DIRECTORY)})
			}
			b = b[end:]
		}
		if n < len(listing) {
			break
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return all, nil
}
