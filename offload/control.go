package offload

import (
	"context"

	"quernfs/internal/wire"
)

// Cancel ends a job that has not ended. Its running tasks are stopped.
func Cancel(ctx context.Context, m Meta, cred *wire.Cred, id uint64, reason string) error {
	_, err := m.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{
		Id: id, State: StateCancelled, Reason: reason, Event: reason,
	}}})
	return err
}

// Retry starts the tasks of a failed or cancelled job that have not succeeded
// once more.
func Retry(ctx context.Context, m Meta, cred *wire.Cred, id uint64, reason string) error {
	job, _, err := getJob(ctx, m, id, false)
	if err != nil {
		return err
	}
	if job.State != StateFailed && job.State != StateCancelled && job.State != StateExpired {
		return problem(wire.Invalid, job.Name, 0, "job %d is %s: only a job that failed or was cancelled can be retried", id, job.State)
	}
	_, err = m.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{
		Id: id, State: StatePending, Reason: reason, Event: reason,
	}}})
	return err
}

// Pause keeps further tasks of a job from starting. Those that run go on.
func Pause(ctx context.Context, m Meta, cred *wire.Cred, id uint64, reason string) error {
	return change(ctx, m, cred, &wire.UpdateJob{Id: id, Pause: true, Reason: reason, Event: reason})
}

// Resume takes a pause back.
func Resume(ctx context.Context, m Meta, cred *wire.Cred, id uint64, reason string) error {
	return change(ctx, m, cred, &wire.UpdateJob{Id: id, Resume: true, Reason: reason, Event: reason})
}

// SetPriority changes how urgent a job is.
func SetPriority(ctx context.Context, m Meta, cred *wire.Cred, id uint64, n int, event string) error {
	return change(ctx, m, cred, &wire.UpdateJob{Id: id, SetPriority: true, Priority: int32(n), Event: event})
}

// change sends an update of a job that has not ended.
func change(ctx context.Context, m Meta, cred *wire.Cred, u *wire.UpdateJob) error {
	job, _, err := getJob(ctx, m, u.Id, false)
	if err != nil {
		return err
	}
	if Ended(job.State) {
		return problem(wire.Invalid, job.Name, 0, "job %d has ended (%s): nothing of it can be changed", u.Id, job.State)
	}
	_, err = m.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_UpdateJob{UpdateJob: u}})
	return err
}
