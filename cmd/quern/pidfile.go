package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errHeld: another process holds the file.
var errHeld = errors.New("held by another process")

// pidFile is a file that its process keeps locked while it lives and that holds
// its process id. The lock, which ends with the process whatever happens, is
// what proves it alive; so an id that was given to another process since then
// is never mistaken for it. It is a lock of the open file (OFD), since that kind
// can be asked after without being taken.
type pidFile struct {
	path string
	f    *os.File
}

// takePidFile locks path and writes the own process id into it. errHeld: a
// living process has it.
func takePidFile(path string) (*pidFile, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
			f.Close()
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
				return nil, errHeld
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// The holder before us may have removed the file between our open and
		// our lock; then the lock is on a file that nobody else will see.
		if !samePath(f, path) {
			f.Close()
			continue
		}
		err = f.Truncate(0)
		if err == nil {
			_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("write %s: %w", path, err)
		}
		return &pidFile{path: path, f: f}, nil
	}
}

func samePath(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// release removes the file and gives up the lock.
func (p *pidFile) release() {
	if p == nil || p.f == nil {
		return
	}
	os.Remove(p.path)
	p.f.Close()
	p.f = nil
}

// livePid returns the id of the process that holds path, or 0.
func livePid(path string) (int, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("lock %s: %w", path, err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	raw := make([]byte, 32)
	n, _ := f.ReadAt(raw, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw[:n])))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s is held, but has no process id in it", path)
	}
	return pid, nil
}

// endByPidFile ends the process that holds path: SIGTERM, and SIGKILL when it
// has not gone after grace. It returns the id, 0 if there was none.
func endByPidFile(ctx context.Context, path string, grace time.Duration) (int, error) {
	pid, err := livePid(path)
	if err != nil || pid == 0 {
		return 0, err
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return pid, fmt.Errorf("end process %d: %w", pid, err)
	}
	if waitGone(ctx, path, grace) {
		return pid, nil
	}
	if now, _ := livePid(path); now == pid {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	if !waitGone(context.WithoutCancel(ctx), path, 10*time.Second) {
		return pid, fmt.Errorf("process %d does not end, not even by SIGKILL", pid)
	}
	return pid, fmt.Errorf("process %d did not end within %v and was killed", pid, grace)
}

// waitGone waits until no process holds path.
func waitGone(ctx context.Context, path string, limit time.Duration) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if pid, err := livePid(path); err == nil && pid == 0 {
			return true
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
