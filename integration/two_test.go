package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTwoMounts: two mounts, one truth. Both are processes of their own.
func TestTwoMounts(t *testing.T) {
	c := startCluster(t, "--processes", "--meta-servers", "1")
	a, b := c.mnt, c.secondMount().dir
	for name, test := range map[string]func(t *testing.T, a, b string){
		"close to open":      testCloseToOpen,
		"attributes":         testAttributes,
		"names":              testNames,
		"exclusive create":   testExclusive,
		"atomic rename":      testAtomicRename,
		"append":             testAppend,
		"shared mapping":     testMapping,
		"read while written": testReadWhileWritten,
		"unlinked":           testUnlinked,
		"locks":              testLocks,
	} {
		t.Run(name, func(t *testing.T) {
			dir := strings.ReplaceAll(name, " ", "-")
			if err := os.Mkdir(filepath.Join(a, dir), 0o777); err != nil {
				t.Fatal(err)
			}
			test(t, filepath.Join(a, dir), filepath.Join(b, dir))
		})
	}
	t.Run("locks die with their mount", func(t *testing.T) { testLockDeath(t, c) })
}

// What one mount has written and closed, the other reads at once.
func testCloseToOpen(t *testing.T, a, b string) {
	for i := range 200 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		size := []int{10, 3000, 70_000, 1 << 20}[i/2%4]
		want := pattern(uint64(i), size+i)
		path := "same"
		if i%3 == 0 {
			path = fmt.Sprintf("new-%d", i)
		}
		if err := os.WriteFile(filepath.Join(from, path), want, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(to, path))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: the other mount reads %d bytes (%v), %d were written", i, len(got), err, len(want))
		}
	}
}

// Sizes, times and modes are seen at once too, when they had been looked at
// before.
func testAttributes(t *testing.T, a, b string) {
	pa, pb := filepath.Join(a, "f"), filepath.Join(b, "f")
	writeFile(t, pa, "x")
	for i := range 100 {
		before, err := os.Stat(pb)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(pa, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("more")
		f.Close()
		mode := os.FileMode(0o600 + i%64)
		if err := os.Chmod(pa, mode); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(pb)
		if err != nil {
			t.Fatal(err)
		}
		if after.Size() != before.Size()+4 || after.Mode().Perm() != mode || after.ModTime().Before(before.ModTime()) {
			t.Fatalf("round %d: stat says size %d mode %v, wanted %d %v", i, after.Size(), after.Mode(), before.Size()+4, mode)
		}
	}
}

// Names that are made and removed here are seen there at once, also where their
// absence had been looked up before.
func testNames(t *testing.T, a, b string) {
	for i := range 100 {
		name := fmt.Sprintf("n%d", i)
		if _, err := os.Stat(filepath.Join(b, name)); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s is there too soon: %v", name, err)
		}
		writeFile(t, filepath.Join(a, name), name)
		if got, err := os.ReadFile(filepath.Join(b, name)); err != nil || string(got) != name {
			t.Fatalf("%s was made: %q %v", name, got, err)
		}
		if err := os.Rename(filepath.Join(b, name), filepath.Join(b, name+"x")); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(a, name)); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s was renamed away: %v", name, err)
		}
		entries, err := os.ReadDir(a)
		if err != nil || len(entries) != 1 || entries[0].Name() != name+"x" {
			t.Fatalf("the listing says %v %v", entries, err)
		}
		if err := os.Remove(filepath.Join(a, name+"x")); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(b, name+"x")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s was removed: %v", name, err)
		}
		// A file that is made anew under a name is the new one everywhere.
		writeFile(t, filepath.Join(b, name+"x"), "again")
		if got, err := os.ReadFile(filepath.Join(a, name+"x")); err != nil || string(got) != "again" {
			t.Fatalf("%s was made anew: %q %v", name, got, err)
		}
		os.Remove(filepath.Join(b, name+"x"))
	}
}

// O_EXCL has one winner.
func testExclusive(t *testing.T, a, b string) {
	for i := range 100 {
		name := fmt.Sprintf("x%d", i)
		var won atomic.Int32
		var wg sync.WaitGroup
		for n := range 4 {
			dir := a
			if n%2 == 1 {
				dir = b
			}
			wg.Go(func() {
				f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
				if err == nil {
					won.Add(1)
					f.Close()
				} else if !errors.Is(err, os.ErrExist) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%s has %d winners", name, won.Load())
		}
	}
}

// An observer of a name that renames replace sees one file or the other, whole.
func testAtomicRename(t *testing.T, a, b string) {
	writeFile(t, filepath.Join(a, "f"), strings.Repeat("0", 5000))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			got, err := os.ReadFile(filepath.Join(b, "f"))
			if err != nil {
				t.Errorf("the observer: %v", err)
				return
			}
			if len(got) != 5000 || string(got) != strings.Repeat(string(got[:1]), 5000) {
				t.Errorf("the observer sees %d bytes of a mixture", len(got))
				return
			}
		}
	})
	for i := range 200 {
		writeFile(t, filepath.Join(a, "new"), strings.Repeat(string(rune('a'+i%26)), 5000))
		if err := os.Rename(filepath.Join(a, "new"), filepath.Join(a, "f")); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

// Whole records from two mounts, none lost, none torn.
func testAppend(t *testing.T, a, b string) {
	const records, length = 300, 100
	var wg sync.WaitGroup
	for n, dir := range []string{a, b, a, b} {
		wg.Go(func() {
			f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for i := range records {
				record := fmt.Sprintf("%d:%d:", n, i)
				record += strings.Repeat(string(rune('a'+n)), length-1-len(record)) + "\n"
				if _, err := f.WriteString(record); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	raw := readFile(t, filepath.Join(b, "log"))
	if len(raw) != 4*records*length {
		t.Fatalf("%d bytes, and %d were appended", len(raw), 4*records*length)
	}
	next := [4]int{}
	for at := 0; at < len(raw); at += length {
		var n, i int
		if _, err := fmt.Sscanf(raw[at:at+length], "%d:%d:", &n, &i); err != nil || raw[at+length-1] != '\n' {
			t.Fatalf("at %d: %q", at, raw[at:at+length])
		}
		if i != next[n] {
			t.Fatalf("record %d of writer %d comes where %d was due", i, n, next[n])
		}
		next[n]++
	}
	if raw != readFile(t, filepath.Join(a, "log")) {
		t.Error("the mounts do not agree")
	}
}

// A shared mapping is seen by the other mount after msync.
func testMapping(t *testing.T, a, b string) {
	path := filepath.Join(a, "m")
	if err := os.WriteFile(path, make([]byte, 3*4096), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 3*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	for i := range 20 {
		copy(m[4096*(i%3):], fmt.Sprintf("round %02d", i))
		if err := unix.Msync(m, unix.MS_SYNC); err != nil {
			t.Fatal(err)
		}
		got := readFile(t, filepath.Join(b, "m"))
		if want := fmt.Sprintf("round %02d", i); got[4096*(i%3):4096*(i%3)+8] != want {
			t.Fatalf("the other mount reads %q after msync of %q", got[4096*(i%3):4096*(i%3)+8], want)
		}
	}
	// And the other way round, while it stays mapped here.
	g, err := os.OpenFile(filepath.Join(b, "m"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.WriteAt([]byte("from the other side"), 100); err != nil {
		t.Fatal(err)
	}
	if err := g.Sync(); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(m[100:], []byte("from the other side")) {
		t.Errorf("the mapping shows %q", m[100:119])
	}
}

// A reader that has the file open sees each write of the other mount once that
// has returned.
func testReadWhileWritten(t *testing.T, a, b string) {
	w, err := os.Create(filepath.Join(a, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r, err := os.Open(filepath.Join(b, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	buf := make([]byte, 64)
	for i := range 200 {
		text := fmt.Sprintf("%06d", i)
		if _, err := w.WriteAt([]byte(text), int64(i%10*6)); err != nil {
			t.Fatal(err)
		}
		n, err := r.ReadAt(buf[:6], int64(i%10*6))
		if err != nil && err != io.EOF || string(buf[:n]) != text {
			t.Fatalf("round %d: %q %v", i, buf[:n], err)
		}
	}
}

// A file that is removed while another mount has it open lives until that
// closes it.
func testUnlinked(t *testing.T, a, b string) {
	want := pattern(7, 300_000)
	if err := os.WriteFile(filepath.Join(a, "f"), want, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(b, "f"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(filepath.Join(a, "f")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the removed file cannot be read by who has it open: %v", err)
	}
	if _, err := f.WriteAt([]byte("still here"), 10); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(got[:10], 10); err != nil || string(got[:10]) != "still here" {
		t.Fatalf("%q %v", got[:10], err)
	}
	info, err := f.Stat()
	if err != nil || info.Size() != int64(len(want)) {
		t.Fatalf("fstat: %v %v", info, err)
	}
}

// lockKinds are the three kinds of locks that Linux knows.
var lockKinds = map[string]func(f *os.File, kind int16, wait bool) error{
	"flock": func(f *os.File, kind int16, wait bool) error {
		how := map[int16]int{unix.F_RDLCK: unix.LOCK_SH, unix.F_WRLCK: unix.LOCK_EX, unix.F_UNLCK: unix.LOCK_UN}[kind]
		if !wait {
			how |= unix.LOCK_NB
		}
		return unix.Flock(int(f.Fd()), how)
	},
	"fcntl": func(f *os.File, kind int16, wait bool) error {
		cmd := unix.F_SETLK
		if wait {
			cmd = unix.F_SETLKW
		}
		return unix.FcntlFlock(f.Fd(), cmd, &unix.Flock_t{Type: kind, Start: 10, Len: 100})
	},
	"OFD": func(f *os.File, kind int16, wait bool) error {
		cmd := unix.F_OFD_SETLK
		if wait {
			cmd = unix.F_OFD_SETLKW
		}
		return unix.FcntlFlock(f.Fd(), cmd, &unix.Flock_t{Type: kind, Start: 10, Len: 100})
	},
}

func testLocks(t *testing.T, a, b string) {
	for name, lock := range lockKinds {
		t.Run(name, func(t *testing.T) {
			writeFile(t, filepath.Join(a, name), strings.Repeat("-", 200))
			fa, err := os.OpenFile(filepath.Join(a, name), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer fa.Close()
			fb, err := os.OpenFile(filepath.Join(b, name), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer fb.Close()
			check := func(what string, err, want error) {
				t.Helper()
				if !errors.Is(err, want) {
					t.Fatalf("%s: %v, wanted %v", what, err, want)
				}
			}
			check("read lock", lock(fa, unix.F_RDLCK, false), nil)
			check("read lock of the other", lock(fb, unix.F_RDLCK, false), nil)
			check("write lock beside a reader", lock(fb, unix.F_WRLCK, false), unix.EAGAIN)
			check("unlock", lock(fa, unix.F_UNLCK, false), nil)
			check("write lock", lock(fb, unix.F_WRLCK, false), nil)
			check("read lock beside a writer", lock(fa, unix.F_RDLCK, false), unix.EAGAIN)
			// One that waits gets it when the other lets go.
			got := make(chan error, 1)
			go func() { got <- lock(fa, unix.F_WRLCK, true) }()
			check("unlock of the other", lock(fb, unix.F_UNLCK, false), nil)
			select {
			case err := <-got:
				check("waited-for lock", err, nil)
			case <-time.After(2 * time.Minute):
				t.Fatal("a lock that is free is not given to who waits for it")
			}
			check("the other again", lock(fb, unix.F_WRLCK, false), unix.EAGAIN)
			// Closing the file lets go.
			fa.Close()
			eventually(t, patience, func() error { return lock(fb, unix.F_WRLCK, false) })
		})
	}
}

// The locks of a mount that is killed are gone once its lease is.
func testLockDeath(t *testing.T, c *cluster) {
	third := c.secondMount()
	writeFile(t, filepath.Join(c.mnt, "locked"), "x")
	for name, lock := range lockKinds {
		if name == "fcntl" {
			continue // this process would let go of it by closing any descriptor
		}
		f, err := os.OpenFile(filepath.Join(third.dir, "locked"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := lock(f, unix.F_WRLCK, false); err != nil {
			t.Fatal(err)
		}
	}
	third.cmd.Process.Kill()
	<-third.exited
	for name, lock := range lockKinds {
		f, err := os.OpenFile(filepath.Join(c.mnt, "locked"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		began := time.Now()
		eventually(t, patience, func() error {
			if err := lock(f, unix.F_WRLCK, false); err != nil {
				return fmt.Errorf("%s lock: %w", name, err)
			}
			return nil
		})
		t.Logf("%s: free %v after the death of its owner", name, time.Since(began))
		lock(f, unix.F_UNLCK, false)
	}
	// Its mount point, which now answers nothing, is cleaned up by the next
	// mount there.
	if err := unix.Statfs(third.dir, new(unix.Statfs_t)); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("the mount point of the killed process: %v", err)
	}
	c.mounts = c.mounts[:len(c.mounts)-1]
	again := c.secondMount()
	if again.dir != third.dir {
		t.Fatalf("mounted at %s instead of %s", again.dir, third.dir)
	}
	if got := readFile(t, filepath.Join(again.dir, "locked")); got != "x" {
		t.Errorf("the new mount reads %q", got)
	}
}
