package offload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/worker"
)

// maxOpen bounds how many inputs of one task are open at once.
const maxOpen = 64

// taskInputs are the inputs of one attempt. One goroutine uses them.
type taskInputs struct {
	files Files
	list  []worker.Input
	open  []openInput // the oldest first
	read  int64       // bytes
	took  time.Duration
	last  *rangeView // that was read last: it lends its window to the next
}

type openInput struct {
	i int
	f File
}

// inputs prepares what the task reads. A map task's files are opened when they
// are first read, and compared with what was pinned. A reduce task's parts are
// looked up in the job's output directory.
func (r *attemptRun) inputs(ctx context.Context) (*taskInputs, error) {
	in := &taskInputs{files: r.agent.cfg.Files}
	for i, t := range r.task.Inputs {
		if t.Ino == 0 {
			part, err := r.part(ctx, t.Path)
			if err != nil {
				return nil, fmt.Errorf("finding the part %s: %w", t.Path, err)
			}
			t = part
		}
		if len(t.Ranges) > 0 {
			w, err := in.views(ctx, i, t, r.header)
			if err != nil {
				return nil, err
			}
			in.list = append(in.list, w...)
			continue
		}
		in.list = append(in.list, worker.Input{
			Path: t.Path, Size: int64(t.Size),
			ReadAt: func(ctx context.Context, p []byte, off int64) (int, error) {
				began := time.Now()
				defer func() { in.took += time.Since(began) }()
				f, err := in.file(ctx, i, t)
				if err != nil {
					return 0, err
				}
				n, err := f.ReadAt(ctx, p, off)
				in.read += int64(n)
				return n, err
			},
		})
	}
	return in, nil
}

// views are what the task sees of an input of which it gets ranges: a file that
// consists of these, or, where they are to begin with the input's header, a file
// for each.
func (in *taskInputs) views(ctx context.Context, i int, t *wire.TaskInput, header int) ([]worker.Input, error) {
	f, err := in.file(ctx, i, t)
	if err != nil {
		return nil, err
	}
	if header == 0 || !t.Records {
		v, err := viewRanges(ctx, f, t)
		if err != nil {
			return nil, fmt.Errorf("looking for lines in %s: %w", t.Path, err)
		}
		return []worker.Input{in.view(i, t, t.Path, v)}, nil
	}
	all, err := viewParts(ctx, f, t, header)
	if err != nil {
		return nil, fmt.Errorf("looking for lines in %s: %w", t.Path, err)
	}
	var out []worker.Input
	for k, v := range all {
		out = append(out, in.view(i, t, rangeName(t, k), v))
	}
	return out, nil
}

// view is an input of which the task sees v only.
func (in *taskInputs) view(i int, t *wire.TaskInput, name string, v *rangeView) worker.Input {
	return worker.Input{
		Path: name, Size: v.size,
		ReadAt: func(ctx context.Context, p []byte, off int64) (int, error) {
			f, err := in.file(ctx, i, t)
			if err != nil {
				return 0, err
			}
			if in.last != v {
				if in.last != nil {
					v.window, in.last.window = in.last.window[:0], nil
				}
				in.last = v
			}
			n, err := v.readAt(ctx, f, p, off)
			in.read += int64(n)
			return n, err
		},
	}
}

// part finds the output of a map task.
func (r *attemptRun) part(ctx context.Context, name string) (*wire.TaskInput, error) {
	ans, err := ask(ctx, r.agent.cfg.Meta, &wire.Query{Cred: rootCred, Op: &wire.Query_Lookup{Lookup: &wire.Lookup{Parent: r.job.OutDir, Name: name}}})
	if err != nil {
		return nil, err
	}
	a := ans.GetInode().GetInode().GetAttr()
	return &wire.TaskInput{Path: "/" + name, Ino: a.GetIno(), Size: a.GetSize(), Version: a.GetVersion(), MtimeNs: a.GetMtimeNs()}, nil
}

// file returns input i, open.
func (in *taskInputs) file(ctx context.Context, i int, t *wire.TaskInput) (File, error) {
	for k := len(in.open) - 1; k >= 0; k-- {
		if in.open[k].i == i {
			return in.open[k].f, nil
		}
	}
	f, err := in.files.OpenInode(ctx, t.Ino)
	if isGone(err) {
		// Another file may have been put in its place.
		_, err := in.files.Stat(ctx, t.Path)
		return nil, &changedError{t.Path, errors.Is(err, wire.NotFound) || errors.Is(err, wire.NotDir)}
	}
	if err != nil {
		return nil, err
	}
	if changed(f.Inode().GetAttr(), t) {
		f.Close()
		return nil, &changedError{path: t.Path}
	}
	if len(in.open) == maxOpen {
		in.open[0].f.Close()
		in.open = append(in.open[:0], in.open[1:]...)
	}
	in.open = append(in.open, openInput{i, f})
	return f, nil
}

// changed compares a file with what was pinned. Reading alone changes the version
// (atime), so size and time decide then.
func changed(a *wire.Attr, t *wire.TaskInput) bool {
	return a.GetVersion() != t.Version && (a.GetSize() != t.Size || a.GetMtimeNs() != t.MtimeNs)
}

func (in *taskInputs) close() {
	for _, o := range in.open {
		o.f.Close()
	}
	in.open = nil
}
