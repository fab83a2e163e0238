package offload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// life does what time and other jobs decide: jobs begin when those they wait
// for have ended, expire at their deadlines, and are removed when their time
// after their end is over.
func (t *term) life(ctx context.Context, now time.Time) error {
	var waiting, late []*jobState
	t.mu.Lock()
	for _, j := range t.jobs {
		switch d := j.job.DeadlineNs; {
		case d != 0 && now.UnixNano() > d:
			late = append(late, j)
		case j.job.State == StateWaiting:
			waiting = append(waiting, j)
		}
	}
	t.mu.Unlock()
	byID := func(a, b *jobState) int { return cmp.Compare(a.job.Id, b.job.Id) }
	slices.SortFunc(waiting, byID)
	slices.SortFunc(late, byID)
	var errs []error
	for _, j := range late {
		reason := fmt.Sprintf("its deadline, %s, has passed", stamp(j.job.DeadlineNs))
		errs = append(errs, t.update(ctx, j, &wire.UpdateJob{Id: j.job.Id, State: StateExpired, Reason: reason}))
	}
	for _, j := range waiting {
		u, err := t.awaited(ctx, j)
		if err == nil && u != nil {
			err = t.update(ctx, j, u)
		}
		errs = append(errs, err)
	}
	errs = append(errs, t.remove(ctx, now))
	return errors.Join(errs...)
}

// update proposes a change of a job; its tasks are read again.
func (t *term) update(ctx context.Context, j *jobState, u *wire.UpdateJob) error {
	err := t.propose(ctx, &wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: u}})
	t.mu.Lock()
	j.stale = true
	t.mu.Unlock()
	t.wake()
	if errors.Is(err, wire.Stale) || errors.Is(err, wire.NotFound) {
		return nil
	}
	return err
}

// awaited is what is to be done with a job that waits for others: nothing yet
// (nil), its end, or its beginning, with its tasks.
func (t *term) awaited(ctx context.Context, j *jobState) (*wire.UpdateJob, error) {
	end := func(reason string) (*wire.UpdateJob, error) {
		return &wire.UpdateJob{Id: j.job.Id, State: StateFailed, Reason: reason}, nil
	}
	if j.spec == nil {
		return end("its job file cannot be read by this version of quern")
	}
	for _, a := range j.job.After {
		other, _, err := getJob(ctx, viewMeta{t.view}, a.Job, false)
		if err != nil && !errors.Is(err, wire.NotFound) {
			return nil, err
		}
		state := "gone"
		if err == nil {
			state = other.State
		}
		switch {
		case err == nil && !Ended(state):
			return nil, nil
		case a.When == "any", a.When == "ok" && state == StateSucceeded,
			a.When == "failed" && (state == StateFailed || state == StateExpired || state == StateCancelled):
		default:
			return end(fmt.Sprintf("it was to run after %s (%s), and that job is %s", a.Name, a.When, state))
		}
	}
	e := &expander{files: viewFiles{t.view}, meta: viewMeta{t.view}, cred: j.job.Cred, job: j.job.Name}
	var tasks []*wire.Task
	binds, err := e.binds(ctx, j.spec)
	if err == nil {
		tasks, err = e.tasks(ctx, j.spec)
	}
	if err == nil {
		err = e.fits(ctx, j.spec, kernelOfTask(j.job, "map"), tasks)
	}
	switch {
	case err == nil:
	case wire.CodeOf(err).MayPass():
		return nil, err
	default:
		return end(sentence(err))
	}
	memoise(j.spec, j.job, j.job.Cred.GetUid(), tasks)
	if len(tasks) == 0 {
		return &wire.UpdateJob{Id: j.job.Id, State: StateSucceeded, Reason: nothingToDo}, nil
	}
	u := &wire.UpdateJob{Id: j.job.Id, State: StatePending, Reason: "waiting for a host", Event: "the jobs before have ended", Tasks: tasks, Binds: binds}
	if n := proto.Size(u); n > maxSubmit {
		return end(fmt.Sprintf("the inputs are too many for one job (%d MiB of names); split it", n>>20))
	}
	return u, nil
}

// nothingToDo is the reason of a job none of whose tasks was left.
const nothingToDo = "nothing to do: all results are there"

// removeAtOnce bounds what is removed in one round.
const removeAtOnce = 20

// remove forgets jobs whose time is over.
func (t *term) remove(ctx context.Context, now time.Time) error {
	ans, err := ask(ctx, viewMeta{t.view}, &wire.Query{Cred: rootCred, Op: &wire.Query_ListJobs{ListJobs: &wire.ListJobs{DueNs: now.UnixNano(), Limit: removeAtOnce}}})
	if err != nil {
		return err
	}
	jobs := ans.GetJobs().GetJobs()
	for _, job := range jobs {
		// In steps, so that no command is long.
		if _, err := RemoveJob(ctx, viewMeta{t.view}, rootCred, job.Id, 5); err != nil && !errors.Is(err, wire.NotFound) {
			return fmt.Errorf("removing job %d: %w", job.Id, err)
		}
	}
	if len(jobs) > 0 {
		t.wake()
	}
	return nil
}

// RemoveJob forgets a job that has ended, with its output directory, in at most
// that many steps. done: all of it.
func RemoveJob(ctx context.Context, m Meta, cred *wire.Cred, id uint64, steps int) (done bool, err error) {
	for range steps {
		r, err := m.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_RemoveJob{RemoveJob: &wire.RemoveJob{Id: id}}})
		if err != nil || r.GetValue() == 0 {
			return err == nil, err
		}
	}
	return false, nil
}
