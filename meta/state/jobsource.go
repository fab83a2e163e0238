package state

import (
	"fmt"

	"quernfs/internal/wire"
)

// finish does what the end of a job brings, in the command that ends it: was is
// the state before. open are the sessions that have the source open.
func (t *tx) finish(j *wire.Job, was string, open []uint64) {
	if !ended(j.State) || ended(was) {
		return
	}
	if s := j.Source; s != nil && s.Drop != wire.Drop_NEVER && j.State == stateSucceeded && j.TasksDone > 0 {
		t.event(j, t.settleSource(j, open))
	}
	t.announce(j)
}

// settleSource removes the source of a job that has succeeded, or lets it be, and
// says which.
func (t *tx) settleSource(j *wire.Job, open []uint64) string {
	s := j.Source
	stays := func(why string) string { return fmt.Sprintf("the source %s stays: %s", s.Name, why) }
	if drop, why := t.decide(j); !drop {
		return stays(why)
	}
	if j.OutParent != 0 && j.IfExists == wire.IfExists_SKIP {
		return stays("a result of it may have been left out (if_exists: skip)")
	}
	for _, a := range j.After {
		if other := t.job(a.Job); other == nil || other.State != stateSucceeded {
			return stays("the job " + a.Name + " has not succeeded")
		}
	}
	dir := t.inode(s.Parent)
	if dir == nil || !isDir(dir) {
		return stays("its directory is gone")
	}
	d := t.dentry(s.Parent, s.Name)
	if d == nil || d.Ino != s.Ino {
		return fmt.Sprintf("the source %s is not there any more", s.Name)
	}
	in := t.inode(d.Ino)
	switch {
	case in == nil || !isRegular(in) || protected(d.Ino):
		return stays("it is not a regular file")
	case in.Attr.Size != s.Size || in.Attr.MtimeNs != s.MtimeNs || in.Attr.CtimeNs != s.CtimeNs:
		return stays("it has changed since")
	case !t.allowed(dir, j.Cred, MayWrite|MayExec) || Sticky(dir, in, j.Cred):
		return stays("the job's owner may not remove it")
	}
	t.delDentry(s.Parent, s.Name)
	dir = t.touch(dir)
	dir.Entries--
	t.putInode(dir)
	t.dropName(in, open)
	return fmt.Sprintf("the source %s was removed", s.Name)
}

// decide says whether the source of a job is to be removed, by what the tasks of
// its last step have left.
func (t *tx) decide(j *wire.Job) (drop bool, why string) {
	bytes, verdict := j.LeftBytes, wire.Verdict_ABSENT
	switch {
	case j.LeftPresent:
		verdict = wire.Verdict_PRESENT
	case j.LeftUnread:
		verdict = wire.Verdict_UNKNOWN
	}
	switch j.Source.Drop {
	case wire.Drop_ALWAYS:
		return true, ""
	case wire.Drop_EMPTY:
		return bytes == 0, "the result is not empty"
	case wire.Drop_NOT_EMPTY:
		return bytes > 0, "the result is empty"
	case wire.Drop_FOUND:
		return verdict == wire.Verdict_PRESENT, "no line of the result fits"
	case wire.Drop_NOT_FOUND:
		if verdict == wire.Verdict_UNKNOWN {
			return false, "the agent has not looked whether a line fits"
		}
		return verdict == wire.Verdict_ABSENT, "a line of the result fits"
	}
	return false, "nothing is to be done with it"
}

// left notes what a task that has succeeded has left, if it is of the last step:
// decide goes by it.
func (t *tx) left(j *wire.Job, task *wire.Task) {
	if len(j.Kernels) > 1 && task.Phase != phaseReduce {
		return
	}
	j.LeftBytes += task.BytesOut
	switch task.Verdict {
	case wire.Verdict_PRESENT:
		j.LeftPresent = true
	case wire.Verdict_UNKNOWN:
		j.LeftUnread = true
	}
}
