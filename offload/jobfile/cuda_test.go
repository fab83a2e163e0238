package jobfile

import (
	"slices"
	"strings"
	"testing"
)

const cudaRecipe = `
  input: [{stream: in, type: uint}]
  buffers: {out: {type: uint, count: in.n}}
  run: [{entry: double, args: [in, out, in.n], global: [in.n], local: [64]}]
  output: {raw: out}
`

// TestCUDA: the variant shares the recipe of opencl, or has one of its own.
func TestCUDA(t *testing.T) {
	k, err := ParseKernel([]byte("version: 1\ncuda: {file: fast.ptx}\nopencl:" + cudaRecipe + "rate: {cuda: 2GB, opencl: 1GB}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := k.Runtimes(); !slices.Equal(got, []string{"opencl", "cuda"}) {
		t.Errorf("runtimes %v", got)
	}
	if got := k.Files(); !slices.Equal(got, []string{"fast.ptx", "k.cl"}) || k.DeviceFile(RuntimeCUDA) != "fast.ptx" || k.DeviceFile(RuntimeOpenCL) != "k.cl" {
		t.Errorf("files %v", got)
	}
	if k.Recipe(RuntimeCUDA) == nil || k.Recipe(RuntimeCUDA).Run[0].Entry != "double" || k.Recipe(RuntimeOpenCL).File != "k.cl" || k.Recipe(RuntimeWasm) != nil {
		t.Errorf("%+v", k)
	}
	if k, err = ParseKernel([]byte("version: 1\nopencl: {file: k.cl}\n")); err == nil {
		t.Errorf("an opencl variant without a recipe: %+v", k)
	}
	if k, err = ParseKernel([]byte("version: 1\ncuda:" + cudaRecipe)); err != nil || k.CUDA.File != "k.ptx" || k.OpenCL != nil || k.Wasm != "" {
		t.Errorf("%+v, %v", k, err)
	}
	own := strings.Replace(cudaRecipe, "double", "triple", 1)
	if k, err = ParseKernel([]byte("version: 1\nopencl:" + cudaRecipe + "cuda:" + own)); err != nil || k.CUDA.Run[0].Entry != "triple" || k.OpenCL.Run[0].Entry != "double" {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestBadCUDA(t *testing.T) {
	free := strings.Replace(cudaRecipe, ", local: [64]", "", 1)
	for text, want := range map[string]string{
		"cuda: k.ptx\n":         "line 2: cuda must be a mapping such as {file: k.ptx}",
		"cuda: {file: k.ptx}\n": `line 2: cuda needs "input:"`,
		"opencl:" + cudaRecipe + "cuda: {file: k.cl}\n": "line 7: cuda.file must name a file that ends in .ptx",
		"opencl:" + cudaRecipe + "cuda: {fil: k.ptx}\n": `line 7: unknown field "fil"; did you mean "file"?`,
		"opencl:" + free + "cuda: {file: k.ptx}\n":      `line 7: cuda needs "local:" in every entry of run`,
		"cuda:" + free: `line 3: cuda needs "local:" in every entry of run`,
		"cuda:" + cudaRecipe + "rate: {opencl: 1GB}\n":           "line 7: rate.opencl is given, but the kernel has no such variant",
		"cuda:" + strings.Replace(cudaRecipe, "raw", "array", 1): "line 6: cuda.output.array needs rows and cols",
	} {
		if k, err := ParseKernel([]byte("version: 1\n" + text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", text, k, err, want)
		}
	}
}
