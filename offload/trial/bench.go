package trial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"quernfs/offload/jobfile"
	"quernfs/offload/worker"
)

// ErrDiffers is a variant whose result is not the reference's.
var ErrDiffers = errors.New("its result differs from the reference")

// Variant is one way to run a kernel on this host.
type Variant struct {
	Runtime string
	Device  worker.Device // zero for wasm
}

// Label is what people call the variant.
func (v Variant) Label() string {
	if v.Device.ID == "" {
		return v.Runtime
	}
	return v.Runtime + ":" + v.Device.ID
}

// Outcome is how one variant fared.
type Outcome struct {
	Variant
	Result []byte
	Took   time.Duration // of the run, without compilation
	Err    error         // nil: the result is right
}

// Bench runs variants on this host.
type Bench struct {
	Command []string // `quern worker`, or what stands for it
	Env     []string
	Dir     string // for modules and compiled code; exists
	// Probe bounds the search for devices; 0: 30 s.
	Probe time.Duration
}

// config is how workers of a variant are started.
func (h *Bench) config(v Variant) worker.Config {
	c := worker.Config{Command: append(slices.Clone(h.Command), v.Runtime), Env: h.Env, CacheDir: filepath.Join(h.Dir, v.Runtime)}
	if v.Device.ID != "" {
		c.Command = append(c.Command, "--device", v.Device.ID)
	}
	return c
}

// Variants are those of the kernel that this host can run, wasm first. absent
// tells why others are not among them.
func (h *Bench) Variants(ctx context.Context, b *Bundle) (have []Variant, absent []error) {
	limit := h.Probe
	if limit == 0 {
		limit = 30 * time.Second
	}
	for _, r := range b.Kernel.Runtimes() {
		if r == jobfile.RuntimeWasm {
			have = append(have, Variant{Runtime: r})
			continue
		}
		if err := b.lacks(r); err != nil {
			absent = append(absent, fmt.Errorf("%s: %w", r, err))
			continue
		}
		probe := worker.Config{Command: h.Command, Env: h.Env, CacheDir: filepath.Join(h.Dir, r)}
		report, err := worker.Probe(ctx, probe, r, "", limit)
		if err != nil {
			absent = append(absent, err)
			continue
		}
		if len(report.Devices) == 0 {
			absent = append(absent, fmt.Errorf("%s: no device", r))
		}
		for _, d := range report.Devices {
			have = append(have, Variant{r, d})
		}
	}
	return have, absent
}

// Test runs all variants on in. Each outcome but the reference's own is
// compared with it.
func (h *Bench) Test(ctx context.Context, b *Bundle, in *Input, variants []Variant) []Outcome {
	want := in.Want
	var out []Outcome
	for _, v := range variants {
		o := Outcome{Variant: v}
		o.Result, o.Took, o.Err = h.Run(ctx, b, v, in)
		switch {
		case o.Err != nil:
		case want == nil && v.Runtime == jobfile.RuntimeWasm:
			want = o.Result
		case want == nil:
			o.Err = errors.New("there is no reference to compare with: the wasm variant did not run")
		default:
			if err := Same(b.Kernel.Compare, want, o.Result); err != nil {
				o.Err = fmt.Errorf("%w: %w", ErrDiffers, err)
			}
		}
		out = append(out, o)
	}
	return out
}

// Run runs one variant in a worker of its own.
func (h *Bench) Run(ctx context.Context, b *Bundle, v Variant, in *Input) ([]byte, time.Duration, error) {
	task, err := h.task(b, v, in)
	if err != nil {
		return nil, 0, err
	}
	if err := os.MkdirAll(filepath.Join(h.Dir, v.Runtime), 0o700); err != nil {
		return nil, 0, err
	}
	p, err := worker.Start(ctx, h.config(v))
	if err != nil {
		return nil, 0, err
	}
	defer p.Close()
	return RunOn(ctx, p, task)
}

// RunOn compiles the module of task in p, runs it, and returns what it wrote.
func RunOn(ctx context.Context, p *worker.Process, task *worker.Task) ([]byte, time.Duration, error) {
	var stdout bytes.Buffer
	stderr := worker.NewTail(4 << 10)
	prepare := *task
	prepare.Run.Prepare, prepare.Inputs, prepare.Stdout, prepare.Stderr = true, nil, io.Discard, stderr
	if exit, err := p.Run(ctx, &prepare); err != nil || exit.Code != 0 {
		return nil, 0, failure(exit, err, stderr)
	}
	task.Stdout, task.Stderr = &stdout, stderr
	start := time.Now()
	exit, err := p.Run(ctx, task)
	took := time.Since(start)
	if err != nil || exit.Code != 0 {
		return nil, took, failure(exit, err, stderr)
	}
	return stdout.Bytes(), took, nil
}

func failure(exit worker.Exit, err error, stderr *worker.Tail) error {
	text := strings.TrimSpace(stderr.String())
	switch {
	case err != nil:
		return err
	case exit.Trap != "":
		return errors.New(exit.Trap)
	case text != "":
		return errors.New(text)
	}
	return fmt.Errorf("it exited with status %d", exit.Code)
}

// task is the run of a variant over in.
func (h *Bench) task(b *Bundle, v Variant, in *Input) (*worker.Task, error) {
	file := b.Kernel.Wasm
	if f := b.Kernel.DeviceFile(v.Runtime); f != "" {
		file = f
	}
	data, digest, err := b.File(file)
	if err != nil {
		return nil, err
	}
	module := filepath.Join(h.Dir, fmt.Sprintf("%x", digest))
	if _, err := os.Stat(module); err != nil {
		if err := os.WriteFile(module, data, 0o600); err != nil {
			return nil, err
		}
	}
	return Task(b, v.Runtime, module, digest, in), nil
}

// Task is the run of a bundle's variant, whose file is module, over in.
func Task(b *Bundle, runtime, module string, digest []byte, in *Input) *worker.Task {
	step := jobfile.Step{Params: in.Params}
	t := &worker.Task{Run: worker.Run{
		Module: module, Digest: digest, Memory: jobfile.MaxMemory,
		Args: append(append([]string{b.Name}, b.Kernel.Args...), in.Args...),
		Env:  append(step.Env(), "QUERN_JOB=0", "QUERN_TASK=0", "QUERN_ATTEMPT=1", "QUERN_PHASE=single"),
	}}
	if runtime != jobfile.RuntimeWasm {
		t.Run.Manifest = b.Manifest
	}
	if jobfile.Signed(runtime) {
		t.Run.Signature = b.files[b.Kernel.DeviceFile(runtime)+jobfile.SignatureSuffix]
	}
	r := bytes.NewReader(in.Data)
	t.Inputs = []worker.Input{{Path: "/input", Size: int64(len(in.Data)), ReadAt: func(_ context.Context, p []byte, off int64) (int, error) {
		return r.ReadAt(p, off)
	}}}
	return t
}

// Environ is what workers for devices need of an environment: where libraries
// and drivers are.
func Environ(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return name != "LD_LIBRARY_PATH" && name != "OCL_ICD_VENDORS" && name != "OPENCL_VENDOR_PATH" &&
			name != "CUDA_VISIBLE_DEVICES" && name != "QUERN_ONNXRUNTIME" && name != "QUERN_FPGA_ANY" && !strings.HasPrefix(name, "POCL_")
	})
}
