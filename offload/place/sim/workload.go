package sim

import (
	"bytes"
	"embed"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Workload is a cluster and what arrives there.
type Workload struct {
	Version int               `yaml:"version"` // 1
	About   string            `yaml:"about"`
	Seed    int64             `yaml:"seed"`
	Hosts   []Hosts           `yaml:"hosts"`
	Kernels map[string]Kernel `yaml:"kernels"`
	Jobs    []Job             `yaml:"jobs"`
}

// Hosts are count hosts that are alike.
type Hosts struct {
	Count   int      `yaml:"count"` // 0: 1
	Class   string   `yaml:"class"`
	Slots   int      `yaml:"slots"`   // 0: 1
	Network Size     `yaml:"network"` // bytes a second; 0: 100 MB
	Store   Size     `yaml:"store"`   // bytes a second of output; 0: 100 MB
	Memory  Size     `yaml:"memory"`  // 0: no limit
	Process Size     `yaml:"process"` // bytes a second, as a bandwidth test measured it; 0: not measured
	Speed   float64  `yaml:"speed"`   // of the first device, where 1 is that of its class; 0: 1
	Lost    float64  `yaml:"lost"`    // chance that an attempt is lost
	Also    []Device `yaml:"also"`    // further devices
}

// Device is a device besides the first.
type Device struct {
	Class   string  `yaml:"class"`
	Slots   int     `yaml:"slots"`
	Process Size    `yaml:"process"`
	Speed   float64 `yaml:"speed"` // where 1 is that of its class; 0: 1
}

// Kernel says how long tasks really run.
type Kernel struct {
	Classes    map[string]Speed `yaml:"classes"`    // where it can run
	Scatter    float64          `yaml:"scatter"`    // of the run time: standard deviation of its logarithm
	Stragglers float64          `yaml:"stragglers"` // part of the attempts that take five times as long
	Output     float64          `yaml:"output"`     // bytes written for one read
}

// Speed is a kernel on a class of devices.
type Speed struct {
	Fixed Span `yaml:"fixed"`
	Rate  Size `yaml:"rate"` // bytes a second; 0: the time does not depend on bytes
	Warm  Span `yaml:"warm"`
	Hint  bool `yaml:"hint"` // the manifest says so; else it has to be learned
}

// Job is one job, or one that comes again and again.
type Job struct {
	User     string  `yaml:"user"`
	Kernel   string  `yaml:"kernel"`
	Tasks    int     `yaml:"tasks"`  // 0: 1
	Bytes    Size    `yaml:"bytes"`  // of each task
	Spread   float64 `yaml:"spread"` // bytes vary by this factor up and down; 0: all alike
	Held     int     `yaml:"held"`   // hosts that share a task's bytes; 0: 1; the kth holds as much as any
	Skew     bool    `yaml:"skew"`   // most of the data lies on few hosts
	At       Span    `yaml:"at"`
	Every    Span    `yaml:"every"` // it comes again
	Times    int     `yaml:"times"` // so often in all; 0: once
	Memory   Size    `yaml:"memory"`
	Gang     bool    `yaml:"gang"`
	Makespan bool    `yaml:"makespan"`
	Priority int     `yaml:"priority"`
	Share    float64 `yaml:"share"`
	Locality string  `yaml:"locality"` // prefer, strict or any, as in a job file; "": prefer
}

// Limits of a workload.
const (
	maxFile    = 1 << 20
	maxDevices = 10_000
	maxTasks   = 1_000_000
)

//go:embed workloads/*.yaml
var builtin embed.FS

// Builtins are the names of the workloads that come with quern.
func Builtins() (names []string) {
	entries, err := builtin.ReadDir("workloads")
	if err != nil {
		panic(err) // it is in the binary
	}
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Builtin is one of them.
func Builtin(name string) (*Workload, error) {
	text, err := Text(name)
	if err != nil {
		return nil, err
	}
	return Parse([]byte(text))
}

// Text is the file of one of them.
func Text(name string) (string, error) {
	raw, err := builtin.ReadFile(path.Join("workloads", name+".yaml"))
	if err != nil {
		return "", fmt.Errorf("there is no workload %q; those that come with quern are %s", name, strings.Join(Builtins(), ", "))
	}
	return string(raw), nil
}

// Parse reads a workload and checks it. An error is one sentence, with the line
// where the YAML itself is wrong.
func Parse(raw []byte) (w *Workload, err error) {
	if len(raw) > maxFile {
		return nil, fmt.Errorf("a workload is at most %d KiB", maxFile>>10)
	}
	defer func() { // the parser panics on some malformed input
		if r := recover(); r != nil {
			w, err = nil, fmt.Errorf("not valid YAML (%v)", r)
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	w = new(Workload)
	if err := d.Decode(w); err == io.EOF {
		return nil, fmt.Errorf("the workload is empty")
	} else if err != nil {
		return nil, fmt.Errorf("%s", strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " "))
	}
	return w, w.check()
}

func (w *Workload) check() error {
	if w.Version != 1 {
		return fmt.Errorf("version must be 1, not %d", w.Version)
	}
	devices := 0
	classes := map[string]bool{}
	for i := range w.Hosts {
		h := &w.Hosts[i]
		if h.Count == 0 {
			h.Count = 1
		}
		h.Also = append([]Device{{h.Class, h.Slots, h.Process, h.Speed}}, h.Also...)
		for k := range h.Also {
			d := &h.Also[k]
			if d.Slots == 0 {
				d.Slots = 1
			}
			if d.Class == "" || d.Slots < 1 || d.Slots > 1024 {
				return fmt.Errorf("hosts %d: a device needs a class, and 1 to 1024 slots", i+1)
			}
			if d.Speed == 0 {
				d.Speed = 1
			}
			if !(d.Speed >= 0.01 && d.Speed <= 100) {
				return fmt.Errorf("hosts %d: a speed is 0.01 to 100", i+1)
			}
			classes[d.Class] = true
		}
		if h.Network == 0 {
			h.Network = 100e6
		}
		if h.Store == 0 {
			h.Store = 100e6
		}
		if h.Count < 0 || h.Count > maxDevices || h.Lost < 0 || h.Lost > 0.9 {
			return fmt.Errorf("hosts %d: count is 1 to %d, lost 0 to 0.9", i+1, maxDevices)
		}
		devices += h.Count * len(h.Also)
	}
	if devices == 0 || devices > maxDevices {
		return fmt.Errorf("the hosts have %d devices; 1 to %d are needed", devices, maxDevices)
	}
	for name, k := range w.Kernels {
		any := false
		for class, s := range k.Classes {
			any = any || classes[class]
			if s.Rate == 0 && s.Fixed <= 0 || s.Fixed < 0 || s.Warm < 0 {
				return fmt.Errorf("kernel %s on %s: a rate or a fixed time is needed", name, class)
			}
		}
		if !any {
			return fmt.Errorf("kernel %s runs on no class that a host has", name)
		}
		if k.Scatter < 0 || k.Scatter > 3 || k.Stragglers < 0 || k.Stragglers > 1 || k.Output < 0 || k.Output > 1000 {
			return fmt.Errorf("kernel %s: scatter is 0 to 3, stragglers 0 to 1, output 0 to 1000", name)
		}
	}
	tasks := 0
	for i := range w.Jobs {
		j := &w.Jobs[i]
		if _, ok := w.Kernels[j.Kernel]; !ok {
			return fmt.Errorf("job %d: there is no kernel %q", i+1, j.Kernel)
		}
		if j.Tasks == 0 {
			j.Tasks = 1
		}
		if j.Times == 0 {
			j.Times = 1
		}
		if j.Held == 0 {
			j.Held = 1
		}
		if j.Spread == 0 {
			j.Spread = 1
		}
		if !slices.Contains([]string{"", "prefer", "strict", "any"}, j.Locality) {
			return fmt.Errorf("job %d: locality is prefer, strict or any", i+1)
		}
		if j.Tasks < 0 || j.Times < 0 || j.Tasks > maxTasks || j.Times > maxTasks || j.Held < 0 || j.Held > 64 ||
			j.Spread < 1 || j.Spread > 1000 || j.At < 0 || j.Every < 0 || j.Share < 0 || j.Times > 1 && j.Every <= 0 {
			return fmt.Errorf("job %d: tasks, times and held are 1 or more, spread is 1 to 1000, and what comes more than once says every when", i+1)
		}
		if tasks += j.Tasks * j.Times; tasks > maxTasks {
			return fmt.Errorf("the jobs have more than %d tasks", maxTasks)
		}
	}
	if tasks == 0 {
		return fmt.Errorf("there are no jobs")
	}
	return nil
}

// Size is a number of bytes: 64MiB, 1.5GB, 1000.
type Size uint64

var units = []struct {
	suffix string
	factor float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1}}

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	i := slices.IndexFunc(units, func(u struct {
		suffix string
		factor float64
	}) bool {
		return strings.HasSuffix(n.Value, u.suffix)
	})
	u := units[i]
	v, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(n.Value, u.suffix)), 64)
	if err != nil || v < 0 || !(v*u.factor < 1e18) || math.IsNaN(v) {
		return fmt.Errorf("line %d: %q is not a size such as 64MiB", n.Line, n.Value)
	}
	*s = Size(v * u.factor)
	return nil
}

// Span is a time: 90s, 2h.
type Span time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Span) UnmarshalYAML(n *yaml.Node) error {
	d, err := time.ParseDuration(n.Value)
	if n.Value == "0" {
		d, err = 0, nil
	}
	if err != nil || d < 0 || d > 365*24*time.Hour {
		return fmt.Errorf("line %d: %q is not a time such as 90s", n.Line, n.Value)
	}
	*s = Span(d)
	return nil
}
