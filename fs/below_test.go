package fs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
	"quernfs/meta/client"
)

// below is what lies below a mount: a tmpfs at p/q/vol, a directory of the host
// bound to p/bound, and who works in p/q.
type below struct {
	t      *testing.T
	vol    string
	bound  string
	thread chan func()
	watch  int // an inotify instance that watches p/q
	dir    *os.File
}

func newBelow(t *testing.T, mnt string) *below {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(mnt, "p/q/vol"), 0o755))
	b := &below{t: t, vol: filepath.Join(mnt, "p/q/vol"), thread: make(chan func())}
	must(t, unix.Mount("tmpfs", b.vol, "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(b.vol, unix.MNT_DETACH) })
	write1(t, filepath.Join(b.vol, "mine"), "x")
	host := t.TempDir()
	write1(t, filepath.Join(host, "mine"), "x")
	b.bound = filepath.Join(mnt, "p/bound")
	must(t, os.Mkdir(b.bound, 0o755))
	must(t, unix.Mount(host, b.bound, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(b.bound, unix.MNT_DETACH) })
	go func() { // its own working directory
		lockThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			t.Error(err)
		}
		if err := unix.Chdir(filepath.Dir(b.vol)); err != nil {
			t.Error(err)
		}
		for f := range b.thread {
			f()
		}
	}()
	t.Cleanup(func() { close(b.thread) })
	var err error
	b.dir, err = os.Open(filepath.Dir(b.vol))
	must(t, err)
	t.Cleanup(func() { b.dir.Close() })
	b.watch, err = unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { unix.Close(b.watch) })
	_, err = unix.InotifyAddWatch(b.watch, filepath.Dir(b.vol), unix.IN_CREATE)
	must(t, err)
	return b
}

// check: all is there by its name.
func (b *below) check(after string) {
	b.t.Helper()
	for _, d := range []string{b.vol, b.bound} {
		if _, err := os.Stat(filepath.Join(d, "mine")); err != nil {
			b.t.Fatalf("after %s: what was mounted is gone: %v", after, err)
		}
	}
	said := make(chan error)
	b.thread <- func() { _, err := unix.Getcwd(make([]byte, 4096)); said <- err }
	if err := <-said; err != nil {
		b.t.Fatalf("after %s: getcwd: %v", after, err)
	}
	b.checkOpen(after)
}

var checks int

// checkOpen: the directory that is open, worked in and watched is p/q, by whatever
// name, and who works there is found as a user of the mount (fuser -m does that).
func (b *below) checkOpen(after string) {
	b.t.Helper()
	checks++
	name := fmt.Sprintf("check-%d", checks)
	said := make(chan error)
	b.thread <- func() { said <- unix.Mkdir(name, 0o755) }
	if err := <-said; err != nil {
		b.t.Fatalf("after %s: mkdir in the working directory: %v", after, err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(b.dir.Fd()), name, &st, 0); err != nil {
		b.t.Fatalf("after %s: the open directory is another: %v", after, err)
	}
	var at unix.Stat_t
	b.thread <- func() { said <- unix.Stat("/proc/thread-self/cwd", &at) }
	if err := <-said; err != nil || at.Dev != st.Dev {
		b.t.Fatalf("after %s: the working directory is not seen on the mount: %v, device %x, want %x", after, err, at.Dev, st.Dev)
	}
	if n, err := unix.Read(b.watch, make([]byte, 4096)); err != nil || n == 0 {
		b.t.Fatalf("after %s: inotify saw nothing: %v", after, err)
	}
	must(b.t, unix.Unlinkat(int(b.dir.Fd()), name, unix.AT_REMOVEDIR))
}

// What is mounted below a mount, and who works there, stays while another mount
// changes attributes, and names that lie elsewhere.
func TestMountsBelowStay(t *testing.T) {
	a, b := two(t)
	for _, d := range []string{"other", "tree"} {
		must(t, os.Mkdir(filepath.Join(a, d), 0o755))
	}
	low := newBelow(t, b)
	low.check("nothing")
	for i := range rounds(30, 500) {
		for _, d := range []string{"p/q/vol", "p/q", "p", ".", "other"} {
			must(t, os.Chmod(filepath.Join(a, d), os.FileMode(0o700+i%64)))
			must(t, unix.Setxattr(filepath.Join(a, d), "user.x", []byte{byte(i)}, 0))
			low.check("chmod " + d)
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
		low.check("a rename")
		if err := os.Remove(filepath.Join(a, "p")); err == nil {
			t.Fatal("a directory with entries was removed")
		}
		low.check("a removal that was refused")
		must(t, os.RemoveAll(sub))
		absent(t, filepath.Join(b, "tree/s"))
		low.check("a removal")
	}
}

// Two mounts change one directory at once, with what is mounted below: each makes
// and removes names of its own.
func TestMountsBelowStayInASharedDirectory(t *testing.T) {
	a, b := two(t)
	low := newBelow(t, b)
	ended := make(chan error)
	n := rounds(100, 2000)
	churn := func(mnt string) error {
		for i := range n {
			for _, d := range []string{"p/q", "p", "."} {
				at := filepath.Join(mnt, d)
				name := filepath.Join(at, fmt.Sprintf("%s-%d", filepath.Base(mnt), i))
				if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
					return err
				}
				if err := os.Rename(name, name+".moved"); err != nil {
					return err
				}
				if err := os.Remove(name + ".moved"); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, m := range []string{a, b} {
		go func() { ended <- churn(m) }()
	}
	must(t, <-ended)
	must(t, <-ended)
	low.check("changes by both")
}

// A tree is unpacked, copied over, and removed, while another mount walks it and has
// something mounted there.
func TestMountsBelowStayWhileATreeIsWalked(t *testing.T) {
	a, b := two(t)
	low := newBelow(t, b)
	tree := filepath.Join(a, "p/tree")
	stop := make(chan struct{})
	walked := make(chan int)
	go func() {
		n := 0
		for {
			_ = filepath.WalkDir(filepath.Join(b, "p"), func(path string, d fs.DirEntry, err error) error {
				if err == nil {
					_, _ = d.Info()
				}
				return nil
			})
			n++
			select {
			case <-stop:
				walked <- n
				return
			default:
			}
		}
	}()
	for range rounds(5, 50) {
		for d := range 10 {
			dir := filepath.Join(tree, fmt.Sprint(d))
			must(t, os.MkdirAll(dir, 0o700))
			for f := range 20 {
				name := filepath.Join(dir, fmt.Sprint(f))
				write1(t, name+".tmp", "x")
				must(t, os.Chmod(name+".tmp", 0o640))
				must(t, os.Rename(name+".tmp", name))
			}
			must(t, os.Chmod(dir, 0o755))
			must(t, os.Chtimes(dir, time.Unix(1, 0), time.Unix(1, 0)))
		}
		low.check("the copy")
		must(t, os.RemoveAll(tree))
		low.check("the removal")
	}
	close(stop)
	if <-walked == 0 {
		t.Error("nothing was walked")
	}
}

// A session that lapses, or ends, does not take away what lies below.
func TestMountsBelowStayWithoutASession(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	a, mnt := c.mountFS()
	other := c.mount()
	low := newBelow(t, mnt)
	write1(t, filepath.Join(mnt, "p/q/seen"), "x")
	absent(t, filepath.Join(mnt, "p/q/unseen"))
	h := &holder{a}
	held := h.Held()
	h.Lapsed()
	low.check("the lapse")
	h.Reclaimed(held)
	low.check("the reclaim")
	h.Lapsed()
	h.Reclaimed(nil)
	low.check("the loss of all leases")
	old := a.Session()
	plain, err := client.Open(t.Context(), client.Config{Servers: []*wire.Endpoint{c.ep}, Pool: c.pool("client", "operator"), Name: "operator", Log: c.log})
	must(t, err)
	c.closes("operator", plain.Close)
	_, err = plain.Do(t.Context(), &wire.Command{Session: old, Op: &wire.Command_EndSession{EndSession: &wire.EndSession{Id: old}}})
	must(t, err)
	eventually(t, "a new session", func() bool { s := a.Session(); return s != 0 && s != old })
	low.check("the end of the session")
	// What was forgotten is seen anew.
	must(t, os.Remove(filepath.Join(other, "p/q/seen")))
	write1(t, filepath.Join(other, "p/q/unseen"), "y")
	absent(t, filepath.Join(mnt, "p/q/seen"))
	expect(t, filepath.Join(mnt, "p/q/unseen"), "y")
}

// What an epoch, the last resort, does to directories: the names go, and what is
// mounted with them, at the next look-up; who has a directory open, works in it or
// watches it goes on, and has its name again once it is looked up.
func TestEpoch(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	a, mnt := c.mountFS()
	low := newBelow(t, mnt)
	if !a.kernel().newEpoch() {
		t.Skip("this kernel knows no epochs")
	}
	low.checkOpen("an epoch")
	if _, err := os.Stat(filepath.Join(low.vol, "mine")); err == nil {
		t.Error("what was mounted is still there: docs/posix.md says that it goes")
	}
	if _, err := os.Stat(low.vol); err != nil {
		t.Errorf("the directory below: %v", err)
	}
	low.checkOpen("a look-up after an epoch")
	said := make(chan error)
	low.thread <- func() { _, err := unix.Getcwd(make([]byte, 4096)); said <- err }
	if err := <-said; err != nil {
		t.Errorf("getcwd after the directory was looked up: %v", err)
	}
}
