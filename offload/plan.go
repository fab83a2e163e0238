package offload

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// plan resolves kernels, pins inputs and makes the map tasks. Those of a job
// that waits for others are made when these have ended: what they leave may be
// its inputs.
func (s *Submitter) plan(ctx context.Context, cred *wire.Cred, name string, spec *jobfile.Spec) (*wire.Job, work, error) {
	if err := s.Files.Sync(ctx); err != nil {
		return nil, work{}, problem(wire.CodeOf(err), name, 0, "storing what was written before: %v", err)
	}
	job, err := s.prepare(ctx, cred, name, spec)
	if err != nil || len(job.After) > 0 {
		return job, work{}, err
	}
	e := &expander{files: s.Files, meta: s.Meta, cred: cred, job: name}
	if job.Binds, err = e.binds(ctx, spec); err != nil {
		return nil, work{}, err
	}
	tasks, err := e.tasks(ctx, spec)
	if err == nil {
		err = e.fits(ctx, spec, job.Kernels[0], tasks)
	}
	memoise(spec, job, cred.GetUid(), tasks)
	return job, workOf(spec, tasks), err
}

// prepare checks all of a job that does not depend on its inputs.
func (s *Submitter) prepare(ctx context.Context, cred *wire.Cred, name string, spec *jobfile.Spec) (*wire.Job, error) {
	e := &expander{files: s.Files, meta: s.Meta, cred: cred, job: name}
	first, err := e.resolve(ctx, spec.Map)
	if err != nil {
		return nil, err
	}
	if err := e.usable(spec.Runtime, spec.RuntimeLine, first, false, spec.Map.KernelLine); err != nil {
		return nil, err
	}
	if err := e.splits(spec, first); err != nil {
		return nil, err
	}
	job := &wire.Job{Kernel: first.Name, Kernels: []*wire.KernelRef{first}}
	if spec.Reduce != nil {
		second := first
		if r := jobfile.Inherit(*spec.Reduce, spec.Map); r.Kernel != spec.Map.Kernel || r.Wasm != spec.Map.Wasm || r.Exec != spec.Map.Exec {
			if second, err = e.resolve(ctx, r); err != nil {
				return nil, err
			}
		}
		if err := e.usable(spec.Runtime, spec.RuntimeLine, second, true, spec.Reduce.KernelLine); err != nil {
			return nil, err
		}
		job.Kernels = append(job.Kernels, second)
	}
	if spec.Combine != nil {
		c := jobfile.Inherit(*spec.Combine, spec.Map)
		if job.Combine, err = e.resolve(ctx, c); err != nil {
			return nil, err
		}
		if len(candidates(nil, job.Combine, true)) == 0 {
			return nil, problem(wire.Invalid, e.job, spec.Combine.KernelLine, "the combine step needs a wasm variant, and kernel %s has %s", job.Combine.Name, list(runtimesOf(job.Combine)))
		}
	}
	for _, phase := range phases(spec) {
		switch step := stepOf(spec, phase); {
		case step.Exec != nil:
			err = e.runsProgram(ctx, spec, step)
		case phase == "map":
			err = e.runs(ctx, spec, candidates(spec.Runtime, first, false), step.KernelLine)
		default:
			err = e.runs(ctx, spec, []string{runtimeWasm}, step.KernelLine)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := e.notify(ctx, spec, job); err != nil {
		return nil, err
	}
	return job, s.life(ctx, e, spec, job)
}

// notify finds where the file is, or is to be, that is told of the job's end.
func (e *expander) notify(ctx context.Context, spec *jobfile.Spec, job *wire.Job) error {
	if spec.Notify == "" {
		return nil
	}
	dir, line := path.Dir(spec.Notify), spec.NotifyLine
	inode, err := e.reach(ctx, dir, line)
	if err != nil {
		return err
	}
	if !isDir(inode.GetAttr().GetMode()) {
		return problem(wire.NotDir, e.job, line, "%s, where the job's end is to be told, is not a directory", dir)
	}
	job.Notify = &wire.Entry{Parent: inode.Attr.Ino, Name: path.Base(spec.Notify)}
	if file, err := e.files.Stat(ctx, spec.Notify); err == nil {
		if !isFile(file.GetAttr().GetMode()) {
			return problem(wire.Invalid, e.job, line, "%s, where the job's end is to be told, is not a regular file", spec.Notify)
		}
		if err := e.may(ctx, file, 2, spec.Notify, line); err != nil {
			return unwritable(err, e.job, line, spec.Notify)
		}
		return nil
	} else if !errors.Is(err, wire.NotFound) {
		return e.statError(err, spec.Notify, line)
	}
	return unwritable(e.may(ctx, inode, 2|1, dir, line), e.job, line, dir)
}

// unwritable words the refusal of a place for notices.
func unwritable(err error, job string, line int, p string) error {
	if errors.Is(err, wire.Denied) {
		return problem(wire.Denied, job, line, "no permission to write to %s, where the job's end is to be told", p)
	}
	return err
}

// life fills in what the job waits for, how urgent it is, and where its results
// go.
func (s *Submitter) life(ctx context.Context, e *expander, spec *jobfile.Spec, job *wire.Job) error {
	for _, a := range spec.After {
		other, err := findJob(ctx, s.Meta, a.Name)
		if err != nil {
			return problem(wire.CodeOf(err), e.job, a.Line, "looking for the job %s: %v", a.Name, err)
		}
		if other == nil {
			return problem(wire.NotFound, e.job, a.Line, "there is no job %q to wait for; submit it first", a.Name)
		}
		job.After = append(job.After, &wire.After{Job: other.Id, Name: a.Name, When: a.When})
	}
	job.Priority = int32(spec.Priority)
	job.DeadlineAfterNs, job.TtlNs, job.Memory = int64(spec.DeadlineAfter), int64(spec.TTL), uint64(spec.Memory)
	if !spec.Deadline.IsZero() {
		job.DeadlineNs = nanoseconds(spec.Deadline)
	}
	job.IfExists = map[jobfile.IfExists]wire.IfExists{jobfile.Fail: wire.IfExists_FAIL, jobfile.Skip: wire.IfExists_SKIP}[spec.IfExists]
	dir, _ := spec.OutputDir()
	if dir == "" {
		return nil
	}
	inode, err := e.reach(ctx, dir, spec.OutputLine)
	if err != nil {
		return err
	}
	if !isDir(inode.GetAttr().GetMode()) {
		return problem(wire.NotDir, e.job, spec.OutputLine, "%s, where the results are to go, is not a directory", dir)
	}
	if err := e.may(ctx, inode, 2|1, dir, spec.OutputLine); err != nil {
		if errors.Is(err, wire.Denied) {
			return problem(wire.Denied, e.job, spec.OutputLine, "no permission to write to %s, where the results are to go", dir)
		}
		return err
	}
	job.OutParent = inode.Attr.Ino
	return nil
}

// tasks expands the inputs of a job and makes its map tasks.
func (e *expander) tasks(ctx context.Context, spec *jobfile.Spec) ([]*wire.Task, error) {
	var files []*wire.TaskInput
	var err error
	if len(spec.Inputs) > 0 {
		if files, err = e.expand(ctx, spec.Inputs); err != nil {
			return nil, err
		}
	}
	var tasks []*wire.Task
	switch {
	case spec.Array > 0:
		if len(files)*spec.Array > maxFiles*4 {
			return nil, problem(wire.Invalid, e.job, 0, "an array of %d tasks with %d input files each is too large", spec.Array, len(files))
		}
		one := &wire.Task{Inputs: files, Phase: "map"}
		locate(ctx, e.files, []*wire.Task{one})
		for n := range spec.Array {
			tasks = append(tasks, &wire.Task{N: uint32(n), Inputs: files, Phase: "map"})
		}
	case spec.OutputPerFile():
		tasks = pack(files, 0, 1)
		if len(tasks) >= maxTasks {
			return nil, problem(wire.Invalid, e.job, 0, "%d files, each a task with a result of its own, are more than %d", len(files), maxTasks)
		}
		locate(ctx, e.files, tasks)
	case spec.Memoise && spec.Split == jobfile.SplitFile && spec.TaskBytes == 0 && len(files) < maxTasks/2:
		// One task a file: what has changed costs no more than itself.
		tasks = pack(files, 0, 1)
		locate(ctx, e.files, tasks)
	default:
		if tasks, err = split(ctx, e.files, files, spec); err != nil {
			return nil, problem(wire.CodeOf(err), e.job, 0, "finding out where the inputs lie: %v", err)
		}
	}
	return e.unlessThere(ctx, spec, tasks)
}

// unlessThere leaves out the tasks whose results are there already, or refuses
// the job, as the job file has it. What appears until a task has ended is the
// state machine's to see.
func (e *expander) unlessThere(ctx context.Context, spec *jobfile.Spec, tasks []*wire.Task) ([]*wire.Task, error) {
	names, err := e.results(spec, tasks)
	if err != nil {
		return nil, err
	}
	dir, _ := spec.OutputDir()
	if dir == "" || spec.IfExists == jobfile.Replace {
		return tasks, nil
	}
	listed := map[string]map[string]bool{}
	there := func(name string) (bool, error) {
		in := path.Join(dir, path.Dir(name))
		entries, known := listed[in]
		if !known {
			list, err := e.files.ReadDir(ctx, in)
			if err != nil && !(in != dir && (errors.Is(err, wire.NotFound) || errors.Is(err, wire.NotDir))) {
				return false, e.statError(err, in, spec.OutputLine)
			}
			entries = map[string]bool{}
			for _, d := range list {
				entries[d.Name] = true
			}
			listed[in] = entries
		}
		return entries[path.Base(name)], nil
	}
	taken := func(name string) error {
		return problem(wire.Exists, e.job, spec.OutputLine, "the result %s exists already (if_exists: fail)", path.Join(dir, name))
	}
	if spec.Reduce != nil {
		switch found, err := there(names[0]); {
		case err != nil:
			return nil, err
		case !found:
			return tasks, nil
		case spec.IfExists == jobfile.Fail:
			return nil, taken(names[0])
		}
		return nil, nil
	}
	var left []*wire.Task
	for i, t := range tasks {
		switch found, err := there(names[i]); {
		case err != nil:
			return nil, err
		case !found:
		case spec.IfExists == jobfile.Fail:
			return nil, taken(names[i])
		case spec.OutputPerFile() && !spec.OutputNumbered():
			continue // its number is in no name
		}
		t.N = uint32(len(left))
		left = append(left, t)
	}
	return left, nil
}

// maxDepth bounds how many directories lie between the one for the results and a
// result.
const maxDepth = 128

// results are the names of the results, paths below the directory for them: one of
// each task, or that of the reduce step. They are refused if one could not be had,
// or if two would be in one place: then the job would succeed, and one of them be
// lost.
func (e *expander) results(spec *jobfile.Spec, tasks []*wire.Task) ([]string, error) {
	dir, _ := spec.OutputDir()
	bad := func(format string, args ...any) error {
		return problem(wire.Invalid, e.job, spec.OutputLine, format, args...)
	}
	check := func(name, of string) error {
		where := path.Join(dir, name)
		for part := range strings.SplitSeq(name, "/") {
			switch {
			case part == "" || part == "." || part == "..":
				return bad("the result of %s cannot be called %q", of, name)
			case len(part) > wire.MaxName:
				return bad("the result of %s cannot be called %s: a name has at most %d bytes, and this has %d", of, shortened(where), wire.MaxName, len(part))
			}
		}
		if n := strings.Count(name, "/"); n > maxDepth || len(where) > 4096 {
			return bad("the result of %s would lie too deep, at %s", of, shortened(where))
		}
		return nil
	}
	if spec.Reduce != nil {
		name := spec.OutputName(e.job, "", 0, false)
		return []string{name}, check(name, "the reduce step")
	}
	names := make([]string, len(tasks))
	of := func(i int) string {
		if in := tasks[i].Inputs; len(in) > 0 && spec.OutputPerFile() {
			return in[0].Path
		}
		return fmt.Sprintf("task %d", i)
	}
	owner := make(map[string]int, len(tasks))
	for i, t := range tasks {
		input := ""
		if len(t.Inputs) > 0 {
			input = t.Inputs[0].Path
		}
		names[i] = spec.OutputName(e.job, input, t.N, len(tasks) > 1)
		if err := check(names[i], of(i)); err != nil {
			return nil, err
		}
		if other, taken := owner[names[i]]; taken {
			return nil, bad("the results of %s and %s would both be %s: tell them apart with {path}, {dir} or {task} in output", of(other), of(i), path.Join(dir, names[i]))
		}
		owner[names[i]] = i
	}
	for i, name := range names {
		for above := path.Dir(name); above != "."; above = path.Dir(above) {
			if other, taken := owner[above]; taken {
				return nil, bad("the result of %s would be %s, which has to be a directory for that of %s", of(other), path.Join(dir, above), of(i))
			}
		}
	}
	return names, nil
}

// nanoseconds since 1970; what is before 1678 or after 2261 does not wrap.
func nanoseconds(t time.Time) int64 {
	switch year := t.UTC().Year(); {
	case year < 1678:
		return math.MinInt64
	case year > 2261:
		return math.MaxInt64
	}
	return t.UnixNano()
}
