package place

import (
	"slices"
	"time"
)

// gangTimes is at how many times a gang is tried.
const gangTimes = 64

// gang places all tasks of a gang at one time, or none: now, or at the first
// time at which they all find room, which is booked for them, so that what is
// placed later does not take it. The gang waits until all its tasks are there.
func (r *round) gang(first int) {
	all := []int{first}
	job := r.tasks[first].ID.Job
	for _, i := range r.order.peek(job, r.tasks[first].Gang-1) {
		r.order.taken[i] = true
		all = append(all, i)
	}
	if len(all) < r.tasks[first].Gang {
		return
	}
	times := []time.Duration{0}
	for i := range r.devices {
		for _, s := range r.devices[i].profile {
			times = append(times, s.at)
		}
	}
	for _, p := range r.pools {
		for _, s := range p {
			times = append(times, s.at)
		}
	}
	slices.Sort(times)
	times = slices.Compact(times)
	for _, at := range times[:min(len(times), gangTimes)] {
		if r.gangAt(all, at) {
			return
		}
	}
	for _, i := range all {
		if len(r.options(nil, i)) == 0 {
			r.hopeless(i)
		}
	}
}

// gangAt places a gang at a time, if all of it finds room then.
func (r *round) gangAt(all []int, at time.Duration) bool {
	devices := make([]profile, len(r.devices))
	for i := range devices {
		devices[i] = slices.Clone(r.devices[i].profile)
	}
	pools := make([]profile, len(r.pools))
	for i := range pools {
		pools[i] = slices.Clone(r.pools[i])
	}
	begin := len(r.plan.Choices)
	for _, i := range all {
		t := &r.tasks[i]
		list := r.options(nil, i)
		best := -1
		for k, o := range list {
			need, long := t.Alternatives[o.alt].need(), o.busy
			d := &r.devices[o.dev]
			if d.profile.fit(need.device(), at, long) != at || need.host() != (Amount{}) && r.pools[d.pool].fit(need.host(), at, long) != at {
				continue
			}
			if best < 0 || long < list[best].busy || long == list[best].busy && r.before(o.dev, list[best].dev) {
				best = k
			}
		}
		if best < 0 {
			for k := range r.devices {
				r.devices[k].profile = devices[k]
				r.ranks[r.devices[k].class].moved(k)
			}
			r.pools = pools
			r.plan.Choices = r.plan.Choices[:begin]
			return false
		}
		r.look(t, list)
		r.decide(i, list[best], at, r.table(list))
	}
	return true
}
