package place

import (
	"math"
	"slices"
	"time"

	"quernfs/offload/place/predict"
)

// option is one place where a task could run. cost has no Wait; start is when it
// could begin there as of when it was last looked up.
type option struct {
	dev, alt int
	avoid    int // how much speaks against it: 0, or the task failed there
	start    time.Duration
	busy     time.Duration // cost.Busy()
	cost     Cost
}

// In a cluster of up to allDevices every device is looked at for every task; in
// a larger one those on hosts that hold some of its input, and of each class
// the soonest.
const (
	allDevices = 64
	soonest    = 2
)

// options appends where a task could run. Places where it failed are there only
// if there is no other.
func (r *round) options(out []option, task int) []option {
	t := &r.tasks[task]
	begin := len(out)
	if len(r.devices) <= allDevices {
		for dev := range r.devices {
			out = r.consider(out, t, dev)
		}
	} else if t.Nodes != nil && len(t.Nodes) <= allDevices {
		for dev := range r.devices {
			if t.Nodes[r.devices[dev].agent.Node] {
				out = r.consider(out, t, dev)
			}
		}
	} else {
		for _, h := range t.Local {
			for _, dev := range r.byHost[h.Host] {
				out = r.consider(out, t, dev)
			}
		}
		if !t.Strict {
			for class := range r.ranks {
				out = r.nearest(out, begin, t, class)
			}
		}
	}
	return out[:begin+len(r.sift(out[begin:]))]
}

// nearest appends the soonest of a class that the task may use.
func (r *round) nearest(out []option, begin int, t *Task, class int) []option {
	found := 0
	r.ranks[class].each(func(dev int) bool {
		for k := begin; k < len(out); k++ {
			if out[k].dev == dev {
				return true
			}
		}
		n := len(out)
		if out = r.consider(out, t, dev); len(out) > n {
			found++
		}
		return found < soonest
	})
	return out
}

// sift drops places where the task failed, unless there is no other, and
// places of which nothing is known while a probe is under way there, unless
// nothing is known of any.
func (r *round) sift(list []option) []option {
	least := math.MaxInt
	for k := range list {
		least = min(least, list[k].avoid)
	}
	list = prefer(list, func(o *option) bool { return o.avoid == least })
	return prefer(list, func(o *option) bool { return o.cost.Source != predict.Guessed })
}

// prefer keeps those that are good, if there are any; else all.
func prefer(list []option, good func(*option) bool) []option {
	n := 0
	for k := range list {
		if good(&list[k]) {
			n++
		}
	}
	if n == 0 || n == len(list) {
		return list
	}
	n = 0
	for k := range list {
		if good(&list[k]) {
			list[n] = list[k]
			n++
		}
	}
	return list[:n]
}

// consider appends the best alternative of a task on a device, if there is one.
func (r *round) consider(out []option, t *Task, dev int) []option {
	d := &r.devices[dev]
	if d.Simulated && !t.Simulated || t.Nodes != nil && !t.Nodes[d.agent.Node] || t.Strict && !t.Nearest(d.agent.Host) {
		return out
	}
	n := len(out)
	for k := range t.Alternatives {
		alt := &t.Alternatives[k]
		if !alt.runsOn(d.Device) || !alt.need().Fits(d.most) {
			continue
		}
		out = append(out, option{dev: dev, alt: k})
		o := &out[len(out)-1]
		if slices.Contains(t.Avoid, d.agent.Node) {
			o.avoid++
		}
		if slices.Contains(t.Shun, alt.Runtime) {
			o.avoid++
		}
		o.cost = r.o.Model.estimate(t, alt, d.agent, d.Device, r.fit(alt.Kernel, dev))
		o.busy = o.cost.Busy()
		if t.Ordered {
			o.busy += o.busy * time.Duration(k*preferPercent) / 100
		}
		if len(out) == n+2 { // the second: one of them goes
			if o.better(&out[n]) {
				out[n] = *o
			}
			out = out[:n+1]
		}
	}
	return out
}

// preferPercent is how much sooner a task must end with an alternative than with
// the one before it, where their order is the user's.
const preferPercent = 2

// better prefers what did not fail, then what is known, then what is shorter.
func (o *option) better(than *option) bool {
	if o.avoid != than.avoid {
		return o.avoid < than.avoid
	}
	if a, b := o.cost.Source == predict.Guessed, than.cost.Source == predict.Guessed; a != b {
		return b
	}
	return o.busy < than.busy
}

func (a *Alternative) runsOn(d *Device) bool {
	return (a.Class == "" || a.Class == d.Class) && slices.Contains(d.Runtimes, a.Runtime) && !d.Differs[a.Digest]
}

// Nearest says whether a host holds as much of the task's input as any.
func (t *Task) Nearest(host string) bool {
	mine := t.held(host)
	for _, h := range t.Local {
		if h.Bytes > mine {
			return false
		}
	}
	return true
}

// fit is what is known of a kernel on a device's class; asked for once a round.
func (r *round) fit(kernel string, dev int) predict.Fit {
	if r.o.Fit == nil {
		return predict.Fit{}
	}
	k, known := r.kernels[kernel]
	if !known {
		k = len(r.kernels)
		r.kernels[kernel] = k
		r.fits = append(r.fits, make([]predict.Fit, len(r.classes))...)
		r.fitted = append(r.fitted, make([]bool, len(r.classes))...)
	}
	at := k*len(r.classes) + r.devices[dev].class
	if !r.fitted[at] {
		r.fits[at], r.fitted[at] = r.o.Fit(predict.Key{Kernel: kernel, Class: r.devices[dev].Class}), true
	}
	return r.fits[at]
}

// probeFrom is how many tasks of a job must be left for a probe to be worth it.
const probeFrom = 8

// probe places a task where nothing is known of its kernel, while elsewhere
// something is: one at a time for each kernel and class, where there is room
// now. Few tasks are not worth it, unless the user prefers what is not known.
func (r *round) probe(task, left int) bool {
	t := &r.tasks[task]
	if t.Strict || left < probeFrom && !t.Ordered {
		return false
	}
	known, first := false, len(t.Alternatives)
	var found *option
	for class := range r.ranks {
		r.ranks[class].each(func(dev int) bool {
			list := r.consider(nil, t, dev)
			if len(list) == 0 || list[0].avoid > 0 {
				return true
			}
			o := list[0]
			if o.cost.Source != predict.Guessed {
				known, first = true, min(first, o.alt)
			} else if found == nil && !r.probing[r.key(t, o)] && r.wait(dev, t.Alternatives[o.alt].need(), o.busy) == 0 {
				found = &o
			}
			return false
		})
	}
	if !known || found == nil || left < probeFrom && found.alt > first {
		return false
	}
	r.probing[r.key(t, *found)] = true
	r.decide(task, *found, 0, r.probeTable(task, *found))
	r.plan.Choices[len(r.plan.Choices)-1].Probe = true
	return true
}

// probeTable is the table of a probe: first what it tries.
func (r *round) probeTable(task int, found option) []Row {
	if r.o.Rows <= 0 {
		return nil
	}
	list := r.options(nil, task)
	r.look(&r.tasks[task], list)
	rows := r.table([]option{found})
	for _, row := range r.table(list) {
		if len(rows) < r.o.Rows && (row.Node != rows[0].Node || row.Device != rows[0].Device) {
			rows = append(rows, row)
		}
	}
	return rows
}

func (r *round) key(t *Task, o option) predict.Key {
	return predict.Key{Kernel: t.Alternatives[o.alt].Kernel, Class: r.devices[o.dev].Class}
}

// look fills in when each option could start, as of now.
func (r *round) look(t *Task, list []option) {
	for k := range list {
		o := &list[k]
		o.start = r.wait(o.dev, t.Alternatives[o.alt].need(), o.busy)
	}
}

// table is the best Options.Rows of list as rows, the best first, without those
// that never have room. The options have been looked at.
func (r *round) table(list []option) []Row {
	possible := 0
	for k := range list {
		if list[k].start != never {
			possible++
		}
	}
	n := min(r.o.Rows, possible)
	if n <= 0 {
		return nil
	}
	rows := make([]Row, 0, n)
	last := -1
	for range n {
		best := -1
		for k := range list {
			if (best < 0 || list[k].sooner(&list[best], k, best)) && (last < 0 || list[last].sooner(&list[k], last, k)) {
				best = k
			}
		}
		o := &list[best]
		d := &r.devices[o.dev]
		row := Row{Node: d.agent.Node, Host: d.agent.Host, Device: d.Name, Alt: o.alt, Cost: o.cost, Avoid: o.avoid > 0}
		row.Cost.Wait = o.start
		rows = append(rows, row)
		last = best
	}
	return rows
}

// sooner orders options by their end, then by their place in the list.
func (o *option) sooner(than *option, k, kThan int) bool {
	a, b := end(o.start, o.busy), end(than.start, than.busy)
	return a < b || a == b && k < kThan
}

// end is start + long; never stays never.
func end(start, long time.Duration) time.Duration {
	if start == never || long > never-start {
		return never
	}
	return start + long
}

// MayRun says whether an agent could ever run a task, as far as its devices go.
func (t *Task) MayRun(a *Agent) bool {
	return slices.ContainsFunc(a.Devices, func(d Device) bool { return t.mayUse(a, &d) })
}

// Room is how many such tasks an agent could begin now, by its free slots.
func (t *Task) Room(a *Agent) (n int64) {
	for i := range a.Devices {
		if d := &a.Devices[i]; t.mayUse(a, d) {
			n += d.Free.Slots
		}
	}
	return n
}

func (t *Task) mayUse(a *Agent, d *Device) bool {
	if d.Simulated && !t.Simulated || t.Nodes != nil && !t.Nodes[a.Node] || t.Strict && !t.Nearest(a.Host) {
		return false
	}
	return slices.ContainsFunc(t.Alternatives, func(x Alternative) bool { return x.runsOn(d) && !d.Quarantined })
}
