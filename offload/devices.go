package offload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/worker"
)

// Limits of probing. The first program that a driver compiles may take long.
const (
	probeLimit  = 30 * time.Second
	provedLimit = 2 * time.Minute
)

// inUse is when a device that a program uses is looked at again, to be proved.
const inUse = 2 * time.Second

// deviceRuntimes are those that need a device.
var deviceRuntimes = []string{jobfile.RuntimeOpenCL, jobfile.RuntimeCUDA, jobfile.RuntimeONNX, jobfile.RuntimeFPGA, jobfile.RuntimeRTL}

// devices are the accelerators of a host. Each is proved by a known answer
// before it is offered, and runs one task at a time in a worker of its own.
type devices struct {
	command []string // `quern worker`; nil: there are no devices
	env     []string
	sought  []string // runtimes whose devices are looked for
	dir     string
	first   time.Duration // see health
	log     *slog.Logger
	gpus    gpus   // nil: nobody else uses GPUs
	changed func() // called without mu when a device is or is no longer offered

	mu    sync.Mutex
	all   []*device     // guarded by mu
	asked []string      // guarded by mu: runtimes whose devices are being looked for
	queue int           // guarded by mu: programs that wait for GPUs
	freed chan struct{} // guarded by mu: closed, and made anew, when a device is free or offered no more
	kick  chan struct{} // capacity 1: a device has been quarantined
}

// device is one accelerator.
type device struct {
	label   string // "opencl:0.0"
	runtime string
	info    worker.Device
	health  health   // guarded by devices.mu
	busy    bool     // guarded by devices.mu
	taken   bool     // guarded by devices.mu: gpus has given it for as long as it is busy
	differs [][]byte // guarded by devices.mu: digests of variants whose results are wrong here

	// Of whoever has made it busy:
	process *worker.Process  // nil: none runs
	idle    time.Time        // since when it has had nothing to do
	checked map[string]error // by digest of a variant: nil, or that its results are wrong here
}

// errNoDevice is a runtime for which this host offers no device now.
var errNoDevice = errors.New("this host offers no such device now")

func newDevices(cfg AgentConfig) *devices {
	d := &devices{
		command: cfg.Devices, env: append(slices.Clone(cfg.WorkerEnv), cfg.FPGA.env()...), dir: cfg.Dir, first: cfg.ProbeAfter, log: cfg.Log,
		changed: func() {}, freed: make(chan struct{}), kick: make(chan struct{}, 1),
	}
	if cfg.Exec != nil && cfg.Exec.Host != nil {
		d.gpus = cfg.Exec.Host
	}
	if len(d.command) > 0 {
		known := cfg.FPGA.known()
		d.sought = slices.DeleteFunc(slices.Clone(deviceRuntimes), func(r string) bool { return jobfile.Signed(r) && known[r] == "" })
		d.asked = slices.Clone(d.sought)
	}
	return d
}

// config is how processes of a runtime are started.
func (d *devices) config(runtime string) worker.Config {
	return worker.Config{Command: d.command, Env: d.env, CacheDir: filepath.Join(d.dir, runtime)}
}

// run finds the devices and proves them, at first and whenever they are due,
// until ctx ends. Workers that have been idle for long are ended.
func (d *devices) run(ctx context.Context) {
	if len(d.command) == 0 {
		return
	}
	for _, r := range d.sought {
		d.find(ctx, r)
	}
	for ctx.Err() == nil {
		next := d.prove(ctx)
		d.reap(time.Now().Add(-idleWorker))
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-d.kick:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	d.close()
}

// find lists the devices of a runtime.
func (d *devices) find(ctx context.Context, runtime string) {
	report, err := worker.Probe(ctx, d.config(runtime), runtime, "", probeLimit)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = slices.DeleteFunc(d.asked, func(r string) bool { return r == runtime })
	if err != nil {
		d.log.Info("runtime absent", "runtime", runtime, "err", err)
		return
	}
	for _, info := range report.Devices {
		d.all = append(d.all, &device{label: runtime + ":" + info.ID, runtime: runtime, info: info, health: health{first: d.first}, checked: map[string]error{}})
	}
}

// prove has the devices that are due compute their known answer, each in a
// process of its own. It returns how long until the next one is due.
func (d *devices) prove(ctx context.Context) time.Duration {
	next, elsewhere := idleWorker, map[*device]bool{}
	for _, x := range d.list() {
		d.mu.Lock()
		due := x.health.due(time.Now()) && !x.busy
		ours := due && d.occupy(x)
		d.mu.Unlock()
		if due && !ours {
			next, elsewhere[x] = inUse, true
		}
		if !ours {
			continue
		}
		_, err := worker.Probe(ctx, d.config(x.runtime), x.runtime, x.info.ID, provedLimit)
		if ctx.Err() != nil {
			err = nil // it says nothing of the device
		}
		d.mu.Lock()
		if ctx.Err() == nil {
			x.health.proved(err, time.Now())
		}
		d.mu.Unlock()
		d.release(x)
		if err != nil {
			d.log.Warn("device not offered", "device", x.label, "model", x.info.Name, "err", err)
		} else if ctx.Err() == nil {
			d.log.Info("device offered", "device", x.label, "model", x.info.Name)
		}
		d.changed()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.all {
		if !x.health.ready() && !elsewhere[x] {
			next = min(next, max(time.Until(x.health.next), time.Millisecond))
		}
	}
	return next
}

func (d *devices) list() []*device {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

// reap ends workers that have been idle since before.
func (d *devices) reap(before time.Time) {
	for _, x := range d.list() {
		d.mu.Lock()
		old := !x.busy && x.process != nil && x.idle.Before(before)
		x.busy = x.busy || old
		d.mu.Unlock()
		if old {
			x.process.Close()
			x.process = nil
			d.release(x)
		}
	}
}

// close ends the workers. Nobody uses a device any more.
func (d *devices) close() {
	for _, x := range d.list() {
		if x.process != nil {
			x.process.Close()
			x.process = nil
		}
	}
}

// runtimes are those for which a device is offered.
func (d *devices) runtimes() (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.all {
		if x.health.ready() && !slices.Contains(out, x.runtime) {
			out = append(out, x.runtime)
		}
	}
	return out
}

// report is what others are told of the devices.
func (d *devices) report() (out []*wire.Device) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.all {
		w := &wire.Device{
			Name: x.label, Runtime: x.runtime, Model: x.info.Name, Type: x.info.Type,
			Class:  x.runtime + " " + x.info.Name + " " + x.info.Driver,
			Driver: x.info.Platform + " " + x.info.Driver, Memory: uint64(x.info.Memory), Units: uint32(x.info.Units),
			State: x.health.state, Reason: x.health.reason, Slots: 1, Simulated: x.info.Simulated,
		}
		if w.State == "" {
			w.State, w.Reason = DeviceUnproved, "it has not yet computed its known answer"
		}
		if x.busy {
			w.Busy = 1
		}
		w.Differs = slices.Clone(x.differs)
		out = append(out, w)
	}
	for _, r := range d.asked {
		out = append(out, &wire.Device{Name: r, Runtime: r, Simulated: jobfile.Simulated(r), State: DeviceUnproved, Reason: "its devices are being looked for"})
	}
	return out
}

// acquire returns a device of the runtime for one task, that with the label if
// it is offered, and a simulated one only if these are allowed; release gives it
// back. It waits for one that is busy.
func (d *devices) acquire(ctx context.Context, runtime, label string, simulated bool) (*device, error) {
	for {
		d.mu.Lock()
		offered := false
		named := slices.ContainsFunc(d.all, func(x *device) bool { return x.label == label && x.health.ready() })
		for _, x := range d.all {
			if x.runtime != runtime || !x.health.ready() || named && x.label != label || x.info.Simulated && !simulated {
				continue
			}
			offered = true
			if d.occupy(x) {
				d.mu.Unlock()
				return x, nil
			}
		}
		freed := d.freed
		d.mu.Unlock()
		if !offered {
			return nil, fmt.Errorf("%s: %w", runtime, errNoDevice)
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// occupy makes a device busy, if nobody uses it. mu is held.
func (d *devices) occupy(x *device) bool {
	if x.busy {
		return false
	}
	if x.runtime == jobfile.RuntimeCUDA && d.gpus != nil {
		if d.queue > 0 || !d.gpus.TakeGPU(x.info.ID) {
			return false // a program does, or is next
		}
		x.taken = true
	}
	x.busy = true
	return true
}

// wake has those look again who wait for a device.
func (d *devices) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.freed)
	d.freed = make(chan struct{})
}

// start returns the worker of a device that the caller has acquired.
func (d *devices) start(ctx context.Context, x *device) (*worker.Process, error) {
	if x.process != nil && x.process.Usable() {
		return x.process, nil
	}
	if x.process != nil {
		x.process.Close()
		x.process = nil
	}
	cfg := d.config(x.runtime)
	cfg.Command = append(slices.Clone(cfg.Command), x.runtime, "--device", x.info.ID)
	p, err := worker.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	x.process = p
	return p, nil
}

// maxDiffers bounds how many variants are reported of a device; the first ones are
// dropped, and compared again.
const maxDiffers = 256

// differ notes that a variant's results are wrong on a device.
func (d *devices) differ(x *device, digest []byte) {
	d.mu.Lock()
	if x.differs = append(x.differs, digest); len(x.differs) > maxDiffers {
		x.differs = x.differs[1:]
	}
	d.mu.Unlock()
	d.changed()
}

// release gives a device back.
func (d *devices) release(x *device) {
	d.mu.Lock()
	if x.taken {
		d.gpus.GiveGPU(x.info.ID)
	}
	x.busy, x.taken, x.idle = false, false, time.Now()
	d.mu.Unlock()
	d.wake()
}

// ended notes how a task ended on a device: reason "" for a success.
func (d *devices) ended(x *device, job uint64, reason string) {
	d.mu.Lock()
	if reason == "" {
		x.health.succeeded()
	} else {
		x.health.failure(job, reason, time.Now())
	}
	out := !x.health.ready()
	text := x.health.reason
	d.mu.Unlock()
	if !out {
		return
	}
	d.log.Warn("device quarantined", "device", x.label, "model", x.info.Name, "reason", text)
	if x.process != nil {
		x.process.Close()
		x.process = nil
	}
	select {
	case d.kick <- struct{}{}:
	default:
	}
	d.changed()
}
