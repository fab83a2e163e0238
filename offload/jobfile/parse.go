package jobfile

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

var (
	kernelName    = regexp.MustCompile(`^(~([a-z0-9_][A-Za-z0-9._-]{0,31})?/)?[a-z0-9][a-z0-9._-]{0,63}$`)
	kernelVersion = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	paramName     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
	byteSize      = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)?$`)
	units         = map[string]float64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "TB": 1e12, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9}
)

// Parse reads and checks a job file. Its error is an *Error.
func Parse(data []byte) (*Spec, error) {
	root, err := document(data, "a job file")
	if err != nil {
		return nil, err
	}
	return parse(root, nil)
}

// parse reads a job file. of is nil, or says why a template lacks version, name
// and inputs, which are not given in it.
func parse(root *yaml.Node, of error) (*Spec, error) {
	s := &Spec{
		Split:   SplitFile,
		Header:  -1,
		Output:  DefaultOutput,
		Timeout: DefaultTimeout,
		Retries: DefaultRetries,
		Memory:  DefaultMemory,

		LogLimit: DefaultLogLimit,
	}
	version := false
	known := stepFields(&s.Map, "")
	maps.Copy(known, splitFields(s))
	maps.Copy(known, lifeFields(s))
	maps.Copy(known, endFields(s))
	maps.Copy(known, failureFields(s))
	maps.Copy(known, placementFields(s))
	known["version"] = func(n *yaml.Node) error {
		version = true
		return versionOne(n)
	}
	known["name"] = func(n *yaml.Node) (err error) {
		s.NameLine = n.Line
		if s.Name, err = text(n, "name"); err != nil {
			return err
		}
		return fileName(n.Line, "name", s.Name)
	}
	known["inputs"] = func(n *yaml.Node) (err error) {
		s.Inputs, err = inputs(n)
		return err
	}
	known["reduce"] = func(n *yaml.Node) error {
		if n.Kind != yaml.MappingNode {
			return Errorf(n.Line, "reduce must be a mapping such as {kernel: wordcount}, not %s", describe(n))
		}
		s.Reduce = new(Step)
		if err := fields(n, stepFields(s.Reduce, "reduce.")); err != nil {
			return err
		}
		return s.Reduce.check("reduce ")
	}
	known["timeout"] = func(n *yaml.Node) (err error) {
		s.Timeout, err = duration(n, "timeout")
		return err
	}
	known["retries"] = func(n *yaml.Node) error {
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil || v < 0 || v > MaxRetries {
			return Errorf(n.Line, "retries must be a number from 0 to %d, not %s", MaxRetries, describe(n))
		}
		s.Retries = v
		return nil
	}
	known["runtime"] = func(n *yaml.Node) (err error) {
		s.RuntimeLine = n.Line
		s.Runtime, err = runtimes(n)
		return err
	}
	known["speculation"] = func(n *yaml.Node) error {
		allowed, err := truth(n, "speculation")
		s.NoSpeculation = err == nil && !allowed
		return err
	}
	if of != nil {
		for _, field := range []string{"version", "name", "inputs"} {
			known[field] = func(n *yaml.Node) error { return Errorf(n.Line, "%s is not given here: %v", field, of) }
		}
	}
	var resources resourceParser
	maps.Copy(known, resources.fields(s))
	if err := fields(root, known); err != nil {
		return nil, err
	}
	if !version && of == nil {
		return nil, Errorf(root.Line, "a job file begins with \"version: 1\"")
	}
	if err := s.Map.check(""); err != nil {
		return nil, err
	}
	if s.Map.KernelLine == 0 {
		return nil, Errorf(0, "the job names no kernel: give \"kernel: NAME\", \"wasm: /PATH\" or \"exec: {argv: [PROGRAM, …]}\"")
	}
	if len(s.Inputs) == 0 && s.Array == 0 && of == nil {
		return nil, Errorf(0, "the job has no inputs: give \"inputs:\" and a list of paths")
	}
	if err := s.checkCombine(); err != nil {
		return nil, err
	}
	if err := s.checkFailure(); err != nil {
		return nil, err
	}
	if err := s.checkLife(); err != nil {
		return nil, err
	}
	if err := resources.check(s); err != nil {
		return nil, err
	}
	return s, nil
}

// Lines returns the line of err, and its text without it.
func Lines(err error) (line int, text string) {
	var e *Error
	if errors.As(err, &e) {
		return e.Line, e.Text
	}
	return 0, err.Error()
}

// stepFields are the fields that the map and the reduce step share.
func stepFields(s *Step, prefix string) map[string]func(*yaml.Node) error {
	return map[string]func(*yaml.Node) error{
		"kernel": func(n *yaml.Node) (err error) {
			if s.Kernel, err = text(n, prefix+"kernel"); err != nil {
				return err
			}
			s.KernelLine = max(s.KernelLine, n.Line)
			name, version, pinned := strings.Cut(s.Kernel, "@")
			if !kernelName.MatchString(name) || pinned && !kernelVersion.MatchString(version) {
				return Errorf(n.Line, "%skernel must be NAME or NAME@VERSION, or ~/NAME, one of your own, not %q", prefix, shorten(s.Kernel))
			}
			return nil
		},
		"wasm": func(n *yaml.Node) (err error) {
			if s.Wasm, err = text(n, prefix+"wasm"); err != nil {
				return err
			}
			s.KernelLine = max(s.KernelLine, n.Line)
			s.Wasm, err = absolute(n.Line, prefix+"wasm", s.Wasm)
			return err
		},
		"exec": func(n *yaml.Node) (err error) {
			s.KernelLine = max(s.KernelLine, n.Line)
			s.Exec, err = parseExec(n, prefix+"exec")
			return err
		},
		"args": func(n *yaml.Node) error {
			list, err := texts(n, prefix+"args", MaxArgs)
			if err != nil {
				return err
			}
			for _, c := range list {
				s.Args = append(s.Args, c.Value)
			}
			return nil
		},
		"params": func(n *yaml.Node) (err error) {
			s.Params, err = params(n, prefix+"params")
			return err
		},
	}
}

// check is what can be said of a step once all its fields are read.
func (s *Step) check(of string) error {
	if s.Kernel != "" && s.Wasm != "" {
		return Errorf(s.KernelLine, "%skernel and wasm are both given; keep one", of)
	}
	if s.Exec != nil && s.Kernel+s.Wasm != "" {
		return Errorf(s.KernelLine, "%sexec and a kernel are both given; keep one", of)
	}
	if s.Exec != nil && len(s.Args) > 0 {
		return Errorf(s.KernelLine, "%sargs are a kernel's; put the arguments of a program into exec.argv", of)
	}
	return nil
}

func params(n *yaml.Node, field string) ([]Param, error) {
	if n.Kind != yaml.MappingNode {
		return nil, Errorf(n.Line, "%s must be a mapping such as {top: 20}, not %s", field, describe(n))
	}
	if len(n.Content)/2 > MaxParams {
		return nil, Errorf(n.Line, "%s has %d entries; at most %d are allowed", field, len(n.Content)/2, MaxParams)
	}
	var out []Param
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || !paramName.MatchString(k.Value) {
			return nil, Errorf(k.Line, "a name in %s is made of letters, digits and _, not %s", field, describe(k))
		}
		upper := strings.ToUpper(k.Value)
		if seen[upper] {
			return nil, Errorf(k.Line, "%s has %q twice", field, k.Value)
		}
		if reserved[upper] {
			if upper == "HEADER" {
				return nil, Errorf(k.Line, "header is a field of the job file itself, not one of %s", field)
			}
			return nil, Errorf(k.Line, "the name %q in %s is taken: the agent itself sets QUERN_%s", k.Value, field, upper)
		}
		seen[upper] = true
		value, err := text(v, field+"."+k.Value)
		if err != nil {
			return nil, err
		}
		out = append(out, Param{k.Value, value})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out, nil
}

// reserved are the variables that every task gets (see docs/compute.md).
var reserved = map[string]bool{"HEADER": true, "JOB": true, "TASK": true, "PHASE": true, "ATTEMPT": true, "RANGES": true}

func inputs(n *yaml.Node) ([]Input, error) { return patterns(n, "inputs") }

// patterns reads a path or pattern of the mount, or a list of them.
func patterns(n *yaml.Node, field string) ([]Input, error) {
	what := "a path of " + field
	if field == "inputs" {
		what = "an input"
	}
	nodes := []*yaml.Node{n}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		var err error
		if nodes, err = texts(n, field, MaxInputs); err != nil {
			return nil, err
		}
	}
	if len(nodes) == 0 {
		return nil, Errorf(n.Line, "%s must name at least one path", field)
	}
	var out []Input
	for _, c := range nodes {
		p, err := absolute(c.Line, what, c.Value)
		if err != nil {
			return nil, err
		}
		if err := CheckPattern(p); err != nil {
			return nil, Errorf(c.Line, "%s %q: %v", strings.TrimPrefix(what, "an "), shorten(p), err)
		}
		in := Input{Pattern: p, Line: c.Line}
		if above, _, found := strings.Cut(c.Value, "/./"); found && field == "inputs" {
			in.Marked, in.Above = true, strings.Count(strings.TrimSuffix(path.Clean("/"+above), "/"), "/")
			if strings.Contains(above, "**") {
				return nil, Errorf(c.Line, "an input has \"/./\", where the tree begins, after a **, which is any number of directories")
			}
		}
		out = append(out, in)
	}
	return out, nil
}

// absolute checks and cleans a path of the mount.
func absolute(line int, field, p string) (string, error) {
	switch {
	case p == "":
		return "", Errorf(line, "%s is empty", field)
	case len(p) > 4096:
		return "", Errorf(line, "%s is longer than 4096 bytes", field)
	case p[0] != '/':
		return "", Errorf(line, "%s must begin with \"/\", the root of the mount; %q does not", field, shorten(p))
	}
	for _, c := range strings.Split(p, "/") {
		if c == ".." {
			return "", Errorf(line, "%s must not contain \"..\"", field)
		}
	}
	return path.Clean(p), nil
}

// fileName checks a value that becomes the name of a directory entry.
func fileName(line int, field, s string) error {
	switch {
	case s == "" || s == "." || s == "..":
		return Errorf(line, "%s must not be %q", field, s)
	case len(s) > 200:
		return Errorf(line, "%s is longer than 200 bytes", field)
	case strings.ContainsAny(s, "/\n\r\t"):
		return Errorf(line, "%s must be a plain file name, not %q", field, shorten(s))
	}
	return nil
}

func duration(n *yaml.Node, field string) (time.Duration, error) {
	bad := func() (time.Duration, error) {
		return 0, Errorf(n.Line, "%s must be a duration from 1s to 24h such as 90s or 10m, not %s", field, describe(n))
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return bad()
	}
	d, err := time.ParseDuration(n.Value)
	if err != nil || d < time.Second || d > MaxTimeout {
		return bad()
	}
	return d, nil
}

// sizeIn reads a size in bytes; limits says in words from where to where.
func sizeIn(n *yaml.Node, field string, least, most int64, limits, example string) (int64, error) {
	bad := func() (int64, error) {
		return 0, Errorf(n.Line, "%s must be a size from %s such as %s, not %s", field, limits, example, describe(n))
	}
	if n.Kind != yaml.ScalarNode {
		return bad()
	}
	m := byteSize.FindStringSubmatch(n.Value)
	if m == nil {
		return bad()
	}
	v, err := strconv.ParseFloat(m[1], 64)
	v *= units[m[2]]
	if err != nil || math.IsNaN(v) || v < float64(least) || v > float64(most) {
		return bad()
	}
	return int64(v), nil
}

// Env is the environment that params become.
func (s *Step) Env() []string {
	var out []string
	for _, p := range s.Params {
		out = append(out, fmt.Sprintf("QUERN_%s=%s", strings.ToUpper(p.Key), p.Value))
	}
	return out
}

// Inherit returns the reduce step r of a map step m: without a module of its
// own it runs that of the map, with the same arguments and parameters unless it
// has others.
func Inherit(r, m Step) Step {
	if r.Kernel == "" && r.Wasm == "" && r.Exec == nil {
		r.Kernel, r.Wasm, r.Exec, r.KernelLine = m.Kernel, m.Wasm, m.Exec, m.KernelLine
		if r.Args == nil {
			r.Args = m.Args
		}
		if r.Params == nil {
			r.Params = m.Params
		}
	}
	return r
}
