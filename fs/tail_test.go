package fs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTail(t *testing.T) {
	page := span{8192, 12288}
	for _, c := range []struct {
		size, from int64
		s, last    span
	}{
		{8200, 9000, span{8200, 9000}, page},
		{8200, 20000, span{8200, 12288}, page},
		{8200, 12288, span{8200, 12288}, page},
		{12287, 12288, span{12287, 12288}, page},
		{8200, 8200, span{}, span{}},
		{8200, 100, span{}, span{}},
		{8192, 9000, span{}, span{}},
		{0, 9000, span{}, span{}},
	} {
		if s, last := tail(c.size, c.from); s != c.s || last != c.last {
			t.Errorf("tail(%d, %d) = %v, %v", c.size, c.from, s, last)
		}
	}
}

// What was stored through a mapping beyond the end of the file does not become part
// of it, however the file grows.
func TestStoredBeyondTheEnd(t *testing.T) {
	a, b := two(t)
	const size = 1000
	old := bytes.Repeat([]byte("o"), size-10)
	source := filepath.Join(a, "source")
	must(t, os.WriteFile(source, bytes.Repeat([]byte("n"), 20000), 0o644))
	from, err := os.Open(source)
	must(t, err)
	defer from.Close()
	put := func(off int64) func(*os.File) error {
		return func(f *os.File) error { _, err := f.WriteAt([]byte("new"), off); return err }
	}
	falloc := func(mode uint32, off, n int64) func(*os.File) error {
		return func(f *os.File) error { return unix.Fallocate(int(f.Fd()), mode, off, n) }
	}
	copied := func(off int64) func(*os.File) error {
		return func(f *os.File) error {
			var at int64
			n, err := unix.CopyFileRange(int(from.Fd()), &at, int(f.Fd()), &off, 5000, 0)
			if err == nil && n != 5000 {
				err = fmt.Errorf("%d bytes copied", n)
			}
			return err
		}
	}
	for _, c := range []struct {
		name  string
		grow  func(*os.File) error
		other bool // by the other mount
		flags int
		zeros int64 // up to here
	}{
		{name: "append", grow: put(size), zeros: size},
		{name: "write in the page", grow: put(3000), zeros: 3000},
		{name: "write to the next page", grow: put(5000), zeros: 5000},
		{name: "write far away", grow: put(1 << 20), zeros: 1 << 20},
		{name: "direct write", grow: put(5000), flags: unix.O_DIRECT, zeros: 5000},
		{name: "direct write in the page", grow: put(3000), flags: unix.O_DIRECT, zeros: 3000},
		{name: "truncate in the page", grow: func(f *os.File) error { return f.Truncate(3000) }, zeros: 3000},
		{name: "truncate to the page", grow: func(f *os.File) error { return f.Truncate(4096) }, zeros: 4096},
		{name: "truncate far away", grow: func(f *os.File) error { return f.Truncate(9000) }, zeros: 9000},
		{name: "fallocate", grow: falloc(0, 0, 9000), zeros: 9000},
		{name: "fallocate in the page", grow: falloc(0, 2000, 1000), zeros: 3000},
		{name: "zero range", grow: falloc(unix.FALLOC_FL_ZERO_RANGE, 6000, 1000), zeros: 7000},
		{name: "copy", grow: copied(5000), zeros: 5000},
		{name: "copy into the page", grow: copied(3000), zeros: 3000},
		{name: "copy after the end", grow: copied(size), zeros: size},
		{name: "write elsewhere", grow: put(3000), other: true, zeros: 3000},
		{name: "truncate elsewhere", grow: func(f *os.File) error { return f.Truncate(9000) }, other: true, zeros: 9000},
	} {
		for _, synced := range []string{"", "before", "and stored again"} {
			t.Run(strings.TrimSpace(c.name+" "+synced), func(t *testing.T) {
				name := fmt.Sprintf("f-%s-%s", c.name, synced)
				path := filepath.Join(a, name)
				must(t, os.WriteFile(path, bytes.Repeat([]byte("o"), size), 0o644))
				m := mapFile(t, path)
				m.do("put %d %s", size-10, strings.Repeat("X", 2000))
				if synced != "" {
					m.do("sync")
				}
				if synced == "and stored again" {
					m.do("put %d %s", size, strings.Repeat("Y", 2000))
				}
				by := path
				if c.other {
					by = filepath.Join(b, name)
				}
				f, err := os.OpenFile(by, os.O_RDWR|c.flags, 0)
				must(t, err)
				defer f.Close()
				must(t, c.grow(f))
				check := func(where string, got []byte) {
					t.Helper()
					if len(got) < size || !bytes.Equal(got[:size-10], old) || string(got[size-10:size]) != "XXXXXXXXXX" {
						t.Fatalf("%s: what was in the file is lost: %q", where, short(got))
					}
					if i := bytes.IndexFunc(got[size:min(int64(len(got)), c.zeros)], func(r rune) bool { return r != 0 }); i >= 0 {
						t.Fatalf("%s: %q at %d", where, short(got[size+i:]), size+i)
					}
				}
				read := func(where, path string) {
					t.Helper()
					got, err := os.ReadFile(path)
					must(t, err)
					if int64(len(got)) < c.zeros {
						t.Fatalf("%s: the file has %d bytes", where, len(got))
					}
					check(where, got)
				}
				read("read", path)
				if n := min(int(c.zeros), pageSize); n > size {
					check("mapping", []byte(m.do("get 0 %d", n)))
				}
				read("another mount", filepath.Join(b, name))
				m.do("sync")
				m.close()
				must(t, f.Sync())
				mine, err := os.Open(path)
				must(t, err)
				defer mine.Close()
				must(t, unix.Fadvise(int(mine.Fd()), 0, 0, unix.FADV_DONTNEED))
				read("read again", path)
				read("another mount, later", filepath.Join(b, name))
			})
		}
	}
}
