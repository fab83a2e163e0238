package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
)

// two mounts of one cluster.
func two(t *testing.T) (a, b string) {
	c := newCluster(t, 6, "4+2")
	return c.mount(), c.mount()
}

func write1(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func expect(t testing.TB, path, text string) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	if string(b) != text {
		t.Fatalf("%s holds %q, want %q", path, short(b), short([]byte(text)))
	}
}

func short(b []byte) string {
	if len(b) > 80 {
		return fmt.Sprintf("%q… (%d bytes)", b[:80], len(b))
	}
	return string(b)
}

func absent(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s: %v, want ENOENT", path, err)
	}
}

func TestTwoMountsNames(t *testing.T) {
	a, b := two(t)
	in := func(m, n string) string { return filepath.Join(m, n) }

	// A name that was looked up in vain appears at once.
	absent(t, in(b, "x"))
	write1(t, in(a, "x"), "one")
	expect(t, in(b, "x"), "one")
	// So does one that was removed, under the same name again.
	must(t, os.Remove(in(b, "x")))
	absent(t, in(a, "x"))
	write1(t, in(b, "x"), "two")
	expect(t, in(a, "x"), "two")
	// Rename over a file that the other has cached.
	write1(t, in(a, "y"), "new")
	expect(t, in(b, "x"), "two")
	must(t, os.Rename(in(a, "y"), in(a, "x")))
	expect(t, in(b, "x"), "new")
	absent(t, in(b, "y"))
	// Directories, their listings and their times.
	must(t, os.Mkdir(in(a, "d"), 0o755))
	for i := range 50 {
		m := a
		if i%2 == 1 {
			m = b
		}
		write1(t, in(m, fmt.Sprintf("d/%d", i)), "")
		for _, r := range []string{a, b} {
			l, err := os.ReadDir(in(r, "d"))
			must(t, err)
			if len(l) != i+1 {
				t.Fatalf("after %d: %s lists %d", i, r, len(l))
			}
		}
	}
	must(t, os.RemoveAll(in(b, "d")))
	absent(t, in(a, "d"))
	// A directory replaced by a file.
	must(t, os.Mkdir(in(a, "k"), 0o755))
	if _, err := os.Stat(in(b, "k")); err != nil {
		t.Fatal(err)
	}
	must(t, os.Remove(in(a, "k")))
	write1(t, in(a, "k"), "file")
	expect(t, in(b, "k"), "file")
	// Links.
	must(t, os.Link(in(a, "k"), in(a, "l")))
	var st unix.Stat_t
	must(t, unix.Stat(in(b, "k"), &st))
	if st.Nlink != 2 {
		t.Fatalf("nlink %d", st.Nlink)
	}
	must(t, os.Remove(in(b, "k")))
	must(t, unix.Stat(in(a, "l"), &st))
	if st.Nlink != 1 {
		t.Fatalf("nlink %d", st.Nlink)
	}
}

func TestTwoMountsAttributes(t *testing.T) {
	a, b := two(t)
	f, g := filepath.Join(a, "f"), filepath.Join(b, "f")
	write1(t, f, "x")
	stat := func(p string) os.FileInfo {
		t.Helper()
		fi, err := os.Stat(p)
		must(t, err)
		return fi
	}
	for i := range 20 {
		mode := os.FileMode(0o600 + i%2*0o44)
		must(t, os.Chmod(f, mode))
		if m := stat(g).Mode().Perm(); m != mode {
			t.Fatalf("mode %o, want %o", m, mode)
		}
		at := time.Unix(1_000_000_000+int64(i), 123456789)
		must(t, os.Chtimes(g, at, at))
		if m := stat(f).ModTime(); !m.Equal(at) {
			t.Fatalf("mtime %v, want %v", m, at)
		}
		must(t, os.Truncate(f, int64(i*1000)))
		if s := stat(g).Size(); s != int64(i*1000) {
			t.Fatalf("size %d, want %d", s, i*1000)
		}
	}
	must(t, unix.Setxattr(f, "user.k", []byte("v1"), 0))
	buf := make([]byte, 100)
	n, err := unix.Getxattr(g, "user.k", buf)
	must(t, err)
	if string(buf[:n]) != "v1" {
		t.Fatalf("xattr %q", buf[:n])
	}
	must(t, unix.Setxattr(f, "user.k", []byte("longer"), 0))
	n, err = unix.Getxattr(g, "user.k", buf)
	must(t, err)
	if string(buf[:n]) != "longer" {
		t.Fatalf("xattr %q", buf[:n])
	}
	must(t, unix.Removexattr(g, "user.k"))
	if _, err := unix.Getxattr(f, "user.k", buf); !errors.Is(err, unix.ENODATA) {
		t.Fatal(err)
	}
}

func TestTwoMountsData(t *testing.T) {
	a, b := two(t)
	f, g := filepath.Join(a, "f"), filepath.Join(b, "f")
	text := func(i int) string { return strings.Repeat(fmt.Sprintf("line %d\n", i), 1000+i) }
	for i := range 30 {
		w, r := f, g
		if i%3 == 1 {
			w, r = g, f
		}
		write1(t, w, text(i))
		expect(t, r, text(i))
		expect(t, w, text(i))
	}
	// Both keep the file open.
	fa, err := os.OpenFile(f, os.O_RDWR, 0)
	must(t, err)
	defer fa.Close()
	fb, err := os.OpenFile(g, os.O_RDWR, 0)
	must(t, err)
	defer fb.Close()
	page := make([]byte, 8192)
	for i := range 60 {
		w, r := fa, fb
		if i%2 == 1 {
			w, r = fb, fa
		}
		want := bytes.Repeat([]byte{byte('a' + i%26)}, 100)
		off := int64(i * 37)
		if _, err := w.WriteAt(want, off); err != nil {
			t.Fatal(err)
		}
		for _, x := range []*os.File{r, w} {
			if _, err := x.ReadAt(page[:100], off); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(page[:100], want) {
				t.Fatalf("write %d is not seen: %q", i, page[:100])
			}
		}
	}
}

func TestTwoMountsAppend(t *testing.T) {
	a, b := two(t)
	write1(t, filepath.Join(a, "log"), "")
	const each = 150
	var wg sync.WaitGroup
	for i, m := range []string{a, b, a} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f, err := os.OpenFile(filepath.Join(m, "log"), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for k := range each {
				if _, err := fmt.Fprintf(f, "writer %d record %04d %s\n", i, k, strings.Repeat("x", 20+k%60)); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	for _, m := range []string{b, a} {
		raw, err := os.ReadFile(filepath.Join(m, "log"))
		must(t, err)
		seen := map[string]bool{}
		lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
		for _, l := range lines {
			var w, k int
			var x string
			if n, _ := fmt.Sscanf(l, "writer %d record %d %s", &w, &k, &x); n != 3 || len(x) != 20+k%60 {
				t.Fatalf("%s: a torn record %q", m, l)
			}
			seen[fmt.Sprint(w, " ", k)] = true
		}
		if len(lines) != 3*each || len(seen) != 3*each {
			t.Fatalf("%s: %d lines, %d different, want %d", m, len(lines), len(seen), 3*each)
		}
	}
}

func TestTwoMountsMmap(t *testing.T) {
	a, b := two(t)
	write1(t, filepath.Join(a, "m"), strings.Repeat("-", 3*4096))
	pa, pb := mapFile(t, filepath.Join(a, "m")), mapFile(t, filepath.Join(b, "m"))
	for i := range 20 {
		w, r := pa, pb
		if i%2 == 1 {
			w, r = pb, pa
		}
		at := (i * 577) % (3*4096 - 8)
		text := fmt.Sprintf("%08d", i)
		w.do("put %d %s", at, text)
		w.do("sync")
		if got := r.do("get %d 8", at); got != text {
			t.Fatalf("step %d: the other mapping shows %q", i, got)
		}
	}
}

func TestTwoMountsUnlinkedFile(t *testing.T) {
	a, b := two(t)
	write1(t, filepath.Join(a, "f"), "still here")
	f, err := os.OpenFile(filepath.Join(b, "f"), os.O_RDWR, 0)
	must(t, err)
	must(t, os.Remove(filepath.Join(a, "f")))
	absent(t, filepath.Join(b, "f"))
	buf := make([]byte, 10)
	if _, err := f.ReadAt(buf, 0); err != nil || string(buf) != "still here" {
		t.Fatalf("%q, %v", buf, err)
	}
	if _, err := f.WriteAt([]byte("!"), 10); err != nil {
		t.Fatal(err)
	}
	fi, err := f.Stat()
	must(t, err)
	if fi.Size() != 11 || fi.Sys().(*syscall.Stat_t).Nlink != 0 {
		t.Fatalf("size %d, nlink %d", fi.Size(), fi.Sys().(*syscall.Stat_t).Nlink)
	}
	must(t, f.Close())
	// A new file of that name is another file.
	write1(t, filepath.Join(a, "f"), "new")
	expect(t, filepath.Join(b, "f"), "new")
	// Replaced by rename while open.
	f, err = os.Open(filepath.Join(b, "f"))
	must(t, err)
	defer f.Close()
	write1(t, filepath.Join(a, "g"), "newer")
	must(t, os.Rename(filepath.Join(a, "g"), filepath.Join(a, "f")))
	if _, err := f.ReadAt(buf[:3], 0); err != nil || string(buf[:3]) != "new" {
		t.Fatalf("%q, %v", buf[:3], err)
	}
	expect(t, filepath.Join(b, "f"), "newer")
}

// TestTwoMountsUnlinkedData: what one mount has written to a file that another has
// open stays, whoever removes the file and when, though nothing was stored yet.
func TestTwoMountsUnlinkedData(t *testing.T) {
	a, b := two(t)
	over := func(t *testing.T, path string) {
		write1(t, path+".new", "another")
		must(t, os.Rename(path+".new", path))
	}
	remove := func(t *testing.T, path string) { must(t, os.Remove(path)) }
	for _, tt := range []struct {
		name   string
		open   bool   // the writer closes it after the removal
		by     string // who removes it
		remove func(*testing.T, string)
	}{
		{"closed, unlinked", false, b, remove},
		{"closed, replaced", false, b, over},
		{"unlinked, closed", true, b, remove},
		{"replaced, closed", true, b, over},
		{"closed, unlinked by the reader", false, a, remove},
		{"unlinked by the reader, closed", true, a, remove},
		{"replaced by the reader, closed", true, a, over},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := strings.ReplaceAll(tt.name, " ", "_")
			write1(t, filepath.Join(a, name), "old content")
			reader, err := os.Open(filepath.Join(a, name))
			must(t, err)
			defer reader.Close()
			expect(t, filepath.Join(a, name), "old content")
			writer, err := os.OpenFile(filepath.Join(b, name), os.O_WRONLY, 0)
			must(t, err)
			_, err = writer.WriteAt([]byte("new"), 0)
			must(t, err)
			if !tt.open {
				must(t, writer.Close())
			}
			tt.remove(t, filepath.Join(tt.by, name))
			if tt.open {
				_, err = writer.WriteAt([]byte("er content"), 3)
				must(t, err)
				must(t, writer.Close())
			}
			want := "new content"
			if tt.open {
				want = "newer content"
			}
			got, err := io.ReadAll(reader)
			if err != nil || string(got) != want {
				t.Errorf("read %q, %v, wanted %q", got, err, want)
			}
		})
	}
}

func TestTwoMountsExclusive(t *testing.T) {
	a, b := two(t)
	for i := range 30 {
		var wins int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, m := range []string{a, b, a, b} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				f, err := os.OpenFile(filepath.Join(m, fmt.Sprint("x", i)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
				if err == nil {
					f.Close()
					mu.Lock()
					wins++
					mu.Unlock()
				} else if !errors.Is(err, os.ErrExist) {
					t.Error(err)
				}
			}()
		}
		wg.Wait()
		if wins != 1 {
			t.Fatalf("round %d: %d winners", i, wins)
		}
	}
}

// Both mounts make, look up, rename and remove names in one directory, as fast
// as they can. Nothing may hang, and in the end both see the same.
func TestStormOfNames(t *testing.T) {
	a, b := two(t)
	must(t, os.Mkdir(filepath.Join(a, "d"), 0o777))
	ctx, done := context.WithTimeout(t.Context(), 2*time.Second)
	defer done()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var ops [8]int
	run(t, 30*time.Second, 8, func(i int) {
		m := filepath.Join([]string{a, b}[i%2], "d")
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		for ctx.Err() == nil {
			p, q := filepath.Join(m, fmt.Sprint(r.IntN(20))), filepath.Join(m, fmt.Sprint(r.IntN(20)))
			var err error
			switch r.IntN(8) {
			case 0, 1:
				err = os.WriteFile(p, []byte(p), 0o644)
			case 2:
				err = os.Mkdir(p, 0o755)
			case 3:
				err = os.Remove(p)
			case 4:
				err = os.Rename(p, q)
			case 5:
				_, err = os.ReadDir(m)
			case 6:
				_, err = os.Stat(p)
			case 7:
				err = os.Link(p, q)
			}
			if err != nil && !harmless(err) {
				t.Errorf("%v", err)
			}
			ops[i]++
		}
	})
	total := 0
	for _, n := range ops {
		total += n
	}
	t.Logf("%d operations", total)
	la, err := os.ReadDir(filepath.Join(a, "d"))
	must(t, err)
	lb, err := os.ReadDir(filepath.Join(b, "d"))
	must(t, err)
	if fmt.Sprint(la) != fmt.Sprint(lb) {
		t.Fatalf("the listings differ:\n%v\n%v", la, lb)
	}
	for i := range 20 {
		n := fmt.Sprint("d/", i)
		x, errA := os.Lstat(filepath.Join(a, n))
		y, errB := os.Lstat(filepath.Join(b, n))
		if (errA == nil) != (errB == nil) || errA == nil && (x.Mode() != y.Mode() || x.Size() != y.Size()) {
			t.Fatalf("%s: %v %v, %v %v", n, x, errA, y, errB)
		}
	}
}

// harmless: what the others did in between.
func harmless(err error) bool {
	for _, e := range []syscall.Errno{syscall.ENOENT, syscall.EEXIST, syscall.EISDIR, syscall.ENOTDIR, syscall.ENOTEMPTY, syscall.EPERM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// run runs n functions at once, and fails with all stacks when they hang.
func run(t *testing.T, limit time.Duration, n int, f func(int)) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		go func() { defer wg.Done(); f(i) }()
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-time.After(limit):
		panic("hung") // with the stacks of all goroutines
	}
}

// Two sessions read and write records of one file, through kernels and without.
// Each record is written whole by one write within a page; a reader must never
// see one go back in time.
func TestStormOfData(t *testing.T) {
	a, b := two(t)
	must(t, os.WriteFile(filepath.Join(a, "f"), bytes.Repeat([]byte{'0'}, stormRecords*stormSize), 0o644))
	stormOfData(t, func(i int) (stormFile, error) {
		return os.OpenFile(filepath.Join([]string{a, b}[i%2], "f"), os.O_RDWR, 0)
	})
}

func TestStormOfDataWithoutKernel(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	x, y := c.fs(), c.fs()
	f, err := x.Create(t.Context(), wire.RootIno, "f", 0o644)
	must(t, err)
	_, err = f.WriteAt(t.Context(), bytes.Repeat([]byte{'0'}, stormRecords*stormSize), 0)
	must(t, err)
	must(t, f.Close())
	stormOfData(t, func(i int) (stormFile, error) {
		f, err := []*FS{x, y}[i%2].OpenFile(t.Context(), "/f")
		return ctxFile{f}, err
	})
}

const stormRecords, stormSize = 64, 128

type stormFile interface {
	ReadAt([]byte, int64) (int, error)
	WriteAt([]byte, int64) (int, error)
	Close() error
}

// ctxFile is a File without contexts.
type ctxFile struct{ File }

func (f ctxFile) ReadAt(p []byte, off int64) (int, error) {
	return f.File.ReadAt(context.Background(), p, off)
}
func (f ctxFile) WriteAt(p []byte, off int64) (int, error) {
	return f.File.WriteAt(context.Background(), p, off)
}

func stormOfData(t *testing.T, open func(int) (stormFile, error)) {
	const records, size = stormRecords, stormSize
	ctx, done := context.WithTimeout(t.Context(), 2*time.Second)
	defer done()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	// Writer i owns the records with k%4 == i and counts up in each; the number
	// that it has written is known before a reader starts to read.
	var written [records]struct {
		mu sync.Mutex
		n  int
	}
	var reads, writes [8]int
	run(t, 40*time.Second, 8, func(i int) {
		f, err := open(i)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		buf := make([]byte, size)
		for ctx.Err() == nil {
			if i < 4 {
				k := r.IntN(records/4)*4 + i
				w := &written[k]
				next := w.n + 1
				copy(buf, fmt.Sprintf("%-*d", size, next))
				if _, err := f.WriteAt(buf, int64(k*size)); err != nil {
					t.Error(err)
					return
				}
				w.mu.Lock()
				w.n = next
				w.mu.Unlock()
				writes[i]++
				continue
			}
			k := r.IntN(records)
			w := &written[k]
			w.mu.Lock()
			least := w.n
			w.mu.Unlock()
			if _, err := f.ReadAt(buf, int64(k*size)); err != nil {
				t.Error(err)
				return
			}
			var got int
			fmt.Sscanf(string(buf), "%d", &got)
			if got < least {
				t.Errorf("session %d: record %d of session %d shows %d, but %d was written before", i%2, k, k%4%2, got, least)
				return
			}
			reads[i]++
		}
	})
	t.Logf("reads %v writes %v", reads, writes)
}

func TestLocksAcrossMounts(t *testing.T) {
	a, b := two(t)
	write1(t, filepath.Join(a, "l"), "0")
	fa, err := os.OpenFile(filepath.Join(a, "l"), os.O_RDWR, 0)
	must(t, err)
	fb, err := os.OpenFile(filepath.Join(b, "l"), os.O_RDWR, 0)
	must(t, err)
	defer fb.Close()
	must(t, unix.Flock(int(fa.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	if err := unix.Flock(int(fb.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Fatalf("flock: %v", err)
	}
	must(t, fa.Close())
	eventually(t, "flock freed by close", func() bool { return unix.Flock(int(fb.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil })
	must(t, unix.Flock(int(fb.Fd()), unix.LOCK_UN))

	// OFD locks: they end with the open file.
	fa, err = os.OpenFile(filepath.Join(a, "l"), os.O_RDWR, 0)
	must(t, err)
	ofd := func(f *os.File, typ int16, cmd int) error {
		return unix.FcntlFlock(f.Fd(), cmd, &unix.Flock_t{Type: typ, Start: 10, Len: 10})
	}
	must(t, ofd(fa, unix.F_WRLCK, unix.F_OFD_SETLK))
	if err := ofd(fb, unix.F_WRLCK, unix.F_OFD_SETLK); !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("OFD lock: %v", err)
	}
	probe := unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 100}
	must(t, unix.FcntlFlock(fb.Fd(), unix.F_OFD_GETLK, &probe))
	if probe.Type != unix.F_WRLCK || probe.Start != 10 || probe.Len != 10 {
		t.Fatalf("F_GETLK: %+v", probe)
	}
	got := make(chan error, 1)
	go func() { got <- ofd(fb, unix.F_WRLCK, unix.F_OFD_SETLKW) }()
	must(t, fa.Close())
	select {
	case err := <-got:
		must(t, err)
	case <-time.After(2 * time.Minute):
		t.Fatal("the waiting lock was not granted when the holder closed its file")
	}
}
