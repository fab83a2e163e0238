package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// open makes a Host, or skips the test where there is no sandbox.
func open(t *testing.T) *Host {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h, err := Open(t.Context(), Config{Dir: t.TempDir(), Init: []string{exe}, InitEnv: []string{"QUERN_TEST_ROLE=exec"}})
	if err != nil {
		t.Skipf("programs cannot be run in a sandbox here: %v", err)
	}
	return h
}

// needGroup skips a test where no control group limits a resource.
func needGroup(t *testing.T, what, by string) {
	t.Helper()
	if by != ByCgroup1 && by != ByCgroup2 {
		t.Skipf("no control group limits %s here", what)
	}
}

// shell is a run of a shell script, as a user that is not root if possible.
func shell(t *testing.T, h *Host, script string, args ...string) (*Run, *bytes.Buffer) {
	t.Helper()
	dir, err := h.NewDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dir.Remove(); err != nil {
			t.Error(err)
		}
	})
	r := &Run{
		Argv: append([]string{"sh", "-c", script, "sh"}, args...), UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Dir: dir,
		Limits: Limits{Memory: 128 << 20, Pids: 64, Scratch: 8 << 20, Output: 8 << 20}, Grace: 500 * time.Millisecond,
	}
	if h.Root() {
		r.UID, r.GID = 1234, 1235
	}
	out := new(bytes.Buffer)
	r.Stdout = out
	r.Stderr = testWriter{t}
	return r, out
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("stderr: %s", p)
	return len(p), nil
}

// TestRun: a program that behaves: arguments, environment, streams, its files.
func TestRun(t *testing.T) {
	h := open(t)
	r, out := shell(t, h, `cat; echo "$1|$X|$HOME|$PWD|$(id -u):$(id -g)"; cat /in/a/b.txt; echo made > /out/f; mkdir /out/d; echo deep > /out/d/g; echo t > /tmp/t; cat /scratch/t`, "an arg")
	file := filepath.Join(r.Dir.In(), "x")
	if err := os.WriteFile(file, []byte("bound\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.Binds = []Bind{{From: file, To: "/in/a/b.txt"}}
	r.Env, r.Stdin = []string{"X=1"}, strings.NewReader("in\n")
	exit, err := h.Run(t.Context(), r)
	want := fmt.Sprintf("in\nan arg|1|/scratch|/scratch|%d:%d\nbound\nt\n", r.UID, r.GID)
	if err != nil || exit.Code != 0 || out.String() != want {
		t.Errorf("%+v, %v, %q", exit, err, out)
	}
	for name, want := range map[string]string{"f": "made\n", "d/g": "deep\n"} {
		if got, err := os.ReadFile(filepath.Join(r.Dir.Out(), name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if by := h.Limits().Memory; by != ByRlimit && (exit.Memory < 64<<10 || exit.Memory > r.Limits.Memory) {
		t.Errorf("peak memory %d by %s", exit.Memory, by)
	}
	if h.Limits().CPU != ByNobody && exit.CPU <= 0 {
		t.Error("no processor time was counted")
	}
}

// TestMovedBinds: a program does not begin where a link has been put in the way of a
// file that it is shown, whichever part of the path it replaces.
func TestMovedBinds(t *testing.T) {
	h := open(t)
	dir, host := t.TempDir(), t.TempDir()
	for _, d := range []string{dir, host} {
		if err := errors.Join(os.Mkdir(filepath.Join(d, "d"), 0o755), os.WriteFile(filepath.Join(d, "d", "f"), []byte(d), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	bind := func(p string) Bind {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, p), &st); err != nil {
			t.Fatal(err)
		}
		return Bind{From: filepath.Join(dir, p), To: "/in/" + p, Dev: st.Dev, Ino: st.Ino}
	}
	run := func(b Bind) (string, error) {
		r, out := shell(t, h, "cat /in/d/f")
		r.Binds = []Bind{b}
		_, err := h.Run(t.Context(), r)
		return out.String(), err
	}
	for _, p := range []string{"d/f", "d"} {
		if out, err := run(bind(p)); err != nil || out != dir {
			t.Errorf("%s as it was: %q, %v", p, out, err)
		}
	}
	for _, p := range []string{"d/f", "d"} {
		for _, shown := range []string{"d/f", "d"} {
			b := bind(shown)
			aside := filepath.Join(dir, "aside")
			err := errors.Join(os.Rename(filepath.Join(dir, p), aside), os.Symlink(filepath.Join(host, p), filepath.Join(dir, p)))
			if err != nil {
				t.Fatal(err)
			}
			out, err := run(b)
			var moved *MovedError
			if inside := p == "d/f" && shown == "d"; inside { // the link leads nowhere in the sandbox
				if err != nil || out != "" {
					t.Errorf("a link in what is shown: %q, %v", out, err)
				}
			} else if !errors.As(err, &moved) || moved.Path != b.To || out != "" {
				t.Errorf("%s shown, a link at %s: %q, %v", shown, p, out, err)
			}
			if err := errors.Join(os.Remove(filepath.Join(dir, p)), os.Rename(aside, filepath.Join(dir, p))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestFences: what a program must not be able to do.
func TestFences(t *testing.T) {
	h := open(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"another file":     "cat " + secret,
		"write to /":       "echo x > /x",
		"write to /usr":    "echo x > /usr/x",
		"write to /in":     "echo x > /in/x",
		"write to /dev":    "echo x > /dev/x",
		"write to /etc":    "echo x > /etc/x",
		"an input":         "echo x > /in/f",
		"shadow":           "cat /etc/shadow",
		"kernel":           "echo x > /proc/sys/kernel/hostname",
		"user namespace":   "unshare -U true",
		"mount namespace":  "unshare -m true",
		"mount":            "mount -t tmpfs none /scratch",
		"remount":          "mount -o remount,rw /usr",
		"another process":  fmt.Sprintf("kill -0 %d", os.Getpid()),
		"network":          "ls /sys/class/net || grep -v -e lo: -e '|' /proc/net/dev",
		"more descriptors": "ls /proc/self/fd | grep -v -x -e 0 -e 1 -e 2 -e 3",
		"capabilities":     "grep ^Cap /proc/self/status | grep -v '0000000000000000$'",
	} {
		t.Run(name, func(t *testing.T) {
			r, out := shell(t, h, script)
			f := filepath.Join(r.Dir.In(), "f")
			if err := os.WriteFile(f, nil, 0o666); err != nil {
				t.Fatal(err)
			}
			r.Binds = []Bind{{From: f, To: "/in/f"}}
			r.Stderr = io.Discard
			exit, err := h.Run(t.Context(), r)
			if err != nil || exit.Code == 0 {
				t.Errorf("%+v, %v: %s", exit, err, out)
			}
		})
	}
}

// TestRootIsNobody: a job of root has none of root's powers.
func TestRootIsNobody(t *testing.T) {
	h := open(t)
	if !h.Root() {
		t.Skip("needs root")
	}
	r, out := shell(t, h, "id -u; grep ^Cap /proc/self/status; chown 1 /out || echo no; mknod /scratch/x c 1 3 || echo no")
	r.UID, r.GID, r.Stderr = 0, 0, io.Discard
	exit, err := h.Run(t.Context(), r)
	if err != nil || exit.Code != 0 || strings.Count(out.String(), "\t0000000000000000\n") != 5 || strings.Count(out.String(), "no\n") != 2 {
		t.Errorf("%+v, %v: %s", exit, err, out)
	}
}

// TestEnds: how programs end, and what is said of it.
func TestEnds(t *testing.T) {
	h := open(t)
	for _, c := range []struct {
		script, signal string
		code           int
	}{
		{"exit 0", "", 0}, {"exit 3", "", 3}, {"kill -SEGV $$", "SIGSEGV", 139}, {"kill -KILL $$", "SIGKILL", 137},
		{"sleep 1000 & exit 4", "", 4}, // what runs in the background is ended
	} {
		r, _ := shell(t, h, c.script)
		exit, err := h.Run(t.Context(), r)
		if err != nil || exit.Code != c.code || exit.Signal() != c.signal || exit.OOM {
			t.Errorf("%s: %+v, %v", c.script, exit, err)
		}
	}
	for program, want := range map[string]string{
		"no-such-program":   "no-such-program could not be started: no such file or directory",
		"/nowhere/x":        "/nowhere/x could not be started: no such file or directory",
		"/usr":              "/usr could not be started: permission denied",
		"/etc/passwd":       "/etc/passwd could not be started: permission denied",
		"/in/not-a-program": "/in/not-a-program could not be started: exec format error",
	} {
		r, _ := shell(t, h, "")
		f := filepath.Join(r.Dir.In(), "f")
		if err := os.WriteFile(f, []byte("\x00garbage"), 0o755); err != nil {
			t.Fatal(err)
		}
		r.Argv, r.Binds = []string{program}, []Bind{{From: f, To: "/in/not-a-program"}}
		_, err := h.Run(t.Context(), r)
		var start *StartError
		if !errors.As(err, &start) || err.Error() != want {
			t.Errorf("%s: %v", program, err)
		}
	}
	// A sandbox that cannot be made.
	r, _ := shell(t, h, "true")
	r.Binds = []Bind{{From: "/no/such/file", To: "/in/x"}}
	_, err := h.Run(t.Context(), r)
	var setup *SetupError
	if !errors.As(err, &setup) || !strings.Contains(err.Error(), "/no/such/file") {
		t.Errorf("a missing input: %v", err)
	}
}

// TestStop: a program is asked to end, and if it does not listen it is ended.
func TestStop(t *testing.T) {
	h := open(t)
	for name, c := range map[string]struct{ script, says string }{
		"loops":           {"echo up; while :; do :; done", ""},
		"cleans up":       {"trap 'echo bye; exit 1' TERM; echo up; while :; do sleep 0.01; done", "bye\n"},
		"ignores SIGTERM": {"trap '' TERM; (trap '' TERM; while :; do :; done) & echo up; while :; do :; done", ""},
		"hides":           {"setsid sh -c 'trap \"\" TERM; echo up; while :; do sleep 0.01; done' & sleep 1000", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := shell(t, h, c.script)
			cause := errors.New("time is over")
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			out := &once{line: "up\n", f: func() { cancel(cause) }}
			r.Stdout = out
			exit, err := h.Run(ctx, r)
			if !errors.Is(err, cause) || out.text != "up\n"+c.says {
				t.Errorf("%+v, %v, %q", exit, err, out.text)
			}
			if left := leftovers(t, r); left != "" {
				t.Errorf("still there: %s", left)
			}
		})
	}
}

// TestStopAtOnce: runs that are ended in any moment of their start leave
// nothing, and do not take long.
func TestStopAtOnce(t *testing.T) {
	h := open(t)
	cause := errors.New("not any more")
	for i := range 40 {
		r, _ := shell(t, h, "sleep 1000")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Duration(i)*500*time.Microsecond, cause)
		began := time.Now()
		_, err := h.Run(ctx, r)
		cancel()
		if !errors.Is(err, cause) || time.Since(began) > 5*time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if left := leftovers(t, r); left != "" {
			t.Errorf("still there: %s", left)
		}
	}
	if left := children(os.Getpid()); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

// TestStrays: a bwrap of an agent that has died is ended by the next Open.
func TestStrays(t *testing.T) {
	h := open(t)
	for agent, ends := range map[int]bool{4999999: true, os.Getpid(): false} {
		cmd := exec.Command("sleep", "1000")
		cmd.Env = []string{h.mark(agent)}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		h.endStrays()
		limit := 10 * time.Second
		if !ends {
			limit = 50 * time.Millisecond
		}
		if gone(fd, limit) != ends {
			t.Errorf("agent %d: the process has ended: %v", agent, !ends)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// once calls f when a line has come.
type once struct {
	line, text string
	f          func()
}

func (o *once) Write(p []byte) (int, error) {
	had := strings.Contains(o.text, o.line)
	if o.text += string(p); !had && strings.Contains(o.text, o.line) {
		o.f()
	}
	return len(p), nil
}

// leftovers are processes that see the directory of a run.
func leftovers(t *testing.T, r *Run) string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		text, _ := os.ReadFile(n)
		if strings.Contains(string(text), string(r.Dir)) {
			line, _ := os.ReadFile(filepath.Join(filepath.Dir(n), "cmdline"))
			return n + " " + string(line)
		}
	}
	return ""
}

// TestMemory: a program that eats memory is ended, whatever way it takes.
func TestMemory(t *testing.T) {
	h := open(t)
	for name, script := range map[string]string{
		"heap": `exec perl -e 'my @x; push @x, "x" x 1000000 while 1'`,
		"shm":  `head -c 1G /dev/zero > /dev/shm/x`,
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := shell(t, h, script)
			exit, err := h.Run(t.Context(), r)
			if err != nil || exit.Code == 0 {
				t.Fatalf("%+v, %v", exit, err)
			}
			if name == "heap" && h.Limits().Memory != ByRlimit && (!exit.OOM || exit.Memory < r.Limits.Memory/2 || exit.Memory > r.Limits.Memory+r.Limits.Memory/8) {
				t.Errorf("%+v", exit)
			}
		})
	}
}

// TestForks: a program that starts processes without end is stopped at its
// limit, and all of them end with it.
func TestForks(t *testing.T) {
	h := open(t)
	r, _ := shell(t, h, `exec perl -e 'fork while 1'`)
	r.Stderr = io.Discard
	cause := errors.New("time is over")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, cause)
	defer cancel()
	exit, err := h.Run(ctx, r)
	if !errors.Is(err, cause) {
		t.Errorf("%+v, %v", exit, err)
	}
	if h.Limits().Pids != ByRlimit && !exit.Pids {
		t.Errorf("that processes could not be started is not told: %+v, %v", exit, err)
	}
	if left := leftovers(t, r); left != "" {
		t.Errorf("still there: %s", left)
	}
}

// TestDisk: what is written is limited, files without a name included.
func TestDisk(t *testing.T) {
	h := open(t)
	for name, c := range map[string]struct{ script, want string }{
		"one file":   {`head -c 100M /dev/zero > /out/x; sleep 1000`, "it wrote more than 8 MiB to /out"},
		"many files": {`for i in 1 2 3 4 5 6 7 8 9 10; do head -c 1M /dev/zero > /out/$i; done; sleep 1000`, "it wrote more than 8 MiB to /out"},
		"scratch":    {`for i in 1 2 3; do head -c 4M /dev/zero > $i; done; sleep 1000`, "it wrote more than 8 MiB to /scratch (resources.scratch in the job file)"},
		"no name": {`exec 3> a 4> b 5> c; rm a b c; head -c 4M /dev/zero >&3; head -c 4M /dev/zero >&4; head -c 4M /dev/zero >&5; sleep 1000`,
			"it wrote more than 8 MiB to /scratch (resources.scratch in the job file)"},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := shell(t, h, c.script)
			_, err := h.Run(t.Context(), r)
			var limit *LimitError
			if !errors.As(err, &limit) || err.Error() != c.want {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestStreams: streams that we cannot go on with end the run.
func TestStreams(t *testing.T) {
	h := open(t)
	full := errors.New("full")
	r, _ := shell(t, h, "yes")
	r.Stdout = &limitedWriter{1 << 20, full}
	if _, err := h.Run(t.Context(), r); !errors.Is(err, full) {
		t.Errorf("output without end: %v", err)
	}
	r, _ = shell(t, h, "cat; sleep 1000")
	r.Stdin = io.MultiReader(strings.NewReader("some"), failing{full})
	if _, err := h.Run(t.Context(), r); !errors.Is(err, full) {
		t.Errorf("input that fails: %v", err)
	}
	// Input that is not read does not keep a program.
	r, _ = shell(t, h, "exit 0")
	r.Stdin = zeros{}
	if exit, err := h.Run(t.Context(), r); err != nil || exit.Code != 0 {
		t.Errorf("input that is not read: %+v, %v", exit, err)
	}
}

type limitedWriter struct {
	left int
	err  error
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, w.err
	}
	return len(p), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestCPU: a share of a processor is kept.
func TestCPU(t *testing.T) {
	h := open(t)
	needGroup(t, "the processor share", h.Limits().CPU)
	r, _ := shell(t, h, "while :; do :; done")
	r.Limits.CPU = 0.2
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, errors.New("time is over"))
	defer cancel()
	began := time.Now()
	exit, err := h.Run(ctx, r)
	if err == nil || exit.CPU <= 0 || exit.CPU > time.Since(began)*3/10 {
		t.Errorf("%v of %v, %v", exit.CPU, time.Since(began), err)
	}
}

// TestOther: what one program does leaves one beside it alone.
func TestOther(t *testing.T) {
	h := open(t)
	bad, _ := shell(t, h, `exec perl -e 'fork while 1'`)
	bad.Stderr = io.Discard
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = h.Run(ctx, bad)
	}()
	r, out := shell(t, h, "seq 1000 | wc -l")
	exit, err := h.Run(t.Context(), r)
	if err != nil || exit.Code != 0 || strings.TrimSpace(out.String()) != "1000" {
		t.Errorf("%+v, %v, %q", exit, err, out)
	}
	cancel(errors.New("enough"))
	<-done
}
