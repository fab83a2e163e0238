package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Ticks of the kernel's clock in a second, as /proc counts them.
const clockTicks = 100

// processes lists a process and all that descend from it.
func processes(pid int) []int {
	all := []int{pid}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		raw, _ := os.ReadFile(f)
		for _, s := range strings.Fields(string(raw)) {
			if child, err := strconv.Atoi(s); err == nil {
				all = append(all, processes(child)...)
			}
		}
	}
	return all
}

// cpuTime is what a process, its descendants and those of them that have ended
// have used of the processors.
func cpuTime(pid int) time.Duration {
	ticks := 0
	for _, p := range processes(pid) {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		_, rest, _ := strings.Cut(string(raw), ") ")
		if f := strings.Fields(rest); len(f) > 14 {
			for _, s := range f[11:15] { // utime stime cutime cstime
				n, _ := strconv.Atoi(s)
				ticks += n
			}
		}
	}
	return time.Duration(ticks) * time.Second / clockTicks
}

// peakMemory is the most memory that a process has had, in MiB.
func peakMemory(pid int) int {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			n, _ := strconv.Atoi(f[1])
			return n >> 10
		}
	}
	return 0
}

// TestTaskRate runs short tasks of a bundled kernel. What is asserted is their cost
// in processor time, which says something on a busy machine, too: Go's runtime, if
// it began anew in each, would need 10 ms. With QUERN_LONG=1 it is a job of 100,000
// tasks on an idle machine: what docs/performance.md has.
func TestTaskRate(t *testing.T) {
	tasks := 2000
	if long {
		tasks = 100_000
	}
	c := startCluster(t)
	c.waitAgents(1)
	shell(t, c.mnt, "mkdir in && echo hello > in/a")
	run := func(name string, n int) (job string, first, took, cpu time.Duration) {
		text := fmt.Sprintf("version: 1\nkernel: sha256sum\ninputs: /in\narray: %d\n", n)
		pid := c.up.Process.Pid
		before, start := cpuTime(pid), time.Now()
		job = submitJob(t, c.mnt, name, text)
		eventually(t, 2*time.Minute, func() error {
			reason := readFile(t, filepath.Join(job, "reason"))
			if strings.HasPrefix(reason, "0 of") || strings.HasPrefix(reason, "waiting") {
				return fmt.Errorf("no task has ended: %s", reason)
			}
			return nil
		})
		first = time.Since(start)
		if how := shell(t, c.mnt, "cat "+job+"/wait"); how != "succeeded: all tasks done\n" {
			t.Fatal(how)
		}
		return job, first, time.Since(start), cpuTime(pid) - before
	}
	run("warm", 200) // the kernel is compiled
	job, first, took, cpu := run("many", tasks)
	rate, each := float64(tasks)/took.Seconds(), cpu/time.Duration(tasks)
	t.Logf("%d tasks in %.1f s: %.0f a second, %v of CPU each; the first had ended after %.2f s; quern had %d MiB at most",
		tasks, took.Seconds(), rate, each.Round(time.Microsecond), first.Seconds(), peakMemory(c.up.Process.Pid))
	if got := shell(t, c.mnt, "ls "+job+"/out | wc -l"); strings.TrimSpace(got) != strconv.Itoa(tasks) {
		t.Errorf("%s results of %d tasks", got, tasks)
	}
	const want = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  /in/a\n"
	for _, n := range []int{0, tasks / 2, tasks - 1} {
		if got := readFile(t, fmt.Sprintf("%s/out/output.%05d", job, n)); got != want {
			t.Errorf("task %d: %q", n, got)
		}
	}
	// As fast as a processor was measured to be.
	var speed time.Duration
	devices := shell(t, c.mnt, "cat .compute/hosts/*/devices")
	if _, err := fmt.Sscanf(devices[strings.Index(devices, "speed="):], "speed=%d%%", &speed); err != nil {
		t.Fatal(err, devices)
	}
	if limit := 5 * time.Millisecond * 100 / speed; each > limit {
		t.Errorf("a task costs %v of CPU, more than %v", each, limit)
	}
	if !long {
		return
	}
	if runtime.NumCPU() > 1 && rate < 1000 {
		t.Errorf("%.0f tasks a second: 1,000 are wanted of two idle cores", rate)
	}
	if first > 2*time.Second {
		t.Errorf("the first task ended %v after the submission", first)
	}
}

// TestManyJobs submits jobs of one task each, and lists them. With QUERN_LONG=1
// there are 10,000.
func TestManyJobs(t *testing.T) {
	jobs := 100
	if long {
		jobs = 10_000
	}
	c := startCluster(t)
	c.waitAgents(1)
	shell(t, c.mnt, "mkdir in && echo hello > in/a")
	start := time.Now()
	for i := range jobs {
		submitJob(t, c.mnt, fmt.Sprintf("job-%05d", i), "version: 1\nkernel: sha256sum\ninputs: /in\n")
	}
	submitted := time.Since(start)
	list := func(dir string) time.Duration {
		start := time.Now()
		entries, err := os.ReadDir(filepath.Join(c.mnt, ".compute", dir))
		if err != nil || len(entries) != jobs {
			t.Fatalf("%s: %d entries, %v", dir, len(entries), err)
		}
		return time.Since(start)
	}
	busy := list("jobs")
	eventually(t, 10*time.Minute, func() error {
		text := readFile(t, filepath.Join(c.mnt, ".compute", "by-name", fmt.Sprintf("job-%05d", jobs-1), "state"))
		if text != "succeeded\n" {
			return fmt.Errorf("the last job is %s", text)
		}
		return nil
	})
	took := time.Since(start)
	t.Logf("%d jobs: submitted in %.1f s, the last had ended after %.1f s; ls jobs took %v while they ran, %v after, ls by-name %v",
		jobs, submitted.Seconds(), took.Seconds(), busy, list("jobs"), list("by-name"))
	if limit := 3 * time.Second; list("jobs") > limit {
		t.Errorf("to list the jobs took longer than %v", limit)
	}
}

// TestLargeJobDelaysNobody submits jobs of 100,000 tasks by mv, by one user and by
// two at once, while others go on: programs that make, write, store and remove
// files, whose longest wait it tells. The limits are those of an idle machine, so
// they hold with QUERN_LONG=1 only.
func TestLargeJobDelaysNobody(t *testing.T) {
	needTool(t, "setpriv")
	c := startCluster(t)
	c.waitAgents(1)
	shell(t, c.mnt, "mkdir in && echo hello > in/a && chmod 755 . && for u in 1001 1002; do mkdir u$u && chown $u:$u u$u; done")
	longest := func(during func()) time.Duration {
		done, stop := make(chan time.Duration, 1), make(chan struct{})
		go func() {
			dir, worst := filepath.Join(c.mnt, "probe"), time.Duration(0)
			for n := 0; ; n++ {
				began := time.Now()
				if err := errors.Join(os.Mkdir(dir, 0o755), writeSynced(filepath.Join(dir, "f"), []byte("x")), os.RemoveAll(dir)); err != nil {
					t.Errorf("a program that goes on: %v", err)
				}
				worst = max(worst, time.Since(began))
				select {
				case <-stop:
					done <- worst
					return
				default:
				}
			}
		}()
		func() {
			defer close(stop)
			during()
		}()
		return <-done
	}
	submit := func(uid int, name string) time.Duration {
		text := "version: 1\nkernel: sha256sum\ninputs: /in\narray: 100000\n"
		file := filepath.Join(fmt.Sprintf("u%d", uid), name+".yaml") // a stranger may not walk to the mount
		writeFile(t, filepath.Join(c.mnt, file), text)
		shell(t, c.mnt, fmt.Sprintf("chown %d:%d %s", uid, uid, file))
		began := time.Now()
		shell(t, c.mnt, fmt.Sprintf("setpriv --reuid %d --regid %d --clear-groups mv %s .compute/queue/", uid, uid, file))
		return time.Since(began)
	}
	cancel := func(names ...string) {
		for _, name := range names {
			shell(t, c.mnt, "echo cancel > .compute/by-name/"+name+"/ctl && cat .compute/by-name/"+name+"/wait")
		}
	}
	idle := longest(func() { shell(t, c.mnt, "for i in $(seq 100); do ls > /dev/null; done") })
	var one, first, second time.Duration
	withOne := longest(func() { one = submit(1001, "alone") })
	cancel("alone")
	withTwo := longest(func() {
		both := make(chan struct{})
		go func() { defer close(both); second = submit(1002, "second") }()
		first = submit(1001, "first")
		<-both
	})
	if got := mustQuern(t, "job", "ls", "--json", "--mount", c.mnt); strings.Count(got, `"tasks": 100000`) != 3 {
		t.Errorf("three jobs of 100,000 tasks were submitted: %s", got)
	}
	cancel("first", "second")
	t.Logf("mv of 100,000 tasks: %v; two users at once: %v and %v. mkdir, write, fsync, rm: at most %v without, %v with one, %v with two",
		one, first, second, idle, withOne, withTwo)
	if !long {
		return
	}
	if m := max(one, first, second); m > time.Second {
		t.Errorf("mv took %v", m)
	}
	if m := max(withOne, withTwo); m > idle+100*time.Millisecond {
		t.Errorf("others waited %v, %v without", m, idle)
	}
}
