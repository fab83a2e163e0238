package integration

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// needOpenCL skips a test where no device of OpenCL is found.
func needOpenCL(t *testing.T) {
	t.Helper()
	out, err := exec.Command(quern, "worker", "--probe", "opencl").CombinedOutput()
	if err != nil {
		t.Skipf("no OpenCL on this host (Debian: pocl-opencl-icd, ocl-icd-libopencl1): %s", out)
	}
	var report struct {
		Devices []struct{ ID string }
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("the probe prints %q: %v", out, err)
	}
	if len(report.Devices) == 0 {
		t.Skip("libOpenCL is here, but no device (Debian: pocl-opencl-icd)")
	}
}

func arrayOf(rows, cols int, value func(i, j int) float32) string {
	b := binary.LittleEndian.AppendUint32([]byte("QNA1"), uint32(rows))
	b = binary.LittleEndian.AppendUint32(b, uint32(cols))
	for i := range rows {
		for j := range cols {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(value(i, j)))
		}
	}
	return string(b)
}

// TestDeviceJob: a job that asks for OpenCL runs on the host that has it, with
// nothing but files: a bundled kernel, and one that was registered.
func TestDeviceJob(t *testing.T) {
	needMount(t)
	needOpenCL(t)
	c := startCluster(t)
	compute := filepath.Join(c.mnt, ".compute")
	const m, k, n = 40, 30, 20
	shell(t, c.mnt, "mkdir m data && mkdir -p .compute/kernels/negate/1")
	writeFile(t, filepath.Join(c.mnt, "m", "a"), arrayOf(m, k, func(i, j int) float32 { return float32(i - j) }))
	writeFile(t, filepath.Join(c.mnt, "m", "b"), arrayOf(k, n, func(i, j int) float32 { return float32(i * j % 7) }))
	writeFile(t, filepath.Join(c.mnt, "data", "x"), strings.Repeat("abc", 100_000))
	writeFile(t, filepath.Join(compute, "kernels", "negate", "1", "k.cl"), `__kernel void negate(__global const uchar *in, __global uchar *out, uint n) {
	size_t i = get_global_id(0);
	if (i < n) out[i] = ~in[i];
}`)
	writeFile(t, filepath.Join(compute, "kernels", "negate", "1", "kernel.yaml"), `version: 1
opencl:
  input: [{stream: in, type: uchar}]
  buffers: {out: {type: uchar, count: in.n}}
  run: [{entry: negate, args: [in, out, in.n], global: [in.n], local: [64]}]
  output: {raw: out}
`)
	for name, spec := range map[string]string{
		"mul":   "kernel: matmul\nruntime: opencl\ninputs: [/m/a, /m/b]\nsplit: none\n",
		"flip":  "kernel: negate\ninputs: /data/x\n",
		"count": "kernel: histogram\nruntime: opencl\ninputs: /data\nreduce: {}\n",
	} {
		writeFile(t, filepath.Join(c.mnt, name+".yaml"), "version: 1\n"+spec)
		if err := os.Rename(filepath.Join(c.mnt, name+".yaml"), filepath.Join(compute, "queue", name+".yaml")); err != nil {
			t.Fatalf("%s: %v: %s", name, err, readFile(t, filepath.Join(compute, "errors", name)))
		}
	}
	for _, name := range []string{"mul", "flip", "count"} {
		job := filepath.Join(compute, "by-name", name)
		if how := readFile(t, filepath.Join(job, "wait")); !strings.HasPrefix(how, "succeeded") {
			t.Fatalf("%s: %s", name, how)
		}
		if device := readFile(t, filepath.Join(job, "tasks", "0", "device")); !strings.HasPrefix(device, "opencl:") {
			t.Errorf("%s ran on %q", name, device)
		}
	}
	want := arrayOf(m, n, func(i, j int) float32 {
		sum := float32(0)
		for l := range k {
			sum += float32(i-l) * float32(l*j%7)
		}
		return sum
	})
	if got := readFile(t, filepath.Join(compute, "by-name", "mul", "out", "output")); got != want {
		t.Error("the product is wrong")
	}
	if got := readFile(t, filepath.Join(compute, "by-name", "flip", "out", "output")); got != strings.Repeat("\x9e\x9d\x9c", 100_000) {
		t.Error("the registered kernel's result is wrong")
	}
	if got := readFile(t, filepath.Join(compute, "by-name", "count", "out", "output")); !strings.Contains(got, "\n97 100000\n98 100000\n99 100000\n100 0\n") {
		t.Errorf("the histogram is wrong: %s", got)
	}
	// The heartbeat brings it once a second.
	devices := ""
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end) && !strings.Contains(devices, "state=ready"); {
		devices = ""
		all, err := filepath.Glob(filepath.Join(compute, "hosts", "*", "devices"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range all {
			devices += readFile(t, file)
		}
	}
	if !strings.Contains(devices, "opencl:") || !strings.Contains(devices, "state=ready") || !strings.Contains(devices, "model=") {
		t.Errorf("hosts/HOST/devices: %q", devices)
	}
}

// TestKernelCommands: quern kernel.
func TestKernelCommands(t *testing.T) {
	var all []struct {
		Name     string   `json:"name"`
		Runtimes []string `json:"runtimes"`
	}
	if err := json.Unmarshal([]byte(mustQuern(t, "kernel", "ls", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, k := range all {
		found[k.Name] = strings.Join(k.Runtimes, ",")
	}
	if found["wordcount"] != "wasm" || found["matmul"] != "wasm,opencl,cuda" {
		t.Errorf("quern kernel ls: %v", found)
	}
	if out := mustQuern(t, "kernel", "ls"); !strings.Contains(out, "matmul") || !strings.Contains(out, "RUNTIMES") {
		t.Errorf("quern kernel ls:\n%s", out)
	}
	out := mustQuern(t, "kernel", "test", "threshold", "--size", "64KiB")
	if !strings.Contains(out, "wasm") || !strings.Contains(out, "ok") {
		t.Errorf("quern kernel test:\n%s", out)
	}
	var outcomes []struct {
		Variant string  `json:"variant"`
		OK      bool    `json:"ok"`
		MBs     float64 `json:"mb_per_s"`
	}
	if err := json.Unmarshal([]byte(mustQuern(t, "kernel", "bench", "histogram", "--size", "1MiB", "--runs", "2", "--json")), &outcomes); err != nil {
		t.Fatal(err)
	}
	for _, o := range outcomes {
		if !o.OK || o.MBs <= 0 {
			t.Errorf("quern kernel bench: %+v", o)
		}
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "kernel.yaml"), "version: 1\nwasn: k.wasm\n")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"nothing"}, "no bundled kernel"},
		{[]string{dir + "/"}, `line 2: unknown field "wasn"; did you mean "wasm"?`},
		{[]string{"threshold", "--param", "x"}, "NAME=VALUE is needed"},
		{[]string{"threshold", "--size", "lots"}, "--size"},
		{[]string{"matmul", "--input", filepath.Join(dir, "kernel.yaml")}, "does not begin with QNA1"},
	} {
		out, err := runQuern(append([]string{"kernel", "test"}, c.args...)...)
		if err == nil || !strings.Contains(fmt.Sprint(err, out), c.want) {
			t.Errorf("quern kernel test %q: %v\n%s", c.args, err, out)
		}
	}
}

// TestStatic: quern needs no C library, so that it starts anywhere; what does
// is in programs of their own.
func TestStatic(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "quernfs/cmd/quern").Output()
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range strings.SplitSeq(string(out), "\n") {
		if pkg == "runtime/cgo" || strings.HasPrefix(pkg, "github.com/ebitengine/purego") {
			t.Errorf("quern is linked with %s", pkg)
		}
	}
}
