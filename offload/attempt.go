package offload

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"quernfs/internal/traffic"
	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/trial"
	"quernfs/offload/worker"
)

// tailBytes is how much of a task's standard output and error is kept.
const tailBytes = 8 << 10

// attempt runs one attempt of a task and reports how it ended. It returns what
// the scheduler is to be told with the next poll; nil if meta has not taken the
// report. It calls ran when the task needs its slot no more.
func (a *Agent) attempt(ctx context.Context, s *wire.Assignment, ran func()) *wire.EndedTask {
	id := attemptID{s.Task.Job, s.Task.N, s.Task.Attempt}
	started := time.Now()
	r := &attemptRun{
		agent: a, job: s.Job, task: s.Task,
		report: &wire.Task{
			Job: s.Task.Job, N: s.Task.N, Attempt: s.Task.Attempt, Phase: s.Task.Phase, Failures: s.Task.Failures,
			Memory: s.Task.Memory, Ooms: s.Task.Ooms,
			Agent: a.cfg.Node, Host: cmp.Or(s.Task.Host, a.cfg.Host), Device: "cpu", Runtime: s.Task.Runtime,
		},
	}
	r.stdout, r.stderr = newTaskLog(r, "stdout"), newTaskLog(r, "stderr")
	// The slot of a task that was stopped is free at once, whatever is still being
	// fetched or stored for it; only a program has its grace.
	r.ran = ran
	unhook := context.AfterFunc(ctx, func() {
		if !r.inProgram.Load() {
			ran()
		}
	})
	defer unhook()
	err := r.run(ctx)
	if err == nil {
		if err = r.makePlace(ctx); err != nil {
			r.fate = fateOf(err, fault)
		}
	}
	ran()
	stdoutLog, stdoutBytes := r.stdout.finish()
	stderrLog, stderrBytes := r.stderr.finish()
	if errors.Is(context.Cause(ctx), errStopped) {
		r.remove()
		return nil
	}
	t := r.report
	t.StdoutTail, t.StderrTail = r.stdout.Bytes(), r.stderr.Bytes()
	t.StdoutLog, t.StderrLog, t.StdoutBytes, t.StderrBytes = stdoutLog, stderrLog, stdoutBytes, stderrBytes
	out := uint64(0)
	if err == nil {
		t.State, t.Reason, out = StateSucceeded, "done", r.dir
		if t.MemoJob != 0 {
			t.Reason = fmt.Sprintf("done: the result of job %d", t.MemoJob)
		}
	} else {
		r.failed(err)
	}
	u := &wire.UpdateTask{Task: t, OutIno: out}
	if err == nil {
		u.Files, u.Names, u.ResultDir, u.Provenance = r.small, r.place.names, r.place.dir, r.origin
	}
	stale, err := a.tell(ctx, u)
	if err != nil && t.State == StateSucceeded && !wire.CodeOf(err).MayPass() {
		// The results cannot have their places, now or later.
		t.Failures++
		t.State, t.Reason = StateFailed, sentence(err)
		stale, err = a.tell(ctx, &wire.UpdateTask{Task: t})
	}
	// Whether the files were renamed away or not: what is left is of no use.
	r.remove()
	if err != nil {
		a.log.Warn("a task's end could not be reported", "task", id, "state", t.State, "err", err)
		if errors.Is(context.Cause(ctx), errShutdown) {
			return nil
		}
		// The scheduler hears of it all the same. Else it would give the same attempt
		// again and again, and nobody would know why.
		reason := "its end could not be stored: " + sentence(err)
		if t.State, t.Reason = StateFailed, reason; wire.CodeOf(err).MayPass() {
			t.State, t.Reason = afterFailure(t.Attempt, t.Failures, r.retries, false, reason)
		}
	}
	a.log.Debug("task ended", "task", id, "state", t.State, "reason", t.Reason, "took", time.Since(started))
	end := &wire.EndedTask{Task: &wire.RunningTask{Job: id.job, N: id.n, Attempt: id.attempt}}
	if !stale {
		end.State, end.Reason, end.Failures, end.Memory, end.Ooms = t.State, t.Reason, t.Failures, t.Memory, t.Ooms
		end.DeviceNs = modelled(t)
		end.Timing, end.BytesIn, end.BytesOut, end.BytesLocal, end.BytesRemote = t.Timing, t.BytesIn, t.BytesOut, t.BytesLocal, t.BytesRemote
		for server, l := range r.meter.Links() {
			end.Transfers = append(end.Transfers, &wire.Transfer{Server: server, Bytes: uint64(l.Bytes), Ns: l.Took.Nanoseconds()})
		}
	}
	return end
}

// tell reports the end of an attempt. It is repeated until meta has answered:
// the attempt's number makes that harmless. stale: the attempt was over
// already, perhaps by an earlier try of this report.
func (a *Agent) tell(ctx context.Context, u *wire.UpdateTask) (stale bool, err error) {
	limit := reportLimit
	if errors.Is(context.Cause(ctx), errShutdown) {
		limit = stopLimit
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := a.reports.send(ctx, u)
		switch c := wire.CodeOf(err); {
		case err == nil:
			return false, nil
		case c == wire.Stale:
			return true, nil
		case !c.MayPass():
			return false, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false, err
		}
	}
}

// attemptRun is one attempt under way.
type attemptRun struct {
	agent   *Agent
	job     *wire.Job
	task    *wire.Task
	report  *wire.Task
	stdout  *taskLog
	stderr  *taskLog
	dir     uint64 // the attempt directory; 0: not made
	small   []*wire.OutputFile
	place   resultPlace // of the results that leave the job's own directory
	origin  []byte      // what the results are made from
	fate    fate        // of the task, if it failed
	retries int         // as the job file says
	meter   traffic.Meter
	memory  int64 // bytes that the task may have

	ran       func()      // gives the slot back
	inProgram atomic.Bool // a program runs, which has time to end after it was stopped

	outputLimit int64   // bytes that it may write
	find        *finder // looks at the results; nil: nothing is asked
	header      int     // lines of a file that each part of it begins with
}

// run does everything up to the report.
func (r *attemptRun) run(ctx context.Context) error {
	r.fate = final // until something runs
	spec, err := r.agent.specs.parse(r.job)
	if err != nil {
		return fmt.Errorf("the job file cannot be read any more: %w", err)
	}
	r.retries = spec.Retries
	if len(r.job.Kernels) == 0 {
		return errors.New("the job names no kernel")
	}
	step, ref, phase := stepOf(spec, r.task.Phase), r.job.Kernels[0], "single"
	r.header = headerLines(spec, ref)
	switch {
	case r.task.Phase == "reduce":
		if spec.Reduce == nil {
			return errors.New("the job has no reduce step")
		}
		r.header = 0
		ref, phase = r.job.Kernels[len(r.job.Kernels)-1], "reduce"
	case spec.Reduce != nil:
		phase = "map"
	}
	r.fate = fault
	r.stderr.keep(spec.LogLimit)
	r.memory = int64(r.task.Memory)
	if r.memory == 0 {
		r.memory = spec.Memory
	}
	r.outputLimit = r.agent.cfg.OutputLimit
	if spec.OutputLimit > 0 {
		r.outputLimit = min(r.outputLimit, spec.OutputLimit)
	}
	if phase != "map" {
		r.find = newFinder(r.job)
		defer func() { r.report.Verdict = r.find.verdict() }()
	}
	if step.Exec != nil {
		if phase != "map" {
			r.origin = r.provenance(ref, step)
		}
		return r.program(ctx, spec, step, phase)
	}
	ctx = traffic.With(ctx, &r.meter)
	defer func() { r.report.BytesLocal, r.report.BytesRemote = r.meter.Local(), r.meter.Remote() }()
	name, elsewhere := outputName(spec, r.task, r.job)
	name = r.place.set(name, elsewhere)
	out := r.output(ctx, name)
	defer out.close()
	known, err := r.remembered(ctx, out)
	if err != nil {
		r.fate = fateOf(err, fault)
		return err
	}
	if phase != "map" {
		r.origin = r.provenance(ref, step)
	}
	if known {
		return r.keep(ctx, out)
	}
	began := time.Now()
	v, err := r.agent.variant(ctx, ref, r.task.Runtime)
	if err != nil {
		r.fate = fateOf(err, lost)
		return err
	}
	inputs, err := r.inputs(ctx)
	if err != nil {
		r.fate = fateOf(err, fault)
		return err
	}
	defer inputs.close()

	e, err := r.agent.engage(ctx, ref, v, wish{r.task.Device, candidates(spec.Runtime, ref, phase == "reduce"), spec.Simulated})
	if err != nil {
		r.fate = engageFate(err)
		return err
	}
	timing := &wire.Timing{WarmNs: time.Since(began).Nanoseconds()}
	r.report.Timing = timing
	began = time.Now()
	timeout := fmt.Errorf("time-out: stopped after %s", spec.Timeout)
	rctx, cancel := context.WithTimeoutCause(ctx, spec.Timeout, timeout)
	defer cancel()
	var stdout io.Writer = out
	var part *localOutput
	if combines(spec, r.task) {
		if part, err = r.localPart(); err != nil {
			r.agent.dismiss(e, r.job.Id, true, "")
			r.fate = lost
			return err
		}
		defer part.close()
		stdout = part
	}
	exit, err := e.process.Run(rctx, &worker.Task{
		Run: worker.Run{
			Module: e.module, Digest: e.digest, Manifest: e.manifest, Signature: e.signature, Memory: r.memory,
			Args: r.args(ref, step),
			Env:  r.env(spec, step, phase),
		},
		Inputs: inputs.list,
		Stdout: stdout, Stderr: r.stderr,
	})
	timing.ReadNs = inputs.took.Nanoseconds()
	timing.RunNs = max(0, time.Since(began).Nanoseconds()-timing.ReadNs)
	r.agent.dismiss(e, r.job.Id, err == nil, blame(exit, err, timeout))
	r.report.Runtime, r.report.Device, r.report.DeviceNs = e.runtime, e.label(), exit.Device
	r.report.Exit, r.report.PeakMemory, r.report.CpuNs = int32(exit.Code), uint64(exit.PeakMemory), exit.CPU
	r.report.Cycles = uint64(exit.Cycles)
	r.report.BytesIn, r.report.BytesOut = uint64(inputs.read), uint64(out.size)
	if err := r.judge(exit, err, timeout); err != nil {
		return err
	}
	if part != nil {
		if err := r.combine(rctx, spec, part.f, part.size, out, timeout); err != nil {
			return err
		}
	}
	began = time.Now()
	defer func() { timing.WriteNs = time.Since(began).Nanoseconds() }()
	return r.keep(ctx, out)
}

// engageFate is what it means that a worker could not be had. A variant that is
// wrong here, or not trusted, costs a retry, so that another host is tried.
func engageFate(err error) fate {
	if errors.Is(err, errModule) || errors.Is(err, trial.ErrDiffers) {
		return fault
	}
	return lost
}

// keep makes the output durable.
func (r *attemptRun) keep(ctx context.Context, out *taskOutput) error {
	if err := out.finish(ctx); err != nil {
		r.fate = fateOf(err, fault)
		return fmt.Errorf("storing the output: %w", err)
	}
	return nil
}

// blame is what a device has to answer for: that it failed, that the process
// which drives it crashed, or that a kernel did not come to its end.
func blame(exit worker.Exit, err, timeout error) string {
	var crash *worker.CrashError
	switch {
	case err == nil && exit.Fault:
		return exit.Trap
	case errors.As(err, &crash), err != nil && errors.Is(err, timeout):
		return err.Error()
	}
	return ""
}

// judge turns the end of a run into the reason of a failure, and decides whose
// fault it was.
func (r *attemptRun) judge(exit worker.Exit, err error, timeout error) error {
	var in *worker.InputError
	var out *worker.OutputError
	var crash *worker.CrashError
	switch {
	case err == nil:
	case errors.As(err, &in):
		var changed *changedError
		if r.fate = fateOf(err, fault); errors.As(err, &changed) {
			return changed
		}
		return err
	case errors.As(err, &out):
		r.fate = fateOf(err, fault)
		return out.Err
	case errors.As(err, &crash):
		return err
	case errors.Is(err, timeout):
		return fmt.Errorf("%w%s", timeout, lastLine(r.stderr.Bytes()))
	default: // stopped, shut down
		r.fate = lost
		return err
	}
	switch {
	case exit.Code == 0:
		return nil
	case exit.Fault:
		r.fate = lost
		return errors.New(exit.Trap)
	case exit.PeakMemory >= r.memory*3/4 || bytes.Contains(r.stderr.Bytes(), []byte("out of memory")):
		return &memoryError{r.memory, jobfile.MaxMemory}
	case exit.Trap != "":
		return fmt.Errorf("the module ended by a trap: %s", exit.Trap)
	}
	r.fate = exitFate(exit.Code)
	return fmt.Errorf("the module exited with status %d%s", exit.Code, lastLine(r.stderr.Bytes()))
}

func lastLine(stderr []byte) string {
	lines := strings.Split(strings.TrimSpace(string(stderr)), "\n")
	last := strings.ToValidUTF8(strings.TrimSpace(lines[len(lines)-1]), "?")
	if last == "" {
		return ""
	}
	if len(last) > 200 {
		last = last[:200]
	}
	return ": " + last
}

// env is the environment that every task gets.
func (r *attemptRun) env(spec *jobfile.Spec, step jobfile.Step, phase string) []string {
	env := step.Env()
	if slices.ContainsFunc(r.task.Inputs, func(in *wire.TaskInput) bool { return len(in.Ranges) > 0 }) && phase != "combine" {
		env = append(env, "QUERN_RANGES=1")
	}
	return append(env,
		fmt.Sprintf("QUERN_JOB=%d", r.job.Id), fmt.Sprintf("QUERN_TASK=%d", spec.TaskID(int(r.task.N))),
		fmt.Sprintf("QUERN_ATTEMPT=%d", r.task.Attempt), fmt.Sprintf("QUERN_HEADER=%d", r.headerOf(phase)), "QUERN_PHASE="+phase)
}

// headerOf is the header of what a step reads. What a combine step reads is
// whole, and the job file's header is not of that.
func (r *attemptRun) headerOf(phase string) int {
	if phase == "combine" {
		return headerLines(&jobfile.Spec{Header: -1}, r.job.Combine)
	}
	return r.header
}

// args puts the kernel's and the job's arguments together; {inputs} becomes
// the paths of the inputs as the module sees them.
func (r *attemptRun) args(ref *wire.KernelRef, step jobfile.Step) []string {
	inputs := make([]string, len(r.task.Inputs))
	for i, in := range r.task.Inputs {
		inputs[i] = "/in" + in.Path
	}
	return stepArgs(ref, step, inputs)
}

func stepArgs(ref *wire.KernelRef, step jobfile.Step, inputs []string) []string {
	name, _, _ := strings.Cut(ref.Name, "@")
	args := append([]string{name}, ref.Args...)
	for _, arg := range step.Args {
		if arg == "{inputs}" {
			args = append(args, inputs...)
		} else {
			args = append(args, arg)
		}
	}
	return args
}

// outputName is what the file of a task is called, and whether it goes to the
// directory that the job names: then it may be a path below that.
func outputName(spec *jobfile.Spec, t *wire.Task, j *wire.Job) (name string, elsewhere bool) {
	input := ""
	if len(t.Inputs) > 0 {
		input = t.Inputs[0].Path
	}
	switch {
	case t.Phase == "reduce":
		return spec.OutputName(j.Name, "", 0, false), j.OutParent != 0
	case spec.Reduce != nil:
		return partName(t.N), false
	}
	return spec.OutputName(j.Name, input, t.N, j.Tasks > 1), j.OutParent != 0
}

func partName(n uint32) string { return fmt.Sprintf(".part.%05d", n) }

// attemptName is what the directory of an attempt is called.
func attemptName(node uint32, t *wire.Task) string {
	return wire.AttemptDir(node, t.Job, t.N, t.Attempt)
}
