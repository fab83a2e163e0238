package worker

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"quernfs/offload/kernels"
)

// fileInput is an input that is held in memory.
func fileInput(path string, data []byte) Input {
	r := bytes.NewReader(data)
	return Input{Path: path, Size: int64(len(data)),
		ReadAt: func(_ context.Context, p []byte, off int64) (int, error) { return r.ReadAt(p, off) }}
}

// BenchmarkShortTask is what a task of a bundled kernel costs in a warm worker
// and its keeper.
func BenchmarkShortTask(b *testing.B) {
	wasm, digest, err := kernels.Module()
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "k.wasm")
	if err := os.WriteFile(file, wasm, 0o600); err != nil {
		b.Fatal(err)
	}
	p, err := Start(b.Context(), Config{Command: testWorker, Env: []string{"QUERN_TEST_ROLE=worker"}, CacheDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	run := func() int64 {
		var stdout, stderr bytes.Buffer
		exit, err := p.Run(b.Context(), &Task{
			Run:    Run{Module: file, Digest: digest, Memory: 256 << 20, Args: []string{"sha256sum", "sha256sum"}},
			Inputs: []Input{fileInput("/in/a", []byte("hello\n"))},
			Stdout: &stdout, Stderr: &stderr,
		})
		if err != nil || exit.Code != 0 || stdout.Len() == 0 {
			b.Fatal(exit, err, stderr.String())
		}
		return exit.CPU
	}
	run() // it is compiled
	var cpu int64
	for b.Loop() {
		cpu += run()
	}
	b.ReportMetric(float64(cpu)/float64(b.N), "worker-ns/op")
}
