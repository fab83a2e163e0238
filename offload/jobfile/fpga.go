package jobfile

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// SignatureSuffix is what the name of a signature ends in: it lies beside the
// file that it is of (package sign).
const SignatureSuffix = ".sig"

// Signed says whether the file of a variant runs only if an administrator has
// signed it: bitstreams, and models, which are native code.
func Signed(runtime string) bool { return runtime == RuntimeFPGA || runtime == RuntimeRTL }

// Simulated says whether the devices of a runtime are models of devices, which a
// job has to allow.
func Simulated(runtime string) bool { return runtime == RuntimeRTL }

// RTL is the variant of a kernel that is the model of a circuit (package rtl).
//
//	rtl:
//	  file: k.so                     # made by `quern kernel build-rtl` from
//	  source: [threshold.v]          # Verilog
//	  top: threshold                 # module
//	  width: 8                       # bytes of a beat
//	  type: float                    # the input is a whole number of these
//	  clock: 250MHz                  # of the circuit
//	  bytes_per_cycle: 8             # a hint; width where there is none
//	  params: {threshold: {type: float, default: 0}}
//
// The cycles that a stream takes in the model, at this clock, are what it would
// take in the circuit.
type RTL struct {
	File          string
	Source        []string // needed only to make the file
	Top           string
	Width         int
	Type          string
	Clock         float64 // Hz
	BytesPerCycle float64
	Params        []CLParam
}

// Rate is what the circuit is promised to do, in bytes a second.
func (r *RTL) Rate() int64 { return int64(r.Clock * r.BytesPerCycle) }

const (
	maxWidth   = 64
	maxSources = 64
)

var (
	verilogName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
	frequency    = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(kHz|MHz|GHz)$`)
	frequencies  = map[string]float64{"kHz": 1e3, "MHz": 1e6, "GHz": 1e9}
	bitstreamExt = []string{".xclbin", ".aocx"}
)

// parseFPGA reads the variant for FPGAs: a bitstream, and a recipe as for
// OpenCL, or that of the opencl variant.
func parseFPGA(n *yaml.Node, opencl *OpenCL) (*OpenCL, error) {
	if err := mapping(n, "fpga", "{file: k.xclbin}"); err != nil {
		return nil, err
	}
	file := "k.xclbin"
	for i := 0; i+1 < len(n.Content); i += 2 {
		v := n.Content[i+1]
		if n.Content[i].Value != "file" || v.Kind != yaml.ScalarNode {
			continue
		}
		if strings.HasSuffix(v.Value, ".aocx") {
			file = "k.aocx"
		} else if !strings.HasSuffix(v.Value, ".xclbin") {
			return nil, Errorf(v.Line, "fpga.file must name a file that ends in %s, not %q", strings.Join(bitstreamExt, " or "), shorten(v.Value))
		}
	}
	return sharedRecipe(n, "fpga", file, opencl)
}

func parseRTL(n *yaml.Node) (*RTL, error) {
	if err := mapping(n, "rtl", "{source: [k.v], top: k, width: 8, clock: 250MHz}"); err != nil {
		return nil, err
	}
	r := &RTL{File: "k.so", Type: "uchar"}
	p := &clParser{name: "rtl", cl: &OpenCL{}, params: map[string]bool{}}
	err := fields(n, map[string]func(*yaml.Node) error{
		"file": func(n *yaml.Node) (err error) {
			r.File, err = bundleFile(n, "rtl.file", ".so")
			return err
		},
		"source": func(n *yaml.Node) (err error) {
			r.Source, err = sources(n)
			return err
		},
		"top": func(n *yaml.Node) (err error) {
			if r.Top, err = text(n, "rtl.top"); err == nil && !verilogName.MatchString(r.Top) {
				err = Errorf(n.Line, "rtl.top must be the name of a module, not %q", shorten(r.Top))
			}
			return err
		},
		"width": func(n *yaml.Node) (err error) {
			r.Width, err = whole(n, "rtl.width", 1, maxWidth)
			return err
		},
		"type": func(n *yaml.Node) error { return oneOf(n, "rtl.type", &r.Type, "uchar", "int", "uint", "float") },
		"clock": func(n *yaml.Node) error {
			m := frequency.FindStringSubmatch(n.Value)
			if n.Kind != yaml.ScalarNode || m == nil {
				return Errorf(n.Line, "rtl.clock must be a frequency such as 250MHz, not %s", describe(n))
			}
			v, err := strconv.ParseFloat(m[1], 64)
			if r.Clock = v * frequencies[m[2]]; err != nil || r.Clock < 1e3 || r.Clock > 1e11 {
				return Errorf(n.Line, "rtl.clock must be from 1kHz to 100GHz, not %s", describe(n))
			}
			return nil
		},
		"bytes_per_cycle": func(n *yaml.Node) error {
			v, err := strconv.ParseFloat(n.Value, 64)
			if n.Kind != yaml.ScalarNode || err != nil || math.IsNaN(v) || v < 1e-6 || v > maxWidth {
				return Errorf(n.Line, "rtl.bytes_per_cycle must be a number up to %d, not %s", maxWidth, describe(n))
			}
			r.BytesPerCycle = v
			return nil
		},
		"params": p.parseParams,
	})
	switch {
	case err != nil:
		return nil, err
	case r.Width == 0:
		return nil, Errorf(n.Line, "rtl needs \"width:\", the bytes of a beat")
	case r.Clock == 0:
		return nil, Errorf(n.Line, "rtl needs \"clock:\", such as 250MHz: what a cycle takes")
	case (r.Top == "") != (r.Source == nil):
		return nil, Errorf(n.Line, "rtl needs source and top together, or neither where the file is made elsewhere")
	}
	r.Params = p.cl.Params
	if r.BytesPerCycle == 0 {
		r.BytesPerCycle = float64(r.Width)
	}
	return r, nil
}

// sources reads names of files of Verilog.
func sources(n *yaml.Node) ([]string, error) {
	list, err := texts(n, "rtl.source", maxSources)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, c := range list {
		s, err := text(c, "rtl.source")
		if err != nil {
			return nil, err
		}
		switch {
		case !strings.HasSuffix(s, ".v") && !strings.HasSuffix(s, ".sv") || strings.HasPrefix(s, "-"):
			return nil, Errorf(c.Line, "rtl.source names files that end in .v or .sv, not %q", shorten(s))
		case slices.Contains(out, s):
			return nil, Errorf(c.Line, "rtl.source names %q twice", shorten(s))
		}
		if err := fileName(c.Line, "rtl.source", s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	if out == nil {
		return nil, Errorf(n.Line, "rtl.source is empty; name a file, or leave the field out")
	}
	return out, nil
}
