package sim

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"math/rand"
	"slices"
	"time"

	"quernfs/offload/place"
	"quernfs/offload/place/predict"
)

// Run simulates a workload under a policy, until all tasks have finished or
// nothing more can start. Tasks that never start are counted in Result.Left.
func Run(w *Workload, p Policy) Result {
	c := newCluster(w, p)
	for len(c.events) > 0 {
		// What happens at one time is seen together.
		c.now = c.events[0].at
		for len(c.events) > 0 && c.events[0].at == c.now {
			c.happen(heap.Pop(&c.events).(event))
		}
		c.decide()
	}
	return c.result()
}

type cluster struct {
	w        *Workload
	policy   Policy
	rnd      *rand.Rand
	now      time.Duration
	events   events
	count    uint64
	agents   []place.Agent
	lost     []float64 // by agent: the true chance
	jobs     []*job    // that have arrived and have tasks waiting, by number
	all      map[uint64]*job
	learned  predict.Predictor
	finished []finish
	starts   []start
	moved    uint64
	retries  int
	end      time.Duration
	busy     time.Duration // of slots
}

type job struct {
	id      uint64
	spec    *Job
	kernel  *Kernel
	arrived time.Duration
	served  time.Duration // when a task was last started
	tasks   []place.Task
	waiting place.Queue
}

type finish struct{ error float64 } // of the predicted run time, relative

type start struct {
	user    string
	wait    time.Duration // from arrival
	elapsed time.Duration // from arrival to the end
}

// event is an arrival (job) or the end of an attempt.
type event struct {
	at    time.Duration
	order uint64
	job   *job
	done  *attempt
}

type attempt struct {
	job     *job
	n       uint32
	agent   int
	dev     int
	alt     int
	begun   time.Duration
	run     time.Duration // as it really is
	said    time.Duration // as predicted
	lost    bool
	need    place.Amount
	running place.Running
}

type events []event

func (h events) Len() int      { return len(h) }
func (h events) Swap(i, k int) { h[i], h[k] = h[k], h[i] }
func (h events) Less(i, k int) bool {
	return cmp.Or(cmp.Compare(h[i].at, h[k].at), cmp.Compare(h[i].order, h[k].order)) < 0
}
func (h *events) Push(x any) { *h = append(*h, x.(event)) }
func (h *events) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}

func (c *cluster) after(d time.Duration, e event) {
	c.count++
	e.at, e.order = c.now+d, c.count
	heap.Push(&c.events, e)
}

func newCluster(w *Workload, p Policy) *cluster {
	c := &cluster{w: w, policy: p, rnd: rand.New(rand.NewSource(w.Seed)), all: map[uint64]*job{}}
	for _, hs := range w.Hosts {
		for range hs.Count {
			a := place.Agent{Node: uint32(len(c.agents) + 1), Network: float64(hs.Network), Store: float64(hs.Store), Lost: hs.Lost}
			a.Host = fmt.Sprint("host-", a.Node)
			a.Capacity.Memory, a.Free.Memory = int64(hs.Memory), int64(hs.Memory)
			for k, d := range hs.Also {
				slots := place.Amount{Slots: int64(d.Slots)}
				a.Devices = append(a.Devices, place.Device{
					Name: fmt.Sprint(d.Class, ":", k), Class: d.Class, Runtimes: []string{d.Class}, Capacity: slots, Free: slots,
					Process: float64(d.Process), Speed: d.Speed, Warm: map[string]bool{},
				})
			}
			c.agents = append(c.agents, a)
			c.lost = append(c.lost, hs.Lost)
		}
	}
	for i := range w.Jobs {
		spec := &w.Jobs[i]
		kernel := w.Kernels[spec.Kernel]
		for k := range spec.Times {
			j := &job{spec: spec, kernel: &kernel}
			c.after(time.Duration(spec.At)+time.Duration(k)*time.Duration(spec.Every), event{job: j})
		}
	}
	return c
}

// happen takes over an event.
func (c *cluster) happen(e event) {
	if e.job != nil {
		c.arrive(e.job)
		return
	}
	a := e.done
	agent := &c.agents[a.agent]
	d := &agent.Devices[a.dev]
	d.Free.Slots++
	agent.Free.Memory += a.need.Memory
	d.Running = slices.DeleteFunc(d.Running, func(r place.Running) bool { return r == a.running })
	c.busy += c.now - a.begun
	if a.lost {
		c.retries++
		a.job.waiting.Put(a.job.tasks[a.n], true)
		c.list(a.job)
		return
	}
	c.end = c.now
	t := &a.job.tasks[a.n]
	alt := t.Alternatives[a.alt]
	d.Warm[alt.Kernel] = true
	c.finished = append(c.finished, finish{math.Abs(a.said.Seconds()-a.run.Seconds()) / a.run.Seconds()})
	c.starts = append(c.starts, start{t.User, a.begun - a.job.arrived, c.now - a.job.arrived})
	c.learned.Observe(predict.Key{Kernel: alt.Kernel, Class: d.Class}, t.Bytes, d.AtUnitSpeed(a.run), place.Default.Prior(alt, *d))
}

// arrive makes the tasks of a job.
func (c *cluster) arrive(j *job) {
	j.id = uint64(len(c.all) + 1)
	j.arrived, j.served = c.now, c.now
	c.all[j.id] = j
	var classes []string
	for class := range j.kernel.Classes {
		classes = append(classes, class)
	}
	slices.Sort(classes)
	var alts []place.Alternative
	for _, class := range classes {
		s := j.kernel.Classes[class]
		alt := place.Alternative{
			Runtime: class, Class: class, Kernel: j.spec.Kernel, WarmUp: time.Duration(s.Warm),
			Need: place.Amount{Slots: 1, Memory: int64(j.spec.Memory)},
		}
		if s.Hint {
			alt.Hint = predict.Hint{Fixed: time.Duration(s.Fixed), Rate: float64(s.Rate)}
		}
		alts = append(alts, alt)
	}
	for n := range j.spec.Tasks {
		t := place.Task{
			ID: place.ID{Job: j.id, N: uint32(n)}, User: j.spec.User, Alternatives: alts, Priority: j.spec.Priority, Share: j.spec.Share,
			Bytes: uint64(float64(j.spec.Bytes) * math.Pow(j.spec.Spread, 2*c.rnd.Float64()-1)),
		}
		t.Output = uint64(float64(t.Bytes) * j.kernel.Output)
		if j.spec.Gang {
			t.Gang = j.spec.Tasks
		}
		if j.spec.Makespan {
			t.Objective = place.Makespan
		}
		c.spread(&t, j.spec)
		j.tasks = append(j.tasks, t)
	}
	order := slices.Clone(j.tasks)
	if j.spec.Makespan { // the largest first
		slices.SortStableFunc(order, func(a, b place.Task) int { return cmp.Compare(b.Bytes, a.Bytes) })
	}
	for _, t := range order {
		j.waiting.Put(t, false)
	}
	c.list(j)
}

// spread says where a task's bytes lie.
func (c *cluster) spread(t *place.Task, spec *Job) {
	if t.Bytes == 0 {
		return
	}
	n := len(c.agents)
	if spec.Skew {
		n = max(1, n/4)
	}
	held := min(spec.Held, n)
	for _, i := range c.rnd.Perm(n)[:held] {
		t.Local = append(t.Local, place.Held{Host: c.agents[i].Host, Bytes: t.Bytes / uint64(held)})
	}
}

// list puts a job among those that wait.
func (c *cluster) list(j *job) {
	i, found := slices.BinarySearchFunc(c.jobs, j.id, func(x *job, id uint64) int { return cmp.Compare(x.id, id) })
	if !found {
		c.jobs = slices.Insert(c.jobs, i, j)
	}
}

// decide lets the policy start tasks, as long as it does.
func (c *cluster) decide() {
	for {
		free := 0
		var idle []string
		for i := range c.agents {
			n := 0
			for k := range c.agents[i].Devices {
				n += int(c.agents[i].Devices[k].Free.Slots)
			}
			if free += n; n > 0 {
				idle = append(idle, c.agents[i].Host)
			}
		}
		if free == 0 || len(c.jobs) == 0 {
			return
		}
		var tasks []place.Task
		var picked []*place.Task
		for _, j := range c.jobs {
			most := max(4*free, 32)
			if j.spec.Gang {
				most = j.waiting.Len()
			}
			for _, p := range j.waiting.Pick(picked[:0], most, idle, 2) {
				t := *p
				t.Age = c.now - j.served
				if t.Strict = j.spec.Locality == "strict"; j.spec.Locality == "any" {
					t.Local = nil
				}
				if t.Gang > 0 {
					t.Gang = j.waiting.Len() // those that were lost start again together
				}
				tasks = append(tasks, t)
			}
		}
		choices := c.policy.decide(tasks, c.snapshot(), place.Options{Model: place.Default, Fit: c.learned.Fit})
		if len(choices) == 0 {
			return
		}
		for i := range choices {
			c.start(&choices[i])
		}
		c.jobs = slices.DeleteFunc(c.jobs, func(j *job) bool { return j.waiting.Len() == 0 })
	}
}

// snapshot is the agents as the policy sees them: times from now on.
func (c *cluster) snapshot() []place.Agent {
	out := slices.Clone(c.agents)
	for i := range out {
		out[i].Devices = slices.Clone(out[i].Devices)
		for k := range out[i].Devices {
			d := &out[i].Devices[k]
			d.Running = slices.Clone(d.Running)
			for x := range d.Running {
				d.Running[x].Until = max(d.Running[x].Until-c.now, 10*time.Millisecond)
			}
		}
	}
	return out
}

// start begins an attempt: what it costs is fixed now, and known at its end.
func (c *cluster) start(choice *place.Choice) {
	j := c.all[choice.Task.Job]
	n := choice.Task.N
	t := &j.tasks[n]
	agent := int(choice.Node) - 1
	a := &c.agents[agent]
	dev := slices.IndexFunc(a.Devices, func(d place.Device) bool { return d.Name == choice.Device })
	d := &a.Devices[dev]
	alt := t.Alternatives[choice.Alt]
	speed := j.kernel.Classes[d.Class]

	local := uint64(0)
	for _, h := range t.Local {
		if h.Host == a.Host {
			local = h.Bytes
		}
	}
	missing := t.Bytes - min(local, t.Bytes)
	rest := seconds(float64(missing)/a.Network) + seconds(float64(t.Output)/a.Store)
	if !d.Warm[alt.Kernel] {
		rest += time.Duration(speed.Warm)
	}
	run := time.Duration(speed.Fixed).Seconds()
	if speed.Rate > 0 {
		run += float64(t.Bytes) / float64(speed.Rate)
	}
	run /= d.Speed
	run *= math.Exp(j.kernel.Scatter * c.rnd.NormFloat64())
	if c.rnd.Float64() < j.kernel.Stragglers {
		run *= 5
	}
	said := c.learned.Fit(predict.Key{Kernel: alt.Kernel, Class: d.Class}).Predict(t.Bytes, place.Default.Prior(alt, *d)).Median
	said = seconds(said.Seconds() / d.Speed)

	x := &attempt{job: j, n: n, agent: agent, dev: dev, alt: choice.Alt, begun: c.now, run: max(seconds(run), time.Millisecond), said: said, need: alt.Need}
	took := rest + x.run
	if c.rnd.Float64() < c.lost[agent] {
		x.lost = true
		took = time.Duration(float64(took) * c.rnd.Float64())
	}
	x.running = place.Running{Until: c.now + rest + said, Need: alt.Need, User: t.User, Job: j.id, Kernel: alt.Kernel}
	d.Running = append(d.Running, x.running)
	d.Free.Slots--
	a.Free.Memory -= alt.Need.Memory
	c.moved += missing
	j.served = c.now
	j.waiting.Take(n)
	c.after(max(took, time.Microsecond), event{done: x})
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
