package offload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"quernfs/internal/traffic"
	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/sandbox"
	"quernfs/offload/worker"
)

// taskPids is how many processes and threads one task may have.
const taskPids = 1024

// program runs an attempt whose step is a program of the host.
func (r *attemptRun) program(ctx context.Context, spec *jobfile.Spec, step jobfile.Step, phase string) error {
	x, cfg := step.Exec, r.agent.cfg.Exec
	r.fate = lost // until the program itself has been started
	r.report.Runtime = runtimeExec
	if refused := needOf(spec, x, r.job.Cred).refuse(cfg.Offer()); refused != nil {
		return fmt.Errorf("the host %s cannot run %s any more: %s", r.agent.cfg.Host, x.Argv[0], refused.why)
	}
	gpus, err := r.agent.devices.programGPUs(ctx, spec.Resources.GPU, uint64(spec.Resources.GPUMemory))
	if err != nil {
		return err
	}
	defer r.agent.devices.giveGPUs(gpus)
	dir, err := cfg.Host.NewDir()
	if err != nil {
		return err
	}
	defer func() {
		if err := dir.Remove(); err != nil {
			r.agent.log.Warn("the directory of a task is left behind", "dir", dir, "err", err)
		}
	}()
	ctx = traffic.With(ctx, &r.meter)
	defer func() { r.report.BytesLocal, r.report.BytesRemote = r.meter.Local(), r.meter.Remote() }()
	inputs, err := r.inputs(ctx)
	if err != nil {
		r.fate = fateOf(err, fault)
		return err
	}
	defer inputs.close()
	r.stdout.keep(spec.LogLimit)
	timeout := fmt.Errorf("time-out: stopped after %s", spec.Timeout)
	rctx, cancel := context.WithTimeoutCause(ctx, spec.Timeout, timeout)
	defer cancel()
	timing := new(wire.Timing)
	began := time.Now()
	shown, err := r.show(rctx, dir, spec, x, inputs)
	if err != nil {
		if r.fate = fateOf(err, lost); errors.Is(err, timeout) {
			r.fate = fault
		}
		return err
	}
	name, elsewhere := outputName(spec, r.task, r.job)
	name = r.place.set(name, elsewhere)
	out := r.output(ctx, name)
	defer out.close()
	var stdout io.Writer = out
	var part *localOutput
	if combines(spec, r.task) {
		if part, err = r.localPart(); err != nil {
			return err
		}
		defer part.close()
		stdout = io.MultiWriter(part, r.stdout)
	}
	devices, gpuEnv := cfg.Host.Devices(gpus)
	if len(gpus) > 0 {
		r.report.Device = "gpu " + gpus[0].UUID
	}
	timing.ReadNs = time.Since(began).Nanoseconds()
	began = time.Now()
	cred := r.job.GetCred()
	r.inProgram.Store(true)
	exit, err := cfg.Host.Run(rctx, &sandbox.Run{
		Argv: programArgs(x, inputs), Allow: cfg.Allow, Env: append(append(x.Environ(), r.env(spec, step, phase)...), gpuEnv...),
		UID: cred.GetUid(), GID: cred.GetGid(), Groups: cred.GetGroups(), Network: x.Network,
		Limits: sandbox.Limits{
			Memory: r.memory, CPU: spec.Resources.CPU, Pids: taskPids,
			Scratch: spec.Resources.Scratch, Output: r.outputLimit,
		},
		Binds: shown.binds, Devices: devices, Dir: dir,
		Stdin: &inputStream{ctx: rctx, in: inputs}, Stdout: stdout, Stderr: r.stderr,
	})
	if r.inProgram.Store(false); ctx.Err() != nil {
		r.ran()
	}
	r.fate = fault
	timing.RunNs, r.report.Timing = time.Since(began).Nanoseconds(), timing
	began = time.Now()
	defer func() { timing.WriteNs = time.Since(began).Nanoseconds() }()
	r.report.Exit, r.report.PeakMemory, r.report.CpuNs = int32(exit.Code), uint64(exit.Memory), int64(exit.CPU)
	r.report.BytesIn, r.report.BytesOut = 0, uint64(out.size)
	for _, in := range inputs.list {
		r.report.BytesIn += uint64(in.Size)
	}
	if err := r.judgeProgram(exit, err, timeout); err != nil {
		return err
	}
	if err := shown.check(ctx); err != nil {
		r.fate = fateOf(err, fault)
		return err
	}
	if part != nil {
		return r.combineProgram(rctx, spec, dir, part, out, timeout)
	}
	if err := r.collect(ctx, dir, phase, name, elsewhere, out); err != nil {
		r.fate = fateOf(err, fault)
		return err
	}
	return nil
}

// programArgs are the arguments, with the paths of the inputs in place of
// {inputs}.
func programArgs(x *jobfile.Exec, inputs *taskInputs) (args []string) {
	for _, a := range x.Argv {
		if a != "{inputs}" {
			args = append(args, a)
			continue
		}
		for _, in := range inputs.list {
			args = append(args, "/in"+in.Path)
		}
	}
	return args
}

// judgeProgram turns the end of a program into the reason of a failure, and
// decides whose fault it was.
func (r *attemptRun) judgeProgram(exit sandbox.Exit, err error, timeout error) error {
	var stream *sandbox.StreamError
	var limit *sandbox.LimitError
	var start *sandbox.StartError
	var moved *sandbox.MovedError
	many := ""
	if exit.Pids {
		many = fmt.Sprintf("; it tried to have more than %d processes and threads at once", taskPids)
	}
	switch {
	case err == nil:
	case errors.As(err, &limit), errors.As(err, &start), errors.Is(err, errTooMuch):
		return err
	case errors.Is(err, timeout):
		return fmt.Errorf("%w%s%s", timeout, lastLine(r.stderr.Bytes()), many)
	case errors.As(err, &moved):
		err = &changedError{path: strings.TrimPrefix(moved.Path, "/in")}
		r.fate = fateOf(err, fault)
		return err
	case errors.As(err, &stream):
		r.fate = fateOf(stream.Err, fault)
		return stream.Err
	default: // stopped, shut down, no sandbox
		r.fate = lost
		return err
	}
	switch {
	case exit.OOM: // perhaps only a process of it, but then what it wrote is not whole
		return &memoryError{r.memory, jobfile.MaxExecMemory}
	case exit.Code == 0:
		return nil
	case r.agent.cfg.Exec.Host.Limits().Memory == sandbox.ByRlimit && saysMemory(r.stderr.Bytes()):
		return &memoryError{r.memory, jobfile.MaxExecMemory}
	case exit.Signal() != "":
		return fmt.Errorf("the program was killed by %s%s%s", exit.Signal(), lastLine(r.stderr.Bytes()), many)
	}
	r.fate = exitFate(exit.Code)
	return fmt.Errorf("the program exited with status %d%s%s", exit.Code, lastLine(r.stderr.Bytes()), many)
}

// saysMemory looks for the words of programs that get no more memory: where no
// control group tells, they must.
func saysMemory(stderr []byte) bool {
	for _, words := range []string{"MemoryError", "out of memory", "Out of memory", "Cannot allocate memory", "bad_alloc"} {
		if bytes.Contains(stderr, []byte(words)) {
			return true
		}
	}
	return false
}

// inputStream is all inputs, one after the other. One goroutine uses it.
type inputStream struct {
	ctx context.Context
	in  *taskInputs
	i   int
	off int64
}

func (s *inputStream) Read(p []byte) (int, error) {
	for s.i < len(s.in.list) {
		in := s.in.list[s.i]
		n, err := in.ReadAt(s.ctx, p, s.off)
		s.off += int64(n)
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			s.i, s.off, err = s.i+1, 0, nil
		}
		if err != nil {
			return n, &worker.InputError{Path: in.Path, Err: err}
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, io.EOF
}

// outputError is what a program left in /out that cannot be an output: its own
// fault.
type outputError struct{ text string }

func (e *outputError) Error() string { return e.text }

// badOutput makes an outputError of an error of meta that only the output itself
// can have caused.
func badOutput(name string, err error) error {
	if fateOf(err, fault) == final {
		return &outputError{fmt.Sprintf("the output %s cannot be stored: %v", name, err)}
	}
	return fmt.Errorf("storing the output %s: %w", name, err)
}
