package offload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/kernels"
	"quernfs/offload/trial"
	"quernfs/offload/worker"
)

// variant is one way to run a kernel, with its file on this host.
type variant struct {
	runtime string
	module  string
	digest  []byte
	// Of what runs on a device:
	manifest  []byte
	signature []byte // where one is needed
	file      *wire.KernelFile
}

// engaged is a worker that is about to run a variant.
type engaged struct {
	variant
	process *worker.Process
	device  *device // nil: the processor
}

// label is what jobs/ID/tasks/N/device says.
func (e *engaged) label() string {
	if e.device == nil {
		return "cpu"
	}
	return e.device.label
}

// variant fetches what a runtime needs of a kernel.
func (a *Agent) variant(ctx context.Context, ref *wire.KernelRef, runtime string) (variant, error) {
	if runtime == "" || runtime == jobfile.RuntimeWasm {
		module, err := a.module(ctx, ref)
		return variant{runtime: jobfile.RuntimeWasm, module: module, digest: ref.Digest}, err
	}
	if !slices.Contains(runtimesOf(ref), runtime) {
		return variant{}, fmt.Errorf("%w: kernel %s has no variant for %s", errModule, ref.Name, runtime)
	}
	k, err := jobfile.ParseKernel(ref.Manifest)
	if err != nil {
		return variant{}, fmt.Errorf("%w: the manifest of %s cannot be read: %v", errModule, ref.Name, err)
	}
	for _, f := range ref.Files {
		if f.Name != k.DeviceFile(runtime) {
			continue
		}
		a.modules.Lock()
		defer a.modules.Unlock()
		module, err := a.fetchFile(ctx, ref, f)
		v := variant{runtime: runtime, module: module, digest: f.Digest, manifest: ref.Manifest, file: f}
		if err == nil && jobfile.Signed(runtime) {
			v.signature, err = a.signature(ctx, ref, f.Name)
		}
		return v, err
	}
	return variant{}, fmt.Errorf("%w: %s has no file %s", errModule, ref.Name, k.DeviceFile(runtime))
}

// wish is what a job says of the worker for its task.
type wish struct {
	label     string   // of the device that the scheduler chose
	others    []string // runtimes that it may use, too
	simulated bool     // so may a simulated device be
}

// engage finds a worker for a variant. Where the variant is of no use on this
// host, and the job may use that for wasm, this one is engaged.
func (a *Agent) engage(ctx context.Context, ref *wire.KernelRef, v variant, w wish) (*engaged, error) {
	e, err := a.engageOn(ctx, ref, v, w)
	if !unusable(err) || !slices.Contains(w.others, jobfile.RuntimeWasm) {
		return e, err
	}
	a.log.Warn("variant not used", "kernel", ref.Name, "runtime", v.runtime, "err", err)
	if v, err = a.variant(ctx, ref, jobfile.RuntimeWasm); err != nil {
		return nil, err
	}
	return a.engageOn(ctx, ref, v, w)
}

func (a *Agent) engageOn(ctx context.Context, ref *wire.KernelRef, v variant, w wish) (*engaged, error) {
	if v.runtime == jobfile.RuntimeWasm {
		p, err := a.take(ctx)
		return &engaged{v, p, nil}, err
	}
	if err := a.vouched(ref, v); err != nil {
		return nil, err
	}
	x, err := a.devices.acquire(ctx, v.runtime, w.label, w.simulated)
	if err != nil {
		return nil, err
	}
	if err = trusted(ref, v.file, x); err == nil {
		err = a.check(ctx, ref, v, x)
	}
	var p *worker.Process
	if err == nil {
		p, err = a.devices.start(ctx, x)
	}
	if err != nil {
		a.devices.release(x)
		return nil, fmt.Errorf("device %s: %w", x.label, err)
	}
	return &engaged{v, p, x}, nil
}

// trusted refuses a kernel on a device that is a processor unless an
// administrator has vouched for it. There a kernel is machine code in the
// worker's own address space, and so has the rights of the agent; a GPU keeps
// it to its buffers. (A model in the ONNX format is data.)
func trusted(ref *wire.KernelRef, f *wire.KernelFile, x *device) error {
	if x.runtime != jobfile.RuntimeOpenCL || x.info.Type != "cpu" || f.Ino == 0 {
		return nil
	}
	if (f.Uid == 0 || f.Uid == uint32(os.Geteuid())) && f.Mode&0o022 == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s of %s belongs to uid %d and has mode %04o: %s is a processor, where a kernel has the rights of the agent, so the file must belong to root and be writable by nobody else",
		errModule, f.Name, ref.Name, f.Uid, f.Mode, x.label)
}

// dismiss gives the worker back. reason says why the device is to be blamed
// for the end of a run; "": it is not. ran: the run came to an end.
func (a *Agent) dismiss(e *engaged, job uint64, ran bool, reason string) {
	if e.device == nil {
		a.give(e.process)
		return
	}
	if ran || reason != "" {
		a.devices.ended(e.device, job, reason)
	}
	a.devices.release(e.device)
}

// checkLimit bounds the comparison of a variant with its reference.
const checkLimit = 5 * time.Minute

// check compares a variant with its reference on the device, once for each
// kernel as long as this agent lives. Kernels that have neither a test in their
// manifest nor come with quern pass.
func (a *Agent) check(ctx context.Context, ref *wire.KernelRef, v variant, x *device) error {
	if err, ok := x.checked[string(v.digest)]; ok {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, checkLimit, fmt.Errorf("the test of %s took longer than %s", ref.Name, checkLimit))
	defer cancel()
	err := a.compare(ctx, ref, v, x)
	if errors.Is(err, errUntested) {
		// It says nothing of the result; the task itself will tell.
		a.log.Info("a kernel's test did not run", "kernel", ref.Name, "device", x.label, "err", err)
		return nil
	}
	differs := errors.Is(err, trial.ErrDiffers)
	if err == nil || differs {
		x.checked[string(v.digest)] = err
	}
	if differs {
		a.devices.differ(x, v.digest)
	}
	return err
}

// errUntested is a variant whose test did not come to a result.
var errUntested = errors.New("no result")

// compare is check without its memory.
func (a *Agent) compare(ctx context.Context, ref *wire.KernelRef, v variant, x *device) error {
	b, err := a.bundle(ctx, ref)
	if b == nil || err != nil {
		return err
	}
	in, err := b.Sample(64<<10, 1)
	if err != nil {
		return nil // there is nothing to compare with
	}
	want := in.Want
	if want == nil {
		w, err := a.variant(ctx, ref, jobfile.RuntimeWasm)
		if err != nil {
			return err
		}
		p, err := a.take(ctx)
		if err != nil {
			return err
		}
		want, _, err = trial.RunOn(ctx, p, trial.Task(b, w.runtime, w.module, w.digest, in))
		a.give(p)
		if err != nil {
			return fmt.Errorf("the test of %s: its wasm variant: %w", ref.Name, err)
		}
	}
	p, err := a.devices.start(ctx, x)
	if err != nil {
		return err
	}
	task := trial.Task(b, v.runtime, v.module, v.digest, in)
	task.Run.Signature = v.signature
	got, _, err := trial.RunOn(ctx, p, task)
	if err != nil {
		return fmt.Errorf("%w: %w", errUntested, err)
	}
	if err := trial.Same(b.Kernel.Compare, want, got); err != nil {
		return fmt.Errorf("kernel %s: %w: %w", ref.Name, trial.ErrDiffers, err)
	}
	return nil
}

// bundle is a kernel with what its test needs; nil: it has none.
func (a *Agent) bundle(ctx context.Context, ref *wire.KernelRef) (*trial.Bundle, error) {
	k, err := jobfile.ParseKernel(ref.Manifest)
	if err != nil {
		return nil, err
	}
	name := kernelName(ref)
	if bundled(ref) {
		return trial.Bundled(name)
	}
	if k.Test == nil {
		return nil, nil
	}
	files := map[string][]byte{}
	a.modules.Lock()
	defer a.modules.Unlock()
	for _, f := range ref.Files {
		if f.Name != k.Test.Input && f.Name != k.Test.Output {
			continue
		}
		if files[f.Name], err = a.content(ctx, ref, f); err != nil {
			return nil, err
		}
	}
	return trial.NewBundle(name, ref.Manifest, files)
}

// bundled says whether a kernel is one of those in the binary.
func bundled(ref *wire.KernelRef) bool {
	return ref.Ino == 0 && !slices.ContainsFunc(ref.Files, func(f *wire.KernelFile) bool { return f.Ino != 0 })
}

// fetchFile makes a file of a bundle a file on this host. modules is held.
func (a *Agent) fetchFile(ctx context.Context, ref *wire.KernelRef, f *wire.KernelFile) (string, error) {
	return a.keep(f.Digest, ".bin", func() ([]byte, error) { return a.content(ctx, ref, f) })
}

// content reads a file of a bundle, from the binary or the mount, and checks
// its digest.
func (a *Agent) content(ctx context.Context, ref *wire.KernelRef, f *wire.KernelFile) ([]byte, error) {
	var data []byte
	if f.Ino == 0 {
		if data = kernels.File(kernelName(ref), f.Name); data == nil || !bytes.Equal(digestOf(data), f.Digest) {
			return nil, fmt.Errorf("this host's quern comes with another version of the kernel %s than the one that was submitted", ref.Name)
		}
		return data, nil
	}
	data, err := readAll(ctx, a.cfg.Files, f.Ino, worker.MaxModule)
	if err != nil {
		return nil, fmt.Errorf("fetching %s of the kernel %s: %w", f.Name, ref.Name, err)
	}
	if !bytes.Equal(digestOf(data), f.Digest) {
		return nil, fmt.Errorf("%w: %s of %s has changed since the job was submitted", errModule, f.Name, ref.Name)
	}
	return data, nil
}
