package state

import (
	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// Staged tasks are those of a job that is being submitted: they come in pieces, so
// that no command is long, and the job appears with all of them at once. Until then
// they belong to a session, and go with it.

// maxStaged is how many jobs of a user may be about to be submitted at a time.
const maxStaged = 16

func sizeOf(tasks []*wire.Task) (n uint64) {
	for _, t := range tasks {
		n += uint64(proto.Size(t))
	}
	return n
}

func (t *tx) stageTasks(op *wire.StageTasks) *wire.Result {
	uid := t.cred.GetUid()
	if r := tooMany(len(op.Tasks), 0); r != nil {
		return r
	}
	s := &wire.Staged{Uid: uid, Session: t.session}
	if op.Id != 0 {
		var r *wire.Result
		if s, r = t.staged(op.Id, uid); r != nil {
			return r
		}
	} else if uid != 0 && t.stagedOf(uid) >= maxStaged {
		return failf(wire.Quota, "uid %d is submitting %d jobs at once, and may no more", uid, maxStaged)
	}
	switch {
	case op.First != s.Tasks:
		return failf(wire.Invalid, "a piece that begins with task %d, after %d tasks", op.First, s.Tasks)
	case uint64(s.Tasks)+uint64(len(op.Tasks)) > maxTasks:
		return failf(wire.Invalid, "a job of more than %d tasks", maxTasks)
	}
	size := s.Size + sizeOf(op.Tasks)
	all := &wire.UserJobs{Jobs: 1, Tasks: uint64(s.Tasks) + uint64(len(op.Tasks)), Size: size}
	if r := t.overQuota(uid, quota{0, op.MaxTasks, op.MaxBytes}, all); r != nil {
		return r
	}
	id := op.Id
	if id == 0 {
		id = t.take(nextJob, 1)
	}
	j := &wire.Job{Id: id}
	for _, task := range op.Tasks {
		t.set(taskKey(nil, id, s.Tasks), newTask(j, task, s.Tasks))
		s.Tasks++
	}
	s.Size = size
	t.set(stagedKey(nil, id), s)
	return &wire.Result{Value: id}
}

// staged is what the caller has staged under a number, or why he has not.
func (t *tx) staged(id uint64, uid uint32) (*wire.Staged, *wire.Result) {
	s := new(wire.Staged)
	if !t.load(stagedKey(nil, id), s) || s.Session != t.session || s.Uid != uid {
		return nil, failf(wire.NotFound, "nothing of this session is staged under %d", id)
	}
	return s, nil
}

// stagedFor is what a job gets that is submitted; nil: nothing was staged.
func (t *tx) stagedFor(op *wire.SubmitJob, owner *wire.Cred) (*wire.Staged, *wire.Result) {
	if op.Staged == 0 {
		return nil, nil
	}
	s, r := t.staged(op.Staged, t.cred.GetUid())
	switch {
	case r != nil:
		return nil, r
	case op.Job.Array > 0:
		return nil, failf(wire.Invalid, "an array, and staged tasks beside it")
	case uint64(s.Tasks)+uint64(len(op.Tasks)) > maxTasks:
		return nil, failf(wire.Invalid, "a job of more than %d tasks", maxTasks)
	}
	return s, nil
}

// stagedOf counts what a user has staged, all sessions together.
func (v *view) stagedOf(uid uint32) (n int) {
	v.prefix([]byte{kJob, jStaged}, func(key, value []byte) bool {
		s := new(wire.Staged)
		if v.decode(key, value, s) && s.Uid == uid {
			n++
		}
		return true
	})
	return n
}

func (t *tx) dropStaged(op *wire.DropStaged) *wire.Result {
	if _, r := t.staged(op.Id, t.cred.GetUid()); r != nil {
		return r
	}
	t.discard(op.Id)
	return new(wire.Result)
}

// dropStagedOf gives up what a session has staged.
func (t *tx) dropStagedOf(session uint64) {
	var ids []uint64
	t.prefix([]byte{kJob, jStaged}, func(key, value []byte) bool {
		s := new(wire.Staged)
		if t.decode(key, value, s) && s.Session == session {
			ids = append(ids, num64(key[2:]))
		}
		return true
	})
	for _, id := range ids {
		t.discard(id)
	}
}

// discard has the tasks staged under id removed, bit by bit.
func (t *tx) discard(id uint64) {
	t.del(stagedKey(nil, id))
	t.setRaw(droppedKey(nil, id), nil)
	t.counts[countDropped]++
}

// collectStaged removes some of the tasks of jobs that were never submitted.
func (t *tx) collectStaged() {
	if t.counts[countDropped] == 0 {
		return
	}
	var id uint64
	t.prefix([]byte{kJob, jDropped}, func(key, _ []byte) bool {
		id = num64(key[2:])
		return false
	})
	if budget := trashStep; t.eraseTasks(id, &budget) {
		t.del(droppedKey(nil, id))
		t.counts[countDropped]--
	}
}

// dropTasks removes tasks of a job that waits: they are to be made anew.
func (t *tx) dropTasks(j *wire.Job) *wire.Result {
	if j.State != stateWaiting {
		return failf(wire.Invalid, "job %d is %s: tasks are taken from one that waits", j.Id, j.State)
	}
	t.del(jobTemplateKey(nil, j.Id))
	j.Tasks, j.TasksDone, j.TasksFailed, j.TasksOff, j.NextTask, j.Array, j.Failure = 0, 0, 0, 0, 0, 0, ""
	j.Partial = true
	j.Size = uint64(len(j.Spec))
	t.putJob(j)
	r := new(wire.Result)
	if budget := removeStep; !t.eraseTasks(j.Id, &budget) {
		r.Value = 1
	}
	return r
}
