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
	"quernfs/offload/jobfile"
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
		switch {
		case err != nil:
			errs = append(errs, err, t.hinder(ctx, j, err))
		case u != nil:
			errs = append(errs, t.update(ctx, j, u))
		}
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
	return unlessOver(err)
}

// awaited looks whether a job that waits for others is to begin, and begins it. It
// returns its end, if that is to be.
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
	t.begin(ctx, j.job, j.spec)
	return nil, nil
}

// begin makes the tasks of a job that has waited, beside the rounds: that there are
// many costs no other job time.
func (t *term) begin(ctx context.Context, job *wire.Job, spec *jobfile.Spec) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.begun[job.Id] {
		return
	}
	t.begun[job.Id] = true
	t.wg.Go(func() {
		err := t.makeTasks(ctx, job, spec)
		t.mu.Lock()
		j := t.jobs[job.Id]
		t.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			t.s.log.Warn("the tasks of a job were not made", "job", job.Id, "err", err)
			if j != nil {
				if err := t.hinder(ctx, j, err); err != nil {
					t.s.log.Warn("the reason of a job was not stored", "job", job.Id, "err", err)
				}
			}
			rest(ctx, tick) // and then again
		}
		t.mu.Lock()
		delete(t.begun, job.Id)
		if j := t.jobs[job.Id]; j != nil {
			j.stale = true
		}
		t.mu.Unlock()
		t.wake()
	})
}

// hinder says in its reason why a job that waits does not begin yet; what does not
// pass ends it.
func (t *term) hinder(ctx context.Context, j *jobState, err error) error {
	u := &wire.UpdateJob{Id: j.job.Id, Reason: "waiting: it will be tried again: " + sentence(err)}
	if !wire.CodeOf(err).MayPass() {
		u.State, u.Reason = StateFailed, sentence(err)
	}
	t.mu.Lock()
	said := j.job.Reason == u.Reason && u.State == ""
	t.mu.Unlock()
	if said {
		return nil
	}
	return t.update(ctx, j, u)
}

// makeTasks gives a job that has waited its tasks, and its beginning; or its end, if
// it cannot have them.
func (t *term) makeTasks(ctx context.Context, job *wire.Job, spec *jobfile.Spec) error {
	give := func(u *wire.UpdateJob) (*wire.Result, error) {
		u.Id = job.Id
		return t.proposed(ctx, &wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: u}})
	}
	end := func(state, reason string) error {
		_, err := give(&wire.UpdateJob{State: state, Reason: reason})
		return unlessOver(err)
	}
	// A round that began before the job did may ask for it once more.
	job, _, err := getJob(ctx, viewMeta{t.view}, job.Id, false)
	if err != nil || job.State != StateWaiting {
		return unlessOver(err)
	}
	e := &expander{files: viewFiles{t.view}, meta: viewMeta{t.view}, cred: job.Cred, job: job.Name}
	var tasks []*wire.Task
	binds, err := e.binds(ctx, spec)
	if err == nil {
		tasks, err = e.tasks(ctx, spec)
	}
	if err == nil {
		err = e.fits(ctx, spec, kernelOfTask(job, "map"), tasks)
	}
	switch {
	case err == nil:
	case wire.CodeOf(err).MayPass():
		return err
	default:
		return end(StateFailed, sentence(err))
	}
	memoise(spec, job, job.Cred.GetUid(), tasks)
	w := workOf(spec, tasks)
	if w.empty() {
		return end(StateSucceeded, nothingToDo)
	}
	list, large := pieces(w.tasks)
	if large || proto.Size(w.template) > maxCommand {
		return end(StateFailed, tooLarge)
	}
	for job.Tasks > 0 || job.Partial { // an earlier leader has begun with it
		r, err := give(&wire.UpdateJob{DropTasks: true})
		if err != nil {
			return unlessOver(err)
		}
		if r.Value == 0 {
			break
		}
	}
	last := len(list) - 1
	for i, piece := range list {
		u := &wire.UpdateJob{Tasks: piece}
		if i == last {
			u.State, u.Reason, u.Event, u.Binds = StatePending, "waiting for a host", "the jobs before have ended", binds
			u.Array, u.Template = uint32(w.array), w.template
			u.MaxFailed = uint32(spec.MostFailed(max(w.array, len(w.tasks))))
		}
		if _, err := give(u); errors.Is(err, wire.Quota) {
			return end(StateFailed, sentence(err))
		} else if err != nil {
			return unlessOver(err)
		}
	}
	return nil
}

// unlessOver is nil if the job is gone, or ended, meanwhile.
func unlessOver(err error) error {
	if errors.Is(err, wire.Stale) || errors.Is(err, wire.NotFound) {
		return nil
	}
	return err
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
