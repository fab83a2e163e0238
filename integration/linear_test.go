package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"quernfs/integration/linear"
)

// TestLinearizable: what several mounts are told through the kernel, while
// leaders and mounts are killed, is what one machine would have told them, in
// some order. integration/linear says what that means.
func TestLinearizable(t *testing.T) {
	c := startCluster(t, "--processes", "--meta-servers", "3", "--chunk-servers", "4", "--policy", "2+1")
	kills, pause := 10, 3*time.Second
	if long {
		kills = 120
	}
	h := &history{t: t, rec: linear.NewRecorder(), stop: make(chan struct{})}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	h.prepare(c.mnt)
	t.Cleanup(h.end)
	h.begin(c.mnt, seed+1)
	h.begin(c.secondMount().dir, seed+2)
	m := c.secondMount()
	victim := h.begin(m.dir, seed+3)
	progress := func(what string) {
		n := h.ops.Load()
		eventually(t, patience, func() error {
			if now := h.ops.Load(); now < n+50 {
				return fmt.Errorf("%d operations since %s", now-n, what)
			}
			return nil
		})
	}
	for i := range kills {
		sleep := time.NewTimer(time.Duration(rnd.Int64N(int64(pause))))
		<-sleep.C
		if i%2 == 0 {
			old := c.leader("")
			c.kill(old)
			progress("the leader was killed")
			c.restart(old)
			continue
		}
		victim.dead.Store(true)
		m.cmd.Process.Kill()
		// By force, as umount -f: a process that is killed while it tells the
		// kernel of a change keeps the device open for as long as an operation
		// waits for its answer, which is for ever.
		if err := unix.Unmount(m.dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
		<-m.exited
		victim.end()
		progress("a mount was killed")
		m = c.secondMount()
		victim = h.begin(m.dir, seed+4+uint64(i))
	}
	progress("the last kill")
	h.end()
	v := h.rec.Check(30 * time.Second)
	for _, w := range v.Wrong {
		t.Errorf("no order explains the history of %s", w)
	}
	t.Logf("%d operations (%d without an answer) in %d partitions; undecided %v", v.Operations, v.Unknown, v.Partitions, v.Undecided)
}

var linearDirs, linearNames = []string{"d", "e"}, []string{"a", "b", "c"}

// groupSize is how many operations a group of directories gets, about, before the
// work moves on: parts of the history stay short.
const groupSize = 150

// history is what all mounts do.
type history struct {
	t       *testing.T
	rec     *linear.Recorder
	groups  atomic.Int64 // that have their directories
	numbers atomic.Int64
	ops     atomic.Int64
	stop    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
}

// prepare makes the directories of the first groups, and those of further ones
// as the work comes to them.
func (h *history) prepare(mnt string) {
	h.t.Helper()
	next := func() bool {
		for _, d := range linearDirs {
			err := os.Mkdir(filepath.Join(mnt, fmt.Sprintf("g%d.%s", h.groups.Load(), d)), 0o755)
			if err != nil && !errors.Is(err, os.ErrExist) {
				return false
			}
		}
		h.groups.Add(1)
		return true
	}
	for range 3 {
		if !next() {
			h.t.Fatal("the first directories cannot be made")
		}
	}
	h.wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-h.stop:
				return
			}
			if h.ops.Load()/groupSize+3 > h.groups.Load() {
				next() // while leaders change it may fail
			}
		}
	})
}

// end stops all clients.
func (h *history) end() {
	h.once.Do(func() { close(h.stop) })
	h.wg.Wait()
}

// linearClient is one mount, from its start to its end.
type linearClient struct {
	h      *history
	number int
	mnt    string
	dead   atomic.Bool
	wg     sync.WaitGroup
}

// begin has three threads work on a mount.
func (h *history) begin(mnt string, seed uint64) *linearClient {
	c := &linearClient{h: h, number: int(h.numbers.Add(1)), mnt: mnt}
	for i := range 3 {
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		h.wg.Add(1)
		c.wg.Go(func() {
			defer h.wg.Done()
			for !c.dead.Load() {
				select {
				case <-h.stop:
					return
				default:
				}
				c.operate(rnd)
			}
		})
	}
	return c
}

// end notes that the mount has been killed.
func (c *linearClient) end() {
	c.wg.Wait()
	c.h.rec.Killed(c.number)
}

// result turns an errno into what the history knows.
func (c *linearClient) result(op linear.Op, err error) linear.Result {
	c.h.ops.Add(1)
	if c.dead.Load() {
		return linear.Result{Unknown: true} // it may have gone to what lies below the mount point
	}
	var errno unix.Errno
	if err != nil && !errors.As(err, &errno) {
		c.h.t.Errorf("%v: %v", op, err)
	}
	switch errno {
	case 0:
		return linear.Result{}
	case unix.ENOENT:
		return linear.Result{Err: "ENOENT"}
	case unix.EEXIST:
		return linear.Result{Err: "EEXIST"}
	case unix.EAGAIN:
		return linear.Result{Err: "EAGAIN"}
	case unix.EIO, unix.ENOTCONN, unix.ECONNABORTED, unix.EINTR:
	default:
		c.h.t.Errorf("%v: %v, which no local filesystem says", op, err)
	}
	return linear.Result{Unknown: true}
}

func inodeOf(fd int) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Ino, err
}

// operate does one random operation, or a few on one open file. The work moves
// on from directory to directory, so that no part of the history grows long.
func (c *linearClient) operate(rnd *rand.Rand) {
	h := c.h
	g := fmt.Sprintf("g%d", min(h.ops.Load()/groupSize, h.groups.Load()-1))
	pick := func(from []string) string { return from[rnd.IntN(len(from))] }
	op := linear.Op{Group: g, Dir: pick(linearDirs), Name: pick(linearNames)}
	path := func(dir, name string) string { return filepath.Join(c.mnt, g+"."+dir, name) }
	here := path(op.Dir, op.Name)
	switch n := rnd.IntN(100); {
	case n < 20:
		op.Kind, op.Owner = linear.Create, uint64(h.numbers.Add(1))
		end := h.rec.Call(c.number, op)
		fd, err := unix.Open(here, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		res := c.result(op, err)
		if err == nil {
			if res.Ino, err = inodeOf(fd); err != nil {
				res = linear.Result{Unknown: true}
			}
		}
		end(res)
		if err == nil {
			unix.Close(fd)
		}
	case n < 34:
		op.Kind = linear.Unlink
		end := h.rec.Call(c.number, op)
		end(c.result(op, unix.Unlink(here)))
	case n < 54:
		op.Kind, op.Dir2, op.Name2, op.Flags = linear.Rename, pick(linearDirs), pick(linearNames), uint32(rnd.IntN(3))
		end := h.rec.Call(c.number, op)
		end(c.result(op, unix.Renameat2(unix.AT_FDCWD, here, unix.AT_FDCWD, path(op.Dir2, op.Name2), uint(op.Flags))))
	case n < 64:
		op.Kind = linear.List
		end := h.rec.Call(c.number, op)
		names, err := listInodes(path(op.Dir, ""))
		res := c.result(op, err)
		res.Names = names
		end(res)
	case n < 74:
		op.Kind = linear.Lookup
		end := h.rec.Call(c.number, op)
		fd, err := unix.Open(here, unix.O_PATH|unix.O_NOFOLLOW, 0)
		res := c.result(op, err)
		if err == nil {
			if res.Ino, err = inodeOf(fd); err != nil {
				res = linear.Result{Unknown: true}
			}
		}
		end(res)
		if res.Unknown || res.Err != "" {
			if fd >= 0 {
				unix.Close(fd)
			}
			return
		}
		defer unix.Close(fd)
		op = linear.Op{Kind: linear.Link, Group: g, Ino: res.Ino, Dir: pick(linearDirs), Name: pick(linearNames)}
		end = h.rec.Call(c.number, op)
		end(c.result(op, unix.Linkat(fd, "", unix.AT_FDCWD, path(op.Dir, op.Name), unix.AT_EMPTY_PATH)))
	default:
		op.Kind = linear.Lookup
		end := h.rec.Call(c.number, op)
		fd, err := unix.Open(here, unix.O_RDWR|unix.O_NOFOLLOW, 0)
		res := c.result(op, err)
		if err == nil {
			if res.Ino, err = inodeOf(fd); err != nil {
				res = linear.Result{Unknown: true}
			}
		}
		end(res)
		if fd < 0 {
			return
		}
		defer unix.Close(fd)
		if res.Unknown || res.Err != "" {
			return
		}
		if rnd.IntN(4) == 0 {
			c.lock(fd, res.Ino)
			return
		}
		c.contents(fd, res.Ino, rnd)
	}
}

// listInodes reads a directory in one call of getdents64.
func listInodes(dir string) (map[string]uint64, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 32<<10)
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		return nil, err
	}
	all := map[string]uint64{}
	for buf = buf[:n]; len(buf) > 0; {
		d := (*unix.Dirent)(unsafe.Pointer(&buf[0]))
		name := unix.ByteSliceToString(buf[unsafe.Offsetof(d.Name):d.Reclen])
		if name != "." && name != ".." {
			all[name] = d.Ino
		}
		buf = buf[d.Reclen:]
	}
	return all, nil
}

// contents does a few things with an open file.
func (c *linearClient) contents(fd int, ino uint64, rnd *rand.Rand) {
	h := c.h
	for range 1 + rnd.IntN(4) {
		op := linear.Op{Ino: ino}
		what := rnd.IntN(5)
		if what == 2 && !long {
			what = 3 // a truncate beside another mount's write still has a fault, see docs/testing.md
		}
		switch what {
		case 0, 1:
			op.Kind, op.Off, op.Data = linear.Write, int64(rnd.IntN(4))*40, fmt.Sprintf("<%d>", h.numbers.Add(1))
			end := h.rec.Call(c.number, op)
			_, err := unix.Pwrite(fd, []byte(op.Data), op.Off)
			end(c.result(op, err))
		case 2:
			// The end never lies within a record: one may be seen to the old end for a moment.
			op.Kind, op.N = linear.Truncate, int64(rnd.IntN(5)*40+10+rnd.IntN(30))
			end := h.rec.Call(c.number, op)
			end(c.result(op, unix.Ftruncate(fd, op.N)))
		case 3:
			op.Kind = linear.Size
			end := h.rec.Call(c.number, op)
			var st unix.Stat_t
			res := c.result(op, unix.Fstat(fd, &st))
			res.N = st.Size
			end(res)
		default:
			op.Kind = linear.Read
			end := h.rec.Call(c.number, op)
			buf := make([]byte, 1024)
			n, err := unix.Pread(fd, buf, 0)
			res := c.result(op, err)
			res.Data = string(buf[:max(n, 0)])
			end(res)
		}
	}
	if rnd.IntN(2) == 0 {
		since := h.rec.Mark()
		if err := unix.Fsync(fd); c.result(linear.Op{Kind: linear.Write, Ino: ino}, err).Err == "" && err == nil {
			h.rec.Flushed(c.number, ino, since)
		}
	}
}

// lock takes a lock on a file and gives it up.
func (c *linearClient) lock(fd int, ino uint64) {
	op := linear.Op{Kind: linear.Lock, Ino: ino, Owner: uint64(c.h.numbers.Add(1))}
	end := c.h.rec.Call(c.number, op)
	res := c.result(op, unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB))
	end(res)
	if res.Err != "" {
		return
	}
	op.Kind = linear.Unlock
	end = c.h.rec.Call(c.number, op)
	end(c.result(op, unix.Flock(fd, unix.LOCK_UN)))
}
