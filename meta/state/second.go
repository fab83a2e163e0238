package state

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// A task whose attempt is late may have a second one beside it (Task.second).
// Both are fenced by their numbers, as any attempt; no number is given twice
// (Task.last_attempt). The first to succeed wins, and its success ends the
// other's right to commit. When one ends in any other way, the task goes on with
// the other.

// withSecond is the record of a task beside whose attempt another begins.
func withSecond(old, second *wire.Task, now int64) *wire.Task {
	task := proto.Clone(old).(*wire.Task)
	task.Second = &wire.SecondAttempt{
		Attempt: second.Attempt, Agent: second.Agent, Host: second.Host, Device: second.Device, StartedNs: now, Placement: second.Placement,
		Runtime: second.Runtime,
	}
	task.LastAttempt = second.Attempt
	return task
}

// race is the record after an update of a task that may have a second attempt.
func race(old, task *wire.Task) *wire.Task {
	task.Second, task.LastAttempt = nil, 0
	second := old.Second
	switch {
	case second == nil || task.Attempt != old.Attempt && task.Attempt != second.Attempt:
		// None, or a new attempt that replaces both.
	case task.Attempt == second.Attempt && ended(task.State) && task.State != stateFailed:
		task.StartedNs = second.StartedNs
		if task.Placement == nil {
			task.Placement = second.Placement
		}
	case ended(task.State) && task.State != stateFailed:
	case active(task.State) && task.Attempt == old.Attempt:
		task.Second = second
	case active(task.State): // what the second says on its way changes nothing
		return old
	default:
		return survivor(old, task)
	}
	if last := max(old.LastAttempt, old.Attempt); last > task.Attempt {
		task.LastAttempt = last
	}
	return task
}

// survivor is the record of a task one of whose two attempts has ended, as over
// says, without success: it goes on with the other.
func survivor(old, over *wire.Task) *wire.Task {
	task := proto.Clone(old).(*wire.Task)
	if s := old.Second; over.Attempt == old.Attempt {
		task.Attempt, task.Agent, task.Host, task.Device, task.Runtime = s.Attempt, s.Agent, s.Host, s.Device, s.Runtime
		task.StartedNs, task.Placement = s.StartedNs, s.Placement
	}
	task.Failures = max(old.Failures, over.Failures)
	task.Reason = fmt.Sprintf("attempt %d goes on; attempt %d: %s", task.Attempt, over.Attempt, over.Reason)
	noSecond(task)
	return task
}

// noSecond ends the right of a second attempt. Its number stays taken.
func noSecond(task *wire.Task) {
	last := max(task.LastAttempt, task.Second.GetAttempt())
	task.Second, task.LastAttempt = nil, 0
	if last > task.Attempt {
		task.LastAttempt = last
	}
}
