package state

import (
	"math"
	"time"

	"quernfs/internal/wire"
)

// Accounts outlive their jobs. What the attempts of a job use is added up in its
// record, so that the command that ends it can write the account and add it to the
// sum of its day without looking at any task. Each end of a job, and so each
// repetition, has an account of its own, which never changes; so sums only grow.

const (
	accountAge = int64(400 * 24 * time.Hour)     // accounts are kept at least so long
	sumAge     = int64(5 * 366 * 24 * time.Hour) // and sums
	dayNs      = int64(24 * time.Hour)

	maxAccounts = 100_000 // of a user; the oldest of more are forgotten
	maxKernels  = 64      // of a user on one day that have a sum of their own
	maxKernel   = 200     // bytes of a kernel's name that are kept: that of a module is its path
	forgetStep  = 2       // accounts and sums of each kind that go when one is added
)

// dayOf is the day of a time.
func dayOf(ns int64) int32 {
	day := ns / dayNs
	if ns%dayNs < 0 {
		day--
	}
	return int32(day)
}

// attempts is how many attempts of a task are under way.
func attempts(task *wire.Task) (n uint32) {
	if active(task.State) {
		n++
	}
	if task.Second != nil {
		n++
	}
	return n
}

// usage is the edited usage of an edited job.
func usage(j *wire.Job) *wire.JobUsage {
	if j.Usage == nil {
		j.Usage = new(wire.JobUsage)
	}
	return j.Usage
}

// advance brings the time that attempts have taken up to date.
func (t *tx) advance(j *wire.Job) {
	if took := t.now - j.ActiveNs; j.Active > 0 && took > 0 {
		usage(j).TaskNs += uint64(j.Active) * uint64(took)
	}
	j.ActiveNs = max(j.ActiveNs, t.now)
}

// used adds to the usage of an edited job what an update brings that turns the record
// old of a task into task.
func (t *tx) used(j *wire.Job, old, task, update *wire.Task) {
	t.advance(j)
	u := usage(j)
	before, after := attempts(old), attempts(task)
	if j.Active += after; j.Active < before { // begun before this was counted
		j.Active = before
	}
	j.Active -= before
	u.PeakActive = max(u.PeakActive, j.Active)
	if update.Attempt == wire.NextAttempt(old) {
		u.Attempts++
		if u.StartedNs == 0 {
			u.StartedNs = t.now
		}
	}
	if active(update.State) {
		return
	}
	// The last word of an attempt has what it used.
	if update.Attempt == old.Attempt && active(old.State) || old.Second != nil && update.Attempt == old.Second.Attempt || update.Attempt > old.Attempt {
		u.CpuNs += uint64(max(update.CpuNs, 0))
		u.DeviceNs += uint64(max(update.DeviceNs, 0))
		u.BytesIn += update.BytesIn
		u.BytesOut += update.BytesOut
		u.PeakMemory = max(u.PeakMemory, update.PeakMemory)
	}
	if update.State == stateFailed && u.Exit == 0 {
		u.Exit = update.Exit
	}
}

// close puts an edited job, whose state was was, and accounts for its end if this is
// it. most is how many jobs that have ended its owner keeps.
func (t *tx) close(j *wire.Job, was string, most uint64) {
	isEnd := ended(j.State) && !ended(was)
	if isEnd {
		t.account(j)
	} else if ended(was) && !ended(j.State) { // another round
		j.Usage, j.Active, j.Counted, j.Overdue = nil, 0, false, false
	}
	t.putJob(j)
	if isEnd {
		t.dropEnded(j.Cred.GetUid(), most)
	}
}

// account writes the account of an edited job that has just ended.
func (t *tx) account(j *wire.Job) {
	t.advance(j)
	j.Active, j.Counted = 0, true
	uid, at := j.Cred.GetUid(), j.EndedNs
	for t.has(accountKey(nil, at, j.Id)) { // it has ended twice in a moment
		at++
	}
	a := &wire.Account{
		Job: j.Id, Name: j.Name, Uid: uid, Gid: j.Cred.GetGid(), Kernel: j.Kernel[:min(len(j.Kernel), maxKernel)], State: j.State, SubmittedNs: j.SubmittedNs, EndedNs: at,
		Tasks: j.Tasks, TasksFailed: j.TasksFailed, Memory: j.Memory, Usage: usage(j),
	}
	t.set(accountKey(nil, at, j.Id), a)
	t.setRaw(userAccountKey(nil, uid, at, j.Id), nil)
	t.counts[firstAccount] = min(t.counts[firstAccount], ordered(at))
	t.updateUser(uid, func(u *wire.UserJobs) {
		if u.Accounts++; u.Accounts == 1 || at < u.FirstAccountNs {
			u.FirstAccountNs = at
		}
	})
	t.sum(a)
	t.forgetAccounts(uid)
}

// sum adds an account to the sum that it belongs to.
func (t *tx) sum(a *wire.Account) {
	s := &wire.UsageSum{Day: dayOf(a.EndedNs), Uid: a.Uid, Kernel: a.Kernel}
	if !t.load(sumKey(nil, s.Day, s.Uid, s.Kernel), s) {
		n := 0
		t.prefix(sumKey(nil, s.Day, s.Uid, ""), func(_, _ []byte) bool {
			n++
			return n < maxKernels
		})
		if n >= maxKernels {
			s.Kernel = ""
			t.load(sumKey(nil, s.Day, s.Uid, ""), s)
		}
	}
	addTo(s, a)
	t.set(sumKey(nil, s.Day, s.Uid, s.Kernel), s)
}

// addTo adds an account to a sum.
func addTo(s *wire.UsageSum, a *wire.Account) {
	s.Jobs++
	switch a.State {
	case stateSucceeded:
		s.Succeeded++
	case stateFailed:
		s.Failed++
	case stateCancelled:
		s.Cancelled++
	case stateExpired:
		s.Expired++
	}
	u := a.Usage
	s.Attempts += u.GetAttempts()
	s.TaskNs += u.GetTaskNs()
	s.CpuNs += u.GetCpuNs()
	s.DeviceNs += u.GetDeviceNs()
	s.BytesIn += u.GetBytesIn()
	s.BytesOut += u.GetBytesOut()
}

// forgetAccounts forgets the oldest accounts of all, and of a user who has too many,
// and the oldest sums; a few at a time. Where the first may be is kept, so that none
// that was removed is passed over again.
func (t *tx) forgetAccounts(uid uint32) {
	var gone []*wire.Account
	take := func(ns int64, id uint64) bool {
		a := new(wire.Account)
		if t.load(accountKey(nil, ns, id), a) {
			gone = append(gone, a)
		}
		return len(gone) < forgetStep
	}
	t.scan(accountKey(nil, unordered(t.counts[firstAccount]), 0), accountKey(nil, t.now-accountAge, 0), func(key, _ []byte) bool {
		return take(unordered(num64(key[2:])), num64(key[10:]))
	})
	if n := len(gone); n > 0 {
		t.counts[firstAccount] = ordered(gone[n-1].EndedNs)
	}
	t.dropAccounts(gone)
	gone = nil
	if u := t.userJobs(uid); u.Accounts > maxAccounts {
		t.scan(userAccountKey(nil, uid, u.FirstAccountNs, 0), after(be32([]byte{kJob, jUserAccount}, uid)), func(key, _ []byte) bool {
			return take(unordered(num64(key[6:])), num64(key[14:]))
		})
		t.dropAccounts(gone)
	}
	var sums [][]byte
	t.scan([]byte{kJob, jSum}, sumKey(nil, dayOf(t.now-sumAge), 0, ""), func(key, _ []byte) bool {
		sums = append(sums, append([]byte(nil), key...))
		return len(sums) < forgetStep
	})
	for _, key := range sums {
		t.del(key)
	}
}

// dropAccounts removes accounts, each of them the first of its user.
func (t *tx) dropAccounts(gone []*wire.Account) {
	for _, a := range gone {
		t.del(accountKey(nil, a.EndedNs, a.Job))
		t.del(userAccountKey(nil, a.Uid, a.EndedNs, a.Job))
		t.updateUser(a.Uid, func(u *wire.UserJobs) {
			u.Accounts--
			u.FirstAccountNs = max(u.FirstAccountNs, a.EndedNs)
		})
	}
}

// maxAnswer is how many accounts or sums one answer has at the most.
const maxAnswer = 4096

func pageOf(limit uint32) int {
	if limit == 0 {
		return 1024
	}
	return int(min(limit, maxAnswer))
}

func (v *view) listAccounts(op *wire.ListAccounts) *wire.Answer {
	out, most := new(wire.AccountsAnswer), pageOf(op.GetLimit())
	until := op.GetUntilNs()
	if until == 0 {
		until = math.MaxInt64
	}
	if op.GetAfterJob() == math.MaxUint64 {
		return refuse(wire.Range)
	}
	if since, next := op.GetSinceNs(), op.GetAfterJob()+1; since >= until {
	} else if op.GetEverybody() {
		v.scan(accountKey(nil, since, next), accountKey(nil, until, 0), func(key, value []byte) bool {
			a := new(wire.Account)
			if v.decode(key, value, a) {
				out.Accounts = append(out.Accounts, a)
			}
			return len(out.Accounts) < most
		})
	} else {
		v.scan(userAccountKey(nil, op.GetUid(), since, next), userAccountKey(nil, op.GetUid(), until, 0), func(key, _ []byte) bool {
			a := new(wire.Account)
			if v.load(accountKey(nil, unordered(num64(key[6:])), num64(key[14:])), a) {
				out.Accounts = append(out.Accounts, a)
			}
			return len(out.Accounts) < most
		})
	}
	return &wire.Answer{Op: &wire.Answer_Accounts{Accounts: out}}
}

// listUsage passes over other users' sums of a day at once.
func (v *view) listUsage(op *wire.ListUsage) *wire.Answer {
	out, most := new(wire.UsageAnswer), pageOf(op.GetLimit())
	hi := after([]byte{kJob, jSum})
	if op.GetUntil() != 0 {
		hi = sumKey(nil, op.Until, 0, "")
	}
	lo := sumKey(nil, op.GetSince(), 0, "")
	if n := len(op.GetAfter()); n >= 8 {
		lo = append(append([]byte{kJob, jSum}, op.After...), 0)
	} else if n > 0 {
		return refuse(wire.Invalid)
	}
	for lo != nil && string(lo) < string(hi) && v.err == nil {
		from := lo
		lo = nil
		v.scan(from, hi, func(key, value []byte) bool {
			s := new(wire.UsageSum)
			if !v.decode(key, value, s) {
				return false
			}
			switch {
			case op.GetEverybody() || s.Uid == op.GetUid():
				out.Sums = append(out.Sums, s)
				if len(out.Sums) < most {
					return true
				}
				out.Next = append([]byte(nil), key[2:]...)
			case s.Uid < op.GetUid():
				lo = sumKey(nil, s.Day, op.GetUid(), "")
			case s.Day < math.MaxInt32:
				lo = sumKey(nil, s.Day+1, op.GetUid(), "")
			}
			return false
		})
	}
	return &wire.Answer{Op: &wire.Answer_Usage{Usage: out}}
}

// accountTally is what the state says of accounts, from all sides.
type accountTally struct {
	users   map[uint32]*wire.UserJobs // the number of accounts, and the first
	index   map[string]bool           // keys of accounts that the index by user has
	records map[string]bool
	sums    map[string]*wire.UsageSum // as they are kept, by key
	added   []*wire.Account
	first   uint64
}

// seeAccount tallies a key of accounts and sums; false: it is none.
func (c *checker) seeAccount(key, value []byte) bool {
	t := &c.accounts
	if t.users == nil {
		*t = accountTally{users: map[uint32]*wire.UserJobs{}, index: map[string]bool{}, records: map[string]bool{}, sums: map[string]*wire.UsageSum{}, first: math.MaxUint64}
	}
	switch {
	case len(key) == 18 && key[1] == jAccount:
		a := new(wire.Account)
		if !c.v.decode(key, value, a) {
			return true
		}
		if string(accountKey(nil, a.EndedNs, a.Job)) != string(key) {
			c.bad("account of job "+a.Name, "has the key of another")
		}
		u := t.users[a.Uid]
		if u == nil {
			u = &wire.UserJobs{FirstAccountNs: a.EndedNs}
			t.users[a.Uid] = u
		}
		u.Accounts++
		t.records[string(userAccountKey(nil, a.Uid, a.EndedNs, a.Job))] = true
		t.added = append(t.added, a)
		t.first = min(t.first, num64(key[2:]))
	case len(key) == 22 && key[1] == jUserAccount:
		t.index[string(key)] = true
	case len(key) >= 10 && key[1] == jSum:
		s := new(wire.UsageSum)
		if !c.v.decode(key, value, s) {
			return true
		}
		if t.sums[string(key)] = s; string(sumKey(nil, s.Day, s.Uid, s.Kernel)) != string(key) {
			c.bad("a sum of usage", "has the key of another")
		}
	default:
		return false
	}
	return true
}

// checkAccounts holds accounts against their index, and against the sums: these have
// also what was forgotten.
func (c *checker) checkAccounts() {
	t := &c.accounts
	for key := range t.records {
		if !t.index[key] {
			c.bad("accounts", "one is not in the index by user")
		}
	}
	if len(t.index) != len(t.records) {
		c.bad("accounts", "%d in the index by user, of %d", len(t.index), len(t.records))
	}
	if t.first < c.counts[firstAccount] {
		c.bad("counter "+counterNames[firstAccount], "there is an older account")
	}
	type day struct {
		day int32
		uid uint32
	}
	jobs := map[day]uint64{}
	for _, a := range t.added {
		jobs[day{dayOf(a.EndedNs), a.Uid}]++
	}
	kernels := map[day]int{}
	for _, s := range t.sums {
		of := day{s.Day, s.Uid}
		if kernels[of]++; kernels[of] > maxKernels+1 {
			c.bad("sums of usage", "of too many kernels, of uid %d", s.Uid)
		}
		if s.Jobs != s.Succeeded+s.Failed+s.Cancelled+s.Expired {
			c.bad("sums of usage", "%v", s)
		}
		jobs[of] -= min(jobs[of], s.Jobs)
	}
	for of, n := range jobs {
		if n > 0 && of.day > dayOf(t.newest()-sumAge) {
			c.bad("sums of usage", "%d accounts of uid %d are missing", n, of.uid)
		}
	}
}

func (t *accountTally) newest() (ns int64) {
	for _, a := range t.added {
		ns = max(ns, a.EndedNs)
	}
	return ns
}
