package state

import (
	"bytes"
	"fmt"

	"quernfs/internal/wire"
)

// quota is what the jobs of a user that have not ended may amount to; 0: anything.
type quota struct{ jobs, tasks, size uint64 }

// overQuota refuses what would take a user beyond his quota; root has none.
func (t *tx) overQuota(uid uint32, most quota, more *wire.UserJobs) *wire.Result {
	if uid == 0 {
		return nil
	}
	has := t.userJobs(uid)
	for _, x := range []struct {
		most, has, more uint64
		what            string
	}{
		{most.jobs, has.Jobs, more.Jobs, "%d jobs that have not ended"},
		{most.tasks, has.Tasks, more.Tasks, "%d tasks in jobs that have not ended"},
		{most.size, has.Size, more.Size, "%d bytes of job files and names of inputs in jobs that have not ended"},
	} {
		if x.most > 0 && x.more > 0 && x.has+x.more > x.most {
			return failf(wire.Quota, "uid %d has "+x.what+"; with %d more they would be more than %d", uid, x.has, x.more, x.most)
		}
	}
	return nil
}

// userJobs is what the jobs of a user amount to.
func (v *view) userJobs(uid uint32) *wire.UserJobs {
	u := new(wire.UserJobs)
	v.load(userJobsKey(nil, uid), u)
	return u
}

// load is what a job adds to that.
func load(j *wire.Job) wire.UserJobs {
	switch {
	case j == nil:
	case !ended(j.State):
		return wire.UserJobs{Jobs: 1, Tasks: uint64(j.Tasks), Size: j.Size}
	case j.Counted && !j.Overdue && !j.Removing:
		return wire.UserJobs{Ended: 1}
	}
	return wire.UserJobs{}
}

// reload brings the sum up to date with a change of one job.
func (t *tx) reload(old, j *wire.Job) {
	was, is := load(old), load(j)
	same := was.Jobs == is.Jobs && was.Tasks == is.Tasks && was.Size == is.Size && was.Ended == is.Ended
	if same && old != nil && j != nil && old.Cred.GetUid() == j.Cred.GetUid() {
		return
	}
	change := func(job *wire.Job, by *wire.UserJobs, sign uint64) {
		if by.Jobs+by.Ended == 0 {
			return
		}
		t.updateUser(job.Cred.GetUid(), func(u *wire.UserJobs) {
			u.Jobs += sign * by.Jobs
			u.Tasks += sign * by.Tasks
			u.Size += sign * by.Size
			u.Ended += sign * by.Ended
			if by.Ended > 0 && sign == 1 && (u.Ended == 1 || job.EndedNs < u.FirstEndedNs) {
				u.FirstEndedNs = job.EndedNs
			}
		})
	}
	change(old, &was, ^uint64(0))
	change(j, &is, 1)
}

// updateUser changes what is kept of a user, and forgets it with the last job and
// account of his.
func (t *tx) updateUser(uid uint32, change func(*wire.UserJobs)) {
	u := t.userJobs(uid)
	change(u)
	if int64(u.Jobs) <= 0 { // or submitted before there was this record
		u.Jobs, u.Tasks, u.Size = 0, 0, 0
	}
	if u.Jobs+u.Ended+u.Accounts == 0 {
		t.del(userJobsKey(nil, uid))
	} else {
		t.set(userJobsKey(nil, uid), u)
	}
}

// dropEnded makes the oldest of a user's jobs that have ended due, if there are more
// than most; 0: any number. With each job that ends two go at the most.
func (t *tx) dropEnded(uid uint32, most uint64) {
	u := t.userJobs(uid)
	if most == 0 || u.Ended <= most {
		return
	}
	var oldest []uint64
	t.scan(jobEndedKey(nil, uid, u.FirstEndedNs, 0), after(be32([]byte{kJob, jEnded}, uid)), func(key, _ []byte) bool {
		oldest = append(oldest, num64(key[14:]))
		return len(oldest) < int(min(u.Ended-most, 2))
	})
	var last int64
	for _, id := range oldest {
		if j := t.job(id); j != nil {
			j.Overdue, last = true, j.EndedNs
			t.event(j, fmt.Sprintf("it will be forgotten: uid %d has more than %d later jobs that have ended", uid, most))
			t.putJob(j)
		}
	}
	t.updateUser(uid, func(u *wire.UserJobs) { u.FirstEndedNs = max(u.FirstEndedNs, last) })
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
	switch {
	case !ended(j.State):
		return 0
	case j.Overdue:
		return j.EndedNs + 1
	case j.TtlNs <= 0:
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
	t.reload(old, j)
	t.reindexEnded(old, j)
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

// reindexEnded does so with the index of jobs that have ended.
func (t *tx) reindexEnded(old, j *wire.Job) {
	var from, to []byte
	if load(old).Ended > 0 {
		from = jobEndedKey(nil, old.Cred.GetUid(), old.EndedNs, old.Id)
	}
	if load(j).Ended > 0 {
		to = jobEndedKey(nil, j.Cred.GetUid(), j.EndedNs, j.Id)
	}
	if bytes.Equal(from, to) {
		return
	}
	if from != nil {
		t.del(from)
	}
	if to != nil {
		t.setRaw(to, nil)
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
	if !j.Removing {
		j.Removing = true
		t.del(jobTemplateKey(nil, j.Id))
		j.Tasks, j.TasksDone, j.TasksFailed, j.TasksOff, j.NextTask, j.Array = 0, 0, 0, 0, 0, 0
		t.putJob(j)
	}
	budget := removeStep
	if out := t.inode(j.OutDir); out != nil && out.Parent == wire.OutputsIno {
		if !t.empty(out, &budget) {
			return more
		}
		t.removeOutput(j)
	}
	if !t.eraseTasks(j.Id, &budget) {
		return more
	}
	t.reindex(t.job(j.Id), nil)
	t.del(jobKey(nil, j.Id))
	t.jobs[j.Id] = nil
	t.del(jobNameKey(nil, j.Name))
	return &wire.Result{}
}

// eraseTasks removes the records of a job's tasks, as far as budget goes, and says
// whether there are none left.
func (t *tx) eraseTasks(job uint64, budget *int) bool {
	var gone []*wire.Task
	t.prefix(be64([]byte{kJob, jTask}, job), func(key, value []byte) bool {
		task := new(wire.Task)
		if !t.decode(key, value, task) {
			return false
		}
		gone = append(gone, task)
		*budget--
		return *budget > 0
	})
	for _, task := range gone {
		t.forgetMemo(task)
		t.del(taskKey(nil, job, task.N))
	}
	return *budget > 0
}

// empty removes what is below a directory, as far as budget goes, and says
// whether it is empty then.
func (t *tx) empty(dir *wire.Inode, budget *int) bool {
	for _, e := range t.someEntries(dir.Attr.Ino, *budget+1) {
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
