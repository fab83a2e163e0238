package jobfile

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Exec is a program of the host that a step runs instead of a module:
//
//	exec:
//	  argv: [python3, /in/code/train.py, "{inputs}"]   # {inputs}: the paths of the inputs
//	  env: {OMP_NUM_THREADS: 2}
//	  binds: [/code]                # further files and trees of the mount, below /in, read-only
//	  network: none                 # or host
type Exec struct {
	Argv    []string
	Env     []Param // sorted by key
	Binds   []Input // without wildcards
	Network bool    // the host's; else none

	Line int // of exec
}

// Limits of exec.
const (
	MaxBinds      = 64
	MaxEnv        = 64
	MinExecMemory = 32 << 20
	MaxExecMemory = 1 << 40
)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

func parseExec(n *yaml.Node, field string) (*Exec, error) {
	if n.Kind != yaml.MappingNode {
		return nil, Errorf(n.Line, "%s must be a mapping such as {argv: [python3, /in/run.py]}, not %s", field, describe(n))
	}
	x := &Exec{Line: n.Line}
	err := fields(n, map[string]func(*yaml.Node) error{
		"argv": func(n *yaml.Node) error {
			list, err := texts(n, field+".argv", MaxArgs)
			if err != nil {
				return err
			}
			for _, c := range list {
				x.Argv = append(x.Argv, c.Value)
			}
			if len(x.Argv) == 0 || x.Argv[0] == "" {
				return Errorf(n.Line, "%s.argv must name a program first", field)
			}
			return programName(list[0].Line, field, x.Argv[0])
		},
		"env": func(n *yaml.Node) (err error) {
			x.Env, err = environment(n, field+".env")
			return err
		},
		"binds": func(n *yaml.Node) error {
			list, err := texts(n, field+".binds", MaxBinds)
			if err != nil {
				return err
			}
			for _, c := range list {
				p, err := absolute(c.Line, "an entry of "+field+".binds", c.Value)
				if err != nil {
					return err
				}
				if Wild(p) {
					return Errorf(c.Line, "%s.binds takes files and directories, not patterns such as %q", field, shorten(p))
				}
				x.Binds = append(x.Binds, Input{Pattern: p, Line: c.Line})
			}
			return nil
		},
		"network": func(n *yaml.Node) error {
			if n.Kind != yaml.ScalarNode || n.Value != "none" && n.Value != "host" {
				return Errorf(n.Line, "%s.network must be \"none\" or \"host\", not %s", field, describe(n))
			}
			x.Network = n.Value == "host"
			return nil
		},
	})
	if err == nil && len(x.Argv) == 0 {
		err = Errorf(n.Line, "%s names no program: give \"argv: [PROGRAM, ARGUMENT, …]\"", field)
	}
	return x, err
}

// programName checks argv[0]: a name to be looked for, or an absolute path.
func programName(line int, field, p string) error {
	switch {
	case p == "{inputs}":
		return Errorf(line, "%s.argv must name a program first, not {inputs}", field)
	case strings.Contains(p, "/") && (p[0] != '/' || path.Clean(p) != p):
		return Errorf(line, "the program of %s.argv must be a name such as python3 or a plain path from \"/\", not %q", field, shorten(p))
	}
	return nil
}

func environment(n *yaml.Node, field string) ([]Param, error) {
	if n.Kind != yaml.MappingNode {
		return nil, Errorf(n.Line, "%s must be a mapping such as {LANG: C}, not %s", field, describe(n))
	}
	if len(n.Content)/2 > MaxEnv {
		return nil, Errorf(n.Line, "%s has %d entries; at most %d are allowed", field, len(n.Content)/2, MaxEnv)
	}
	var out []Param
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode || !envName.MatchString(k.Value):
			return nil, Errorf(k.Line, "a name in %s is made of letters, digits and _, not %s", field, describe(k))
		case strings.HasPrefix(k.Value, "QUERN_") || k.Value == "CUDA_VISIBLE_DEVICES":
			return nil, Errorf(k.Line, "the name %q in %s is taken: the agent itself sets it", k.Value, field)
		case slices.ContainsFunc(out, func(p Param) bool { return p.Key == k.Value }):
			return nil, Errorf(k.Line, "%s has %q twice", field, k.Value)
		}
		value, err := text(v, field+"."+k.Value)
		if err != nil {
			return nil, err
		}
		out = append(out, Param{k.Value, value})
	}
	slices.SortFunc(out, func(a, b Param) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

// Resources are what one task of a program needs, beyond Spec.Memory.
type Resources struct {
	CPU       float64 // processors; 0: not limited
	Scratch   int64   // bytes; 0 in a job without a program
	GPU       int     // whole graphics processors
	GPUMemory int64   // bytes that each of them has at least; 0: any
}

// Limits of resources.
const (
	MinCPU         = 0.01
	MaxCPU         = 1024
	MinScratch     = 1 << 20
	MaxScratch     = 1 << 40
	DefaultScratch = 1 << 30
	MaxGPU         = 16
	MaxGPUMemory   = 1 << 40
)

// resourceParser reads the fields resources and memory; what they may hold
// depends on what the job runs.
type resourceParser struct {
	memory *yaml.Node // nil: not given
	field  string     // memory, or resources.memory
	lines  map[string]int
}

func (p *resourceParser) fields(s *Spec) map[string]func(*yaml.Node) error {
	r := &s.Resources
	p.lines = map[string]int{}
	memory := func(field string) func(*yaml.Node) error {
		return func(n *yaml.Node) error {
			if p.memory != nil {
				return Errorf(n.Line, "the memory is here a second time; the first is on line %d", p.memory.Line)
			}
			p.memory, p.field = n, field
			return nil
		}
	}
	within := map[string]func(*yaml.Node) error{
		"cpu": func(n *yaml.Node) error {
			v, err := strconv.ParseFloat(n.Value, 64)
			if n.Kind != yaml.ScalarNode || n.Tag != "!!int" && n.Tag != "!!float" || err != nil || !(v >= MinCPU && v <= MaxCPU) {
				return Errorf(n.Line, "resources.cpu must be a number of processors from 0.01 to 1024, not %s", describe(n))
			}
			r.CPU = v
			return nil
		},
		"memory": memory("resources.memory"),
		"scratch": func(n *yaml.Node) (err error) {
			r.Scratch, err = sizeIn(n, "resources.scratch", MinScratch, MaxScratch, "1MiB to 1TiB", "10GiB")
			return err
		},
		"gpu": func(n *yaml.Node) error {
			v, err := strconv.Atoi(n.Value)
			if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil || v < 0 || v > MaxGPU {
				return Errorf(n.Line, "resources.gpu must be a number from 0 to %d, not %s", MaxGPU, describe(n))
			}
			r.GPU = v
			return nil
		},
		"gpu_memory": func(n *yaml.Node) (err error) {
			r.GPUMemory, err = sizeIn(n, "resources.gpu_memory", MinScratch, MaxGPUMemory, "1MiB to 1TiB", "16GiB")
			return err
		},
	}
	for field, set := range within {
		within[field] = func(n *yaml.Node) error {
			p.lines[field] = n.Line
			return set(n)
		}
	}
	return map[string]func(*yaml.Node) error{
		"memory": memory("memory"),
		"resources": func(n *yaml.Node) error {
			if n.Kind != yaml.MappingNode {
				return Errorf(n.Line, "resources must be a mapping such as {cpu: 2, memory: 1GiB}, not %s", describe(n))
			}
			return fields(n, within)
		},
	}
}

// check is what can be said once all fields are read.
func (p *resourceParser) check(s *Spec) (err error) {
	programs, modules := s.Map.Exec != nil, s.Map.Exec == nil
	if s.Reduce != nil {
		reduce := Inherit(*s.Reduce, s.Map)
		programs, modules = programs || reduce.Exec != nil, modules || reduce.Exec == nil
	}
	r := &s.Resources
	if !programs {
		for _, field := range []string{"cpu", "scratch", "gpu", "gpu_memory"} {
			if line := p.lines[field]; line != 0 {
				return Errorf(line, "resources.%s is for programs (exec), and this job runs none", field)
			}
		}
	} else if r.Scratch == 0 {
		r.Scratch = DefaultScratch
	}
	if r.GPUMemory > 0 && r.GPU == 0 {
		return Errorf(p.lines["gpu_memory"], "resources.gpu_memory is that of each GPU: give resources.gpu, too")
	}
	if p.memory == nil {
		return nil
	}
	least, most, limits := int64(MinMemory), int64(MaxMemory), "1MiB to 4GiB"
	switch {
	case programs && modules:
		least, limits = MinExecMemory, "32MiB to 4GiB"
	case programs:
		least, most, limits = MinExecMemory, MaxExecMemory, "32MiB to 1TiB"
	}
	s.Memory, err = sizeIn(p.memory, p.field, least, most, limits, "256MiB")
	return err
}

// Environ is the environment that exec.env becomes.
func (x *Exec) Environ() []string {
	var out []string
	for _, p := range x.Env {
		out = append(out, p.Key+"="+p.Value)
	}
	return out
}
