package integration

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// writeText makes a text of about n bytes: lines of words between different white
// space, some of them long, and no end of line at its end. A few words are not of
// ASCII, or have marks in them.
func writeText(t *testing.T, path string, n int) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	words := make([]string, 2000)
	for i := range words {
		b := make([]byte, 2+r.IntN(9))
		for j := range b {
			b[j] = byte('a' + r.IntN(26))
		}
		words[i] = string(b)
	}
	copy(words[100:], []string{"Mühle", "粉", "don't,", "\xff\xfe", "x=1;", "\u00a0", "--", "7"})
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for written := 0; written < n; {
		line := 1 + r.IntN(15)
		if r.IntN(1000) == 0 {
			line = 500
		}
		if r.IntN(100000) == 0 {
			line = 20000
		}
		for i := range line {
			k, _ := w.WriteString(words[int(float64(len(words))*r.Float64()*r.Float64())])
			written += k + 1
			if i+1 < line {
				w.WriteByte(" \t \v \f \r "[r.IntN(9)])
			}
		}
		if written < n {
			w.WriteString([]string{"\n", "\r\n", "\n\n"}[r.IntN(3)])
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// submitJob puts a job file into the queue of a mount, by rename.
func submitJob(t *testing.T, mnt, name, text string) (dir string) {
	t.Helper()
	aside := filepath.Join(mnt, name+".yaml")
	writeFile(t, aside, text)
	if err := os.Rename(aside, filepath.Join(mnt, ".compute", "queue", name+".yaml")); err != nil {
		why, _ := os.ReadFile(filepath.Join(mnt, ".compute", "errors", name))
		t.Fatalf("%v: %s", err, why)
	}
	return filepath.Join(mnt, ".compute", "by-name", name)
}

// usage reads the numbers of a job's file usage.
func usage(t *testing.T, job string) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for line := range strings.Lines(readFile(t, filepath.Join(job, "usage"))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("usage: %q", line)
		}
		out[name] = v
	}
	return out
}

// waitAgents waits until n agents are alive.
func (c *cluster) waitAgents(n int) {
	c.t.Helper()
	eventually(c.t, patience, func() error {
		files, _ := filepath.Glob(filepath.Join(c.mnt, ".compute", "hosts", "*", "load"))
		alive := 0
		for _, f := range files {
			if raw, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(raw), "alive") {
				alive++
			}
		}
		if alive != n {
			return fmt.Errorf("%d agents are alive, %d wanted", alive, n)
		}
		return nil
	})
}

// countWords runs the job NAME over /text.txt and returns its directory and how
// long it took.
func (c *cluster) countWords(name string) (job string, took time.Duration) {
	c.t.Helper()
	start := time.Now()
	job = submitJob(c.t, c.mnt, name, "version: 1\nkernel: wordcount\ninputs: /text.txt\nsplit: shard\nreduce: {}\noutput: words\n")
	if how := shell(c.t, c.mnt, "cat "+job+"/wait"); !strings.HasPrefix(how, "succeeded") {
		c.t.Fatalf("%s%s", how, readFile(c.t, filepath.Join(job, "plan")))
	}
	return job, time.Since(start)
}

// TestShardJob counts words of a text that lies on six servers, each with an
// agent on its host: each reads its own shards, and less than one byte of a
// hundred goes over the network. With QUERN_LONG=1 it counts once more with
// fewer agents: what docs/performance.md has.
func TestShardJob(t *testing.T) {
	mib := 64
	if long {
		mib = 1024
	}
	c := startCluster(t, "--processes", "--chunk-servers", "6", "--policy", "4+2", "--agents", "6")
	c.waitAgents(6)
	text := filepath.Join(c.mnt, "text.txt")
	writeText(t, text, mib<<20)
	st, err := os.Stat(text)
	if err != nil {
		t.Fatal(err)
	}
	size := float64(st.Size())
	report := func(agents int, u map[string]float64, took time.Duration) {
		t.Logf("%d agents, %.0f MiB in %.1f s: %.1f s of CPU in workers, %.0f MiB read on the host, %.3f MiB over the network (%.2f %%)",
			agents, size/(1<<20), took.Seconds(), u["cpu_seconds"], u["bytes_local"]/(1<<20), u["bytes_remote"]/(1<<20), 100*u["bytes_remote"]/size)
	}
	job, took := c.countWords("count")
	u := usage(t, job)
	report(6, u, took)
	if u["bytes_remote"] >= size/100 {
		t.Errorf("%.0f bytes of %.0f went over the network: more than 1 %%\n%s", u["bytes_remote"], size, readFile(t, filepath.Join(job, "plan")))
	}
	if u["bytes_local"] < size {
		t.Errorf("%.0f bytes of %.0f were read on the hosts that hold them", u["bytes_local"], size)
	}
	got := shell(t, c.mnt, "LC_ALL=C sort "+job+"/out/words | sha256sum")
	want := shell(t, c.mnt, "export LC_ALL=C; tr -s '[:space:]' '\\n' < text.txt | sort | uniq -c | sed 's/^ *//' | sort | sha256sum")
	if got != want {
		t.Errorf("sort | uniq -c counts otherwise")
	}
	if !long {
		return
	}
	for agents := 6; agents > 1; {
		for keep := max(agents-2, 1); agents > keep; agents-- {
			c.kill(fmt.Sprintf("agent-%d", agents))
		}
		c.waitAgents(agents)
		job, took := c.countWords(fmt.Sprintf("count-%d", agents))
		report(agents, usage(t, job), took)
		if again := shell(t, c.mnt, "LC_ALL=C sort "+job+"/out/words | sha256sum"); again != want {
			t.Errorf("%d agents count otherwise", agents)
		}
	}
}
