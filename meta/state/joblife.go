package state

import (
	"quernfs/internal/wire"
)

// overQuota refuses a job whose owner has as many that have not ended as he
// may; root has no limit.
func (t *tx) overQuota(op *wire.SubmitJob) *wire.Result {
	uid := t.owner(op.Job.Cred).GetUid()
	if op.MaxOpen == 0 || uid == 0 {
		return nil
	}
	n := uint32(0)
	t.prefix(be32([]byte{kJob, jUser}, uid), func([]byte, []byte) bool {
		n++
		return n < op.MaxOpen
	})
	if n < op.MaxOpen {
		return nil
	}
	return failf(wire.Quota, "uid %d has %d jobs that have not ended, and may have no more", uid, n)
}

// begin gives an edited job its first state.
func (t *tx) begin(j *wire.Job) {
	j.State, j.Reason = statePending, "waiting for a host"
	if j.DeadlineAfterNs > 0 {
		j.DeadlineNs = t.now + j.DeadlineAfterNs
	}
	if len(j.After) == 0 {
		return
	}
	j.State, j.Reason = stateWaiting, "waiting for "
	for i, a := range j.After {
		if i > 0 {
			j.Reason += ", "
		}
		if j.Reason += a.Name; a.When != "ok" {
			j.Reason += " (" + a.When + ")"
		}
	}
}

// due is when a job that has ended is to be removed; 0: never.
func due(j *wire.Job) int64 {
	if j.TtlNs <= 0 || !ended(j.State) {
		return 0
	}
	return j.EndedNs + j.TtlNs
}

// reindex takes a job from the indices that its record old, as it is stored, is
// in to those of its new one; nil: there is none. An entry that stays is not
// written again: each task that ends puts its job, and a reader of the index
// would pass over every version of the entry.
func (t *tx) reindex(old, j *wire.Job) {
	was, is := old != nil && !ended(old.State), j != nil && !ended(j.State)
	if was && !(is && old.Cred.GetUid() == j.Cred.GetUid()) {
		t.del(jobActiveKey(nil, old.Id))
		t.del(jobUserKey(nil, old.Cred.GetUid(), old.Id))
		was = false
	}
	if is && !was {
		t.setRaw(jobActiveKey(nil, j.Id), nil)
		t.setRaw(jobUserKey(nil, j.Cred.GetUid(), j.Id), nil)
	}
	var before, after int64
	if old != nil {
		before = due(old)
	}
	if j != nil {
		after = due(j)
	}
	if before == after {
		return
	}
	if before != 0 {
		t.del(jobDueKey(nil, before, old.Id))
	}
	if after != 0 {
		t.setRaw(jobDueKey(nil, after, j.Id), nil)
	}
}

// control carries out the part of an update that is neither state nor tasks.
func (t *tx) control(j *wire.Job, op *wire.UpdateJob) {
	if op.SetPriority {
		j.Priority = op.Priority
	}
	if op.Pause || op.Resume {
		j.Paused = op.Pause
	}
}

// removeStep is how many entries and tasks go with one RemoveJob.
const removeStep = 1000

func (t *tx) removeJob(op *wire.RemoveJob) *wire.Result {
	j := t.job(op.Id)
	switch {
	case j == nil:
		return fail(wire.NotFound)
	case !isRoot(t.cred) && t.cred.GetUid() != j.Cred.GetUid():
		return failf(wire.Perm, "job %d belongs to another user", j.Id)
	case !ended(j.State):
		return failf(wire.Busy, "job %d is %s: only one that has ended can be removed", j.Id, j.State)
	}
	more := &wire.Result{Value: 1}
	budget := removeStep
	if out := t.inode(j.OutDir); out != nil && out.Parent == wire.OutputsIno {
		if !t.empty(out, &budget) {
			return more
		}
		t.removeOutput(j)
	}
	var gone []uint32
	var memos []*wire.Task
	t.tasks(j.Id, func(task *wire.Task) bool {
		gone = append(gone, task.N)
		if len(task.Memo) > 0 {
			memos = append(memos, task)
		}
		budget--
		return budget > 0
	})
	for _, task := range memos {
		t.forgetMemo(task)
	}
	for _, n := range gone {
		t.del(taskKey(nil, j.Id, n))
		t.del(taskOpenKey(nil, j.Id, n))
	}
	if budget <= 0 {
		t.forgetTasks(j, gone)
		return more
	}
	t.reindex(t.job(j.Id), nil)
	t.del(jobKey(nil, j.Id))
	t.jobs[j.Id] = nil
	t.del(jobNameKey(nil, j.Name))
	return &wire.Result{}
}

// forgetTasks keeps the counters of a job true that is being removed.
func (t *tx) forgetTasks(j *wire.Job, gone []uint32) {
	j.Tasks, j.TasksDone, j.TasksFailed, j.NextTask = 0, 0, 0, 0
	t.tasks(j.Id, func(task *wire.Task) bool {
		j.Tasks++
		switch task.State {
		case stateSucceeded:
			j.TasksDone++
		case stateFailed:
			j.TasksFailed++
		}
		return true
	})
	j.NextTask = uint64(j.Tasks)
	t.putJob(j)
}

// empty removes what is below a directory, as far as budget goes, and says
// whether it is empty then.
func (t *tx) empty(dir *wire.Inode, budget *int) bool {
	for _, e := range t.entries(dir.Attr.Ino) {
		if *budget <= 0 {
			return false
		}
		in := t.inode(e.ino)
		if in != nil && isDir(in) && !t.empty(in, budget) {
			return false
		}
		*budget--
		t.delDentry(dir.Attr.Ino, e.name)
		d := t.touch(t.inode(dir.Attr.Ino))
		d.Entries--
		if in != nil && isDir(in) {
			d.Attr.Nlink--
		}
		t.putInode(d)
		if in != nil {
			t.dropName(t.inode(e.ino), nil)
		}
	}
	return true
}

// removeOutput removes the empty output directory of a job.
func (t *tx) removeOutput(j *wire.Job) {
	first, other := outputNames(j.Id, j.OutDir)
	for _, name := range []string{first, other} {
		if d := t.dentry(wire.OutputsIno, name); d == nil || d.Ino != j.OutDir {
			continue
		}
		t.delDentry(wire.OutputsIno, name)
		outputs := t.touch(t.inode(wire.OutputsIno))
		outputs.Entries--
		outputs.Attr.Nlink--
		t.putInode(outputs)
		t.dropName(t.inode(j.OutDir), nil)
		return
	}
}
