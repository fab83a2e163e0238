package offload

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// A command goes through the log of the metadata servers, and holds up what comes
// after it. So a job of many tasks is given in pieces.
const (
	pieceTasks = 512
	pieceBytes = 256 << 10
	maxCommand = 4 << 20 // a task that is larger than a piece is one by itself, up to this
)

// work is what a job consists of: tasks, or an array of tasks that are alike.
type work struct {
	tasks    []*wire.Task
	array    int
	template *wire.Task
}

// workOf turns the tasks of an array into one. Those that are remembered by what
// they compute are not alike.
func workOf(spec *jobfile.Spec, tasks []*wire.Task) work {
	if spec.Array == 0 || len(tasks) == 0 || len(tasks[0].Memo) > 0 {
		return work{tasks: tasks}
	}
	return work{array: len(tasks), template: tasks[0]}
}

// empty: there is nothing to do.
func (w work) empty() bool { return w.array == 0 && len(w.tasks) == 0 }

// pieces divides tasks by what one command may hold: at least one, the last perhaps
// empty. large is set if a task is more than that.
func pieces(tasks []*wire.Task) (out [][]*wire.Task, large bool) {
	from, bytes := 0, 0
	for i, t := range tasks {
		n := proto.Size(t)
		large = large || n > maxCommand
		if i > from && (i-from == pieceTasks || bytes+n > pieceBytes) {
			out = append(out, tasks[from:i])
			from, bytes = i, 0
		}
		bytes += n
	}
	return append(out, tasks[from:]), large
}

// tooLarge is why a task cannot be stored.
const tooLarge = "a task has more than 4 MiB of names of inputs; split them among more tasks, or name their directory in binds"

// dropLimit bounds how long giving up what was staged may take: the end of the
// session does it, too.
const dropLimit = 5 * time.Second

// stage puts aside all of a job's tasks but those of the last piece, and returns the
// number that the job gets.
func (s *Submitter) stage(ctx context.Context, cred *wire.Cred, list [][]*wire.Task) (id uint64, drop func(), err error) {
	drop = func() {
		if id == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropLimit)
		defer cancel()
		s.Meta.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_DropStaged{DropStaged: &wire.DropStaged{Id: id}}})
	}
	first := uint32(0)
	for _, piece := range list[:len(list)-1] {
		r, err := s.Meta.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_StageTasks{StageTasks: &wire.StageTasks{Id: id, First: first, Tasks: piece}}})
		if err != nil {
			return id, drop, err
		}
		id = r.Value
		first += uint32(len(piece))
	}
	return id, drop, nil
}

// partsOf are the inputs of a reduce task: what the tasks that have succeeded left.
func partsOf(tasks []*wire.Task) (parts []*wire.TaskInput) {
	for _, t := range tasks {
		if t.Phase != "reduce" && t.State == StateSucceeded {
			parts = append(parts, &wire.TaskInput{Path: partName(t.N)})
		}
	}
	return parts
}

// withParts gives the reduce task, which comes last, its inputs: its record has none,
// since they follow from the other tasks.
func withParts(tasks []*wire.Task) {
	if n := len(tasks); n > 0 && tasks[n-1].Phase == "reduce" && len(tasks[n-1].Inputs) == 0 {
		tasks[n-1].Inputs = partsOf(tasks)
	}
}
