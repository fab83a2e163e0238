package fs

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MountOptions say how the filesystem appears. The zero value is read-write,
// for all users when root mounts it, without suid and devices.
type MountOptions struct {
	Source     string // what /proc/mounts shows as mounted; "": quern
	ReadOnly   bool
	AllowOther bool // other users may use it; root's mounts always are so
	Suid       bool // suid bits count
	Dev        bool // device files work
	NoExec     bool
	NoAtime    bool // access times are left alone
	NoDirAtime bool
	NonEmpty   bool // a directory with entries may be covered

	// ListCompute: the root's listing shows .compute. Else what walks a mount stays
	// out of it; its name finds it either way.
	ListCompute bool
}

// Mount is a mount in the kernel.
type Mount struct {
	fs   *FS
	dir  string
	real string // dir without symbolic links, as the kernel knows it
	conn *conn
	raw  *raw
	done chan struct{} // closed when the kernel has let go

	mu        sync.Mutex
	unmounted bool
}

// Mount mounts the filesystem at dir. A mount that a killed process left there
// is detached first. One FS has at most one mount at a time.
func (fs *FS) Mount(dir string, o MountOptions) (*Mount, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := prepare(dir, o.NonEmpty); err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	o.Source = cmp.Or(o.Source, "quern")
	fs.noAtime.Store(fs.cfg.NoAtime || o.NoAtime || o.ReadOnly)
	f, err := attach(dir, o)
	if err != nil {
		return nil, err
	}
	m := &Mount{fs: fs, dir: dir, real: real, done: make(chan struct{})}
	m.raw = newRaw(fs, o.ListCompute)
	m.conn = newConn(f, m.raw, fs.log)
	m.raw.conn, m.conn.dir = m.conn, real
	m.conn.serve()
	if !waitFor(m.conn.ready, initTimeout) {
		_ = detach(dir)
		return nil, fmt.Errorf("mount %s: the kernel did not begin within %v", dir, initTimeout)
	}
	m.conn.probeEpochs()
	if err := m.forbidPoll(); err != nil {
		fs.log.Warn("the kernel may go on asking for poll", "err", err)
	}
	fs.kern.Store(&kernelRef{m.conn})
	watch, err := watchOptions(real)
	if err != nil {
		fs.log.Warn("a remount with another rule for access times will not be seen", "err", err)
	}
	fs.options.Store(watch)
	go func() {
		m.conn.wait()
		fs.options.Store(nil)
		watch.close()
		fs.kern.Store(nil)
		_ = m.conn.close()
		m.raw.ended()
		close(m.done)
	}()
	m.tune()
	return m, nil
}

// mountWatch knows what a remount has made of the options of a mount: no access
// time moves in one that is read-only or has noatime. The kernel tells the process
// of a FUSE mount nothing of that, but a poll of mountinfo tells of every change.
type mountWatch struct {
	dir string

	mu   sync.Mutex
	info *os.File // nil: closed
}

func watchOptions(dir string) (*mountWatch, error) {
	info, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return &mountWatch{dir: dir, info: info}, nil
}

// changed returns the options, if there was any change of mounts since the last
// call. It never waits.
func (w *mountWatch) changed() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.info == nil {
		return nil
	}
	fds := []unix.PollFd{{Fd: int32(w.info.Fd()), Events: unix.POLLPRI}}
	if n, err := unix.Poll(fds, 0); n == 0 || err != nil {
		return nil
	}
	if _, err := w.info.Seek(0, io.SeekStart); err != nil {
		return nil
	}
	return mountOptions(w.info, w.dir)
}

func (w *mountWatch) close() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.info.Close()
	w.info = nil
}

// movesAtime says whether access times move. It is asked when one would.
func (fs *FS) movesAtime() bool {
	if w := fs.options.Load(); w != nil {
		if options := w.changed(); options != nil {
			fs.noAtime.Store(fs.cfg.NoAtime || slices.Contains(options, "ro") || slices.Contains(options, "noatime"))
		}
	}
	return !fs.noAtime.Load()
}

// mountOptions finds the options of the mount at dir in what has the form of
// mountinfo (proc(5)); nil: there is none.
func mountOptions(r io.Reader, dir string) (options []string) {
	escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(dir)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 5 && f[4] == escaped {
			options = strings.Split(f[5], ",")
		}
	}
	return options
}

// Done is closed when the mount has ended, by Unmount or by umount(8).
func (m *Mount) Done() <-chan struct{} { return m.done }

// Wait waits until the mount has ended.
func (m *Mount) Wait() { <-m.done }

// Dir is where it is mounted.
func (m *Mount) Dir() string { return m.dir }

// How long Unmount waits for those who use the mount, before it takes it away.
const busyWait = 2 * time.Second

// Unmount ends the mount, having flushed what was written. Whoever still uses
// it keeps it for a moment; then it is detached. It may be called twice.
func (m *Mount) Unmount(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unmounted {
		return nil
	}
	select {
	case <-m.done:
		m.unmounted = true
		return nil
	default:
	}
	flushed := m.fs.Sync(ctx)
	deadline := time.Now().Add(busyWait)
	for {
		err := unmount(m.dir, 0)
		if err == nil || errors.Is(err, unix.EINVAL) {
			break
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			if err := detach(m.dir); err != nil {
				return fmt.Errorf("unmount %s: %w", m.dir, err)
			}
			break
		}
		select {
		case <-m.done:
		case <-time.After(50 * time.Millisecond):
		}
	}
	m.unmounted = true
	select {
	case <-m.done:
	case <-time.After(busyWait):
		m.fs.log.Warn("the mount is detached, but still in use", "dir", m.dir)
	case <-ctx.Done():
	}
	return flushed
}

// prepare checks that dir can be mounted on.
func prepare(dir string, nonEmpty bool) error {
	fi, err := os.Stat(dir)
	if errors.Is(err, syscall.ENOTCONN) {
		// Its process was killed.
		if err := detach(dir); err != nil {
			return fmt.Errorf("mount %s: a mount whose process is gone is there and cannot be detached: %w", dir, err)
		}
		fi, err = os.Stat(dir)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("mount %s: there is no such directory; make it first", dir)
	case err != nil:
		return fmt.Errorf("mount %s: %w", dir, err)
	case !fi.IsDir():
		return fmt.Errorf("mount %s: it is not a directory", dir)
	case nonEmpty:
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	defer d.Close()
	if names, _ := d.Readdirnames(1); len(names) > 0 {
		return fmt.Errorf("mount %s: the directory is not empty, and mounting would hide what is in it (%s, …)", dir, names[0])
	}
	return nil
}

// attach makes the mount and returns the device that its requests come from.
func attach(dir string, o MountOptions) (*os.File, error) {
	if os.Geteuid() != 0 {
		return attachUser(dir, o)
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount %s: open /dev/fuse: %w (is the module fuse loaded?)", dir, err)
	}
	flags := uintptr(0)
	for _, b := range []struct {
		on   bool
		flag uintptr
	}{
		{o.ReadOnly, unix.MS_RDONLY}, {!o.Suid, unix.MS_NOSUID}, {!o.Dev, unix.MS_NODEV}, {o.NoExec, unix.MS_NOEXEC},
		{o.NoAtime, unix.MS_NOATIME}, {o.NoDirAtime, unix.MS_NODIRATIME},
	} {
		if b.on {
			flags |= b.flag
		}
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read=%d", fd, maxWrite)
	if err := unix.Mount(o.Source, dir, "fuse.quern", flags, options); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), "/dev/fuse"), nil
}

// attachUser mounts with the help of fusermount3, which hands back the device.
func attachUser(dir string, o MountOptions) (*os.File, error) {
	helper, err := exec.LookPath("fusermount3")
	if err != nil {
		return nil, fmt.Errorf("mount %s: fusermount3 is missing; install the package fuse3, or mount as root", dir)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "fusermount3"), os.NewFile(uintptr(pair[1]), "fusermount3")
	defer ours.Close()
	// fusermount3 takes a comma for the end of an option.
	name := strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(o.Source)
	options := []string{"fsname=" + name, "subtype=quern", "default_permissions", fmt.Sprintf("max_read=%d", maxWrite)}
	for _, b := range []struct {
		on   bool
		word string
	}{{o.ReadOnly, "ro"}, {o.AllowOther, "allow_other"}, {o.NoExec, "noexec"}, {o.NoAtime, "noatime"}, {o.NonEmpty, "nonempty"}} {
		if b.on {
			options = append(options, b.word)
		}
	}
	var says strings.Builder
	cmd := exec.Command(helper, "-o", strings.Join(options, ","), "--", dir)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = &says
	err = cmd.Run()
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("mount %s: fusermount3: %s", dir, firstLine(says.String(), err))
	}
	buf, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], buf, oob, 0)
	if err != nil {
		return nil, fmt.Errorf("mount %s: fusermount3 passed no device: %w", dir, err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, fmt.Errorf("mount %s: fusermount3 passed no device", dir)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("mount %s: fusermount3 passed no device", dir)
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "/dev/fuse"), nil
}

func firstLine(s string, err error) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if s == "" {
		return err.Error()
	}
	return s
}

func unmount(dir string, flags int) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, flags)
	}
	args := []string{"-u", dir}
	if flags&unix.MNT_DETACH != 0 {
		args = []string{"-u", "-z", dir}
	}
	out, err := exec.Command("fusermount3", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3: %s", firstLine(string(out), err))
	}
	return nil
}

func detach(dir string) error { return unmount(dir, unix.MNT_DETACH) }

// forbidPoll makes the kernel ask for poll once, on a file that go-fuse knows
// for this, and be told that there is no such thing. Else it would ask when a
// program in this very process opens a file here: Go's runtime waits for the
// answer in epoll_ctl with a processor held, and when all are held so nobody is
// left to answer.
func (m *Mount) forbidPoll() error {
	fd, err := unix.Open(filepath.Join(m.dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err
}

// tune lets the kernel read ahead in requests of full size. It is not needed,
// so it may fail.
func (m *Mount) tune() {
	var st unix.Stat_t
	if os.Geteuid() != 0 || unix.Stat(m.dir, &st) != nil {
		return
	}
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
	if err := os.WriteFile(path, []byte("1024"), 0); err != nil {
		m.fs.log.Debug("the kernel's read-ahead stays as it is", "err", err)
	}
}

func stack() string { return string(debug.Stack()) }
