package state

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

func (c *checker) seeJob(key, value []byte) {
	switch {
	case len(key) == 10 && key[1] == jRecord:
		j := new(wire.Job)
		if c.v.decode(key, value, j) {
			c.job(num64(key[2:])).rec = j
		}
	case len(key) == 14 && key[1] == jTask:
		task := new(wire.Task)
		if !c.v.decode(key, value, task) {
			return
		}
		t := c.job(num64(key[2:]))
		t.tasks = append(t.tasks, &wire.Task{Job: task.Job, N: task.N, State: task.State, Round: task.Round, Second: task.Second})
	case len(key) > 2 && key[1] == jName && len(value) == 8:
		c.names[string(key[2:])] = num64(value)
	case len(key) == 10 && key[1] == jActive:
		c.job(num64(key[2:])).active = true
	case len(key) > 2 && key[1] == jMemo:
		if m := new(wire.Memo); c.v.decode(key, value, m) && (m.Ino == 0 || m.Job == 0) {
			c.bad(fmt.Sprintf("memo %x", key[2:]), "of inode %d, job %d", m.Ino, m.Job)
		}
	case len(key) == 14 && key[1] == jUser:
		c.job(num64(key[6:])).user = append(c.job(num64(key[6:])).user, num32(key[2:]))
	case len(key) == 18 && key[1] == jDue:
		c.job(num64(key[10:])).due = append(c.job(num64(key[10:])).due, unordered(num64(key[2:])))
	case len(key) == 14 && key[1] == jOpen: // of an earlier version
	case len(key) == 10 && key[1] == jTemplate:
		c.job(num64(key[2:])).template = true
	case len(key) == 10 && key[1] == jStaged:
		if s := new(wire.Staged); c.v.decode(key, value, s) {
			c.job(num64(key[2:])).staged = s
		}
	case len(key) == 10 && key[1] == jDropped:
		c.job(num64(key[2:])).dropped = true
		c.dropped++
	case len(key) == 6 && key[1] == jLoad:
		if u := new(wire.UserJobs); c.v.decode(key, value, u) {
			c.loads[num32(key[2:])] = u
		}
	case len(key) == 22 && key[1] == jEnded:
		t := c.job(num64(key[14:]))
		t.ended = append(t.ended, bytes.Clone(key))
	case c.seeRefusal(key, value), c.seeAccount(key, value):
	default:
		c.bad(fmt.Sprintf("key %q", key), "unknown kind")
	}
}

func (c *checker) checkJobs() {
	jobs, loads := 0, map[uint32]*wire.UserJobs{}
	for id, t := range c.jobs {
		object, j := fmt.Sprintf("job %d", id), t.rec
		switch {
		case j == nil && t.dropped:
			continue
		case j == nil && t.staged != nil:
			if int(t.staged.Tasks) != len(t.tasks) {
				c.bad(object, "%d tasks are staged, %d are there", t.staged.Tasks, len(t.tasks))
			}
			if _, ok := c.sessions[t.staged.Session]; !ok && t.staged.Session != 0 {
				c.bad(object, "staged by session %d, which does not exist", t.staged.Session)
			}
			continue
		case j == nil:
			c.bad(object, "has tasks or is indexed, but does not exist")
			continue
		case t.staged != nil || t.dropped:
			c.bad(object, "is staged, or to be removed, and exists")
		}
		jobs++
		if add := load(j); add.Jobs+add.Ended > 0 {
			sum := loads[j.Cred.GetUid()]
			if sum == nil {
				sum = new(wire.UserJobs)
				loads[j.Cred.GetUid()] = sum
			}
			sum.Jobs, sum.Tasks, sum.Size, sum.Ended = sum.Jobs+add.Jobs, sum.Tasks+add.Tasks, sum.Size+add.Size, sum.Ended+add.Ended
		}
		if is := load(j).Ended > 0; is != (len(t.ended) == 1) || is && !bytes.Equal(t.ended[0], jobEndedKey(nil, j.Cred.GetUid(), j.EndedNs, id)) {
			c.bad(object, "is %s, and %d times in the index of jobs that have ended", j.State, len(t.ended))
		} else if u := c.loads[j.Cred.GetUid()]; is && j.EndedNs < u.GetFirstEndedNs() {
			c.bad(object, "ended before the first of its user's")
		}
		if c.names[j.Name] != id {
			c.bad(object, "its name %q leads to job %d", j.Name, c.names[j.Name])
		}
		if t.active == ended(j.State) {
			c.bad(object, "is %s, among the jobs that have not ended: %v", j.State, t.active)
		}
		if owned := len(t.user) == 1 && t.user[0] == j.Cred.GetUid(); ended(j.State) != (len(t.user) == 0) || len(t.user) > 0 && !owned {
			c.bad(object, "is %s, and in the index of users %v", j.State, t.user)
		}
		if at := due(j); at == 0 && len(t.due) > 0 || at != 0 && (len(t.due) != 1 || t.due[0] != at) {
			c.bad(object, "is to be removed at %d, and in the index at %v", at, t.due)
		}
		c.checkTasks(object, t)
		if j.Reason == "" {
			c.bad(object, "no reason")
		}
	}
	if len(c.names) != jobs {
		c.bad("jobs", "%d names of %d jobs", len(c.names), jobs)
	}
	for uid, u := range c.accounts.users {
		if loads[uid] == nil {
			loads[uid] = new(wire.UserJobs)
		}
		loads[uid].Accounts = u.Accounts
		if first := c.loads[uid].GetFirstAccountNs(); u.FirstAccountNs < first {
			c.bad(fmt.Sprintf("uid %d", uid), "has an account of %d, before the first one at %d", u.FirstAccountNs, first)
		}
	}
	for uid, u := range c.loads {
		kept := &wire.UserJobs{Jobs: u.Jobs, Tasks: u.Tasks, Size: u.Size, Ended: u.Ended, Accounts: u.Accounts}
		if !proto.Equal(kept, loads[uid]) {
			c.bad(fmt.Sprintf("uid %d", uid), "has jobs and accounts that amount to %v, by the sum kept %v", loads[uid], u)
		}
	}
	for uid := range loads {
		if c.loads[uid] == nil {
			c.bad(fmt.Sprintf("uid %d", uid), "has jobs or accounts, and no sum of them is kept")
		}
	}
}

// checkTasks holds the counters of a job against its tasks.
func (c *checker) checkTasks(object string, t *jobTally) {
	j := t.rec
	if t.template != (j.Array > 0) {
		c.bad(object, "an array of %d tasks, a template: %v", j.Array, t.template)
	}
	if j.Removing || j.Partial {
		return
	}
	var done, failed, off, beyond, under uint32
	for _, stored := range t.tasks {
		if stored.N >= j.Array {
			beyond++
		}
		if uint64(stored.N) >= j.NextTask {
			c.bad(object, "task %d of %d", stored.N, j.NextTask)
		}
		if was := stored.State; stored.Round == j.Round && (was == stateCancelled || was == stateExpired) {
			off++
		}
		now := current(j, stored)
		under += attempts(now)
		switch now.State {
		case stateSucceeded:
			done++
		case stateFailed:
			failed++
		}
	}
	if j.NextTask != uint64(j.Tasks) || j.Tasks != j.Array+beyond {
		c.bad(object, "counts %d tasks, next is %d; has an array of %d and %d beside it", j.Tasks, j.NextTask, j.Array, beyond)
	}
	if j.TasksDone != done || j.TasksFailed != failed || j.TasksOff != off {
		c.bad(object, "counts %d done, %d failed, %d ended otherwise; has %d, %d, %d", j.TasksDone, j.TasksFailed, j.TasksOff, done, failed, off)
	}
	if j.Active != under {
		c.bad(object, "counts %d attempts under way, has %d", j.Active, under)
	}
	if (j.Failure == "") != (failed == 0) {
		c.bad(object, "%d tasks have failed, of which it says %q", failed, j.Failure)
	}
}
