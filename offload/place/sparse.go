package place

import (
	"cmp"
	"container/heap"
	"time"
)

// wish is a task of a batch with its best place as of when it was looked at.
type wish struct {
	task  int
	order int // in the batch
	best  option
	loss  time.Duration // how much later it would end without that place
}

// sparse places a batch by sufferage over each task's candidates: the task that
// would lose most without its best place gets it. What a task would lose is
// looked up again when its turn comes, since places fill up meanwhile. Then
// pairs of tasks change places where that is less in all.
func (r *round) sparse(batch []int) {
	wishes := make(wishHeap, len(batch))
	for k, i := range batch {
		wishes[k] = wish{task: i, order: k, loss: r.atStake(i)}
	}
	heap.Init(&wishes)
	var scratch []option
	begin := len(r.plan.Choices)
	for len(wishes) > 0 {
		w := &wishes[0]
		scratch = r.options(scratch[:0], w.task)
		fresh, ok := r.wish(w.task, scratch)
		if !ok {
			r.hopeless(w.task)
			heap.Pop(&wishes)
			continue
		}
		fresh.order = w.order
		if fresh.loss < w.loss && len(wishes) > 1 {
			*w = fresh
			if heap.Fix(&wishes, 0); wishes[0].order != fresh.order {
				continue
			}
		}
		r.decide(fresh.task, fresh.best, fresh.best.start, r.table(scratch))
		heap.Pop(&wishes)
	}
	r.exchange(r.plan.Choices[begin:], batch)
}

// atStake is a first idea of what a task loses without its best place: the time
// that the largest part of its input is on the way.
func (r *round) atStake(task int) time.Duration {
	most := uint64(0)
	for _, h := range r.tasks[task].Local {
		most = max(most, h.Bytes)
	}
	return span(most, r.o.Model.Network)
}

// wish is where a task ends first. The options are looked at.
func (r *round) wish(task int, list []option) (w wish, ok bool) {
	w.task = task
	r.look(&r.tasks[task], list)
	best, first, second := -1, never, never
	for k := range list {
		o := &list[k]
		switch e := end(o.start, o.busy); {
		case e == never:
		case e < first || e == first && (o.alt < list[best].alt || o.alt == list[best].alt && r.before(o.dev, list[best].dev)):
			best, first, second = k, e, first
		case e < second:
			second = e
		}
	}
	if best < 0 {
		return w, false
	}
	w.best, w.loss = list[best], second-first
	return w, true
}

// before breaks a tie between two devices: the one with fewer slots taken.
func (r *round) before(a, b int) bool {
	x, y := r.devices[a].key.used, r.devices[b].key.used
	return x < y || x == y && a < b
}

type wishHeap []wish

func (h wishHeap) Len() int      { return len(h) }
func (h wishHeap) Swap(i, k int) { h[i], h[k] = h[k], h[i] }
func (h wishHeap) Less(i, k int) bool {
	return cmp.Or(cmp.Compare(h[k].loss, h[i].loss), cmp.Compare(h[i].order, h[k].order)) < 0
}
func (h *wishHeap) Push(x any) { *h = append(*h, x.(wish)) }
func (h *wishHeap) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}

// worthPercent is how much sooner a task must end elsewhere for an exchange to
// be looked for.
const worthPercent = 10

// exchange lets two tasks that start now and need the same change places where
// that makes the sum of their times less: one pass, each task that does not have
// its bytes with those on hosts that hold some of them.
func (r *round) exchange(choices []Choice, batch []int) {
	byID := make(map[ID]int, len(batch))
	for _, i := range batch {
		byID[r.tasks[i].ID] = i
	}
	devOf := make(map[placeKey]int, len(r.devices))
	for dev := range r.devices {
		devOf[placeKey{r.devices[dev].agent.Node, r.devices[dev].Name}] = dev
	}
	on := make([][]int, len(r.devices)) // choices
	for k := range choices {
		if c := &choices[k]; c.Now {
			dev := devOf[placeKey{c.Node, c.Device}]
			on[dev] = append(on[dev], k)
		}
	}
	for k := range choices {
		c := &choices[k]
		if !c.Now || c.Cost.Missing == 0 {
			continue
		}
		t := &r.tasks[byID[c.Task]]
		from := devOf[placeKey{c.Node, c.Device}]
		best := swap{other: -1}
		for _, h := range t.Local {
			for _, dev := range r.byHost[h.Host] {
				if dev == from || len(on[dev]) == 0 {
					continue
				}
				mine := r.one(t, dev)
				if mine.alt < 0 || mine.busy >= c.Cost.Busy()*(100-worthPercent)/100 {
					continue
				}
				for _, m := range on[dev] {
					other := &choices[m]
					u := &r.tasks[byID[other.Task]]
					theirs := r.one(u, from)
					if theirs.alt < 0 || !alike(t.Alternatives[c.Alt], t.Alternatives[mine.alt], u.Alternatives[other.Alt], u.Alternatives[theirs.alt]) {
						continue
					}
					if gain := c.Cost.Busy() + other.Cost.Busy() - mine.busy - theirs.busy; gain > best.gain {
						best = swap{gain, m, mine, theirs}
					}
				}
			}
		}
		if best.other < 0 {
			continue
		}
		r.move(c, best.mine)
		r.move(&choices[best.other], best.theirs)
		replace(on[from], k, best.other)
		replace(on[best.mine.dev], best.other, k)
	}
}

type swap struct {
	gain         time.Duration
	other        int // choice
	mine, theirs option
}

// move gives a choice that starts now another place.
func (r *round) move(c *Choice, to option) {
	d := &r.devices[to.dev]
	c.Node, c.Device, c.Alt, c.Cost = d.agent.Node, d.Name, to.alt, to.cost
}

// alike says whether all need the same.
func alike(list ...Alternative) bool {
	for k := range list {
		if list[k].need() != list[0].need() {
			return false
		}
	}
	return true
}

type placeKey struct {
	node uint32
	name string
}

// one is the option of a task on a device; alt is -1 if there is none or it
// failed there.
func (r *round) one(t *Task, dev int) option {
	var buf [1]option
	if list := r.consider(buf[:0], t, dev); len(list) > 0 && list[0].avoid == 0 {
		return list[0]
	}
	return option{alt: -1}
}

func replace(list []int, old, by int) {
	for i := range list {
		if list[i] == old {
			list[i] = by
		}
	}
}
