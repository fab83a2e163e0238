package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Run is one program to run.
type Run struct {
	Argv    []string
	Allow   []string // the programs of the host that may be run, as Allowed has them; nil: any
	Env     []string // NAME=VALUE, beyond PATH, HOME, TMPDIR and LANG
	UID     uint32   // whom it runs as; as an agent that is not root: its own
	GID     uint32
	Groups  []uint32
	Network bool // the host's; else none
	Limits  Limits
	Binds   []Bind   // read-only
	Devices []string // paths below /dev
	Dir     Dir
	Stdin   io.Reader // nil: empty. An error that is not io.EOF ends the run
	Stdout  io.Writer // its error ends the run
	Stderr  io.Writer
	Grace   time.Duration // between SIGTERM and SIGKILL; 0: 5 s
}

// Bind shows From, a file or directory of the host, at To. bwrap follows the
// symbolic links in From, which others may have put there since the caller looked;
// so what came to lie at To is looked at in the sandbox, before the program begins.
type Bind struct {
	From, To string
	Dev, Ino uint64 // what From is to be, as stat(2) has it; both 0: whatever it is
}

// MovedError is a Bind whose From was another file when it was bound.
type MovedError struct{ Path string }

func (e *MovedError) Error() string { return e.Path + " is not what it was" }

// Exit is how a program ended.
type Exit struct {
	Code   int // 128 + the signal's number if it was killed by one, as shells have it
	Memory int64
	CPU    time.Duration // Memory (bytes) and CPU are 0 where no control group counts
	OOM    bool          // a process was killed for lack of memory
	Pids   bool          // a process could not be started, there were too many
}

// Signal names the signal that Code tells of, such as SIGSEGV; "" if none.
func (e Exit) Signal() string {
	if e.Code <= 128 || e.Code > 128+64 {
		return ""
	}
	return unix.SignalName(unix.Signal(e.Code - 128))
}

// StartError is a program that could not be started: it is not there, or not
// one.
type StartError struct{ Program, Why string }

func (e *StartError) Error() string {
	return fmt.Sprintf("%s could not be started: %s", e.Program, e.Why)
}

// SetupError is a sandbox that could not be made. It is the host's fault.
type SetupError struct{ Err error }

func (e *SetupError) Error() string { return "the sandbox could not be made: " + e.Err.Error() }
func (e *SetupError) Unwrap() error { return e.Err }

// StreamError is a standard stream that could not be read or written by us.
type StreamError struct{ Err error }

func (e *StreamError) Error() string { return e.Err.Error() }
func (e *StreamError) Unwrap() error { return e.Err }

var errDiskFull = &SetupError{errors.New("the disk of this host is nearly full")}

const (
	startLimit = 30 * time.Second       // for a program to be started
	killLimit  = 60 * time.Second       // for processes to be gone after SIGKILL
	watchEvery = 100 * time.Millisecond // how often sizes are looked at, at first
	chunk      = 64 << 10
)

// box is one run under way.
type box struct {
	h     *Host
	run   *Run
	file  string // that the program is; "": it is looked for in the sandbox
	group *group
	proc  *os.Process
	state *os.ProcessState // set before ended is closed
	ended chan struct{}    // closed once bwrap's monitor has been reaped
	fail  chan error       // capacity 1: why a stream ends the run

	first   int    // the first process of the namespace; 0: not known
	firstFD int    // its pidfd; -1: none
	ns      string // its pid namespace
	begun   bool   // the program has been started

	stdin, stdout, stderr *os.File // our ends
	spec, said, info      *os.File
	start, maps           *os.File
	streams               sync.WaitGroup
	head                  headBuffer // of stderr
}

// Run runs a program and returns how it ended, once all of its processes are
// gone. When ctx ends first the error is the context's cause; others are
// *StartError, *SetupError, *MovedError, *LimitError, *StreamError. With an error, too, the
// Exit has what is known.
func (h *Host) Run(ctx context.Context, r *Run) (Exit, error) {
	if !h.root && int(r.UID) != os.Geteuid() {
		return Exit{}, &SetupError{fmt.Errorf("this agent runs programs of uid %d only", os.Geteuid())}
	}
	if r.Limits.Memory <= 0 || r.Limits.Pids <= 0 || r.Limits.Scratch <= 0 || r.Limits.Output <= 0 {
		return Exit{}, &SetupError{errors.New("a limit is missing")}
	}
	// What a job brings along is below /in, so nothing of the host can be replaced.
	for _, b := range r.Binds {
		if !strings.HasPrefix(b.To+"/", "/in/") || path.Clean(b.To) != b.To {
			return Exit{}, &SetupError{fmt.Errorf("%s cannot be shown at %s", b.From, b.To)}
		}
	}
	file, err := h.program(r)
	if err != nil {
		return Exit{}, err
	}
	b := &box{h: h, run: r, file: file, ended: make(chan struct{}), fail: make(chan error, 1), firstFD: -1}
	defer b.close()
	err = b.launch()
	if err == nil {
		err = b.begin(ctx)
		if err == nil {
			err = b.watch(ctx)
		}
		b.end()
	}
	exit := b.exit()
	var setup *SetupError
	if errors.As(err, &setup) && !b.begun {
		if exit.OOM {
			return exit, nil
		}
		if text := b.head.line(); strings.HasPrefix(text, "bwrap: ") {
			err = &SetupError{errors.New(text)}
		}
	}
	return exit, err
}

// launch starts bwrap, which then waits.
func (b *box) launch() error {
	r := b.run
	if b.h.root {
		for _, d := range []string{r.Dir.Out(), r.Dir.Scratch()} {
			if err := os.Chown(d, int(r.UID), int(r.GID)); err != nil {
				return &SetupError{err}
			}
		}
	}
	err := b.h.fresh(func(name string) (err error) {
		b.group, err = b.h.cgroups.make(name, r.Limits)
		return err
	})
	if err != nil {
		return &SetupError{err}
	}
	args, err := packArguments(b.h.arguments(r))
	if err != nil {
		return &SetupError{err}
	}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	pipe := func(ours **os.File, theyRead bool) *os.File {
		pr, pw, e := os.Pipe()
		if e != nil {
			err = errors.Join(err, e)
			return nil
		}
		if theyRead {
			pr, pw = pw, pr
		}
		*ours = pr
		theirs = append(theirs, pw)
		return pw
	}
	content := func(data []byte) *os.File {
		fd, e := unix.MemfdCreate("quern", unix.MFD_CLOEXEC)
		if e != nil {
			err = errors.Join(err, e)
			return nil
		}
		f := os.NewFile(uintptr(fd), "memfd")
		_, e = f.Write(data)
		_, e2 := f.Seek(0, io.SeekStart)
		err = errors.Join(err, e, e2)
		theirs = append(theirs, f)
		return f
	}
	cmd := exec.Command(b.h.bwrap, "--args", fmt.Sprint(argsFD), "--", helper)
	cmd.Args = append(cmd.Args, b.h.cfg.Init[1:]...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", b.h.mark(os.Getpid())}
	cmd.Dir = "/"
	stdin, stdout, stderr := pipe(&b.stdin, true), pipe(&b.stdout, false), pipe(&b.stderr, false)
	cmd.ExtraFiles = []*os.File{
		pipe(&b.spec, true), pipe(&b.said, false), pipe(&b.info, false), pipe(&b.start, true), pipe(&b.maps, true),
		content(b.h.filter), content(args),
	}
	if err != nil {
		return &SetupError{err}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		// PDEATHSIG names the thread that started the child, not the process: so
		// this thread stays, and does nothing else, until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		defer close(b.ended)
		b.proc = cmd.Process
		started <- nil
		_ = cmd.Wait()
		b.state = cmd.ProcessState
	}()
	if err := <-started; err != nil {
		return &SetupError{err}
	}
	return nil
}

// begin lets the program start, inside of its limits.
func (b *box) begin(ctx context.Context) error {
	b.streams.Add(2)
	go b.drain(b.stdout, discard(b.run.Stdout), nil)
	go b.drain(b.stderr, discard(b.run.Stderr), &b.head)

	// Which process is the first of the namespace is waited for even if ctx has
	// ended: it can only be ended once it is known.
	_ = b.info.SetReadDeadline(time.Now().Add(startLimit))
	limit, cancel := context.WithTimeoutCause(ctx, startLimit, &SetupError{fmt.Errorf("bwrap did not become ready within %s", startLimit)})
	defer cancel()
	stop := context.AfterFunc(limit, func() {
		past := time.Unix(1, 0)
		for _, f := range []*os.File{b.said, b.spec} {
			_ = f.SetDeadline(past)
		}
	})
	defer stop()
	said, err := b.enter()
	switch {
	case said == "+": // whatever comes now, it has begun
		b.begun = true
		if b.run.Stdin != nil {
			b.streams.Add(1)
			go b.feed()
		} else {
			b.stdin.Close()
		}
		return nil
	case limit.Err() != nil:
		return context.Cause(limit)
	case err != nil:
		return &SetupError{err}
	case said == "":
		// bwrap, or our own program in it, has failed.
		return &SetupError{errors.New("it ended before the program began")}
	}
	if p, ok := strings.CutPrefix(said, saidMoved); ok {
		return &MovedError{p}
	}
	why := strings.TrimPrefix(said, "+")
	if strings.HasPrefix(said, "+") {
		return &StartError{b.run.Argv[0], why}
	}
	return &SetupError{errors.New(why)}
}

// enter does what has to be done while bwrap waits, and returns what Main says.
func (b *box) enter() (said string, err error) {
	var text []byte
	buf := make([]byte, 4096)
	for b.first == 0 {
		n, err := b.info.Read(buf)
		text = append(text, buf[:n]...)
		if bytes.ContainsRune(text, '}') {
			if b.first, err = decodeInfo(text); err != nil {
				return "", err
			}
			break
		}
		if err == io.EOF {
			return "", nil
		}
		if err != nil || len(text) > chunk {
			return "", errors.Join(errors.New("bwrap's information is not as expected"), err)
		}
	}
	if b.firstFD, err = unix.PidfdOpen(b.first, 0); err != nil {
		return "", err
	}
	b.ns = namespace(b.first)
	if b.h.root {
		for _, file := range []string{"gid_map", "uid_map"} {
			if err := write(fmt.Sprintf("/proc/%d", b.first), file, "0 0 4294967295\n"); err != nil {
				return "", err
			}
		}
		if _, err := b.maps.Write([]byte("x")); err != nil {
			return "", err
		}
	}
	if err := b.group.add(b.first); err != nil {
		return "", err
	}
	s := &spec{
		Argv: b.run.Argv, File: b.file, Env: environment(b.run.Env), UID: b.run.UID, GID: b.run.GID, Groups: b.run.Groups, SetIDs: b.h.root,
		// A little more, so that it is seen that there is too much.
		Size: uint64(max(b.run.Limits.Output, b.run.Limits.Scratch) + chunk),
	}
	for _, bind := range b.run.Binds {
		if bind.Dev != 0 || bind.Ino != 0 {
			s.Bound = append(s.Bound, bound{bind.To, bind.Dev, bind.Ino})
		}
	}
	if b.h.limits.Memory == ByRlimit {
		s.Memory = uint64(b.run.Limits.Memory)
	}
	if b.h.limits.Pids == ByRlimit {
		s.Pids = uint64(b.run.Limits.Pids)
	}
	body, err := s.encode()
	if err != nil {
		return "", err
	}
	if _, err := b.start.Write([]byte("x")); err != nil {
		return "", nil // it has ended: what it said tells why
	}
	_, _ = b.spec.Write(body)
	b.spec.Close()
	answer, err := io.ReadAll(io.LimitReader(b.said, chunk))
	return string(answer), err
}

// drain reads one of the program's streams until its end.
func (b *box) drain(from *os.File, to io.Writer, head *headBuffer) {
	defer b.streams.Done()
	buf := make([]byte, chunk)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if head != nil {
				head.add(buf[:n])
			}
			if _, werr := to.Write(buf[:n]); werr != nil {
				b.stop(&StreamError{werr})
				return // the program is killed while it waits for us to read
			}
		}
		if err != nil {
			return
		}
	}
}

// feed writes the standard input, until the program does not want more.
func (b *box) feed() {
	defer b.streams.Done()
	defer b.stdin.Close()
	buf := make([]byte, chunk)
	for {
		n, err := b.run.Stdin.Read(buf)
		if n > 0 {
			if _, werr := b.stdin.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			b.stop(&StreamError{err})
			return
		}
	}
}

// stop makes watch end the run.
func (b *box) stop(err error) {
	select {
	case b.fail <- err:
	default:
	}
}

// watch waits for the end of the program, or for a reason to end it.
func (b *box) watch(ctx context.Context) error {
	timer := time.NewTimer(watchEvery)
	defer timer.Stop()
	for {
		select {
		case <-b.ended:
			// A limit may have been passed just before.
			select {
			case err := <-b.fail:
				return err
			default:
				return b.overLimit()
			}
		case <-ctx.Done():
			b.terminate()
			return context.Cause(ctx)
		case err := <-b.fail:
			return err
		case <-timer.C:
			began := time.Now()
			if err := b.overLimit(); err != nil {
				return err
			}
			// No more than a tenth of a processor for looking.
			timer.Reset(max(watchEvery, 9*time.Since(began)))
		}
	}
}

// terminate asks all processes to end, and waits for it.
func (b *box) terminate() {
	grace := b.run.Grace
	if grace <= 0 {
		grace = 5 * time.Second
	}
	signal(b.ns, b.first, unix.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-b.ended:
	case <-timer.C:
	}
}

// end makes sure that every process is gone, and our goroutines, too.
func (b *box) end() {
	if b.firstFD >= 0 {
		_ = unix.PidfdSendSignal(b.firstFD, unix.SIGKILL, nil, 0)
	}
	b.group.kill()
	if b.firstFD >= 0 {
		gone(b.firstFD, killLimit)
	} else {
		// One that waits for bwrap's monitor would wait for ever.
		for _, pid := range children(b.proc.Pid) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	timer := time.NewTimer(time.Second)
	select {
	case <-b.ended:
	case <-timer.C:
		_ = b.proc.Kill()
		<-b.ended
	}
	timer.Stop()
	b.stdin.Close()
	// What waits in the pipes is read; nobody can write more.
	past := time.Now().Add(killLimit)
	_ = b.stdout.SetReadDeadline(past)
	_ = b.stderr.SetReadDeadline(past)
	b.streams.Wait()
}

// gone waits until the process of a pidfd has ended.
func gone(fd int, limit time.Duration) bool {
	end := time.Now().Add(limit)
	for {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n > 0 {
			return true
		}
		if err != nil && err != unix.EINTR {
			return false
		}
	}
}

// exit tells how it ended.
func (b *box) exit() (e Exit) {
	e.Code = -1
	if b.state != nil && b.state.Exited() {
		e.Code = b.state.ExitCode()
	}
	if b.group != nil {
		u := b.group.used()
		e.Memory, e.CPU, e.OOM, e.Pids = u.memory, time.Duration(u.cpu), u.oom, u.pids
	}
	return e
}

// close frees what the run has held.
func (b *box) close() {
	for _, f := range []*os.File{b.stdin, b.stdout, b.stderr, b.spec, b.said, b.info, b.start, b.maps} {
		if f != nil {
			f.Close()
		}
	}
	if b.firstFD >= 0 {
		unix.Close(b.firstFD)
	}
	if b.group != nil {
		b.group.remove()
	}
}

// headBuffer keeps the first bytes of a stream.
type headBuffer struct {
	mu  sync.Mutex
	buf []byte
}

func (h *headBuffer) add(p []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf = append(h.buf, p[:min(len(p), 500-len(h.buf))]...)
}

func (h *headBuffer) line() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return firstLine(h.buf)
}
