package integration

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestJobKilled runs a job of 1,000 tasks through what can die beneath it: one
// agent is held still until its tasks were given to others and then goes on, one
// is killed, the leading metadata server is killed, and all agents at once. Each
// output is there once and right, and no other.
func TestJobKilled(t *testing.T) {
	const tasks, agents = 1000, 6
	c := startCluster(t, "--processes", "--chunk-servers", "6", "--policy", "4+2", "--agents", fmt.Sprint(agents))
	c.waitAgents(agents)
	want := manyFiles(t, filepath.Join(c.mnt, "in"), tasks)
	shell(t, c.mnt, "mkdir results")

	job := submitJob(t, c.mnt, "kills", "version: 1\nkernel: sha256sum\ninputs: /in/*\noutput: /results/{file}\nretries: 0\n")
	// until waits for so many tasks more to be done, while the job goes on.
	until := func(what string, more float64) {
		t.Helper()
		from := usage(t, job)["done"]
		eventually(t, patience, func() error {
			done := usage(t, job)["done"]
			if done == tasks {
				t.Fatalf("the job was over before this: %s", what)
			}
			if done < from+more {
				return fmt.Errorf("%.0f of %d tasks are done, before this: %s", done, tasks, what)
			}
			return nil
		})
		u := usage(t, job)
		t.Logf("%4.0f done after %.1f s: %s", u["done"], u["wall_seconds"], what)
	}
	until("agent-1 is held still", 20)
	still := c.pid("agent-1")
	unix.Kill(still, unix.SIGSTOP)
	defer unix.Kill(still, unix.SIGCONT)
	until("agent-2 is killed", 50)
	c.kill("agent-2")
	until("the leader is killed", 50)
	old := c.leader("")
	c.kill(old)
	until("all agents are killed", 50)
	for i := 3; i <= agents; i++ {
		c.kill(fmt.Sprintf("agent-%d", i))
	}
	for i := 2; i <= agents; i++ {
		c.restart(fmt.Sprintf("agent-%d", i))
	}
	c.restart(old)

	if how := shell(t, c.mnt, "cat "+job+"/wait"); !strings.HasPrefix(how, "succeeded") {
		t.Fatalf("%s%s", how, readFile(t, filepath.Join(job, "plan")))
	}
	u := usage(t, job)
	t.Logf("%.0f attempts for %d tasks in %.1f s", u["attempts"], tasks, u["wall_seconds"])
	checkResults(t, c.mnt, want)

	// What was held still goes on where it was: with attempts that others have made
	// since, whose results stay as they are.
	unix.Kill(still, unix.SIGCONT)
	c.waitAgents(agents)
	checkResults(t, c.mnt, want)
	m := c.secondMount()
	checkResults(t, m.dir, want)
}

// manyFiles makes n files of different sizes in dir, and returns the digest of
// each by its name.
func manyFiles(t *testing.T, dir string, n int) map[string]string {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for i := range n {
		name := fmt.Sprintf("%04d.bin", i)
		data := pattern(uint64(i), 96<<10+i*131%(64<<10))
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
		want[name] = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	return want
}

// checkResults compares what is in /results with the digests of the inputs.
func checkResults(t *testing.T, mnt string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(mnt, "results"))
	if err != nil {
		t.Fatal(err)
	}
	var wrong []error
	for _, e := range entries {
		digest, ok := want[e.Name()]
		if !ok {
			wrong = append(wrong, fmt.Errorf("%s is no result", e.Name()))
			continue
		}
		got := readFile(t, filepath.Join(mnt, "results", e.Name()))
		if line := fmt.Sprintf("%s  /in/%s\n", digest, e.Name()); got != line {
			wrong = append(wrong, fmt.Errorf("%s: %q, wanted %q", e.Name(), got, line))
		}
	}
	if len(entries) != len(want) {
		wrong = append(wrong, fmt.Errorf("%d results, and there are %d inputs", len(entries), len(want)))
	}
	if len(wrong) > 0 {
		t.Fatal(errors.Join(wrong[:min(len(wrong), 5)]...))
	}
}
