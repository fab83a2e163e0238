package fs

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// fakeOverlay shows a directory "jobs" with a file "state", and keeps what it
// is told of the queue.
type fakeOverlay struct {
	mu     sync.Mutex
	queued []string
	left   []string
	wrote  []string
	ready  chan struct{}
}

const (
	virtJobs  = wire.VirtualPartition<<48 | 1
	virtState = wire.VirtualPartition<<48 | 2
	virtWait  = wire.VirtualPartition<<48 | 3
)

// seen copies one of the lists, which requests append to.
func (o *fakeOverlay) seen(list *[]string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(*list)
}

func (o *fakeOverlay) attr(ino uint64) *wire.Attr {
	a := &wire.Attr{Ino: ino, Mode: typeReg | 0o644, Nlink: 1, MtimeNs: 1e18}
	if ino == virtJobs {
		a.Mode = typeDir | 0o755
	}
	return a
}

func (o *fakeOverlay) Lookup(_ context.Context, _ *wire.Cred, dir uint64, name string) (*wire.Attr, error) {
	switch {
	case dir == wire.ComputeIno && name == "jobs":
		return o.attr(virtJobs), nil
	case dir == virtJobs && name == "state":
		return o.attr(virtState), nil
	case dir == virtJobs && name == "wait":
		return o.attr(virtWait), nil
	case dir == virtJobs && name == "out":
		return &wire.Attr{Ino: wire.OutputsIno}, nil
	}
	return nil, wire.Errorf(wire.NotFound, "look up", name, "no such entry")
}

func (o *fakeOverlay) GetAttr(_ context.Context, ino uint64) (*wire.Attr, error) {
	return o.attr(ino), nil
}

func (o *fakeOverlay) ReadDir(_ context.Context, _ *wire.Cred, dir uint64) ([]*wire.DirEntry, error) {
	if dir == wire.ComputeIno {
		return []*wire.DirEntry{{Name: "jobs", Ino: virtJobs, Type: typeDir}}, nil
	}
	return []*wire.DirEntry{{Name: "state", Ino: virtState, Type: typeReg}, {Name: "wait", Ino: virtWait, Type: typeReg}}, nil
}

func (o *fakeOverlay) ReadLink(context.Context, uint64) (string, error) { return "", wire.Invalid }

func (o *fakeOverlay) Open(_ context.Context, _ *wire.Cred, ino uint64, write bool) (OverlayFile, error) {
	return &fakeFile{o: o, ino: ino}, nil
}

func (o *fakeOverlay) Enqueue(_ context.Context, _ *wire.Cred, name string, _ uint64) error {
	if name == "bad.yaml" {
		return wire.Errorf(wire.Invalid, "enqueue", name, "a typo")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queued = append(o.queued, name)
	return nil
}

func (o *fakeOverlay) Dequeue(_ context.Context, _ *wire.Cred, name string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.left = append(o.left, name)
	return nil
}

type fakeFile struct {
	o   *fakeOverlay
	ino uint64
}

func (f *fakeFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if f.ino == virtWait {
		select {
		case <-f.o.ready:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	text := "running\n"
	if off >= int64(len(text)) {
		return 0, io.EOF
	}
	return copy(p, text[off:]), nil
}

func (f *fakeFile) Write(_ context.Context, p []byte) (int, error) {
	f.o.mu.Lock()
	defer f.o.mu.Unlock()
	f.o.wrote = append(f.o.wrote, string(p))
	return len(p), nil
}

func (f *fakeFile) Close() error { return nil }

func TestOverlay(t *testing.T) {
	o := &fakeOverlay{ready: make(chan struct{})}
	c := newCluster(t, 6, "4+2")
	mnt := c.mount(func(cfg *Config) { cfg.Overlay = o })
	compute := filepath.Join(mnt, ".compute")
	list := func(d string) (names []string) {
		t.Helper()
		l, err := os.ReadDir(d)
		must(t, err)
		for _, e := range l {
			names = append(names, e.Name())
		}
		return names
	}
	if l := list(compute); !slices.Equal(l, []string{"jobs", "kernels", "queue", "rules", "users"}) {
		t.Errorf("%v", l)
	}
	// What walks a mount does not come here, unless it is asked for.
	if l := list(mnt); slices.Contains(l, ".compute") {
		t.Errorf("the root lists %v", l)
	}
	listed := t.TempDir()
	m, err := c.fs(func(cfg *Config) { cfg.Overlay = o }).Mount(listed, MountOptions{ListCompute: true})
	must(t, err)
	if l := list(listed); !slices.Contains(l, ".compute") {
		t.Errorf("with ListCompute the root lists %v", l)
	}
	must(t, m.Unmount(t.Context()))
	if l := list(filepath.Join(compute, "jobs")); !slices.Equal(l, []string{"state", "wait"}) {
		t.Errorf("%v", l)
	}
	expect(t, filepath.Join(compute, "jobs/state"), "running\n")
	must(t, os.WriteFile(filepath.Join(compute, "jobs/state"), []byte("cancel"), 0o644))
	if got := o.seen(&o.wrote); !slices.Equal(got, []string{"cancel"}) {
		t.Errorf("%v", got)
	}
	if fi, err := os.Stat(filepath.Join(compute, "jobs/out")); err != nil || !fi.IsDir() {
		t.Error(fi, err)
	}
	if err := os.Mkdir(filepath.Join(compute, "jobs/x"), 0o755); !errors.Is(err, syscall.EPERM) {
		t.Error(err)
	}
	absent(t, filepath.Join(compute, "jobs/none"))

	// A read that waits ends when there is something to say.
	read := make(chan string, 1)
	go func() { b, _ := os.ReadFile(filepath.Join(compute, "jobs/wait")); read <- string(b) }()
	close(o.ready)
	select {
	case s := <-read:
		if s != "running\n" {
			t.Errorf("%q", s)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("the read goes on waiting")
	}

	// The queue: written in place, renamed in, refused, removed.
	q := filepath.Join(compute, "queue")
	write1(t, filepath.Join(q, "a.yaml"), "job: a")
	write1(t, filepath.Join(mnt, "b.yaml"), "job: b")
	must(t, os.Rename(filepath.Join(mnt, "b.yaml"), filepath.Join(q, "b.yaml")))
	write1(t, filepath.Join(mnt, "bad.yaml"), "jbo")
	if err := os.Rename(filepath.Join(mnt, "bad.yaml"), filepath.Join(q, "bad.yaml")); !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
	expect(t, filepath.Join(mnt, "bad.yaml"), "jbo")
	if err := os.WriteFile(filepath.Join(q, "bad.yaml"), []byte("jbo"), 0o644); !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
	must(t, os.Remove(filepath.Join(q, "a.yaml")))
	if !slices.Equal(o.seen(&o.queued), []string{"a.yaml", "b.yaml"}) || !slices.Equal(o.seen(&o.left), []string{"a.yaml"}) {
		t.Errorf("queued %v, left %v", o.seen(&o.queued), o.seen(&o.left))
	}
}

// Inodes that nobody uses are forgotten, and their leases given back.
func TestTrim(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	a := c.fs(func(cfg *Config) { cfg.MaxLeases = 5; cfg.FlushAfter = time.Millisecond })
	for i := range 20 {
		f, err := a.Create(t.Context(), wire.RootIno, string(rune('a'+i)), 0o644)
		must(t, err)
		_, err = f.WriteAt(t.Context(), []byte("x"), 0)
		must(t, err)
		must(t, f.Flush(t.Context()))
		must(t, f.Close())
	}
	held := len((&holder{a}).Held())
	a.trimOnce(time.Now())
	if n := len((&holder{a}).Held()); n != held {
		t.Errorf("%d of %d leases are left at once", n, held)
	}
	a.trimOnce(time.Now().Add(idleFor + time.Second))
	if n := len((&holder{a}).Held()); n > 5 {
		t.Errorf("%d leases are left", n)
	}
	for i := range 20 {
		f, err := a.OpenFile(t.Context(), "/"+string(rune('a'+i)))
		must(t, err)
		b := make([]byte, 1)
		if n, err := f.ReadAt(t.Context(), b, 0); n != 1 || b[0] != 'x' {
			t.Fatal(n, err)
		}
		must(t, f.Close())
	}
}
