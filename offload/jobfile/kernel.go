package jobfile

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// The runtimes that a kernel may have a variant for.
const (
	RuntimeWasm   = "wasm"
	RuntimeOpenCL = "opencl"
	RuntimeCUDA   = "cuda"
	RuntimeONNX   = "onnx"
	RuntimeFPGA   = "fpga" // bitstreams
	RuntimeRTL    = "rtl"  // models of circuits, on simulated devices
)

// Runtimes are all that a kernel may have a variant for, in the order in which a
// job that names none prefers them.
var Runtimes = []string{RuntimeWasm, RuntimeOpenCL, RuntimeCUDA, RuntimeONNX, RuntimeFPGA, RuntimeRTL}

// Kernel is a kernel's manifest, kernel.yaml:
//
//	version: 1
//	about: one line for people
//	wasm: k.wasm                 # a file beside the manifest; the default where there is no other variant
//	args: [count]                # of the module, put before the job's own
//	opencl: {…}                  # see OpenCL
//	cuda: {file: k.ptx}          # with the recipe of opencl, or one of its own
//	onnx: {…}                    # see ONNX
//	fpga: {file: k.xclbin}       # with the recipe of opencl, or one of its own
//	rtl: {…}                     # see RTL
//	rate: {wasm: 200MB, opencl: 2GB}          # bytes a second, a hint for placement
//	compare: {as: bytes}                      # how results of variants are compared; see Compare
//	test: {input: in.bin, output: out.bin, params: {}}   # see Trial
//	splits: [file, none]         # the only ones that make sense; none given: all
//	header: 1                    # lines; see Spec.Header
type Kernel struct {
	About   string
	Wasm    string // "": it has no such variant
	Args    []string
	OpenCL  *OpenCL          // nil: it has no such variant
	CUDA    *OpenCL          // nil: it has no such variant; the file is PTX, with local sizes in every pass
	ONNX    *ONNX            // nil: it has no such variant
	FPGA    *OpenCL          // nil: it has no such variant; the file is a bitstream
	RTL     *RTL             // nil: it has no such variant
	Rate    map[string]int64 // by runtime: bytes a second
	Compare Compare
	Test    *Trial  // nil: none
	Splits  []Split // nil: all
	Header  int     // lines at the beginning of a file that are its header
}

// Compare says when two results are the same.
type Compare struct {
	// As is "bytes", "float32" (little-endian numbers) or "array" (files of the
	// kind that package kernels describes).
	As string
	// Tolerance is how far two floats may differ, relative to the larger of their
	// magnitude and 1.
	Tolerance float64
}

// Trial is a run with a known result. Without an output the wasm variant gives
// it.
type Trial struct {
	Input  string // a file beside the manifest
	Output string // the same, or ""
	Params []Param
}

// Runtimes are those that the kernel has a variant for, in the order in which a
// job that names none prefers them.
func (k *Kernel) Runtimes() []string {
	return slices.DeleteFunc(slices.Clone(Runtimes), func(r string) bool { return k.file(r) == "" })
}

// file is that of the variant for a runtime.
func (k *Kernel) file(runtime string) string {
	if runtime == RuntimeWasm {
		return k.Wasm
	}
	return k.DeviceFile(runtime)
}

// DeviceFile is the file of the variant for a runtime that needs a device; "": the
// kernel has none.
func (k *Kernel) DeviceFile(runtime string) string {
	switch {
	case k.Recipe(runtime) != nil:
		return k.Recipe(runtime).File
	case runtime == RuntimeONNX && k.ONNX != nil:
		return k.ONNX.File
	case runtime == RuntimeRTL && k.RTL != nil:
		return k.RTL.File
	}
	return ""
}

// Recipe is that of the variant for a runtime; nil: there is none, or the
// runtime has no recipes.
func (k *Kernel) Recipe(runtime string) *OpenCL {
	switch runtime {
	case RuntimeOpenCL:
		return k.OpenCL
	case RuntimeCUDA:
		return k.CUDA
	case RuntimeFPGA:
		return k.FPGA
	}
	return nil
}

// Files are the files beside the manifest that it names, each once, and the
// signatures of those that need one.
func (k *Kernel) Files() []string {
	var names []string
	for _, r := range k.Runtimes() {
		names = append(names, k.file(r))
		if Signed(r) {
			names = append(names, k.file(r)+SignatureSuffix)
		}
	}
	if k.Test != nil {
		names = append(names, k.Test.Input, k.Test.Output)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(s string) bool { return s == "" })
}

// ParseKernel reads and checks a manifest. Its error is an *Error.
func ParseKernel(data []byte) (*Kernel, error) {
	root, err := document(data, "a kernel's manifest")
	if err != nil {
		return nil, err
	}
	k := &Kernel{Compare: Compare{As: "bytes"}}
	version := false
	rateLines := map[string]int{}
	var cuda, fpga *yaml.Node // after opencl, whose recipe they may share
	err = fields(root, map[string]func(*yaml.Node) error{
		"version": func(n *yaml.Node) error {
			version = true
			return versionOne(n)
		},
		"about": func(n *yaml.Node) (err error) {
			k.About, err = text(n, "about")
			return err
		},
		"wasm": func(n *yaml.Node) (err error) {
			k.Wasm, err = bundleFile(n, "wasm", ".wasm")
			return err
		},
		"args": func(n *yaml.Node) (err error) {
			k.Args, err = words(n, "args", MaxArgs)
			return err
		},
		"opencl": func(n *yaml.Node) (err error) {
			k.OpenCL, err = parseOpenCL(n)
			return err
		},
		"cuda": func(n *yaml.Node) error {
			cuda = n
			return nil
		},
		"fpga": func(n *yaml.Node) error {
			fpga = n
			return nil
		},
		"rtl": func(n *yaml.Node) (err error) {
			k.RTL, err = parseRTL(n)
			return err
		},
		"onnx": func(n *yaml.Node) (err error) {
			k.ONNX, err = parseONNX(n)
			return err
		},
		"rate": func(n *yaml.Node) (err error) {
			k.Rate, err = rates(n, rateLines)
			return err
		},
		"compare": func(n *yaml.Node) (err error) {
			k.Compare, err = parseCompare(n)
			return err
		},
		"test": func(n *yaml.Node) (err error) {
			k.Test, err = parseTrial(n)
			return err
		},
		"splits": func(n *yaml.Node) (err error) {
			k.Splits, err = parseSplits(n)
			return err
		},
		"header": func(n *yaml.Node) (err error) {
			k.Header, err = whole(n, "header", 0, MaxHeader)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	if !version {
		return nil, Errorf(root.Line, "a kernel's manifest begins with \"version: 1\"")
	}
	if cuda != nil {
		if k.CUDA, err = parseCUDA(cuda, k.OpenCL); err != nil {
			return nil, err
		}
	}
	if fpga != nil {
		if k.FPGA, err = parseFPGA(fpga, k.OpenCL); err != nil {
			return nil, err
		}
	}
	if len(k.Runtimes()) == 0 {
		k.Wasm = "k.wasm"
	}
	for r, line := range rateLines {
		if !slices.Contains(k.Runtimes(), r) {
			return nil, Errorf(line, "rate.%s is given, but the kernel has no such variant", r)
		}
	}
	if k.FPGA != nil && k.RTL != nil && k.Rate[RuntimeFPGA] == 0 {
		if k.Rate == nil {
			k.Rate = map[string]int64{}
		}
		k.Rate[RuntimeFPGA] = k.RTL.Rate() // the circuit is the same
	}
	if k.Test != nil && k.Test.Output == "" && k.Wasm == "" {
		return nil, Errorf(root.Line, "test needs an output: the kernel has no wasm variant that could give it")
	}
	return k, nil
}

func versionOne(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Value != "1" {
		return Errorf(n.Line, "version must be 1, not %s", describe(n))
	}
	return nil
}

// bundleFile reads the name of a file beside the manifest.
func bundleFile(n *yaml.Node, field, suffix string) (string, error) {
	s, err := text(n, field)
	if err != nil {
		return "", err
	}
	if !strings.HasSuffix(s, suffix) {
		return "", Errorf(n.Line, "%s must name a file that ends in %s, not %q", field, suffix, shorten(s))
	}
	return s, fileName(n.Line, field, s)
}

// words reads a list of strings.
func words(n *yaml.Node, field string, most int) ([]string, error) {
	list, err := texts(n, field, most)
	var out []string
	for _, c := range list {
		out = append(out, c.Value)
	}
	return out, err
}

// mapping checks that n is one.
func mapping(n *yaml.Node, field, example string) error {
	if n.Kind != yaml.MappingNode {
		return Errorf(n.Line, "%s must be a mapping such as %s, not %s", field, example, describe(n))
	}
	return nil
}

func rates(n *yaml.Node, lines map[string]int) (map[string]int64, error) {
	if err := mapping(n, "rate", "{wasm: 200MB}"); err != nil {
		return nil, err
	}
	out := map[string]int64{}
	known := map[string]func(*yaml.Node) error{}
	for _, r := range Runtimes {
		known[r] = func(n *yaml.Node) error {
			lines[r] = n.Line
			s, err := text(n, "rate."+r)
			if err != nil {
				return err
			}
			m := byteSize.FindStringSubmatch(s)
			var v float64
			if m != nil {
				v, err = strconv.ParseFloat(m[1], 64)
				v *= units[m[2]]
			}
			if m == nil || err != nil || v < 1 || v > 1e15 {
				return Errorf(n.Line, "rate.%s must be bytes a second such as 200MB, not %s", r, describe(n))
			}
			out[r] = int64(v)
			return nil
		}
	}
	return out, fields(n, known)
}

func parseCompare(n *yaml.Node) (Compare, error) {
	c := Compare{As: "bytes"}
	if err := mapping(n, "compare", "{as: float32, tolerance: 1e-5}"); err != nil {
		return c, err
	}
	err := fields(n, map[string]func(*yaml.Node) error{
		"as": func(n *yaml.Node) (err error) {
			if c.As, err = text(n, "compare.as"); err != nil {
				return err
			}
			if c.As != "bytes" && c.As != "float32" && c.As != "array" {
				return Errorf(n.Line, "compare.as must be \"bytes\", \"float32\" or \"array\", not %q", shorten(c.As))
			}
			return nil
		},
		"tolerance": func(n *yaml.Node) error {
			v, err := strconv.ParseFloat(n.Value, 64)
			if n.Kind != yaml.ScalarNode || err != nil || math.IsNaN(v) || v < 0 || v > 1 {
				return Errorf(n.Line, "compare.tolerance must be a number from 0 to 1, not %s", describe(n))
			}
			c.Tolerance = v
			return nil
		},
	})
	if err == nil && c.As == "bytes" && c.Tolerance != 0 {
		err = Errorf(n.Line, "compare.tolerance is for float32 and array; bytes are the same or not")
	}
	return c, err
}

func parseTrial(n *yaml.Node) (*Trial, error) {
	if err := mapping(n, "test", "{input: in.bin}"); err != nil {
		return nil, err
	}
	t := new(Trial)
	err := fields(n, map[string]func(*yaml.Node) error{
		"input": func(n *yaml.Node) (err error) {
			t.Input, err = bundleFile(n, "test.input", "")
			return err
		},
		"output": func(n *yaml.Node) (err error) {
			t.Output, err = bundleFile(n, "test.output", "")
			return err
		},
		"params": func(n *yaml.Node) (err error) {
			t.Params, err = params(n, "test.params")
			return err
		},
	})
	if err == nil && t.Input == "" {
		err = Errorf(n.Line, "test needs an input: a file beside the manifest")
	}
	return t, err
}

// runtimes reads the runtime field of a job file: a name or a list of them.
func runtimes(n *yaml.Node) ([]string, error) {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	var out []string
	for _, c := range nodes {
		var r string
		if err := oneOf(c, "runtime", &r, Runtimes...); err != nil {
			return nil, err
		}
		if slices.Contains(out, r) {
			return nil, Errorf(c.Line, "runtime names %q twice", r)
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, Errorf(n.Line, "runtime is empty; name one, or leave the field out")
	}
	return out, nil
}
