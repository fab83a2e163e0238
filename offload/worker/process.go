package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"quernfs/internal/rawtext"
)

// Config says how workers are started.
type Config struct {
	Command  []string      // what `quern worker wasm` is here: program and arguments
	Env      []string      // added to the little that a worker gets
	CacheDir string        // compiled modules; "": not kept
	Start    time.Duration // how long a worker may take to be ready; 0: 30 s
}

// Task is one run with its streams.
type Task struct {
	Run    Run
	Inputs []Input
	Stdout io.Writer // its error ends the run
	Stderr io.Writer
}

// Input is one file that a module may read.
type Input struct {
	Path string // in the namespace, absolute
	Size int64
	// ReadAt is called by one goroutine; like io.ReaderAt.
	ReadAt func(ctx context.Context, p []byte, off int64) (int, error)
}

// InputError is an input that could not be read: not the module's fault.
type InputError struct {
	Path string
	Err  error
}

func (e *InputError) Error() string { return "reading " + e.Path + ": " + e.Err.Error() }
func (e *InputError) Unwrap() error { return e.Err }

// OutputError is an output that could not be stored.
type OutputError struct{ Err error }

func (e *OutputError) Error() string { return "writing the output: " + e.Err.Error() }
func (e *OutputError) Unwrap() error { return e.Err }

// CrashError is a worker that ended in the middle of a run.
type CrashError struct{ Text string }

func (e *CrashError) Error() string { return "the worker process ended: " + e.Text }

// Process is one worker. One goroutine uses it; Close may come from any.
type Process struct {
	link  *link
	conn  net.Conn
	proc  *os.Process
	tail  *Tail
	ended chan struct{} // closed once the process has been reaped
	state string        // how it ended; set before ended is closed
	dead  bool          // of no use any more
	once  sync.Once
	buf   []byte // what is read for the worker
}

// environ is the little that a worker gets.
func (c Config) environ() []string {
	return append([]string{"PATH=/usr/bin:/bin", "HOME=/nonexistent", "TMPDIR=" + os.TempDir(), "GOMAXPROCS=" + strconv.Itoa(threads), "GOTRACEBACK=none"}, c.Env...)
}

// Start runs a worker and waits until it is ready.
func Start(ctx context.Context, cfg Config) (*Process, error) {
	if len(cfg.Command) == 0 {
		return nil, errors.New("no worker command is configured")
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "keeper")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, err
	}
	args := cfg.Command[1:]
	if cfg.CacheDir != "" {
		args = append(args[:len(args):len(args)], "--cache", cfg.CacheDir)
	}
	p := &Process{link: newLink(conn), conn: conn, tail: NewTail(64 << 10), ended: make(chan struct{})}
	cmd := exec.Command(cfg.Command[0], args...)
	cmd.Env = cfg.environ()
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = p.tail
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	started := make(chan error)
	go func() {
		// PDEATHSIG names the thread that started the child, not the process: so
		// this thread stays, and does nothing else, until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		err := cmd.Start()
		theirs.Close()
		if err != nil {
			p.state = err.Error()
			started <- err
			return
		}
		p.proc = cmd.Process
		started <- nil
		_ = cmd.Wait()
		p.state = cmd.ProcessState.String()
	}()
	if err := <-started; err != nil {
		conn.Close()
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	limit := cfg.Start
	if limit == 0 {
		limit = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	k, _, err := p.link.recv()
	if err == nil && k != kindReady {
		err = fmt.Errorf("frame %d at its start", k)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("a worker did not become ready: %s (%w)", p.how(), err)
	}
	return p, nil
}

// how tells how an ended worker ended.
func (p *Process) how() string {
	<-p.ended
	if text := lastWords(p.tail.String()); text != "" {
		return p.state + ": " + text
	}
	return p.state
}

// lastWords are what a process that has crashed has said of it: of the dump that
// Go's runtime makes, the line that tells why.
func lastWords(text string) string {
	for line := range strings.Lines(text) {
		for _, begin := range []string{"SIG", "fatal error: ", "panic: "} {
			if strings.HasPrefix(line, begin) {
				return strings.TrimSpace(line)
			}
		}
	}
	if text = strings.TrimSpace(text); len(text) > 4<<10 {
		text = strings.ToValidUTF8(text[len(text)-4<<10:], "?")
	}
	return text
}

// Pid is the worker's process id.
func (p *Process) Pid() int { return p.proc.Pid }

// Usable says whether the worker can take another run.
func (p *Process) Usable() bool {
	if p.dead {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Close kills the worker and waits for its end.
func (p *Process) Close() {
	p.once.Do(func() {
		_ = p.proc.Kill()
		p.conn.Close()
	})
	<-p.ended
}

// Run runs t. When ctx ends first the worker is killed and the error is the
// context's cause. Any other error but an *InputError leaves the worker dead,
// too: *OutputError, *CrashError. With an *InputError the Exit is there.
func (p *Process) Run(ctx context.Context, t *Task) (Exit, error) {
	if !p.Usable() {
		return Exit{}, &CrashError{"it was not running"}
	}
	stop := context.AfterFunc(ctx, func() { _ = p.proc.Kill() })
	exit, err := p.run(ctx, t)
	var in *InputError
	if !stop() { // killed, but the run may have ended before
		p.dead = true
		p.Close()
		if err == nil {
			return exit, nil
		}
		return Exit{}, context.Cause(ctx)
	}
	switch {
	case err == nil || errors.As(err, &in):
		return exit, err
	case isOutput(err):
		p.dead = true
		p.Close()
		return Exit{}, err
	default:
		p.dead = true
		p.Close()
		return Exit{}, &CrashError{p.how()}
	}
}

func isOutput(err error) bool {
	var out *OutputError
	return errors.As(err, &out)
}

func (p *Process) run(ctx context.Context, t *Task) (exit Exit, err error) {
	t.Run.Inputs = len(t.Inputs)
	contents := p.contents(ctx, t)
	t.Run.Contents = contents != nil
	head, err := rawtext.Marshal(&t.Run)
	if err != nil {
		return exit, err
	}
	if err := p.link.send(kindRun, head); err != nil {
		return exit, err
	}
	for _, in := range t.Inputs {
		if err := p.link.send(kindInput, encodeInput(in.Size, in.Path)...); err != nil {
			return exit, err
		}
		if contents == nil {
			continue
		}
		if err := p.link.send(kindContent, contents[:in.Size]); err != nil {
			return exit, err
		}
		contents = contents[in.Size:]
	}
	var inputErr error
	for {
		k, body, err := p.link.recv()
		if err != nil {
			return exit, err
		}
		switch k {
		case kindRead:
			q, err := decodeRead(body)
			if err != nil {
				return exit, err
			}
			if int(q.input) >= len(t.Inputs) {
				return exit, fmt.Errorf("a read of input %d of %d", q.input, len(t.Inputs))
			}
			in := t.Inputs[q.input]
			buf := p.buffer(int(q.n))
			n, err := readFull(ctx, in, buf, int64(q.off))
			if err != nil && inputErr == nil {
				inputErr = &InputError{in.Path, err}
			}
			if err != nil {
				err = p.link.send(kindData, []byte{1}, []byte("input/output error"))
			} else {
				err = p.link.send(kindData, []byte{0}, buf[:n])
			}
			if err != nil {
				return exit, err
			}
		case kindOut:
			if _, err := t.Stdout.Write(body); err != nil {
				return exit, &OutputError{err}
			}
		case kindErr:
			if _, err := t.Stderr.Write(body); err != nil {
				return exit, &OutputError{err}
			}
		case kindExit:
			if err := rawtext.Unmarshal(body, &exit); err != nil {
				return exit, err
			}
			p.dead = p.dead || exit.Last
			return exit, inputErr
		default:
			return exit, fmt.Errorf("frame %d in a run", k)
		}
	}
}

// maxContents is how many bytes of inputs go with a run.
const maxContents = 64 << 10

// contents are the inputs of t, one after the other; nil: they are too many, or one
// cannot be read, which whoever wants it is told.
func (p *Process) contents(ctx context.Context, t *Task) []byte {
	total := int64(0)
	for _, in := range t.Inputs {
		if total += in.Size; in.Size < 0 || total > maxContents {
			return nil
		}
	}
	if total == 0 {
		return nil
	}
	all := p.buffer(maxContents + 1)
	end := 0
	for _, in := range t.Inputs {
		// One byte more than it is to have.
		n, err := readFull(ctx, in, all[end:end+int(in.Size)+1], 0)
		if err != nil || int64(n) != in.Size {
			return nil
		}
		end += n
	}
	return all[:end]
}

// buffer has n bytes, at most chunk.
func (p *Process) buffer(n int) []byte {
	if len(p.buf) < n {
		p.buf = make([]byte, n)
	}
	return p.buf[:n]
}

// readFull fills p unless the input ends before; it never returns io.EOF.
func readFull(ctx context.Context, in Input, p []byte, off int64) (int, error) {
	total := 0
	for total < len(p) {
		n, err := in.ReadAt(ctx, p[total:], off+int64(total))
		total += n
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}
