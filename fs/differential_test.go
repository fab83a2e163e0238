package fs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// actor is who does a step: the file's owner, a member of its group, a stranger,
// or root.
type actor struct {
	name     string
	uid, gid int
	groups   []int
}

var actors = []actor{
	{"root", 0, 0, nil}, {"the owner", 1001, 1001, nil}, {"a member", 1002, 1002, []int{1001}}, {"a stranger", 1003, 1003, nil},
}

// step is one change of a file, to be made alike on several filesystems.
type step struct {
	what string
	by   actor
	do   func(path string) error
}

// seenAttrs is what a step has left behind. Times count only as far as they are
// the ones that were set last, and have moved.
type seenAttrs struct {
	errno        string
	mode         uint32
	uid, gid     uint32
	size         int64
	mtimeSet     bool // mtime is the one that utimensat set last
	ctimeMoved   bool
	capabilities bool
	user         string // user.x
}

// twin is the same file on one of the filesystems.
type twin struct {
	path  string
	ctime unix.Timespec
	mtime unix.Timespec
}

func (w *twin) see(t *testing.T, err error) seenAttrs {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(w.path, &st))
	a := seenAttrs{
		mode: st.Mode, uid: st.Uid, gid: st.Gid, size: st.Size,
		mtimeSet: st.Mtim == w.mtime, ctimeMoved: st.Ctim != w.ctime,
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		a.errno = no.Error()
	} else if err != nil {
		a.errno = err.Error()
	}
	var b [64]byte
	_, err = unix.Getxattr(w.path, "security.capability", b[:])
	a.capabilities = err == nil
	if n, err := unix.Getxattr(w.path, "user.x", b[:]); err == nil {
		a.user = string(b[:n])
	}
	w.ctime = st.Ctim
	return a
}

// opened opens a file, without the runtime's poller, for one step.
func opened(path string, flags int, f func(fd int) error) error {
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// netRaw is cap_net_raw+ep, as setcap writes it.
var netRaw = append([]byte{1, 0, 0, 2, 0, 0x20, 0, 0}, make([]byte, 12)...)

func randomStep(r *rand.Rand, lastMtime *unix.Timespec, source map[string]string) step {
	s := step{by: actors[r.IntN(len(actors))]}
	off, n := int64(r.IntN(9000)), int64(1+r.IntN(5000))
	fallocate := func(mode uint32) func(string) error {
		return func(p string) error {
			return opened(p, unix.O_RDWR, func(fd int) error { return unix.Fallocate(fd, mode, off, n) })
		}
	}
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	switch r.IntN(19) {
	case 0, 1, 2:
		mode := []uint32{0o6777, 0o2767, 0o4767, 0o6767, 0o777, 0o6666}[r.IntN(6)]
		s.by = actors[r.IntN(2)]
		s.what = fmt.Sprintf("chmod %o", mode)
		s.do = func(p string) error { return unix.Chmod(p, mode) }
	case 3, 4, 5:
		s.by = actors[r.IntN(2)]
		*lastMtime = unix.Timespec{Sec: int64(1000 + r.IntN(1_000_000)), Nsec: int64(r.IntN(1e9))}
		m := *lastMtime
		s.what = fmt.Sprintf("utimensat %d", m.Sec)
		s.do = func(p string) error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Sec: 5}, m}, 0)
		}
	case 6:
		s.what = "touch"
		s.do = func(p string) error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}, 0)
		}
	case 7:
		s.by = actors[0]
		gid := []int{1001, 1001, 1003}[r.IntN(3)]
		s.what = fmt.Sprintf("chown to group %d", gid)
		s.do = func(p string) error { return unix.Chown(p, 1001, gid) }
	case 8:
		s.by = actors[1]
		s.what = "chgrp to the own group"
		s.do = func(p string) error { return unix.Chown(p, -1, 1001) }
	case 9, 10:
		b := make([]byte, n)
		flags := []int{unix.O_RDWR, unix.O_RDWR | unix.O_APPEND}[r.IntN(2)]
		s.what = fmt.Sprintf("write %d at %d, flags %#x", n, off, flags)
		s.do = func(p string) error {
			return opened(p, flags, func(fd int) error { _, err := unix.Pwrite(fd, b, off); return err })
		}
	case 11:
		s.what = fmt.Sprintf("truncate to %d", off)
		s.do = func(p string) error { return unix.Truncate(p, off) }
	case 12:
		s.what = fmt.Sprintf("ftruncate to %d", off)
		s.do = func(p string) error {
			return opened(p, unix.O_RDWR, func(fd int) error { return unix.Ftruncate(fd, off) })
		}
	case 13:
		s.what = "O_TRUNC"
		s.do = func(p string) error { return opened(p, unix.O_RDWR|unix.O_TRUNC, func(int) error { return nil }) }
	case 14:
		mode := []uint32{0, unix.FALLOC_FL_KEEP_SIZE}[r.IntN(2)]
		s.what = fmt.Sprintf("fallocate, mode %d, %d at %d", mode, n, off)
		s.do = fallocate(mode)
	case 15:
		mode := []uint32{punch, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE}[r.IntN(3)]
		s.what = fmt.Sprintf("fallocate, mode %d, %d at %d", mode, n, off)
		s.do = func(p string) error {
			err := fallocate(mode)(p)
			if errors.Is(err, syscall.EOPNOTSUPP) { // a filesystem without ZERO_RANGE
				if err = fallocate(punch)(p); err == nil {
					err = fallocate(mode &^ unix.FALLOC_FL_ZERO_RANGE)(p)
				}
			}
			return err
		}
	case 16:
		s.what = fmt.Sprintf("copy_file_range %d to %d", n, off)
		s.do = func(p string) error {
			return opened(source[filepath.Dir(p)], unix.O_RDONLY, func(src int) error {
				return opened(p, unix.O_RDWR, func(dst int) error {
					from, to := int64(100), off
					_, err := unix.CopyFileRange(src, &from, dst, &to, int(n), 0)
					return err
				})
			})
		}
	case 17:
		s.by = actors[r.IntN(2)]
		s.what = "setcap"
		s.do = func(p string) error { return unix.Setxattr(p, "security.capability", netRaw, 0) }
	default:
		v := fmt.Sprint(r.IntN(100))
		s.what = "setxattr user.x " + v
		s.do = func(p string) error { return unix.Setxattr(p, "user.x", []byte(v), 0) }
	}
	return s
}

// TestLikeLocal makes the same changes of attributes and data, by several users,
// on a mount and on a local filesystem. After each the two files look alike.
func TestLikeLocal(t *testing.T) {
	needRoot(t)
	c := newCluster(t, 6, "4+2")
	mnt, other := c.mount(), c.mount()
	local := filepath.Join(c.dir, "local")
	must(t, os.Mkdir(local, 0o755))
	must(t, unix.Mount("tmpfs", local, "tmpfs", 0, "size=64m,mode=755"))
	t.Cleanup(func() { must(t, unix.Unmount(local, 0)) })
	source := map[string]string{}
	for _, d := range []string{mnt, local} {
		source[d] = filepath.Join(d, "source")
		must(t, os.WriteFile(source[d], make([]byte, 20_000), 0o644))
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("QUERN_TEST_SEED"); s != "" {
		_, err := fmt.Sscan(s, &seed)
		must(t, err)
	}
	t.Logf("seed %d (QUERN_TEST_SEED)", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 10 {
		twins := []*twin{{path: filepath.Join(local, fmt.Sprint(round))}, {path: filepath.Join(mnt, fmt.Sprint(round))}}
		for _, w := range twins {
			must(t, os.WriteFile(w.path, make([]byte, 3000), 0o644))
			must(t, os.Chown(w.path, 1001, 1001))
			must(t, unix.Chmod(w.path, 0o777))
			w.see(t, nil)
		}
		var history []string
		var mtime unix.Timespec
		for range 40 {
			s := randomStep(r, &mtime, source)
			history = append(history, fmt.Sprintf("%s: %s", s.by.name, s.what))
			var seen []seenAttrs
			for _, w := range twins {
				awaitTick()
				var err error
				as(t, s.by.uid, s.by.gid, func() { err = s.do(w.path) }, s.by.groups...)
				w.mtime = mtime
				seen = append(seen, w.see(t, err))
			}
			if seen[0] != seen[1] {
				for _, h := range history[max(0, len(history)-8):] {
					t.Log(h)
				}
				t.Fatalf("round %d:\nlocal %+v\nmount %+v", round, seen[0], seen[1])
			}
			if r.IntN(12) == 0 {
				history = append(history, "another mount looks")
				shown := lstat(t, twins[1].path)
				if st := lstat(t, filepath.Join(other, fmt.Sprint(round))); st.Mode != shown.Mode || st.Mtim != shown.Mtim || st.Ctim != shown.Ctim || st.Gid != shown.Gid || st.Size != shown.Size {
					for _, h := range history[max(0, len(history)-8):] {
						t.Log(h)
					}
					t.Fatalf("round %d: another mount shows %+v, this one %+v", round, st, shown)
				}
			}
		}
	}
}

// awaitTick waits until times of changes differ from those before.
func awaitTick() {
	const grain = 5 * time.Millisecond // of the kernel's coarse clock, and more than timeGrain
	for began := time.Now(); time.Since(began) < grain; {
		runtime.Gosched()
	}
}
