package offload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/worker"
)

// AgentConfig is what an agent needs. Zero values of Slots, OutputLimit and
// Log stand for their defaults.
type AgentConfig struct {
	Node  uint32 // this agent's node id, as meta registered it
	Host  string // this host's name, for people; the node's name goes before it
	Files Files
	// Meta is a client with a session of its own: commands that it sends conflict
	// with the leases of Files' session like anybody's, so that the mount behind
	// Files learns of results as other mounts do.
	Meta        Meta
	Worker      []string      // the command `quern worker wasm`
	WorkerEnv   []string      // added to the worker's environment
	Devices     []string      // the command `quern worker`, for runtimes that need a device; nil: none is looked for
	ProbeAfter  time.Duration // until a quarantined device is proved again, at first; 0: 10 s
	Slots       int           // tasks at once; 0: one a processor
	Speed       uint32        // of a processor, in percent of a common one (see speedOf); 0: it is measured
	Dir         string        // modules and compiled code; made if it is missing
	OutputLimit int64         // bytes that one task may write; 0: jobfile.DefaultOutputLimit
	Exec        *ExecConfig   // programs of the host; nil: none
	FPGA        FPGAConfig    // bitstreams, and models of circuits
	Mounted     func() string // where Files are mounted on this host now, "" if nowhere; nil: nowhere
	Log         *slog.Logger
}

// How often an agent asks, and what it forgets.
const (
	pollWait    = 5 * time.Second       // how long the leader may hold a poll
	pollGap     = 10 * time.Millisecond // between the ends of two polls of an agent that is busy
	idleWorker  = 30 * time.Second      // after that a worker without work is ended
	reportLimit = 2 * time.Minute       // how long a result is offered to meta
	stopLimit   = 3 * time.Second       // for the last words of a stopping agent
)

// Agent runs tasks on this host.
type Agent struct {
	cfg     AgentConfig
	log     *slog.Logger
	workers worker.Config
	reports *reports
	devices *devices
	speed   atomic.Uint32 // of a processor, in percent; see speedOf

	mu      sync.Mutex
	running map[attemptID]*underWay // guarded by mu
	held    int                     // tasks that occupy a slot, wait for one, or report; guarded by mu
	active  int                     // those that do not report; guarded by mu
	pace    pace                    // guarded by mu
	ended   []*wire.EndedTask       // not yet told to the scheduler; guarded by mu
	idle    []idleProcess           // guarded by mu
	wake    context.CancelFunc      // ends the poll under way; guarded by mu
	nudge   *time.Timer             // is about to call wake; guarded by mu
	tasks   sync.WaitGroup
	slots   chan struct{} // has one for each task that runs

	modules  sync.Mutex      // one module is fetched and compiled at a time
	prepared map[string]bool // by digest: compiled here; guarded by modules

	specs specs
}

type attemptID struct {
	job     uint64
	n       uint32
	attempt uint32
}

// underWay is an attempt that has not been reported yet.
type underWay struct {
	stop context.CancelCauseFunc
	told bool // to stop: nobody is to be told of it any more; guarded by Agent.mu
}

type idleProcess struct {
	p     *worker.Process
	since time.Time
}

var (
	errStopped  = errors.New("stopped: the task was cancelled or given to another host")
	errShutdown = errors.New("the agent was stopped")
)

// NewAgent checks cfg and makes Dir.
func NewAgent(cfg AgentConfig) (*Agent, error) {
	switch {
	case cfg.Node == 0:
		return nil, errors.New("agent: no node id")
	case cfg.Files == nil || cfg.Meta == nil:
		return nil, errors.New("agent: no filesystem or no meta")
	case len(cfg.Worker) == 0:
		return nil, errors.New("agent: no worker command")
	case cfg.Dir == "":
		return nil, errors.New("agent: no directory")
	}
	if cfg.Exec != nil {
		if err := cfg.Exec.check(); err != nil {
			return nil, err
		}
	}
	if cfg.Slots <= 0 {
		cfg.Slots = runtime.NumCPU()
	}
	if cfg.OutputLimit <= 0 {
		cfg.OutputLimit = jobfile.DefaultOutputLimit
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Host == "" {
		cfg.Host, _ = os.Hostname()
	}
	compiled := filepath.Join(cfg.Dir, "compiled")
	for _, dir := range []string{filepath.Join(cfg.Dir, "modules"), compiled} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	a := &Agent{
		cfg:     cfg,
		log:     cfg.Log,
		workers: worker.Config{Command: cfg.Worker, Env: cfg.WorkerEnv, CacheDir: compiled},
		reports: &reports{meta: cfg.Meta},
		devices: newDevices(cfg),
		slots:   make(chan struct{}, cfg.Slots),
		running: map[attemptID]*underWay{}, prepared: map[string]bool{},
	}
	a.devices.changed = a.endPoll
	return a, nil
}

// endPoll ends the poll under way, so that the next one tells what is new.
func (a *Agent) endPoll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ask()
}

// Runtimes are what this agent can run now.
func (a *Agent) Runtimes() []string {
	own := []string{runtimeWasm}
	if a.cfg.Exec.Offer() != nil {
		own = append(own, runtimeExec)
	}
	return append(own, a.devices.runtimes()...)
}

func (a *Agent) mounted() string {
	if a.cfg.Mounted == nil {
		return ""
	}
	return a.cfg.Mounted()
}

// Devices are the accelerators of this host, and how they fare.
func (a *Agent) Devices() []*wire.Device { return a.devices.report() }

// Slots is how many tasks it runs at once.
func (a *Agent) Slots() int { return a.cfg.Slots }

// Speed is that of a processor of this host in percent of a common one, see
// speedOf; 0 before Run has measured it.
func (a *Agent) Speed() uint32 { return a.speed.Load() }

// Busy is how many tasks it runs now.
func (a *Agent) Busy() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return min(a.active, a.cfg.Slots)
}

// Run asks for tasks and runs them until ctx ends; then it stops what runs,
// says so to meta, and returns once all workers have ended.
func (a *Agent) Run(ctx context.Context) error {
	a.sweep(ctx)
	if a.cfg.Speed == 0 {
		a.cfg.Speed = speedOf(a.cfg.Dir)
	}
	a.speed.Store(a.cfg.Speed)
	dctx, stopDevices := context.WithCancel(context.WithoutCancel(ctx))
	defer stopDevices()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		a.devices.run(dctx)
	}()
	pause := time.Duration(0)
	for ctx.Err() == nil {
		if pause > 0 {
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
		}
		reply, woken, err := a.poll(ctx)
		switch {
		case err == nil:
			pause = 0
			a.obey(ctx, reply)
		case woken || ctx.Err() != nil:
			pause = 0
		default:
			if pause = min(max(2*pause, 100*time.Millisecond), 2*time.Second); pause == 800*time.Millisecond {
				a.log.Warn("no tasks from meta", "err", err)
			}
		}
		a.reap(time.Now().Add(-idleWorker))
	}
	a.tasks.Wait()
	stopDevices()
	<-stopped
	a.reap(time.Now().Add(time.Hour))
	a.leave(ctx)
	return nil
}

// leave tells the scheduler what has ended at the last, so that it need not
// wait for this agent.
func (a *Agent) leave(ctx context.Context) {
	a.mu.Lock()
	q := &wire.Poll{Node: a.cfg.Node, Runtimes: a.Runtimes(), Ended: a.ended}
	a.mu.Unlock()
	if len(q.Ended) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	if _, err := a.cfg.Meta.Call(ctx, wire.MethodPoll, q); err != nil {
		a.log.Info("the scheduler was not told of the end", "err", err)
	}
}

// poll asks once. woken: it was ended since a slot became free. What the leader
// may have given in that moment it gives again, since the next poll does not
// list it.
func (a *Agent) poll(ctx context.Context) (reply *wire.PollReply, woken bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, pollWait+10*time.Second)
	defer cancel()
	q := &wire.Poll{Node: a.cfg.Node, Runtimes: a.Runtimes(), Devices: a.Devices(), Speed: a.Speed(), WaitMs: uint32(pollWait.Milliseconds())}
	a.mu.Lock()
	most := a.cfg.Slots + a.pace.ahead(a.cfg.Slots)
	q.Slots = uint32(max(0, min(most-a.active, 2*most-a.held)))
	for id, x := range a.running {
		if x.told {
			continue // else the answer would be to stop it, at once, and again
		}
		q.Running = append(q.Running, &wire.RunningTask{Job: id.job, N: id.n, Attempt: id.attempt})
	}
	q.Ended = slices.Clone(a.ended)
	a.wake = func() { woken = true; cancel() }
	a.mu.Unlock()
	resp, err := a.cfg.Meta.Call(ctx, wire.MethodPoll, q)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wake = nil
	if err != nil {
		return nil, woken, err
	}
	reply, ok := resp.(*wire.PollReply)
	if !ok {
		return nil, false, wire.Errorf(wire.Internal, "poll", "", "the reply is not one of this call")
	}
	a.ended = a.ended[len(q.Ended):]
	return reply, false, nil
}

// obey carries out a reply.
func (a *Agent) obey(ctx context.Context, reply *wire.PollReply) {
	for _, s := range reply.Stop {
		a.mu.Lock()
		x := a.running[attemptID{s.Job, s.N, s.Attempt}]
		if x != nil {
			x.told = true
		}
		a.mu.Unlock()
		if x != nil {
			x.stop(errStopped)
		}
	}
	for _, s := range reply.Start {
		a.start(ctx, s)
	}
}

func (a *Agent) start(ctx context.Context, s *wire.Assignment) {
	id := attemptID{s.Task.GetJob(), s.Task.GetN(), s.Task.GetAttempt()}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running[id] != nil {
		return
	}
	// The task outlives ctx by its last words.
	tctx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	a.running[id] = &underWay{stop: stop}
	slot := 1
	if onDevice(s.Task) {
		slot = 0 // it occupies a device
	}
	a.held += slot
	a.active += slot
	a.tasks.Add(1)
	go func() {
		defer a.tasks.Done()
		unhook := context.AfterFunc(ctx, func() { stop(errShutdown) })
		defer unhook()
		taken := false
		select {
		case a.slots <- struct{}{}:
			taken = true
		case <-tctx.Done():
		}
		began := time.Now()
		// The slot is free as soon as the task has run: what follows waits for meta.
		free := sync.OnceFunc(func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			if taken {
				<-a.slots
				a.pace.note(time.Since(began))
			}
			a.active -= slot
			a.askSoon()
		})
		end := a.attempt(tctx, s, free)
		free()
		stop(nil)
		a.mu.Lock()
		defer a.mu.Unlock()
		if end != nil {
			a.ended = append(a.ended, end)
		}
		delete(a.running, id)
		a.held -= slot
		if a.active < a.cfg.Slots || slot == 0 {
			a.ask()
		} else {
			a.askSoon()
		}
	}()
}

// ask ends the poll under way, so that the next one asks for more and tells what
// has ended. mu is held.
func (a *Agent) ask() {
	if a.nudge != nil {
		a.nudge.Stop()
		a.nudge = nil
	}
	if a.wake != nil {
		a.wake()
	}
}

// askSoon is ask in a while, together with what ends meanwhile: as long as there
// are tasks to run it is not urgent. mu is held.
func (a *Agent) askSoon() {
	if a.nudge == nil {
		a.nudge = time.AfterFunc(pollGap, a.endPoll)
	}
}

// take returns a warm worker or starts one.
func (a *Agent) take(ctx context.Context) (*worker.Process, error) {
	for {
		a.mu.Lock()
		n := len(a.idle)
		if n == 0 {
			a.mu.Unlock()
			return worker.Start(ctx, a.workers)
		}
		p := a.idle[n-1].p
		a.idle = a.idle[:n-1]
		a.mu.Unlock()
		if p.Usable() {
			return p, nil
		}
		p.Close()
	}
}

// give puts a worker back, or ends it if it is of no more use.
func (a *Agent) give(p *worker.Process) {
	if !p.Usable() {
		p.Close()
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.idle = append(a.idle, idleProcess{p, time.Now()})
}

// reap ends workers that have been idle since before.
func (a *Agent) reap(before time.Time) {
	a.mu.Lock()
	var old []*worker.Process
	kept := a.idle[:0]
	for _, w := range a.idle {
		if w.since.Before(before) {
			old = append(old, w.p)
		} else {
			kept = append(kept, w)
		}
	}
	a.idle = kept
	a.mu.Unlock()
	for _, p := range old {
		p.Close()
	}
}

// Name is for logs.
func (id attemptID) String() string {
	return fmt.Sprintf("job %d task %d attempt %d", id.job, id.n, id.attempt)
}
