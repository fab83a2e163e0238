package jobfile

import (
	"slices"
	"strings"
	"testing"
)

const rtlManifest = `version: 1
rtl:
  source: [a.v, b.sv]
  top: filter
  width: 8
  type: float
  clock: 250MHz
  params: {limit: {type: int, default: -1}, scale: {}}
`

func TestRTL(t *testing.T) {
	k, err := ParseKernel([]byte(rtlManifest))
	if err != nil {
		t.Fatal(err)
	}
	r := k.RTL
	if r.File != "k.so" || !slices.Equal(r.Source, []string{"a.v", "b.sv"}) || r.Top != "filter" || r.Width != 8 || r.Type != "float" || r.Clock != 250e6 || r.Rate() != 2e9 {
		t.Errorf("%+v", r)
	}
	if len(r.Params) != 2 || r.Params[0] != (CLParam{"limit", "int", "-1"}) || r.Params[1] != (CLParam{"scale", "float", "0"}) {
		t.Errorf("%+v", r.Params)
	}
	if !slices.Equal(k.Runtimes(), []string{"rtl"}) || !slices.Equal(k.Files(), []string{"k.so", "k.so.sig"}) || k.DeviceFile("rtl") != "k.so" {
		t.Errorf("%q, %q", k.Runtimes(), k.Files())
	}
	// The model says how fast the circuit is, unless the manifest does.
	const fpga = "fpga: {file: b.aocx, input: [{stream: in}], run: [{entry: f, args: [in], global: [1]}], output: {raw: in}}\n"
	for more, want := range map[string]int64{"": 2e9, "rate: {fpga: 1GB}\n": 1e9} {
		k, err := ParseKernel([]byte(rtlManifest + fpga + more))
		if err != nil || k.Rate["fpga"] != want || k.Rate["rtl"] != 0 {
			t.Errorf("%q: %v, %v", more, k, err)
		}
	}
	half := strings.Replace(rtlManifest, "clock:", "bytes_per_cycle: 0.5\n  clock:", 1)
	if k, err := ParseKernel([]byte(half)); err != nil || k.RTL.Rate() != 125e6 {
		t.Errorf("%v, %v", k, err)
	}
	made := "version: 1\nrtl: {file: elsewhere.so, width: 1, clock: 1.5 kHz}\n"
	if k, err := ParseKernel([]byte(made)); err != nil || k.RTL.Type != "uchar" || k.RTL.Rate() != 1500 || k.RTL.Source != nil {
		t.Errorf("%v, %v", k, err)
	}
}

func TestFPGA(t *testing.T) {
	shared := "version: 1\nopencl: {input: [{stream: in}], run: [{entry: f, args: [in], global: [1]}], output: {raw: in}}\n"
	for more, want := range map[string]string{"fpga: {}\n": "k.xclbin", "fpga: {file: u250.xclbin}\n": "u250.xclbin", "fpga: {file: a10.aocx}\n": "a10.aocx"} {
		k, err := ParseKernel([]byte(shared + more))
		if err != nil {
			t.Errorf("%s: %v", more, err)
			continue
		}
		if k.FPGA.File != want || k.OpenCL.File != "k.cl" || len(k.FPGA.Run) != 1 || k.Recipe("fpga") != k.FPGA {
			t.Errorf("%s: %+v", more, k.FPGA)
		}
		if !slices.Equal(k.Runtimes(), []string{"opencl", "fpga"}) || !slices.Contains(k.Files(), want+".sig") || slices.Contains(k.Files(), "k.cl.sig") {
			t.Errorf("%q, %q", k.Runtimes(), k.Files())
		}
	}
}

func TestBadFPGA(t *testing.T) {
	for text, want := range map[string]string{
		"fpga: {file: k.bit}":                  `line 2: fpga.file must name a file that ends in .xclbin or .aocx, not "k.bit"`,
		"fpga: {file: a/k.xclbin}":             "line 2: fpga.file must be a plain file name",
		"fpga: {}":                             `line 2: fpga needs "input:"`,
		"fpga: []":                             "line 2: fpga must be a mapping",
		"rtl: 1":                               "line 2: rtl must be a mapping",
		"rtl: {}":                              `line 2: rtl needs "width:"`,
		"rtl: {width: 8}":                      `line 2: rtl needs "clock:"`,
		"rtl: {width: 65}":                     "line 2: rtl.width must be a number from 1 to 64",
		"rtl: {width: 8, clock: fast}":         "line 2: rtl.clock must be a frequency such as 250MHz",
		"rtl: {width: 8, clock: 0.5kHz}":       "line 2: rtl.clock must be from 1kHz",
		"rtl: {width: 8, clock: 1MHz, top: a}": "line 2: rtl needs source and top together",
		"rtl: {width: 8, clock: 1MHz, source: [a.v]}":         "line 2: rtl needs source and top together",
		"rtl: {width: 8, clock: 1MHz, top: a b, source: [a]}": "line 2: rtl.top must be the name of a module",
		"rtl: {source: []}":                  "line 2: rtl.source is empty",
		"rtl: {source: [a.cpp]}":             `line 2: rtl.source names files that end in .v or .sv, not "a.cpp"`,
		"rtl: {source: [-f.v]}":              "line 2: rtl.source names files",
		"rtl: {source: [x/a.v]}":             "line 2: rtl.source must be a plain file name",
		"rtl: {source: [a.v, a.v]}":          `line 2: rtl.source names "a.v" twice`,
		"rtl: {file: k.dll}":                 "line 2: rtl.file must name a file that ends in .so",
		"rtl: {type: double}":                "line 2: rtl.type must be one of uchar, int, uint, float",
		"rtl: {bytes_per_cycle: 0}":          "line 2: rtl.bytes_per_cycle must be a number up to 64",
		"rtl: {bytes_per_cycle: x}":          "line 2: rtl.bytes_per_cycle must be a number up to 64",
		"rtl: {params: {x: {type: double}}}": "line 2: type of a param must be one of",
		"rtl: {params: [x]}":                 "line 2: rtl.params must be a mapping",
		"rtl: {widht: 8}":                    `line 2: unknown field "widht"; did you mean "width"?`,
		"rate: {rtl: 1MB}":                   "line 2: rate.rtl is given, but the kernel has no such variant",
	} {
		_, err := ParseKernel([]byte("version: 1\n" + text + "\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
}
