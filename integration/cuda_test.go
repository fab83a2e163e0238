package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"quernfs/offload/cudastub"
)

// needCUDA has this test run a copy of quern that has quern-cuda beside it, built
// for the stub of a driver: no GPU has a part in it. The copy lies in a directory
// of its own, so that no quern that is kept offers such a GPU.
func needCUDA(t *testing.T) {
	t.Helper()
	dir := workDir(t)
	if _, err := cudastub.Build(dir); errors.Is(err, cudastub.ErrNoCompiler) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(quern)
	if err != nil {
		t.Fatal(err)
	}
	kept := quern
	quern = filepath.Join(dir, "quern")
	t.Cleanup(func() { quern = kept })
	if err := os.WriteFile(quern, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestCUDAJob: a job that asks for CUDA runs on the host that has a GPU, here a
// stub, with nothing but files.
func TestCUDAJob(t *testing.T) {
	needMount(t)
	needCUDA(t)
	out, err := exec.Command(quern, "worker", "--probe", "cuda").CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"id":"`+cudastub.GPU+`"`) {
		t.Fatalf("quern worker --probe cuda: %s, %v", out, err)
	}
	if out := mustQuern(t, "kernel", "test", "matmul", "--size", "32KiB"); !strings.Contains(out, "cuda:"+cudastub.GPU) || strings.Count(out, "ok") < 2 {
		t.Errorf("quern kernel test:\n%s", out)
	}
	if out := mustQuern(t, "kernel", "ls"); !strings.Contains(out, "cuda") {
		t.Errorf("quern kernel ls:\n%s", out)
	}
	c := startCluster(t)
	compute := filepath.Join(c.mnt, ".compute")
	const m, k, n = 20, 30, 10
	shell(t, c.mnt, "mkdir m")
	writeFile(t, filepath.Join(c.mnt, "m", "a"), arrayOf(m, k, func(i, j int) float32 { return float32(i - j) }))
	writeFile(t, filepath.Join(c.mnt, "m", "b"), arrayOf(k, n, func(i, j int) float32 { return float32(i * j % 7) }))
	writeFile(t, filepath.Join(c.mnt, "mul.yaml"), "version: 1\nkernel: matmul\nruntime: cuda\ninputs: [/m/a, /m/b]\nsplit: none\n")
	if err := os.Rename(filepath.Join(c.mnt, "mul.yaml"), filepath.Join(compute, "queue", "mul.yaml")); err != nil {
		t.Fatalf("%v: %s", err, readFile(t, filepath.Join(compute, "errors", "mul")))
	}
	job := filepath.Join(compute, "by-name", "mul")
	if how := readFile(t, filepath.Join(job, "wait")); !strings.HasPrefix(how, "succeeded") {
		t.Fatal(how)
	}
	if device := readFile(t, filepath.Join(job, "tasks", "0", "device")); strings.TrimSpace(device) != "cuda:"+cudastub.GPU {
		t.Errorf("it ran on %q", device)
	}
	want := arrayOf(m, n, func(i, j int) float32 {
		sum := float32(0)
		for l := range k {
			sum += float32(i-l) * float32(l*j%7)
		}
		return sum
	})
	if got := readFile(t, filepath.Join(job, "out", "output")); got != want {
		t.Error("the product is wrong")
	}
}
