package offload

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// stuckFiles are files whose outputs cannot be stored until the gate is closed,
// whatever becomes of the context.
type stuckFiles struct {
	rigFiles
	gate chan struct{}
}

type stuckFile struct {
	File
	gate chan struct{}
}

func (s stuckFiles) Create(ctx context.Context, dir uint64, name string, mode uint32) (File, error) {
	f, err := s.rigFiles.Create(ctx, dir, name, mode)
	return stuckFile{f, s.gate}, err
}

func (f stuckFile) Flush(ctx context.Context) error {
	<-f.gate
	return f.File.Flush(ctx)
}

// TestCancelWhileStoring: a task that is cancelled while its output is being stored
// gives its slot to the next at once.
func TestCancelWhileStoring(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	gate := make(chan struct{})
	r.startAgent("a", func(c *AgentConfig) { c.Slots, c.Files = 1, stuckFiles{rigFiles{r}, gate} })
	t.Cleanup(func() { // before the agent ends
		select {
		case <-gate:
		default:
			close(gate)
		}
	})
	r.write("/x", strings.Repeat("some text\n", 10_000))
	id := r.submit("stuck", "version: 1\nkernel: cat\ninputs: /x\n")
	r.until("it stores", func() bool { return len(r.attempts()) == 1 && r.busy() == 1 })
	if err := Cancel(t.Context(), r, rootCred, id, "enough"); err != nil {
		t.Fatal(err)
	}
	next := r.submit("next", "version: 1\nkernel: sha256sum\ninputs: /x\n")
	if job, _ := r.wait(next); job.State != StateSucceeded {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
	if job, _ := r.wait(id); job.State != StateCancelled {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
	close(gate)
	r.until("what was stored is removed", func() bool { return len(r.attempts()) == 0 })
}

// noted is a File that notes what is written to it.
type noted struct {
	File
	size  int64
	parts []string
}

func (n *noted) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	n.parts = append(n.parts, fmt.Sprintf("%d+%d", off, len(p)))
	n.size = max(n.size, off+int64(len(p)))
	return len(p), nil
}

// TestSparseOutput: the holes of what a program leaves are not written, and are zeros
// to who looks for lines.
func TestSparseOutput(t *testing.T) {
	const mega = 1 << 20
	for _, c := range []struct {
		name  string
		at    []int64 // 4 KiB of data each
		size  int64
		most  int64 // bytes that may be written
		found bool
	}{
		{"holes between", []int64{0, 512 * mega}, 1 << 40, 64 << 10, true},
		{"a hole alone", nil, 300 * mega, 1, false},
		{"no hole", []int64{0}, 4096, 4096, true},
		{"empty", nil, 0, 0, false},
		{"data at the end", []int64{64*mega - 4096}, 64 * mega, 64 << 10, true},
	} {
		name := filepath.Join(t.TempDir(), "out")
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range c.at {
			if _, err := f.WriteAt([]byte("a line\n"+strings.Repeat("x", 4089)), off); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Truncate(c.size); err != nil {
			t.Skipf("%s cannot be made here: %v", c.name, err)
		}
		run := &attemptRun{find: &finder{re: regexp.MustCompile("^a line$")}}
		if len(c.at) > 0 && c.at[0] > 0 { // after a hole a line begins with zeros
			run.find.re = regexp.MustCompile("\x00a line$")
		}
		if len(c.at) == 0 {
			run.find = nil // reading zeros takes its time
		}
		to := &noted{}
		if err := run.copyData(t.Context(), to, f, c.size); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		written := int64(0)
		for _, p := range to.parts {
			var off, n int64
			fmt.Sscanf(p, "%d+%d", &off, &n)
			written += n
		}
		if to.size != c.size || written > c.most {
			t.Errorf("%s: %d bytes of %d written: %v", c.name, written, to.size, to.parts)
		}
		if run.find != nil && run.find.found != c.found {
			t.Errorf("%s: found: %v", c.name, run.find.found)
		}
		// The copy of an input on a host is as sparse.
		if c.size <= 64*mega {
			copied, err := os.Create(name + ".copy")
			if err == nil {
				_, _ = f.Seek(0, 0)
				err = copySparse(copied, f)
			}
			st, err2 := os.Stat(name + ".copy")
			a, err3 := os.ReadFile(name)
			b, err4 := os.ReadFile(name + ".copy")
			if err != nil || err2 != nil || err3 != nil || err4 != nil || st.Size() != c.size || string(a) != string(b) {
				t.Errorf("%s: the copy: %v %v %v %v", c.name, err, err2, err3, err4)
			}
			copied.Close()
		}
		f.Close()
	}
}

// TestTimeoutSaysWhy: a time-out is told with the last line of the standard error.
func TestTimeoutSaysWhy(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startPrograms("a", nil)
	r.write("/x", "text\n")
	id := r.submit("late", "version: 1\ninputs: /x\nretries: 0\ntimeout: 1s\nexec: {argv: [sh, -c, 'echo step 1 >&2; echo waiting for the moon >&2; sleep 1000']}\n")
	if job, _ := r.wait(id); job.Reason != "task 0 (/x): time-out: stopped after 1s: waiting for the moon" {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
}

func TestRemaining(t *testing.T) {
	for _, c := range []struct{ expect, elapsed, want time.Duration }{
		{time.Minute, 10 * time.Second, 50 * time.Second},
		{time.Minute, time.Minute, 10 * time.Millisecond},
		{time.Minute, 3 * time.Minute, 2 * time.Minute}, // late: never "about 1s" for minutes
		{0, 40 * time.Second, 40 * time.Second},
	} {
		if got := remaining(c.expect, c.elapsed); got != c.want {
			t.Errorf("%s of %s: %s", c.elapsed, c.expect, got)
		}
	}
}
