package fs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quernfs/internal/acl"
)

// What POSIX and Linux ask of one mount. One cluster serves all cases.
func TestPosix(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	mnt := c.mount()
	for _, x := range []struct {
		name string
		test func(*testing.T, string)
	}{
		{"links", posixLinks}, {"rename flags", posixRename}, {"truncate", posixTruncate}, {"holes", posixHoles},
		{"fallocate", posixFallocate}, {"copy range", posixCopyRange}, {"xattrs", posixXattrs}, {"acl", posixACL},
		{"tmpfile", posixTmpfile}, {"special files", posixSpecial}, {"setgid", posixSetgid}, {"times", posixTimes},
		{"mmap", posixMmap}, {"direct", posixDirect}, {"unlinked", posixUnlinked}, {"append", posixAppend},
		{"directory", posixDirectory}, {"removal while reading", posixRemoveWhileReading}, {"handles", posixHandles},
		{"suid", posixSuid}, {"random io", posixRandom}, {"statfs", posixStatfs}, {"locks", posixLocks}, {"policy", posixPolicy},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir := filepath.Join(mnt, strings.ReplaceAll(x.name, " ", "-"))
			must(t, os.Mkdir(dir, 0o755))
			x.test(t, dir)
		})
	}
}

func lstat(t *testing.T, p string) *syscall.Stat_t {
	t.Helper()
	var st syscall.Stat_t
	must(t, syscall.Lstat(p, &st))
	return &st
}

func wantErr(t *testing.T, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%v, want %v", err, want)
	}
}

func posixLinks(t *testing.T, d string) {
	a, b, s := filepath.Join(d, "a"), filepath.Join(d, "b"), filepath.Join(d, "s")
	write1(t, a, "content")
	must(t, os.Link(a, b))
	if st := lstat(t, b); st.Nlink != 2 || st.Ino != lstat(t, a).Ino {
		t.Fatalf("%+v", st)
	}
	must(t, os.Symlink("a", s))
	if to, err := os.Readlink(s); err != nil || to != "a" {
		t.Fatal(to, err)
	}
	expect(t, s, "content")
	if st := lstat(t, s); st.Mode&syscall.S_IFMT != syscall.S_IFLNK || st.Size != 1 {
		t.Fatalf("%+v", st)
	}
	must(t, os.Remove(a))
	expect(t, b, "content")
	_, err := os.ReadFile(s)
	wantErr(t, err, syscall.ENOENT)
	wantErr(t, os.Link(d, filepath.Join(d, "x")), syscall.EPERM)
	wantErr(t, os.Mkdir(filepath.Join(d, strings.Repeat("n", 256)), 0o755), syscall.ENAMETOOLONG)
	must(t, os.Mkdir(filepath.Join(d, strings.Repeat("n", 255)), 0o755))
	if st := lstat(t, d); st.Nlink != 3 {
		t.Fatalf("a directory with one subdirectory has %d links", st.Nlink)
	}
}

func posixRename(t *testing.T, d string) {
	a, b := filepath.Join(d, "a"), filepath.Join(d, "b")
	write1(t, a, "A")
	write1(t, b, "B")
	wantErr(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE), syscall.EEXIST)
	must(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
	expect(t, a, "B")
	expect(t, b, "A")
	must(t, os.Rename(a, b))
	expect(t, b, "B")
	absent(t, a)
	must(t, os.MkdirAll(filepath.Join(d, "x/y"), 0o755))
	wantErr(t, os.Rename(filepath.Join(d, "x"), filepath.Join(d, "x/y/z")), syscall.EINVAL)
	must(t, os.MkdirAll(filepath.Join(d, "p"), 0o755))
	must(t, os.Rename(filepath.Join(d, "x/y"), filepath.Join(d, "p/y")))
	if a, b := lstat(t, filepath.Join(d, "x")).Nlink, lstat(t, filepath.Join(d, "p")).Nlink; a != 2 || b != 3 {
		t.Fatalf("link counts %d and %d", a, b)
	}
	up, err := os.Stat(filepath.Join(d, "p/y/.."))
	must(t, err)
	p, err := os.Stat(filepath.Join(d, "p"))
	must(t, err)
	if !os.SameFile(up, p) {
		t.Fatal(".. of the moved directory")
	}
	wantErr(t, unix.Rename(filepath.Join(d, "x"), filepath.Join(d, "p")), syscall.ENOTEMPTY)
	must(t, os.Link(b, filepath.Join(d, "b2")))
	must(t, unix.Rename(b, filepath.Join(d, "b2"))) // two names of one file: nothing happens
	expect(t, b, "B")
}

func posixXattrs(t *testing.T, d string) {
	p := filepath.Join(d, "f")
	write1(t, p, "")
	buf := make([]byte, 70_000)
	wantErr(t, unix.Setxattr(p, "user.a", []byte("1"), unix.XATTR_REPLACE), syscall.ENODATA)
	must(t, unix.Setxattr(p, "user.a", []byte("1"), unix.XATTR_CREATE))
	wantErr(t, unix.Setxattr(p, "user.a", []byte("1"), unix.XATTR_CREATE), syscall.EEXIST)
	must(t, unix.Setxattr(p, "user.empty", nil, 0))
	for _, bare := range []string{"user.", "trusted.", "security."} {
		wantErr(t, unix.Setxattr(p, bare, []byte("1"), 0), syscall.EINVAL)
		_, err := unix.Getxattr(p, bare, nil)
		wantErr(t, err, syscall.EINVAL)
		wantErr(t, unix.Removexattr(p, bare), syscall.EINVAL)
	}
	wantErr(t, unix.Setxattr(p, "other.", []byte("1"), 0), syscall.EOPNOTSUPP)
	must(t, unix.Setxattr(p, "trusted.t", []byte("t"), 0))
	big := bytes.Repeat([]byte("x"), 60_000)
	must(t, unix.Setxattr(p, "user.big", big, 0))
	n, err := unix.Getxattr(p, "user.big", buf)
	must(t, err)
	if !bytes.Equal(buf[:n], big) {
		t.Fatal("the long value differs")
	}
	_, err = unix.Getxattr(p, "user.big", buf[:10])
	wantErr(t, err, syscall.ERANGE)
	if n, err := unix.Getxattr(p, "user.big", nil); err != nil || n != 60_000 {
		t.Fatal(n, err)
	}
	if n, err := unix.Getxattr(p, "user.empty", buf); err != nil || n != 0 {
		t.Fatal(n, err)
	}
	n, err = unix.Listxattr(p, buf)
	must(t, err)
	for _, name := range []string{"user.a", "user.empty", "user.big", "trusted.t"} {
		if !strings.Contains(string(buf[:n]), name+"\x00") {
			t.Errorf("%s is not listed: %q", name, buf[:n])
		}
	}
	must(t, unix.Removexattr(p, "user.a"))
	wantErr(t, unix.Removexattr(p, "user.a"), syscall.ENODATA)
	_, err = unix.Getxattr(p, "user.a", buf)
	wantErr(t, err, syscall.ENODATA)
}

// encoded is an ACL as the kernel passes it.
func encoded(t *testing.T, text string) []byte {
	t.Helper()
	list, err := acl.Parse(text)
	must(t, err)
	return list.Encode()
}

func posixACL(t *testing.T, d string) {
	p := filepath.Join(d, "f")
	write1(t, p, "x")
	must(t, os.Chmod(p, 0o640))
	must(t, unix.Setxattr(p, acl.Access, encoded(t, "u:rw,U1234:r,g:r,m:r,o:-"), 0))
	if m := lstat(t, p).Mode & 0o777; m != 0o640 {
		t.Errorf("mode %o", m)
	}
	as(t, 1234, 1234, func() {
		if _, err := os.ReadFile(p); err != nil {
			t.Error(err)
		}
	})
	as(t, 1235, 1235, func() {
		if _, err := os.ReadFile(p); !errors.Is(err, syscall.EACCES) {
			t.Error(err)
		}
	})
	// A default ACL is inherited, in place of the umask.
	must(t, unix.Setxattr(d, acl.Default, encoded(t, "u:rwx,U1234:rwx,g:rx,m:rwx,o:-"), 0))
	must(t, os.Mkdir(filepath.Join(d, "sub"), 0o777))
	if m := lstat(t, filepath.Join(d, "sub")).Mode & 0o777; m != 0o770 {
		t.Errorf("mode of the new directory %o", m)
	}
	buf := make([]byte, 1000)
	if n, err := unix.Getxattr(filepath.Join(d, "sub"), acl.Default, buf); err != nil || n == 0 {
		t.Error(n, err)
	}
	must(t, unix.Removexattr(d, acl.Default))
	must(t, os.Chmod(p, 0o600)) // sets the mask
	as(t, 1234, 1234, func() {
		if _, err := os.ReadFile(p); !errors.Is(err, syscall.EACCES) {
			t.Error(err)
		}
	})
}

func posixTmpfile(t *testing.T, d string) {
	fd, err := unix.Open(d, unix.O_TMPFILE|unix.O_RDWR, 0o640)
	must(t, err)
	f := os.NewFile(uintptr(fd), "tmpfile")
	_, err = f.WriteString("no name yet")
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	if st.Nlink != 0 {
		t.Fatalf("%d links", st.Nlink)
	}
	p := filepath.Join(d, "named")
	must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, p, unix.AT_SYMLINK_FOLLOW))
	must(t, f.Close())
	expect(t, p, "no name yet")
	if n := lstat(t, p).Nlink; n != 1 {
		t.Fatalf("%d links", n)
	}
	// One that never gets a name goes with its descriptor.
	fd, err = unix.Open(d, unix.O_TMPFILE|unix.O_WRONLY|unix.O_EXCL, 0o600)
	must(t, err)
	_, err = unix.Write(fd, []byte("lost"))
	must(t, err)
	must(t, unix.Close(fd))
	if l, _ := os.ReadDir(d); len(l) != 1 {
		t.Fatal(l)
	}
}

func posixSpecial(t *testing.T, d string) {
	for _, c := range []struct {
		name string
		mode uint32
		dev  int
	}{{"fifo", unix.S_IFIFO | 0o600, 0}, {"socket", unix.S_IFSOCK | 0o600, 0}, {"null", unix.S_IFCHR | 0o666, int(unix.Mkdev(1, 3))}, {"block", unix.S_IFBLK | 0o600, int(unix.Mkdev(7, 200))}, {"plain", unix.S_IFREG | 0o644, 0}} {
		p := filepath.Join(d, c.name)
		must(t, unix.Mknod(p, c.mode, c.dev))
		if st := lstat(t, p); st.Mode != c.mode&^0o022 || c.dev != 0 && st.Rdev != uint64(c.dev) {
			t.Errorf("%s: mode %o rdev %d", c.name, st.Mode, st.Rdev)
		}
	}
	must(t, os.WriteFile(filepath.Join(d, "null"), []byte("gone"), 0))
	r, w := make(chan string, 1), filepath.Join(d, "fifo")
	go func() { b, _ := os.ReadFile(w); r <- string(b) }()
	must(t, os.WriteFile(w, []byte("through the pipe"), 0))
	if got := <-r; got != "through the pipe" {
		t.Errorf("%q", got)
	}
}

// as runs f on a thread of another user.
func as(t *testing.T, uid, gid int, f func(), groups ...int) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		lockThread()
		// The thread ends with its goroutine, and its identity with it.
		gids := make([]uint32, 0, len(groups))
		for _, g := range groups {
			gids = append(gids, uint32(g))
		}
		if err := setThread(uid, gid, gids); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

func posixSetgid(t *testing.T, d string) {
	must(t, os.Chown(d, 0, 2000))
	must(t, os.Chmod(d, 0o777|os.ModeSetgid))
	as(t, 1001, 1001, func() {
		if err := os.WriteFile(filepath.Join(d, "f"), nil, 0o644); err != nil {
			t.Error(err)
		}
		if err := os.Mkdir(filepath.Join(d, "sub"), 0o755); err != nil {
			t.Error(err)
		}
		// A member of the file's group only may set the bit.
		if err := unix.Chmod(filepath.Join(d, "f"), 0o2755); err != nil {
			t.Error(err)
		}
	})
	if st := lstat(t, filepath.Join(d, "f")); st.Gid != 2000 || st.Uid != 1001 || st.Mode&0o7777 != 0o755 {
		t.Errorf("file: %+v", st)
	}
	if st := lstat(t, filepath.Join(d, "sub")); st.Gid != 2000 || st.Mode&0o7777 != 0o2755 {
		t.Errorf("directory: mode %o gid %d", st.Mode, st.Gid)
	}
	as(t, 1001, 1001, func() {
		if err := unix.Chmod(filepath.Join(d, "f"), 0o2755); err != nil {
			t.Error(err)
		}
	}, 2000)
	if st := lstat(t, filepath.Join(d, "f")); st.Mode&0o7777 != 0o2755 {
		t.Errorf("set by a member: %o", st.Mode)
	}
	// Sticky: only owners remove.
	must(t, os.Chmod(d, 0o777|os.ModeSticky))
	as(t, 1002, 1002, func() {
		if err := os.Remove(filepath.Join(d, "f")); !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES) {
			t.Error(err)
		}
	})
	must(t, os.Chown(filepath.Join(d, "f"), 1002, 1002))
	as(t, 1002, 1002, func() {
		if err := os.Remove(filepath.Join(d, "f")); err != nil {
			t.Error(err)
		}
	})
}

func posixTimes(t *testing.T, d string) {
	p := filepath.Join(d, "f")
	write1(t, p, "x")
	set := func(at, mt int64) {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{unix.NsecToTimespec(at), unix.NsecToTimespec(mt)}, 0))
	}
	set(1_111_111_111_123456789, 1_222_222_222_987654321)
	st := lstat(t, p)
	if st.Atim.Nano() != 1_111_111_111_123456789 || st.Mtim.Nano() != 1_222_222_222_987654321 {
		t.Fatalf("%+v", st)
	}
	set(-5_000_000_001, -1)
	if st := lstat(t, p); st.Atim.Nano() != -5_000_000_001 || st.Mtim.Nano() != -1 {
		t.Fatalf("before 1970: %d %d", st.Atim.Nano(), st.Mtim.Nano())
	}
	before := time.Now().Add(-time.Second)
	recent := func(what string, ts syscall.Timespec) {
		t.Helper()
		if at := time.Unix(ts.Unix()); at.Before(before) || at.After(time.Now().Add(time.Second)) {
			t.Errorf("%s: %v", what, at)
		}
	}
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("y")
	must(t, err)
	recent("mtime after a write", lstat(t, p).Mtim)
	recent("ctime after a write", lstat(t, p).Ctim)
	must(t, f.Sync())
	recent("mtime after fsync", lstat(t, p).Mtim)
	set(1_000_000_000_000000000, 1_000_000_000_000000000)
	must(t, f.Sync())
	if st := lstat(t, p); st.Mtim.Nano() != 1_000_000_000_000000000 {
		t.Errorf("mtime after utimes and fsync: %d", st.Mtim.Nano())
	}
	// Directories.
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, d, []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0))
	write1(t, filepath.Join(d, "g"), "")
	recent("mtime of the directory", lstat(t, d).Mtim)
	var sx unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, p, 0, unix.STATX_BTIME, &sx))
	if sx.Mask&unix.STATX_BTIME == 0 {
		t.Error("no birth time")
	} else {
		recent("birth", syscall.Timespec{Sec: sx.Btime.Sec, Nsec: int64(sx.Btime.Nsec)})
	}
	// O_NOATIME, with an access time that a read would move.
	must(t, os.WriteFile(filepath.Join(d, "noatime"), []byte("x"), 0o644))
	must(t, os.Chtimes(filepath.Join(d, "noatime"), time.Unix(1000, 0), time.Unix(2000, 0)))
	quiet, err := os.OpenFile(filepath.Join(d, "noatime"), os.O_RDONLY|syscall.O_NOATIME, 0)
	must(t, err)
	_, err = quiet.Read(make([]byte, 1))
	must(t, err)
	must(t, quiet.Close())
	if st := lstat(t, filepath.Join(d, "noatime")); st.Atim.Sec != 1000 {
		t.Errorf("a read with O_NOATIME moved the access time to %v", st.Atim)
	}
	// relatime: a read moves an access time that is older than the change.
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Sec: 5}, {Sec: 10}}, 0))
	q, err := os.Open(p)
	must(t, err)
	defer q.Close()
	if _, err := unix.Pread(int(q.Fd()), make([]byte, 1), 1); err != nil {
		t.Fatal(err)
	}
	if st := lstat(t, p); st.Mtim.Sec != 10 {
		t.Errorf("mtime %d", st.Mtim.Sec)
	}
}

func posixUnlinked(t *testing.T, d string) {
	p := filepath.Join(d, "f")
	f, err := os.Create(p)
	must(t, err)
	_, err = f.WriteString("here")
	must(t, err)
	must(t, os.Remove(p))
	_, err = f.WriteString(" and there")
	must(t, err)
	must(t, f.Sync())
	buf := make([]byte, 14)
	_, err = f.ReadAt(buf, 0)
	must(t, err)
	if string(buf) != "here and there" {
		t.Fatalf("%q", buf)
	}
	var st unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &st))
	if st.Nlink != 0 || st.Size != 14 {
		t.Fatalf("%+v", st)
	}
	must(t, f.Truncate(3))
	must(t, f.Chmod(0o600))
	must(t, f.Close())
	// The current directory of somebody is removed.
	sub := filepath.Join(d, "sub")
	must(t, os.Mkdir(sub, 0o755))
	h, err := os.Open(sub)
	must(t, err)
	defer h.Close()
	must(t, os.Remove(sub))
	if names, err := h.Readdirnames(-1); !errors.Is(err, syscall.ENOENT) { // as on Linux's own filesystems
		t.Fatal(names, err)
	}
	_, err = os.Create(filepath.Join(fmt.Sprintf("/proc/self/fd/%d", h.Fd()), "x"))
	wantErr(t, err, syscall.ENOENT)
}

func posixDirectory(t *testing.T, d string) {
	const n = 800
	for i := range n {
		fd, err := unix.Open(filepath.Join(d, fmt.Sprintf("entry-%05d", i)), unix.O_CREAT|unix.O_WRONLY, 0o644)
		must(t, err)
		must(t, unix.Close(fd))
	}
	fd, err := unix.Open(d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	type entry struct {
		name string
		off  int64
	}
	readFrom := func(off int64) (list []entry) {
		_, err := unix.Seek(fd, off, 0)
		must(t, err)
		buf := make([]byte, 8192)
		for {
			n, err := unix.Getdents(fd, buf)
			must(t, err)
			if n == 0 {
				return list
			}
			for b := buf[:n]; len(b) > 0; {
				l := binary.NativeEndian.Uint16(b[16:])
				name, _, _ := bytes.Cut(b[19:l], []byte{0})
				list = append(list, entry{string(name), int64(binary.NativeEndian.Uint64(b[8:]))})
				b = b[l:]
			}
		}
	}
	all := readFrom(0)
	seen := map[string]bool{}
	for _, e := range all {
		if seen[e.name] {
			t.Fatalf("%s twice", e.name)
		}
		seen[e.name] = true
	}
	if len(all) != n+2 {
		t.Fatalf("%d entries", len(all))
	}
	// An offset means the same after other entries have gone.
	at := all[n/2]
	for i, e := range all[2 : n/2] {
		if i%3 == 0 {
			must(t, os.Remove(filepath.Join(d, e.name)))
		}
	}
	rest := readFrom(at.off)
	if len(rest) != len(all)-n/2-1 {
		t.Fatalf("%d entries after the middle, want %d", len(rest), len(all)-n/2-1)
	}
	for i, e := range rest {
		if e.name != all[n/2+1+i].name {
			t.Fatalf("entry %d is %s, want %s", i, e.name, all[n/2+1+i].name)
		}
	}
}

func posixRemoveWhileReading(t *testing.T, d string) {
	sub := filepath.Join(d, "tree")
	for i := range 12 {
		p := filepath.Join(sub, fmt.Sprint(i%7), fmt.Sprint(i%3))
		must(t, os.MkdirAll(p, 0o755))
		for k := range 20 {
			write1(t, filepath.Join(p, fmt.Sprint(i, "-", k)), "x")
		}
	}
	must(t, os.RemoveAll(sub))
	absent(t, sub)
}

func posixHandles(t *testing.T, d string) {
	p := filepath.Join(d, "f")
	write1(t, p, "by handle")
	h, id, err := unix.NameToHandleAt(unix.AT_FDCWD, p, 0)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("this kernel's FUSE gives no handles")
	}
	must(t, err)
	_ = id
	m, err := unix.Open(d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(m)
	fd, err := unix.OpenByHandleAt(m, h, unix.O_RDONLY)
	must(t, err)
	defer unix.Close(fd)
	buf := make([]byte, 20)
	n, err := unix.Read(fd, buf)
	must(t, err)
	if string(buf[:n]) != "by handle" {
		t.Fatalf("%q", buf[:n])
	}
}

func posixSuid(t *testing.T, d string) {
	must(t, os.Chmod(d, 0o777))
	p := filepath.Join(d, "f")
	fresh := func() {
		t.Helper()
		os.Remove(p)
		write1(t, p, "program")
		must(t, os.Chown(p, 1001, 1001))
		must(t, unix.Chmod(p, 0o6777))
		if m := lstat(t, p).Mode & 0o7777; m != 0o6777 {
			t.Fatalf("mode %o", m)
		}
	}
	fresh()
	as(t, 1002, 1002, func() {
		f, err := os.OpenFile(p, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if _, err := f.WriteString("x"); err != nil {
			t.Error(err)
		}
	})
	if m := lstat(t, p).Mode & 0o7777; m != 0o777 {
		t.Errorf("after a write by another: %o", m)
	}
	fresh()
	as(t, 1002, 1002, func() {
		if err := os.Truncate(p, 0); err != nil {
			t.Error(err)
		}
	})
	if m := lstat(t, p).Mode & 0o7777; m != 0o777 {
		t.Errorf("after truncate by another: %o", m)
	}
	fresh()
	must(t, os.Chown(p, 1003, 1003))
	if m := lstat(t, p).Mode & 0o7777; m != 0o777 {
		t.Errorf("after chown: %o", m)
	}
}

func posixStatfs(t *testing.T, d string) {
	var st unix.Statfs_t
	must(t, unix.Statfs(d, &st))
	if st.Blocks == 0 || st.Bfree == 0 || st.Namelen != 255 || st.Bsize == 0 {
		t.Fatalf("%+v", st)
	}
}

func posixLocks(t *testing.T, d string) {
	p := filepath.Join(d, "f")
	write1(t, p, "0123456789")
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	g, err := os.OpenFile(p, os.O_RDWR, 0)
	must(t, err)
	posix := func(x *os.File, cmd int, typ int16, from, n int64) error {
		return unix.FcntlFlock(x.Fd(), cmd, &unix.Flock_t{Type: typ, Start: from, Len: n})
	}
	must(t, posix(f, unix.F_SETLK, unix.F_WRLCK, 0, 5))
	// Another open file of this process does not see the process's own lock,
	// an OFD lock does.
	must(t, posix(g, unix.F_SETLK, unix.F_WRLCK, 2, 5))
	wantErr(t, posix(g, unix.F_OFD_SETLK, unix.F_WRLCK, 0, 1), syscall.EAGAIN)
	// Any close drops all locks of the process.
	must(t, g.Close())
	h, err := os.OpenFile(p, os.O_RDWR, 0)
	must(t, err)
	defer h.Close()
	must(t, posix(h, unix.F_OFD_SETLK, unix.F_WRLCK, 0, 10))
	wantErr(t, posix(f, unix.F_SETLK, unix.F_RDLCK, 9, 1), syscall.EAGAIN)
}

func posixPolicy(t *testing.T, d string) {
	must(t, unix.Setxattr(d, "user.quern.policy", []byte("1+2"), 0))
	buf := make([]byte, 100)
	n, err := unix.Getxattr(d, "user.quern.policy", buf)
	must(t, err)
	if !strings.HasPrefix(string(buf[:n]), "1+2") {
		t.Fatalf("%q", buf[:n])
	}
	must(t, os.WriteFile(filepath.Join(d, "three"), bytes.Repeat([]byte("copies"), 10_000), 0o644))
	n, err = unix.Getxattr(filepath.Join(d, "three"), "user.quern.policy", buf)
	must(t, err)
	if !strings.HasPrefix(string(buf[:n]), "1+2") {
		t.Fatalf("inherited: %q", buf[:n])
	}
	if err := unix.Setxattr(d, "user.quern.policy", []byte("900+1"), 0); err == nil {
		t.Fatal("a policy that makes no sense was taken")
	}
}
