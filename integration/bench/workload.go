package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const chunk = 1 << 20

// incompressible fills p with bytes that no layer can make smaller.
func incompressible(p []byte, seed uint64) {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	r.Read(p)
}

// sequential: one large file, written with a final fsync, read cold, read warm.
func sequential(m *meter, mib int) error {
	path := filepath.Join(m.sys.root, "seq")
	buf := make([]byte, chunk)
	incompressible(buf, 1)
	n := int64(mib) * chunk
	if err := m.bytes("sequential write with fsync", n, func() error { return writeWhole(path, mib, buf) }); err != nil {
		return err
	}
	if err := m.sys.cold(); err != nil {
		return err
	}
	read := func() error { return readWhole(path, n, buf) }
	if err := m.bytes("sequential read, cold", n, read); err != nil {
		return err
	}
	if err := m.bytes("sequential read, warm", n, read); err != nil {
		return err
	}
	return os.Remove(path)
}

func writeWhole(path string, mib int, buf []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range mib {
		// Each block differs a little, so that none is stored once for all.
		buf[0], buf[1], buf[2] = byte(i), byte(i>>8), byte(i>>16)
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

func readWhole(path string, want int64, buf []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var got int64
	for {
		n, err := f.Read(buf)
		got += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if got != want {
		return fmt.Errorf("%d of %d bytes were read", got, want)
	}
	return nil
}

// random: 4 KiB at random places of a file, read cold, read warm, written with
// a final fsync, written with an fsync each.
func random(m *meter, mib int, length time.Duration) error {
	path := filepath.Join(m.sys.root, "rand")
	buf := make([]byte, chunk)
	incompressible(buf, 2)
	if err := writeWhole(path, mib, buf); err != nil {
		return err
	}
	if err := m.sys.cold(); err != nil {
		return err
	}
	places := int64(mib) * chunk / 4096
	loop := func(flags int, each func(*os.File, int64) error, end func(*os.File) error) func() (int, error) {
		return func() (int, error) {
			f, err := os.OpenFile(path, flags, 0)
			if err != nil {
				return 0, err
			}
			defer f.Close()
			r := rand.New(rand.NewPCG(3, 4))
			n := 0
			for until := time.Now().Add(length); time.Now().Before(until); n++ {
				if err := each(f, r.Int64N(places)*4096); err != nil {
					return n, err
				}
			}
			return n, end(f)
		}
	}
	small := make([]byte, 4096)
	incompressible(small, 5)
	read := func(f *os.File, at int64) error { _, err := f.ReadAt(small, at); return err }
	write := func(f *os.File, at int64) error { _, err := f.WriteAt(small, at); return err }
	nothing := func(*os.File) error { return nil }
	if err := m.ops("random 4 KiB read, cold", loop(os.O_RDONLY, read, nothing)); err != nil {
		return err
	}
	if err := readWhole(path, int64(mib)*chunk, buf); err != nil {
		return err
	}
	if err := m.ops("random 4 KiB read, warm", loop(os.O_RDONLY, read, nothing)); err != nil {
		return err
	}
	if err := m.ops("random 4 KiB write, fsync at the end", loop(os.O_RDWR, write, (*os.File).Sync)); err != nil {
		return err
	}
	synced := func(f *os.File, at int64) error {
		if err := write(f, at); err != nil {
			return err
		}
		return f.Sync()
	}
	if err := m.ops("random 4 KiB write, fsync each", loop(os.O_RDWR, synced, nothing)); err != nil {
		return err
	}
	return os.Remove(path)
}

// small: many small files, each step by one thread and by eight.
func small(m *meter, files int) error {
	for _, threads := range []int{1, 8} {
		dir := filepath.Join(m.sys.root, fmt.Sprintf("small-%d", threads))
		name := func(i int) string { return filepath.Join(dir, fmt.Sprintf("d%d", i%50), fmt.Sprintf("f%d", i)) }
		for d := range 50 {
			if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("d%d", d)), 0o755); err != nil {
				return err
			}
		}
		content := make([]byte, 3000)
		incompressible(content, 6)
		step := func(what string, each func(i int) error) error {
			what = fmt.Sprintf("%s, %s", what, map[int]string{1: "1 thread", 8: "8 threads"}[threads])
			return m.ops(what, func() (int, error) { return files, parallel(threads, files, each) })
		}
		var buf sync.Pool
		buf.New = func() any { b := make([]byte, 8192); return &b }
		stat := func(i int) error { _, err := os.Lstat(name(i)); return err }
		read := func(i int) error {
			b := buf.Get().(*[]byte)
			defer buf.Put(b)
			f, err := os.Open(name(i))
			if err != nil {
				return err
			}
			defer f.Close()
			n, err := f.Read(*b)
			if err == nil && n != len(content) {
				err = fmt.Errorf("%s: %d bytes", f.Name(), n)
			}
			return err
		}
		steps := []struct {
			what string
			each func(i int) error
		}{
			{"create", func(i int) error { return os.WriteFile(name(i), content, 0o644) }},
			{"stat", stat},
			{"stat, hot", stat},
			{"list and stat", func(i int) error {
				if i >= 50 {
					return nil // one listing serves a hundred files
				}
				entries, err := os.ReadDir(filepath.Join(dir, fmt.Sprintf("d%d", i)))
				for _, e := range entries {
					if _, err := e.Info(); err != nil {
						return err
					}
				}
				return err
			}},
			{"read", read},
			{"rename", func(i int) error { return os.Rename(name(i), name(i)+"x") }},
			{"remove", func(i int) error { return os.Remove(name(i) + "x") }},
		}
		for _, s := range steps {
			if err := step(s.what, s.each); err != nil {
				return err
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// parallel calls each for 0 … n-1 from several goroutines.
func parallel(threads, n int, each func(i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, threads)
	for t := range threads {
		wg.Go(func() {
			for errs[t] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[t] = each(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// tree: what people do with a source tree, by the usual programs.
func tree(m *meter, tarFile string) error {
	dir := filepath.Join(m.sys.root, "tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	command := func(args ...string) func() error {
		return func() error {
			var stderr bytes.Buffer
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Stderr = &stderr
			err := cmd.Run()
			var exit *exec.ExitError
			if args[0] == "grep" && errors.As(err, &exit) && exit.ExitCode() == 1 {
				return nil // nothing found, as intended
			}
			if err != nil {
				return fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
			}
			return nil
		}
	}
	grep := command("grep", "-r", "-c", "nosuchwordatall", dir)
	if err := m.seconds("untar the Go source", command("tar", "-C", dir, "-xf", tarFile)); err != nil {
		return err
	}
	if err := m.sys.cold(); err != nil {
		return err
	}
	if err := m.seconds("du, cold", command("du", "-s", dir)); err != nil {
		return err
	}
	if err := m.seconds("du, warm", command("du", "-s", dir)); err != nil {
		return err
	}
	if err := m.sys.cold(); err != nil {
		return err
	}
	if err := m.seconds("grep -r, cold", grep); err != nil {
		return err
	}
	if err := m.seconds("grep -r, warm", grep); err != nil {
		return err
	}
	return m.seconds("rm -r", command("rm", "-rf", dir))
}

// makeTar packs the first files of the Go toolchain's source.
func makeTar(path string, files int) (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	src, err := filepath.EvalSymlinks(filepath.Join(strings.TrimSpace(string(out)), "src"))
	if err != nil {
		return "", err
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	n := 0
	err = filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() && !d.IsDir() {
			return err
		}
		if n >= files {
			return fs.SkipAll
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		if h.Name, err = filepath.Rel(src, p); err != nil {
			return err
		}
		if err := w.WriteHeader(h); err != nil || d.IsDir() {
			return err
		}
		n++
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		_, err = w.Write(raw)
		return err
	})
	if err != nil {
		return "", err
	}
	return path, w.Close()
}
