package place

import (
	"cmp"
	"slices"
	"time"
)

// gangTimes is at how many times a gang is tried.
const gangTimes = 64

// gang is tasks that start together or not at all.
type gang struct {
	tasks []int
	lists [][]option // where each could run; nil in a large cluster
	wide  []int      // there: the devices where the first of them could, the shortest first
}

// gang places all tasks of a gang at one time, or none: now, or at the first
// time at which they all find room, which is booked for them, so that what is
// placed later does not take it. The gang waits until all its tasks are there.
func (r *round) gang(first int) {
	g := gang{tasks: []int{first}}
	job := r.tasks[first].ID.Job
	for _, i := range r.order.peek(job, r.tasks[first].Gang-1) {
		r.order.taken[i] = true
		g.tasks = append(g.tasks, i)
	}
	if len(g.tasks) < r.tasks[first].Gang {
		return
	}
	if !r.spread(&g) {
		for _, i := range g.tasks {
			r.hopeless(i)
		}
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
	tried := 0
	for _, at := range times {
		if r.roomAt(&g, at) < int64(len(g.tasks)) {
			continue
		}
		if tried++; r.gangAt(&g, at) || tried == gangTimes {
			return
		}
	}
}

// spread finds out where the tasks of a gang could run; false: some of them
// nowhere. A large cluster is looked through for the first of them only: the
// others follow it to wherever there is room, or go to their bytes.
func (r *round) spread(g *gang) bool {
	if len(r.devices) <= allDevices {
		for _, i := range g.tasks {
			list := r.options(nil, i)
			if len(list) == 0 {
				return false
			}
			g.lists = append(g.lists, list)
		}
		return true
	}
	var list []option
	for dev := range r.devices {
		list = r.consider(list, &r.tasks[g.tasks[0]], dev)
	}
	list = r.sift(list)
	slices.SortStableFunc(list, func(a, b option) int { return cmp.Compare(a.busy, b.busy) })
	for _, o := range list {
		g.wide = append(g.wide, o.dev)
	}
	return len(list) > 0
}

// roomAt is how many slots are free at a time where the first task of a gang could
// run.
func (r *round) roomAt(g *gang, at time.Duration) (n int64) {
	for _, dev := range g.wide {
		n += max(0, r.devices[dev].profile.at(at).Slots)
	}
	if g.lists != nil {
		for _, o := range g.lists[0] {
			n += max(0, r.devices[o.dev].profile.at(at).Slots)
		}
	}
	return n
}

// gangAt places a gang at a time, if all of it finds room then.
func (r *round) gangAt(g *gang, at time.Duration) bool {
	devices := make([]profile, len(r.devices))
	for i := range devices {
		devices[i] = slices.Clone(r.devices[i].profile)
	}
	pools := make([]profile, len(r.pools))
	for i := range pools {
		pools[i] = slices.Clone(r.pools[i])
	}
	begin := len(r.plan.Choices)
	full := 0 // so many of g.wide have no room any more
	for x, i := range g.tasks {
		t := &r.tasks[i]
		var list []option
		if g.lists != nil {
			list = g.lists[x]
		} else {
			for full < len(g.wide) && r.devices[g.wide[full]].profile.at(at).Slots <= 0 {
				full++
			}
			list = r.around(t, g.wide[full:], at)
		}
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

// around are places for a task of a gang in a large cluster: the hosts of its
// bytes, and some of wide that have a slot then.
func (r *round) around(t *Task, wide []int, at time.Duration) []option {
	var list []option
	for _, h := range t.Local {
		for _, dev := range r.byHost[h.Host] {
			list = r.consider(list, t, dev)
		}
	}
	found := 0
	for _, dev := range wide {
		if found == 2*soonest {
			break
		}
		if r.devices[dev].profile.at(at).Slots > 0 && !slices.ContainsFunc(list, func(o option) bool { return o.dev == dev }) {
			n := len(list)
			if list = r.consider(list, t, dev); len(list) > n {
				found++
			}
		}
	}
	return r.sift(list)
}
