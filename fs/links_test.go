package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A file that is open on one mount is given a further name by another, and loses
// its first one here: it can still be linked, and has as many links as it has.
func TestLinksAreCounted(t *testing.T) {
	a, b := two(t)
	for i, loses := range []func(dir, name string) error{
		func(dir, name string) error { return os.Remove(filepath.Join(dir, name)) },
		func(dir, name string) error {
			write1(t, filepath.Join(dir, "other"), "")
			return os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, name))
		},
	} {
		name := func(s string) string { return fmt.Sprint(s, i) }
		write1(t, filepath.Join(a, name("f")), "text")
		expect(t, filepath.Join(b, name("f")), "text")
		fd, err := unix.Open(filepath.Join(a, name("f")), unix.O_RDONLY, 0)
		must(t, err)
		defer unix.Close(fd)
		must(t, os.Link(filepath.Join(b, name("f")), filepath.Join(b, name("g"))))
		must(t, loses(a, name("f")))
		var x unix.Statx_t // what the kernel has, which is what it asks before it links
		must(t, unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_NLINK, &x))
		if x.Nlink == 0 {
			t.Error("the kernel believes that the file has no name")
		}
		must(t, unix.Linkat(fd, "", unix.AT_FDCWD, filepath.Join(a, name("h")), unix.AT_EMPTY_PATH))
		for _, m := range []string{a, b} {
			var st unix.Stat_t
			must(t, unix.Stat(filepath.Join(m, name("h")), &st))
			if st.Nlink != 2 {
				t.Errorf("%d links", st.Nlink)
			}
		}
		// Without a name it cannot be linked.
		must(t, os.Remove(filepath.Join(b, name("g"))))
		must(t, os.Remove(filepath.Join(a, name("h"))))
		if err := unix.Linkat(fd, "", unix.AT_FDCWD, filepath.Join(a, name("i")), unix.AT_EMPTY_PATH); err != unix.ENOENT {
			t.Errorf("link of a file without a name: %v", err)
		}
	}
}
