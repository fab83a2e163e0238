package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// quern is the binary under test.
var quern string

// long: the versions of the tests that take many minutes.
var long = os.Getenv("QUERN_LONG") != ""

// patience bounds waits that end by their condition: only a failure takes as long,
// however slow the machine is.
const patience = 5 * time.Minute

// answerLimit is how long a request may take where servers are missing: what is
// promised, and what a busy machine adds.
const answerLimit = 30*time.Second + 15*time.Second

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv("POCL_CACHE_DIR") == "" {
		// Every cluster's agent tries the devices of this host: what is compiled for
		// that need not be compiled each time.
		dir, err := os.MkdirTemp("", "quern-pocl")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		os.Setenv("POCL_CACHE_DIR", dir)
	}
	quern = os.Getenv("QUERN_BIN")
	if quern == "" {
		dir, err := os.MkdirTemp("", "quern-bin")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		quern = filepath.Join(dir, "quern")
		cmd := exec.Command("go", "build", "-o", dir, "quernfs/cmd/quern", "quernfs/cmd/quern-opencl")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// needMount skips tests that mount where that cannot work.
func needMount(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: these tests mount without fusermount3 and change owners")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	f.Close()
}

// needTool skips a test that cannot do without a program.
func needTool(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs the program %s (scripts/test-tools.sh installs it)", name)
		}
	}
}

// cluster is one cluster of this host, as `quern up` runs it.
type cluster struct {
	t    *testing.T
	data string
	mnt  string
	args []string // of quern up, beyond --data and --mount
	env  []string

	up      *exec.Cmd
	exited  chan struct{}
	exitErr error // valid once exited is closed
	output  *lockedBuffer
	mounts  []*extraMount
}

// extraMount is a further mount of a cluster, a process of its own.
type extraMount struct {
	dir    string
	cmd    *exec.Cmd
	exited chan struct{}
	output *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// workDir is a directory for one test. Unlike t.TempDir its path is short, as
// Unix sockets need, and it survives a failed test if QUERN_KEEP is set.
func workDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "quern")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("QUERN_KEEP") != "" {
			t.Logf("kept: %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// newCluster prepares a cluster without starting it.
func newCluster(t *testing.T, args ...string) *cluster {
	t.Helper()
	needMount(t)
	return clusterIn(t, workDir(t), args...)
}

func clusterIn(t *testing.T, dir string, args ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, data: filepath.Join(dir, "data"), mnt: filepath.Join(dir, "mnt"), args: args}
	if err := os.MkdirAll(c.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.cleanup)
	return c
}

// startCluster prepares and starts a cluster.
func startCluster(t *testing.T, args ...string) *cluster {
	t.Helper()
	c := newCluster(t, args...)
	c.start()
	return c
}

// start runs `quern up` and waits until the mount is there.
func (c *cluster) start() {
	c.t.Helper()
	args := append([]string{"up", "--data", c.data, "--mount", c.mnt}, c.args...)
	c.up, c.output, c.exited = c.run(args, "is mounted", 120*time.Second)
	up := c.up
	exited := c.exited
	go func() { c.exitErr = up.Wait(); close(exited) }()
}

// run starts a long-lived quern and waits for a line with text on its standard
// output.
func (c *cluster) run(args []string, text string, limit time.Duration) (*exec.Cmd, *lockedBuffer, chan struct{}) {
	c.t.Helper()
	cmd := exec.Command(quern, args...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	var output lockedBuffer
	r, w, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, &output
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	w.Close()
	found := make(chan bool, 1)
	go func() {
		defer r.Close()
		lines := bufio.NewScanner(r)
		seen := false
		for lines.Scan() {
			fmt.Fprintln(&output, lines.Text())
			if !seen && strings.Contains(lines.Text(), text) {
				seen = true
				found <- true
			}
		}
		if !seen {
			found <- false
		}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	ok := false
	select {
	case ok = <-found:
	case <-timer.C:
	}
	if !ok {
		cmd.Process.Kill()
		cmd.Wait()
		c.t.Fatalf("quern %s: no line with %q within %v:\n%s", strings.Join(args, " "), text, limit, output.String())
	}
	return cmd, &output, make(chan struct{})
}

// stop ends the cluster as its user would, and fails the test if that goes
// wrong or the mount stays.
func (c *cluster) stop() {
	c.t.Helper()
	if c.up == nil {
		return
	}
	c.up.Process.Signal(unix.SIGINT)
	if !closedWithin(c.exited, 60*time.Second) {
		c.t.Errorf("quern up does not end after SIGINT:\n%s", tail(c.output.String()))
		c.up.Process.Signal(unix.SIGQUIT)
		if !closedWithin(c.exited, 5*time.Second) {
			c.up.Process.Kill()
			<-c.exited
		}
		c.t.Logf("goroutines:\n%s", tail(c.output.String()))
	} else if c.exitErr != nil {
		c.t.Errorf("quern up: %v:\n%s", c.exitErr, tail(c.output.String()))
	}
	c.up = nil
	if isMounted(c.mnt) {
		c.t.Errorf("%s is still mounted after quern up has ended", c.mnt)
		unix.Unmount(c.mnt, unix.MNT_DETACH)
	}
}

// killAll kills every process of the cluster at once, and waits for their ends.
func (c *cluster) killAll() {
	c.t.Helper()
	var pids []int
	if c.up != nil {
		pids = append(pids, c.up.Process.Pid)
	}
	for _, name := range c.running() {
		pids = append(pids, c.pid(name))
	}
	for _, pid := range pids {
		unix.Kill(pid, unix.SIGKILL)
	}
	if c.up != nil {
		<-c.exited
		c.up = nil
	}
	for _, pid := range pids {
		c.waitGone(pid)
	}
	for _, m := range c.mounts {
		m.cmd.Process.Kill()
		<-m.exited
	}
	c.mounts = nil
}

// cleanup leaves nothing behind, whatever has happened.
func (c *cluster) cleanup() {
	for _, m := range c.mounts {
		m.cmd.Process.Signal(unix.SIGTERM)
		if !closedWithin(m.exited, 30*time.Second) {
			m.cmd.Process.Kill()
			unix.Unmount(m.dir, unix.MNT_FORCE|unix.MNT_DETACH) // else it may never end
			<-m.exited
		}
		if isMounted(m.dir) {
			unix.Unmount(m.dir, unix.MNT_DETACH)
		}
	}
	if c.t.Failed() {
		c.logAll()
	}
	c.stop()
	for _, name := range c.running() {
		pid := c.pid(name)
		unix.Kill(pid, unix.SIGKILL)
		c.waitGone(pid)
	}
	for isMounted(c.mnt) {
		if unix.Unmount(c.mnt, unix.MNT_DETACH) != nil {
			break
		}
	}
}

func (c *cluster) logAll() {
	if c.output != nil {
		c.t.Logf("quern up:\n%s", tail(c.output.String()))
	}
	logs, _ := filepath.Glob(filepath.Join(c.data, "run", "*.log"))
	for _, path := range logs {
		raw, _ := os.ReadFile(path)
		c.t.Logf("%s:\n%s", filepath.Base(path), tail(string(raw)))
	}
	for _, m := range c.mounts {
		c.t.Logf("mount %s:\n%s", m.dir, tail(m.output.String()))
	}
}

// tail is the end of a log.
func tail(text string) string {
	const most = 12000
	if len(text) > most {
		return "…" + text[len(text)-most:]
	}
	return text
}

func closedWithin(ch chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ch:
		return true
	case <-timer.C:
		return false
	}
}

// secondMount mounts the cluster once more.
func (c *cluster) secondMount(args ...string) *extraMount {
	c.t.Helper()
	dir := fmt.Sprintf("%s-%d", c.mnt, len(c.mounts)+2)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	m := &extraMount{dir: dir}
	name := fmt.Sprintf("mount-%d", len(c.mounts)+2)
	args = append([]string{"mount", dir, "--data", c.data, "--name", name}, args...)
	m.cmd, m.output, m.exited = c.run(args, "is mounted", 60*time.Second)
	go func() { m.cmd.Wait(); close(m.exited) }()
	c.mounts = append(c.mounts, m)
	return m
}

func isMounted(dir string) bool {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for _, line := range strings.Split(string(raw), "\n") {
		if f := strings.Fields(line); len(f) > 4 && f[4] == dir {
			return true
		}
	}
	return false
}

// running lists the processes that DIR/run names and that are alive.
func (c *cluster) running() []string {
	files, _ := filepath.Glob(filepath.Join(c.data, "run", "*.pid"))
	var names []string
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".pid")
		if pid := c.pid(name); pid != 0 {
			names = append(names, name)
		}
	}
	return names
}

// pid of a process of --processes, 0 if it does not run.
func (c *cluster) pid(name string) int {
	raw, err := os.ReadFile(filepath.Join(c.data, "run", name+".pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte(c.data)) {
		return 0
	}
	return pid
}

// kill ends a process of --processes by SIGKILL.
func (c *cluster) kill(name string) {
	c.t.Helper()
	pid := c.pid(name)
	if pid == 0 {
		c.t.Fatalf("%s does not run", name)
	}
	unix.Kill(pid, unix.SIGKILL)
	c.waitGone(pid)
}

func (c *cluster) waitGone(pid int) {
	c.t.Helper()
	eventually(c.t, patience, func() error {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(raw), ") Z ") {
			return nil
		}
		return fmt.Errorf("process %d is still there", pid)
	})
}

// restart is `quern start NAME`.
func (c *cluster) restart(names ...string) {
	c.t.Helper()
	for _, name := range names {
		mustQuern(c.t, "start", name, "--data", c.data)
	}
}

// status is what tests look at of `quern status --json`.
type status struct {
	Members []struct {
		Name   string
		Leader bool
		Alive  bool
		Voter  bool
	} `json:"metadata_servers"`
	ChunkServers []struct {
		Name   string
		Alive  bool
		Full   bool
		Shards uint64
	} `json:"chunk_servers"`
	Blocks   struct{ Healthy, Degraded, Lost, Deleting uint64 }
	Sessions []struct {
		ID   uint64
		Name string
	}
}

func (c *cluster) status() (*status, error) {
	out, err := runQuern("status", "--json", "--data", c.data)
	if err != nil {
		return nil, err
	}
	var s status
	return &s, json.Unmarshal([]byte(out), &s)
}

// leader waits until a metadata server leads, other than `not`, and names it.
func (c *cluster) leader(not string) string {
	c.t.Helper()
	var name string
	eventually(c.t, patience, func() error {
		s, err := c.status()
		if err != nil {
			return err
		}
		for _, m := range s.Members {
			if m.Leader && m.Name != not {
				name = m.Name
				return nil
			}
		}
		return errors.New("no leader")
	})
	return name
}

// runQuern runs a command of quern that ends by itself.
func runQuern(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, quern, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		return stdout.String(), fmt.Errorf("quern %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

func mustQuern(t *testing.T, args ...string) string {
	t.Helper()
	out, err := runQuern(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// shell runs a command line in dir and returns its output; it must succeed.
func shell(t *testing.T, dir, line string, env ...string) string {
	t.Helper()
	out, err := tryShell(dir, line, env...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, tail(out))
	}
	return out
}

func tryShell(dir, line string, env ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", line)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// eventually waits for a condition.
func eventually(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", limit, err)
		}
		<-tick.C
	}
}

// within runs f and fails the test if it takes longer than limit; f goes on.
func within(t *testing.T, limit time.Duration, what string, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		t.Fatalf("%s hangs: no answer within %v", what, limit)
		return nil
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// writeSynced writes a file and fsyncs it.
func writeSynced(path string, content []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// pattern is n bytes that differ at every place and for every seed.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	x := seed*0x9E3779B97F4A7C15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

func copyAll(dst io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(dst, f)
	return err
}
