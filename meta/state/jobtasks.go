package state

import (
	"fmt"

	"quernfs/internal/wire"
)

// A command about a job takes about as long for one of a hundred thousand tasks
// as for one of ten. So the tasks of an array have no records until they start:
// what they are like is in one, the template. And neither the end of a job nor its
// repetition touches the records of its tasks: current says what these mean for it.

const (
	reasonWaits = "waiting for a host"
	reasonAgain = "to be tried again"

	phaseMap = "map"
)

// current turns the record of a task, as it is stored, into what it is in its job:
// open tasks of a job that has ended are cancelled with it, and those that had not
// succeeded when it was tried again are pending.
func current(j *wire.Job, task *wire.Task) *wire.Task {
	if task.State == stateSucceeded {
		return task
	}
	if task.Round != j.Round {
		task.State, task.Reason, task.EndedNs, task.Round = statePending, reasonAgain, 0, j.Round
		noSecond(task)
	}
	if ended(j.State) && !ended(task.State) {
		task.State, task.Reason, task.EndedNs = stateCancelled, j.Reason, j.EndedNs
		noSecond(task)
	}
	return task
}

// alike is a task of a job's array that has no record.
func alike(j *wire.Job, n uint32) *wire.Task {
	return current(j, &wire.Task{Job: j.Id, N: n, State: statePending, Reason: reasonWaits, Phase: phaseMap, Round: j.Round})
}

// task returns a task of a job; nil: there is none. One of its array has no inputs:
// these are in the template.
func (v *view) task(j *wire.Job, n uint32) *wire.Task {
	v.key = taskKey(v.key[:0], j.Id, n)
	t := new(wire.Task)
	switch {
	case v.load(v.key, t):
		return current(j, t)
	case n < j.Array:
		return alike(j, n)
	}
	return nil
}

// template is what the tasks of a job's array have in common.
func (v *view) template(j *wire.Job) *wire.Task {
	t := new(wire.Task)
	if j.Array == 0 {
		return t
	}
	v.load(jobTemplateKey(nil, j.Id), t)
	return t
}

// tasks calls each with the tasks of a job with the number first or a higher one,
// by number, with their inputs.
func (v *view) tasks(j *wire.Job, first uint32, each func(*wire.Task) bool) {
	common := v.template(j)
	next, more := first, true
	give := func(task *wire.Task) bool {
		if next = task.N + 1; task.N < j.Array {
			task.Inputs = common.Inputs
		}
		more = each(task)
		return more
	}
	v.recorded(j, first, func(task *wire.Task) bool {
		for upto := min(task.N, j.Array); next < upto; {
			if !give(alike(j, next)) {
				return false
			}
		}
		return give(task)
	})
	for more && next < j.Array && v.err == nil {
		give(alike(j, next))
	}
}

// addTasks appends tasks to an edited job.
func (t *tx) addTasks(j *wire.Job, tasks []*wire.Task) {
	for _, in := range tasks {
		t.set(taskKey(nil, j.Id, uint32(j.NextTask)), newTask(j, in, uint32(j.NextTask)))
		j.NextTask++
		j.Tasks++
	}
}

// recorded is tasks for those that have a record. Those of the array come without
// inputs.
func (v *view) recorded(j *wire.Job, first uint32, each func(*wire.Task) bool) {
	v.scan(taskKey(nil, j.Id, first), after(be64([]byte{kJob, jTask}, j.Id)), func(key, value []byte) bool {
		task := new(wire.Task)
		return v.decode(key, value, task) && each(current(j, task))
	})
}

// newTask is the record of a task that is submitted as in.
func newTask(j *wire.Job, in *wire.Task, n uint32) *wire.Task {
	task := &wire.Task{
		Job: j.Id, N: n, Inputs: in.GetInputs(), Phase: in.GetPhase(), Memo: in.GetMemo(), Memory: in.GetMemory(),
		State: statePending, Reason: reasonWaits, Round: j.Round,
	}
	if task.Phase == phaseReduce {
		task.LastAttempt = j.ReduceAttempt
	}
	return task
}

// putArray gives an edited job without tasks an array of them.
func (t *tx) putArray(j *wire.Job, count uint32, template *wire.Task) {
	if j.Array = count; count == 0 {
		return
	}
	t.set(jobTemplateKey(nil, j.Id), &wire.Task{Inputs: template.GetInputs(), Phase: phaseMap})
	j.Tasks, j.NextTask = count, uint64(count)
}

// open says whether a task of the job has not ended.
func open(j *wire.Job) bool { return j.Tasks > j.TasksDone+j.TasksFailed+j.TasksOff }

// tryAgain begins another round of an edited job that has ended: what has not
// succeeded is pending, and a reduce step that ran over a part of the tasks is to
// run anew.
func (t *tx) tryAgain(j *wire.Job) {
	if last := t.lastTask(j); last != nil && last.Phase == phaseReduce && j.TasksFailed > 0 && j.TasksDone < j.Tasks {
		j.ReduceAttempt = max(last.Attempt, last.LastAttempt)
		j.NextTask--
		if j.Tasks--; last.State == stateSucceeded {
			j.TasksDone--
			j.LeftBytes, j.LeftUnread, j.LeftPresent = 0, false, false
		}
		if len(last.Memo) > 0 {
			t.forgetMemo(last)
		}
		t.del(taskKey(nil, j.Id, last.N))
	}
	j.Round++
	j.State, j.Reason, j.EndedNs = statePending, reasonAgain, 0
	j.TasksFailed, j.TasksOff, j.Failure = 0, 0, ""
}

// lastTask is the task with the highest number; nil: there is none. A reduce task
// comes last.
func (t *tx) lastTask(j *wire.Job) *wire.Task {
	if j.NextTask == 0 {
		return nil
	}
	return t.task(j, uint32(j.NextTask-1))
}

// failureOf is what a job says of a task that has failed.
func failureOf(task *wire.Task) string {
	if len(task.Inputs) == 1 {
		return fmt.Sprintf("task %d (%s): %s", task.N, task.Inputs[0].Path, task.Reason)
	}
	return fmt.Sprintf("task %d: %s", task.N, task.Reason)
}

// failure is why a job whose tasks have ended, some of them failed, has failed.
func failure(j *wire.Job) string {
	if j.TasksFailed > 1 {
		return fmt.Sprintf("%d of %d tasks failed; %s", j.TasksFailed, j.Tasks, j.Failure)
	}
	return j.Failure
}
