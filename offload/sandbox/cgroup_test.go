package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const (
	v2only = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	hybrid = `24 22 0:23 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
25 24 0:24 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
26 24 0:25 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
27 24 0:26 / /sys/fs/cgroup/a\040name rw,relatime - cgroup cgroup rw,pids
28 24 0:27 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
29 24 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
)

func TestHierarchies(t *testing.T) {
	for name, c := range map[string]struct {
		mountinfo, self string
		want            []hierarchy
	}{
		"v2":        {v2only, "0::/user.slice/x.scope\n", []hierarchy{{dir: "/sys/fs/cgroup/user.slice/x.scope", v2: true}}},
		"v2 at top": {v2only, "0::/\n", []hierarchy{{dir: "/sys/fs/cgroup", v2: true, top: true}}},
		"hybrid": {hybrid, "9:name=systemd:/\n8:pids:/p\n4:memory:/a/b\n2:cpu,cpuacct:/\n0::/\n", []hierarchy{
			{dir: "/sys/fs/cgroup/memory/a/b", controllers: []string{"memory"}},
			{dir: "/sys/fs/cgroup/cpu,cpuacct", controllers: []string{"cpu", "cpuacct"}, top: true},
			{dir: "/sys/fs/cgroup/a name/p", controllers: []string{"pids"}},
			{dir: "/sys/fs/cgroup/systemd", controllers: []string{"name=systemd"}, top: true},
			{dir: "/sys/fs/cgroup/unified", v2: true, top: true},
		}},
		"part": {"1 2 0:26 /docker/7 /sys/fs/cgroup ro - cgroup2 c rw\n", "0::/docker/7/in\n", []hierarchy{{dir: "/sys/fs/cgroup/in", v2: true}}},
		"else": {"1 2 0:26 /docker/7 /sys/fs/cgroup ro - cgroup2 c rw\n", "0::/docker/77\n", nil},
		"none": {"1 2 0:26 / / rw - ext4 /dev/x rw\n", "0::/\n", nil},
		"odd":  {"\n1 - cgroup2\n - \n1 2 3 4 5 6 - cgroup\n", "::\nx\n0:y\n", nil},
	} {
		if got := hierarchies(c.mountinfo, c.self); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, c.want)
		}
	}
}

func FuzzHierarchies(f *testing.F) {
	f.Add(v2only, "0::/x\n")
	f.Add(hybrid, "8:pids:/p\n4:memory:/a\n")
	f.Fuzz(func(t *testing.T, mountinfo, self string) {
		for _, h := range hierarchies(mountinfo, self) {
			if h.dir == "" {
				t.Error("a hierarchy without a directory")
			}
		}
	})
}

// fakeTree stands in for a tree of control groups: a directory in which a new
// group has the files that the kernel would make.
type fakeTree struct {
	t     *testing.T
	files map[string]string
}

func (f fakeTree) ops() cgroupOps {
	return cgroupOps{
		mkdir: func(dir string) error {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			on := read(filepath.Dir(dir), "cgroup.subtree_control")
			for name, text := range f.files {
				controller, _, _ := strings.Cut(name, ".")
				if slices.Contains([]string{"memory", "pids", "cpu"}, controller) && on != "" && !strings.Contains(on, controller) {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					f.t.Error(err)
				}
			}
			return nil
		},
		remove: os.RemoveAll,
	}
}

// TestGroup2: what is written and read in control groups of version 2.
func TestGroup2(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "agent") // in which this process would be
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, groupPrefix+"4999999.1")
	if err := os.Mkdir(dead, 0o755); err != nil {
		t.Fatal(err)
	}
	fake := fakeTree{t, map[string]string{
		"cgroup.procs": "", "cgroup.kill": "", "memory.max": "max\n", "memory.swap.max": "max\n", "memory.oom.group": "0\n",
		"memory.peak": "12345\n", "memory.events": "low 0\nmax 3\noom 1\noom_kill 1\n", "pids.max": "max\n", "pids.events": "max 7\n",
		"cpu.max": "max 100000\n", "cpu.weight": "100\n", "cpu.stat": "usage_usec 1500\nuser_usec 1000\n",
	}}
	c := findCgroups([]hierarchy{{dir: own, v2: true}}, fake.ops())
	want := []base{{dir: dir, v2: true, uses: []string{"memory", "pids", "cpu", "cpuacct", "kill"}}}
	if !reflect.DeepEqual(c.bases, want) || c.by("memory") != ByCgroup2 || c.by("nothing") != ByNobody {
		t.Fatalf("%+v", c.bases)
	}
	if _, err := os.Stat(dead); err == nil {
		t.Error("the group of a dead agent was left")
	}
	h := &Host{}
	if h.use(c); h.Limits() != (Enforced{ByCgroup2, ByCgroup2, ByCgroup2}) {
		t.Errorf("%+v", h.Limits())
	}
	g, err := c.make("1.1", Limits{Memory: 1 << 30, CPU: 1.5, Pids: 99})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.add(77); err != nil {
		t.Error(err)
	}
	g.kill()
	at := filepath.Join(dir, groupPrefix+"1.1")
	for file, want := range map[string]string{
		"memory.max": "1073741824", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "99", "cpu.max": "150000 100000",
		"cpu.weight": "25", "cgroup.procs": "77", "cgroup.kill": "1",
	} {
		if got := read(at, file); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", file, got)
		}
	}
	if u := g.used(); u != (used{12345, 1_500_000, true, true}) {
		t.Errorf("%+v", u)
	}
	g.remove()
	if _, err := os.Stat(at); err == nil {
		t.Error("the group was left")
	}
}

// TestGroupsMissing: what cannot be limited is known.
func TestGroupsMissing(t *testing.T) {
	top := t.TempDir()
	fake := fakeTree{t, map[string]string{"cgroup.procs": "", "pids.max": "max\n"}}
	c := findCgroups([]hierarchy{{dir: top, controllers: []string{"pids"}}, {dir: "/no/such/place"}}, fake.ops())
	h := &Host{}
	if h.use(c); h.Limits() != (Enforced{ByRlimit, ByCgroup1, ByNobody}) {
		t.Errorf("%+v", h.Limits())
	}
	// A limit that cannot be written is no limit.
	fake.files = map[string]string{"cgroup.procs": ""}
	c.ops = fake.ops()
	if g, err := c.make("1.1", Limits{Pids: 1}); err == nil {
		t.Errorf("%+v", g)
	}
	if names, _ := filepath.Glob(filepath.Join(top, groupPrefix+"*")); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
}

// TestRlimits: without control groups rlimits keep the memory of a process and
// the number of processes.
func TestRlimits(t *testing.T) {
	h := open(t)
	h.use(&cgroups{})
	if h.Limits() != (Enforced{ByRlimit, ByRlimit, ByNobody}) {
		t.Fatalf("%+v", h.Limits())
	}
	r, out := shell(t, h, `ulimit -v; exec perl -e 'my @x; push @x, "x" x 1000000 while 1'`)
	stderr := &strings.Builder{}
	r.Stderr = stderr
	exit, err := h.Run(t.Context(), r)
	if want := fmt.Sprintf("%d\n", r.Limits.Memory>>10); err != nil || exit.Code == 0 || out.String() != want || !strings.Contains(stderr.String(), "Out of memory") {
		t.Errorf("%+v, %v, %q, %q", exit, err, out, stderr)
	}
	r, _ = shell(t, h, `exec perl -e 'for (1..200) { my $p = fork; exit 9 if !defined $p; if (!$p) { sleep 5; exit } }'`)
	exit, err = h.Run(t.Context(), r)
	if h.Root() && (err != nil || exit.Code != 9) { // of another user's processes this one has none
		t.Errorf("two hundred processes: %+v, %v", exit, err)
	}
	r, _ = shell(t, h, "echo x > /dev/shm/x")
	if exit, err := h.Run(t.Context(), r); err != nil || exit.Code == 0 {
		t.Errorf("memory that nothing limits: %+v, %v", exit, err)
	}
}

func TestGPUs(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	info := func(uuid string, minor int) string {
		return fmt.Sprintf("Model: \t\t NVIDIA H100\nIRQ:   \t\t 20\nGPU UUID: \t %s\nBus Location: \t 0000:01:00.0\nDevice Minor: \t %d\n", uuid, minor)
	}
	put("proc/driver/nvidia/gpus/0000:01:00.0/information", info("GPU-aa", 0))
	put("proc/driver/nvidia/gpus/0000:02:00.0/information", info("GPU-bb", 3))
	put("proc/driver/nvidia/gpus/0000:03:00.0/information", info("GPU-cc", 4)) // of another container
	put("proc/driver/nvidia/gpus/0000:04:00.0/information", info("GPU-????????", 5))
	put("dev/nvidia0", "")
	put("dev/nvidia3", "")
	put("dev/nvidia5", "")
	put("dev/nvidiactl", "")
	h := &Host{}
	h.gpus.find(root)
	all := h.GPUs()
	if len(all) != 2 || all[0] != (GPU{"GPU-aa", "NVIDIA H100", "/dev/nvidia0", all[0].Memory}) || all[1].Device != "/dev/nvidia3" {
		t.Fatalf("%+v", all)
	}
	h.gpus.all[1].Memory = 80 << 30
	got, ok := h.TakeGPUs(1, 70<<30)
	if !ok || got[0].UUID != "GPU-bb" {
		t.Fatalf("%v, %v", got, ok)
	}
	devices, env := h.Devices(got)
	if !slices.Equal(devices, []string{"/dev/nvidia3", "/dev/nvidiactl"}) || env[0] != "CUDA_VISIBLE_DEVICES=GPU-bb" {
		t.Errorf("%v, %v", devices, env)
	}
	if _, ok := h.TakeGPUs(2, 0); ok {
		t.Error("one that is in use was given away")
	}
	if h.TakeGPU("GPU-bb") || !h.TakeGPU("GPU-aa") || h.TakeGPU("GPU-aa") || !h.TakeGPU("GPU-of-nobody") {
		t.Error("one by name: what is in use is given, or what is free is not")
	}
	if _, ok := h.TakeGPUs(1, 0); ok {
		t.Error("one that was taken by name was given away")
	}
	h.GiveGPU("GPU-aa")
	h.GiveGPUs(got)
	if _, ok := h.TakeGPUs(2, 0); !ok {
		t.Error("those given back are not free")
	}
	if _, env := h.Devices(nil); env[0] != "CUDA_VISIBLE_DEVICES=" {
		t.Error(env)
	}
	if got := parseMemory("GPU-aa, 81559\nbad\nGPU-bb, x\n"); !reflect.DeepEqual(got, map[string]uint64{"GPU-aa": 81559 << 20}) {
		t.Error(got)
	}
}
