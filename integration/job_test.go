package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestJob drives a job through /.compute alone, from the file to its result.
func TestJob(t *testing.T) {
	c := startCluster(t)
	shell(t, c.mnt, "mkdir text && for i in 1 2 3 4 5; do { for j in $(seq $i); do echo the quick brown fox; done; echo lazy dog $i; } > text/$i.txt; done")
	compute := filepath.Join(c.mnt, ".compute")
	writeFile(t, filepath.Join(c.mnt, "count.yaml"), `version: 1
kernel: wordcount
inputs:
  - /text/*.txt
split: file
reduce:
  params: {top: "3"}
output: words.txt
`)
	if err := os.Rename(filepath.Join(c.mnt, "count.yaml"), filepath.Join(compute, "queue", "count.yaml")); err != nil {
		t.Fatal(err)
	}
	job := filepath.Join(compute, "by-name", "count")
	shell(t, c.mnt, "cat "+job+"/wait")
	if state := strings.TrimSpace(readFile(t, filepath.Join(job, "state"))); state != "succeeded" {
		t.Fatalf("state %s: %s", state, readFile(t, filepath.Join(job, "reason")))
	}
	got := readFile(t, filepath.Join(job, "out", "words.txt"))
	lines := strings.Split(strings.TrimSpace(got), "\n")
	if len(lines) != 3 {
		t.Fatalf("three words were asked for: %q", got)
	}
	for _, line := range lines {
		n, word, _ := strings.Cut(line, " ")
		if v, err := strconv.Atoi(n); err != nil || v != 15 || !strings.Contains("the quick brown fox", word) {
			t.Errorf("%q: each of the quick brown fox comes 15 times", line)
		}
	}
	// The same file again is the same job; another one under its name is refused.
	out := mustQuern(t, "job", "ls", "--data", c.data)
	if !strings.Contains(out, "count") || !strings.Contains(out, "succeeded") {
		t.Errorf("quern job ls:\n%s", out)
	}
	// Why it ran where it did.
	for what, text := range map[string]string{
		"plan": readFile(t, filepath.Join(job, "plan")), "quern job explain": mustQuern(t, "job", "explain", "count", "--data", c.data),
	} {
		if !strings.Contains(text, "RUN FROM") || !strings.Contains(text, "/cpu") || !strings.Contains(text, "expected to take") {
			t.Errorf("%s has no table of costs:\n%s", what, text)
		}
	}
	if out := mustQuern(t, "job", "explain", "count", "--task", "1", "--json", "--data", c.data); !strings.Contains(out, `"chosen"`) {
		t.Errorf("quern job explain --json:\n%s", out)
	}

	t.Run("typo", func(t *testing.T) {
		path := filepath.Join(c.mnt, "bad.yaml")
		writeFile(t, path, "version: 1\nkernel: wordcount\ninputz: [/text/*.txt]\n")
		err := os.Rename(path, filepath.Join(compute, "queue", "bad.yaml"))
		if err == nil {
			t.Fatal("a job file with a typo is taken")
		}
		if errno, ok := err.(*os.LinkError).Err.(unix.Errno); !ok || errno != unix.EINVAL {
			t.Errorf("%v, wanted EINVAL", err)
		}
		if text := readFile(t, filepath.Join(compute, "errors", "bad")); !strings.Contains(text, "inputz") || !strings.Contains(text, "3") {
			t.Errorf("the error names neither the field nor its line: %q", text)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the file that was refused is gone: %v", err)
		}
	})
	eventually(t, patience, func() error {
		if text := shell(t, compute, "cat hosts/*/devices"); !strings.HasPrefix(text, "cpu runtimes=wasm") || !strings.Contains(text, " speed=") {
			return fmt.Errorf("the devices do not show how fast a processor is: %s", text)
		}
		return nil
	})
	c.killAll()
	c.start()
	if again := readFile(t, filepath.Join(job, "out", "words.txt")); again != got {
		t.Errorf("after kill -9 and a restart the result is %q", again)
	}
}
