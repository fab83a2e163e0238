package offload

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/cudastub"
	"quernfs/offload/sandbox"
	"quernfs/offload/worker"
)

// cudaProgram builds quern-cuda for the stub of a driver.
var cudaProgram = sync.OnceValues(func() (string, error) { return cudastub.Build(filepath.Join(agentDir, "cuda")) })

// startCUDAAgent runs an agent whose host has a GPU, which is a stub that behaves
// as env says.
func (r *rig) startCUDAAgent(env ...string) (devices func() []*wire.Device) {
	r.t.Helper()
	if testing.Short() {
		r.t.Skip("it builds programs")
	}
	if err := os.MkdirAll(filepath.Join(agentDir, "cuda"), 0o755); err != nil {
		r.t.Fatal(err)
	}
	program, err := cudaProgram()
	if errors.Is(err, cudastub.ErrNoCompiler) {
		r.t.Skip(err)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.startAgent("a", func(c *AgentConfig) {
		c.Devices, c.ProbeAfter = []string{program}, 50*time.Millisecond
		c.Speed = leastSpeed // so that whatever may run on the GPU does
		c.WorkerEnv = append(append(os.Environ(), "QUERN_TEST_ROLE=worker"), env...)
	})
	return r.lastAgent().Devices
}

// TestCUDAJobs: jobs for the runtime cuda run on a (stub of a) GPU, with a
// bundled kernel and one of the mount; the results are those of the wasm variant.
func TestCUDAJobs(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.write("/m/a", arrayFile(2, 3, 1, 2, 3, 4, 5, 6))
	r.write("/m/b", arrayFile(3, 1, 1, 10, 100))
	r.write("/data/x", strings.Repeat("hello, world\n", 1000))
	r.write("/f", floats(0.5, 2, -3, 4))
	r.writeTwice()
	devices := r.startCUDAAgent()
	r.untilDevice(devices, DeviceReady)
	if d := devices()[0]; d.Name != "cuda:"+cudastub.GPU || d.Memory != 256<<20 || d.Type != "gpu" || !strings.Contains(d.Driver, "12.2") {
		t.Errorf("%v", d)
	}
	for name, c := range map[string]struct{ spec, want string }{
		"matmul": {"kernel: matmul\nruntime: cuda\ninputs: [/m]\nsplit: none\n", arrayFile(2, 1, 321, 654)},
		"twice":  {"kernel: twice\ninputs: [/f]\n", floats(1, 4, -6, 8)},
		"filter": {"kernel: threshold\nruntime: [opencl, cuda, wasm]\nparams: {threshold: 1}\ninputs: [/f]\n", floats(0, 2, 0, 4)},
	} {
		id := r.submit(name, "version: 1\n"+c.spec)
		job, tasks := r.wait(id)
		if job.State != StateSucceeded || r.outputs(id)["output"] != c.want {
			t.Errorf("%s: %s %s, %q", name, job.State, job.Reason, r.outputs(id)["output"])
		}
		if tasks[0].Device != "cuda:"+cudastub.GPU || tasks[0].Runtime != "cuda" || tasks[0].DeviceNs <= 0 {
			t.Errorf("%s ran on %q by %q, for %d ns", name, tasks[0].Device, tasks[0].Runtime, tasks[0].DeviceNs)
		}
	}
	const count = "version: 1\nkernel: histogram\nreduce: {}\ninputs: [/data]\nruntime: "
	on, off := r.submit("gpu", count+"cuda\n"), r.submit("cpu", count+"wasm\n")
	for _, id := range []uint64{on, off} {
		if job, _ := r.wait(id); job.State != StateSucceeded {
			t.Errorf("%s %s", job.State, job.Reason)
		}
	}
	if got := r.outputs(on)["output"]; got == "" || got != r.outputs(off)["output"] {
		t.Errorf("the two runtimes differ: %q", got)
	}
}

// writeTwice registers a kernel in PTX that doubles numbers.
func (r *rig) writeTwice() {
	r.write("/.compute/kernels/twice/1/kernel.yaml", `version: 1
cuda:
  input: [{stream: in, type: float}]
  run: [{entry: twice, args: [in, in.n], global: [in.n], local: [64]}]
  output: {raw: in}
`)
	r.write("/.compute/kernels/twice/1/k.ptx", twicePTX)
}

const twicePTX = `.version 4.0
.target sm_50
.address_size 64
.visible .entry twice(.param .u64 x, .param .u32 n)
{
	.reg .pred %p<2>;
	.reg .b32 %r<5>;
	.reg .f32 %f<3>;
	.reg .b64 %rd<4>;
	ld.param.u64 %rd1, [x];
	ld.param.u32 %r1, [n];
	mov.u32 %r2, %ctaid.x;
	mov.u32 %r3, %ntid.x;
	mov.u32 %r4, %tid.x;
	mad.lo.s32 %r2, %r2, %r3, %r4;
	setp.ge.u32 %p1, %r2, %r1;
	@%p1 bra done;
	mul.wide.u32 %rd2, %r2, 4;
	add.s64 %rd3, %rd1, %rd2;
	ld.global.f32 %f1, [%rd3];
	add.f32 %f2, %f1, %f1;
	st.global.f32 [%rd3], %f2;
done:
	ret;
}
`

// TestCUDADriver: a driver that crashes or hangs in the middle of a task costs
// the worker's process: the task is judged, the agent goes on, and other jobs,
// on the same GPU too, are not disturbed.
func TestCUDADriver(t *testing.T) {
	for how, want := range map[string]string{"crash": "segmentation fault", "hang": "time-out"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t)
			r.lead(SchedulerConfig{})
			r.writeTwice()
			r.write("/f", floats(5, -6))
			devices := r.startCUDAAgent("QUERN_STUB_LAUNCH=twice:" + how)
			r.untilDevice(devices, DeviceReady)
			agent := r.lastAgent()
			bad := r.submit("bad", "version: 1\nkernel: twice\nretries: 0\ntimeout: 2s\ninputs: [/f]\n")
			beside := r.submit("beside", "version: 1\nkernel: threshold\nruntime: wasm\ninputs: [/f]\n")
			if job, tasks := r.wait(bad); job.State != StateFailed || !strings.Contains(tasks[0].Reason, want) {
				t.Errorf("%s: %s", job.State, tasks[0].Reason)
			}
			after := r.submit("after", "version: 1\nkernel: threshold\nruntime: cuda\ninputs: [/f]\n")
			for _, id := range []uint64{beside, after} {
				job, tasks := r.wait(id)
				if job.State != StateSucceeded || r.outputs(id)["output"] != floats(5, 0) {
					t.Errorf("%s %s, on %s", job.State, job.Reason, tasks[0].Device)
				}
			}
			if r.lastAgent() != agent || devices()[0].State != DeviceReady {
				t.Errorf("one job alone has put the device into quarantine: %v", devices()[0])
			}
		})
	}
}

// TestCUDAQuarantine: after crashes under two different jobs a GPU gets no tasks
// until it has computed its known answer again.
func TestCUDAQuarantine(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.writeTwice()
	r.write("/f", floats(5, -6))
	devices := r.startCUDAAgent("QUERN_STUB_LAUNCH=twice:crash")
	r.untilDevice(devices, DeviceReady)
	seen := r.watch(devices)
	for _, name := range []string{"a", "b"} {
		id := r.submit(name, "version: 1\nkernel: twice\nretries: 0\ninputs: [/f]\n")
		if job, tasks := r.wait(id); job.State != StateFailed || !strings.Contains(tasks[0].Reason, "segmentation fault") {
			t.Errorf("%s: %s", job.State, tasks[0].Reason)
		}
	}
	r.until("the device is quarantined", func() bool { return strings.Contains(seen(), "jobs 1 and 2 failed on it") })
	id := r.submit("after", "version: 1\nkernel: threshold\nruntime: cuda\ninputs: [/f]\n")
	if job, _ := r.wait(id); job.State != StateSucceeded || r.outputs(id)["output"] != floats(5, 0) {
		t.Errorf("%s %s", job.State, job.Reason)
	}
}

// TestCUDAWrong: a GPU that does not compute the known answer is not offered.
func TestCUDAWrong(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.write("/f", floats(5, -6))
	devices := r.startCUDAAgent("QUERN_STUB_LAUNCH=known:wrong")
	r.untilDevice(devices, DeviceQuarantined)
	if d := devices()[0]; !strings.Contains(d.Reason, "it computes the known answer wrongly") {
		t.Errorf("%v", d)
	}
	id := r.submit("x", "version: 1\nkernel: threshold\nruntime: [cuda, wasm]\ninputs: [/f]\n")
	if job, tasks := r.wait(id); job.State != StateSucceeded || tasks[0].Device != "cpu" {
		t.Errorf("%s on %s", job.State, tasks[0].Device)
	}
}

// gpuTable stands for the GPUs of a host.
type gpuTable struct {
	mu    sync.Mutex
	inUse map[string]bool
}

func (g *gpuTable) TakeGPU(uuid string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.inUse[uuid]
	g.inUse[uuid] = true
	return !was
}

func (g *gpuTable) GiveGPU(uuid string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inUse[uuid] = false
}

func (g *gpuTable) TakeGPUs(n int, _ uint64) (got []sandbox.GPU, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for uuid, used := range g.inUse {
		if !used && len(got) < n {
			got = append(got, sandbox.GPU{UUID: uuid})
		}
	}
	if len(got) < n {
		return nil, false
	}
	for _, x := range got {
		g.inUse[x.UUID] = true
	}
	return got, true
}

func (g *gpuTable) GiveGPUs(got []sandbox.GPU) {
	for _, x := range got {
		g.GiveGPU(x.UUID)
	}
}

// TestGPUsInTurn: a GPU that a program has is not given to a kernel, and the
// other way round; either waits for the other.
func TestGPUsInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &gpuTable{inUse: map[string]bool{"GPU-1": false, "GPU-2": false}}
		d := newDevices(AgentConfig{})
		d.gpus = pool
		for _, id := range []string{"GPU-1", "GPU-2"} {
			d.all = append(d.all, &device{label: "cuda:" + id, runtime: "cuda", info: worker.Device{ID: id}, health: health{state: DeviceReady}})
		}
		program, err := d.programGPUs(t.Context(), 1, 0)
		if err != nil || len(program) != 1 {
			t.Fatal(program, err)
		}
		kernel := make(chan *device, 1)
		acquire := func() {
			x, err := d.acquire(t.Context(), "cuda", "cuda:"+program[0].UUID, false)
			if err != nil {
				t.Error(err)
			}
			kernel <- x
		}
		go acquire()
		synctest.Wait()
		if len(kernel) > 0 {
			t.Fatal("a kernel has the GPU of a program")
		}
		if _, err := d.programGPUs(t.Context(), 2, 0); !errors.Is(err, errGPUs) {
			t.Errorf("two GPUs where one is free: %v", err)
		}
		d.giveGPUs(program)
		x := <-kernel
		if x.info.ID != program[0].UUID || !x.taken {
			t.Fatalf("%+v", x)
		}
		both := make(chan []sandbox.GPU, 1)
		go func() {
			got, err := d.programGPUs(t.Context(), 2, 0)
			if err != nil {
				t.Error(err)
			}
			both <- got
		}()
		synctest.Wait()
		if len(both) > 0 {
			t.Fatal("a program has the GPU of a kernel")
		}
		go acquire() // after the program
		synctest.Wait()
		d.release(x)
		got := <-both
		synctest.Wait()
		if len(got) != 2 || x.taken || len(kernel) > 0 {
			t.Fatalf("%v, and %d kernels went before", got, len(kernel))
		}
		d.giveGPUs(got)
		d.release(<-kernel)
	})
}

// TestHelperEnviron: the driver of CUDA is told of one GPU, whatever was visible.
func TestHelperEnviron(t *testing.T) {
	env := []string{"A=1", "CUDA_VISIBLE_DEVICES=GPU-1,GPU-2"}
	got := helperEnviron([]string{"cuda", "--device", "GPU-2", "--cache", "/c"}, env)
	if want := []string{"A=1", "CUDA_VISIBLE_DEVICES=GPU-2", "CUDA_CACHE_PATH=/c/compute"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for _, args := range [][]string{{"--probe", "cuda"}, {"opencl", "--device", "0.0"}} {
		if got := helperEnviron(args, env); !slices.Equal(got, env) {
			t.Errorf("%q: %q", args, got)
		}
	}
}
