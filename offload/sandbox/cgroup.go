package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Control groups: see cgroups(7). A host has one unified hierarchy (v2), or one
// for each controller (v1), or both, each with other controllers; what a
// sandbox needs may lie in any of them.

// hierarchy is one mounted tree of control groups, and where this process is
// in it.
type hierarchy struct {
	dir         string // of the control group that this process is in
	v2          bool
	controllers []string // v1; those of v2 are in cgroup.controllers
	top         bool     // dir is where the tree is mounted
}

// hierarchies reads /proc/self/mountinfo and /proc/self/cgroup.
func hierarchies(mountinfo, self string) []hierarchy {
	at := map[string]string{} // by controllers as in /proc/self/cgroup; "" is v2
	for line := range strings.Lines(self) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		what, path, ok := strings.Cut(rest, ":")
		if ok && strings.HasPrefix(path, "/") {
			at[what] = path
		}
	}
	var out []hierarchy
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 {
			continue
		}
		h := hierarchy{v2: right[0] == "cgroup2"}
		var path string
		switch {
		case h.v2:
			if path, ok = at[""]; !ok {
				continue
			}
		case right[0] == "cgroup":
			options := strings.Split(right[2], ",")
			for what, p := range at {
				if what != "" && subset(strings.Split(what, ","), options) {
					path, h.controllers = p, strings.Split(what, ",")
				}
			}
		}
		if path == "" {
			continue
		}
		root := left[3]
		if root != "/" {
			// Only a part of the tree is mounted: is this process in it?
			rel, inside := strings.CutPrefix(path, root)
			if !inside || rel != "" && rel[0] != '/' {
				continue
			}
			path = rel
		}
		mount := unescape(left[4])
		h.dir = filepath.Join(mount, path)
		h.top = h.dir == filepath.Clean(mount)
		out = append(out, h)
	}
	return out
}

func subset(a, b []string) bool {
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}

// unescape undoes what mountinfo does to blanks: \040 and the like.
func unescape(s string) string {
	for i := 0; i+4 <= len(s); i++ {
		if s[i] == '\\' {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				s = s[:i] + string([]byte{byte(n)}) + s[i+4:]
			}
		}
	}
	return s
}

// cgroups are the places below which a sandbox gets control groups of its own.
type cgroups struct {
	bases []base
	ops   cgroupOps
}

// base is one of them, with what it is used for.
type base struct {
	dir  string
	v2   bool
	uses []string // of memory, pids, cpu, cpuacct, kill
}

// cgroupOps are the system calls that a plain directory cannot stand in for.
type cgroupOps struct {
	mkdir  func(string) error
	remove func(string) error
}

var realOps = cgroupOps{
	mkdir:  func(dir string) error { return os.Mkdir(dir, 0o755) },
	remove: os.Remove,
}

// groupPrefix, then the process id of the agent, then a number, is what the
// control groups of sandboxes are called.
const groupPrefix = "quern-exec."

// controlFile is what a controller is recognised by.
func controlFile(use string, v2 bool) string {
	switch {
	case use == "memory" && v2:
		return "memory.max"
	case use == "memory":
		return "memory.limit_in_bytes"
	case use == "pids":
		return "pids.max"
	case use == "cpu" && v2:
		return "cpu.max"
	case use == "cpu":
		return "cpu.cfs_quota_us"
	case use == "cpuacct" && v2:
		return "cpu.stat"
	case use == "cpuacct":
		return "cpuacct.usage"
	case use == "kill" && v2:
		return "cgroup.kill"
	}
	return ""
}

// findCgroups tries out where control groups can be made, v2 first.
func findCgroups(all []hierarchy, ops cgroupOps) *cgroups {
	c := &cgroups{ops: ops}
	taken := map[string]bool{}
	slices.SortStableFunc(all, func(a, b hierarchy) int {
		switch {
		case a.v2 && !b.v2:
			return -1
		case b.v2 && !a.v2:
			return 1
		}
		return 0
	})
	for _, h := range all {
		dirs := []string{h.dir}
		if h.v2 && !h.top {
			// A group with processes has no groups below it that can be limited, but
			// for the first: so beside this process's own.
			dirs = []string{filepath.Dir(h.dir), h.dir}
		}
		var best base
		for _, dir := range dirs {
			if b := c.try(dir, h.v2, taken); len(b.uses) > len(best.uses) {
				best = b
			}
		}
		for _, use := range best.uses {
			taken[use] = true
		}
		if len(best.uses) > 0 {
			c.bases = append(c.bases, best)
		}
	}
	return c
}

// try makes a group below dir, sees what it offers, and removes it.
func (c *cgroups) try(dir string, v2 bool, taken map[string]bool) base {
	b := base{dir: dir, v2: v2}
	c.sweep(dir)
	if v2 {
		for _, k := range []string{"+memory", "+pids", "+cpu"} {
			_ = write(dir, "cgroup.subtree_control", k) // if it is there
		}
	}
	group := filepath.Join(dir, fmt.Sprintf("%s%d.probe", groupPrefix, os.Getpid()))
	if c.ops.mkdir(group) != nil {
		return b
	}
	defer c.ops.remove(group)
	for _, use := range []string{"memory", "pids", "cpu", "cpuacct", "kill"} {
		file := controlFile(use, v2)
		if file == "" || taken[use] {
			continue
		}
		f, err := os.OpenFile(filepath.Join(group, file), os.O_WRONLY, 0)
		if use == "cpuacct" {
			f, err = os.Open(filepath.Join(group, file))
		}
		if err == nil {
			f.Close()
			b.uses = append(b.uses, use)
		}
	}
	return b
}

// sweep removes the groups of agents that have died.
func (c *cgroups) sweep(dir string) {
	names, _ := os.ReadDir(dir)
	for _, n := range names {
		rest, ours := strings.CutPrefix(n.Name(), groupPrefix)
		pid, _, ok := strings.Cut(rest, ".")
		if !ours || !ok {
			continue
		}
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			_ = c.ops.remove(filepath.Join(dir, n.Name()))
		}
	}
}

// by says what limits a resource: "cgroup v2", "cgroup v1" or "".
func (c *cgroups) by(use string) string {
	for _, b := range c.bases {
		if slices.Contains(b.uses, use) {
			if b.v2 {
				return "cgroup v2"
			}
			return "cgroup v1"
		}
	}
	return ""
}

// group is the control groups of one run, one in each base.
type group struct {
	c    *cgroups
	dirs []string // beside c.bases
}

// make makes the groups of one run with its limits.
func (c *cgroups) make(name string, l Limits) (*group, error) {
	g := &group{c: c}
	for _, b := range c.bases {
		dir := filepath.Join(b.dir, groupPrefix+name)
		err := c.ops.mkdir(dir)
		if err == nil {
			g.dirs = append(g.dirs, dir)
			err = b.limit(dir, l)
		}
		if err != nil {
			g.remove()
			return nil, fmt.Errorf("making a control group: %w", err)
		}
	}
	return g, nil
}

// cpuPeriod is over which time processor time is shared out, in µs.
const cpuPeriod = 100_000

func (b base) limit(dir string, l Limits) error {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	var errs []error
	set := func(file, value string) { errs = append(errs, write(dir, file, value)) }
	for _, use := range b.uses {
		switch {
		case use == "memory" && b.v2:
			set("memory.max", number(l.Memory))
			_ = write(dir, "memory.swap.max", "0") // where the kernel counts swap
			_ = write(dir, "memory.oom.group", "1")
		case use == "memory":
			set("memory.limit_in_bytes", number(l.Memory))
			_ = write(dir, "memory.memsw.limit_in_bytes", number(l.Memory))
		case use == "pids":
			set("pids.max", number(int64(l.Pids)))
		case use == "cpu" && b.v2:
			_ = write(dir, "cpu.weight", "25") // a quarter of what other processes get
			if l.CPU > 0 {
				set("cpu.max", fmt.Sprintf("%d %d", int64(l.CPU*cpuPeriod), cpuPeriod))
			}
		case use == "cpu":
			_ = write(dir, "cpu.shares", "256")
			if l.CPU > 0 {
				set("cpu.cfs_period_us", number(cpuPeriod))
				set("cpu.cfs_quota_us", number(int64(l.CPU*cpuPeriod)))
			}
		}
	}
	return errors.Join(errs...)
}

// add puts a process into all groups.
func (g *group) add(pid int) error {
	for _, dir := range g.dirs {
		if err := write(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("joining a control group: %w", err)
		}
	}
	return nil
}

// kill ends every process of the group at once, where the kernel can do that.
func (g *group) kill() {
	for i, dir := range g.dirs {
		if slices.Contains(g.c.bases[i].uses, "kill") {
			_ = write(dir, "cgroup.kill", "1")
		}
	}
}

// used is what the processes of a group have used.
type used struct {
	memory int64 // bytes, at most at one time; 0: not known
	cpu    int64 // nanoseconds; 0: not known
	oom    bool  // one was killed for lack of memory
	pids   bool  // one could not be started, there were too many
}

func (g *group) used() (u used) {
	for i, dir := range g.dirs {
		b := g.c.bases[i]
		for _, use := range b.uses {
			switch {
			case use == "memory" && b.v2:
				u.memory = number(read(dir, "memory.peak"))
				u.oom = field(read(dir, "memory.events"), "oom_kill") > 0
			case use == "memory":
				u.memory = number(read(dir, "memory.max_usage_in_bytes"))
				u.oom = field(read(dir, "memory.oom_control"), "oom_kill") > 0
			case use == "pids":
				u.pids = field(read(dir, "pids.events"), "max") > 0
			case use == "cpuacct" && b.v2:
				u.cpu = 1000 * field(read(dir, "cpu.stat"), "usage_usec")
			case use == "cpuacct":
				u.cpu = number(read(dir, "cpuacct.usage"))
			}
		}
	}
	return u
}

// removeWait is how long the kernel may take to let go of the dead.
const removeWait = 5 * time.Second

// remove removes the groups, once the processes are gone. What stays is removed
// by a later sweep.
func (g *group) remove() {
	end := time.Now().Add(removeWait)
	for _, dir := range g.dirs {
		for pause := time.Millisecond; g.c.ops.remove(dir) != nil && time.Now().Before(end); pause = min(2*pause, 100*time.Millisecond) {
			time.Sleep(pause)
		}
	}
	g.dirs = nil
}

func write(dir, file, value string) error {
	// Not os.WriteFile: nothing is to be made or cut here.
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func read(dir, file string) string {
	text, _ := os.ReadFile(filepath.Join(dir, file))
	return string(text)
}

func number(text string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return n
}

// field finds NAME N in lines of a name and a number.
func field(text, name string) int64 {
	for line := range strings.Lines(text) {
		if n, rest, ok := strings.Cut(line, " "); ok && n == name {
			return number(rest)
		}
	}
	return 0
}
