package place

import (
	"cmp"
	"slices"
	"time"

	"quernfs/offload/place/predict"
)

// Options of a round. Zero values stand for what the comments say.
type Options struct {
	Model   Model                           // zero: nothing costs anything but the run
	Fit     func(k predict.Key) predict.Fit // what has been learned; nil: nothing
	Ageing  time.Duration                   // see fair; 0: ten minutes
	Weights map[string]float64              // of users; without one: 1
	Rows    int                             // of each choice's table; 0: no tables
	Window  int                             // tasks that are looked at; 0: by what is free
}

// Choice is what was decided of one task that was looked at.
type Choice struct {
	Task   ID
	Now    bool   // it starts now
	Node   uint32 // 0: nothing can run it
	Device string
	Alt    int // index into the task's Alternatives
	Cost   Cost
	Probe  bool  // it runs there to find out how long it takes
	Others []Row // the best Options.Rows places, this one included
}

// Row is one line of the table that was chosen from.
type Row struct {
	Node   uint32
	Host   string
	Device string
	Alt    int
	Cost   Cost
	Avoid  bool // it failed there before
}

// Plan is what a round has decided, in the order of fairness. Tasks that were
// not looked at are not in it: there was no room.
type Plan struct{ Choices []Choice }

// Starts are the tasks that start now.
func (p Plan) Starts() []Choice {
	var out []Choice
	for _, c := range p.Choices {
		if c.Now {
			out = append(out, c)
		}
	}
	return out
}

// Place decides which of the tasks start now, and where. The tasks of a job
// come in the order in which they are to be served, the jobs and agents in any.
func Place(tasks []Task, agents []Agent, o Options) Plan {
	r := newRound(tasks, agents, o)
	free := r.free()
	window := o.Window
	if window <= 0 {
		window = max(windowFactor*free, leastWindow)
	}
	for window > 0 {
		if free = r.free(); free <= 0 {
			break
		}
		batch := r.batch(min(free, window))
		if len(batch) == 0 {
			break
		}
		window -= len(batch)
		r.place(batch)
		r.unbook()
	}
	return r.plan
}

// Look says of the next tasks in the order of fairness, up to most, where they
// would go and when, whether anything is free now or not. Nothing starts.
func Look(tasks []Task, agents []Agent, most int, o Options) []Choice {
	r := newRound(tasks, agents, o)
	var batch []int
	for len(batch) < most {
		i, _, ok := r.order.next()
		if !ok {
			break
		}
		if r.tasks[i].Gang > 1 {
			r.gang(i)
			continue
		}
		batch = append(batch, i)
	}
	r.sparse(batch)
	for i := range r.plan.Choices {
		r.plan.Choices[i].Now = false
	}
	return r.plan.Choices
}

// Compare says what a task would cost at all places where it could run, the
// soonest end first, up to Options.Rows of them.
func Compare(t Task, agents []Agent, o Options) []Row {
	r := newRound([]Task{t}, agents, o)
	var list []option
	for dev := range r.devices {
		list = r.consider(list, &r.tasks[0], dev)
	}
	r.look(&r.tasks[0], list)
	slices.SortStableFunc(list, func(a, b option) int { return cmp.Compare(end(a.start, a.busy), end(b.start, b.busy)) })
	return r.table(list)
}

const (
	// So many times the free slots are looked at: some of the tasks would rather
	// wait for a device that is busy.
	windowFactor = 2
	leastWindow  = 32
	mostFurther  = 256 // tasks that are placed with those that are due
	ageing       = 10 * time.Minute
)

// round is the state of one call of Place.
type round struct {
	o       Options
	tasks   []Task
	agents  []Agent
	pools   []profile // of each agent: CPU and Memory
	devices []device
	byHost  map[string][]int // devices
	classes map[string]int
	ranks   []*rank // by class: its devices, the soonest free first
	kernels map[string]int
	fits    []predict.Fit // by kernel and class
	fitted  []bool
	probing map[predict.Key]bool // a task runs there to find out
	order   *fair
	quota   map[uint64]int // of each job of the batch: how many of its tasks may start now
	extra   map[int]bool   // tasks of the batch that are not due
	shadow  []booking      // of these
	plan    Plan
}

// device is a device in a round.
type device struct {
	*Device
	agent   *Agent
	pool    int
	class   int
	profile profile
	key     rankKey
	pos     int    // in its rank
	most    Amount // what a task may need: the device's and the host's whole
}

func newRound(tasks []Task, agents []Agent, o Options) *round {
	if o.Ageing <= 0 {
		o.Ageing = ageing
	}
	r := &round{
		o: o, tasks: tasks, agents: slices.Clone(agents), byHost: map[string][]int{}, classes: map[string]int{},
		kernels: map[string]int{}, probing: map[predict.Key]bool{},
	}
	slices.SortFunc(r.agents, func(a, b Agent) int { return cmp.Compare(a.Node, b.Node) })
	for i := range r.agents {
		a := &r.agents[i]
		var running []Running
		for k := range a.Devices {
			d := &a.Devices[k]
			running = append(running, d.Running...)
			for _, x := range d.Running {
				r.probing[predict.Key{Kernel: x.Kernel, Class: d.Class}] = true
			}
			if d.Quarantined {
				continue
			}
			class, known := r.classes[d.Class]
			if !known {
				class = len(r.classes)
				r.classes[d.Class] = class
				r.ranks = append(r.ranks, nil)
			}
			r.byHost[a.Host] = append(r.byHost[a.Host], len(r.devices))
			r.devices = append(r.devices, device{
				Device: d, agent: a, pool: i, class: class, profile: newProfile(d.Free, d.Running, Amount.device),
				most: d.Capacity.Plus(a.Capacity.told().host()),
			})
		}
		r.pools = append(r.pools, r.pool(a, running))
	}
	for class := range r.ranks {
		r.ranks[class] = &rank{devices: r.devices}
	}
	for i := range r.devices {
		r.ranks[r.devices[i].class].add(i)
	}
	r.order = newFair(tasks, r.agents, o.Ageing, o.Weights)
	return r
}

// pool is the profile of what the devices of an agent share.
func (r *round) pool(a *Agent, running []Running) profile {
	free := a.Free.host()
	if a.Capacity.CPU == 0 {
		free.CPU = unlimited
	}
	if a.Capacity.Memory == 0 {
		free.Memory = unlimited
	}
	return newProfile(free, running, Amount.host)
}

// free is how many slots are free now.
func (r *round) free() (n int) {
	for i := range r.devices {
		n += int(max(0, r.devices[i].profile[0].free.Slots))
	}
	return n
}

// batch takes the next tasks in the order of fairness.
func (r *round) batch(n int) (tasks []int) {
	for len(tasks) < n {
		i, left, ok := r.order.next()
		if !ok {
			break
		}
		t := &r.tasks[i]
		switch {
		case t.Gang > 1:
			r.gang(i)
		case r.probe(i, left):
		default:
			tasks = append(tasks, i)
		}
	}
	return tasks
}

// place decides for a batch, each objective on its own. Fairness says how many
// tasks of each job are due; which of its tasks they are is open: so further
// tasks of the job are placed with them, and those start that lose most if they
// do not.
func (r *round) place(batch []int) {
	r.quota, r.extra = map[uint64]int{}, map[int]bool{}
	var sum []int
	var jobs, spans []uint64
	byJob := map[uint64][]int{}
	for _, i := range batch {
		t := &r.tasks[i]
		if r.quota[t.ID.Job]++; r.quota[t.ID.Job] == 1 {
			if t.Objective == Makespan {
				spans = append(spans, t.ID.Job)
			} else {
				jobs = append(jobs, t.ID.Job)
			}
		}
		if t.Objective == Makespan {
			byJob[t.ID.Job] = append(byJob[t.ID.Job], i)
		} else {
			sum = append(sum, i)
		}
	}
	for _, j := range spans {
		r.span(byJob[j])
	}
	if len(sum) == 0 {
		return
	}
	due := len(sum)
	each := min(max(len(sum), leastWindow), mostFurther) / len(jobs)
	for _, j := range jobs {
		for _, i := range r.further(j, each) {
			r.extra[i] = true
			sum = append(sum, i)
		}
	}
	// Of one job the exact solution may start any tasks; of several it would
	// rather start the short ones of all than those that are due.
	if len(jobs) > 1 && len(sum) > due || !r.dense(sum, due) {
		r.sparse(sum)
	}
}

// further is up to n more tasks of a job: first those with bytes on a host that
// has room now, then the next in order.
func (r *round) further(job uint64, n int) (out []int) {
	list := r.order.peek(job, max(8*n, 256))
	for _, i := range list {
		if len(out) < n && slices.ContainsFunc(r.tasks[i].Local, func(h Held) bool { return r.room(h.Host) }) {
			out = append(out, i)
		}
	}
	for _, i := range list {
		if len(out) < n && !slices.Contains(out, i) {
			out = append(out, i)
		}
	}
	return out
}

// room says whether a device of a host has a free slot.
func (r *round) room(host string) bool {
	return slices.ContainsFunc(r.byHost[host], func(dev int) bool { return r.devices[dev].profile[0].free.Slots > 0 })
}

// wait is when a device, and its host, have room for a task for so long.
func (r *round) wait(dev int, need Amount, long time.Duration) time.Duration {
	d := &r.devices[dev]
	onDevice, onHost := need.device(), need.host()
	if onHost == (Amount{}) {
		return d.profile.fit(onDevice, 0, long)
	}
	for at := time.Duration(0); ; {
		next := d.profile.fit(onDevice, at, long)
		if next != never {
			next = r.pools[d.pool].fit(onHost, next, long)
		}
		if next == at || next == never {
			return next
		}
		at = next
	}
}

// book notes that a task uses a device.
func (r *round) book(dev int, need Amount, start, long time.Duration) {
	d := &r.devices[dev]
	d.profile.take(need.device(), start, long)
	r.pools[d.pool].take(need.host(), start, long)
	r.ranks[d.class].moved(dev)
}

// decide notes the choice for a task, and books its place. A task that could
// start but is one too many of its job stays as it is.
func (r *round) decide(task int, o option, start time.Duration, rows []Row) {
	t := &r.tasks[task]
	alt := &t.Alternatives[o.alt]
	d := &r.devices[o.dev]
	if start == 0 && t.Gang <= 1 {
		if left, limited := r.quota[t.ID.Job]; limited && left == 0 {
			return
		} else if limited {
			r.quota[t.ID.Job]--
		}
	}
	r.order.taken[task] = true // it is not looked at again in this round
	o.cost.Wait = start
	r.book(o.dev, alt.need(), start, o.busy)
	r.plan.Choices = append(r.plan.Choices, Choice{
		Task: t.ID, Now: start == 0, Node: d.agent.Node, Device: d.Name, Alt: o.alt, Cost: o.cost, Others: rows,
	})
	if start > 0 && r.extra[task] {
		r.shadow = append(r.shadow, booking{o.dev, alt.need(), start, o.busy})
	}
}

// booking is a place that was booked.
type booking struct {
	dev   int
	need  Amount
	start time.Duration
	long  time.Duration
}

// unbook frees what tasks of a batch have booked for later that are not due: they
// only showed each other the way.
func (r *round) unbook() {
	for _, b := range r.shadow {
		r.book(b.dev, Amount{}.Minus(b.need), b.start, b.long)
	}
	r.shadow = r.shadow[:0]
}

// hopeless notes that nothing can run a task.
func (r *round) hopeless(task int) {
	r.plan.Choices = append(r.plan.Choices, Choice{Task: r.tasks[task].ID})
}
