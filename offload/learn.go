package offload

import (
	"cmp"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/place"
	"quernfs/offload/place/predict"
)

// knowledge is what a scheduler has learned from attempts that have ended. It
// outlives terms; a leader that has none begins with what the records of jobs
// that have not ended say.
type knowledge struct {
	model place.Model

	mu      sync.Mutex
	runs    predict.Predictor           // guarded by mu
	kernels map[string]*kernelKnowledge // guarded by mu; by digest
	hosts   map[uint32]*hostKnowledge   // guarded by mu; by node
	warm    map[uint32]map[string]bool  // guarded by mu; kernels that have run on a node; each is never changed
}

type kernelKnowledge struct {
	warmUp predict.Rate // seconds of a cold start
	output predict.Rate // bytes written for one read
	// circuit is what the circuit would do, by the cycles of its model.
	circuit predict.Rate
}

type hostKnowledge struct {
	network predict.Rate
	losses  predict.Losses
	links   map[string]*predict.Rate // by the host that is fetched from
	from    map[string]float64       // what links make of network; never changed
}

// maxLinks bounds how many hosts a host's links are told apart to.
const maxLinks = 256

// link takes over what came from a host. What a task waits for its input says how
// fast all links together are (network); single transfers, several of which go on
// at a time, how they compare.
func (h *hostKnowledge) link(host string, bytes, seconds float64) {
	if host == "" || bytes <= 0 || seconds <= 0 {
		return
	}
	if h.links == nil {
		h.links = map[string]*predict.Rate{}
	}
	r := h.links[host]
	if r == nil {
		if len(h.links) == maxLinks {
			return
		}
		r = new(predict.Rate)
		h.links[host] = r
	}
	r.Observe(bytes, seconds)
}

// compare makes from anew: the rate of each link is to the mean of all as that of
// its transfers is, where the mean is that of as many bytes over each.
func (h *hostKnowledge) compare() {
	network := h.network.PerSecond()
	if network == 0 || len(h.links) == 0 {
		return
	}
	seconds := 0.0 // for a byte over each link
	for _, r := range h.links {
		seconds += 1 / r.PerSecond()
	}
	mean := float64(len(h.links)) / seconds
	from := make(map[string]float64, len(h.links))
	for host, r := range h.links {
		from[host] = network * r.PerSecond() / mean
	}
	h.from = from
}

func newKnowledge(m place.Model) *knowledge {
	return &knowledge{
		model: m, kernels: map[string]*kernelKnowledge{}, hosts: map[uint32]*hostKnowledge{},
		warm: map[uint32]map[string]bool{},
	}
}

// maxKernels bounds what is kept.
const maxKernels = 4096

// ended is an attempt that has succeeded, as its agent has timed it.
type ended struct {
	node     uint32
	kernel   string // digest
	class    string
	bytes    uint64 // of the inputs
	in, out  uint64 // bytes read and written
	local    uint64 // of in, what came from the host itself
	remote   uint64 // and what came over the network
	timing   *wire.Timing
	modelled time.Duration // see func modelled
	prior    predict.Prior
	device   place.Device // its speed

	transfers []*wire.Transfer
	hosts     map[uint32]string // of the servers that they are from
}

// succeeded takes over an attempt.
func (k *knowledge) succeeded(e ended) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.host(e.node)
	h.losses.Observe(false)
	ran, read := time.Duration(e.timing.GetRunNs()), time.Duration(e.timing.GetReadNs())
	if ran+read <= 0 {
		return // an agent that does not time
	}
	// Of the time spent reading, the part of what came over the network is
	// fetching, the rest belongs to the run.
	away := 0.0
	if e.remote > 0 {
		away = float64(e.remote) / float64(e.remote+e.local)
		h.network.Observe(float64(e.remote), read.Seconds()*away)
		for _, x := range e.transfers {
			h.link(e.hosts[x.Server], float64(x.Bytes), float64(x.Ns)/1e9)
		}
		h.compare()
	}
	run := ran + time.Duration(float64(read)*(1-away))
	k.runs.Observe(predict.Key{Kernel: e.kernel, Class: e.class}, e.bytes, e.device.AtUnitSpeed(run), e.prior)
	x := k.kernels[e.kernel]
	if x == nil {
		if len(k.kernels) >= maxKernels {
			clear(k.kernels)
		}
		x = new(kernelKnowledge)
		k.kernels[e.kernel] = x
	}
	x.output.Observe(float64(e.out)+1, float64(e.in)+1)
	x.circuit.Observe(float64(e.in), e.modelled.Seconds())
	if warm := k.warm[e.node]; !warm[e.kernel] {
		x.warmUp.Observe(time.Duration(e.timing.GetWarmNs()).Seconds(), 1)
		next := make(map[string]bool, len(warm)+1)
		if len(warm) < maxKernels {
			maps.Copy(next, warm)
		}
		next[e.kernel] = true
		k.warm[e.node] = next
	}
}

// lost takes over an attempt that its host did not bring to an end.
func (k *knowledge) lost(node uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.host(node).losses.Observe(true)
	delete(k.warm, node) // it may have been started anew
}

// host must be called with mu held.
func (k *knowledge) host(node uint32) *hostKnowledge {
	h := k.hosts[node]
	if h == nil {
		h = new(hostKnowledge)
		k.hosts[node] = h
	}
	return h
}

// knows says whether a task of a kernel has been seen to succeed.
func (k *knowledge) knows(kernel string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kernels[kernel] != nil
}

// fit is what is known of a kernel on a class of devices.
func (k *knowledge) fit(key predict.Key) predict.Fit {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.runs.Fit(key)
}

// describe fills in what was learned of an agent.
func (k *knowledge) describe(a *place.Agent) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.hosts[a.Node]
	if h == nil {
		return
	}
	a.Network, a.From, a.Lost = h.network.PerSecond(), h.from, h.losses.Chance()
	for i := range a.Devices {
		a.Devices[i].Warm = k.warm[a.Node]
	}
}

// expect is what a kernel is expected to need before it begins, and to write for
// each byte that it reads.
func (k *knowledge) expect(kernel string) (warmUp time.Duration, output float64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if x := k.kernels[kernel]; x != nil {
		return time.Duration(x.warmUp.PerSecond() * float64(time.Second)), x.output.PerSecond()
	}
	return 0, 0
}

// circuit is how many bytes a second the circuit of a kernel takes, by the cycles
// that its model has taken (variantKey of its rtl variant); 0: it has not run.
func (k *knowledge) circuit(kernel string) float64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if x := k.kernels[kernel]; x != nil {
		return x.circuit.PerSecond()
	}
	return 0
}

// modelled is how long the circuit would have taken whose model a task has run, in
// nanoseconds; 0: it has run something else.
func modelled(x *wire.Task) int64 {
	if x.Cycles == 0 {
		return 0
	}
	return x.DeviceNs
}

// kernelKey is what run times of a kernel are learned under. All kernels of the
// binary are one module, so the name counts, too.
func kernelKey(ref *wire.KernelRef) string {
	return ref.GetName() + " " + hex.EncodeToString(ref.GetDigest())
}

// observe takes over an attempt that has succeeded. mu is held.
func (t *term) observe(j *jobState, x *wire.Task, e ended) {
	e.node, e.kernel, e.class = x.Agent, variantKey(kernelOfTask(j.job, x.Phase), x.Runtime), t.classOf(x)
	if a := t.agents[x.Agent]; a != nil && e.class == classCPU {
		e.device.Speed = a.speed
	}
	e.hosts = t.hosts
	e.prior = t.s.cfg.Model.Prior(place.Alternative{Kernel: e.kernel}, place.Device{})
	t.s.known.succeeded(e)
}

// recordsKept is how many records a new leader learns from.
const recordsKept = 64

// remember takes over what the records of tasks that have succeeded say, if
// nothing is known of their kernel yet. mu is held.
func (t *term) remember(j *jobState, tasks []*wire.Task) {
	unknown := map[string]bool{}
	for _, ref := range j.job.Kernels {
		for _, r := range runtimesOf(ref) {
			unknown[variantKey(ref, r)] = !t.s.known.knows(variantKey(ref, r))
		}
	}
	var list []*wire.Task
	for _, x := range tasks {
		if x.State == StateSucceeded && x.Timing != nil && unknown[variantKey(kernelOfTask(j.job, x.Phase), x.Runtime)] {
			list = append(list, x)
		}
	}
	slices.SortFunc(list, func(a, b *wire.Task) int { return cmp.Or(cmp.Compare(a.EndedNs, b.EndedNs), cmp.Compare(a.N, b.N)) })
	for _, x := range list[max(0, len(list)-recordsKept):] {
		t.observe(j, x, ended{bytes: inputsSize(x), in: x.BytesIn, out: x.BytesOut, local: x.BytesLocal, remote: x.BytesRemote, timing: x.Timing, modelled: time.Duration(modelled(x))})
	}
}
