package place

import (
	"slices"
	"time"
)

// never is when something fits that never fits.
const never = time.Duration(1<<63 - 1)

// step says what is free from a time on.
type step struct {
	at   time.Duration
	free Amount
}

// profile is what of a device or host is free when, as far as is planned. It is
// what makes backfilling safe: a later task takes only what is free for all of
// its time, and so delays none that was planned before (the conservative form of
// D. Lifka, "The ANL/IBM SP scheduling system", 1995). The first step is at 0.
type profile []step

// newProfile begins with what is free now, to which running tasks add at their
// end.
func newProfile(free Amount, running []Running, part func(Amount) Amount) profile {
	p := profile{{0, free}}
	for i := range running {
		need := part(running[i].need())
		if need == (Amount{}) {
			continue
		}
		k := p.split(max(running[i].Until, 1))
		for ; k < len(p); k++ {
			p[k].free = p[k].free.Plus(need)
		}
	}
	return p
}

// split makes t the begin of a step, and returns that step.
func (p *profile) split(t time.Duration) int {
	s := *p
	k := len(s)
	for k > 0 && s[k-1].at > t {
		k--
	}
	if s[k-1].at == t {
		return k - 1
	}
	*p = slices.Insert(s, k, step{t, s[k-1].free})
	return k
}

// fit is the earliest time from which on need is free for so long.
func (p profile) fit(need Amount, from, long time.Duration) time.Duration {
	k := len(p) - 1
	for k > 0 && p[k].at > from {
		k--
	}
	start := max(from, p[k].at)
	for ; k < len(p) && (p[k].at <= start || p[k].at-start < long); k++ {
		if need.Fits(p[k].free) {
			continue
		}
		if k+1 == len(p) {
			return never
		}
		start = p[k+1].at
	}
	return start
}

// at is what is free at a time.
func (p profile) at(t time.Duration) Amount {
	k := len(p) - 1
	for k > 0 && p[k].at > t {
		k--
	}
	return p[k].free
}

// take uses need from start for so long.
func (p *profile) take(need Amount, start, long time.Duration) {
	if need == (Amount{}) {
		return
	}
	end := never
	if long < never-start {
		end = start + max(long, 1)
	}
	first := p.split(start)
	last := len(*p)
	if end != never {
		last = p.split(end)
	}
	for k := first; k < last; k++ {
		(*p)[k].free = (*p)[k].free.Minus(need)
	}
}

// rising says whether slots only become free: nothing is booked for later.
func (p profile) rising() bool {
	for k := 1; k < len(p); k++ {
		if p[k].free.Slots < p[k-1].free.Slots {
			return false
		}
	}
	return true
}

// slots is when the first, second, … of at most n slots is free. The profile
// must be rising.
func (p profile) slots(n int) (out []time.Duration) {
	for _, s := range p {
		for int64(len(out)) < min(s.free.Slots, int64(n)) {
			out = append(out, s.at)
		}
	}
	return out
}
