package offload

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/place"
	"quernfs/offload/rtl"
	"quernfs/offload/rtl/rtltest"
	"quernfs/offload/trial"
	"quernfs/offload/worker"
)

// register puts a kernel into the mount.
func (r *rig) register(name string, files map[string][]byte) {
	r.t.Helper()
	for file, data := range files {
		r.write("/.compute/kernels/"+name+"/1/"+file, string(data))
	}
}

// simulated is an agent with a simulated device, and the kernel that proves it.
type simulated struct {
	files   map[string][]byte // of the kernel threshold, signed
	keys    string            // the file of trusted keys
	devices func() []*wire.Device
}

// startSimulated runs an agent with a simulated device.
func (r *rig) startSimulated(change func(*AgentConfig)) *simulated {
	r.t.Helper()
	if testing.Short() {
		r.t.Skip("it builds a worker and compiles a model")
	}
	files, trusted := rtltest.Threshold(r.t)
	command, err := deviceWorker()
	if err != nil {
		r.t.Fatal(err)
	}
	dir := r.t.TempDir()
	rtltest.Write(r.t, dir, files)
	s := &simulated{files: files, keys: filepath.Join(r.t.TempDir(), "keys")}
	s.trust(r.t, trusted)
	r.startAgent("a", func(c *AgentConfig) {
		// The runtime opencl is of no interest here.
		c.Devices, c.WorkerEnv = command, []string{"QUERN_TEST_ROLE=worker", "OCL_ICD_VENDORS=/nonexistent", "OPENCL_VENDOR_PATH=/nonexistent"}
		c.FPGA = FPGAConfig{Keys: s.keys, Simulate: dir}
		if change != nil {
			change(c)
		}
	})
	s.devices = r.lastAgent().Devices
	return s
}

// trust adds a line to the trusted keys.
func (s *simulated) trust(t *testing.T, line string) {
	t.Helper()
	f, err := os.OpenFile(s.keys, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(line); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// rtlOnly is the manifest of threshold without its other variants.
func rtlOnly(t *testing.T, manifest []byte) []byte {
	t.Helper()
	_, part, ok := strings.Cut(string(manifest), "\nrtl:\n")
	if !ok {
		t.Fatal("the manifest of threshold has no rtl")
	}
	return []byte("version: 1\nrtl:\n" + part)
}

// TestSimulatedDevice: a model runs on a simulated device, for a job that allows
// that; its cycles are reported; no other job is given the device.
func TestSimulatedDevice(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	s := r.startSimulated(nil)
	r.register("threshold", s.files)
	r.write("/f", floats(0.5, 2, -3, 4, 1))
	r.untilDevice(s.devices, DeviceReady)
	if all := s.devices(); len(all) != 1 || !all[0].Simulated || all[0].Name != "rtl:0" {
		t.Fatalf("%v", all)
	}
	const params = "version: 1\nkernel: threshold\nparams: {threshold: 1}\ninputs: [/f]\n"
	want := floats(0, 2, 0, 4, 1)
	id := r.submit("allowed", params+"runtime: rtl\nplacement: {simulated: true}\n")
	job, tasks := r.wait(id)
	x := tasks[0]
	if job.State != StateSucceeded || r.outputs(id)["output"] != want {
		t.Fatalf("%s: %s: %q", job.State, x.Reason, r.outputs(id))
	}
	// Three beats, and what the pipeline takes; 4 ns each at 250 MHz.
	if x.Device != "rtl:0" || x.Runtime != "rtl" || x.Cycles < 4 || x.Cycles > 8 || x.DeviceNs != int64(4*x.Cycles) {
		t.Errorf("on %s by %s: %d cycles, %d ns", x.Device, x.Runtime, x.Cycles, x.DeviceNs)
	}
	for _, text := range []string{usageText(job, tasks, time.Now()), taskText("usage", x, time.Now())} {
		if !strings.Contains(text, fmt.Sprintf("\ncycles %d\n", x.Cycles)) || !strings.Contains(text, "device_seconds 0.0000") {
			t.Errorf("usage: %s", text)
		}
	}
	id = r.submit("either", params+"runtime: [rtl, wasm]\n")
	if job, tasks = r.wait(id); job.State != StateSucceeded || tasks[0].Runtime != "wasm" || r.outputs(id)["output"] != want {
		t.Errorf("%s by %s: %s", job.State, tasks[0].Runtime, tasks[0].Reason)
	}
	id = r.submit("both", params+"runtime: [rtl, wasm]\nplacement: {simulated: true}\n")
	if job, tasks = r.wait(id); job.State != StateSucceeded || tasks[0].Runtime != "rtl" {
		t.Errorf("%s by %s: %s", job.State, tasks[0].Runtime, tasks[0].Reason)
	}
	_, err := (&Submitter{Files: r.files(), Meta: r}).Submit(t.Context(), rootCred, "never", []byte(params+"runtime: rtl\n"))
	if err == nil || !strings.Contains(sentence(err), "simulated devices only") {
		t.Errorf("without leave: %v", err)
	}
}

// TestUnsigned: what is not signed is not loaded, nor what was signed by others or
// has changed since, and the reason says so; a job that allows wasm, too, goes on
// with that. What an administrator signs or trusts meanwhile is taken.
func TestUnsigned(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	s := r.startSimulated(nil)
	r.write("/f", floats(5, -6))
	signature, line := rtltest.Key(t)
	files := maps.Clone(s.files)
	files["k.so.sig"] = signature(files["k.so"], files["kernel.yaml"])
	r.register("foreign", files)
	files = maps.Clone(s.files)
	files["kernel.yaml"] = append(slices.Clone(files["kernel.yaml"]), "# changed\n"...)
	r.register("changed", files)
	delete(files, "k.so.sig")
	r.register("unsigned", files)
	delete(files, "k.so")
	r.register("unbuilt", files)
	r.register("alone", map[string][]byte{"kernel.yaml": rtlOnly(t, s.files["kernel.yaml"]), "k.so": s.files["k.so"]})
	r.untilDevice(s.devices, DeviceReady)

	submit := func(name, kernel, runtime string) (uint64, error) {
		return (&Submitter{Files: r.files(), Meta: r}).Submit(t.Context(), rootCred, name,
			[]byte("version: 1\nkernel: "+kernel+"\n"+runtime+"retries: 0\ninputs: [/f]\nplacement: {simulated: true}\n"))
	}
	for _, kernel := range []string{"unsigned", "unbuilt", "alone"} {
		want := "line 3: the variant of kernel " + kernel + "@1 for rtl lacks its file, or the signature beside that (.sig)"
		if _, err := submit("refused-"+kernel, kernel, "runtime: rtl\n"); err == nil || !strings.HasPrefix(sentence(err), want) {
			t.Errorf("%s: %v", kernel, err)
		}
	}
	if _, err := submit("refused", "alone", ""); err == nil || !strings.HasPrefix(sentence(err), "line 2: the variant of kernel alone@1") {
		t.Error(err)
	}
	for _, c := range []struct{ name, kernel, runtime, device, reason string }{
		{"a", "foreign", "rtl", "", "k.so is not loaded: nobody whom this host trusts has signed it"},
		{"b", "changed", "rtl", "", "k.so is not loaded: its signature is wrong: a test has not signed this file with this kernel.yaml"},
		{"c", "foreign", "[rtl, wasm]", "cpu", "done"},
		{"d", "changed", "[rtl, wasm]", "cpu", "done"},
		{"e", "unsigned", "[rtl, wasm]", "cpu", "done"},
	} {
		id, err := submit(c.name, c.kernel, "runtime: "+c.runtime+"\n")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		job, tasks := r.wait(id)
		ok := c.device != "" && job.State == StateSucceeded && tasks[0].Device == c.device && r.outputs(id)["output"] == floats(5, 0) ||
			c.device == "" && job.State == StateFailed
		if !ok || !strings.Contains(tasks[0].Reason, c.reason) {
			t.Errorf("%s: %s on %s: %s", c.name, job.State, tasks[0].Device, tasks[0].Reason)
		}
	}
	if all := s.devices(); all[0].State != DeviceReady {
		t.Errorf("the device has to answer for what was not signed: %v", all[0])
	}
	s.trust(t, line)
	id, err := submit("now", "foreign", "runtime: rtl\n")
	if err != nil {
		t.Fatal(err)
	}
	if job, tasks := r.wait(id); job.State != StateSucceeded || tasks[0].Device != "rtl:0" {
		t.Errorf("%s on %s: %s", job.State, tasks[0].Device, tasks[0].Reason)
	}
}

// badModel is a model in C that misbehaves in its first step.
const badModel = `#include "quern_rtl.h"
#include <stdlib.h>
uint32_t quern_rtl_version(void) { return QUERN_RTL_VERSION; }
uint32_t quern_rtl_width(void) { return 1; }
uint32_t quern_rtl_params(void) { return 0; }
const char *quern_rtl_param(uint32_t i) { return 0; }
static int model;
void *quern_rtl_open(void) { return &model; }
int quern_rtl_set(void *m, uint32_t p, uint32_t v) { return 1; }
int quern_rtl_step(void *m, struct quern_rtl_step *s) { MISBEHAVE; return QUERN_RTL_GOES_ON; }
void quern_rtl_close(void *m) {}
`

// TestBadModels: a model that crashes or does not end costs its process; after two
// jobs the device is quarantined, until it has computed its known answer again.
func TestBadModels(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc on this host: ", err)
	}
	r := newRig(t)
	r.lead(SchedulerConfig{})
	s := r.startSimulated(func(c *AgentConfig) { c.ProbeAfter = time.Second })
	signature, line := rtltest.Key(t)
	s.trust(t, line)
	manifest := []byte("version: 1\nrtl: {width: 1, clock: 1MHz}\n")
	for name, does := range map[string]string{"loops": "for (volatile int x = 1; x;) {}", "crashes": "abort()"} {
		dir := t.TempDir()
		rtltest.Write(t, dir, map[string][]byte{"quern_rtl.h": []byte(rtl.Header()), "k.c": []byte(badModel)})
		file := filepath.Join(dir, "k.so")
		cmd := exec.Command(gcc, "-shared", "-fPIC", "-DMISBEHAVE="+does, "-o", file, "k.c")
		cmd.Dir = dir
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		model, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r.register(name, map[string][]byte{"kernel.yaml": manifest, "k.so": model, "k.so.sig": signature(model, manifest)})
	}
	r.register("threshold", s.files)
	r.write("/f", floats(5, -6))
	r.untilDevice(s.devices, DeviceReady)
	seen := r.watch(s.devices)
	const rest = "retries: 0\ninputs: [/f]\nplacement: {simulated: true}\n"
	for _, c := range []struct{ kernel, more, reason string }{{"loops", "timeout: 2s\n", "time-out: stopped after 2s"}, {"crashes", "", "the worker process ended: exit status 2: SIGABRT: abort"}} {
		if reason := seen(); reason != "" {
			t.Errorf("one job alone has put the device into quarantine: %s", reason)
		}
		id := r.submit(c.kernel, "version: 1\nkernel: "+c.kernel+"\n"+c.more+rest)
		if job, tasks := r.wait(id); job.State != StateFailed || !strings.Contains(tasks[0].Reason, c.reason) {
			t.Errorf("%s: %s: %s", c.kernel, job.State, tasks[0].Reason)
		}
	}
	r.until("the device is quarantined for both jobs", func() bool {
		return strings.Contains(seen(), "jobs 1 and 2 failed on it; the last: the worker process ended: exit status 2: SIGABRT")
	})
	id := r.submit("after", "version: 1\nkernel: threshold\nruntime: rtl\n"+rest)
	if job, tasks := r.wait(id); job.State != StateSucceeded || tasks[0].Device != "rtl:0" || r.outputs(id)["output"] != floats(5, 0) {
		t.Errorf("%s on %s: %s", job.State, tasks[0].Device, tasks[0].Reason)
	}
}

// TestUnproved: a simulated device whose kernel gives a wrong answer, or is not
// signed, is not offered, and the reason can be read.
func TestUnproved(t *testing.T) {
	for name, c := range map[string]struct {
		change func(c *AgentConfig)
		reason string
	}{
		"wrong": {func(c *AgentConfig) {
			rtltest.Write(t, c.FPGA.Simulate, map[string][]byte{"test.out": make([]byte, 1020)})
		}, "computes the known answer wrongly"},
		"unsigned": {func(c *AgentConfig) {
			if err := os.Remove(filepath.Join(c.FPGA.Simulate, "k.so.sig")); err != nil {
				t.Fatal(err)
			}
		}, "k.so is not loaded: it is not signed"},
		"nobody is trusted": {func(c *AgentConfig) { c.FPGA.Keys = "" }, "this host trusts no key"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.lead(SchedulerConfig{})
			s := r.startSimulated(c.change)
			r.untilDevice(s.devices, DeviceQuarantined)
			if reason := s.devices()[0].Reason; !strings.Contains(reason, c.reason) {
				t.Errorf("%s", reason)
			}
		})
	}
}

const bitManifest = `version: 1
compare: {as: float32}
test: {input: test.in, output: test.out, params: {threshold: 0.25}}
fpga:
  file: k.aocx
  params: {threshold: {type: float}}
  input: [{stream: in, type: float}]
  buffers: {out: {type: float, count: in.n}}
  run: [{entry: threshold_filter, args: [in, out, in.n, param.threshold], global: [in.n], local: [64]}]
  output: {raw: out}
`

// TestBitstream: a bitstream runs on a device of OpenCL, which here is none but
// takes what PoCL has compiled before for one, and so is a simulated one.
func TestBitstream(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	devices := r.startDeviceAgent("a", func(c *AgentConfig) { c.Dir = t.TempDir() })
	r.untilDevice(devices, DeviceReady)
	agent := r.lastAgent()
	r.write("/f", floats(5, -6))
	if job, _ := r.wait(r.submit("compile", "version: 1\nkernel: threshold\nruntime: opencl\ninputs: [/f]\n")); job.State != StateSucceeded {
		t.Fatal(job.Reason)
	}
	// What the worker for OpenCL keeps is a digest, and the program after it.
	kept, err := filepath.Glob(filepath.Join(agent.cfg.Dir, "opencl", "programs", "*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("%q, %v", kept, err)
	}
	program, err := os.ReadFile(kept[0])
	if err != nil || len(program) < 33 {
		t.Fatal(len(program), err)
	}
	signature, trusted := rtltest.Key(t)
	bundle, err := trial.Bundled("threshold")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, name := range []string{"test.in", "test.out"} {
		if files[name], _, err = bundle.File(name); err != nil {
			t.Fatal(err)
		}
	}
	files["kernel.yaml"], files["k.aocx"] = []byte(bitManifest), program[32:]
	files["k.aocx.sig"] = signature(files["k.aocx"], files["kernel.yaml"])
	dir, keys := t.TempDir(), filepath.Join(t.TempDir(), "keys")
	rtltest.Write(t, dir, files)
	if err := os.WriteFile(keys, []byte(trusted), 0o600); err != nil {
		t.Fatal(err)
	}
	r.register("bits", files)
	env := append(slices.Clone(agent.cfg.WorkerEnv), "QUERN_FPGA_ANY=1")
	if report, err := worker.Probe(t.Context(), worker.Config{Command: agent.cfg.Devices, Env: env}, "fpga", "", time.Minute); err != nil || len(report.Devices) == 0 {
		t.Fatal(report, err)
	}
	r.startAgent("b", func(c *AgentConfig) {
		c.Devices, c.WorkerEnv, c.FPGA = agent.cfg.Devices, env, FPGAConfig{Keys: keys, Known: dir}
	})
	all := r.lastAgent().Devices
	if !offeredSoon(all, func(all []*wire.Device) bool {
		return slices.ContainsFunc(all, func(d *wire.Device) bool { return d.Runtime == "fpga" && d.State == DeviceReady && d.Simulated })
	}) {
		t.Fatalf("the FPGA is not offered: %v", all())
	}
	id := r.submit("job", "version: 1\nkernel: bits\nparams: {threshold: 1}\ninputs: [/f]\nplacement: {simulated: true}\n")
	if job, tasks := r.wait(id); job.State != StateSucceeded || tasks[0].Runtime != "fpga" || r.outputs(id)["output"] != floats(5, 0) {
		t.Errorf("%s by %s: %s", job.State, tasks[0].Runtime, tasks[0].Reason)
	}
}

// TestCircuitRate: what a model has taken, in cycles, is how fast the circuit is
// expected to be before it has run.
func TestCircuitRate(t *testing.T) {
	k := newKnowledge(place.Model{})
	ref := &wire.KernelRef{Name: "k@1", Digest: []byte{1}, Runtimes: []string{"fpga", "rtl"}, Rates: []uint64{2e9, 0}}
	key := variantKey(ref, "rtl")
	if rate := k.circuit(key); rate != 0 {
		t.Errorf("before it has run: %g", rate)
	}
	// A second on the host, in which the circuit would have been done in 10 ms.
	k.succeeded(ended{kernel: key, in: 1e6, bytes: 1e6, timing: &wire.Timing{RunNs: 1e9}, modelled: 10 * time.Millisecond})
	if rate := k.circuit(key); rate != 1e8 {
		t.Errorf("%g bytes a second", rate)
	}
	if rate := k.circuit(variantKey(ref, "fpga")); rate != 0 {
		t.Errorf("the circuit itself has not run: %g", rate)
	}
}

// TestCircuitHint: where only the model of a circuit has run, a task for the FPGA is
// predicted by the cycles of the model, not by the promise of the manifest.
func TestCircuitHint(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	ref := &wire.KernelRef{Name: "circuit@1", Digest: []byte{1}, Runtimes: []string{"fpga", "rtl"}, Rates: []uint64{1 << 30, 0},
		Manifest: []byte(bitManifest), Files: []*wire.KernelFile{{Name: "k.aocx", Digest: []byte{2}}}}
	p := &puppet{r: r, node: r.addNode("agent", "a", "h"), devices: []*wire.Device{
		{Name: "rtl:0", Class: "rtl model", Runtime: "rtl", State: DeviceReady, Slots: 1, Simulated: true},
		{Name: "fpga:0", Class: "fpga model", Runtime: "fpga", State: DeviceReady, Slots: 1},
	}}
	predicted := func(name string) *wire.Place {
		t.Helper()
		placed(r, name, 1, "runtime: fpga\n", ref)
		s := p.get(1)[0]
		if err := p.end(s, StateFailed, 1); err != nil { // it teaches nothing
			t.Fatal(err)
		}
		x := s.Task.Placement.Places[s.Task.Placement.Chosen]
		if x.Runtime != "fpga" || x.Device != "fpga:0" {
			t.Fatalf("it runs with %s on %s", x.Runtime, x.Device)
		}
		return x
	}
	// Tasks have 1 MiB, and each is thought to need 20 ms beside.
	if x := predicted("before"); x.RunUs < 20_900 || x.RunUs > 21_100 {
		t.Errorf("by the manifest it takes %d µs, from %s", x.RunUs, x.Source)
	}
	placed(r, "model", 1, "runtime: rtl\nplacement: {simulated: true}\n", ref)
	s := p.get(1)[0]
	done := p.ended
	if err := p.end(s, StateSucceeded, 0); err != nil {
		t.Fatal(err)
	}
	e := p.ended[len(done)]
	e.BytesIn, e.DeviceNs, e.Timing = 1<<20, 20e6, &wire.Timing{RunNs: 5e9}
	if _, err := p.poll(t.Context(), 0, 0); err != nil { // it is told before the next is placed
		t.Fatal(err)
	}
	if x := predicted("after"); x.RunUs < 39_000 || x.RunUs > 41_000 {
		t.Errorf("by the cycles of the model it takes %d µs, from %s", x.RunUs, x.Source)
	}
}
