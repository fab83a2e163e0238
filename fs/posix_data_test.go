package fs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func posixTruncate(t *testing.T, d string) {
	p := filepath.Join(d, "f")
	data := make([]byte, 100_000)
	for i := range data {
		data[i] = byte(i*7 + i>>8)
	}
	must(t, os.WriteFile(p, data, 0o644))
	want := bytes.Clone(data)
	check := func(step string) {
		t.Helper()
		got, err := os.ReadFile(p)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Fatalf("%s: %d bytes, want %d", step, len(got), len(want))
		}
		if s := lstat(t, p).Size; s != int64(len(want)) {
			t.Fatalf("%s: size %d, want %d", step, s, len(want))
		}
	}
	must(t, os.Truncate(p, 5001))
	want = want[:5001]
	check("shrunk")
	must(t, os.Truncate(p, 9000))
	want = append(want, make([]byte, 3999)...)
	check("grown")
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, f.Sync())
	check("synced")
	must(t, f.Truncate(10))
	want = want[:10]
	check("shrunk through the descriptor")
	must(t, f.Truncate(1<<40))
	must(t, f.Truncate(20))
	want = append(want, make([]byte, 10)...)
	check("huge and back")
	must(t, os.WriteFile(p, []byte("short"), 0o644))
	want = []byte("short")
	check("O_TRUNC")
	wantErr(t, os.Truncate(d, 0), syscall.EISDIR)
}

func posixHoles(t *testing.T, d string) {
	f, err := os.Create(filepath.Join(d, "f"))
	must(t, err)
	defer f.Close()
	const mib = 1 << 20
	one := bytes.Repeat([]byte{1}, mib)
	_, err = f.WriteAt(one, 4*mib)
	must(t, err)
	_, err = f.WriteAt(one, 16*mib)
	must(t, err)
	must(t, f.Truncate(32*mib))
	must(t, f.Sync())
	for _, c := range []struct {
		off    int64
		whence int
		want   int64
	}{
		{0, unix.SEEK_DATA, 4 * mib}, {0, unix.SEEK_HOLE, 0}, {4 * mib, unix.SEEK_HOLE, 5 * mib}, {5 * mib, unix.SEEK_DATA, 16 * mib},
		{16*mib + 5, unix.SEEK_DATA, 16*mib + 5}, {16 * mib, unix.SEEK_HOLE, 17 * mib},
	} {
		got, err := unix.Seek(int(f.Fd()), c.off, c.whence)
		if err != nil || got != c.want {
			t.Errorf("seek %d from %d: %d, %v; want %d", c.whence, c.off, got, err, c.want)
		}
	}
	_, err = unix.Seek(int(f.Fd()), 20*mib, unix.SEEK_DATA)
	wantErr(t, err, syscall.ENXIO)
	if st := lstat(t, f.Name()); st.Size != 32*mib || st.Blocks*512 > 3*mib {
		t.Errorf("size %d, %d blocks", st.Size, st.Blocks)
	}
}

func posixFallocate(t *testing.T, d string) {
	f, err := os.Create(filepath.Join(d, "f"))
	must(t, err)
	defer f.Close()
	fd := int(f.Fd())
	must(t, unix.Fallocate(fd, 0, 0, 50_000))
	if s := lstat(t, f.Name()).Size; s != 50_000 {
		t.Fatalf("size %d", s)
	}
	must(t, unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 90_000))
	if s := lstat(t, f.Name()).Size; s != 50_000 {
		t.Fatalf("size %d after KEEP_SIZE", s)
	}
	want := bytes.Repeat([]byte("fallocate!"), 5000)
	_, err = f.WriteAt(want, 0)
	must(t, err)
	must(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 10_000, 12_345))
	clear(want[10_000:22_345])
	must(t, unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 45_000, 15_000))
	clear(want[45_000:])
	want = append(want, make([]byte, 10_000)...)
	for _, when := range []string{"dirty", "synced"} {
		got, err := os.ReadFile(f.Name())
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Fatalf("%s: differs", when)
		}
		must(t, f.Sync())
	}
	wantErr(t, unix.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096), syscall.EOPNOTSUPP)
}

func posixCopyRange(t *testing.T, d string) {
	data := make([]byte, 3<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	for _, size := range []int{0, 1, 700, 2000, 5000, 3 << 20} {
		src, dst := filepath.Join(d, fmt.Sprint("s", size)), filepath.Join(d, fmt.Sprint("d", size))
		must(t, os.WriteFile(src, data[:size], 0o644))
		must(t, os.WriteFile(dst, []byte("0123456789"), 0o644))
		in, err := os.Open(src)
		must(t, err)
		out, err := os.OpenFile(dst, os.O_RDWR, 0)
		must(t, err)
		from, to := int64(0), int64(5)
		for {
			n, err := unix.CopyFileRange(int(in.Fd()), &from, int(out.Fd()), &to, 1<<30, 0)
			must(t, err)
			if n == 0 {
				break
			}
		}
		want := append([]byte("01234"), data[:size]...)
		if len(want) < 10 {
			want = append(want, "0123456789"[len(want):]...)
		}
		got, err := os.ReadFile(dst)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Fatalf("copy of %d bytes: %d, want %d", size, len(got), len(want))
		}
		// The two are apart from now on.
		if size > 0 {
			_, err = out.WriteAt([]byte("X"), 5)
			must(t, err)
			got, err = os.ReadFile(src)
			must(t, err)
			if !bytes.Equal(got, data[:size]) {
				t.Fatal("the source changed with the copy")
			}
		}
		in.Close()
		out.Close()
	}
}

func posixMmap(t *testing.T, d string) {
	p := filepath.Join(d, "f")
	data := bytes.Repeat([]byte("mmap"), 5000)
	must(t, os.WriteFile(p, data, 0o644))
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	m := mapFile(t, p)
	m.do("get 0 4")
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0))
	m.do("put 4090 SHARED-BYTES")
	m.do("private 100 PRIVATE")
	m.do("sync")
	copy(data[4090:], "SHARED-BYTES")
	got, err := os.ReadFile(p)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Fatal("the file differs from the mapping")
	}
	if st := lstat(t, p); st.Mtim.Sec < 1_000_000 {
		t.Errorf("mtime %d after a mapped write", st.Mtim.Sec)
	}
	m.do("put 8000 LATE")
	m.close()
	must(t, f.Sync())
	copy(data[8000:], "LATE")
	got, err = os.ReadFile(p)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Fatal("what was written through the mapping last is lost")
	}
	// A write is seen through a mapping.
	m = mapFile(t, p)
	m.do("get 12000 5")
	_, err = f.WriteAt([]byte("WRITE"), 12000)
	must(t, err)
	if got := m.do("get 12000 5"); got != "WRITE" {
		t.Errorf("the mapping shows %q", got)
	}
}

func posixDirect(t *testing.T, d string) {
	p := filepath.Join(d, "f")
	f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o644)
	must(t, err)
	defer f.Close()
	data := bytes.Repeat([]byte("direct i/o, 16b."), 1<<14)
	_, err = f.WriteAt(data, 4096)
	must(t, err)
	got := make([]byte, len(data))
	_, err = f.ReadAt(got, 4096)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Fatal("differs")
	}
	cached, err := os.ReadFile(p)
	must(t, err)
	if !bytes.Equal(cached[4096:], data) || len(cached) != 4096+len(data) {
		t.Fatal("a buffered read sees something else")
	}
}

func posixAppend(t *testing.T, d string) {
	p := filepath.Join(d, "f")
	f, err := os.OpenFile(p, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	must(t, err)
	defer f.Close()
	g, err := os.OpenFile(p, os.O_WRONLY, 0)
	must(t, err)
	defer g.Close()
	var want []byte
	for i := range 200 {
		rec := bytes.Repeat([]byte{byte('a' + i%26)}, 1+i*13%300)
		_, err := f.Write(rec)
		must(t, err)
		want = append(want, rec...)
	}
	_, err = g.WriteAt([]byte("beyond"), int64(len(want)+100))
	must(t, err)
	want = append(append(want, make([]byte, 100)...), "beyond"...)
	_, err = f.Write([]byte("end"))
	must(t, err)
	want = append(want, "end"...)
	got, err := os.ReadFile(p)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, want %d", len(got), len(want))
	}
}

// Random reads, writes and truncates against a slice.
func posixRandom(t *testing.T, d string) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	p := filepath.Join(d, "f")
	f, err := os.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o644)
	must(t, err)
	defer f.Close()
	const most = 300_000
	var want []byte
	for i := range 400 {
		off, n := r.IntN(most), 1+r.IntN(20_000)
		switch r.IntN(10) {
		case 0, 1, 2, 3:
			b := bytes.Repeat([]byte{byte(1 + i%250)}, n)
			_, err := f.WriteAt(b, int64(off))
			must(t, err)
			if off+n > len(want) {
				want = append(want, make([]byte, off+n-len(want))...)
			}
			copy(want[off:], b)
		case 4:
			must(t, f.Truncate(int64(off)))
			if off <= len(want) {
				want = want[:off:off]
			} else {
				want = append(want, make([]byte, off-len(want))...)
			}
		case 5:
			must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n)))
			if off < len(want) {
				clear(want[off:min(off+n, len(want))])
			}
		case 6:
			must(t, f.Sync())
		default:
			b := make([]byte, n)
			got, _ := f.ReadAt(b, int64(off))
			exp := []byte{}
			if off < len(want) {
				exp = want[off:min(off+n, len(want))]
			}
			if !bytes.Equal(b[:got], exp) {
				t.Fatalf("step %d: read of %d at %d differs (%d bytes, want %d)", i, n, off, got, len(exp))
			}
		}
	}
	got, err := os.ReadFile(p)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("the file differs in the end")
	}
}
