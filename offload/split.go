package offload

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// Small files are packed into one task up to these.
const (
	packBytes = 16 << 20
	packFiles = 512
)

// maxTasks is how many tasks a job may have: their numbers have a place in
// synthetic inode numbers (see nodes.go).
const maxTasks = 1 << 17

// split makes tasks of files, and says where each is best run. With more than
// maxTasks the limits grow.
func split(ctx context.Context, src Files, files []*wire.TaskInput, spec *jobfile.Spec) ([]*wire.Task, error) {
	if spec.Split == jobfile.SplitNone {
		tasks := []*wire.Task{{Inputs: files, Phase: "map"}}
		locate(ctx, src, tasks)
		return tasks, nil
	}
	var cut func(bytes, count uint64) []*wire.Task
	limit := uint64(packBytes)
	if ranges, records := spec.Split.Ranges(); ranges {
		parts, err := layouts(ctx, src, files)
		if err != nil {
			return nil, err
		}
		if spec.Split == jobfile.SplitShard {
			limit = shardBytes
		}
		cut = func(bytes, _ uint64) []*wire.Task { return cutter{records: records}.cut(parts, spec.Split, bytes) }
	} else {
		// Whole files, in order. A large one is a task of its own.
		cut = func(bytes, count uint64) []*wire.Task { return pack(files, bytes, int(count)) }
	}
	if spec.TaskBytes > 0 {
		limit = uint64(spec.TaskBytes)
	}
	for scale := uint64(1); ; scale *= 2 {
		tasks := cut(limit*scale, packFiles*scale)
		if len(tasks) >= maxTasks {
			continue
		}
		if ranges, _ := spec.Split.Ranges(); !ranges {
			locate(ctx, src, tasks)
		}
		return tasks, nil
	}
}

func pack(files []*wire.TaskInput, most uint64, count int) []*wire.Task {
	var out []*wire.Task
	var t *wire.Task
	var bytes uint64
	for _, f := range files {
		if t == nil || len(t.Inputs) == count || bytes+f.Size > most {
			t = &wire.Task{N: uint32(len(out)), Phase: "map"}
			out = append(out, t)
			bytes = 0
		}
		t.Inputs = append(t.Inputs, f)
		bytes += f.Size
	}
	return out
}

// locate fills in which chunk servers hold most of each task's bytes. Only the
// largest inputs of a task are asked for: they decide. Without an answer the
// task has no preference.
func locate(ctx context.Context, files Files, tasks []*wire.Task) {
	const perTask, servers = 3, 6
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, t := range tasks {
		large := slices.Clone(t.Inputs)
		slices.SortStableFunc(large, func(a, b *wire.TaskInput) int { return cmp.Compare(b.Size, a.Size) })
		for _, f := range large[:min(perTask, len(large))] {
			if f.Size == 0 {
				continue
			}
			g.Go(func() error {
				where, err := files.Where(ctx, f.Ino)
				if err == nil {
					f.Servers = most(where, servers)
				}
				return nil
			})
		}
	}
	_ = g.Wait()
}

// most returns up to n servers, those with the most bytes first.
func most(where map[uint32]uint64, n int) []uint32 {
	var out []uint32
	for s := range where {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(where[b], where[a]), cmp.Compare(a, b))
	})
	return out[:min(n, len(out))]
}
