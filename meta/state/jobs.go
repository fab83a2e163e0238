package state

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"github.com/minio/sha256-simd"
	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// States of jobs and tasks. What has ended does not change any more, except
// that a job that failed, was cancelled or expired can be tried again.
const (
	statePending    = "pending"
	stateStaging    = "staging"
	stateRunning    = "running"
	stateCommitting = "committing"
	stateSucceeded  = "succeeded"
	stateFailed     = "failed"
	stateCancelled  = "cancelled"
	stateExpired    = "expired"
	stateWaiting    = "waiting"

	phaseReduce = "reduce"
)

// Limits of what a job keeps.
const (
	maxEvents = 100
	maxTasks  = 1 << 20
	maxTail   = 64 << 10
)

func known(state string) bool {
	return state == stateWaiting || active(state) || state == statePending || ended(state)
}
func ended(state string) bool {
	return state == stateSucceeded || state == stateFailed || state == stateCancelled || state == stateExpired
}
func active(state string) bool {
	return state == stateStaging || state == stateRunning || state == stateCommitting
}

func (v *view) jobNamed(name string) (id uint64, ok bool) {
	return v.number(jobNameKey(nil, name))
}

// tasks calls each with the tasks of a job, by number.
func (v *view) tasks(job uint64, each func(*wire.Task) bool) { v.tasksFrom(job, 0, each) }

// tasksFrom does so for those with the number first or a higher one.
func (v *view) tasksFrom(job uint64, first uint32, each func(*wire.Task) bool) {
	v.scan(taskKey(nil, job, first), after(be64([]byte{kJob, jTask}, job)), func(key, value []byte) bool {
		task := new(wire.Task)
		return v.decode(key, value, task) && each(task)
	})
}

func (t *tx) submitJob(op *wire.SubmitJob) *wire.Result {
	if op.Job == nil || checkName(op.Job.Name) != wire.OK {
		return failf(wire.Invalid, "a job needs a name")
	}
	if len(op.Tasks) > maxTasks {
		return failf(wire.Invalid, "a job of %d tasks: at most %d are allowed", len(op.Tasks), maxTasks)
	}
	digest := sha256.Sum256(op.Job.Spec)
	if len(op.Job.Digest) > 0 && !bytes.Equal(op.Job.Digest, digest[:]) {
		return failf(wire.Invalid, "the digest is not that of the job file")
	}
	if id, ok := t.jobNamed(op.Job.Name); ok {
		if old := t.job(id); old != nil && bytes.Equal(old.Digest, digest[:]) {
			return &wire.Result{Value: id}
		}
		return failf(wire.Exists, "job %d has the name %q and another job file", id, op.Job.Name)
	}
	outputs := t.inode(wire.OutputsIno)
	if outputs == nil {
		return failf(wire.NotFound, "the cluster has not been set up")
	}
	if r := t.overQuota(op); r != nil {
		return r
	}

	j := proto.Clone(op.Job).(*wire.Job)
	j.Id, j.Digest, j.Cred = t.take(nextJob, 1), digest[:], t.owner(op.Job.Cred)
	t.begin(j)
	j.SubmittedNs, j.StartedNs, j.EndedNs = t.now, 0, 0
	j.Tasks, j.TasksDone, j.TasksFailed, j.NextTask = 0, 0, 0, 0
	j.Events = nil
	if j.Rule != "" {
		t.event(j, "submitted by the rule "+j.Rule)
	} else {
		t.event(j, "submitted")
	}
	j.OutDir = t.makeOutput(outputs, j)
	t.addTasks(j, op.Tasks)
	t.putJob(j)
	t.setRaw(jobNameKey(nil, j.Name), be64(nil, j.Id))
	t.forgetRefusal(j.Name)
	t.forgetRefusalsAbout(op.About)
	return &wire.Result{Value: j.Id, Created: true, Inode: t.inode(j.OutDir)}
}

// owner is whom a job belongs to: the caller. Only root and the leader
// submit for another.
func (t *tx) owner(cred *wire.Cred) *wire.Cred {
	if cred == nil || !isRoot(t.cred) {
		cred = t.cred
	}
	if cred == nil {
		cred = new(wire.Cred)
	}
	return proto.Clone(cred).(*wire.Cred)
}

// makeOutput makes the output directory of a job. Its name is the job's number.
func (t *tx) makeOutput(outputs *wire.Inode, j *wire.Job) uint64 {
	in := &wire.Inode{
		Attr: &wire.Attr{
			Ino: t.take(nextIno, 1), Mode: sIFDIR | 0o755, Nlink: 2, Uid: j.Cred.GetUid(), Gid: j.Cred.GetGid(),
			Size: dirSize, AtimeNs: t.now, MtimeNs: t.now, CtimeNs: t.now, BtimeNs: t.now, Version: 1,
		},
		Policy: outputs.Policy, Parent: wire.OutputsIno,
	}
	name, other := outputNames(j.Id, in.Attr.Ino)
	if old := t.dentry(wire.OutputsIno, name); old != nil { // somebody's own directory is in the way
		name = other
	}
	t.putInode(in)
	t.counts[countInodes]++
	t.putDentry(wire.OutputsIno, name, in.Attr.Ino, sIFDIR)
	outputs = t.touch(outputs)
	outputs.Attr.Nlink++
	outputs.Entries++
	t.putInode(outputs)
	return in.Attr.Ino
}

// outputNames are what the output directory dir of a job may be called.
func outputNames(job, dir uint64) (name, other string) {
	name = strconv.FormatUint(job, 10)
	return name, "job." + name + "." + strconv.FormatUint(dir, 10)
}

// addTasks appends tasks to an edited job.
func (t *tx) addTasks(j *wire.Job, tasks []*wire.Task) {
	for _, in := range tasks {
		task := new(wire.Task)
		if in != nil {
			task = proto.Clone(in).(*wire.Task)
		}
		task.Job, task.N = j.Id, uint32(j.NextTask)
		task.State, task.Reason = statePending, "waiting for a host"
		task.Attempt, task.Agent, task.StartedNs, task.EndedNs = 0, 0, 0, 0
		j.NextTask++
		j.Tasks++
		t.putTask(task)
	}
}

// putTask also keeps the index of tasks that have not ended.
func (t *tx) putTask(task *wire.Task) {
	t.set(taskKey(nil, task.Job, task.N), task)
	if ended(task.State) {
		t.del(taskOpenKey(nil, task.Job, task.N))
	} else {
		t.setRaw(taskOpenKey(nil, task.Job, task.N), nil)
	}
}

// replaceTask is putTask in place of old: an entry of the index that stays is not
// written again.
func (t *tx) replaceTask(old, task *wire.Task) {
	if ended(old.State) == ended(task.State) {
		t.set(taskKey(nil, task.Job, task.N), task)
		return
	}
	t.putTask(task)
}

// putJob also keeps the indices of jobs that have not ended, and of those that
// are to be removed. j is not changed after that.
func (t *tx) putJob(j *wire.Job) {
	t.reindex(t.job(j.Id), j)
	t.set(jobKey(nil, j.Id), j)
	t.jobs[j.Id] = j
}

func (t *tx) event(j *wire.Job, text string) {
	j.Events = append(j.Events, &wire.JobEvent{TimeNs: t.now, Text: text})
	if n := len(j.Events) - maxEvents; n > 0 {
		j.Events = j.Events[n:]
	}
}

// mayUpdate says whether the update is one of an attempt under way, or begins the
// next one. The leader itself (no session) may also end or put back a
// task that no attempt works on, and begin a second attempt.
func (t *tx) mayUpdate(old *wire.Task, op *wire.UpdateTask) bool {
	task := op.Task
	switch {
	case old.State == stateSucceeded || old.State == stateCancelled || old.State == stateExpired:
		return false
	case op.Second:
		return t.session == 0 && active(old.State) && old.Second == nil && task.Attempt == wire.NextAttempt(old)
	case task.Attempt == wire.NextAttempt(old):
		return true
	case old.Second != nil && task.Attempt == old.Second.Attempt:
		return active(old.State)
	case task.Attempt != old.Attempt:
		return false
	}
	return active(old.State) || t.session == 0
}

func (t *tx) updateTask(op *wire.UpdateTask) *wire.Result {
	if op.Task == nil {
		return fail(wire.Invalid)
	}
	j, old := t.job(op.Task.Job), t.task(op.Task.Job, op.Task.N)
	switch {
	case j == nil || old == nil:
		return fail(wire.NotFound)
	case !known(op.Task.State):
		return failf(wire.Invalid, "%q is not a state", op.Task.State)
	case !t.mayUpdate(old, op):
		return failf(wire.Stale, "attempt %d of task %d is over: %s in attempt %d", op.Task.Attempt, old.N, old.State, old.Attempt)
	case ended(j.State) && !(j.State == stateFailed && old.State == stateFailed):
		return failf(wire.Stale, "job %d has %s", j.Id, j.State)
	}
	if op.Second {
		t.replaceTask(old, withSecond(old, op.Task, t.now))
		return &wire.Result{Value: j.Id}
	}
	if r := t.checkOutputs(j, op); r != nil {
		return r
	}
	var out, dst *wire.Inode
	if op.OutIno != 0 && op.Task.State == stateSucceeded {
		var code wire.Code
		if out, code = t.dir(op.OutIno); code != wire.OK {
			return failf(code, "the output directory of the attempt: %v", code)
		}
		var r *wire.Result
		if dst, r = t.resultDir(j, old, op.ResultDir); r != nil {
			return r
		}
		if op.OutIno == j.OutDir || t.below(dst, op.OutIno) {
			return failf(wire.Invalid, "the output directory of an attempt cannot hold that of its job")
		}
		if dst.Attr.Ino == j.OutDir {
			if code := t.mayMerge(out, dst); code != wire.OK {
				return failf(code, "an output of the attempt and one of the job are not of one type")
			}
		} else if r := t.mayPlace(j, out, dst); r != nil {
			return r
		}
	}

	moved := t.movable(out)
	switch {
	case out == nil:
	case dst.Attr.Ino == j.OutDir:
		t.merge(out, dst)
	default:
		t.place(j, out, dst, op.OpenSessions)
	}
	made := t.putOutputs(j, op)
	if op.Task.State == stateSucceeded {
		t.results(j, op, old, dst, moved, made)
	}
	task := race(old, t.nextTask(old, op.Task))
	t.replaceTask(old, task)
	was := j.State
	t.derive(j, old, task)
	t.finish(j, was, op.SourceSessions)
	t.putJob(j)
	return &wire.Result{Value: j.Id}
}

// nextTask is the record of a task after an update.
func (t *tx) nextTask(old, update *wire.Task) *wire.Task {
	task := proto.Clone(update).(*wire.Task)
	if len(task.Inputs) == 0 {
		task.Inputs = old.Inputs
	}
	if task.Phase == "" {
		task.Phase = old.Phase
	}
	if task.Placement == nil && task.Attempt == old.Attempt {
		task.Placement = old.Placement // the leader's word, which agents do not repeat
	}
	if task.Reason == "" {
		task.Reason = task.State
	}
	if len(task.Memo) == 0 {
		task.Memo = old.Memo
	}
	if n := len(task.StdoutTail) - maxTail; n > 0 {
		task.StdoutTail = task.StdoutTail[n:]
	}
	if n := len(task.StderrTail) - maxTail; n > 0 {
		task.StderrTail = task.StderrTail[n:]
	}
	if task.StartedNs == 0 {
		if task.StartedNs = t.now; task.Attempt == old.Attempt {
			task.StartedNs = old.StartedNs
		}
	}
	switch {
	case !ended(task.State):
		task.EndedNs = 0
	case task.EndedNs == 0:
		task.EndedNs = t.now
	}
	return task
}

// derive brings counters and state of the edited job j up to date with the
// change of one task from old to task, which has been put.
func (t *tx) derive(j *wire.Job, old, task *wire.Task) {
	if old.State == stateFailed {
		j.TasksFailed--
	}
	switch task.State {
	case stateSucceeded:
		j.TasksDone++
	case stateFailed:
		j.TasksFailed++
	}
	was := j.State
	switch {
	case !ended(task.State) || t.openTasks(j.Id, task.N) || t.expectsReduce(j):
		if active(task.State) || j.TasksDone > 0 {
			j.State = stateRunning
			j.Reason = fmt.Sprintf("%d of %d tasks done", j.TasksDone, j.Tasks)
			if j.Paused {
				j.Reason = "paused; " + j.Reason
			}
		} else if ended(was) {
			j.State, j.Reason = statePending, "to be tried again"
		}
		if j.State == stateRunning && j.StartedNs == 0 {
			j.StartedNs = t.now
		}
		j.EndedNs = 0
	case task.State == stateFailed:
		j.State, j.Reason = stateFailed, fmt.Sprintf("task %d: %s", task.N, task.Reason)
	case j.TasksFailed > 0:
		j.State, j.Reason = stateFailed, t.firstFailure(j)
	case j.TasksDone < j.Tasks:
		j.State, j.Reason = stateCancelled, "tasks were cancelled"
	default:
		j.State, j.Reason = stateSucceeded, "all tasks done"
	}
	if ended(j.State) {
		j.EndedNs = t.now
	}
	if j.State != was {
		t.event(j, j.State+": "+j.Reason)
	}
}

// openTasks says whether a task of the job has not ended. It looks first at those
// after n: tasks end in about their order, and what was deleted from the index
// before n takes long to pass over.
func (v *view) openTasks(job uint64, n uint32) (open bool) {
	found := func([]byte, []byte) bool {
		open = true
		return false
	}
	all := be64([]byte{kJob, jOpen}, job)
	v.scan(taskOpenKey(nil, job, n), after(all), found)
	if !open {
		v.prefix(all, found)
	}
	return open
}

// firstFailure is the reason of the first of a job's tasks that have failed.
func (t *tx) firstFailure(j *wire.Job) string {
	reason := fmt.Sprintf("%d of %d tasks failed", j.TasksFailed, j.Tasks)
	t.tasks(j.Id, func(task *wire.Task) bool {
		if task.State != stateFailed {
			return true
		}
		if reason = fmt.Sprintf("task %d: %s", task.N, task.Reason); j.TasksFailed > 1 {
			reason = fmt.Sprintf("%d of %d tasks failed; %s", j.TasksFailed, j.Tasks, reason)
		}
		return false
	})
	return reason
}

// expectsReduce says whether the job, all tasks of which have succeeded so far, is
// to get a reduce task: it names a kernel for one, and has none.
func (t *tx) expectsReduce(j *wire.Job) bool {
	if len(j.Kernels) < 2 || j.TasksDone < j.Tasks {
		return false
	}
	expected := true
	t.tasks(j.Id, func(task *wire.Task) bool {
		expected = task.Phase != phaseReduce
		return expected
	})
	return expected
}

func (t *tx) updateJob(op *wire.UpdateJob) *wire.Result {
	j := t.job(op.Id)
	switch {
	case j == nil:
		return fail(wire.NotFound)
	case !isRoot(t.cred) && t.cred.GetUid() != j.Cred.GetUid():
		return failf(wire.Perm, "job %d belongs to another user", j.Id)
	case op.State != "" && !known(op.State):
		return failf(wire.Invalid, "%q is not a state", op.State)
	case j.NextTask+uint64(len(op.Tasks)) > maxTasks:
		return failf(wire.Invalid, "more than %d tasks", maxTasks)
	}
	was := j.State
	retry := ended(j.State) && j.State != stateSucceeded && op.State == statePending
	if ended(j.State) && !retry && (op.State != "" || len(op.Tasks) > 0) {
		return failf(wire.Stale, "job %d has %s", j.Id, j.State)
	}

	if op.Event != "" {
		t.event(j, op.Event)
	}
	t.control(j, op)
	t.addTasks(j, op.Tasks)
	if len(op.Binds) > 0 {
		j.Binds = op.Binds
	}
	switch {
	case retry && j.NextTask == 0:
		t.begin(j)
		j.EndedNs = 0
	case retry:
		t.resetTasks(j.Id, statePending, "to be tried again", func(s string) bool { return s != stateSucceeded })
		j.State, j.Reason, j.EndedNs = statePending, "to be tried again", 0
		j.TasksFailed = 0
	case ended(op.State):
		reason := op.Reason
		if reason == "" {
			reason = "the job has " + op.State
		}
		t.resetTasks(j.Id, stateCancelled, reason, func(s string) bool { return !ended(s) })
		j.State, j.Reason, j.EndedNs = op.State, reason, t.now
	case op.State != "":
		j.State = op.State
		if j.StartedNs == 0 && active(j.State) {
			j.StartedNs = t.now
		}
	}
	if op.Reason != "" {
		j.Reason = op.Reason
	}
	if op.State != "" {
		t.event(j, j.State+": "+j.Reason)
	}
	if ended(j.State) && !ended(was) {
		t.announce(j)
	}
	t.putJob(j)
	return &wire.Result{Value: j.Id}
}

// resetTasks gives all tasks in states that which accepts another state.
// Their attempts are over.
func (t *tx) resetTasks(job uint64, state, reason string, which func(string) bool) {
	t.tasks(job, func(task *wire.Task) bool {
		if which(task.State) {
			task.State, task.Reason, task.EndedNs = state, reason, 0
			noSecond(task)
			if ended(state) {
				task.EndedNs = t.now
			}
			t.putTask(task)
		}
		return true
	})
}

// entry is one entry of a directory.
type entry struct {
	name string
	ino  uint64
	kind uint32
}

func (v *view) entries(dir uint64) (all []entry) {
	v.prefix(key8(nil, kDentry, dir), func(key, value []byte) bool {
		d := new(wire.Dentry)
		if !v.decode(key, value, d) {
			return false
		}
		_, _, name, err := splitDentry(key)
		if err != nil {
			v.fail(corrupt(key, err))
			return false
		}
		all = append(all, entry{name, d.Ino, d.Type})
		return true
	})
	slices.SortFunc(all, func(a, b entry) int { return bytes.Compare([]byte(a.name), []byte(b.name)) })
	return all
}

// mayMerge says whether every entry below src can take its place in dst:
// a directory may only meet a directory.
func (t *tx) mayMerge(src, dst *wire.Inode) wire.Code {
	for _, e := range t.entries(src.Attr.Ino) {
		if protected(e.ino) {
			return wire.Busy
		}
		old := t.dentry(dst.Attr.Ino, e.name)
		if old == nil {
			continue
		}
		in, there := t.inode(e.ino), t.inode(old.Ino)
		switch {
		case in == nil || there == nil:
			return wire.Internal
		case isDir(in) != isDir(there):
			return wire.Exists
		case isDir(in):
			if code := t.mayMerge(in, there); code != wire.OK {
				return code
			}
		}
	}
	return wire.OK
}

// merge moves all entries of src into dst. Files replace those of their name,
// directories are merged.
func (t *tx) merge(src, dst *wire.Inode) {
	from, to := t.touch(src), t.touch(dst)
	t.putInode(from)
	t.putInode(to)
	for _, e := range t.entries(src.Attr.Ino) {
		in := t.inode(e.ino)
		old := t.dentry(dst.Attr.Ino, e.name)
		if old != nil && isDir(in) {
			t.merge(in, t.inode(old.Ino))
			t.delDentry(src.Attr.Ino, e.name)
			from = edit(t.inode(src.Attr.Ino))
			from.Entries--
			from.Attr.Nlink--
			t.putInode(from)
			t.dropName(t.inode(e.ino), nil)
			continue
		}
		if old != nil && old.Ino != e.ino {
			t.dropName(t.inode(old.Ino), nil)
		}
		t.delDentry(src.Attr.Ino, e.name)
		from = edit(t.inode(src.Attr.Ino))
		from.Entries--
		to = edit(t.inode(dst.Attr.Ino))
		if old == nil {
			to.Entries++
		}
		if old != nil && old.Ino == e.ino { // two names of one file become one
			t.putInode(from)
			t.dropName(in, nil)
			continue
		}
		t.putDentry(dst.Attr.Ino, e.name, e.ino, e.kind)
		in = t.changed(t.inode(e.ino))
		if isDir(in) {
			in.Parent = dst.Attr.Ino
			from.Attr.Nlink--
			to.Attr.Nlink++
		}
		t.putInode(in)
		t.putInode(from)
		t.putInode(to)
	}
}
