package worker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"quernfs/internal/rawtext"
)

// Main is the worker process: `quern worker wasm [--cache DIR]`, started by a
// Process with a socket as descriptor 3. It returns the exit status.
func Main(args []string) int {
	if len(args) == 0 || args[0] != "wasm" {
		fmt.Fprintln(os.Stderr, "usage: quern worker wasm [--cache DIR]; agents start workers, people need not")
		return 2
	}
	flags := flag.NewFlagSet("worker wasm", flag.ContinueOnError)
	cache := flags.String("cache", "", "directory of compiled modules")
	if flags.Parse(args[1:]) != nil {
		return 2
	}
	if !HasKeeper() {
		fmt.Fprintln(os.Stderr, "worker wasm: descriptor 3 is not a socket; agents start workers, people need not")
		return 2
	}
	Restrain(256)
	e, err := newEngine(*cache)
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker wasm:", err)
		return 1
	}
	if err := serve(e, os.NewFile(3, "keeper")); err != nil {
		fmt.Fprintln(os.Stderr, "worker wasm:", err)
		return 1
	}
	return 0
}

// HasKeeper says whether descriptor 3 is a socket, as it is in a worker.
func HasKeeper() bool {
	t, err := unix.GetsockoptInt(3, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && t == unix.SOCK_STREAM
}

// Restrain takes from this process what no module needs, and allows it files
// open files. What the system does not grant is left as it is: the sandbox is
// the module's, this is the second fence.
func Restrain(files uint64) {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files})
	_ = unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 30, Max: 1 << 30})
	_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("800"), 0)
}

// runner carries out one run after the other. Whatever goes wrong becomes an
// Exit.
type runner interface {
	run(ctx context.Context, r *Run, in *inputs, stdout, stderr io.Writer) Exit
}

// Serve is the worker's side for a runtime of another package: it carries out
// runs with f until the keeper closes its end. stdin is all inputs, one after
// the other.
func Serve(f func(r *Run, stdin io.Reader, stdout, stderr io.Writer) Exit) error {
	return serve(runFunc(f), os.NewFile(3, "keeper"))
}

// ServeFiles is Serve for a runtime that is to see the inputs as files, under their
// paths without the first /.
func ServeFiles(f func(r *Run, files fs.FS, stdin io.Reader, stdout, stderr io.Writer) Exit) error {
	return serve(filesFunc(f), os.NewFile(3, "keeper"))
}

type filesFunc func(r *Run, files fs.FS, stdin io.Reader, stdout, stderr io.Writer) Exit

func (f filesFunc) run(_ context.Context, r *Run, in *inputs, stdout, stderr io.Writer) Exit {
	return f(r, in, in.stream(), stdout, stderr)
}

type runFunc func(r *Run, stdin io.Reader, stdout, stderr io.Writer) Exit

func (f runFunc) run(_ context.Context, r *Run, in *inputs, stdout, stderr io.Writer) Exit {
	return f(r, in.stream(), stdout, stderr)
}

// serve carries out runs until the keeper closes its end.
func serve(e runner, rw io.ReadWriter) error {
	l := newLink(rw)
	if err := l.send(kindReady); err != nil {
		return err
	}
	for {
		k, body, err := l.recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if k != kindRun {
			return fmt.Errorf("frame %d between two runs", k)
		}
		var r Run
		if err := rawtext.Unmarshal(body, &r); err != nil {
			return fmt.Errorf("run frame: %w", err)
		}
		if last, err := serveRun(e, l, &r); err != nil || last {
			return err
		}
	}
}

// serveRun carries out one run, and says whether it was the last one that this
// process can.
func serveRun(e runner, l *link, r *Run) (last bool, err error) {
	port := &port{link: l}
	in := newInputs(port)
	var bad error
	room := maxContents
	for range r.Inputs {
		k, body, err := l.recv()
		if err != nil {
			return false, err
		}
		if k != kindInput {
			return false, fmt.Errorf("frame %d where an input was announced", k)
		}
		size, path, err := decodeInput(body)
		if err != nil {
			return false, err
		}
		added := in.add(path, size)
		if added != nil && bad == nil {
			bad = added
		}
		if !r.Contents {
			continue
		}
		if k, body, err = l.recv(); err != nil {
			return false, err
		}
		if room -= len(body); k != kindContent || int64(len(body)) != size || room < 0 {
			return false, fmt.Errorf("frame %d of %d bytes where the content of an input of %d was announced", k, len(body), size)
		}
		if added == nil {
			in.files[len(in.files)-1].content = append([]byte{}, body...)
		}
	}
	in.seal()
	exit := Exit{Code: -1}
	if bad != nil {
		exit.Trap = bad.Error()
	} else {
		exit = e.run(context.Background(), r, in, output{port, kindOut}, output{port, kindErr})
	}
	if port.err != nil {
		return false, port.err
	}
	body, err := rawtext.Marshal(exit)
	if err != nil {
		return false, err
	}
	if err := l.send(kindExit, body); err != nil || !exit.Last {
		return false, err
	}
	return true, l.flush() // nothing is received any more that would
}

// port is the worker's way out during one run. After an error of the link
// everything fails, and the worker ends.
type port struct {
	link *link
	err  error
}

func (p *port) readInput(i int, b []byte, off int64) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n := min(len(b), chunk)
	if n == 0 {
		return 0, nil
	}
	if p.err = p.link.send(kindRead, readRequest{uint32(i), uint64(off), uint32(n)}.encode()); p.err != nil {
		return 0, p.err
	}
	k, body, err := p.link.recv()
	switch {
	case err != nil:
	case k != kindData || len(body) == 0:
		err = fmt.Errorf("frame %d in answer to a read", k)
	case len(body)-1 > n:
		err = fmt.Errorf("%d bytes in answer to a read of %d", len(body)-1, n)
	}
	if err != nil {
		p.err = err
		return 0, err
	}
	if body[0] != 0 {
		return 0, errors.New(string(body[1:]))
	}
	got := copy(b, body[1:])
	if got < n {
		return got, io.EOF
	}
	return got, nil
}

// output sends what the module writes.
type output struct {
	port *port
	kind kind
}

func (o output) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		if o.port.err != nil {
			return done, o.port.err
		}
		part := b[done:min(len(b), done+chunk)]
		if o.port.err = o.port.link.send(o.kind, part); o.port.err != nil {
			return done, o.port.err
		}
		done += len(part)
	}
	return done, nil
}
