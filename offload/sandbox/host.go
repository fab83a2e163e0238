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
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Config is what a Host needs. All but Dir and Init may be left out.
type Config struct {
	Dir     string   // for the directories of runs; made if it is missing. One Host of a process uses it
	Init    []string // the command `quern worker exec`; the first is a path
	InitEnv []string // added to the little that it gets
	System  []string // further paths of the host that every program may read
	Bwrap   string   // "": bwrap, as found in PATH
}

// How a resource is limited.
const (
	ByCgroup2 = "cgroup v2"
	ByCgroup1 = "cgroup v1"
	ByRlimit  = "rlimit" // memory: of each process, not of all together
	ByNobody  = ""
)

// Enforced says how each limit is kept: one of By….
type Enforced struct{ Memory, Pids, CPU string }

// Limits of one run. Memory, Pids, Scratch and Output must be given.
type Limits struct {
	Memory  int64   // bytes
	CPU     float64 // processors; 0: not limited
	Pids    int     // processes and threads
	Scratch int64   // bytes
	Output  int64   // bytes, of /out
}

// Host starts sandboxes. It may be used concurrently.
type Host struct {
	cfg     Config
	bwrap   string
	root    bool
	system  []string
	filter  []byte
	cgroups *cgroups
	limits  Enforced
	gpus    gpuPool
	runs    atomic.Uint64
}

// probeLimit bounds Open's trial.
const probeLimit = 20 * time.Second

// Open finds out what this host can do, and proves it by a program whose answer
// is known. An error means that the host cannot run programs; it says why.
func Open(ctx context.Context, cfg Config) (*Host, error) {
	if cfg.Dir == "" || len(cfg.Init) == 0 || !filepath.IsAbs(cfg.Init[0]) {
		return nil, errors.New("exec: no directory, or no absolute worker command")
	}
	h := &Host{cfg: cfg, root: os.Geteuid() == 0, system: systemArguments(), filter: seccompFilter()}
	var err error
	if h.bwrap, err = exec.LookPath(orElse(cfg.Bwrap, "bwrap")); err != nil {
		return nil, errors.New("bubblewrap is not installed (the program bwrap)")
	}
	if h.bwrap, err = filepath.Abs(h.bwrap); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	h.endStrays()
	h.sweep()
	mountinfo, _ := os.ReadFile("/proc/self/mountinfo")
	self, _ := os.ReadFile("/proc/self/cgroup")
	h.use(findCgroups(hierarchies(string(mountinfo), string(self)), realOps))
	h.gpus.find("/")
	if err := h.prove(ctx); err != nil {
		return nil, fmt.Errorf("bubblewrap does not work here: %w", err)
	}
	return h, nil
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// use takes over control groups, and decides what else limits.
func (h *Host) use(c *cgroups) {
	h.cgroups = c
	h.limits = Enforced{Memory: orElse(c.by("memory"), ByRlimit), Pids: c.by("pids"), CPU: c.by("cpu")}
	if h.limits.Pids == "" {
		h.limits.Pids = ByRlimit
	}
}

// prove runs a program whose answer is known.
func (h *Host) prove(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, probeLimit, fmt.Errorf("no answer within %s", probeLimit))
	defer cancel()
	dir, err := h.NewDir()
	if err != nil {
		return err
	}
	defer dir.Remove()
	r := &Run{
		Argv: []string{"sh", "-c", "cat && id -u && : > /out/x && ! touch /usr/x 2> /dev/null"}, Dir: dir,
		Limits: Limits{Memory: 64 << 20, Pids: 64, Scratch: 1 << 20, Output: 1 << 20},
		Stdin:  strings.NewReader("quern "), UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
	}
	if h.root {
		r.UID, r.GID = 65534, 65534
	}
	var stdout, stderr bytes.Buffer
	r.Stdout, r.Stderr = &stdout, &stderr
	exit, err := h.Run(ctx, r)
	want := fmt.Sprintf("quern %d\n", r.UID)
	if err == nil && (exit.Code != 0 || stdout.String() != want) {
		err = fmt.Errorf("the trial ended with status %d and %q: %s", exit.Code, stdout.String(), firstLine(stderr.Bytes()))
	}
	return err
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return strings.ToValidUTF8(line[:min(len(line), 200)], "?")
}

// Limits says how limits are kept here.
func (h *Host) Limits() Enforced { return h.limits }

// Root says whether programs can be run as any user; else only as the agent's
// own.
func (h *Host) Root() bool { return h.root }

// Dir is the directory of one run.
type Dir string

// In is for staged inputs, Out is /out, Scratch is /scratch.
func (d Dir) In() string      { return filepath.Join(string(d), "in") }
func (d Dir) Out() string     { return filepath.Join(string(d), "out") }
func (d Dir) Scratch() string { return filepath.Join(string(d), "scratch") }

// fresh calls try with names until one is not taken yet; they begin with the
// agent's process id, by which sweeps know what is left of one that has died.
func (h *Host) fresh(try func(name string) error) error {
	for {
		err := try(fmt.Sprintf("%d.%d", os.Getpid(), h.runs.Add(1)))
		if !errors.Is(err, os.ErrExist) {
			return err
		}
	}
}

// NewDir makes the directory of a run.
func (h *Host) NewDir() (d Dir, err error) {
	err = h.fresh(func(name string) error {
		d = Dir(filepath.Join(h.cfg.Dir, name))
		return os.Mkdir(string(d), 0o700)
	})
	if err != nil {
		return "", err
	}
	for _, sub := range []string{d.In(), d.Out(), d.Scratch()} {
		if err := os.Mkdir(sub, 0o700); err != nil {
			d.Remove()
			return "", err
		}
	}
	// /in is for the job's owner, too.
	return d, os.Chmod(d.In(), 0o755)
}

// Room says whether so many bytes can be put into a Dir without filling the
// disk.
func (h *Host) Room(bytes int64) bool { return !nearlyFull(h.cfg.Dir, bytes) }

// Remove deletes the directory, whatever rights a program has set in it.
func (d Dir) Remove() error {
	err := os.RemoveAll(string(d))
	if err != nil {
		_ = filepath.WalkDir(string(d), func(p string, e os.DirEntry, err error) error {
			if e != nil && e.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
		err = os.RemoveAll(string(d))
	}
	return err
}

// sweep removes directories of agents that have died. One of this process's
// number is of an earlier process.
func (h *Host) sweep() {
	names, _ := os.ReadDir(h.cfg.Dir)
	for _, n := range names {
		pid, _, ok := strings.Cut(n.Name(), ".")
		if _, err := strconv.Atoi(pid); !ok || err != nil {
			continue
		}
		_, err := os.Stat("/proc/" + pid)
		if errors.Is(err, os.ErrNotExist) || pid == strconv.Itoa(os.Getpid()) {
			_ = Dir(filepath.Join(h.cfg.Dir, n.Name())).Remove()
		}
	}
}

// Report is what `quern worker --probe exec` prints.
type Report struct {
	Runtime string `json:"runtime"`
	Bwrap   string `json:"bwrap"`
	Memory  string `json:"memory_limit"`
	Pids    string `json:"process_limit"`
	CPU     string `json:"cpu_limit"`
	Users   string `json:"users"`
	GPUs    []GPU  `json:"gpus,omitempty"`
}

// Report tells what was found.
func (h *Host) Report() Report {
	users := "the agent's own"
	if h.root {
		users = "all"
	}
	return Report{"exec", h.bwrap, h.limits.Memory, h.limits.Pids, h.limits.CPU, users, slices.Clone(h.gpus.all)}
}

// discard is a Writer for streams that nobody wants.
func discard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
