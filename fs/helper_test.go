package fs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A page fault on a mapping of a file that this very process serves would stop
// Go's scheduler: mappings belong to a process of their own, this binary with
// mapperEnv set.
const mapperEnv = "QUERN_TEST_MAPPER"

func TestMain(m *testing.M) {
	if os.Getenv(mapperEnv) != "" {
		if err := serveMapping(os.Stdin, os.Stdout, os.Getenv(mapperEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveMapping maps a file, whole pages, shared, and obeys lines: "put OFF TEXT", "get OFF N",
// "sync", "private OFF TEXT".
func serveMapping(in io.Reader, out io.Writer, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	mapped := func(flags int) ([]byte, error) {
		return unix.Mmap(int(f.Fd()), 0, int(pages(0, fi.Size()).hi), unix.PROT_READ|unix.PROT_WRITE, flags)
	}
	shared, err := mapped(unix.MAP_SHARED)
	if err != nil {
		return err
	}
	private, err := mapped(unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	f.Close()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var verb, text string
		var off, n int
		answer := "ok"
		if c, _ := fmt.Sscanf(lines.Text(), "get %d %d", &off, &n); c == 2 {
			answer = string(shared[off : off+n])
		} else if c, _ := fmt.Sscanf(lines.Text(), "%s %d %s", &verb, &off, &text); c == 3 && verb == "private" {
			copy(private[off:], text)
		} else if c == 3 {
			copy(shared[off:], text)
		} else if err := unix.Msync(shared, unix.MS_SYNC); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

// mapping is a process that has a file mapped.
type mapping struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
}

func mapFile(t *testing.T, path string) *mapping {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), mapperEnv+"="+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	m := &mapping{t: t, in: in, out: bufio.NewReader(out), cmd: cmd}
	t.Cleanup(m.close)
	return m
}

func (m *mapping) close() {
	m.in.Close()
	if err := m.cmd.Wait(); err != nil && m.cmd.ProcessState == nil {
		m.t.Error(err)
	}
}

func (m *mapping) do(format string, args ...any) string {
	m.t.Helper()
	_, err := fmt.Fprintf(m.in, format+"\n", args...)
	must(m.t, err)
	line, err := m.out.ReadString('\n')
	must(m.t, err)
	return line[:len(line)-1]
}

func lockThread() { runtime.LockOSThread() }

// setThread changes the identity of this thread only, without privileges.
func setThread(uid, gid int, groups []uint32) error {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0); e != 0 {
		return e
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
		return e
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
		return e
	}
	return nil
}
