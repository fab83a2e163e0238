package offload

import (
	"strings"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// inPlaceCase makes a task of all inputs of a job.
func inPlaceCase(inputs, patterns, binds string) (*wire.Task, *jobfile.Spec, *jobfile.Exec) {
	task, spec, x := &wire.Task{}, &jobfile.Spec{Split: jobfile.SplitNone}, &jobfile.Exec{}
	for _, p := range strings.Fields(inputs) {
		task.Inputs = append(task.Inputs, &wire.TaskInput{Path: p})
	}
	for _, p := range strings.Fields(patterns) {
		spec.Inputs = append(spec.Inputs, jobfile.Input{Pattern: p})
	}
	for _, p := range strings.Fields(binds) {
		x.Binds = append(x.Binds, jobfile.Input{Pattern: p})
	}
	return task, spec, x
}
