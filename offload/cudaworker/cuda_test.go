// Package cudaworker_test runs quern-cuda, built for the stub of a driver: no
// test here touches a GPU.
package cudaworker_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quernfs/offload/cudastub"
	"quernfs/offload/jobfile"
	"quernfs/offload/trial"
	"quernfs/offload/worker"
)

var testDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "quern-cuda-test-")
	if err != nil {
		panic(err)
	}
	testDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

var built = sync.OnceValues(func() (string, error) { return cudastub.Build(testDir) })

// program is quern-cuda on the stub, with more of an environment.
func program(t *testing.T, env ...string) worker.Config {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds programs")
	}
	p, err := built()
	if errors.Is(err, cudastub.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return worker.Config{Command: []string{p}, Env: append(os.Environ(), env...)}
}

func TestProbe(t *testing.T) {
	probe := func(id string, env ...string) (*worker.Report, error) {
		return worker.Probe(t.Context(), program(t, env...), jobfile.RuntimeCUDA, id, time.Minute)
	}
	r, err := probe("", "QUERN_STUB_DEVICES=2")
	if err != nil || len(r.Devices) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	d := r.Devices[0]
	if d.ID != cudastub.GPU || d.Type != "gpu" || d.Memory != 256<<20 || d.Version != "compute 7.5" || d.Driver != "12.2" || d.MaxGroup != 1024 || !strings.Contains(d.Name, "stub") {
		t.Errorf("%+v", d)
	}
	second := r.Devices[1].ID
	if r, err := probe("", "QUERN_STUB_DEVICES=2", "CUDA_VISIBLE_DEVICES="+second); err != nil || len(r.Devices) != 1 || r.Devices[0].ID != second {
		t.Errorf("with one visible: %+v, %v", r, err)
	}
	if r, err := probe(second, "QUERN_STUB_DEVICES=2"); err != nil || len(r.Devices) != 1 || r.Devices[0].ID != second {
		t.Errorf("the known answer: %+v, %v", r, err)
	}
	for name, c := range map[string]struct{ id, env, want string }{
		"no driver":      {"", "QUERN_STUB_INIT=100", "NoDevice"},
		"no GPU":         {"", "CUDA_VISIBLE_DEVICES=", "NoDevice"},
		"not there":      {"GPU-0", "", "there is no device GPU-0 here; there are 1"},
		"computes wrong": {cudastub.GPU, "QUERN_STUB_LAUNCH=known:wrong", "it computes the known answer wrongly: integers"},
		"memory fails":   {cudastub.GPU, "QUERN_STUB_LAUNCH=known:214", "cuLaunchKernel: EccUncorrectable"},
		"driver crashes": {cudastub.GPU, "QUERN_STUB_LAUNCH=known:crash", "segmentation fault"},
	} {
		if r, err := probe(c.id, c.env); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v; want %q", name, r, err, c.want)
		}
	}
	hang := program(t, "QUERN_STUB_LAUNCH=known:hang")
	if _, err := worker.Probe(t.Context(), hang, jobfile.RuntimeCUDA, cudastub.GPU, time.Second); err == nil || !strings.Contains(err.Error(), "no answer in 1s") {
		t.Errorf("a driver that hangs: %v", err)
	}
}

func TestUsage(t *testing.T) {
	c := program(t)
	for _, args := range [][]string{nil, {"wasm"}, {"--probe", "opencl"}, {"cuda"}, {"cuda", "--device", "0", "--probe", "cuda"}, {"--probe", "cuda", "more"}, {"--nothing"}, {"cuda", "--device", cudastub.GPU}} {
		cmd := exec.Command(c.Command[0], args...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 2 || len(out) == 0 {
			t.Errorf("%q: status %d, %q", args, code, out)
		}
	}
}

// start begins a worker on the stub's first GPU.
func start(t *testing.T, env ...string) *worker.Process {
	t.Helper()
	c := program(t, env...)
	c.Command = append(c.Command, jobfile.RuntimeCUDA, "--device", cudastub.GPU)
	p, err := worker.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// TestBundled: each bundled kernel on the stub gives what its wasm variant
// would, here known beforehand.
func TestBundled(t *testing.T) {
	p := start(t)
	run := func(name string, in *trial.Input) ([]byte, error) {
		b, err := trial.Bundled(name)
		if err != nil {
			t.Fatal(err)
		}
		data, digest, err := b.File(b.Kernel.DeviceFile(jobfile.RuntimeCUDA))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "k.ptx")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		out, took, err := trial.RunOn(t.Context(), p, trial.Task(b, jobfile.RuntimeCUDA, file, digest, in))
		if err == nil && took <= 0 {
			t.Errorf("%s took %v", name, took)
		}
		return out, err
	}
	for name, c := range map[string]struct {
		in     []byte
		params []jobfile.Param
		want   string
	}{
		"threshold": {numbers(0x3f000000, 0x40000000, 0xc0000000), []jobfile.Param{{Key: "threshold", Value: "1"}}, string(numbers(0, 0x40000000, 0))},
		"matmul":    {append(array(1, 2, 0x3f800000, 0x40000000), array(2, 1, 0x40400000, 0x40800000)...), nil, string(array(1, 1, 0x41300000))}, // 1*3 + 2*4
		"kmeans":    {append(array(2, 1, 0, 0x41200000), array(3, 1, 0x3f800000, 0x40400000, 0x41100000)...), nil, string(array(2, 1, 0x40000000, 0x41100000))},
	} {
		out, err := run(name, &trial.Input{Data: c.in, Params: c.params})
		if err != nil || string(out) != c.want {
			t.Errorf("%s: %x, %v; want %x", name, out, err, c.want)
		}
	}
	out, err := run("histogram", &trial.Input{Data: bytes.Repeat([]byte("abca"), 5000)})
	if err != nil || !strings.Contains(string(out), "\n97 10000\n98 5000\n99 5000\n100 0\n") {
		t.Errorf("histogram: %s, %v", out, err)
	}
	if !p.Usable() {
		t.Error("the worker has ended")
	}
}

func numbers(values ...uint32) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func array(rows, cols uint32, values ...uint32) []byte {
	return append([]byte("QNA1"), append(numbers(rows, cols), numbers(values...)...)...)
}

const head = ".version 4.0\n.target sm_50\n.address_size 64\n"

// entry is a kernel that takes a buffer and a number.
func entry(body string) string {
	return head + ".visible .entry k(.param .u64 p, .param .u32 n) {\n.reg .pred %p<3>; .reg .b32 %r<5>; .reg .b64 %rd<5>;\nld.param.u64 %rd1, [p];\n" + body + "\n}\n"
}

const manifest = `version: 1
cuda:
  input: [{stream: in, type: uint}]
  run: [{entry: k, args: [in, in.n], global: [in.n], local: [32]}]
  output: {raw: in}
`

// try runs one task with a kernel of its own.
func try(t *testing.T, p *worker.Process, manifest, source string, limit time.Duration) (worker.Exit, string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "k.ptx")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := trial.NewBundle("k", []byte(manifest), map[string][]byte{"k.ptx": []byte(source)})
	if err != nil {
		t.Fatal(err)
	}
	_, digest, err := b.File("k.ptx")
	if err != nil {
		t.Fatal(err)
	}
	task := trial.Task(b, jobfile.RuntimeCUDA, file, digest, &trial.Input{Data: numbers(1, 2, 3)})
	stderr := worker.NewTail(4 << 10)
	task.Stdout, task.Stderr = new(bytes.Buffer), stderr
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errLimit)
	defer cancel()
	exit, err := p.Run(ctx, task)
	return exit, stderr.String(), err
}

var errLimit = errors.New("time is up")

// TestBadKernels: what is wrong with a kernel or its manifest is told in words
// and not blamed on the GPU, and the worker takes the next run if the driver can.
func TestBadKernels(t *testing.T) {
	p := start(t, "QUERN_STUB_MEMORY=8192")
	good := entry("ret;")
	for name, c := range map[string]struct{ manifest, source, want string }{
		"no PTX":        {manifest, "__kernel void k() {}", "not PTX"},
		"syntax":        {manifest, entry("frobnicate.u32 %r1;"), `stub: PTX: kernel k: "frobnicate.u32 %r1"`},
		"no entry":      {strings.Replace(manifest, "entry: k", "entry: l", 1), good, "k.ptx has no kernel l"},
		"arguments":     {strings.Replace(manifest, "[in, in.n]", "[in]", 1), good, "takes 2 arguments, kernel.yaml gives 1"},
		"kinds":         {strings.Replace(manifest, "[in, in.n]", "[in.n, in]", 1), good, "argument 1, in.n: kernel k takes a .u64 there, of 8 bytes, not 4"},
		"block":         {strings.Replace(manifest, "global: [in.n], local: [32]", "global: [in.n, in.n], local: [64, 32]", 1), good, "groups of 2048 work items are more than the 1024"},
		"grid":          {strings.Replace(manifest, "global: [in.n], local: [32]", "global: [1, 70000], local: [1, 1]", 1), good, "a grid of 70000 blocks in direction 2; 65535 are the most"},
		"out of memory": {strings.Replace(manifest, "  run:", "  buffers: {big: {type: uchar, count: 8000 * 1}, more: {type: uchar, count: 8000 * 1}}\n  run:", 1), good, "out of memory"},
	} {
		exit, stderr, err := try(t, p, c.manifest, c.source, time.Minute)
		if err != nil || exit.Code != 1 || exit.Fault || exit.Last || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: %+v, %q, %v; want %q", name, exit, stderr, err, c.want)
		}
	}
	if exit, stderr, err := try(t, p, manifest, good, time.Minute); err != nil || exit.Code != 0 || exit.Device < 0 {
		t.Errorf("after them: %+v, %s, %v", exit, stderr, err)
	}
	// A kernel that leaves its memory leaves the driver useless: the worker says so
	// and ends, by itself.
	exit, stderr, err := try(t, p, manifest, entry("st.global.u32 [%rd1+4096], %r1; ret;"), time.Minute)
	if err != nil || exit.Code != 1 || exit.Fault || !exit.Last || !strings.Contains(stderr, "IllegalAddress") {
		t.Errorf("a kernel that leaves its memory: %+v, %q, %v", exit, stderr, err)
	}
	if p.Usable() {
		t.Error("the worker is said to take another run")
	}
}

// TestDriver: a driver that crashes, hangs or fails costs its process, and is
// told from a kernel's own fault.
func TestDriver(t *testing.T) {
	good := entry("ret;")
	p := start(t, "QUERN_STUB_LAUNCH=k:214")
	if exit, stderr, err := try(t, p, manifest, good, time.Minute); err != nil || !exit.Fault || !strings.Contains(exit.Trap, "EccUncorrectable") {
		t.Errorf("a GPU that fails: %+v, %s, %v", exit, stderr, err)
	}
	var crash *worker.CrashError
	p = start(t, "QUERN_STUB_LAUNCH=k:crash")
	if exit, _, err := try(t, p, manifest, good, time.Minute); !errors.As(err, &crash) || p.Usable() {
		t.Errorf("a driver that crashes: %+v, %v", exit, err)
	}
	p = start(t, "QUERN_STUB_LAUNCH=k:hang")
	if exit, _, err := try(t, p, manifest, good, time.Second); !errors.Is(err, errLimit) || p.Usable() {
		t.Errorf("a driver that hangs: %+v, %v", exit, err)
	}
}
