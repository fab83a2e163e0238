package fs

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dataIn is how many bytes SEEK_DATA finds.
func dataIn(t *testing.T, f *os.File) (n int64) {
	t.Helper()
	for pos := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), pos, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) {
			return n
		}
		must(t, err)
		pos, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		must(t, err)
		n += pos - data
	}
}

// TestBlocks changes a file at random. What stat says that it occupies is at
// least what it holds, the same before and after it is stored, and the same on
// another mount, although each kernel has asked before.
func TestBlocks(t *testing.T) {
	a, b := two(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 6 {
		p := filepath.Join(a, fmt.Sprint(round))
		f, err := os.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o644)
		must(t, err)
		defer f.Close()
		fd := int(f.Fd())
		most := []int{3000, 200_000, 9 << 20}[round%3]
		var content []byte // with 1 where something was written
		grow := func(n int) { content = append(content, make([]byte, max(0, n-len(content)))...) }
		for step := range 120 {
			off, n := r.IntN(most), 1+r.IntN(most/6)
			what := ""
			switch k := r.IntN(12); {
			case k < 5:
				what = fmt.Sprintf("write %d at %d", n, off)
				_, err := f.WriteAt(bytes.Repeat([]byte{1}, n), int64(off))
				must(t, err)
				grow(off + n)
				copy(content[off:], bytes.Repeat([]byte{1}, n))
			case k < 7:
				what = fmt.Sprintf("truncate to %d", off)
				must(t, f.Truncate(int64(off)))
				content = content[:min(off, len(content))]
				grow(off)
			case k < 9:
				what = fmt.Sprintf("punch %d at %d", n, off)
				must(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n)))
				if off < len(content) {
					clear(content[off:min(off+n, len(content))])
				}
			case k < 10:
				what = fmt.Sprintf("allocate %d at %d", n, off)
				must(t, unix.Fallocate(fd, 0, int64(off), int64(n)))
				grow(off + n)
			default:
				what = "fsync"
				must(t, f.Sync())
			}
			st := lstat(t, p)
			got, least := st.Blocks*512, int64(bytes.Count(content, []byte{1}))
			if found := dataIn(t, f); st.Size != int64(len(content)) || got < least || got < found || got > (st.Size+511)&^511 {
				t.Fatalf("round %d step %d, %s: %d of %d bytes are occupied: %d were written, SEEK_DATA finds %d", round, step, what, got, st.Size, least, found)
			}
			switch r.IntN(8) {
			case 0:
				must(t, f.Sync())
				if now := lstat(t, p).Blocks * 512; now != got {
					t.Fatalf("round %d step %d, %s: %d bytes were occupied before fsync, %d are since", round, step, what, got, now)
				}
			case 1:
				if now := lstat(t, filepath.Join(b, fmt.Sprint(round))).Blocks * 512; now != got {
					t.Fatalf("round %d step %d, %s: %d bytes are occupied, %d on the other mount", round, step, what, got, now)
				}
			}
		}
	}
}

// TestSparseCopies has tar and cp, which decide by st_blocks, copy files that
// were written a moment ago.
func TestSparseCopies(t *testing.T) {
	m := newCluster(t, 6, "4+2").mount()
	page := bytes.Repeat([]byte("sparse! "), 512)
	for name, make := range map[string]func(f *os.File) error{
		"inside the size": func(f *os.File) error {
			if err := f.Truncate(1 << 20); err != nil {
				return err
			}
			_, err := f.WriteAt(page, 300_000)
			return err
		},
		"inside what is allocated": func(f *os.File) error {
			if err := unix.Fallocate(int(f.Fd()), 0, 0, 1<<20); err != nil {
				return err
			}
			_, err := f.WriteAt(page, 0)
			return err
		},
		"far away": func(f *os.File) error {
			_, err := f.WriteAt(page, 64<<20)
			return err
		},
		"punched": func(f *os.File) error {
			if _, err := f.Write(bytes.Repeat(page, 100)); err != nil {
				return err
			}
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 5000, 200_000)
		},
		"small":  func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 700); return err },
		"a hole": func(f *os.File) error { return f.Truncate(1 << 20) },
	} {
		t.Run(name, func(t *testing.T) {
			d := filepath.Join(m, name)
			must(t, os.Mkdir(d, 0o755))
			f, err := os.Create(filepath.Join(d, "f"))
			must(t, err)
			lstat(t, f.Name()) // the kernel has an answer, which must not stay
			must(t, make(f))
			must(t, f.Close())
			want, err := os.ReadFile(f.Name())
			must(t, err)
			st := lstat(t, f.Name())
			if n := int64(bytes.Count(want, nil) - 1 - bytes.Count(want, []byte{0})); st.Blocks*512 < n || st.Blocks*512 > n+8<<10 && name != "punched" {
				t.Errorf("%d blocks for %d bytes", st.Blocks, n)
			}
			tool := func(name string, args ...string) {
				t.Helper()
				cmd := exec.Command(name, args...)
				cmd.Dir = d
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s %v: %v\n%s", name, args, err, out)
				}
			}
			must(t, os.Mkdir(filepath.Join(d, "out"), 0o755))
			tool("tar", "-S", "-cf", "x.tar", "f")
			tool("tar", "-S", "-xf", "x.tar", "-C", "out")
			tool("cp", "--sparse=always", "f", "always")
			tool("cp", "--sparse=auto", "f", "auto")
			tool("cp", "--sparse=auto", "--reflink=never", "f", "plain")
			for _, c := range []string{"out/f", "always", "auto", "plain"} {
				got, err := os.ReadFile(filepath.Join(d, c))
				must(t, err)
				if !bytes.Equal(got, want) {
					t.Errorf("%s differs", c)
				}
			}
		})
	}
}
