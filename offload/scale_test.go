package offload

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
	"quernfs/offload/worker"
)

// onIdleMachine says that figures of this machine say something: QUERN_LONG=1.
var onIdleMachine = os.Getenv("QUERN_LONG") != ""

// TestManyTasks submits a job of 100,000 tasks: the first begins soon after.
func TestManyTasks(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("100,000 tasks take too long under the race detector")
	}
	r := newRig(t)
	r.write("/in/a", "x\n")
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	id := r.submit("warm", "version: 1\nkernel: wordcount\ninputs: /in\n")
	r.wait(id) // the kernel is compiled
	start, before := time.Now(), worker.CPU()
	id = r.submit("many", "version: 1\nkernel: wordcount\ninputs: /in\narray: 100000\n")
	submitted := time.Since(start)
	r.until("a task has succeeded", func() bool {
		j, _, err := getJob(context.Background(), r, id, false)
		return err == nil && j.TasksDone > 0
	})
	took, used := time.Since(start), time.Duration(worker.CPU()-before)
	t.Logf("submitted in %v, the first task has ended after %v, of which %v of CPU", submitted, took, used)
	if limit := 2 * time.Second; onIdleMachine && used > limit {
		t.Errorf("until the first task had ended %v of CPU were used", used)
	}
	if err := Cancel(context.Background(), r, rootCred, id, "enough"); err != nil {
		t.Error(err)
	}
}

// TestSubmitInPieces: no command of the submission of a large job, be it an array, a
// tree of files or one that waits for another, is large; nor are those that end it. All
// tasks are there then.
func TestSubmitInPieces(t *testing.T) {
	const files, largest = 3000, 512 << 10
	r := newRig(t)
	long := strings.Repeat("long", 50)
	for i := range files {
		r.write(fmt.Sprintf("/in/%s-%05d", long, i), "x")
	}
	r.write("/one/a", "x")
	sizes := map[string]int{}
	r.seen = func(cmd *wire.Command) {
		n := proto.Size(cmd)
		if what := fmt.Sprintf("%T", cmd.Op); n > sizes[what] {
			sizes[what] = n
		}
		if n > largest {
			t.Errorf("%T of %d bytes", cmd.Op, n)
		}
	}
	r.lead(SchedulerConfig{})
	r.write("/out/.there", "")
	for i, c := range []struct {
		name, spec string
		tasks      uint32
	}{
		{"array", "inputs: /one\narray: 100000\n", 100_000},
		{"remembered", "inputs: /one\narray: 2000\nmemoise: true\n", 2000},
		{"files", "inputs: /in\noutput: /out/{file}\n", files},
		{"later", "inputs: /in\noutput: /out/{file}\nafter: {FIRST: any}\n", files},
		{"later array", "inputs: /one\narray: 100000\nafter: {FIRST: any}\n", 100_000},
	} {
		first := fmt.Sprint("first-", i)
		before := r.submit(first, "version: 1\nkernel: wordcount\ninputs: /one\n")
		id := r.submit(c.name, "version: 1\nkernel: wordcount\n"+strings.Replace(c.spec, "FIRST", first, 1))
		cancel := func(id uint64) {
			t.Helper()
			if err := Cancel(t.Context(), r, rootCred, id, "enough"); err != nil {
				t.Fatal(err)
			}
		}
		cancel(before)
		r.until(c.name+" has its tasks", func() bool {
			job, _, err := getJob(t.Context(), r, id, false)
			return err == nil && job.State != StateWaiting
		})
		job, tasks, err := getJob(t.Context(), r, id, true)
		if err != nil || job.Tasks != c.tasks || len(tasks) != int(c.tasks) || len(tasks[c.tasks-1].Inputs) != 1 || tasks[c.tasks-1].N != c.tasks-1 {
			t.Errorf("%s: %d tasks, %d by its record, %v, %s: %s", c.name, len(tasks), job.GetTasks(), err, job.GetState(), job.GetReason())
		}
		cancel(id)
	}
	t.Log(sizes)
}

// TestTenThousandJobs lists 10,000 jobs as `ls /.compute/jobs` does.
func TestTenThousandJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 jobs take some seconds")
	}
	r := newRig(t)
	spec := []byte("version: 1\nkernel: wordcount\ninputs: /in\n# " + string(make([]byte, 500)))
	for i := range 10_000 {
		r.must(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{
			Job: &wire.Job{Name: fmt.Sprint("job-", i), Spec: spec}, Tasks: []*wire.Task{{Phase: "map"}},
		}}})
	}
	o := NewOverlay(OverlayConfig{Files: r.files(), Meta: r})
	for _, k := range []kind{kindJobs, kindByName} {
		start := time.Now()
		entries, err := o.ReadDir(context.Background(), rootCred, node{kind: k}.ino())
		took := time.Since(start)
		if err != nil || len(entries) != 10_000 {
			t.Fatal(len(entries), err)
		}
		t.Logf("%d entries in %v", len(entries), took)
		if onIdleMachine && took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	}
}

// TestShortTasks runs many tasks that do nothing: what a task costs besides its
// kernel.
func TestShortTasks(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("the rate says nothing under the race detector")
	}
	r := newRig(t)
	r.write("/ok.wasm", string(assemble()))
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	r.wait(r.submit("warm", "version: 1\nwasm: /ok.wasm\narray: 200\n"))
	const n = 5000
	start := time.Now()
	job, _ := r.wait(r.submit("many", fmt.Sprintf("version: 1\nwasm: /ok.wasm\narray: %d\n", n)))
	took := time.Since(start)
	if job.State != StateSucceeded {
		t.Fatalf("%s: %s", job.State, job.Reason)
	}
	rate := float64(n) / took.Seconds()
	t.Logf("%d tasks in %v: %.0f a second", n, took, rate)
	if onIdleMachine && rate < 1000 {
		t.Errorf("%.0f tasks a second", rate)
	}
}
