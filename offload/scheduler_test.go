package offload

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// puppet is an agent that a test moves by hand.
type puppet struct {
	r       *rig
	node    uint32
	running []*wire.RunningTask
	ended   []*wire.EndedTask
	devices []*wire.Device
	speed   uint32
}

func (p *puppet) poll(ctx context.Context, slots, waitMs int) (*wire.PollReply, error) {
	m, err := p.r.Call(ctx, wire.MethodPoll, &wire.Poll{
		Node: p.node, Slots: uint32(slots), Runtimes: []string{"wasm"}, WaitMs: uint32(waitMs), Running: p.running, Ended: p.ended,
		Devices: p.devices, Speed: p.speed})
	if err != nil {
		return nil, err
	}
	return m.(*wire.PollReply), nil
}

// get polls until it is given n tasks, which then run.
func (p *puppet) get(n int) []*wire.Assignment {
	p.r.t.Helper()
	var got []*wire.Assignment
	p.r.until(fmt.Sprintf("node %d is given %d tasks", p.node, n), func() bool {
		reply, err := p.poll(p.r.t.Context(), n-len(got), 200)
		if err != nil {
			return false
		}
		for _, s := range reply.Start {
			got = append(got, s)
			p.running = append(p.running, &wire.RunningTask{Job: s.Task.Job, N: s.Task.N, Attempt: s.Task.Attempt})
		}
		return len(got) >= n
	})
	return got
}

// end reports the end of an attempt.
func (p *puppet) end(s *wire.Assignment, state string, failures uint32) error {
	t := shallowTask(s.Task)
	t.State, t.Reason, t.Failures, t.Inputs = state, "as the test says", failures, nil
	t.Timing = &wire.Timing{RunNs: 1e6}
	_, err := p.r.apply(&wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: t}}})
	for i, x := range p.running {
		if x.Job == t.Job && x.N == t.N && x.Attempt == t.Attempt {
			p.running = append(p.running[:i:i], p.running[i+1:]...)
			p.ended = append(p.ended, &wire.EndedTask{Task: x, State: state, Failures: failures, Timing: t.Timing})
			break
		}
	}
	return err
}

// bigTasks submits a job of n tasks.
func bigTasks(r *rig, name string, n int, more string) uint64 {
	r.t.Helper()
	var tasks []*wire.Task
	for i := range n {
		tasks = append(tasks, &wire.Task{Phase: "map", Inputs: []*wire.TaskInput{{Path: fmt.Sprintf("/x/%d", i), Ino: 5000, Size: 1 << 20}}})
	}
	spec := "version: 1\nkernel: sha256sum\ninputs: [/x]\n" + more
	parsed, err := jobfile.Parse([]byte(spec))
	if err != nil {
		r.t.Fatal(err)
	}
	job := &wire.Job{Name: name, Spec: []byte(spec), Kernels: []*wire.KernelRef{{Name: "k"}}}
	if parsed.Reduce != nil {
		job.Kernels = append(job.Kernels, &wire.KernelRef{Name: "r"})
	}
	return r.must(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{Job: job, Tasks: tasks}}}).Value
}

func TestPhases(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	id := bigTasks(r, "two", 3, "reduce: {}\n")
	p := &puppet{r: r, node: r.addNode("agent", "a", "h")}
	for _, s := range p.get(3) {
		if s.Task.Phase != "map" || s.Task.Attempt != 1 || len(s.Task.Inputs) != 1 || s.Job.Id != id {
			t.Errorf("%+v", s)
		}
		if err := p.end(s, StateSucceeded, 0); err != nil {
			t.Fatal(err)
		}
	}
	s := p.get(1)[0]
	var paths []string
	for _, in := range s.Task.Inputs {
		paths = append(paths, in.Path)
	}
	if s.Task.Phase != "reduce" || s.Task.N != 3 || strings.Join(paths, " ") != ".part.00000 .part.00001 .part.00002" {
		t.Errorf("%+v", s.Task)
	}
	if job, _, _ := getJob(t.Context(), r, id, false); Ended(job.State) {
		t.Errorf("before its reduce step the job is %s", job.State)
	}
	if err := p.end(s, StateSucceeded, 0); err != nil {
		t.Fatal(err)
	}
	if job, tasks := r.wait(id); job.State != StateSucceeded || len(tasks) != 4 {
		t.Errorf("%s, %d tasks", job.State, len(tasks))
	}
}

// TestLostReply: an assignment whose reply did not reach the agent is given
// again, as the same attempt.
func TestLostReply(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	id := bigTasks(r, "one", 1, "")
	p := &puppet{r: r, node: r.addNode("agent", "a", "h")}
	first := p.get(1)[0]
	p.running = nil // as if it had never come
	again := p.get(1)[0]
	if first.Task.Attempt != 1 || again.Task.Attempt != 1 || again.Task.N != first.Task.N {
		t.Errorf("attempts %d and %d", first.Task.Attempt, again.Task.Attempt)
	}
	if err := p.end(again, StateSucceeded, 0); err != nil {
		t.Fatal(err)
	}
	r.wait(id)
}

// TestLostAgent: a silent agent's task goes to another, costs no retry, and
// what the old one says later is refused; when it comes back it is told to stop.
func TestLostAgent(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{LostAfter: 300 * time.Millisecond})
	id := bigTasks(r, "one", 1, "retries: 0\n")
	a := &puppet{r: r, node: r.addNode("agent", "a", "h")}
	old := a.get(1)[0]
	b := &puppet{r: r, node: r.addNode("agent", "b", "h")}
	s := b.get(1)[0]
	if s.Task.Attempt != 2 || s.Task.Failures != 0 {
		t.Errorf("%+v", s.Task)
	}
	reply, err := a.poll(t.Context(), 0, 5000)
	if err != nil || len(reply.Stop) != 1 || reply.Stop[0].Attempt != 1 {
		t.Errorf("%v, %v", reply, err)
	}
	if err := a.end(old, StateSucceeded, 0); !errors.Is(err, wire.Stale) {
		t.Errorf("the old attempt commits: %v", err)
	}
	if err := b.end(s, StateSucceeded, 0); err != nil {
		t.Fatal(err)
	}
	if job, _ := r.wait(id); job.State != StateSucceeded {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
}

// TestNewLeader: a new term takes over what runs, gives nothing twice, and
// waits for agents to come.
func TestNewLeader(t *testing.T) {
	r := newRig(t)
	stop := r.lead(SchedulerConfig{})
	id := bigTasks(r, "two", 3, "")
	p := &puppet{r: r, node: r.addNode("agent", "a", "h")}
	two := p.get(2)
	stop()
	if _, err := p.poll(t.Context(), 1, 0); err == nil {
		t.Error("a scheduler that does not lead answers")
	}
	if err := p.end(two[0], StateSucceeded, 0); err != nil {
		t.Fatal(err)
	}
	r.lead(SchedulerConfig{})
	third := p.get(1)[0]
	if third.Task.N == two[1].Task.N {
		t.Error("a running task was given again")
	}
	for _, s := range []*wire.Assignment{two[1], third} {
		if err := p.end(s, StateSucceeded, 0); err != nil {
			t.Fatal(err)
		}
	}
	if job, _ := r.wait(id); job.State != StateSucceeded {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
}

// TestFailedTask: a failure beyond the retries ends the job, and stops what
// else it runs.
func TestFailedTask(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	id := bigTasks(r, "two", 2, "retries: 0\n")
	p := &puppet{r: r, node: r.addNode("agent", "a", "h")}
	two := p.get(2)
	if err := p.end(two[1], StateFailed, 1); err != nil {
		t.Fatal(err)
	}
	job, _ := r.wait(id)
	if job.State != StateFailed || job.Reason != fmt.Sprintf("task %d (/x/%[1]d): as the test says", two[1].Task.N) {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
	reply, err := p.poll(t.Context(), 0, 5000)
	if err != nil || len(reply.Stop) != 1 || reply.Stop[0].N != two[0].Task.N {
		t.Errorf("%v, %v", reply, err)
	}
}

// TestNobody: a job that no host can run says so.
func TestNobody(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{LostAfter: 50 * time.Millisecond})
	id := bigTasks(r, "one", 1, "")
	r.until("the reason says so", func() bool {
		job, _, err := getJob(t.Context(), r, id, false)
		return err == nil && job.State == StatePending && job.Reason == "waiting: no host that runs wasm is connected"
	})
}

func TestAfterFailure(t *testing.T) {
	for _, c := range []struct {
		attempt, failures uint32
		retries           int
		fault             bool
		state, reason     string
	}{
		{1, 1, 2, true, StatePending, "to be tried again: attempt 1: boom"},
		{3, 3, 2, true, StateFailed, "boom (the last of 3 attempts that failed)"},
		{1, 1, 0, true, StateFailed, "boom"},
		{5, 1, 0, true, StateFailed, "boom"},
		{7, 0, 0, false, StatePending, "to be tried again: attempt 7: boom"},
		{21, 0, 0, false, StateFailed, "given up after 21 attempts, 21 of them lost; the last: boom"},
		{22, 2, 5, true, StatePending, "to be tried again: attempt 22: boom"},
	} {
		state, reason := afterFailure(c.attempt, c.failures, c.retries, c.fault, "boom")
		if state != c.state || reason != c.reason {
			t.Errorf("%+v: %s, %q", c, state, reason)
		}
	}
}

// TestChaos: agents that lose replies, die, fail and lie, and leaders that
// change: every task succeeds exactly once, and no attempt number runs twice at
// one time on two agents.
func TestChaos(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	r := newRig(t)
	cfg := SchedulerConfig{LostAfter: 200 * time.Millisecond, LateAfter: time.Millisecond} // second attempts, too
	stop := r.lead(cfg)
	const jobs, each = 4, 25
	for i := range jobs {
		bigTasks(r, fmt.Sprint("job", i), each, "retries: 20\n")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	type key struct {
		job     uint64
		n       uint32
		attempt uint32
	}
	var mu sync.Mutex
	owner := map[key]uint32{}
	succeeded := map[[2]uint64]int{}
	var wg sync.WaitGroup
	for i := range 4 {
		rnd := rand.New(rand.NewSource(rnd.Int63()))
		node := r.addNode("agent", fmt.Sprint("a", i), fmt.Sprint("h", i))
		wg.Add(1)
		go func() {
			defer wg.Done()
			p := &puppet{r: r, node: node}
			held := map[key]*wire.Assignment{}
			for ctx.Err() == nil {
				done := true
				if open, err := r.Jobs(); err != nil || len(open) > 0 {
					done = false
				}
				if done {
					return
				}
				reply, err := p.poll(ctx, 4-len(held), rnd.Intn(30))
				if err != nil || rnd.Intn(10) == 0 {
					continue // no leader, or the reply is lost
				}
				p.ended = nil
				for _, s := range reply.Start {
					k := key{s.Task.Job, s.Task.N, s.Task.Attempt}
					mu.Lock()
					if other, taken := owner[k]; taken && other != node {
						t.Errorf("seed %d: %v runs on %d and %d", seed, k, other, node)
					}
					owner[k] = node
					mu.Unlock()
					if held[k] == nil {
						held[k] = s
						p.running = append(p.running, &wire.RunningTask{Job: k.job, N: k.n, Attempt: k.attempt})
					}
				}
				for k, s := range held {
					switch x := rnd.Intn(20); {
					case x < 10:
						if err := p.end(s, StateSucceeded, s.Task.Failures); err == nil {
							mu.Lock()
							succeeded[[2]uint64{k.job, uint64(k.n)}]++
							mu.Unlock()
						} else if !errors.Is(err, wire.Stale) {
							t.Errorf("seed %d: %v", seed, err)
						}
						delete(held, k)
					case x < 12:
						state, _ := afterFailure(k.attempt, s.Task.Failures+1, 20, true, "chaos")
						_ = p.end(s, state, s.Task.Failures+1)
						delete(held, k)
					case x < 13: // the agent dies and is started again
						p.running, p.ended = nil, nil
						clear(held)
					}
				}
				for _, s := range reply.Stop {
					delete(held, key{s.Job, s.N, s.Attempt})
					for i, x := range p.running {
						if x.Job == s.Job && x.N == s.N && x.Attempt == s.Attempt {
							p.running = append(p.running[:i:i], p.running[i+1:]...)
							break
						}
					}
				}
			}
		}()
	}
	for range 3 {
		timer := time.NewTimer(time.Duration(100+rnd.Intn(200)) * time.Millisecond)
		<-timer.C
		stop()
		stop = r.lead(cfg)
	}
	wg.Wait()
	if ctx.Err() != nil {
		open, _ := r.Jobs()
		t.Fatalf("seed %d: %d jobs did not end", seed, len(open))
	}
	for id := uint64(1); id <= jobs; id++ {
		job, tasks, err := getJob(t.Context(), r, id, true)
		if err != nil {
			t.Fatal(err)
		}
		if job.State != StateSucceeded || job.TasksDone != each {
			t.Errorf("seed %d: job %d is %s: %s", seed, id, job.State, job.Reason)
		}
		for _, x := range tasks {
			if n := succeeded[[2]uint64{id, uint64(x.N)}]; n != 1 {
				t.Errorf("seed %d: task %d of job %d succeeded %d times", seed, x.N, id, n)
			}
		}
	}
}
