package integration

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"quernfs/offload/onnxworker"
)

// needONNX builds the worker for models beside quern, or skips the test.
func needONNX(t *testing.T) {
	t.Helper()
	needTool(t, "gcc")
	cmd := exec.Command("go", "build", "-o", filepath.Join(filepath.Dir(quern), "quern-onnx"), "quernfs/cmd/quern-onnx")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if out, err := exec.Command(quern, "worker", "--probe", "onnx").CombinedOutput(); err != nil {
		t.Skipf("no onnxruntime on this host (QUERN_ONNXRUNTIME names the file of the library, libonnxruntime.so.1): %s", out)
	}
}

// TestModelJob: a model that was registered with cp computes the records of
// files.
func TestModelJob(t *testing.T) {
	needMount(t)
	needONNX(t)
	c := startCluster(t)
	compute := filepath.Join(c.mnt, ".compute")
	dir := filepath.Join(compute, "kernels", "largest", "1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// y = x for three numbers: the label of the largest.
	if err := os.WriteFile(filepath.Join(dir, "model.onnx"), onnxworker.Dense([]float32{1, 0, 0, 0, 1, 0, 0, 0, 1}, 3, 3), 0o644); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "kernel.yaml"), `version: 1
onnx:
  input: {type: uint8, shape: [3]}
  output: {as: labels, labels: [red, green, blue]}
  batch: 100
`)
	const records = 1000
	var want strings.Builder
	data := make([]byte, 0, 3*records)
	for i := range records {
		best := i % 3
		for k := range 3 {
			v := byte(i % 50)
			if k == best {
				v += 100
			}
			data = append(data, v)
		}
		fmt.Fprintf(&want, "%d %s %d\n", i, []string{"red", "green", "blue"}[best], i%50+100)
	}
	if err := os.WriteFile(filepath.Join(c.mnt, "pixels"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	submit := func(name, spec string) string {
		t.Helper()
		writeFile(t, filepath.Join(c.mnt, name+".yaml"), "version: 1\n"+spec)
		if err := os.Rename(filepath.Join(c.mnt, name+".yaml"), filepath.Join(compute, "queue", name+".yaml")); err != nil {
			t.Fatalf("%s: %v: %s", name, err, readFile(t, filepath.Join(compute, "errors", name)))
		}
		return filepath.Join(compute, "by-name", name)
	}
	job := submit("colours", "kernel: largest\ninputs: /pixels\n")
	if how := readFile(t, filepath.Join(job, "wait")); !strings.HasPrefix(how, "succeeded") {
		t.Fatal(how)
	}
	if got := readFile(t, filepath.Join(job, "out", "output")); got != want.String() {
		t.Errorf("the result begins with %.100q", got)
	}
	if device := readFile(t, filepath.Join(job, "tasks", "0", "device")); !strings.HasPrefix(device, "onnx:cpu") {
		t.Errorf("it ran on %q", device)
	}
	writeFile(t, filepath.Join(c.mnt, "short"), "ab")
	job = submit("half", "kernel: largest\nretries: 0\ninputs: /short\n")
	if how := readFile(t, filepath.Join(job, "wait")); !strings.Contains(how, "the input ends within record 0: 2 bytes of 3") {
		t.Errorf("half a record: %s", how)
	}
}

// TestClassifyJob: the bundled kernel classify takes the model and the labels from
// the mount, looks at pictures and at rows, and the reduce step makes one file.
func TestClassifyJob(t *testing.T) {
	needMount(t)
	needONNX(t)
	c := startCluster(t)
	compute := filepath.Join(c.mnt, ".compute")
	if err := os.MkdirAll(filepath.Join(c.mnt, "photos"), 0o755); err != nil {
		t.Fatal(err)
	}
	// Two numbers, which the model gives back: dark or light on the left.
	model := onnxworker.Dense([]float32{1, 0, 0, 1}, 2, 2)
	if err := os.WriteFile(filepath.Join(c.mnt, "sides.onnx"), model, 0o644); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(c.mnt, "sides.txt"), "left\nright\n")
	var want strings.Builder
	for i := range 12 {
		m := image.NewGray(image.Rect(0, 0, 64, 32))
		side := i % 2
		draw.Draw(m, image.Rect(32*side, 0, 32*side+32, 32), image.White, image.Point{}, draw.Src)
		name := fmt.Sprintf("/photos/%02d.png", i)
		f, err := os.Create(filepath.Join(c.mnt, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(png.Encode(f, m), f.Close()); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&want, "%s,0,%d,%s\n", name, side, []string{"left", "right"}[side])
	}
	writeFile(t, filepath.Join(c.mnt, "classes.yaml"), `version: 1
kernel: classify
params: {model: /sides.onnx, labels: /sides.txt, shape: 1x2, as: csv, fit: fill}
inputs: /photos
task_bytes: 4KiB
reduce: {kernel: csv}
`)
	if err := os.Rename(filepath.Join(c.mnt, "classes.yaml"), filepath.Join(compute, "queue", "classes.yaml")); err != nil {
		t.Fatalf("%v: %s", err, readFile(t, filepath.Join(compute, "errors", "classes")))
	}
	job := filepath.Join(compute, "by-name", "classes")
	if how := readFile(t, filepath.Join(job, "wait")); !strings.HasPrefix(how, "succeeded") {
		t.Fatal(how)
	}
	if got := readFile(t, filepath.Join(job, "out", "output")); !strings.HasPrefix(got, "input,record,class,label,score\n") || strings.Count(got, "\n") != 13 {
		t.Errorf("the result is\n%s", got)
	} else {
		for i, line := range strings.Split(strings.TrimSpace(want.String()), "\n") {
			if !strings.HasPrefix(strings.Split(got, "\n")[i+1], line+",") {
				t.Errorf("%s, want %s", strings.Split(got, "\n")[i+1], line)
			}
		}
	}
	if text := readFile(t, filepath.Join(job, "provenance")); !strings.Contains(text, fmt.Sprintf("%x", sha256.Sum256(model))) {
		t.Errorf("the provenance does not name the model:\n%s", text)
	}
}
