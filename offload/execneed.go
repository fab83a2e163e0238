package offload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/place"
	"quernfs/offload/sandbox"
)

// The runtimes of steps.
const (
	runtimeWasm = "wasm"
	runtimeExec = "exec"
)

// stepOf is what the tasks of a phase run.
func stepOf(spec *jobfile.Spec, phase string) jobfile.Step {
	if phase == "reduce" && spec.Reduce != nil {
		return jobfile.Inherit(*spec.Reduce, spec.Map)
	}
	return spec.Map
}

// need is what a program needs of a host.
type need struct {
	program   string
	env       []string
	network   bool
	uid       uint32
	cpu       float64
	memory    int64
	gpus      int
	gpuMemory int64
}

func needOf(spec *jobfile.Spec, x *jobfile.Exec, cred *wire.Cred) need {
	return need{
		program: x.Argv[0], env: x.Environ(), network: x.Network, uid: cred.GetUid(), cpu: spec.Resources.CPU, memory: spec.Memory,
		gpus: spec.Resources.GPU, gpuMemory: spec.Resources.GPUMemory,
	}
}

// condition is what a host must meet to run a program, and what is said if it does
// not.
type condition struct {
	code  wire.Code
	rank  int // how many of the conditions were met before this one
	match func(need, *wire.ExecOffer) bool
	why   string
}

// conditions are in the order in which they are told.
var conditions = []condition{
	{wire.Unsupported, 0, func(_ need, o *wire.ExecOffer) bool { return o != nil }, "it runs no programs"},
	{wire.Denied, 1, func(n need, o *wire.ExecOffer) bool { return sandbox.Allowed(o.Allow, n.program) },
		"its administrator has not allowed the program"},
	{wire.Denied, 1, func(n need, o *wire.ExecOffer) bool {
		return slices.Contains(o.Allow, "*") || sandbox.Widens(n.program, n.env) == ""
	}, "its administrator allows certain programs only, and a variable of env would make them run others (PATH, LD_PRELOAD and the like)"},
	{wire.Denied, 2, func(n need, o *wire.ExecOffer) bool { return o.AnyUser || o.Uid == n.uid },
		"its agent is not root, and so runs programs of its own user only"},
	{wire.Denied, 3, func(n need, o *wire.ExecOffer) bool { return o.Network || !n.network },
		"its administrator has not allowed programs the network"},
	{wire.Unsupported, 4, func(n need, o *wire.ExecOffer) bool { return o.LimitsCpu || n.cpu == 0 },
		"it cannot limit the share of processors (resources.cpu), for want of a control group"},
	{wire.Unsupported, 5, func(n need, o *wire.ExecOffer) bool { return n.cpu <= float64(o.Cpus) }, "it has fewer processors"},
	{wire.Unsupported, 6, func(n need, o *wire.ExecOffer) bool { return uint64(n.memory) <= o.Memory }, "it has less memory"},
	{wire.Unsupported, 7, func(n need, o *wire.ExecOffer) bool { return n.gpus <= len(o.Gpus) }, "it has fewer GPUs"},
	{wire.Unsupported, 8, func(n need, o *wire.ExecOffer) bool {
		fit := 0
		for _, m := range o.Gpus {
			if m >= uint64(n.gpuMemory) {
				fit++
			}
		}
		return fit >= n.gpus
	}, "its GPUs have less memory (or do not tell how much)"},
}

// refuse is the first condition that a host does not meet; nil: it can run the
// program.
func (n need) refuse(o *wire.ExecOffer) *condition {
	for i := range conditions {
		if !conditions[i].match(n, o) {
			return &conditions[i]
		}
	}
	return nil
}

// phases are those of a job's steps.
func phases(spec *jobfile.Spec) []string {
	if spec.Reduce != nil {
		return []string{"map", "reduce"}
	}
	return []string{"map"}
}

// runsProgram refuses a job whose program no host of the cluster could ever run:
// with the reason of the host that comes nearest. Where no host has registered
// yet, the job waits for one.
func (e *expander) runsProgram(ctx context.Context, spec *jobfile.Spec, step jobfile.Step) error {
	agents, err := e.hosts(ctx, spec)
	if err != nil {
		return err
	}
	n := needOf(spec, step.Exec, e.cred)
	var best *condition
	host, hosts := "", 0
	for _, node := range agents {
		hosts++
		missed := n.refuse(node.Node.Exec)
		if missed == nil {
			return nil
		}
		if best == nil || missed.rank > best.rank {
			best, host = missed, node.Node.Name
		}
	}
	switch {
	case best == nil:
		return nil
	case best.rank == 0:
		return problem(best.code, e.job, step.KernelLine, "no host of this cluster runs programs: an administrator lets one with --exec-allow %s", n.program)
	case best.rank == 1:
		return problem(best.code, e.job, step.KernelLine, "no host allows the program %s: an administrator lets one with --exec-allow %s", n.program, n.program)
	case hosts == 1:
		return problem(best.code, e.job, step.KernelLine, "the host %s cannot run this: %s", host, best.why)
	}
	return problem(best.code, e.job, step.KernelLine, "none of %s can run this; the nearest, %s: %s", count(hosts, "host"), host, best.why)
}

// program pins what a program is: its arguments and environment.
func program(x *jobfile.Exec) *wire.KernelRef {
	sum := sha256.New()
	for _, s := range append(slices.Clone(x.Argv), x.Environ()...) {
		fmt.Fprintf(sum, "%d %s\n", len(s), s)
	}
	return &wire.KernelRef{Name: "exec " + x.Argv[0], Digest: sum.Sum(nil)}
}

// binds finds and pins what the programs of a job may read beside their inputs.
func (e *expander) binds(ctx context.Context, spec *jobfile.Spec) ([]*wire.TaskInput, error) {
	var all []jobfile.Input
	steps := []jobfile.Step{spec.Map}
	if spec.Reduce != nil {
		steps = append(steps, *spec.Reduce)
	}
	for _, step := range steps {
		if step.Exec != nil {
			all = append(all, step.Exec.Binds...)
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	found, err := e.expand(ctx, all)
	if err != nil {
		return nil, err
	}
	if len(found) > maxBoundFiles {
		return nil, problem(wire.Invalid, e.job, all[0].Line, "exec.binds are %d files; at most %d are allowed", len(found), maxBoundFiles)
	}
	return found, nil
}

// maxBoundFiles bounds the files of exec.binds: they are kept with the job.
const maxBoundFiles = 4096

// runtime is the name of a runtime that only agents are said to have that can
// run the program. Programs that need the same share it.
func (n need) runtime() string { return fmt.Sprintf("%s %+v", runtimeExec, n) }

// runtimeName is the runtime as people know it.
func runtimeName(runtime string) string {
	name, _, _ := strings.Cut(runtime, " ")
	return name
}

// program is what the job's program of a phase needs; ok is false if that phase
// runs a module.
func (j *jobState) program(phase string) (n need, ok bool) {
	if j.spec == nil {
		return n, false
	}
	x := stepOf(j.spec, phase).Exec
	if x == nil {
		return n, false
	}
	return needOf(j.spec, x, j.job.Cred), true
}

// amount is what a task takes of a host while it runs; zero: a slot.
func (j *jobState) amount(phase string) place.Amount {
	n, ok := j.program(phase)
	if !ok {
		return place.Amount{}
	}
	return place.Amount{Slots: 1, CPU: int64(1000 * n.cpu), Memory: n.memory, GPU: 1000 * int64(n.gpus)}
}

// offered adds to an agent what its programs can have.
func offered(offer *wire.ExecOffer, a *place.Agent, d *place.Device) {
	if offer == nil {
		return
	}
	a.Capacity = place.Amount{CPU: 1000 * int64(offer.Cpus), Memory: int64(offer.Memory)}
	a.Free = a.Capacity
	d.Capacity.GPU = 1000 * int64(len(offer.Gpus))
	d.Free.GPU = d.Capacity.GPU
}

// taken takes off what a program has.
func taken(need place.Amount, a *place.Agent, d *place.Device) {
	if a.Capacity == (place.Amount{}) {
		return
	}
	a.Free.CPU = max(0, a.Free.CPU-need.CPU)
	a.Free.Memory = max(0, a.Free.Memory-need.Memory)
	d.Free.GPU = max(0, d.Free.GPU-need.GPU)
}

// wanted are the programs that pending tasks need, by the name of their runtime.
// mu is held.
func (t *term) wanted() map[string]need {
	out := map[string]need{}
	for _, j := range t.jobs {
		if len(j.pending) == 0 || j.spec == nil {
			continue
		}
		for _, phase := range phases(j.spec) {
			if n, ok := j.program(phase); ok {
				out[n.runtime()] = n
			}
		}
	}
	return out
}

// can are the runtimes of an agent, with the programs among the wanted that it
// may run.
func (a *agentState) can(wanted map[string]need, offer *wire.ExecOffer) []string {
	out := a.ownRuntimes()
	if !slices.Contains(out, runtimeExec) {
		return out
	}
	for runtime, n := range wanted {
		if n.refuse(offer) == nil {
			out = append(out, runtime)
		}
	}
	slices.Sort(out)
	return out
}

// ExecConfig is what an agent needs to run programs of the host.
type ExecConfig struct {
	Host    *sandbox.Host
	Allow   []string // patterns of argv[0]; see sandbox.Allowed
	Network bool     // programs may have the host's network
}

func (c *ExecConfig) check() error {
	if c.Host == nil {
		return errors.New("agent: programs are allowed, but there is no sandbox")
	}
	for _, p := range c.Allow {
		if err := sandbox.CheckPattern(p); err != nil {
			return fmt.Errorf("agent: allowed programs: %w", err)
		}
	}
	return nil
}

// Offer is what meta is told; nil if there is nothing that may be run.
func (c *ExecConfig) Offer() *wire.ExecOffer {
	if c == nil || len(c.Allow) == 0 {
		return nil
	}
	o := c.Host.Offer()
	o.Allow, o.Network = c.Allow, c.Network
	return o
}

// describe is the offer in the words of hosts/HOST/devices.
func describeExec(o *wire.ExecOffer) string {
	if o == nil {
		return ""
	}
	text := "programs: " + strings.Join(o.Allow, " ")
	if o.Network {
		text += ", with the network"
	}
	if !o.AnyUser {
		text += fmt.Sprintf(", of uid %d", o.Uid)
	}
	return text + "\n"
}
