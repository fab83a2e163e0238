package state

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

func accounts(r *rig, op *wire.ListAccounts) (all []*wire.Account) {
	for {
		page := r.ask(&wire.Query{Op: &wire.Query_ListAccounts{ListAccounts: op}}).GetAccounts().GetAccounts()
		if all = append(all, page...); len(page) < pageOf(op.Limit) {
			return all
		}
		last := page[len(page)-1]
		op.SinceNs, op.AfterJob = last.EndedNs, last.Job
	}
}

func sums(r *rig, op *wire.ListUsage) (all []*wire.UsageSum) {
	for {
		a := r.ask(&wire.Query{Op: &wire.Query_ListUsage{ListUsage: op}}).GetUsage()
		if all = append(all, a.Sums...); len(a.Next) == 0 {
			return all
		}
		op.After = a.Next
	}
}

// attemptModel is one attempt that is under way.
type attemptModel struct {
	n, number uint32
	began     int64
}

// accountModel is a job as its account is to be: every attempt by itself.
type accountModel struct {
	id       uint64
	uid      uint32
	kernel   string
	tasks    []uint32 // the attempts that each has had
	open     []attemptModel
	state    string
	ended    int64
	usage    *wire.JobUsage
	finished map[uint32]bool
}

func (m *accountModel) end(r *rig, state string, now int64) *wire.Account {
	for _, a := range m.open {
		m.usage.TaskNs += uint64(now - a.began)
	}
	j := mustJob(r.tb.(*testing.T), r, m.id)
	acc := &wire.Account{
		Job: m.id, Name: j.Name, Uid: m.uid, Gid: m.uid, Kernel: m.kernel, State: state, SubmittedNs: j.SubmittedNs, EndedNs: now,
		Tasks: uint32(len(m.tasks)), TasksFailed: j.TasksFailed, Memory: 7 << 20, Usage: m.usage,
	}
	m.open, m.state, m.ended, m.usage = nil, state, now, new(wire.JobUsage)
	return acc
}

// TestAccountModel gives random commands about jobs of several users over some days,
// and compares accounts, sums, and which jobs are forgotten, with the model;
// QUERN_SEED repeats a run.
func TestAccountModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("QUERN_SEED"); v != "" {
		seed, _ = strconv.ParseUint(v, 10, 64)
	}
	t.Log("QUERN_SEED=", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	r := newRig(t)
	const keep = 3 // jobs that have ended, of each user
	var jobs []*accountModel
	var want []*wire.Account
	do := func(m *accountModel, c *wire.Command) bool {
		res := r.leader(c)
		if code := wire.Code(res.Code); code != wire.OK && code != wire.Stale {
			t.Fatalf("job %d: %v %s", m.id, code, res.Message)
		}
		return res.Code == 0
	}
	task := func(m *accountModel, x *wire.Task, second bool) (now int64, ok bool) {
		now = r.now
		x.Job = m.id
		return now, do(m, &wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: x, Second: second, MaxEnded: keep}}})
	}
	begin := func(m *accountModel, n uint32, second bool) {
		m.tasks[n]++
		now, ok := task(m, &wire.Task{N: n, Attempt: m.tasks[n], State: stateRunning}, second)
		if !ok {
			t.Fatalf("attempt %d of task %d of job %d cannot begin", m.tasks[n], n, m.id)
		}
		if !second { // an attempt that takes another's place ends it
			for _, a := range m.open {
				if a.n == n {
					m.usage.TaskNs += uint64(now - a.began)
				}
			}
			m.open = slices.DeleteFunc(m.open, func(a attemptModel) bool { return a.n == n })
		}
		m.open = append(m.open, attemptModel{n, m.tasks[n], now})
		m.usage.Attempts++
		m.usage.PeakActive = max(m.usage.PeakActive, uint32(len(m.open)))
		if m.usage.StartedNs == 0 {
			m.usage.StartedNs = now
		}
	}
	finish := func(m *accountModel, i int, state string) {
		a := m.open[i]
		x := &wire.Task{
			N: a.n, Attempt: a.number, State: state, CpuNs: rng.Int64N(1000), DeviceNs: rng.Int64N(3), BytesIn: rng.Uint64N(100),
			BytesOut: rng.Uint64N(10), PeakMemory: rng.Uint64N(1 << 30), Exit: rng.Int32N(3),
		}
		now, ok := task(m, x, false)
		if !ok {
			t.Fatalf("attempt %d of task %d of job %d cannot end", a.number, a.n, m.id)
		}
		u := m.usage
		u.CpuNs, u.DeviceNs = u.CpuNs+uint64(x.CpuNs), u.DeviceNs+uint64(x.DeviceNs)
		u.BytesIn, u.BytesOut, u.PeakMemory = u.BytesIn+x.BytesIn, u.BytesOut+x.BytesOut, max(u.PeakMemory, x.PeakMemory)
		won := state == stateSucceeded
		if len(slices.DeleteFunc(slices.Clone(m.open), func(b attemptModel) bool { return b.n != a.n })) > 1 && !won {
			// The other one goes on: the task has not failed.
		} else if state == stateFailed {
			m.finished[a.n] = true
		}
		if state == stateFailed && u.Exit == 0 {
			u.Exit = x.Exit
		}
		m.open = slices.DeleteFunc(m.open, func(b attemptModel) bool {
			over := b == a || won && b.n == a.n
			if over {
				u.TaskNs += uint64(now - b.began)
			}
			return over
		})
		if won {
			m.finished[a.n] = true
		}
		if j := mustJob(t, r, m.id); ended(j.State) {
			want = append(want, m.end(r, j.State, now))
		}
	}
	for i := range 1500 {
		r.now += rng.Int64N(int64(time.Hour))
		if len(jobs) < 6 || rng.IntN(12) == 0 {
			uid := uint32(rng.IntN(3))
			kernel := fmt.Sprint("k", rng.IntN(3))
			n := 1 + rng.IntN(4)
			res := r.must(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{
				Job: &wire.Job{
					Name: fmt.Sprint("j", i), Kernel: kernel, Kernels: []*wire.KernelRef{{Name: kernel}}, Memory: 7 << 20, Cred: &wire.Cred{Uid: uid, Gid: uid},
					OnFailure: []wire.OnFailure{wire.OnFailure_STOP, wire.OnFailure_CONTINUE}[rng.IntN(2)],
					Usage:     &wire.JobUsage{CpuNs: 1 << 40}, Active: 9, Counted: true, Overdue: true, // not for the client to say
				}, Tasks: mapTasks(n)}}})
			jobs = append(jobs, &accountModel{id: res.Value, uid: uid, kernel: kernel, tasks: make([]uint32, n), usage: new(wire.JobUsage), finished: map[uint32]bool{}})
		}
		m := jobs[rng.IntN(len(jobs))]
		n := uint32(rng.IntN(len(m.tasks)))
		running := slices.IndexFunc(m.open, func(a attemptModel) bool { return a.n == n })
		switch x := rng.IntN(30); {
		case m.state != "" && m.state != stateSucceeded && x < 8:
			if do(m, &wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: m.id, State: statePending}}}) {
				m.state, m.ended = "", 0
				tasks, err := r.s.Tasks(m.id, statePending)
				if err != nil {
					t.Fatal(err)
				}
				for _, x := range tasks {
					delete(m.finished, x.N)
				}
			}
		case m.state != "" && x == 9:
			r.must(&wire.Command{Op: &wire.Command_RemoveJob{RemoveJob: &wire.RemoveJob{Id: m.id}}})
			jobs = slices.DeleteFunc(jobs, func(o *accountModel) bool { return o == m })
		case m.state != "":
		case x == 10:
			now, state := r.now, []string{stateCancelled, stateExpired, stateFailed}[rng.IntN(3)]
			if do(m, &wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: m.id, State: state, MaxEnded: keep}}}) {
				want = append(want, m.end(r, state, now))
			}
		case running < 0 && !m.finished[n]:
			begin(m, n, false)
		case running >= 0 && x < 14:
			one := m.open[running].number
			if two := slices.ContainsFunc(m.open, func(a attemptModel) bool { return a.n == n && a.number != one }); !two {
				begin(m, n, true)
			}
		case running >= 0 && x < 16: // its host is lost
			begin(m, n, false)
		case running >= 0:
			finish(m, running, []string{stateSucceeded, stateSucceeded, stateSucceeded, statePending, stateFailed}[rng.IntN(5)])
		}
		if i%25 == 0 {
			r.check()
			compareAccounts(t, r, want)
			keepsLatest(t, r, jobs, keep)
		}
		if t.Failed() {
			t.Fatalf("after %d commands", i+1)
		}
	}
	r.check()
	compareAccounts(t, r, want)
	if len(want) < 50 {
		t.Errorf("only %d ends", len(want))
	}
	r.replay(1<<20, 1+rng.IntN(30))
}

// compareAccounts holds the accounts, and the sums of each user and of all, against
// those wanted.
func compareAccounts(t *testing.T, r *rig, want []*wire.Account) {
	t.Helper()
	slices.SortFunc(want, func(a, b *wire.Account) int {
		return cmp.Or(cmp.Compare(a.EndedNs, b.EndedNs), cmp.Compare(a.Job, b.Job))
	})
	same := func(a, b *wire.Account) bool { return proto.Equal(a, b) }
	if got := accounts(r, &wire.ListAccounts{Everybody: true, Limit: 7}); !slices.EqualFunc(got, want, same) {
		for i := range min(len(got), len(want)) {
			if !same(got[i], want[i]) {
				t.Fatalf("account %d: %v, wanted %v", i, got[i], want[i])
			}
		}
		t.Fatalf("%d accounts, wanted %d", len(got), len(want))
	}
	since, until := int64(0), int64(0)
	if len(want) > 3 {
		since, until = want[len(want)/3].EndedNs, want[2*len(want)/3].EndedNs
	}
	for uid := range uint32(4) {
		own := slices.DeleteFunc(slices.Clone(want), func(a *wire.Account) bool { return a.Uid != uid })
		if got := accounts(r, &wire.ListAccounts{Uid: uid, Limit: 3}); !slices.EqualFunc(got, own, same) {
			t.Errorf("uid %d: %d accounts, wanted %d", uid, len(got), len(own))
		}
		part := slices.DeleteFunc(slices.Clone(own), func(a *wire.Account) bool { return a.EndedNs < since || until != 0 && a.EndedNs >= until })
		if got := accounts(r, &wire.ListAccounts{Uid: uid, SinceNs: since, UntilNs: until}); !slices.EqualFunc(got, part, same) {
			t.Errorf("uid %d from %d to %d: %d accounts, wanted %d", uid, since, until, len(got), len(part))
		}
		compareSums(t, r, &wire.ListUsage{Uid: uid, Limit: 2}, own)
		days := &wire.ListUsage{Uid: uid, Since: dayOf(since) + 1, Until: dayOf(until)}
		if days.Since < days.Until {
			compareSums(t, r, days, slices.DeleteFunc(own, func(a *wire.Account) bool { return dayOf(a.EndedNs) < days.Since || dayOf(a.EndedNs) >= days.Until }))
		}
	}
	compareSums(t, r, &wire.ListUsage{Everybody: true, Limit: 5}, want)
}

func compareSums(t *testing.T, r *rig, op *wire.ListUsage, of []*wire.Account) {
	t.Helper()
	want := map[string]*wire.UsageSum{}
	for _, a := range of {
		key := fmt.Sprint(dayOf(a.EndedNs), a.Uid, a.Kernel)
		if want[key] == nil {
			want[key] = &wire.UsageSum{Day: dayOf(a.EndedNs), Uid: a.Uid, Kernel: a.Kernel}
		}
		addTo(want[key], a)
	}
	got := sums(r, op)
	if len(got) != len(want) {
		t.Errorf("%v: %d sums, wanted %d", op, len(got), len(want))
	}
	for _, s := range got {
		if w := want[fmt.Sprint(s.Day, s.Uid, s.Kernel)]; !proto.Equal(s, w) {
			t.Errorf("%v, wanted %v", s, w)
		}
	}
}

// keepsLatest: of each user no more than keep jobs that have ended are kept, the
// latest; the others are due.
func keepsLatest(t *testing.T, r *rig, jobs []*accountModel, keep int) {
	t.Helper()
	over := map[uint32][]*accountModel{}
	for _, m := range jobs {
		if m.state != "" {
			over[m.uid] = append(over[m.uid], m)
		}
	}
	due := map[uint64]bool{}
	for _, j := range r.ask(&wire.Query{Op: &wire.Query_ListJobs{ListJobs: &wire.ListJobs{DueNs: r.now, Limit: maxJobs}}}).GetJobs().GetJobs() {
		due[j.Id] = true
	}
	for uid, list := range over {
		slices.SortFunc(list, func(a, b *accountModel) int { return cmp.Compare(a.ended, b.ended) })
		kept := 0
		for _, m := range list {
			if !due[m.id] {
				kept++
			} else if kept > 0 {
				t.Errorf("uid %d: job %d is due, and an older one is not", uid, m.id)
			}
		}
		if kept > keep {
			t.Errorf("uid %d keeps %d jobs that have ended", uid, kept)
		}
	}
}

// TestAccountsAreBounded: accounts and sums go when they are old, kernels of many
// names are one, and no end of a job does much.
func TestAccountsAreBounded(t *testing.T) {
	r := newRig(t)
	run := func(name, kernel string) {
		t.Helper()
		id := r.must(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{
			Job: &wire.Job{Name: name, Kernel: kernel, Cred: &wire.Cred{Uid: 5}}, Tasks: mapTasks(1), TtlNs: 9}}}).Value
		if ttl := mustJob(t, r, id).TtlNs; ttl != 9 {
			t.Errorf("a job that says nothing is kept for %d", ttl)
		}
		r.must(&wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: id, State: stateCancelled}}})
		if n := r.s.tx.wrote + r.s.tx.read; n > 150 {
			t.Errorf("the end of a job reads and writes %d keys", n)
		}
		r.must(&wire.Command{Op: &wire.Command_RemoveJob{RemoveJob: &wire.RemoveJob{Id: id}}})
	}
	const many = 100
	for i := range many {
		run(fmt.Sprint("a", i), fmt.Sprintf("%03d%0*d", i, 2*maxKernel, i))
	}
	all := sums(r, &wire.ListUsage{Uid: 5})
	if len(all) != maxKernels+1 || all[0].Kernel != "" || all[0].Jobs != many-maxKernels || len(all[1].Kernel) != maxKernel {
		t.Errorf("%d sums, the first %v", len(all), all[0])
	}
	list := accounts(r, &wire.ListAccounts{Uid: 5})
	if len(list) != many {
		t.Errorf("%d accounts of %d", len(list), many)
	}
	for _, a := range list {
		if n := proto.Size(a); n > 2*maxKernel {
			t.Errorf("an account of %d bytes", n)
		}
	}
	r.check()
	r.now += accountAge + dayNs
	for i := range many {
		run(fmt.Sprint("b", i), "b")
	}
	if n := len(accounts(r, &wire.ListAccounts{Everybody: true})); n != many {
		t.Errorf("%d accounts are left, %d of them new", n, many)
	}
	if n := len(sums(r, &wire.ListUsage{Everybody: true})); n != maxKernels+2 {
		t.Errorf("%d sums are left", n)
	}
	r.now += sumAge + dayNs
	for i := range many {
		run(fmt.Sprint("c", i), "c")
	}
	if all := sums(r, &wire.ListUsage{Everybody: true}); len(all) != 1 || all[0].Kernel != "c" || all[0].Jobs != many {
		t.Errorf("%v are left", all)
	}
	r.check()
	r.replay(1<<20, 7)
	// A job file that says how long is heard.
	id := r.must(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{Job: &wire.Job{Name: "own", TtlNs: -1}, TtlNs: 9, Tasks: mapTasks(1)}}}).Value
	r.must(&wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: id, State: stateCancelled}}})
	if j := mustJob(t, r, id); j.TtlNs != -1 || due(j) != 0 {
		t.Errorf("it is kept for %d, and due at %d", j.TtlNs, due(j))
	}
}
