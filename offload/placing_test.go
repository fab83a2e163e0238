package offload

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/place"
)

// label gives a node labels.
func (r *rig) label(node uint32, labels ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.nodes {
		if n.Node.Id != node {
			continue
		}
		for _, l := range labels {
			key, value, _ := strings.Cut(l, "=")
			n.Node.Labels = append(n.Node.Labels, &wire.Label{Key: key, Value: value})
		}
	}
}

// placed submits a job of n tasks of a MiB that lie on servers.
func placed(r *rig, name string, n int, more string, ref *wire.KernelRef, servers ...uint32) uint64 {
	r.t.Helper()
	spec := "version: 1\nkernel: sha256sum\ninputs: [/x]\n" + more
	if _, err := jobfile.Parse([]byte(spec)); err != nil {
		r.t.Fatal(err)
	}
	var tasks []*wire.Task
	for i := range n {
		tasks = append(tasks, &wire.Task{Phase: "map", Inputs: []*wire.TaskInput{{Path: fmt.Sprintf("/x/%d", i), Ino: 5000, Size: 1 << 20, Servers: servers}}})
	}
	if ref == nil {
		ref = &wire.KernelRef{Name: "k"}
	}
	job := &wire.Job{Name: name, Spec: []byte(spec), Kernels: []*wire.KernelRef{ref}}
	return r.must(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{Job: job, Tasks: tasks}}}).Value
}

// reason is what the file of that name says of a job.
func (r *rig) reason(id uint64) string {
	r.t.Helper()
	job, _, err := getJob(r.t.Context(), r, id, false)
	if err != nil {
		r.t.Fatal(err)
	}
	wait, err := waitText(r.t.Context(), r, job)
	if err != nil {
		r.t.Fatal(err)
	}
	return job.Reason + wait
}

// settleOn waits until the reason of a job contains text, while the puppets keep
// polling for a task each, and says which of them were given any.
func (r *rig) settleOn(id uint64, text string, all ...*puppet) (given []uint32) {
	r.t.Helper()
	last := ""
	defer func() {
		if r.t.Failed() {
			r.t.Logf("the last reason: %s", last)
		}
	}()
	r.until("the reason is "+text, func() bool {
		for _, p := range all {
			slots := 1
			if len(p.running) > 0 {
				slots = 0
			}
			reply, err := p.poll(r.t.Context(), slots, 20)
			if err == nil && len(reply.Start) > 0 {
				given = append(given, p.node)
				for _, s := range reply.Start {
					p.running = append(p.running, &wire.RunningTask{Job: s.Task.Job, N: s.Task.N, Attempt: s.Task.Attempt})
				}
			}
		}
		last = r.reason(id)
		return strings.Contains(last, text)
	})
	return given
}

// TestPlacementOfHosts: a job runs only on the hosts that its job file allows, by
// name, by label, by the zone that a chunk server beside the agent says; and says
// so while none of them is there.
func TestPlacementOfHosts(t *testing.T) {
	for _, c := range []struct{ placement, want string }{
		{"hosts: second", "none of the hosts second that can run it is connected"},
		{"hosts: rack=r2 and not first", "none of the hosts rack=r2 and not first that can run it is connected"},
		{"zones: [b, c]", "none of the hosts in zone b or c that can run it is connected"},
		{"{hosts: [first, second], zones: b}", "none of the hosts first or second in zone b that can run it is connected"},
	} {
		t.Run(c.placement, func(t *testing.T) {
			r := newRig(t)
			r.lead(SchedulerConfig{LostAfter: 300 * time.Millisecond})
			p := &puppet{r: r, node: r.addNode("agent", "first:m", "h1")}
			q := &puppet{r: r, node: r.addNode("agent", "second:m", "h2")}
			r.label(p.node, "rack=r2", "zone=a")
			r.label(q.node, "rack=r2")
			r.label(r.addNode("chunkd", "store", "h2"), "zone=b", "rack=r9")
			id := placed(r, "job", 1, "placement: "+indented(c.placement), nil)
			if given := r.settleOn(id, c.want, p); given != nil {
				t.Fatalf("nodes %v were given a task", given)
			}
			if got := q.get(1)[0]; got.Task.Job != id {
				t.Errorf("%+v", got.Task)
			}
		})
	}
}

// indented is a mapping in one line, or one below its field.
func indented(s string) string {
	if strings.HasPrefix(s, "{") {
		return s + "\n"
	}
	return "{" + s + "}\n"
}

// TestPlacementStrict: a task waits for the host of its data however long, and says
// for which; with any, the data's place is nothing.
func TestPlacementStrict(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{LostAfter: 300 * time.Millisecond})
	server := r.addNode("chunkd", "store", "h2")
	p := &puppet{r: r, node: r.addNode("agent", "first", "h1")}
	q := &puppet{r: r, node: r.addNode("agent", "second", "h2")}
	id := placed(r, "strict", 2, "placement: {locality: strict}\n", nil, server)
	if given := r.settleOn(id, "the data of task 0 lies on second (locality: strict), which runs no tasks now", p); given != nil {
		t.Fatalf("nodes %v were given a task", given)
	}
	q.get(1)
	if given := r.settleOn(id, "the data of task 1 lies on second (locality: strict), which is busy, about ", p, q); given != nil {
		t.Fatalf("nodes %v were given a task", given)
	}
	free := placed(r, "any", 1, "placement: {locality: any}\n", nil, server)
	got := p.get(1)[0]
	if got.Task.Job != free {
		t.Errorf("%+v", got.Task)
	}
	if x := got.Task.Placement.Places[got.Task.Placement.Chosen]; x.Missing != 1<<20 {
		t.Errorf("with any, %d bytes are missing", x.Missing)
	}
}

// TestPlacementGang: a gang waits until all of it can start, says so, and starts at
// once.
func TestPlacementGang(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	p := &puppet{r: r, node: r.addNode("agent", "first", "h1")}
	q := &puppet{r: r, node: r.addNode("agent", "second", "h2")}
	busy := bigTasks(r, "busy", 1, "")
	first := p.get(1)[0] // p has one slot, which is taken
	id := placed(r, "gang", 3, "gang: true\n", nil)
	if given := r.settleOn(id, "its 3 tasks start together (gang), and ", q); given != nil || first.Task.Job != busy {
		t.Fatalf("nodes %v were given a task", given)
	}
	if err := p.end(first, StateSucceeded, 0); err != nil {
		t.Fatal(err)
	}
	done := make(chan []*wire.Assignment, 1)
	go func() { done <- p.get(1) }()
	got := q.get(2)
	got = append(got, <-done...)
	numbers := []uint32{}
	for _, s := range got {
		if s.Task.Job != id {
			t.Errorf("%+v", s.Task)
		}
		numbers = append(numbers, s.Task.N)
	}
	if slices.Sort(numbers); !slices.Equal(numbers, []uint32{0, 1, 2}) {
		t.Errorf("tasks %v have started", numbers)
	}
}

var twoVariants = &wire.KernelRef{Name: "both@1", Digest: []byte{1}, Runtimes: []string{"wasm", "opencl"}, Manifest: []byte(bothManifest),
	Files: []*wire.KernelFile{{Name: "k.cl", Digest: []byte{2}}}}

const bothManifest = "version: 1\nwasm: k.wasm\nopencl:\n  input: [{stream: in}]\n  run: [{entry: f, args: [in], global: [in.n]}]\n  output: {raw: in}\n"

func gpu(name string, change func(*wire.Device)) *wire.Device {
	d := &wire.Device{Name: name, Class: "opencl model", Runtime: "opencl", State: DeviceReady, Slots: 1}
	if change != nil {
		change(d)
	}
	return d
}

// TestVariantByCost: which variant of a kernel a task runs is decided with the
// host, by what both are expected to cost: first nothing is known of the device,
// so one task finds out; then what was learned decides.
func TestVariantByCost(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	p := &puppet{r: r, node: r.addNode("agent", "a", "h"), devices: []*wire.Device{gpu("opencl:0.0", nil)}}
	placed(r, "first", 40, "", twoVariants)
	ran := map[string]int{}
	for range 12 {
		for _, s := range p.get(1) {
			ran[s.Task.Runtime]++
			ns := int64(2e9)
			if s.Task.Runtime == "opencl" {
				if ns = 1e8; s.Task.Device != "opencl:0.0" {
					t.Errorf("opencl on %s", s.Task.Device)
				}
			}
			if err := p.finish(s, &wire.Timing{RunNs: ns}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if ran["wasm"] == 0 || ran["opencl"] < 5 {
		t.Errorf("of the first twelve ran %v", ran)
	}
	// Twenty times slower: it is not used where both are free.
	s := p.get(1)[0]
	if s.Task.Runtime != "opencl" {
		t.Errorf("the next runs with %s: %v", s.Task.Runtime, s.Task.Placement)
	}
	var seen []string
	for _, x := range s.Task.Placement.Places {
		seen = append(seen, x.Runtime)
	}
	if slices.Sort(seen); !slices.Equal(seen, []string{"opencl", "wasm"}) {
		t.Errorf("the table compares %v", seen)
	}
}

// TestVariantChoice: which variants are used at all.
func TestVariantChoice(t *testing.T) {
	for _, c := range []struct {
		name, more string
		device     *wire.Device
		want       string // runtime of the first task; "": none starts
	}{
		{"no device: wasm", "", nil, "wasm"},
		{"no device, though it is preferred", "runtime: [opencl, wasm]\n", nil, "wasm"},
		{"the preferred one is tried", "runtime: [opencl, wasm]\n", gpu("opencl:0.0", nil), "opencl"},
		{"the order is the job's", "runtime: [wasm, opencl]\n", gpu("opencl:0.0", nil), "wasm"},
		{"not in quarantine", "runtime: [opencl, wasm]\n", gpu("opencl:0.0", func(d *wire.Device) { d.State = DeviceQuarantined }), "wasm"},
		{"not a variant that differs", "runtime: [opencl, wasm]\n", gpu("opencl:0.0", func(d *wire.Device) { d.Differs = [][]byte{{2}} }), "wasm"},
		{"though another does", "runtime: [opencl, wasm]\n", gpu("opencl:0.0", func(d *wire.Device) { d.Differs = [][]byte{{3}} }), "opencl"},
		{"not a simulated device", "runtime: [opencl, wasm]\n", gpu("opencl:0.0", func(d *wire.Device) { d.Simulated = true }), "wasm"},
		{"a simulated device if that is allowed", "runtime: [opencl, wasm]\nplacement: {simulated: true}\n", gpu("opencl:0.0", func(d *wire.Device) { d.Simulated = true }), "opencl"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.lead(SchedulerConfig{})
			p := &puppet{r: r, node: r.addNode("agent", "a", "h")}
			if c.device != nil {
				p.devices = []*wire.Device{c.device}
			}
			placed(r, "job", 1, c.more, twoVariants)
			if s := p.get(1)[0]; s.Task.Runtime != c.want {
				t.Errorf("it runs with %s", s.Task.Runtime)
			}
		})
	}
	t.Run("only simulated devices", func(t *testing.T) {
		r := newRig(t)
		r.lead(SchedulerConfig{LostAfter: 300 * time.Millisecond})
		p := &puppet{r: r, node: r.addNode("agent", "a", "h"), devices: []*wire.Device{gpu("opencl:0.0", func(d *wire.Device) { d.Simulated = true })}}
		id := placed(r, "job", 1, "runtime: opencl\n", twoVariants)
		if given := r.settleOn(id, "opencl runs on simulated devices only, which this job does not allow (placement.simulated)", p); given != nil {
			t.Error("it was started")
		}
	})
}

// TestVariantAfterFailure: a task that failed on a device is tried again elsewhere,
// if only on the processors of the same host.
func TestVariantAfterFailure(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	p := &puppet{r: r, node: r.addNode("agent", "a", "h"), devices: []*wire.Device{gpu("opencl:0.0", nil)}}
	placed(r, "job", 1, "runtime: [opencl, wasm]\n", twoVariants)
	s := p.get(1)[0]
	if s.Task.Runtime != "opencl" {
		t.Fatalf("it runs with %s", s.Task.Runtime)
	}
	if err := p.end(s, StatePending, 1); err != nil {
		t.Fatal(err)
	}
	if s := p.get(1)[0]; s.Task.Runtime != "wasm" || s.Task.Attempt != 2 {
		t.Errorf("attempt %d runs with %s", s.Task.Attempt, s.Task.Runtime)
	}
}

// TestSubmitPlacement: what no host of the cluster could ever do is refused, with a
// sentence and its line.
func TestSubmitPlacement(t *testing.T) {
	r := newRig(t)
	r.write("/x/a", "x")
	r.write("/x/b", "x")
	r.write("/x/c", "x")
	r.addNode("chunkd", "store", "h1") // node 1, which has all files
	s := Submitter{Files: r.files(), Meta: r}
	try := func(name, spec string) error {
		_, err := s.Submit(t.Context(), rootCred, name, []byte("version: 1\nkernel: histogram\n"+spec))
		return err
	}
	if err := try("early", "inputs: /x\nplacement: {hosts: nobody, locality: strict}\n"); err != nil {
		t.Errorf("before any host has registered: %v", err)
	}
	a := r.addNode("agent", "a", "h2")
	r.addNode("agent", "b", "h3")
	r.label(a, "zone=z")
	r.mu.Lock()
	r.nodes[1].Devices = []*wire.Device{gpu("opencl:0.0", func(d *wire.Device) { d.Simulated = true })}
	r.mu.Unlock()
	for i, c := range []struct{ spec, want string }{
		{"inputs: /x\nplacement: {hosts: c*}\n", "line 4: no host of this cluster that runs tasks is one of the hosts c*"},
		{"inputs: /x\nplacement: {hosts: b, zones: z}\n", "line 4: no host of this cluster that runs tasks is one of the hosts b in zone z"},
		{"inputs: /x\nplacement:\n  zones: [y]\n", "line 5: no host of this cluster that runs tasks is one of the hosts in zone y"},
		{"inputs: /x\nplacement: {locality: strict}\n", "line 4: the data of task 0 lies on store, and no host that may run it holds as much (locality: strict)"},
		{"inputs: /x\nruntime: opencl\n", `line 2: opencl runs on simulated devices only; "placement: {simulated: true}" allows them`},
		{"inputs: /x\nruntime: opencl\nplacement: {hosts: b}\n", "line 2: none of the hosts b runs opencl"},
		{"inputs: /x\nruntime: opencl\nplacement: {simulated: true}\n", ""},
		{"inputs: /x\narray: 4\ngang: true\n", ""},
		{"inputs: /x\narray: 5\ngang: true\n", "line 5: its 5 tasks are to start together (gang), and any host can run 4 at once"},
		{"inputs: /x\narray: 5\ngang: true\nplacement: {simulated: true}\n", ""},
		{"inputs: /x\narray: 3\ngang: true\nplacement: {zones: z}\n", "line 5: its 3 tasks are to start together (gang), and hosts in zone z can run 2 at once"},
		{"inputs: /x\narray: 2000\ngang: true\n", "line 5: a gang of 2000 tasks is too large; at most 1024 may start together"},
		{"inputs: /x\nplacement: {locality: any, hosts: a or b, zones: z}\nshare: 3\nobjective: makespan\n", ""},
	} {
		err := try(fmt.Sprint("job-", i), c.spec)
		if c.want == "" && err != nil || c.want != "" && (err == nil || sentence(err) != c.want) {
			t.Errorf("%q: %v\nwant %s", c.spec, err, c.want)
		}
		if code := wire.CodeOf(err); c.want != "" && code != wire.Unsupported && !strings.Contains(c.want, "too large") {
			t.Errorf("%q: %v", c.spec, code)
		}
	}
}

// TestPattern: what the job file says reaches placement.
func TestPattern(t *testing.T) {
	spec, err := jobfile.Parse([]byte("version: 1\nkernel: k\ninputs: /x\nruntime: [opencl, wasm]\nshare: 3\npriority: 5\nobjective: makespan\ngang: true\nreduce: {}\n" +
		"placement: {locality: strict, hosts: a*, simulated: true}\n"))
	if err != nil {
		t.Fatal(err)
	}
	tm := newTerm(NewScheduler(SchedulerConfig{}), nil)
	tm.nodes = []*wire.NodeStatus{{Node: &wire.Node{Id: 1, Name: "a1", Kind: "agent"}}, {Node: &wire.Node{Id: 2, Name: "b", Kind: "agent"}}, {Node: &wire.Node{Id: 3, Name: "a2", Kind: "chunkd"}}}
	job := &wire.Job{Id: 7, Cred: &wire.Cred{Uid: 42}, Priority: 5, Kernels: []*wire.KernelRef{twoVariants, twoVariants}}
	j := &jobState{spec: spec, job: job, pending: []uint32{0, 1, 2}}
	for n, bytes := range []uint64{10, 30, 20} {
		j.tasks = append(j.tasks, &taskState{bytes: bytes, t: &wire.Task{Job: 7, N: uint32(n), Phase: "map"}})
	}
	p := tm.pattern(j, "map")
	if p.User != "42" || p.Priority != 5 || p.Share != 3 || p.Objective != place.Makespan || p.Gang != 3 || !p.Strict || !p.Simulated || !p.Ordered || len(p.Nodes) != 1 || !p.Nodes[1] {
		t.Errorf("%+v", p)
	}
	if a := p.Alternatives; len(a) != 2 || a[0].Runtime != "opencl" || a[0].Digest != "\x02" || a[1].Runtime != "wasm" || a[1].Digest != "" {
		t.Errorf("%+v", a)
	}
	if p := tm.pattern(j, "reduce"); p.Gang != 0 || len(p.Alternatives) != 1 || p.Alternatives[0].Runtime != "wasm" || !p.Nodes[1] {
		t.Errorf("the reduce step: %+v", p)
	}
	j.fill(nil, 1)
	var order []uint32
	for _, x := range j.queue.Pick(nil, 9, nil, 0) {
		order = append(order, x.ID.N)
	}
	if !slices.Equal(order, []uint32{1, 2, 0}) {
		t.Errorf("where the last end counts the tasks come in the order %v", order)
	}
}
