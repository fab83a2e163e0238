package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWhiteout: RENAME_WHITEOUT leaves a character device 0/0, on every mount.
func TestWhiteout(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	a, b := c.mount(), c.mount()
	must(t, os.Chmod(a, 0o777))
	check := func(name, what string) {
		t.Helper()
		for _, m := range []string{a, b} {
			var st unix.Stat_t
			must(t, unix.Lstat(filepath.Join(m, name), &st))
			if st.Mode != unix.S_IFCHR || st.Rdev != 0 || st.Nlink != 1 {
				t.Errorf("%s: mode %o, device %d, %d links: no whiteout", name, st.Mode, st.Rdev, st.Nlink)
			}
			expect(t, filepath.Join(m, what), what)
		}
	}
	rename := func(from, to string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, filepath.Join(a, from), unix.AT_FDCWD, filepath.Join(a, to), flags)
	}
	write1(t, filepath.Join(a, "x"), "y")
	expect(t, filepath.Join(b, "x"), "y")
	must(t, rename("x", "y", unix.RENAME_WHITEOUT))
	check("x", "y")
	write1(t, filepath.Join(a, "z"), "z")
	wantErr(t, rename("z", "y", unix.RENAME_WHITEOUT|unix.RENAME_NOREPLACE), syscall.EEXIST)
	wantErr(t, rename("z", "y", unix.RENAME_WHITEOUT|unix.RENAME_EXCHANGE), syscall.EINVAL)
	must(t, os.WriteFile(filepath.Join(a, "z"), []byte("w"), 0o644))
	must(t, rename("z", "w", unix.RENAME_WHITEOUT|unix.RENAME_NOREPLACE))
	check("z", "w")
	// Over what is there, a directory too.
	must(t, os.WriteFile(filepath.Join(a, "w"), []byte("y"), 0o644))
	must(t, rename("w", "y", unix.RENAME_WHITEOUT))
	check("w", "y")
	must(t, os.Mkdir(filepath.Join(a, "d"), 0o755))
	must(t, rename("d", "e", unix.RENAME_WHITEOUT))
	check("d", "y")
	var st unix.Stat_t
	must(t, unix.Stat(a, &st))
	if st.Nlink != 4 { // itself, .compute and e
		t.Errorf("the root has %d links", st.Nlink)
	}
	must(t, os.Remove(filepath.Join(b, "x")))
	absent(t, filepath.Join(a, "x"))
}

// TestOverlayUpper: the kernel's overlayfs takes a directory of a mount as its upper
// layer, as containers do.
func TestOverlayUpper(t *testing.T) {
	if raw, _ := os.ReadFile("/proc/filesystems"); !strings.Contains(string(raw), "\toverlay\n") {
		t.Skip("the kernel here has no overlayfs")
	}
	c := newCluster(t, 6, "4+2")
	mnt := c.mount()
	lower, merged := t.TempDir(), t.TempDir()
	upper, work := filepath.Join(mnt, "upper"), filepath.Join(mnt, "work")
	must(t, os.Mkdir(upper, 0o755))
	must(t, os.Mkdir(work, 0o755))
	for _, d := range []string{"dir", "gone", "moved"} {
		must(t, os.Mkdir(filepath.Join(lower, d), 0o755))
	}
	for _, f := range []string{"removed", "changed", "renamed", "dir/a", "dir/b", "gone/c", "moved/d"} {
		write1(t, filepath.Join(lower, f), "lower "+f)
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,redirect_dir=on,index=off,metacopy=off", lower, upper, work)
	mount := func() { must(t, unix.Mount("overlay", merged, "overlay", 0, options)) }
	mount()
	t.Cleanup(func() { _ = unix.Unmount(merged, unix.MNT_DETACH) })
	in := func(name string) string { return filepath.Join(merged, name) }

	write1(t, in("new"), "new")
	f, err := os.OpenFile(in("changed"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString("+")
	must(t, err)
	must(t, f.Close())
	must(t, os.Remove(in("removed")))
	must(t, os.Rename(in("renamed"), in("other")))
	must(t, os.RemoveAll(in("gone")))
	must(t, os.Mkdir(in("gone"), 0o700)) // opaque
	must(t, os.Rename(in("moved"), in("there")))
	must(t, os.Chmod(in("dir/a"), 0o600))
	must(t, os.Rename(in("dir/b"), in("dir/a")))
	must(t, os.Symlink("new", in("link")))
	must(t, os.Link(in("new"), in("hard")))
	must(t, unix.Setxattr(in("new"), "user.x", []byte("y"), 0))
	tmp, err := unix.Open(merged, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	must(t, err)
	must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", tmp), unix.AT_FDCWD, in("tmp"), unix.AT_SYMLINK_FOLLOW))
	must(t, unix.Close(tmp))

	check := func() {
		t.Helper()
		var names []string
		must(t, filepath.WalkDir(merged, func(p string, _ os.DirEntry, err error) error {
			names = append(names, strings.TrimPrefix(p, merged))
			return err
		}))
		want := []string{"", "/changed", "/dir", "/dir/a", "/gone", "/hard", "/link", "/new", "/other", "/there", "/there/d", "/tmp"}
		if !slices.Equal(names, want) {
			t.Errorf("the overlay holds %q, wanted %q", names, want)
		}
		for name, text := range map[string]string{
			"new": "new", "hard": "new", "link": "new", "changed": "lower changed+", "other": "lower renamed", "dir/a": "lower dir/b", "there/d": "lower moved/d",
		} {
			expect(t, in(name), text)
		}
	}
	check()
	// What the upper layer holds of it lasts.
	must(t, unix.Unmount(merged, 0))
	var st unix.Stat_t
	must(t, unix.Lstat(filepath.Join(upper, "removed"), &st))
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("removed is mode %o, device %d, and no whiteout", st.Mode, st.Rdev)
	}
	buf := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(upper, "gone"), "trusted.overlay.opaque", buf); err != nil || string(buf[:max(n, 0)]) != "y" {
		t.Errorf("gone is not opaque: %q %v", buf, err)
	}
	mount()
	check()
	if err := os.Remove(in("removed")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed is there again: %v", err)
	}
}
