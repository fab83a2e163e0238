package offload

import (
	"context"
	"strconv"

	"quernfs/internal/wire"
)

// The states of jobs and tasks.
const (
	StateWaiting    = "waiting"
	StatePending    = "pending"
	StateStaging    = "staging"
	StateRunning    = "running"
	StateCommitting = "committing"
	StateSucceeded  = "succeeded"
	StateFailed     = "failed"
	StateCancelled  = "cancelled"
	StateExpired    = "expired"
)

// States are all that a job can have.
var States = []string{StateWaiting, StatePending, StateStaging, StateRunning, StateCommitting, StateSucceeded, StateFailed, StateCancelled, StateExpired}

// Ended says whether a job or task in this state stays in it.
func Ended(state string) bool {
	switch state {
	case StateSucceeded, StateFailed, StateCancelled, StateExpired:
		return true
	}
	return false
}

// EachJob calls f with every job, by number, until it returns an error. The
// records lack spec, events and kernels.
func EachJob(ctx context.Context, m Meta, f func(*wire.Job) error) error {
	const page = 200
	for after := uint64(0); ; {
		ans, err := ask(ctx, m, &wire.Query{Cred: rootCred, Op: &wire.Query_ListJobs{ListJobs: &wire.ListJobs{After: after, Limit: page, Brief: true}}})
		if err != nil {
			return err
		}
		jobs := ans.GetJobs().GetJobs()
		for _, j := range jobs {
			if err := f(j); err != nil {
				return err
			}
			after = j.Id
		}
		if len(jobs) == 0 {
			return nil
		}
	}
}

// GetJob returns a job and its tasks. ref is its number or its name.
func GetJob(ctx context.Context, m Meta, ref string) (*wire.Job, []*wire.Task, error) {
	id, err := strconv.ParseUint(ref, 10, 64)
	if err != nil {
		job, err := findJob(ctx, m, ref)
		if err != nil {
			return nil, nil, err
		}
		if job == nil {
			return nil, nil, &wire.Error{Code: wire.NotFound, Op: "job", Object: ref}
		}
		id = job.Id
	}
	return getJob(ctx, m, id, true)
}

func getJob(ctx context.Context, m Meta, id uint64, tasks bool) (*wire.Job, []*wire.Task, error) {
	job, list, err := getTasks(ctx, m, id, tasks, 0)
	for more := len(list); err == nil && more == tasksPage; {
		var next []*wire.Task
		job, next, err = getTasks(ctx, m, id, true, list[len(list)-1].N+1)
		list, more = append(list, next...), len(next)
	}
	withParts(list)
	return job, list, err
}

// tasksPage is how many tasks one answer has at most.
const tasksPage = 4096

// getTasks returns a job, and the first page of its tasks from number first on if
// tasks is set.
func getTasks(ctx context.Context, m Meta, id uint64, tasks bool, first uint32) (*wire.Job, []*wire.Task, error) {
	return queryJob(ctx, m, &wire.GetJob{Id: id, Tasks: tasks, First: first, Count: tasksPage})
}

func queryJob(ctx context.Context, m Meta, q *wire.GetJob) (*wire.Job, []*wire.Task, error) {
	ans, err := ask(ctx, m, &wire.Query{Cred: rootCred, Op: &wire.Query_GetJob{GetJob: q}})
	if err != nil {
		return nil, nil, err
	}
	jobs := ans.GetJobs().GetJobs()
	if len(jobs) == 0 {
		return nil, nil, &wire.Error{Code: wire.NotFound, Op: "job", Object: strconv.FormatUint(q.Id, 10)}
	}
	return jobs[0], ans.GetJobs().GetTasks(), nil
}
