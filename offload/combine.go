package offload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/sandbox"
	"quernfs/offload/worker"
)

// With a combine step, what a map task writes stays on its host, in a file that
// nobody else sees, until the combine step has run over it there, in the same
// attempt. Only what that leaves is stored, and so read by the reduce step: as
// the map's output, it is committed once.

// localOutput is a file of this host that takes the standard output of a map
// task. One goroutine uses it.
type localOutput struct {
	f     *os.File
	size  int64
	limit int64
}

// localPart makes an empty one. It has no name, so nothing is left of it when the
// agent dies.
func (r *attemptRun) localPart() (*localOutput, error) {
	f, err := os.CreateTemp(r.agent.cfg.Dir, "part-")
	if err != nil {
		return nil, fmt.Errorf("making a file for the map's output: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return &localOutput{f: f, limit: r.outputLimit}, nil
}

func (o *localOutput) Write(p []byte) (int, error) {
	if o.size+int64(len(p)) > o.limit {
		return 0, tooMuch(o.limit)
	}
	n, err := o.f.Write(p)
	o.size += int64(n)
	return n, err
}

func (o *localOutput) close() { _ = o.f.Close() }

// combines says whether the output of a task is combined before it is stored.
func combines(spec *jobfile.Spec, t *wire.Task) bool {
	return spec.Combine != nil && t.Phase != phaseReduce
}

const phaseReduce = "reduce"

// combine runs the combine step over what the map task has left in part, with the
// rest of the attempt's time, and writes to out.
func (r *attemptRun) combine(ctx context.Context, spec *jobfile.Spec, part *os.File, size int64, out *taskOutput, timeout error) error {
	step, ref := jobfile.Inherit(*spec.Combine, spec.Map), r.job.Combine
	if ref == nil {
		r.fate = final
		return errors.New("the job has no kernel for its combine step")
	}
	began := time.Now()
	v, err := r.agent.variant(ctx, ref, runtimeWasm)
	if err != nil {
		r.fate = fateOf(err, lost)
		return err
	}
	e, err := r.agent.engage(ctx, ref, v, wish{})
	if err != nil {
		r.fate = engageFate(err)
		return err
	}
	exit, err := e.process.Run(ctx, &worker.Task{
		Run: worker.Run{
			Module: e.module, Digest: e.digest, Manifest: e.manifest, Memory: min(r.memory, jobfile.MaxMemory),
			Args: combineArgs(ref, step), Env: r.env(spec, step, "combine"),
		},
		Inputs: []worker.Input{{Path: combinePart, Size: size, ReadAt: func(_ context.Context, p []byte, off int64) (int, error) {
			return part.ReadAt(p, off)
		}}},
		Stdout: out, Stderr: r.stderr,
	})
	r.agent.dismiss(e, r.job.Id, err == nil, blame(exit, err, timeout))
	r.report.CpuNs += exit.CPU
	r.report.PeakMemory = max(r.report.PeakMemory, uint64(exit.PeakMemory))
	r.report.Exit, r.report.BytesOut = int32(exit.Code), uint64(out.size)
	if r.report.Timing != nil {
		r.report.Timing.RunNs += time.Since(began).Nanoseconds()
	}
	if err := r.judge(exit, err, timeout); err != nil {
		return fmt.Errorf("the combine step: %w", err)
	}
	return nil
}

// combinePart is the path of the map's output in the combine step, below /in.
const combinePart = "/.part"

func combineArgs(ref *wire.KernelRef, step jobfile.Step) []string {
	return stepArgs(ref, step, []string{"/in" + combinePart})
}

// combineProgram combines what a program has left: the one file in /out, else its
// standard output.
func (r *attemptRun) combineProgram(ctx context.Context, spec *jobfile.Spec, dir sandbox.Dir, part *localOutput, out *taskOutput, timeout error) error {
	all, err := leftOutputs(dir.Out())
	if err != nil {
		r.fate = fateOf(err, lost)
		return err
	}
	from, size := part.f, part.size
	switch {
	case len(all) == 0:
	case len(all) == 1 && all[0].mode.IsRegular():
		if from, err = os.Open(filepath.Join(dir.Out(), all[0].rel)); err != nil {
			r.fate = lost
			return err
		}
		defer from.Close()
		size = all[0].size
	default:
		r.fate = final
		return &outputError{fmt.Sprintf("it left %d files and directories in /out; before a combine step it must be one file", len(all))}
	}
	if err := r.combine(ctx, spec, from, size, out, timeout); err != nil {
		return err
	}
	return r.keep(ctx, out)
}
