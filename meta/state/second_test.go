package state

import (
	"fmt"
	"testing"

	"quernfs/internal/wire"
)

// second begins an attempt beside the running one.
func second(r *rig, job uint64, n, attempt uint32) string {
	session := r.session
	r.session = 0
	defer func() { r.session = session }()
	return codeName(r.do(&wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{
		Task: &wire.Task{Job: job, N: n, Attempt: attempt, State: "running", Agent: 8, Host: "other"}, Second: true,
	}}}).Code)
}

// TestSecondAttempt walks through what can become of two attempts of a task.
func TestSecondAttempt(t *testing.T) {
	const running = "running 0/1 failed=0"
	type step struct {
		attempt uint32
		state   string // "second": begins beside the running one
		want    string
		task    string // attempt, second, last, state
		job     string
	}
	begin := []step{
		{1, "second", "Stale", "0 0 0 pending", "pending 0/1 failed=0"}, // nothing runs yet
		{1, "running", "ok", "1 0 0 running", running},
		{1, "second", "Stale", "1 0 0 running", running},
		{2, "second", "ok", "1 2 2 running", running},
		{3, "second", "Stale", "1 2 2 running", running}, // two are enough
	}
	for name, steps := range map[string][]step{
		"the first wins": {
			{1, "succeeded", "ok", "1 0 2 succeeded", "succeeded 1/1 failed=0"},
			{2, "succeeded", "Stale", "1 0 2 succeeded", "succeeded 1/1 failed=0"},
			{3, "running", "Stale", "1 0 2 succeeded", "succeeded 1/1 failed=0"},
		},
		"the second wins": {
			{2, "succeeded", "ok", "2 0 0 succeeded", "succeeded 1/1 failed=0"},
			{1, "succeeded", "Stale", "2 0 0 succeeded", "succeeded 1/1 failed=0"},
		},
		"the first is lost": {
			{1, "pending", "ok", "2 0 0 running", running},
			{1, "succeeded", "Stale", "2 0 0 running", running},
			{2, "succeeded", "ok", "2 0 0 succeeded", "succeeded 1/1 failed=0"},
		},
		"the second fails": {
			{2, "failed", "ok", "1 0 2 running", running},
			{2, "succeeded", "Stale", "1 0 2 running", running},
			{3, "second", "ok", "1 3 3 running", running}, // its number is not given again
			{2, "succeeded", "Stale", "1 3 3 running", running},
			{3, "succeeded", "ok", "3 0 0 succeeded", "succeeded 1/1 failed=0"},
		},
		"both fail": {
			{2, "failed", "ok", "1 0 2 running", running},
			{1, "failed", "ok", "1 0 2 failed", "failed 0/1 failed=1"},
			{2, "running", "Stale", "1 0 2 failed", "failed 0/1 failed=1"},
			{3, "running", "Stale", "1 0 2 failed", "failed 0/1 failed=1"},
			{0, "again", "ok", "1 0 2 pending", "pending 0/1 failed=0"},
			{3, "running", "ok", "3 0 0 running", running},
		},
		"both are lost": {
			{1, "pending", "ok", "2 0 0 running", running},
			{2, "pending", "ok", "2 0 0 pending", running0},
			{3, "running", "ok", "3 0 0 running", running},
			{1, "succeeded", "Stale", "3 0 0 running", running},
			{2, "succeeded", "Stale", "3 0 0 running", running},
		},
		"a new attempt replaces both": {
			{3, "running", "ok", "3 0 0 running", running},
			{1, "succeeded", "Stale", "3 0 0 running", running},
			{2, "succeeded", "Stale", "3 0 0 running", running},
		},
		"they commit": {
			{1, "committing", "ok", "1 2 2 committing", running},
			{2, "committing", "ok", "1 2 2 committing", running},
			{2, "succeeded", "ok", "2 0 0 succeeded", "succeeded 1/1 failed=0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			id := submit(r, "j", "x", 1).Value
			for i, s := range append(begin[:len(begin):len(begin)], steps...) {
				var got string
				switch s.state {
				case "second":
					got = second(r, id, 0, s.attempt)
				case "again":
					got = updateJob(r, &wire.UpdateJob{Id: id, State: statePending})
				default:
					r.session = r.openSession(fmt.Sprint("agent", i))
					got = task(r, id, 0, s.attempt, s.state, 0)
					r.session = 0
				}
				expect(t, fmt.Sprint("step ", i), got, s.want)
				x, err := r.s.Tasks(id)
				if err != nil {
					t.Fatal(err)
				}
				expect(t, fmt.Sprint("task after step ", i), fmt.Sprint(x[0].Attempt, " ", x[0].Second.GetAttempt(), " ", x[0].LastAttempt, " ", x[0].State), s.task)
				expect(t, fmt.Sprint("job after step ", i), jobState(t, r, id), s.job)
				r.check()
			}
			r.replay(1 << 20)
		})
	}
}

// running0 is a job all of whose tasks are pending again.
const running0 = "running 0/1 failed=0"

// TestSecondOfCancelled: a cancelled job's attempts are over, both; a retry does
// not give their numbers again.
func TestSecondOfCancelled(t *testing.T) {
	r := newRig(t)
	id := submit(r, "j", "x", 1).Value
	task(r, id, 0, 1, "running", 0)
	expect(t, "second", second(r, id, 0, 2), "ok")
	expect(t, "cancel", updateJob(r, &wire.UpdateJob{Id: id, State: "cancelled"}), "ok")
	expect(t, "first", task(r, id, 0, 1, "succeeded", 0), "Stale")
	expect(t, "the second", task(r, id, 0, 2, "succeeded", 0), "Stale")
	expect(t, "retry", updateJob(r, &wire.UpdateJob{Id: id, State: "pending"}), "ok")
	r.session = r.openSession("agent")
	expect(t, "the second, late", task(r, id, 0, 2, "succeeded", 0), "Stale")
	expect(t, "the next", task(r, id, 0, 3, "running", 0), "ok")
	r.check()
}
