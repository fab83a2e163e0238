package offload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/trial"
	"quernfs/offload/worker"
)

// deviceWorker builds a worker for devices.
var deviceWorker = sync.OnceValues(func() ([]string, error) {
	out := filepath.Join(agentDir, "deviceworker")
	cmd := exec.Command("go", "build", "-o", out, "quernfs/offload/clworker/workercmd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building a worker: %w\n%s", err, text)
	}
	return []string{out}, nil
})

// startDeviceAgent runs an agent that looks for devices. The test is skipped
// where there is none. It returns what the agent says of its devices.
func (r *rig) startDeviceAgent(name string, change func(*AgentConfig)) (devices func() []*wire.Device) {
	r.t.Helper()
	if testing.Short() {
		r.t.Skip("it builds a worker and compiles kernels")
	}
	command, err := deviceWorker()
	if err != nil {
		r.t.Fatal(err)
	}
	// What one agent's device has compiled, the next need not.
	env := append(trial.Environ(os.Environ()), "POCL_CACHE_DIR="+filepath.Join(agentDir, "pocl"))
	report, err := worker.Probe(r.t.Context(), worker.Config{Command: command, Env: env}, "opencl", "", time.Minute)
	if err != nil {
		r.t.Skip("no OpenCL on this host (Debian: pocl-opencl-icd, ocl-icd-libopencl1): ", err)
	}
	if len(report.Devices) == 0 {
		r.t.Skip("libOpenCL is here, but no device (Debian: pocl-opencl-icd)")
	}
	r.startAgent(name, func(c *AgentConfig) {
		c.Devices, c.WorkerEnv = command, append(env, "QUERN_TEST_ROLE=worker")
		if change != nil {
			change(c)
		}
	})
	return r.lastAgent().Devices
}

func (r *rig) lastAgent() *Agent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.agents[len(r.agents)-1]
}

// untilDevice waits for the first device to be in a state: compiling for it
// the first time may take long.
func (r *rig) untilDevice(devices func() []*wire.Device, state string) {
	r.t.Helper()
	if !offeredSoon(devices, func(all []*wire.Device) bool { return len(all) > 0 && all[0].State == state }) {
		r.t.Fatalf("the device is not %s: %v", state, devices())
	}
}

// offeredSoon waits until what an agent says of its devices is right.
func offeredSoon(devices func() []*wire.Device, right func([]*wire.Device) bool) bool {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); <-ticker.C {
		if right(devices()) {
			return true
		}
	}
	return false
}

func floats(values ...float32) string {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return string(b)
}

func arrayFile(rows, cols uint32, values ...float32) string {
	b := binary.LittleEndian.AppendUint32([]byte("QNA1"), rows)
	return string(binary.LittleEndian.AppendUint32(b, cols)) + floats(values...)
}

// wantDevice fails unless a map task of the job ran on a device of OpenCL.
func wantDevice(t *testing.T, tasks []*wire.Task) {
	t.Helper()
	for _, x := range tasks {
		if x.Phase == "reduce" {
			if x.Device != "cpu" || x.Runtime != "wasm" {
				t.Errorf("the reduce step ran on %s by %s", x.Device, x.Runtime)
			}
		} else if !strings.HasPrefix(x.Device, "opencl:") || x.Runtime != "opencl" || x.DeviceNs <= 0 {
			t.Errorf("task %d ran on %q by %q, for %d ns", x.N, x.Device, x.Runtime, x.DeviceNs)
		}
	}
}

// TestDeviceJobs: bundled kernels and one of the mount run on a device, with
// map, reduce and params; a job that waits for a device says so before.
func TestDeviceJobs(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{LostAfter: 50 * time.Millisecond})
	data := bytes.Repeat([]byte("hello, world\n"), 10_000)
	for i := range 3 {
		r.write(fmt.Sprintf("/data/%d", i), string(data))
	}
	r.write("/m/a", arrayFile(2, 3, 1, 2, 3, 4, 5, 6))
	r.write("/m/b", arrayFile(3, 1, 1, 10, 100))
	r.write("/f", floats(0.5, 2, -3, 4))
	r.write("/.compute/kernels/twice/1/kernel.yaml", `version: 1
opencl:
  input: [{stream: in, type: float}]
  run: [{entry: twice, args: [in, in.n], global: [in.n], local: [64]}]
  output: {raw: in}
`)
	r.write("/.compute/kernels/twice/1/k.cl", "__kernel void twice(__global float *x, uint n) { size_t i = get_global_id(0); if (i < n) x[i] *= 2; }")
	early := r.submit("early", "version: 1\nkernel: threshold\nruntime: opencl\nparams: {threshold: 1}\ninputs: [/f]\n")
	r.until("the job says what it waits for", func() bool {
		job, _, err := getJob(t.Context(), r, early, false)
		return err == nil && strings.Contains(job.Reason, "no host that runs opencl is connected")
	})
	devices := r.startDeviceAgent("a", nil)

	jobs := map[string]uint64{
		"histogram": r.submit("histogram", "version: 1\nkernel: histogram\nruntime: [opencl, wasm]\ninputs: [/data]\nsplit: file\nreduce: {}\n"),
		"matmul":    r.submit("matmul", "version: 1\nkernel: matmul\nruntime: opencl\ninputs: [/m]\nsplit: none\n"),
		"twice":     r.submit("twice", "version: 1\nkernel: twice\ninputs: [/f]\n"),
		"early":     early,
	}
	want := map[string]string{
		"matmul": arrayFile(2, 1, 321, 654), "twice": floats(1, 4, -6, 8), "early": floats(0, 2, 0, 4),
	}
	for name, id := range jobs {
		job, tasks := r.wait(id)
		if job.State != StateSucceeded {
			t.Errorf("%s: %s: %s", name, job.State, job.Reason)
			continue
		}
		out := r.outputs(id)["output"]
		if name == "histogram" { // it may have begun before a device was offered
			if !strings.Contains(out, fmt.Sprintf("\n%d 90000\n", 'l')) || !strings.Contains(out, "\n10 30000\n") {
				t.Errorf("histogram: %q", out)
			}
			continue
		}
		wantDevice(t, tasks)
		if out != want[name] {
			t.Errorf("%s: %q, want %q", name, out, want[name])
		}
	}
	// The device's worker is ended when it has been idle for long, and comes back.
	r.lastAgent().devices.reap(time.Now().Add(time.Hour))
	for _, x := range r.lastAgent().devices.list() {
		if x.process != nil {
			t.Error("an idle worker lives on")
		}
	}
	// Now that a device is offered, the preferred runtime is the one that is used.
	id := r.submit("again", "version: 1\nkernel: histogram\nruntime: [opencl, wasm]\ninputs: [/data]\nreduce: {}\n")
	_, tasks := r.wait(id)
	wantDevice(t, tasks)
	if r.outputs(id)["output"] != r.outputs(jobs["histogram"])["output"] {
		t.Error("the two runtimes differ")
	}
	all := devices()
	if len(all) == 0 || all[0].State != DeviceReady || all[0].Model == "" || !strings.HasPrefix(all[0].Name, "opencl:") {
		t.Errorf("%v", all)
	}
	text := hostText("devices", &wire.NodeStatus{Node: &wire.Node{Runtimes: []string{"wasm"}}, Slots: 2, Devices: all})
	if !strings.Contains(text, all[0].Name+" state=ready") || !strings.HasPrefix(text, "cpu runtimes=wasm slots=2\n") {
		t.Errorf("hosts/HOST/devices: %s", text)
	}
	job, _, err := getJob(t.Context(), r, jobs["matmul"], false)
	if err != nil {
		t.Fatal(err)
	}
	if text := provenanceText(job, nil); !strings.Contains(text, "file k.cl sha256:") {
		t.Errorf("the provenance lacks the source: %s", text)
	}
}

const checkedKernel = `version: 1
wasm: k.wasm
args: [threshold]
compare: {as: float32}
test: {input: in.bin}
opencl:
  input: [{stream: in, type: float}]
  buffers: {out: {type: float, count: in.n}}
  run: [{entry: filter, args: [in, out, in.n], global: [in.n], local: [64]}]
  output: {raw: out}
`

// TestWrongVariant: a variant whose result differs from the reference on this
// host's device is not used: the job runs with another that it allows, or
// fails in words.
func TestWrongVariant(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	for name, value := range map[string]string{"right": "max(in[i], 0.0f)", "wrong": "in[i] + 1", "foreign": "max(0.0f, in[i])", "open": "fmax(in[i], 0.0f)"} {
		dir := "/.compute/kernels/" + name + "/1/"
		r.write(dir+"kernel.yaml", checkedKernel)
		r.write(dir+"k.wasm", bundledWasm(t))
		r.write(dir+"in.bin", floats(1, -2, 3))
		r.write(dir+"k.cl", "__kernel void filter(__global const float *in, __global float *out, uint n) { size_t i = get_global_id(0); if (i < n) out[i] = "+value+"; }")
	}
	// What others may have written does not run on a processor.
	for name, change := range map[string]*wire.SetAttr{
		"foreign": {Mask: wire.SetUID, Uid: 1000}, "open": {Mask: wire.SetMode, Mode: 0o666},
	} {
		in, err := r.Stat(t.Context(), "/.compute/kernels/"+name+"/1/k.cl")
		if err != nil {
			t.Fatal(err)
		}
		change.Ino = in.Attr.Ino
		r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: change}})
	}
	r.write("/f", floats(5, -6))
	devices := r.startDeviceAgent("a", nil)
	r.untilDevice(devices, DeviceReady)
	cpu := devices()[0].Type == "cpu"
	for _, c := range []struct{ name, kernel, runtime, device, reason string }{
		{"a", "right", "opencl", "opencl:", "done"},
		{"b", "wrong", "[opencl, wasm]", "cpu", "done"},
		{"d", "foreign", "opencl", "", "belongs to uid 1000 and has mode 0644"},
		{"e", "open", "opencl", "", "belongs to uid 0 and has mode 0666"},
		{"c", "wrong", "opencl", "", "kernel wrong@1: its result differs from the reference: number 0 is 2 instead of 1"},
	} {
		if !cpu && (c.kernel == "foreign" || c.kernel == "open") {
			continue // that rule is for devices which are processors
		}
		id := r.submit(c.name, "version: 1\nkernel: "+c.kernel+"\nruntime: "+c.runtime+"\nretries: 0\ninputs: [/f]\n")
		job, tasks := r.wait(id)
		if !strings.Contains(tasks[0].Reason, c.reason) {
			t.Errorf("%s: %s, %s", c.name, job.State, tasks[0].Reason)
		}
		if c.device == "" {
			if job.State != StateFailed {
				t.Errorf("%s: %s", c.name, job.State)
			}
			continue
		}
		if job.State != StateSucceeded || !strings.HasPrefix(tasks[0].Device, c.device) || r.outputs(id)["output"] != floats(5, 0) {
			t.Errorf("%s: %s on %s: %q", c.name, job.State, tasks[0].Device, r.outputs(id))
		}
	}
}

// watch looks at the first device all the time. What it returns tells why the
// device was quarantined, if it was.
func (r *rig) watch(devices func() []*wire.Device) (seen func() string) {
	var mu sync.Mutex
	reason := ""
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		for {
			if x := devices()[0]; x.State == DeviceQuarantined {
				mu.Lock()
				reason = x.Reason
				mu.Unlock()
			}
			select {
			case <-ticker.C:
			case <-stop:
				return
			}
		}
	}()
	r.t.Cleanup(func() { close(stop); <-done })
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return reason
	}
}

// TestQuarantine: kernels that do not come to an end, of two different jobs,
// take a device out of service until it has computed its known answer again.
func TestQuarantine(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.write("/.compute/kernels/hang/1/kernel.yaml", `version: 1
opencl:
  input: [{stream: in, type: uint}]
  run: [{entry: hang, args: [in], global: [64]}]
  output: {raw: in}
`)
	r.write("/.compute/kernels/hang/1/k.cl", "__kernel void hang(__global uint *x) { while (*(volatile __global uint *)x != 12345) ; }")
	r.write("/x", "1234")
	r.write("/f", floats(5, -6))
	devices := r.startDeviceAgent("a", func(c *AgentConfig) { c.ProbeAfter = time.Second })
	r.untilDevice(devices, DeviceReady)
	seen := r.watch(devices)
	for _, name := range []string{"a", "b"} {
		if reason := seen(); reason != "" {
			t.Errorf("one job alone has put the device into quarantine: %s", reason)
		}
		id := r.submit(name, "version: 1\nkernel: hang\nretries: 0\ntimeout: 2s\ninputs: [/x]\n")
		if job, _ := r.wait(id); job.State != StateFailed || !strings.Contains(job.Reason, "time-out") {
			t.Errorf("%s: %s %s", name, job.State, job.Reason)
		}
	}
	r.until("the device is quarantined for both jobs", func() bool {
		return strings.Contains(seen(), "jobs 1 and 2 failed on it; the last: time-out")
	})
	id := r.submit("after", "version: 1\nkernel: threshold\nruntime: opencl\ninputs: [/f]\n")
	r.untilDevice(devices, DeviceReady)
	job, tasks := r.wait(id)
	if job.State != StateSucceeded || r.outputs(id)["output"] != floats(5, 0) {
		t.Errorf("%s %s", job.State, job.Reason)
	}
	wantDevice(t, tasks)
}

// TestNoDevice: without a helper, or with one that fails, an agent does what
// needs no device.
func TestNoDevice(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", func(c *AgentConfig) { c.Devices = []string{"/bin/false"} })
	r.write("/f", floats(5, -6))
	id := r.submit("x", "version: 1\nkernel: threshold\nruntime: [opencl, wasm]\ninputs: [/f]\n")
	job, tasks := r.wait(id)
	if job.State != StateSucceeded || tasks[0].Device != "cpu" || r.outputs(id)["output"] != floats(5, 0) {
		t.Errorf("%s %s on %s", job.State, job.Reason, tasks[0].Device)
	}
	if all := r.lastAgent().Devices(); len(all) != 0 {
		t.Errorf("devices %v", all)
	}
}

func TestSubmitRuntimes(t *testing.T) {
	r := newRig(t)
	r.write("/x", "x")
	r.write("/.compute/kernels/only/1/kernel.yaml", "version: 1\nopencl:\n  input: [{stream: in}]\n  run: [{entry: f, args: [in], global: [in.n]}]\n  output: {raw: in}\n")
	r.write("/.compute/kernels/only/1/k.cl", "__kernel void f(__global float *x) {}")
	r.write("/.compute/kernels/lacks/1/kernel.yaml", "version: 1\nopencl:\n  file: no.cl\n  input: [{stream: in}]\n  run: [{entry: f, args: [in], global: [in.n]}]\n  output: {raw: in}\n")
	s := Submitter{Files: r.files(), Meta: r}
	for spec, want := range map[string]string{
		"kernel: grep\nruntime: opencl":       "line 3: kernel grep@1 has no variant for opencl; it has wasm",
		"kernel: only\nruntime: [wasm]":       "line 3: kernel only@1 has no variant for wasm; it has opencl",
		"kernel: only\nreduce: {}":            "the reduce step needs a wasm variant, and kernel only@1 has opencl",
		"kernel: lacks":                       "line 2: there is no /.compute/kernels/lacks/1/no.cl",
		"wasm: /x\nruntime: [opencl]":         "line 2: /x is not a WebAssembly module",
		"kernel: histogram\nruntime: [cuda]":  "",
		"kernel: histogram\nruntime: opencl ": "",
	} {
		_, err := s.Submit(t.Context(), rootCred, "job"+fmt.Sprint(len(spec)), []byte("version: 1\n"+spec+"\ninputs: [/x]\n"))
		if want == "" && err != nil || want != "" && (err == nil || sentence(err) != want) {
			t.Errorf("%q: %v\nwant %s", spec, err, want)
		}
	}
}

func TestCandidates(t *testing.T) {
	wasm, cl := &wire.KernelRef{}, &wire.KernelRef{Runtimes: []string{"opencl"}}
	both := &wire.KernelRef{Runtimes: []string{"opencl", "wasm"}}
	file := []*wire.KernelFile{{Name: "k.cl", Ino: 7}}
	const manifest = "version: 1\nwasm: k.wasm\nopencl:\n  input: [{stream: in}]\n  run: [{entry: f, args: [in], global: [in.n]}]\n  output: {raw: in}\n"
	untested := &wire.KernelRef{Runtimes: both.Runtimes, Files: file, Manifest: []byte(manifest)}
	tested := &wire.KernelRef{Runtimes: both.Runtimes, Files: file, Manifest: []byte(manifest + "test: {input: i}\n")}
	for _, c := range []struct {
		prefer []string
		ref    *wire.KernelRef
		reduce bool
		want   []string
	}{
		{nil, wasm, false, []string{"wasm"}},
		{nil, nil, false, []string{"wasm"}},
		{nil, cl, false, []string{"opencl"}},
		{nil, both, false, []string{"wasm", "opencl"}}, // one of those in the binary
		{nil, untested, false, []string{"wasm"}},
		{nil, tested, false, []string{"wasm", "opencl"}},
		{[]string{"opencl"}, untested, false, []string{"opencl"}},
		{[]string{"opencl"}, both, false, []string{"opencl"}},
		{[]string{"opencl", "wasm"}, both, false, []string{"opencl", "wasm"}},
		{[]string{"opencl", "wasm"}, wasm, false, []string{"wasm"}},
		{[]string{"opencl"}, both, true, []string{"wasm"}},
		{[]string{"opencl"}, cl, true, nil},
		{[]string{"opencl"}, wasm, false, nil},
	} {
		if got := candidates(c.prefer, c.ref, c.reduce); !slices.Equal(got, c.want) {
			t.Errorf("%v of %v, reduce %v: %v, want %v", c.prefer, runtimesOf(c.ref), c.reduce, got, c.want)
		}
	}
}
