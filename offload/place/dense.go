package place

import (
	"cmp"
	"math"
	"slices"
	"time"

	"quernfs/offload/place/assign"
)

// Up to denseCells pairs of task and slot a batch is solved as a matrix. What
// that may cost is in proportion to the tasks that are due: up to exactSteps for
// each (tasks³ · slots) it is solved exactly, up to searchCells (pairs) by
// sufferage and local search.
const (
	denseCells  = 4096
	exactSteps  = 1 << 15
	searchCells = 256
)

// matrix is a batch as a problem of package assign: a column is one slot of a
// device.
type matrix struct {
	tasks   []int
	slots   []slot
	options [][]option // by task and device
	problem assign.Problem
}

type slot struct {
	dev   int
	ready time.Duration
}

// matrix makes the problem of a batch; ok is false if it is too large, if a
// task needs anything else than one slot, or if something is booked for later.
func (r *round) matrix(batch []int) (m matrix, ok bool) {
	if len(r.devices) > allDevices {
		return m, false
	}
	for _, i := range batch {
		for k := range r.tasks[i].Alternatives {
			if r.tasks[i].Alternatives[k].need() != OneSlot {
				return m, false
			}
		}
	}
	for dev := range r.devices {
		if !r.devices[dev].profile.rising() {
			return m, false // gaps before what is booked would be lost
		}
		for _, at := range r.devices[dev].profile.slots(len(batch)) {
			m.slots = append(m.slots, slot{dev, at})
			m.problem.Ready = append(m.problem.Ready, at.Seconds())
		}
		if len(m.slots)*len(batch) > denseCells {
			return m, false
		}
	}
	for _, i := range batch {
		list := r.options(nil, i)
		if len(list) == 0 {
			r.hopeless(i)
			continue
		}
		byDev := make([]option, len(r.devices))
		for d := range byDev {
			byDev[d].alt = -1
		}
		for _, o := range list {
			byDev[o.dev] = o
		}
		run := make([]float64, len(m.slots))
		for s := range run {
			run[s] = math.Inf(1)
			if o := byDev[m.slots[s].dev]; o.alt >= 0 {
				run[s] = o.busy.Seconds()
			}
		}
		m.tasks, m.options, m.problem.Run = append(m.tasks, i), append(m.options, byDev), append(m.problem.Run, run)
	}
	return m, true
}

// dense places a batch, so many tasks of which are due, as a matrix for the least
// sum, if it can be one.
func (r *round) dense(batch []int, due int) bool {
	n := len(batch)
	slots := 0
	for dev := range r.devices {
		slots += int(min(r.devices[dev].Capacity.Slots, int64(n)))
	}
	exact := n*n*n*slots <= due*exactSteps
	if !exact && n*slots > due*searchCells {
		return false
	}
	m, ok := r.matrix(batch)
	if !ok {
		return false
	}
	var s assign.Schedule
	if exact {
		s = m.problem.Completion()
	} else {
		s = m.problem.Improve(m.problem.Sufferage(), 3)
	}
	s = m.even(s)
	tables := make([][]Row, len(m.tasks))
	for k := range m.tasks {
		tables[k] = r.tableOf(m, k)
	}
	for c, rows := range s {
		at := m.slots[c].ready
		for _, k := range rows {
			o := m.options[k][m.slots[c].dev]
			r.decide(m.tasks[k], o, at, tables[k])
			at += o.busy
		}
	}
	return true
}

// even spreads columns over the devices that are alike in this problem: a
// schedule is as good on one as on the other, but a host of which one slot is
// used runs faster than one of which all are.
func (m matrix) even(s assign.Schedule) assign.Schedule {
	// A column may take another's place if it is ready at the same time and all
	// of its rows run as long there.
	used := map[int]int{}
	for c := range s {
		if len(s[c]) > 0 {
			used[m.slots[c].dev]++
		}
	}
	for c := range s {
		if len(s[c]) == 0 || used[m.slots[c].dev] < 2 {
			continue
		}
		for e := range s {
			here, there := m.slots[c], m.slots[e]
			if len(s[e]) > 0 || here.ready != there.ready || used[there.dev]+1 >= used[here.dev] {
				continue
			}
			same := !slices.ContainsFunc(s[c], func(k int) bool { return m.problem.Run[k][c] != m.problem.Run[k][e] })
			if same {
				s[e], s[c] = s[c], nil
				used[there.dev]++
				used[here.dev]--
				break
			}
		}
	}
	return s
}

// Of one job so many tasks are balanced at once, for each that is due, with so
// many steps of assign.LowerBound.
const (
	spanTasks = 16
	spanMost  = 128
	spanSteps = 10
)

// span places tasks of one job whose last finish counts. As many of its further
// tasks as can be are balanced with them, and of all those the longest that
// come first at a free slot are started: as many as there are tasks in the
// batch, which is what fairness allows.
func (r *round) span(batch []int) {
	job := r.tasks[batch[0]].ID.Job
	all := append(slices.Clone(batch), r.order.peek(job, min(spanTasks*len(batch), spanMost)-len(batch))...)
	m, ok := r.matrix(all)
	for !ok && len(all) > len(batch) {
		all = all[:max(len(batch), len(all)/2)]
		m, ok = r.matrix(all)
	}
	if !ok {
		r.sparse(batch)
		return
	}
	s := m.even(m.problem.Makespan(min(spanSteps*len(batch), 100)))
	type start struct {
		k, c int
		run  float64
	}
	var starts []start
	for c, rows := range s {
		if m.slots[c].ready == 0 && len(rows) > 0 {
			starts = append(starts, start{rows[0], c, m.problem.Run[rows[0]][c]})
		}
	}
	slices.SortFunc(starts, func(a, b start) int { return cmp.Or(cmp.Compare(b.run, a.run), cmp.Compare(a.k, b.k)) })
	for _, x := range starts[:min(len(starts), len(batch))] {
		o := m.options[x.k][m.slots[x.c].dev]
		r.decide(m.tasks[x.k], o, 0, r.tableOf(m, x.k))
	}
}

// tableOf is the table of a task of a matrix, as of now.
func (r *round) tableOf(m matrix, k int) []Row {
	if r.o.Rows <= 0 {
		return nil
	}
	list := slices.DeleteFunc(slices.Clone(m.options[k]), func(o option) bool { return o.alt < 0 })
	r.look(&r.tasks[m.tasks[k]], list)
	return r.table(list)
}
