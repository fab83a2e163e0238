package state

import (
	"bytes"
	"fmt"
	"math"
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
	maxPiece  = 1024 // tasks of one command
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

func (t *tx) submitJob(op *wire.SubmitJob) *wire.Result {
	if op.Job == nil || checkName(op.Job.Name) != wire.OK {
		return failf(wire.Invalid, "a job needs a name")
	}
	if r := tooMany(len(op.Tasks), op.Job.Array); r != nil {
		return r
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
	owner := t.owner(op.Job.Cred)
	staged, r := t.stagedFor(op, owner)
	if r != nil {
		return r
	}
	size := uint64(len(op.Job.Spec)) + sizeOf(op.Tasks) + staged.GetSize()
	if op.Job.Array > 0 {
		size += sizeOf([]*wire.Task{op.Template})
	}
	tasks := uint64(len(op.Tasks)) + uint64(op.Job.Array) + uint64(staged.GetTasks())
	if r := t.overQuota(owner.GetUid(), quota{uint64(op.MaxOpen), op.MaxTasks, op.MaxBytes}, &wire.UserJobs{Jobs: 1, Tasks: tasks, Size: size}); r != nil {
		return r
	}

	j := newJob(op.Job)
	j.Digest, j.Cred, j.Size, j.SubmittedNs = digest[:], owner, size, t.now
	if j.TtlNs == 0 {
		j.TtlNs = op.TtlNs
	}
	if j.Id = op.Staged; staged == nil {
		j.Id = t.take(nextJob, 1)
	} else {
		j.Tasks, j.NextTask = staged.Tasks, uint64(staged.Tasks)
		t.del(stagedKey(nil, j.Id))
	}
	t.begin(j)
	if j.Rule != "" {
		t.event(j, "submitted by the rule "+j.Rule)
	} else {
		t.event(j, "submitted")
	}
	j.OutDir = t.makeOutput(outputs, j)
	t.putArray(j, op.Job.Array, op.Template)
	t.addTasks(j, op.Tasks)
	t.putJob(j)
	t.setRaw(jobNameKey(nil, j.Name), be64(nil, j.Id))
	t.forgetRefusal(j.Cred.GetUid(), j.Name)
	t.forgetRefusalsAbout(op.About)
	return &wire.Result{Value: j.Id, Created: true, Inode: t.inode(j.OutDir)}
}

// newJob is the record of a job that is submitted as in: what only the state
// machine knows is left out.
func newJob(in *wire.Job) *wire.Job {
	j := proto.Clone(in).(*wire.Job)
	j.StartedNs, j.EndedNs = 0, 0
	j.Tasks, j.TasksDone, j.TasksFailed, j.TasksOff, j.NextTask = 0, 0, 0, 0, 0
	j.Partial, j.Array, j.Round, j.Removing, j.Failure, j.ReduceAttempt = false, 0, 0, false, "", 0
	j.LeftBytes, j.LeftUnread, j.LeftPresent = 0, false, false
	j.Usage, j.Active, j.ActiveNs, j.Counted, j.Overdue = nil, 0, 0, false, false
	j.Events = nil
	return j
}

// tooMany refuses a command that would take long, and an array that no job can
// have.
func tooMany(tasks int, array uint32) *wire.Result {
	switch {
	case tasks > maxPiece:
		return failf(wire.Invalid, "%d tasks in one command: at most %d are allowed", tasks, maxPiece)
	case array > maxTasks:
		return failf(wire.Invalid, "a job of %d tasks: at most %d are allowed", array, maxTasks)
	case array > 0 && tasks > 0:
		return failf(wire.Invalid, "an array, and %d tasks beside it", tasks)
	}
	return nil
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
			Ino: t.take(nextIno, 1), Mode: sIFDIR | outputDirMode(j), Nlink: 2, Uid: j.Cred.GetUid(), Gid: j.Cred.GetGid(),
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

// outputDirMode are the permissions of the output directory of a job.
func outputDirMode(j *wire.Job) uint32 {
	switch j.Visibility {
	case wire.Visibility_EVERYBODY:
		return 0o755
	case wire.Visibility_GROUP:
		return 0o750
	}
	return 0o700
}

// outputNames are what the output directory dir of a job may be called.
func outputNames(job, dir uint64) (name, other string) {
	name = strconv.FormatUint(job, 10)
	return name, "job." + name + "." + strconv.FormatUint(dir, 10)
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

// tooManyFailed says whether the job is to end since tasks have failed.
func tooManyFailed(j *wire.Job) bool {
	return j.TasksFailed > 0 && (j.OnFailure == wire.OnFailure_STOP || j.MaxFailed > 0 && j.TasksFailed > j.MaxFailed)
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
	j := t.job(op.Task.Job)
	if j == nil {
		return fail(wire.NotFound)
	}
	old := t.task(j, op.Task.N)
	switch {
	case old == nil:
		return fail(wire.NotFound)
	case !known(op.Task.State):
		return failf(wire.Invalid, "%q is not a state", op.Task.State)
	case !t.mayUpdate(old, op):
		return failf(wire.Stale, "attempt %d of task %d is over: %s in attempt %d", op.Task.Attempt, old.N, old.State, old.Attempt)
	case ended(j.State):
		return failf(wire.Stale, "job %d has %s", j.Id, j.State)
	}
	if op.Second {
		task := withSecond(old, op.Task, t.now)
		t.set(taskKey(nil, j.Id, old.N), task)
		t.used(j, old, task, op.Task)
		t.putJob(j)
		return &wire.Result{Value: j.Id}
	}
	if r := t.checkOutputs(j, old, op); r != nil {
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
	made := t.putOutputs(j, old, op)
	if op.Task.State == stateSucceeded {
		t.results(j, op, old, dst, moved, made)
	}
	task := race(old, t.nextTask(old, op.Task))
	task.Round = j.Round
	t.set(taskKey(nil, j.Id, task.N), task)
	was := j.State
	t.used(j, old, task, op.Task)
	t.derive(j, old, task)
	t.finish(j, was, op.SourceSessions)
	t.close(j, was, op.MaxEnded)
	return &wire.Result{Value: j.Id}
}

// nextTask is the record of a task after an update.
func (t *tx) nextTask(old, update *wire.Task) *wire.Task {
	task := proto.Clone(update).(*wire.Task)
	task.Inputs, task.Phase = old.Inputs, old.Phase
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
		if j.TasksFailed--; j.TasksFailed == 0 {
			j.Failure = ""
		}
	}
	switch task.State {
	case stateSucceeded:
		j.TasksDone++
		t.left(j, task)
	case stateFailed:
		if j.TasksFailed++; j.Failure == "" {
			j.Failure = failureOf(task)
		}
	case stateCancelled, stateExpired:
		j.TasksOff++
	}
	was := j.State
	switch {
	case tooManyFailed(j):
		j.State, j.Reason = stateFailed, failure(j)
	case open(j) || t.expectsReduce(j):
		if active(task.State) || j.TasksDone > 0 {
			j.State = stateRunning
			j.Reason = fmt.Sprintf("%d of %d tasks done", j.TasksDone, j.Tasks)
			if j.TasksFailed > 0 {
				j.Reason += fmt.Sprintf(", %d failed", j.TasksFailed)
			}
			if j.Paused {
				j.Reason = "paused; " + j.Reason
			}
		} else if ended(was) {
			j.State, j.Reason = statePending, reasonAgain
		}
		if j.State == stateRunning && j.StartedNs == 0 {
			j.StartedNs = t.now
		}
		j.EndedNs = 0
	case j.TasksFailed > 0:
		j.State, j.Reason = stateFailed, failure(j)
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

// expectsReduce says whether the job, all tasks of which have ended so far, is to get
// a reduce task: it names a kernel for one, has none, and its tasks have succeeded,
// or enough of them.
func (t *tx) expectsReduce(j *wire.Job) bool {
	if len(j.Kernels) < 2 || j.TasksOff > 0 {
		return false
	}
	if j.TasksFailed > 0 && (!j.ReduceRest || tooManyFailed(j) || j.TasksDone == 0) {
		return false
	}
	last := t.lastTask(j)
	return last == nil || last.Phase != phaseReduce
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
	case j.Removing:
		return failf(wire.NotFound, "job %d is being removed", j.Id)
	case j.NextTask+uint64(len(op.Tasks))+uint64(op.Array) > maxTasks:
		return failf(wire.Invalid, "more than %d tasks", maxTasks)
	case op.Array > 0 && j.NextTask > 0:
		return failf(wire.Invalid, "job %d has tasks already", j.Id)
	}
	if r := tooMany(len(op.Tasks), op.Array); r != nil {
		return r
	}
	if op.DropTasks {
		return t.dropTasks(j)
	}
	was := j.State
	retry := ended(j.State) && j.State != stateSucceeded && op.State == statePending
	if ended(j.State) && !retry && (op.State != "" || len(op.Tasks) > 0) {
		return failf(wire.Stale, "job %d has %s", j.Id, j.State)
	}

	more := sizeOf(op.Tasks)
	if op.Array > 0 {
		more += sizeOf([]*wire.Task{op.Template})
	}
	if n := uint64(len(op.Tasks)) + uint64(op.Array); n > 0 && j.State == stateWaiting {
		if r := t.overQuota(j.Cred.GetUid(), quota{0, op.MaxTasks, op.MaxBytes}, &wire.UserJobs{Tasks: n, Size: more}); r != nil {
			return r
		}
	}

	if op.Event != "" {
		t.event(j, op.Event)
	}
	t.control(j, op)
	j.Size += more
	if op.Array > 0 {
		t.putArray(j, op.Array, op.Template)
	}
	t.addTasks(j, op.Tasks)
	if len(op.Tasks) > 0 || op.Array > 0 {
		j.Partial = j.State == stateWaiting && op.State == ""
	}
	if op.MaxFailed > 0 {
		j.MaxFailed = op.MaxFailed
	}
	if len(op.Binds) > 0 {
		j.Binds = op.Binds
	}
	switch {
	case retry && (j.NextTask == 0 || j.Partial):
		t.begin(j)
		j.EndedNs = 0
	case retry:
		t.tryAgain(j)
	case ended(op.State):
		reason := op.Reason
		if reason == "" {
			reason = "the job has " + op.State
		}
		j.State, j.Reason, j.EndedNs = op.State, reason, t.now
	case op.State != "":
		j.State = op.State
		if j.StartedNs == 0 && active(j.State) {
			j.StartedNs = t.now
		}
	}
	if op.Reason != "" && !(ended(j.State) && op.State == "") { // why it waits no longer matters
		j.Reason = op.Reason
	}
	if op.State != "" {
		t.event(j, j.State+": "+j.Reason)
	}
	if ended(j.State) && !ended(was) {
		t.announce(j)
	}
	t.close(j, was, op.MaxEnded)
	return &wire.Result{Value: j.Id}
}

// entry is one entry of a directory.
type entry struct {
	name string
	ino  uint64
	kind uint32
}

// entries are all entries of a directory, by name.
func (v *view) entries(dir uint64) []entry { return v.someEntries(dir, math.MaxInt) }

// someEntries are the first entries of a directory in the order of their keys, at
// most so many, by name.
func (v *view) someEntries(dir uint64, most int) (all []entry) {
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
		return len(all) < most
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
