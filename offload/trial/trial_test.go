package trial

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quernfs/offload/jobfile"
	"quernfs/offload/kernels"
)

var testDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "quern-trial-test-")
	if err != nil {
		panic(err)
	}
	testDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// command builds a worker for all runtimes.
var command = sync.OnceValues(func() ([]string, error) {
	out := filepath.Join(testDir, "worker")
	cmd := exec.Command("go", "build", "-o", out, "quernfs/offload/clworker/workercmd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building a worker: %w\n%s", err, text)
	}
	return []string{out}, nil
})

func bench(t *testing.T) *Bench {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds a worker and compiles kernels")
	}
	c, err := command()
	if err != nil {
		t.Fatal(err)
	}
	return &Bench{Command: c, Env: append(Environ(os.Environ()), "POCL_CACHE_DIR="+filepath.Join(testDir, "pocl")), Dir: testDir}
}

// variants are those of b on this host; without any of opencl the test says so.
func variants(t *testing.T, h *Bench, b *Bundle) []Variant {
	t.Helper()
	have, absent := h.Variants(t.Context(), b)
	for _, err := range absent {
		t.Log("not compared on this host: ", err)
	}
	return have
}

// reference is what a bundled kernel must write, computed here in Go.
func reference(t *testing.T, name string, in *Input) []byte {
	t.Helper()
	array := func(b []byte) (rows, cols int, x []float32, rest []byte) {
		rows, cols = int(binary.LittleEndian.Uint32(b[4:])), int(binary.LittleEndian.Uint32(b[8:]))
		b = b[12:]
		for i := range rows * cols {
			x = append(x, math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])))
		}
		return rows, cols, x, b[4*rows*cols:]
	}
	switch name {
	case "histogram":
		var counts [256]int
		for _, c := range in.Data {
			counts[c]++
		}
		var out []byte
		for i, n := range counts {
			out = fmt.Appendf(out, "%d %d\n", i, n)
		}
		return out
	case "threshold":
		var out []byte
		for i := 0; i < len(in.Data); i += 4 {
			v := math.Float32frombits(binary.LittleEndian.Uint32(in.Data[i:]))
			if v < 0.25 {
				v = 0
			}
			out = append(out, f32(float64(v))...)
		}
		return out
	case "matmul":
		m, k, a, rest := array(in.Data)
		_, n, b, _ := array(rest)
		out := arr(uint32(m), uint32(n))
		for i := range m {
			for j := range n {
				var sum float64
				for l := range k {
					sum += float64(a[i*k+l]) * float64(b[l*n+j])
				}
				out = append(out, f32(sum)...)
			}
		}
		return out
	case "kmeans":
		k, d, centroids, rest := array(in.Data)
		n, _, points, _ := array(rest)
		sums, counts := make([]float64, k*d), make([]float64, k)
		for p := range n {
			best, least := 0, float32(math.Inf(1))
			for c := range k {
				var distance float32
				for j := range d {
					x := points[p*d+j] - centroids[c*d+j]
					distance += float32(x * x)
				}
				if distance < least {
					best, least = c, distance
				}
			}
			counts[best]++
			for j := range d {
				sums[best*d+j] += float64(points[p*d+j])
			}
		}
		out := arr(uint32(k), uint32(d))
		for i, s := range sums {
			mean := s / counts[i/d]
			if counts[i/d] == 0 {
				mean = float64(centroids[i])
			}
			out = append(out, f32(mean)...)
		}
		return out
	}
	return nil
}

// TestBundledVariants: every variant of every bundled kernel gives what its
// reference in Go gives, on inputs of several sizes, those with a remainder
// among them.
func TestBundledVariants(t *testing.T) {
	h := bench(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, name := range []string{"histogram", "threshold", "matmul", "kmeans"} {
		t.Run(name, func(t *testing.T) {
			b, err := Bundled(name)
			if err != nil {
				t.Fatal(err)
			}
			have := variants(t, h, b)
			for _, size := range []int{8, 2000, 300_000} {
				in, err := b.Random(size, seed)
				if err != nil {
					t.Fatal(err)
				}
				in.Want = reference(t, name, in)
				for _, o := range h.Test(t.Context(), b, in, have) {
					if o.Err != nil {
						t.Errorf("%s on %d bytes: %v", o.Label(), len(in.Data), o.Err)
					}
				}
			}
		})
	}
}

// TestKnownAnswers: what the bundled kernels make of their own tests is right,
// and they take the random inputs that they are measured with.
func TestKnownAnswers(t *testing.T) {
	h := bench(t)
	tested := 0
	for _, k := range kernels.Bundled {
		b, err := Bundled(k.Name)
		if err != nil {
			t.Fatal(err)
		}
		if b.Kernel.Wasm == "" {
			continue // package onnxworker has its test
		}
		wasm := Variant{Runtime: jobfile.RuntimeWasm}
		if b.Kernel.Test != nil {
			tested++
			in, err := b.Sample(0, 1)
			if err != nil {
				t.Fatal(err)
			}
			if in.Want == nil {
				t.Errorf("%s has no known answer", k.Name)
			}
			if o := h.Test(t.Context(), b, in, []Variant{wasm})[0]; o.Err != nil {
				t.Errorf("%s: %v", k.Name, o.Err)
			}
		}
		in, err := b.Random(50_000, 1)
		if err != nil {
			t.Fatal(err)
		}
		if o := h.Test(t.Context(), b, in, []Variant{wasm})[0]; o.Err != nil || len(o.Result) == 0 {
			t.Errorf("%s, of random data: %d bytes, %v", k.Name, len(o.Result), o.Err)
		}
	}
	if tested < 6 {
		t.Errorf("%d kernels have a test of their own", tested)
	}
}

// TestManifests: what is said of a bundled kernel in Go and in its manifest is
// the same.
func TestManifests(t *testing.T) {
	variants := 0
	for _, k := range kernels.Bundled {
		b, err := Bundled(k.Name)
		if err != nil {
			t.Error(err)
			continue
		}
		if b.Kernel.About != k.About || strings.Join(b.Kernel.Args, " ") != strings.Join(k.Args, " ") {
			t.Errorf("%s: %q %q, in Go %q %q", k.Name, b.Kernel.About, b.Kernel.Args, k.About, k.Args)
		}
		if b.Kernel.OpenCL != nil {
			variants++
		}
		for _, f := range b.Kernel.Files() {
			if b.made(f) {
				continue // it does not come with quern
			}
			if data, digest, err := b.File(f); err != nil || len(data) == 0 || len(digest) != 32 {
				t.Errorf("%s: file %s: %v", k.Name, f, err)
			}
		}
	}
	if variants < 3 {
		t.Errorf("%d kernels have a variant for opencl", variants)
	}
	if _, err := Bundled("nothing"); err == nil {
		t.Error("a kernel that does not exist is found")
	}
}

const doubleManifest = `version: 1
wasm: k.wasm
args: [threshold]
compare: {as: float32}
test: {input: in.bin}
opencl:
  file: k.cl
  input: [{stream: in, type: float}]
  buffers: {out: {type: float, count: in.n}}
  run: [{entry: copy, args: [in, out, in.n], global: [in.n], local: [32]}]
  output: {raw: out}
`

// write makes a bundle on disk whose wasm variant is the bundled threshold at 0.
func write(t *testing.T, source string, more map[string]string) *Bundle {
	t.Helper()
	dir := t.TempDir()
	wasm, _, err := kernels.Module()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"kernel.yaml": doubleManifest, "k.wasm": string(wasm), "k.cl": source, "in.bin": string(f32(1, -2, 3))}
	for name, text := range more {
		files[name] = text
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := FromDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const copyKernel = `__kernel void copy(__global const float *in, __global float *out, uint n) {
	size_t i = get_global_id(0);
	if (i < n) out[i] = %s;
}`

// TestDiffers: a variant whose result is not the reference's is found out; one
// that is right is not accused.
func TestDiffers(t *testing.T) {
	h := bench(t)
	right := write(t, fmt.Sprintf(copyKernel, "max(in[i], 0.0f)"), nil)
	have := variants(t, h, right)
	if len(have) < 2 {
		t.Skip("no device of OpenCL on this host (Debian: pocl-opencl-icd)")
	}
	in, err := right.Sample(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range h.Test(t.Context(), right, in, have) {
		if o.Err != nil {
			t.Errorf("%s: %v", o.Label(), o.Err)
		}
	}
	wrong := write(t, fmt.Sprintf(copyKernel, "max(in[i], 1.0f)"), nil)
	out := h.Test(t.Context(), wrong, in, have)
	if out[0].Err != nil || !errors.Is(out[1].Err, ErrDiffers) || !strings.Contains(out[1].Err.Error(), "number 1 is 1 instead of 0") {
		t.Errorf("%v, %v", out[0].Err, out[1].Err)
	}
	// With a result of its own, the wasm variant is not the measure.
	measured := write(t, fmt.Sprintf(copyKernel, "max(in[i], 1.0f)"), map[string]string{
		"out.bin": string(f32(1, 1, 3)), "kernel.yaml": strings.Replace(doubleManifest, "in.bin}", "in.bin, output: out.bin}", 1)})
	if in, err = measured.Sample(0, 1); err != nil {
		t.Fatal(err)
	}
	out = h.Test(t.Context(), measured, in, have)
	if !errors.Is(out[0].Err, ErrDiffers) || out[1].Err != nil {
		t.Errorf("%v, %v", out[0].Err, out[1].Err)
	}
	broken := write(t, "this is no kernel", nil)
	out = h.Test(t.Context(), broken, in, have)
	if out[1].Err == nil || errors.Is(out[1].Err, ErrDiffers) || !strings.Contains(out[1].Err.Error(), "does not build") {
		t.Errorf("%v", out[1].Err)
	}
}

func TestFromDirErrors(t *testing.T) {
	if _, err := FromDir(t.TempDir()); err == nil {
		t.Error("an empty directory is a bundle")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kernel.yaml"), []byte("version: 1\nwasm: x.wasm\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := FromDir(dir); err == nil || !strings.Contains(err.Error(), "x.wasm") {
		t.Errorf("a file is missing: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kernel.yaml"), []byte("version: 1\nwasn: x.wasm\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := FromDir(dir); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("the line is missing: %v", err)
	}
	if b, err := NewBundle("x", []byte("version: 1\n"), nil); err != nil {
		t.Error(err)
	} else if _, err := b.Sample(1, 1); err == nil {
		t.Error("a kernel without a test has a sample")
	}
}
