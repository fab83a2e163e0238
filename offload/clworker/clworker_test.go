//go:build linux && (amd64 || arm64)

package clworker

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"quernfs/offload/opencl"
	"quernfs/offload/recipe"
	"quernfs/offload/worker"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "quern-pocl-")
	if err != nil {
		panic(err)
	}
	os.Setenv("POCL_CACHE_DIR", dir)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// testMachine is the first device of this host, with its programs kept in
// cache; the test is skipped without one.
func testMachine(t *testing.T, cache string) *machine {
	t.Helper()
	lib, err := opencl.Open("")
	if err != nil {
		t.Skip("no OpenCL on this host: ", err)
	}
	all, err := lib.Devices()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Skip("libOpenCL is here, but no device (Debian: pocl-opencl-icd)")
	}
	m, err := newMachine(all[0], cache)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.close)
	return m
}

// runOf makes a run of a recipe and its source.
func runOf(t *testing.T, recipe, source string, env ...string) *worker.Run {
	t.Helper()
	file := filepath.Join(t.TempDir(), "k.cl")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(source))
	return &worker.Run{Module: file, Digest: sum[:], Manifest: []byte("version: 1\nopencl:\n" + recipe), Memory: 64 << 20, Env: env}
}

func numbers(values ...uint32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func array(rows, cols uint32, values ...float32) []byte {
	b := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32([]byte("QNA1"), rows), cols)
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

const (
	sumRecipe = `  params: {weight: {type: int, default: 1}}
  input: [{stream: in, type: uint, chunk: 5}]
  buffers:
    total: {type: int, count: 2, sum: true}
  run: [{entry: total, args: [in, in.n, total, param.weight], global: [in.n], local: [4]}]
  output: {lines: total}
`
	sumSource = `__kernel void total(__global const uint *in, uint n, __global int *total, int weight) {
	size_t i = get_global_id(0);
	if (i < n) { atomic_add(&total[0], (int)in[i] * weight); atomic_inc(&total[1]); }
}`
	transposeRecipe = `  input: [{array: a}, {array: scale}]
  buffers: {out: {type: float, count: a.rows * a.cols}}
  equal: [[scale.rows * scale.cols, 1]]
  run: [{entry: transpose, args: [a, scale, out, a.rows, a.cols], global: [a.cols, a.rows], local: [8, 8]}]
  output: {array: out, rows: a.cols, cols: a.rows}
`
	transposeSource = `__kernel void transpose(__global const float *a, __global const float *scale, __global float *out, uint rows, uint cols) {
	size_t x = get_global_id(0), y = get_global_id(1);
	if (x < cols && y < rows) out[x * rows + y] = a[y * cols + x] * scale[0];
}`
	rawRecipe = `  input: [{stream: in, type: uchar, chunk: 3}]
  buffers: {out: {type: uchar, count: in.n}}
  run: [{entry: upper, args: [in, out, in.n], global: [in.n]}]
  output: {raw: out}
`
	rawSource = `__kernel void upper(__global const uchar *in, __global uchar *out, uint n) {
	size_t i = get_global_id(0);
	out[i] = in[i] >= 'a' && in[i] <= 'z' ? in[i] - 32 : in[i];
}`
)

// TestRecipes: streams in pieces, sums over pieces, arrays, params.
func TestRecipes(t *testing.T) {
	m := testMachine(t, "")
	for name, c := range map[string]struct {
		recipe, source string
		env            []string
		in             []byte
		want           string
	}{
		"sum":         {sumRecipe, sumSource, nil, numbers(1, 2, 3, 4, 5, 6, 7), "0 28\n1 7\n"},
		"sum, param":  {sumRecipe, sumSource, []string{"QUERN_WEIGHT=-10", "QUERN_X=y"}, numbers(1, 2, 3, 4, 5, 6), "0 -210\n1 6\n"},
		"sum, 64 bit": {sumRecipe, sumSource, []string{"QUERN_WEIGHT=400000000"}, numbers(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), "0 4400000000\n1 11\n"},
		"sum, empty":  {sumRecipe, sumSource, nil, nil, "0 0\n1 0\n"},
		"transpose":   {transposeRecipe, transposeSource, nil, append(array(2, 3, 1, 2, 3, 4, 5, 6), array(1, 1, 10)...), string(array(3, 2, 10, 40, 20, 50, 30, 60))},
		"no rows":     {transposeRecipe, transposeSource, nil, append(array(0, 3), array(1, 1, 10)...), string(array(3, 0))},
		"raw":         {rawRecipe, rawSource, nil, []byte("hello, world"), "HELLO, WORLD"},
		"raw, empty":  {rawRecipe, rawSource, nil, nil, ""},
	} {
		var stdout, stderr bytes.Buffer
		// The input comes in small parts, as from a socket.
		exit := m.run(runOf(t, c.recipe, c.source, c.env...), iotest.OneByteReader(bytes.NewReader(c.in)), &stdout, &stderr)
		if exit.Code != 0 || exit.Trap != "" || stdout.String() != c.want {
			t.Errorf("%s: %+v, %q, stdout %q", name, exit, &stderr, &stdout)
		}
		if len(c.in) > 0 && name != "no rows" && exit.Device <= 0 || exit.PeakMemory < 0 {
			t.Errorf("%s: time on the device %d, memory %d", name, exit.Device, exit.PeakMemory)
		}
	}
}

// TestBadRuns: what is wrong with kernel or input is told in words, is not
// blamed on the device, and leaves the machine of use.
func TestBadRuns(t *testing.T) {
	m := testMachine(t, "")
	one := append(array(2, 2, 1, 2, 3, 4), array(1, 1, 1)...)
	small := runOf(t, transposeRecipe, transposeSource)
	small.Memory = 1 << 20
	changed := runOf(t, rawRecipe, rawSource)
	changed.Digest = make([]byte, 32)
	for name, c := range map[string]struct {
		run  *worker.Run
		in   []byte
		want string
	}{
		"no number":    {runOf(t, sumRecipe, sumSource, "QUERN_WEIGHT=x"), numbers(1), "weight must be a whole number"},
		"left over":    {runOf(t, sumRecipe, sumSource), []byte{1, 2, 3, 4, 5}, "not a whole number of uint: 1 bytes"},
		"no array":     {runOf(t, transposeRecipe, transposeSource), []byte("hello, world"), "the array of a does not begin with QNA1"},
		"no input":     {runOf(t, transposeRecipe, transposeSource), nil, "the input ends before the array of a"},
		"cut":          {runOf(t, transposeRecipe, transposeSource), array(2, 2, 1, 2, 3), "the input ends in the array of a"},
		"one array":    {runOf(t, transposeRecipe, transposeSource), array(1, 1, 1), "the input ends before the array of scale"},
		"three arrays": {runOf(t, transposeRecipe, transposeSource), append(one, 0), "something after the last array"},
		"unequal":      {runOf(t, transposeRecipe, transposeSource), append(array(1, 1, 1), array(1, 2, 1, 2)...), "scale.rows * scale.cols is 2 and 1 is 1"},
		"memory":       {small, append(array(1000, 1000), 0), "out of memory: buffer a makes it 4000000 bytes"},
		"huge":         {runOf(t, transposeRecipe, transposeSource), array(math.MaxUint32, math.MaxUint32), "out of memory"},
		"syntax":       {runOf(t, rawRecipe, "__kernel void upper(oops"), []byte("x"), "k.cl does not build on"},
		"entry":        {runOf(t, strings.Replace(rawRecipe, "entry: upper", "entry: lower", 1), rawSource), []byte("x"), "k.cl has no kernel lower"},
		"arguments":    {runOf(t, strings.Replace(rawRecipe, ", in.n]", "]", 1), rawSource), []byte("x"), "takes 3 arguments, kernel.yaml gives 2"},
		"wrong kind":   {runOf(t, strings.Replace(rawRecipe, "[in, out, in.n]", "[in.n, out, in.n]", 1), rawSource), []byte("x"), "argument 1, in.n"},
		"digest":       {changed, []byte("x"), "not the one that was submitted"},
		"manifest":     {&worker.Run{Manifest: []byte("version: 2\n")}, nil, "kernel.yaml: line 1"},
		"no recipe":    {&worker.Run{Manifest: []byte("version: 1\n")}, nil, "no variant for opencl"},
	} {
		var stdout, stderr bytes.Buffer
		exit := m.run(c.run, bytes.NewReader(c.in), &stdout, &stderr)
		if exit.Code != 1 || exit.Fault || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: %+v, %q; want %q", name, exit, &stderr, c.want)
		}
	}
	var stdout, stderr bytes.Buffer
	if exit := m.run(runOf(t, rawRecipe, rawSource), iotest.ErrReader(errors.New("lost")), &stdout, &stderr); exit.Code != 1 || !strings.Contains(stderr.String(), "lost") {
		t.Errorf("an input that cannot be read: %+v, %q", exit, &stderr)
	}
	if exit := m.run(runOf(t, rawRecipe, rawSource), strings.NewReader("ok"), &stdout, io.Discard); exit.Code != 0 || stdout.String() != "OK" {
		t.Errorf("the machine is of no more use: %+v, %q", exit, &stdout)
	}
}

// TestFreshMemory: a kernel does not see what others left on the device.
func TestFreshMemory(t *testing.T) {
	m := testMachine(t, "")
	const recipe = `  input: [{stream: in, type: uint}]
  buffers: {out: {type: uint, count: 65536}}
  run: [{entry: peek, args: [in, out, in.n], global: [65536]}]
  output: {raw: out}
`
	fill := runOf(t, recipe, `__kernel void peek(__global const uint *in, __global uint *out, uint n) { out[get_global_id(0)] = 0xdeadbeef; }`)
	peek := runOf(t, recipe, `__kernel void peek(__global const uint *in, __global uint *out, uint n) { }`)
	for range 3 {
		if exit := m.run(fill, bytes.NewReader(numbers(1)), io.Discard, io.Discard); exit.Code != 0 {
			t.Fatalf("%+v", exit)
		}
		var stdout bytes.Buffer
		if exit := m.run(peek, bytes.NewReader(numbers(1)), &stdout, io.Discard); exit.Code != 0 {
			t.Fatalf("%+v", exit)
		}
		if !bytes.Equal(stdout.Bytes(), make([]byte, 4*65536)) {
			t.Fatal("another kernel's data")
		}
	}
}

// TestProgramCache: a program is compiled once, and a file of the cache that is
// torn is made anew.
func TestProgramCache(t *testing.T) {
	cache := t.TempDir()
	run := runOf(t, rawRecipe, rawSource)
	use := func() {
		t.Helper()
		m := testMachine(t, cache)
		var stdout, stderr bytes.Buffer
		if exit := m.run(run, strings.NewReader("abc"), &stdout, &stderr); exit.Code != 0 || stdout.String() != "ABC" {
			t.Fatalf("%+v, %q, %q", exit, &stdout, &stderr)
		}
	}
	use()
	files, err := filepath.Glob(filepath.Join(cache, "programs", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files of the cache: %q, %v", files, err)
	}
	first, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if binary, ok := unseal(first); !ok || len(binary) == 0 {
		t.Fatal("what is kept is not sealed")
	}
	m := testMachine(t, cache)
	if p := m.load(filepath.Base(files[0])); p == nil {
		t.Error("what is kept is not taken")
	} else {
		p.Close()
	}
	torn := bytes.Clone(first)
	torn[len(torn)/2] ^= 1
	for _, bad := range [][]byte{torn, first[:len(first)-1], first[:10], nil, seal([]byte("no program"))} {
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if m.load(filepath.Base(files[0])) != nil {
			t.Error("a bad file is taken")
		}
		use()
		if again, err := os.ReadFile(files[0]); err != nil || len(again) < len(first)/2 || bytes.Equal(again, bad) {
			t.Errorf("a bad file was not made anew: %d bytes, %v", len(again), err)
		}
	}
}

func TestKnownAnswer(t *testing.T) {
	if err := recipe.Prove(testMachine(t, ""), recipe.KnownSource); err != nil {
		t.Error(err)
	}
}

func TestMainProgram(t *testing.T) {
	for _, args := range [][]string{nil, {"wasm"}, {"--probe", "cuda"}, {"opencl"}, {"opencl", "--device", "0.0", "--probe", "opencl"}, {"--probe", "opencl", "more"}, {"--nothing"}} {
		var stdout, stderr bytes.Buffer
		if code := Main(args, &stdout, &stderr); code != 2 || stdout.Len() > 0 || stderr.Len() == 0 {
			t.Errorf("%q: status %d, %q, %q", args, code, &stdout, &stderr)
		}
	}
	d := testMachine(t, "").ctx.Device()
	for _, args := range [][]string{{"--probe", "opencl"}, {"--probe", "opencl", "--device", d.ID, "--cache", t.TempDir()}} {
		var stdout, stderr bytes.Buffer
		code := Main(args, &stdout, &stderr)
		var r worker.Report
		if err := json.Unmarshal(stdout.Bytes(), &r); code != 0 || err != nil || len(r.Devices) == 0 || r.Devices[0].ID != d.ID {
			t.Errorf("%q: status %d, %q, %q", args, code, &stdout, &stderr)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := Main([]string{"--probe", "opencl", "--device", "99.0"}, &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), "no device 99.0") {
		t.Errorf("a device that does not exist: status %d, %q", code, &stderr)
	}
}
