package state

import (
	"fmt"

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
		t.tasks++
		switch {
		case task.State == stateSucceeded:
			t.done++
		case task.State == stateFailed:
			t.failed++
		case !ended(task.State):
			t.open[task.N] = true
		}
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
	case len(key) == 14 && key[1] == jOpen:
		c.job(num64(key[2:])).index[num32(key[10:])] = true
	case c.seeRefusal(key, value):
	default:
		c.bad(fmt.Sprintf("key %q", key), "unknown kind")
	}
}

func (c *checker) checkJobs() {
	for id, t := range c.jobs {
		object, j := fmt.Sprintf("job %d", id), t.rec
		if j == nil {
			c.bad(object, "has tasks or is indexed, but does not exist")
			continue
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
		if j.Tasks != t.tasks || j.TasksDone != t.done || j.TasksFailed != t.failed || j.NextTask != uint64(t.tasks) {
			c.bad(object, "counts %d tasks, %d done, %d failed; has %d, %d, %d", j.Tasks, j.TasksDone, j.TasksFailed, t.tasks, t.done, t.failed)
		}
		if len(t.open) != len(t.index) {
			c.bad(object, "%d open tasks, %d in the index", len(t.open), len(t.index))
		}
		for n := range t.open {
			if !t.index[n] {
				c.bad(object, "task %d is not in the index of open tasks", n)
			}
		}
		if j.Reason == "" {
			c.bad(object, "no reason")
		}
	}
	if len(c.names) != len(c.jobs) {
		c.bad("jobs", "%d names of %d jobs", len(c.names), len(c.jobs))
	}
}
