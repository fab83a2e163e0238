package offload

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"quernfs/internal/wire"
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

// alternatives are the ways to run a task of a job.
func (t *term) alternatives(j *jobState, phase string) []place.Alternative {
	ref, runtime := kernelOfTask(j.job, phase), t.runtime(j, phase)
	kernel := variantKey(ref, runtimeName(runtime))
	warmUp, _ := t.s.known.expect(kernel)
	return []place.Alternative{{Runtime: runtime, Kernel: kernel, WarmUp: warmUp, Need: j.amount(phase), Hint: predict.Hint{Rate: float64(hintOf(ref, runtime))}}}
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
		if n := a.Devices[0].Free.Slots; n > 0 {
			free += int(n)
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
	if j.queue == nil {
		j.queue = new(place.Queue)
		for _, n := range j.pending {
			j.queue.Put(placeTask(j.tasks[n], t.hosts), false)
		}
	}
	if j.served.IsZero() {
		j.served = now
	}
	common := place.Task{User: strconv.FormatUint(uint64(j.job.GetCred().GetUid()), 10), Age: max(now.Sub(j.served), 0), Priority: int(j.job.Priority)}
	phase, ratio := "", 0.0
	for _, p := range j.queue.Pick(nil, most, idle, perIdleHost) {
		x := *p
		if of := j.tasks[x.ID.N].t.Phase; common.Alternatives == nil || of != phase {
			phase = of
			common.Alternatives = t.alternatives(j, phase)
			_, ratio = t.s.known.expect(common.Alternatives[0].Kernel)
		}
		x.Alternatives, x.User, x.Age, x.Priority = common.Alternatives, common.User, common.Age, common.Priority
		x.Output = uint64(ratio * float64(x.Bytes))
		out = append(out, x)
	}
	return out
}

// placeTask is what of a task does not change while it waits.
func placeTask(x *taskState, hosts map[uint32]string) place.Task {
	p := place.Task{ID: place.ID{Job: x.t.Job, N: x.t.N}, Bytes: x.bytes, Avoid: avoid(x.t)}
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
		d := place.Device{Name: classCPU, Class: classCPU, Runtimes: a.can(wanted, offer)}
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
			r := place.Running{Job: x.t.Job, Until: max(expect-now.Sub(started), 10*time.Millisecond)}
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
		us := func(d time.Duration) uint64 { return uint64(max(d, 0).Microseconds()) }
		return &wire.Place{
			Node: node, Device: device, Runtime: runtimeName(alts[alt].Runtime),
			WaitUs: us(cost.Wait), FetchUs: us(cost.Fetch), WarmUs: us(cost.Warm), RunUs: us(cost.Run), WriteUs: us(cost.Write),
			RedoUs: us(cost.Redo), P95Us: us(cost.P95), Missing: cost.Missing, Source: cost.Source.String(), Avoid: avoid,
		}
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

// took is how long the chosen place was to be taken.
func took(p *wire.Placement) time.Duration {
	if int(p.GetChosen()) >= len(p.GetPlaces()) {
		return 0
	}
	x := p.Places[p.Chosen]
	return micros(x.FetchUs + x.WarmUs + x.RunUs + x.WriteUs + x.RedoUs)
}
