package jobfile

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const goodKernel = `version: 1
about: test
wasm: k.wasm
args: [filter]
rate: {wasm: 100MB, opencl: 2GB}
compare: {as: float32, tolerance: 1e-5}
test: {input: in.bin, output: out.bin, params: {threshold: 2}}
opencl:
  file: k.cl
  params:
    threshold: {type: float, default: 0.5}
  input:
    - {array: a}
    - {stream: in, type: float, chunk: 1024}
  buffers:
    out: {type: float, count: in.n}
    sums: {type: uint, count: a.rows * 2, sum: true}
  equal: [[a.rows, 4]]
  run:
    - {entry: filter, args: [a, in, out, sums, in.n, param.threshold], global: [in.n], local: [64]}
  output: {raw: out}
`

func TestParseKernelVariants(t *testing.T) {
	k, err := ParseKernel([]byte(goodKernel))
	if err != nil {
		t.Fatal(err)
	}
	if got := k.Runtimes(); !slices.Equal(got, []string{"wasm", "opencl"}) {
		t.Errorf("runtimes %v", got)
	}
	if got := k.Files(); !slices.Equal(got, []string{"in.bin", "k.cl", "k.wasm", "out.bin"}) {
		t.Errorf("files %v", got)
	}
	if k.Rate["opencl"] != 2e9 || k.Compare != (Compare{"float32", 1e-5}) || k.Test.Output != "out.bin" || len(k.Test.Params) != 1 {
		t.Errorf("%+v", k)
	}
	cl := k.OpenCL
	if len(cl.Input) != 2 || cl.Input[1] != (CLInput{"in", true, "float", 1024}) || len(cl.Buffers) != 2 || !cl.Buffers[1].Sum ||
		len(cl.Run) != 1 || len(cl.Run[0].Args) != 6 || cl.Output.Form != "raw" || cl.Params[0] != (CLParam{"threshold", "float", "0.5"}) {
		t.Errorf("%+v", cl)
	}
	// Fields in another order mean the same.
	parts := strings.SplitAfter(goodKernel, "opencl:\n")
	moved := parts[0] + "  output: {raw: out}\n" + strings.Replace(parts[1], "  output: {raw: out}\n", "", 1)
	if again, err := ParseKernel([]byte(moved)); err != nil || !reflect.DeepEqual(again, k) {
		t.Errorf("the output before what it names: %v", err)
	}
	only := goodKernel[strings.Index(goodKernel, "\nopencl:")+1:]
	if k, err := ParseKernel([]byte("version: 1\n" + only)); err != nil || k.Wasm != "" || !slices.Equal(k.Runtimes(), []string{"opencl"}) {
		t.Errorf("a kernel without wasm: %+v, %v", k, err)
	}
}

// TestParseKernelErrors changes one thing of a good manifest, and wants one
// sentence with the line.
func TestParseKernelErrors(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"version: 1", "version: 2", "line 1: version must be 1"},
		{"about: test", "abuot: test", `line 2: unknown field "abuot"; did you mean "about"?`},
		{"wasm: k.wasm", "wasm: k.so", "line 3: wasm must name a file that ends in .wasm"},
		{"wasm: k.wasm", "wasm: a/k.wasm", "line 3: wasm must be a plain file name"},
		{"args: [filter]", "args: filter", "line 4: args must be a list"},
		{"wasm: 100MB", "wasm: fast", "line 5: rate.wasm must be bytes a second"},
		{"wasm: 100MB", "tpu: 100MB", `line 5: unknown field "tpu"`},
		{"as: float32", "as: float64", `line 6: compare.as must be`},
		{"as: float32", "as: bytes", "line 6: compare.tolerance is for"},
		{"1e-5", "2", "line 6: compare.tolerance must be a number from 0 to 1"},
		{"1e-5", "nan", "line 6: compare.tolerance must be"},
		{"input: in.bin, ", "", "line 7: test needs an input"},
		{"input: in.bin", "input: ../in.bin", "line 7: test.input must be a plain file name"},
		{"{threshold: 2}", "{job: 2}", "line 7: the name \"job\" in test.params is taken"},
		{"file: k.cl", "file: k.c", "line 9: opencl.file must name a file that ends in .cl"},
		{"file: k.cl", "fil: k.cl", `line 9: unknown field "fil"; did you mean "file"?`},
		{"type: float, default: 0.5", "type: double, default: 0.5", "line 11: type of a param must be one of float, int, uint"},
		{"default: 0.5", "default: half", "line 11: opencl.params.threshold: threshold must be a number"},
		{"threshold: {type", "Threshold: {type", "line 11: a name in opencl.params is made of small letters"},
		{"    - {array: a}\n", "    - {array: a, type: int}\n", "line 13: an array has no type here"},
		{"    - {array: a}\n", "    - {array: a, stream: b}\n", "line 13: an entry of opencl.input is either"},
		{"    - {array: a}\n", "    - {stream: a}\n", "line 14: nothing comes after a stream"},
		{"{array: a}", "{array: in}", `line 14: there are two buffers called "in"`},
		{"chunk: 1024", "chunk: 0", "line 14: chunk must be a number of elements"},
		{"type: float, chunk", "type: half, chunk", "line 14: type of an input must be one of"},
		{"out: {type: float, count: in.n}", "out: {type: float}", "line 16: opencl.buffers.out needs a count"},
		{"count: in.n}", "count: in.m}", `line 16: count: nothing is called "in.m"; did you mean "in.n"?`},
		{"count: in.n}", "count: in.n + 1}", "line 16: count: \"in.n + 1\" is neither"},
		{"out: {type", "in: {type", `line 16: there are two buffers called "in"`},
		{"{type: uint, count: a.rows * 2", "{type: uchar, count: a.rows * 2", "line 17: opencl.buffers.sums: sums are int"},
		{"sum: true", "sum: 1", "line 17: sum must be true or false"},
		{"[[a.rows, 4]]", "[a.rows, 4]", "line 18: an entry of opencl.equal is a pair"},
		{"[[a.rows, 4]]", "[[b.rows, 4]]", `line 18: opencl.equal: nothing is called "b.rows"; did you mean "a.rows"?`},
		{"entry: filter, ", "", `line 20: an entry of opencl.run needs "entry:"`},
		{"entry: filter", "entry: 9x", "line 20: entry must be the name of a kernel"},
		{"in.n, param.threshold]", "in.n, param.treshold]", `line 20: args: nothing is called "param.treshold"; did you mean "param.threshold"?`},
		{", global: [in.n]", "", `line 20: an entry of opencl.run needs "global:"`},
		{"local: [64]", "local: [8, 8]", "line 20: local has 2 sizes and global 1"},
		{"local: [64]", "local: [0]", "line 20: local has numbers from 1 to 1024"},
		{"global: [in.n]", "global: [in.n, 1, 1, 1]", "line 20: global has 4 entries; at most 3"},
		{"{raw: out}", "{raw: aut}", `line 21: opencl.output: no buffer is called "aut"; did you mean "out"?`},
		{"{raw: out}", "{raw: out, lines: sums}", "line 21: opencl.output is one of"},
		{"{raw: out}", "{raw: sums}", "line 21: opencl.output.raw is for a buffer that is no sum"},
		{"{raw: out}", "{lines: out}", "line 21: opencl.output.lines is for a buffer with sum"},
		{"{raw: out}", "{array: out}", "line 21: opencl.output.array needs rows and cols"},
		{"{raw: out}", "{array: out, rows: 1, cols: 1}", "line 21: opencl.output.array is for recipes without a stream"},
		{"{raw: out}", "{raw: out, rows: 1}", "line 21: rows and cols are for"},
		{"  output: {raw: out}\n", "", `line 9: opencl needs "output:"`},
	} {
		if !strings.Contains(goodKernel, c.from) {
			t.Fatalf("the manifest has no %q", c.from)
		}
		_, err := ParseKernel([]byte(strings.Replace(goodKernel, c.from, c.to, 1)))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%q for %q: %v\nwant %s", c.to, c.from, err, c.want)
		}
	}
}

func TestCLParam(t *testing.T) {
	for _, c := range []struct {
		typ, text string
		want      []byte
	}{
		{"float", "1", []byte{0, 0, 0x80, 0x3f}}, {"int", "-2", []byte{0xfe, 0xff, 0xff, 0xff}}, {"uint", "4294967295", []byte{255, 255, 255, 255}},
		{"float", "x", nil}, {"int", "2147483648", nil}, {"uint", "-1", nil}, {"int", "1.5", nil},
	} {
		got, err := CLParam{Name: "p", Type: c.typ}.Encode(c.text)
		if !reflect.DeepEqual(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%s %q: %x, %v", c.typ, c.text, got, err)
		}
	}
}

func TestRuntimeField(t *testing.T) {
	const rest = "\nkernel: k\ninputs: /a\n"
	for field, want := range map[string][]string{
		"runtime: opencl": {"opencl"}, "runtime: [cuda, onnx]": {"cuda", "onnx"}, "runtime: [opencl, wasm]": {"opencl", "wasm"},
	} {
		s, err := Parse([]byte("version: 1\n" + field + rest))
		if err != nil || !slices.Equal(s.Runtime, want) || s.RuntimeLine != 2 {
			t.Errorf("%s: %+v, %v", field, s, err)
		}
	}
	for field, want := range map[string]string{
		"runtime: fast":           `line 2: runtime must be one of wasm, opencl, cuda, onnx, fpga, rtl, not "fast"`,
		"runtime: []":             "line 2: runtime is empty",
		"runtime: [wasm, wasm]":   `line 2: runtime names "wasm" twice`,
		"runtime: {wasm: true}":   "line 2: runtime must be text",
		"runtime: [opencl, [no]]": "line 2: runtime must be text",
	} {
		if _, err := Parse([]byte("version: 1\n" + field + rest)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// FuzzParseKernel: whatever comes, it is a manifest that keeps its promises, or
// one sentence.
func FuzzParseKernel(f *testing.F) {
	f.Add([]byte(goodKernel))
	files, _ := filepath.Glob("../kernels/bundled/*/kernel.yaml")
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseKernel(data)
		if err != nil {
			if s := err.Error(); s == "" || strings.Contains(s, "\n") {
				t.Fatalf("not one sentence: %q", s)
			}
			return
		}
		if len(k.Runtimes()) == 0 || len(k.Files()) == 0 {
			t.Fatal("a kernel that nothing can run")
		}
		for _, name := range k.Files() {
			if strings.Contains(name, "/") || name == ".." {
				t.Fatalf("a file outside of the bundle: %q", name)
			}
		}
		if k.OpenCL == nil {
			return
		}
		dims := map[string]int64{}
		for _, in := range k.OpenCL.Input {
			dims[in.Name+".rows"], dims[in.Name+".cols"], dims[in.Name+".n"] = 3, 5, 7
			if in.Stream && in.Chunk < 1 {
				t.Fatal("pieces without elements")
			}
		}
		for _, b := range k.OpenCL.Buffers {
			if n, err := b.Count.Eval(dims); err == nil && n < 0 {
				t.Fatalf("a buffer of %d elements", n)
			}
		}
		for _, p := range k.OpenCL.Run {
			for _, e := range p.Global {
				_, _ = e.Eval(dims)
			}
		}
	})
}
