package offload

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestGoesOn: with on_failure: continue the other tasks go on, so many at once as the
// array says, and the reduce step runs over what they left; what has failed is listed,
// and a retry runs that alone, and the reduce step anew.
func TestGoesOn(t *testing.T) {
	r := newRig(t)
	r.write("/in/a", "x")
	r.lead(SchedulerConfig{})
	id := r.submit("many", "version: 1\nkernel: sha256sum\ninputs: /in\narray: \"1,3,7-9%2\"\nretries: 0\n"+
		"on_failure: continue\nmax_failed: 60%\nreduce: {}\nreduce_rest: true\nspeculation: false\n")
	p := &puppet{r: r, node: r.addNode("agent", "a", "h")}
	run := func(n int, fails ...uint32) (ran []uint32) {
		t.Helper()
		under := p.get(min(n, 2))
		for n > 0 {
			if len(under) > 2 {
				t.Fatalf("%d tasks run at once", len(under))
			}
			if len(under) == 2 {
				reply, err := p.poll(t.Context(), 4, 50)
				if err != nil || len(reply.Start) > 0 {
					t.Fatalf("beside two that run: %v, %v", reply, err)
				}
			}
			s := under[0]
			under = under[1:]
			ran = append(ran, s.Task.N)
			state, failures := StateSucceeded, uint32(0)
			if slices.Contains(fails, s.Task.N) {
				state, failures = StateFailed, 1
			}
			if err := p.end(s, state, failures); err != nil {
				t.Fatal(err)
			}
			if n--; n > len(under) {
				under = append(under, p.get(1)...)
			}
		}
		slices.Sort(ran)
		return ran
	}
	reduce := func(attempt uint32, parts string) {
		t.Helper()
		s := p.get(1)[0]
		var got []string
		for _, in := range s.Task.Inputs {
			got = append(got, in.Path)
		}
		if s.Task.Phase != "reduce" || s.Task.Attempt != attempt || strings.Join(got, " ") != parts {
			t.Errorf("attempt %d of phase %s over %v, want attempt %d over %s", s.Task.Attempt, s.Task.Phase, got, attempt, parts)
		}
		if err := p.end(s, StateSucceeded, 0); err != nil {
			t.Fatal(err)
		}
	}
	if ran := run(5, 0, 3); !slices.Equal(ran, []uint32{0, 1, 2, 3, 4}) {
		t.Errorf("tasks %v ran", ran)
	}
	reduce(1, ".part.00001 .part.00002 .part.00004")
	job, _ := r.wait(id)
	if job.State != StateFailed || !strings.HasPrefix(job.Reason, "2 of 6 tasks failed; task ") {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
	s := newShell(t, r, 0)
	failed, err := s.cat(fmt.Sprintf("jobs/%d/failed", id))
	if want := "0\ta\t/in/a\tas the test says\n3\ta\t/in/a\tas the test says\n"; err != nil || failed != want {
		t.Errorf("failed: %q, %v", failed, err)
	}
	if err := Retry(t.Context(), r, rootCred, id, "again"); err != nil {
		t.Fatal(err)
	}
	if ran := run(2); !slices.Equal(ran, []uint32{0, 3}) {
		t.Errorf("the retry ran tasks %v", ran)
	}
	reduce(2, ".part.00000 .part.00001 .part.00002 .part.00003 .part.00004")
	if job, _ := r.wait(id); job.State != StateSucceeded {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
	if failed, err := s.cat(fmt.Sprintf("jobs/%d/failed", id)); err != nil || failed != "" {
		t.Errorf("failed: %q, %v", failed, err)
	}
}

// TestTooManyFail: with more failures than max_failed the job ends, and what runs is
// stopped.
func TestTooManyFail(t *testing.T) {
	r := newRig(t)
	r.write("/in/a", "x")
	r.lead(SchedulerConfig{})
	id := r.submit("many", "version: 1\nkernel: sha256sum\ninputs: /in\narray: 5\nretries: 0\non_failure: continue\nmax_failed: 1\n")
	p := &puppet{r: r, node: r.addNode("agent", "a", "h")}
	three := p.get(3)
	for _, s := range three[:2] {
		if err := p.end(s, StateFailed, 1); err != nil {
			t.Fatal(err)
		}
	}
	job, tasks := r.wait(id)
	if job.State != StateFailed || !strings.HasPrefix(job.Reason, "2 of 5 tasks failed; ") || tasks[three[2].Task.N].State != StateCancelled {
		t.Errorf("%s: %s, %v", job.State, job.Reason, tasks)
	}
	if reply, err := p.poll(t.Context(), 0, 5000); err != nil || len(reply.Stop) != 1 {
		t.Errorf("%v, %v", reply, err)
	}
}
