package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Descriptors of Main.
const (
	specFD = 3 // read: the spec
	saidFD = 4 // write: "+" before the program is started; then, or instead, why it was not
)

// saidMoved is before a path of spec.Bound where another file lies.
const saidMoved = "moved "

// Main is `quern worker exec`, the first of our code inside a sandbox: it limits
// itself, becomes the job's owner, and then the program. It returns only if
// that fails.
func Main(args []string) int {
	for _, fd := range []int{specFD, saidFD} {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO || len(args) > 0 {
			fmt.Fprintln(os.Stderr, "usage: quern worker exec, with pipes as descriptors 3 and 4; agents start workers, people need not")
			return 2
		}
	}
	// Credentials and rlimits belong to the thread that calls execve.
	runtime.LockOSThread()
	// Nothing but the standard streams is handed on.
	_ = unix.CloseRange(specFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	said := os.NewFile(saidFD, "said")
	s, err := decodeSpec(os.NewFile(specFD, "spec"))
	if err == nil {
		if p := s.moved(); p != "" {
			fmt.Fprint(said, saidMoved, p)
			return 1
		}
		err = s.become()
	}
	if err == nil {
		err = s.exec(said)
	}
	fmt.Fprint(said, err)
	return 1
}

// become gives up everything that the program is not to have.
func (s *spec) become() error {
	if s.SetIDs {
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) // one that this kernel does not know
		}
		groups := make([]int, len(s.Groups))
		for i, g := range s.Groups {
			groups[i] = int(g)
		}
		if err := syscall.Setgroups(groups); err != nil {
			return fmt.Errorf("becoming a member of the groups %v: %w", groups, err)
		}
		if err := syscall.Setresgid(int(s.GID), int(s.GID), int(s.GID)); err != nil {
			return fmt.Errorf("becoming gid %d: %w", s.GID, err)
		}
		if err := syscall.Setresuid(int(s.UID), int(s.UID), int(s.UID)); err != nil {
			return fmt.Errorf("becoming uid %d: %w", s.UID, err)
		}
		// uid 0 has kept its capabilities; the bounding set is empty already, so
		// that execve does not give them back.
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&head, &none[0]); err != nil {
			return fmt.Errorf("giving up capabilities: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up privileges for good: %w", err)
	}
	return os.Chdir("/scratch")
}

// exec becomes the program.
func (s *spec) exec(said *os.File) error {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	limits := []struct {
		what  int
		limit uint64
	}{
		{unix.RLIMIT_CORE, 0}, {unix.RLIMIT_NOFILE, 4096},
		{unix.RLIMIT_FSIZE, s.Size}, {unix.RLIMIT_NPROC, s.Pids}, {unix.RLIMIT_AS, s.Memory},
	}
	// Made before the limits, under which memory may be short.
	argv, err := syscall.SlicePtrFromStrings(s.Argv)
	if err != nil {
		return err
	}
	env, err := syscall.SlicePtrFromStrings(s.Env)
	if err != nil {
		return err
	}
	var files []*byte
	for _, name := range s.candidates() {
		p, err := syscall.BytePtrFromString(name)
		if err != nil {
			return err
		}
		files = append(files, p)
	}
	if _, err := said.Write([]byte("+")); err != nil {
		return err
	}
	for _, l := range limits {
		if l.limit == 0 && l.what != unix.RLIMIT_CORE {
			continue
		}
		most := l.limit
		var now unix.Rlimit
		if unix.Getrlimit(l.what, &now) == nil {
			most = min(most, now.Max)
		}
		if err := unix.Setrlimit(l.what, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("setting a limit: %w", err)
		}
	}
	failed := syscall.ENOENT
	for _, file := range files {
		_, _, errno := syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(file)),
			uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])))
		if errno == syscall.ENOENT || errno == syscall.ENOTDIR {
			continue
		}
		if failed = errno; errno != syscall.EACCES {
			break
		}
	}
	return failed
}
