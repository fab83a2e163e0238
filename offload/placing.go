package offload

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/place"
	"quernfs/offload/place/predict"
)

// classCPU is the class of what runs on a host's processors.
const classCPU = "cpu"

// learnedSource is how a record says that a prediction is learned.
var learnedSource = predict.Learned.String()

// placeRows is how many places a task's record names.
const placeRows = 4

// kernelOfTask is what a task runs.
func kernelOfTask(job *wire.Job, phase string) *wire.KernelRef {
	switch {
	case len(job.Kernels) == 0:
		return nil
	case phase == "reduce":
		return job.Kernels[len(job.Kernels)-1]
	}
	return job.Kernels[0]
}

// alternatives are the ways to run a task of a job: each variant of its kernel
// that may be used, the preferred one first.
func (t *term) alternatives(j *jobState, phase string) []place.Alternative {
	out := slices.Clone(j.alternatives(phase))
	for i := range out {
		out[i].WarmUp, _ = t.s.known.expect(out[i].Kernel)
		if out[i].Runtime == jobfile.RuntimeFPGA {
			// What the model of the same circuit has taken is better than a promise.
			if rate := t.s.known.circuit(variantKey(kernelOfTask(j.job, phase), jobfile.RuntimeRTL)); rate > 0 {
				out[i].Hint.Rate = rate
			}
		}
	}
	if t.allDiffer(out) {
		// Nothing else will come of it, and the host says best what is wrong.
		for i := range out {
			out[i].Digest = ""
		}
	}
	return out
}

// allDiffer: there are devices for the variants, and on each of them the variant's
// results are wrong. mu is held.
func (t *term) allDiffer(variants []place.Alternative) bool {
	found := false
	for _, v := range variants {
		if !isDevice(v.Runtime) {
			return false
		}
		for _, a := range t.agents {
			for _, d := range a.devices {
				if d.Runtime != v.Runtime {
					continue
				}
				if !slices.ContainsFunc(d.Differs, func(digest []byte) bool { return string(digest) == v.Digest }) {
					return false
				}
				found = true
			}
		}
	}
	return found
}

// alternatives is what of them does not change; shared.
func (j *jobState) alternatives(phase string) []place.Alternative {
	known := j.variants[phase]
	if known == nil {
		known = j.makeAlternatives(phase)
		if j.variants == nil {
			j.variants = map[string][]place.Alternative{}
		}
		j.variants[phase] = known
	}
	return known
}

func (j *jobState) makeAlternatives(phase string) (out []place.Alternative) {
	ref := kernelOfTask(j.job, phase)
	if n, ok := j.program(phase); ok {
		return []place.Alternative{{Runtime: n.runtime(), Kernel: variantKey(ref, runtimeExec), Need: j.amount(phase)}}
	}
	for _, runtime := range candidates(j.spec.Runtime, ref, phase == "reduce") {
		out = append(out, place.Alternative{
			Runtime: runtime, Kernel: variantKey(ref, runtime), Digest: string(variantDigest(ref, runtime)),
			Hint: predict.Hint{Rate: float64(hintOf(ref, runtime))},
		})
	}
	if len(out) == 0 {
		out = []place.Alternative{{Runtime: runtimeWasm, Kernel: variantKey(ref, runtimeWasm)}}
	}
	return out
}

// pattern is what the tasks of a job's phase have in common. mu is held.
func (t *term) pattern(j *jobState, phase string) place.Task {
	p := place.Task{
		User: strconv.FormatUint(uint64(j.job.GetCred().GetUid()), 10), Priority: int(j.job.Priority), Share: j.spec.Share,
		Alternatives: t.alternatives(j, phase), Ordered: len(j.spec.Runtime) > 1, Simulated: j.spec.Simulated,
		Strict: j.spec.Locality == jobfile.Strict, Nodes: t.allowed(j),
	}
	if j.spec.Makespan {
		p.Objective = place.Makespan
	}
	if j.spec.Gang && phase == "map" {
		p.Gang = len(j.pending)
	}
	return p
}

// of is what a task has of its own in the place of what all have.
func (t *term) of(p place.Task, own *place.Task) place.Task {
	p.ID, p.Bytes, p.Local, p.Avoid, p.Shun = own.ID, own.Bytes, own.Local, own.Avoid, own.Shun
	return p
}

// allowed are the agents on which a job may run; nil: all. mu is held.
func (t *term) allowed(j *jobState) map[uint32]bool {
	if !j.spec.Bound() {
		return nil
	}
	if t.facts == nil {
		t.facts = hostFacts(t.nodes)
	}
	out := map[uint32]bool{}
	for node, h := range t.facts {
		if j.spec.Allows(h) {
			out[node] = true
		}
	}
	return out
}

// How many tasks of how many jobs a round is given.
const (
	roundTasks   = 1024 // of all jobs together, if they are few enough
	roundLeast   = 2    // of each job
	perIdleHost  = 2    // of each job, with bytes on a host with a free slot
	roundLookups = 4096 // jobs times such hosts, above which they are not looked for
)

// waiting are the tasks of all jobs that a round is to choose from: those that
// are next, and some that have bytes on a host with a free slot. mu is held.
func (t *term) waiting(jobs []*jobState, agents []place.Agent, now time.Time) (tasks []place.Task) {
	free := 0
	var idle []string
	for _, a := range agents {
		n := 0
		for i := range a.Devices {
			n += int(a.Devices[i].Free.Slots)
		}
		if n > 0 {
			free += n
			idle = append(idle, a.Host)
		}
	}
	slices.Sort(idle)
	if idle = slices.Compact(idle); len(idle)*len(jobs) > roundLookups {
		idle = nil
	}
	most := max(roundLeast, min(max(4*free, 32), roundTasks/max(len(jobs), 1)))
	if len(jobs) == 1 {
		most = max(4*free, 32)
	}
	for _, j := range jobs {
		if !j.stale && j.spec != nil && !j.job.Paused && j.job.State != StateWaiting {
			tasks = t.waitingOf(tasks, j, most, idle, now)
		}
	}
	return tasks
}

// waitingOf appends tasks of one job. mu is held.
func (t *term) waitingOf(out []place.Task, j *jobState, most int, idle []string, now time.Time) []place.Task {
	if j.served.IsZero() {
		j.served = now
	}
	if j.spec.Gang {
		most = max(most, len(j.pending)) // all of it or nothing
	}
	j.fill(t.hosts, most)
	picked := j.queue.Pick(nil, most, idle, perIdleHost)
	if n := j.spec.Parallel; n > 0 {
		picked = picked[:min(len(picked), max(0, n-t.underWay(j)))]
	}
	var common place.Task
	phase, ratio := "", 0.0
	for _, p := range picked {
		if of := j.task(p.ID.N).t.Phase; common.Alternatives == nil || of != phase {
			phase = of
			common = t.pattern(j, phase)
			common.Age = max(now.Sub(j.served), 0)
			_, ratio = t.s.known.expect(common.Alternatives[0].Kernel)
		}
		x := t.of(common, p)
		x.Output = uint64(ratio * float64(x.Bytes))
		out = append(out, x)
	}
	return out
}

// underWay is how many of a job's tasks run. mu is held.
func (t *term) underWay(j *jobState) int {
	running := map[uint32]bool{}
	for _, a := range t.agents {
		for id := range a.tasks {
			if id.job == j.job.Id {
				running[id.n] = true
			}
		}
	}
	return len(running)
}

// queueAhead is how many tasks of an array are in its queue, about: since they are
// alike, nothing depends on those behind them.
const queueAhead = 1024

// fill makes the queue of a job's pending tasks, of an array at least the next most of
// them. Where the end of the last one counts the largest come first.
func (j *jobState) fill(hosts map[uint32]string, most int) {
	if j.job.Array > 0 {
		j.fillArray(hosts, most)
		return
	}
	if j.queue != nil {
		return
	}
	j.queue = new(place.Queue)
	order := j.pending
	if j.spec != nil && j.spec.Makespan {
		order = slices.Clone(order)
		slices.SortStableFunc(order, func(a, b uint32) int { return cmp.Compare(j.task(b).bytes, j.task(a).bytes) })
	}
	for _, n := range order {
		j.queue.Put(j.placeTask(j.task(n), hosts), false)
	}
}

func (j *jobState) fillArray(hosts map[uint32]string, most int) {
	if j.queue == nil {
		j.queue, j.queued = new(place.Queue), 0
	}
	if j.queue.Len() >= most {
		return
	}
	i, _ := slices.BinarySearch(j.pending, uint32(j.queued))
	for ; i < len(j.pending) && j.queue.Len() < most+queueAhead; i++ {
		n := j.pending[i]
		j.queue.Put(j.placeTask(j.task(n), hosts), false)
		j.queued = int(n) + 1
	}
}

// placeTask is what of a task does not change while it waits.
func (j *jobState) placeTask(x *taskState, hosts map[uint32]string) place.Task {
	p := place.Task{ID: place.ID{Job: x.t.Job, N: x.t.N}, Bytes: x.bytes}
	p.Avoid, p.Shun = avoid(x.t)
	if x.hung != 0 {
		p.Avoid = append(p.Avoid, x.hung)
	}
	if j.spec != nil && j.spec.Locality == jobfile.Any {
		return p
	}
	for host, bytes := range local(x.t, hosts) {
		p.Local = append(p.Local, place.Held{Host: host, Bytes: bytes})
	}
	slices.SortFunc(p.Local, func(a, b place.Held) int { return cmp.Compare(a.Host, b.Host) })
	return p
}

// offers are the agents as place wants them, and the poll of each that has
// slots. mu is held.
func (t *term) offers(now time.Time) ([]place.Agent, map[uint32]*parked) {
	polls := map[uint32]*parked{}
	for k := range t.parked {
		if !k.closed && (k.free > 0 || k.agent.idleDevice()) {
			polls[k.agent.node] = k
		}
	}
	var out []place.Agent
	wanted := t.wanted()
	for node, a := range t.agents {
		offer := t.programs[node]
		d := place.Device{Name: classCPU, Class: classCPU, Speed: a.speed, Runtimes: a.can(wanted, offer)}
		o := place.Agent{Node: node, Host: cmp.Or(t.hosts[node], fmt.Sprint("node ", node))}
		offered(offer, &o, &d)
		if k := polls[node]; k != nil {
			d.Free.Slots = int64(k.free)
		}
		devices := append([]place.Device{d}, a.placeDevices(polls[node] != nil)...)
		for id, x := range a.tasks {
			device, runtime := x.device(id.attempt)
			d := &devices[0]
			for i := range devices {
				if devices[i].Name == device {
					d = &devices[i]
				}
			}
			started, expect := x.since(id.attempt)
			r := place.Running{Job: x.t.Job, Until: remaining(expect, now.Sub(started))}
			if j := t.jobs[x.t.Job]; j != nil {
				r.User = strconv.FormatUint(uint64(j.job.GetCred().GetUid()), 10)
				r.Kernel = variantKey(kernelOfTask(j.job, x.t.Phase), runtime)
				r.Need = j.amount(x.t.Phase)
				taken(r.Need, &o, d)
			}
			d.Running = append(d.Running, r)
		}
		devices[0].Capacity.Slots = max(int64(a.slots), devices[0].Free.Slots+int64(len(devices[0].Running)))
		for i := range devices {
			if i > 0 {
				devices[i].Free.Slots = max(0, devices[i].Free.Slots-int64(len(devices[i].Running)))
			}
			slices.SortFunc(devices[i].Running, func(a, b place.Running) int {
				return cmp.Or(cmp.Compare(a.Until, b.Until), cmp.Compare(a.Job, b.Job))
			})
		}
		o.Devices = devices
		t.s.known.describe(&o)
		out = append(out, o)
	}
	return out, polls
}

// placementOf is a choice as a task's record has it.
func placementOf(c *place.Choice, alts []place.Alternative) *wire.Placement {
	p := &wire.Placement{Waits: !c.Now, Probe: c.Probe}
	chosen := false
	row := func(node uint32, device string, alt int, cost place.Cost, avoid bool) *wire.Place {
		return wirePlace(node, device, alts[alt].Runtime, cost, avoid)
	}
	for _, r := range c.Others {
		x := row(r.Node, r.Device, r.Alt, r.Cost, r.Avoid)
		if r.Node == c.Node && r.Device == c.Device {
			x = row(c.Node, c.Device, c.Alt, c.Cost, r.Avoid)
			p.Chosen, chosen = uint32(len(p.Places)), true
		}
		p.Places = append(p.Places, x)
	}
	if !chosen {
		// The best of all is taken by a task that needs it more.
		p.Chosen = uint32(len(p.Places))
		p.Places = append(p.Places, row(c.Node, c.Device, c.Alt, c.Cost, false))
	}
	return p
}

func wirePlace(node uint32, device, runtime string, cost place.Cost, avoid bool) *wire.Place {
	us := func(d time.Duration) uint64 { return uint64(max(d, 0).Microseconds()) }
	return &wire.Place{
		Node: node, Device: device, Runtime: runtimeName(runtime),
		WaitUs: us(cost.Wait), FetchUs: us(cost.Fetch), WarmUs: us(cost.Warm), RunUs: us(cost.Run), WriteUs: us(cost.Write),
		RedoUs: us(cost.Redo), P95Us: us(cost.P95), Missing: cost.Missing, Source: cost.Source.String(), Avoid: avoid,
	}
}

// took is how long the chosen place was to be taken.
func took(p *wire.Placement) time.Duration {
	if int(p.GetChosen()) >= len(p.GetPlaces()) {
		return 0
	}
	x := p.Places[p.Chosen]
	return micros(x.FetchUs + x.WarmUs + x.RunUs + x.WriteUs + x.RedoUs)
}

// remaining is how long an attempt is still expected to run. Of one that should have
// ended by now nothing is known but that the prediction was wrong: it is given as
// long again as it is late.
func remaining(expect, elapsed time.Duration) time.Duration {
	left := expect - elapsed
	if left < 0 {
		left = -left
	}
	return max(left, 10*time.Millisecond)
}
