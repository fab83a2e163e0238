package fs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is mounted below a mount, and who works there, stays while another mount
// changes attributes, and names that lie elsewhere.
func TestMountsBelowStay(t *testing.T) {
	a, b := two(t)
	for _, d := range []string{"p", "p/q", "p/q/vol", "other", "tree"} {
		must(t, os.Mkdir(filepath.Join(a, d), 0o755))
	}
	vol := filepath.Join(b, "p/q/vol")
	must(t, unix.Mount("tmpfs", vol, "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(vol, unix.MNT_DETACH) })
	write1(t, filepath.Join(vol, "mine"), "x")
	thread := make(chan func())
	go func() { // its own working directory
		lockThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			t.Error(err)
		}
		if err := unix.Chdir(filepath.Join(b, "p/q")); err != nil {
			t.Error(err)
		}
		for f := range thread {
			f()
		}
	}()
	defer close(thread)
	check := func(after string) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(vol, "mine")); err != nil {
			t.Fatalf("after %s: what was mounted is gone: %v", after, err)
		}
		said := make(chan error)
		thread <- func() { _, err := unix.Getcwd(make([]byte, 4096)); said <- err }
		if err := <-said; err != nil {
			t.Fatalf("after %s: getcwd: %v", after, err)
		}
	}
	check("nothing")
	for i := range rounds(30, 500) {
		for _, d := range []string{"p/q/vol", "p/q", "p", ".", "other"} {
			must(t, os.Chmod(filepath.Join(a, d), os.FileMode(0o700+i%64)))
			must(t, unix.Setxattr(filepath.Join(a, d), "user.x", []byte{byte(i)}, 0))
			check("chmod " + d)
		}
		// A tree that this mount walks comes and goes.
		sub := filepath.Join(a, "tree/s")
		must(t, os.MkdirAll(filepath.Join(sub, "t"), 0o755))
		for _, n := range []string{"s/1", "s/2", "s/t/3"} {
			write1(t, filepath.Join(a, "tree", n), n)
			if _, err := os.Stat(filepath.Join(b, "tree", n)); err != nil {
				t.Fatal(err)
			}
		}
		must(t, os.Rename(filepath.Join(sub, "1"), filepath.Join(sub, "2")))
		check("a rename")
		if err := os.Remove(filepath.Join(a, "p")); err == nil {
			t.Fatal("a directory with entries was removed")
		}
		check("a removal that was refused")
		must(t, os.RemoveAll(sub))
		absent(t, filepath.Join(b, "tree/s"))
		check("a removal")
	}
}
