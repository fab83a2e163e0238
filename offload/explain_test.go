package offload

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/place"
)

// TestExplain: a task that runs says where it could have run and what that would
// have cost; one that waits for its bytes' host says so; both after their end,
// too; and what is learned from the first changes what is expected of the next.
func TestExplain(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{Model: place.Model{Network: 10e6, Process: 50e6}})
	r.addNode("chunkd", "store", "h2") // node 1 is on the second agent's host
	p := &puppet{r: r, node: r.addNode("agent", "first", "h1")}
	q := &puppet{r: r, node: r.addNode("agent", "second", "h2")}
	for range 2 { // both are known before there is anything to do
		if _, err := p.poll(t.Context(), 0, 0); err != nil {
			r.until("there is a leader", func() bool { _, err = p.poll(t.Context(), 0, 0); return err == nil })
		}
		if _, err := q.poll(t.Context(), 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	spec := "version: 1\nkernel: sha256sum\ninputs: [/x]\n"
	job := &wire.Job{Name: "near", Spec: []byte(spec), Kernels: []*wire.KernelRef{{Name: "k"}}}
	tasks := []*wire.Task{
		{Phase: "map", Inputs: []*wire.TaskInput{{Path: "/x/0", Ino: 5000, Size: 1 << 30, Servers: []uint32{1}}}},
		{Phase: "map", Inputs: []*wire.TaskInput{{Path: "/x/1", Ino: 5001, Size: 1 << 30, Servers: []uint32{1}}}},
	}
	id := r.must(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{Job: job, Tasks: tasks}}}).Value

	a := q.get(1)[0]
	// The other would end later on the first host than behind this one: it waits,
	// though there is a slot.
	done := make(chan error, 1)
	go func() { _, err := p.poll(t.Context(), 1, 300); done <- err }()
	var e *Explanation
	r.until("the task runs, the other is compared", func() bool {
		var err error
		if e, err = Explain(t.Context(), r, "near"); err != nil {
			t.Fatal(err)
		}
		return len(e.Tasks[1-a.Task.N].Placement.GetPlaces()) == 2
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ran, waits := e.Tasks[a.Task.N].Placement, e.Tasks[1-a.Task.N].Placement
	if len(ran.Places) != 1 && len(ran.Places) != 2 || ran.Waits || ran.Places[ran.Chosen].Node != q.node || ran.Places[ran.Chosen].Missing != 0 {
		t.Errorf("the task that runs: %v", ran)
	}
	if len(waits.Places) != 2 || !waits.Waits || waits.Places[waits.Chosen].Node != q.node || waits.Places[waits.Chosen].WaitUs == 0 {
		t.Errorf("the task that waits: %v", waits)
	}
	other := waits.Places[1-waits.Chosen]
	if other.Node != p.node || other.Missing != 1<<30 || other.FetchUs == 0 || PlaceTotal(other) <= PlaceTotal(waits.Places[waits.Chosen]) {
		t.Errorf("the place that was not chosen: %v", other)
	}
	var text bytes.Buffer
	if err := e.Write(&text, 10, -1); err != nil || !strings.Contains(text.String(), "waits for second/cpu") || !strings.Contains(text.String(), "first/cpu") {
		t.Errorf("%v\n%s", err, text.String())
	}

	// It ran for 2 s: a tenth of what was believed.
	before := ran.Places[ran.Chosen].RunUs
	if err := q.finish(a, &wire.Timing{RunNs: 2e9, ReadNs: 1, WarmNs: 5e8}); err != nil {
		t.Fatal(err)
	}
	b := q.get(1)[0]
	if err := q.finish(b, &wire.Timing{RunNs: 2e9, ReadNs: 1}); err != nil {
		t.Fatal(err)
	}
	r.wait(id)
	if e, _ = Explain(t.Context(), r, "near"); e == nil || len(e.Tasks[b.Task.N].Placement.GetPlaces()) == 0 {
		t.Fatal("after its end the task has no placement")
	}
	next := e.Tasks[b.Task.N].Placement
	x := next.Places[next.Chosen]
	if got := time.Duration(x.RunUs) * time.Microsecond; x.Source != "learned" || got.Round(time.Millisecond) != 2*time.Second || x.RunUs >= before {
		t.Errorf("the next was expected to take %v by %s; before, %d µs", got, x.Source, before)
	}
	if x.WarmUs != 0 {
		t.Errorf("a warm kernel is expected to warm up for %d µs", x.WarmUs)
	}
	if e.Tasks[a.Task.N].Timing.GetRunNs() != 2e9 {
		t.Errorf("timing %v", e.Tasks[a.Task.N].Timing)
	}
}

// finish reports success with a timing.
func (p *puppet) finish(s *wire.Assignment, timing *wire.Timing) error {
	t := shallowTask(s.Task)
	t.State, t.Reason, t.Inputs, t.Placement, t.Timing = StateSucceeded, "as the test says", nil, nil, timing
	_, err := p.r.apply(&wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: t}}})
	for i, x := range p.running {
		if x.Job == t.Job && x.N == t.N && x.Attempt == t.Attempt {
			p.running = append(p.running[:i:i], p.running[i+1:]...)
			p.ended = append(p.ended, &wire.EndedTask{Task: x, State: StateSucceeded, Timing: timing, BytesIn: 1 << 30, BytesOut: 100})
			break
		}
	}
	return err
}

// TestLearnFromRecords: a leader that has seen nothing learns from the records
// of a job that has not ended.
func TestLearnFromRecords(t *testing.T) {
	r := newRig(t)
	stop := r.lead(SchedulerConfig{})
	bigTasks(r, "two", 2, "")
	p := &puppet{r: r, node: r.addNode("agent", "a", "h")}
	if err := p.finish(p.get(1)[0], &wire.Timing{RunNs: 7e9}); err != nil {
		t.Fatal(err)
	}
	stop()
	p.ended = nil
	r.lead(SchedulerConfig{}) // a new scheduler: it knows nothing
	second := p.get(1)[0]
	x := second.Task.GetPlacement().GetPlaces()[second.Task.GetPlacement().GetChosen()]
	if got := micros(x.RunUs); x.Source != "learned" || got.Round(time.Millisecond) != 7*time.Second {
		t.Errorf("%v by %s", got, x.Source)
	}
}

// TestReasonOfWaiting: the reason of a job that waits for a busy host says for how
// long, though nothing was decided about it.
func TestReasonOfWaiting(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	bigTasks(r, "first", 1, "")
	p := &puppet{r: r, node: r.addNode("agent", "a", "h")}
	p.get(1)
	id := bigTasks(r, "second", 1, "")
	r.until("the second job is known", func() bool {
		job, _, err := getJob(t.Context(), r, id, false)
		if err != nil {
			t.Fatal(err)
		}
		wait, err := waitText(t.Context(), r, job)
		if err != nil {
			t.Fatal(err)
		}
		return strings.HasPrefix(wait, "; the host that can run it is busy, about ")
	})
}
