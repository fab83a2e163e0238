package worker

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func start(t *testing.T) *Process {
	t.Helper()
	p, err := Start(t.Context(), testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// TestRuns: one worker carries out good and bad runs in turn, and stays.
func TestRuns(t *testing.T) {
	p := start(t)
	pid := p.Pid()
	for _, c := range []struct {
		module string
		code   int
		trap   string
		stderr string
	}{
		{"ok", 0, "", ""},
		{"exit", 3, "", ""},
		{"trap", -1, "unreachable", ""},
		{"complain", 1, "", "out of time\n"},
		{"ok", 0, "", ""},
		{"grow", -1, "unreachable", ""},
	} {
		var stderr bytes.Buffer
		exit, err := p.Run(t.Context(), &Task{Run: module(t, c.module), Stdout: io.Discard, Stderr: &stderr})
		if err != nil || exit.Code != c.code || exit.Trap != c.trap || stderr.String() != c.stderr {
			t.Errorf("%s: %+v, %v, stderr %q", c.module, exit, err, &stderr)
		}
		if c.module == "grow" && (exit.PeakMemory < 3<<20 || exit.PeakMemory > 4<<20) {
			t.Errorf("grow: peak memory %d under a limit of 4 MiB", exit.PeakMemory)
		}
	}
	if p.Pid() != pid || !p.Usable() {
		t.Error("the worker did not last")
	}
}

func TestBadModules(t *testing.T) {
	p := start(t)
	wrong := module(t, "ok")
	wrong.Digest = make([]byte, 32)
	garbage := module(t, "ok")
	if err := os.WriteFile(garbage.Module, []byte("\x00asm\x01\x00\x00\x00\x07garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	garbage.Digest = digestOf(garbage.Module)
	for name, c := range map[string]struct {
		run  Run
		want string
	}{
		"missing": {Run{Module: "/nonexistent"}, "no such file"},
		"digest":  {wrong, "not the one that was submitted"},
		"garbage": {garbage, "does not compile"},
	} {
		exit, err := p.Run(t.Context(), &Task{Run: c.run})
		if err != nil || exit.Code != -1 || !strings.Contains(exit.Trap, c.want) {
			t.Errorf("%s: %+v, %v", name, exit, err)
		}
	}
	exit, err := p.Run(t.Context(), &Task{Run: module(t, "ok"), Inputs: []Input{{Path: "/a"}, {Path: "/a/b"}}})
	if err != nil || exit.Code != -1 || !strings.Contains(exit.Trap, "/a/b") {
		t.Errorf("inputs that exclude each other: %+v, %v", exit, err)
	}
	if !p.Usable() {
		t.Error("the worker did not last")
	}
}

// TestTimeout: a module that loops without a call is stopped by killing the
// worker.
func TestTimeout(t *testing.T) {
	p := start(t)
	cause := errors.New("too slow")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, cause)
	defer cancel()
	_, err := p.Run(ctx, &Task{Run: module(t, "loop"), Stdout: io.Discard, Stderr: io.Discard})
	if !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	if p.Usable() {
		t.Error("a killed worker is said to be usable")
	}
	if _, err := p.Run(t.Context(), &Task{Run: module(t, "ok")}); err == nil {
		t.Error("a dead worker ran something")
	}
}

func TestCrash(t *testing.T) {
	p := start(t)
	started := make(chan struct{})
	go func() {
		<-started
		_ = syscall.Kill(p.Pid(), syscall.SIGKILL)
	}()
	_, err := p.Run(t.Context(), &Task{Run: module(t, "spam"), Stdout: &signalWriter{c: started}, Stderr: io.Discard})
	var crash *CrashError
	if !errors.As(err, &crash) || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v", err)
	}
}

// signalWriter closes c at the first write.
type signalWriter struct {
	c    chan struct{}
	done bool
}

func (w *signalWriter) Write(p []byte) (int, error) {
	if !w.done {
		w.done = true
		close(w.c)
	}
	return len(p), nil
}

type limited struct{ left int }

var errFull = errors.New("full")

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// TestOutputRefused: a module that writes without end is stopped as soon as
// its output is refused.
func TestOutputRefused(t *testing.T) {
	p := start(t)
	_, err := p.Run(t.Context(), &Task{Run: module(t, "spam"), Stdout: &limited{1 << 20}, Stderr: io.Discard})
	var out *OutputError
	if !errors.As(err, &out) || !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
	if p.Usable() {
		t.Error("the worker lives")
	}
}

func TestStartFails(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no command": {},
		"missing":    {Command: []string{"/nonexistent/quern"}},
		"ends":       {Command: []string{"/bin/false"}},
		"other":      {Command: []string{"/bin/echo", "hello"}},
	} {
		if p, err := Start(t.Context(), cfg); err == nil {
			p.Close()
			t.Errorf("%s: a worker started", name)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if p, err := Start(ctx, Config{Command: []string{"/bin/sleep", "60"}}); err == nil {
		p.Close()
		t.Error("a silent worker became ready")
	}
}

// TestOrphan: a worker does not outlive a keeper that is killed, even in the
// middle of an endless loop.
func TestOrphan(t *testing.T) {
	cmd := exec.Command(os.Args[0], module(t, "loop").Module)
	cmd.Env = append(os.Environ(), "QUERN_TEST_ROLE=keeper")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, err2 := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || err2 != nil {
		t.Fatal(line, err, err2)
	}
	fd, err := pidfd(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !endsWithin(fd, 10*time.Second) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		t.Errorf("worker %d lives on", pid)
	}
}

func BenchmarkShortRun(b *testing.B) {
	p, err := Start(b.Context(), Config{Command: testWorker, Env: []string{"QUERN_TEST_ROLE=worker"}})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	file := b.TempDir() + "/ok.wasm"
	if err := os.WriteFile(file, assemble(bodies["ok"]), 0o600); err != nil {
		b.Fatal(err)
	}
	run := Run{Module: file, Digest: digestOf(file), Memory: 1 << 20}
	for b.Loop() {
		if _, err := p.Run(b.Context(), &Task{Run: run, Stdout: io.Discard, Stderr: io.Discard}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestContents: small inputs are read before the run and go with it. One that
// cannot be read matters to a module that wants it only.
func TestContents(t *testing.T) {
	k := newKernelRunner(t)
	broken := errors.New("the disk is broken")
	reads := 0
	input := func(path string, size int, err error) Input {
		data := bytes.NewReader(bytes.Repeat([]byte{'x'}, size))
		return Input{Path: path, Size: int64(size), ReadAt: func(_ context.Context, p []byte, off int64) (int, error) {
			reads++
			if err != nil {
				return 0, err
			}
			return data.ReadAt(p, off)
		}}
	}
	sum := func(inputs ...Input) (string, error) {
		var stdout bytes.Buffer
		_, err := k.p.Run(t.Context(), &Task{
			Run:    Run{Module: k.module, Digest: k.digest, Memory: 256 << 20, Args: []string{"sha256sum", "sha256sum"}},
			Inputs: inputs, Stdout: &stdout, Stderr: io.Discard,
		})
		return stdout.String(), err
	}
	for _, sizes := range [][]int{{0, 6}, {1, 0, 3}, {maxContents}, {maxContents - 1, 1}, {maxContents, 1}, {3 * chunk, 5}} {
		var inputs []Input
		var want strings.Builder
		total := 0
		for i, n := range sizes {
			inputs = append(inputs, input(fmt.Sprint("/", i), n, nil))
			fmt.Fprintf(&want, "%x  /%d\n", sha256.Sum256(bytes.Repeat([]byte{'x'}, n)), i)
			total += n
		}
		reads = 0
		if got, err := sum(inputs...); got != want.String() || err != nil {
			t.Errorf("%v: %q, %v", sizes, got, err)
		}
		if total <= maxContents && reads != len(sizes) {
			t.Errorf("%v: read %d times", sizes, reads)
		}
	}
	var in *InputError
	if _, err := sum(input("/a", 5, nil), input("/b", 5, broken)); !errors.As(err, &in) || in.Path != "/b" || !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	ok := module(t, "ok")
	exit, err := k.p.Run(t.Context(), &Task{Run: ok, Inputs: []Input{input("/b", 5, broken)}, Stdout: io.Discard, Stderr: io.Discard})
	if err != nil || exit.Code != 0 {
		t.Errorf("a module that does not read: %+v, %v", exit, err)
	}
}

// TestLastRun: a worker that says that a run was its last ends by itself, and is
// given no other.
func TestLastRun(t *testing.T) {
	p, err := Start(t.Context(), Config{Command: []string{os.Args[0]}, Env: []string{"QUERN_TEST_ROLE=last"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	exit, err := p.Run(t.Context(), &Task{Stdout: io.Discard, Stderr: io.Discard})
	if err != nil || exit.Code != 1 || !exit.Last || p.Usable() {
		t.Errorf("%+v, %v, usable %v", exit, err, p.Usable())
	}
	select {
	case <-p.ended:
	case <-time.After(2 * time.Minute):
		t.Error("it lives on")
	}
}
