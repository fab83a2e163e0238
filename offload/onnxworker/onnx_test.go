package onnxworker

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quernfs/offload/jobfile"
	"quernfs/offload/trial"
	"quernfs/offload/worker"
)

// bench builds the program and tells where to find it.
func bench(t *testing.T) *trial.Bench {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds a program with cgo")
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("no C compiler to build quern-onnx with")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "quern-onnx")
	build := exec.Command("go", "build", "-o", program, "quernfs/cmd/quern-onnx")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b := &trial.Bench{Command: []string{program}, Env: trial.Environ(os.Environ()), Dir: dir}
	cfg := worker.Config{Command: b.Command, Env: b.Env}
	if _, err := worker.Probe(t.Context(), cfg, "onnx", "", time.Minute); err != nil {
		if os.Getenv("QUERN_ONNXRUNTIME") != "" {
			t.Fatal(err)
		}
		t.Skipf("no onnxruntime here (QUERN_ONNXRUNTIME names its file): %v", err)
	}
	return b
}

// bundle writes a bundle and returns it. W turns 4 numbers into 3.
func bundle(t *testing.T, onnx string) *trial.Bundle {
	t.Helper()
	dir := t.TempDir()
	w := []float32{1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, -5}
	for name, data := range map[string][]byte{
		"model.onnx": Dense(w, 4, 3), "broken.onnx": []byte("no model"), "kernel.yaml": []byte("version: 1\nonnx: " + onnx + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := trial.FromDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func floats(v ...float32) (b []byte) {
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

// TestModels runs models of every form of input and output, and wrong ones.
func TestModels(t *testing.T) {
	h := bench(t)
	cfg := worker.Config{Command: h.Command, Env: h.Env}
	report, err := worker.Probe(t.Context(), cfg, "onnx", "cpu", time.Minute)
	if err != nil || len(report.Devices) != 1 {
		t.Fatalf("the known answer: %v, %v", report, err)
	}
	if _, err := worker.Probe(t.Context(), cfg, "onnx", "gpu", time.Minute); err == nil {
		t.Error("a device that does not exist is proved")
	}
	records := floats(1, 2, 3, 0, 9, 0, 0, 1, 0, 0, 0, 2)
	for name, c := range map[string]struct {
		onnx string
		in   []byte
		want string // of an error: what it must say, after "error: "
	}{
		"labels":                       {"{input: {shape: [4]}, output: {as: labels, labels: [a, b, c]}}", records, "0 c 3\n1 a 10\n2 a 2\n"},
		"numbers, two records at once": {"{input: {shape: [4]}, output: {as: labels}, batch: 2}", records, "0 2 3\n1 0 10\n2 0 2\n"},
		"raw, scaled": {"{input: {name: x, shape: [4], scale: 2}, output: {name: y}}", records,
			string(floats(2, 4, 6, 20, 2, 0, 4, 4, 0))},
		"bytes":          {"{input: {type: uint8, shape: [4], scale: 0.5}, output: {as: labels}}", []byte{2, 8, 4, 0}, "0 1 4\n"},
		"nothing":        {"{input: {shape: [4]}}", nil, ""},
		"half a record":  {"{input: {shape: [4]}}", records[:20], "error: the input ends within record 1: 4 bytes of 16"},
		"another shape":  {"{input: {shape: [2, 2]}}", records, `error: the model's input "x" has the shape [-1 4], onnx.input.shape says [2 2]`},
		"another size":   {"{input: {shape: [5]}}", records, "error: onnx.input.shape says [5]"},
		"no such input":  {"{input: {name: z, shape: [4]}}", records, `error: model.onnx: the model has no input "z"`},
		"no such output": {"{input: {shape: [4]}, output: {name: z}}", records, `error: model.onnx: the model has no output "z"`},
		"too few labels": {"{input: {shape: [4]}, output: {as: labels, labels: [a]}}", records, "error: the model gives 3 scores, there are 1 labels"},
		"no model":       {"{file: broken.onnx, input: {shape: [4]}}", records, "error: broken.onnx is no model that onnxruntime"},
	} {
		t.Run(name, func(t *testing.T) {
			b := bundle(t, c.onnx)
			v := trial.Variant{Runtime: jobfile.RuntimeONNX, Device: worker.Device{ID: "cpu"}}
			got, _, err := h.Run(t.Context(), b, v, &trial.Input{Data: c.in})
			want, fails := strings.CutPrefix(c.want, "error: ")
			switch {
			case fails && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%v, want %q", err, want)
			case !fails && (err != nil || string(got) != want):
				t.Errorf("%q, %v; want %q", got, err, want)
			}
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := worker.Probe(ctx, cfg, "onnx", "cpu", time.Minute); !errors.Is(err, stop) {
		t.Errorf("a probe that was given up: %v", err)
	}
}
