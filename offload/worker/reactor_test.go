package worker

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"

	"quernfs/offload/kernels"
)

// reactor assembles a module that counts its tasks, in its memory and in a
// global, and writes both as four bytes; then it does what extra says and returns
// status. Its _initialize writes "start" to the standard error.
func reactor(extra []byte, status byte) []byte {
	const wasi = "wasi_snapshot_preview1"
	imported := func(name string, kind byte) []byte { return cat(str(wasi), str(name), []byte{0, kind}) }
	body := func(code ...[]byte) []byte {
		b := cat([]byte{0}, cat(code...), []byte{0x0b})
		return cat([]byte{byte(len(b))}, b)
	}
	return cat(
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, vec(
			[]byte{0x60, 0, 0},
			[]byte{0x60, 1, 0x7f, 0},
			[]byte{0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f},
			[]byte{0x60, 1, 0x7f, 1, 0x7f},
			[]byte{0x60, 0, 1, 0x7f},
			[]byte{0x60, 9, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7e, 0x7e, 0x7f, 0x7f, 1, 0x7f},
			[]byte{0x60, 2, 0x7f, 0x7f, 1, 0x7f},
			[]byte{0x60, 5, 0x7f, 0x7f, 0x7f, 0x7e, 0x7f, 1, 0x7f},
		)),
		longSection(2, vec(imported("proc_exit", 1), imported("fd_write", 2), imported("fd_close", 3), imported("path_open", 5),
			imported("random_get", 6), imported("fd_renumber", 6), imported("fd_readdir", 7))),
		section(3, vec([]byte{0}, []byte{4})),
		section(5, vec([]byte{0, 1})),
		section(6, vec([]byte{0x7f, 1, 0x41, 0, 0x0b})),
		section(7, vec(cat(str("_initialize"), []byte{0, 7}), cat(str("quern_task"), []byte{0, 8}), cat(str("memory"), []byte{2, 0}))),
		longSection(10, vec(
			// store(16, '0'); fd_write(2, 8, 1, 40)
			body([]byte{0x41, 16, 0x41, 0x30, 0x36, 2, 0, 0x41, 2, 0x41, 8, 0x41, 1, 0x41, 40, 0x10, 1, 0x1a}),
			body(
				// store(16, load(16) + 1); global++; store(20, global)
				[]byte{0x41, 16, 0x41, 16, 0x28, 2, 0, 0x41, 1, 0x6a, 0x36, 2, 0},
				[]byte{0x23, 0, 0x41, 1, 0x6a, 0x24, 0, 0x41, 20, 0x23, 0, 0x36, 2, 0},
				extra,
				// fd_write(1, 0, 1, 40)
				[]byte{0x41, 1, 0x41, 0, 0x41, 1, 0x41, 40, 0x10, 1, 0x1a},
				[]byte{0x41, status},
			),
		)),
		// Iovecs of 12 bytes at 16 and 6 at 28; a path at 36; at 52 an iovec of 200
		// bytes at 64.
		section(11, vec(cat([]byte{0, 0x41, 0, 0x0b}, vec1([]byte{
			16, 0, 0, 0, 12, 0, 0, 0, 28, 0, 0, 0, 6, 0, 0, 0,
			0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 's', 't', 'a', 'r', 't', '\n', 0, 0, 'f', 0, 0, 0,
			0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 200, 0, 0, 0,
		})))),
	)
}

// vec1 is a vector of bytes.
func vec1(b []byte) []byte { return append([]byte{byte(len(b))}, b...) }

// longSection is section for a content of 128 bytes or more.
func longSection(id byte, content []byte) []byte {
	return append([]byte{id, byte(len(content))&0x7f | 0x80, byte(len(content) >> 7)}, content...)
}

// TestReactor runs tasks in one worker: whatever one does, the next finds what
// _initialize left, in the same instance where that can be.
func TestReactor(t *testing.T) {
	// path_open(3, 0, 36, 1, 0, 2, 0, 0, 44)
	open := []byte{0x41, 3, 0x41, 0, 0x41, 36, 0x41, 1, 0x41, 0, 0x42, 2, 0x42, 0, 0x41, 0, 0x41, 44, 0x10, 3, 0x1a}
	closed := func(fd byte) []byte { return []byte{0x41, fd, 0x10, 2, 0x1a} }
	for _, c := range []struct {
		name   string
		extra  []byte
		status byte
		exit   Exit
		again  bool // the same instance serves the next task
	}{
		{name: "counts", again: true},
		{name: "fails", status: 7, exit: Exit{Code: 7}, again: true},
		{name: "takes a random number", extra: []byte{0x41, 24, 0x41, 4, 0x10, 4, 0x1a}, again: true},
		{name: "opens a file and closes it", extra: cat(open, closed(4)), again: true},
		{name: "leaves a file open", extra: open},
		{name: "closes the standard output", extra: closed(1)},
		{name: "closes /in", extra: closed(3)},
		{name: "renumbers", extra: []byte{0x41, 2, 0x41, 1, 0x10, 5, 0x1a}},
		{name: "grows", extra: []byte{0x41, 1, 0x40, 0, 0x1a}},
		{name: "exits", extra: []byte{0x41, 3, 0x10, 0}, exit: Exit{Code: 3}},
		{name: "traps", extra: []byte{0x00}, exit: Exit{Code: -1, Trap: "unreachable"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t)
			file := filepath.Join(t.TempDir(), "k.wasm")
			if err := os.WriteFile(file, reactor(c.extra, c.status), 0o600); err != nil {
				t.Fatal(err)
			}
			var first string
			for n := range 3 {
				var stdout, stderr bytes.Buffer
				exit, err := p.Run(t.Context(), &Task{
					Run:    Run{Module: file, Digest: digestOf(file), Memory: 4 << 20},
					Inputs: []Input{fileInput("/f", []byte("x"))},
					Stdout: &stdout, Stderr: &stderr,
				})
				if err != nil || exit.Code != c.exit.Code || exit.Trap != c.exit.Trap {
					t.Fatalf("task %d: %+v, %v", n, exit, err)
				}
				if exit.PeakMemory < pageSize {
					t.Errorf("task %d: %d bytes of memory", n, exit.PeakMemory)
				}
				if n == 0 {
					first = stdout.String()
				}
				if ends := c.exit.Code == 3 || c.exit.Trap != ""; !ends && c.name != "closes the standard output" && c.name != "renumbers" {
					if want := "1\x00\x00\x00\x01\x00\x00\x00"; len(first) != 12 || first[:8] != want {
						t.Errorf("the task writes %q", first)
					}
				}
				if stdout.String() != first {
					t.Errorf("task %d writes %q, the first wrote %q", n, &stdout, first)
				}
				if begins := stderr.String() == "start\n"; begins == (c.again && n > 0) {
					t.Errorf("task %d: the module begins: %v", n, begins)
				}
			}
		})
	}
}

// TestReactorLists: a task that lists /in by the descriptor that is there at the
// start sees its own inputs.
func TestReactorLists(t *testing.T) {
	p := start(t)
	file := filepath.Join(t.TempDir(), "k.wasm")
	// fd_readdir(3, 64, 200, 0, 44); fd_write(1, 52, 1, 40)
	list := []byte{0x41, 3, 0x41, 0xc0, 0, 0x41, 0xc8, 1, 0x42, 0, 0x41, 44, 0x10, 6, 0x1a, 0x41, 1, 0x41, 52, 0x41, 1, 0x41, 40, 0x10, 1, 0x1a}
	if err := os.WriteFile(file, reactor(list, 0), 0o600); err != nil {
		t.Fatal(err)
	}
	for n, name := range []string{"one", "two", "three"} {
		var stdout, stderr bytes.Buffer
		exit, err := p.Run(t.Context(), &Task{
			Run:    Run{Module: file, Digest: digestOf(file), Memory: 4 << 20},
			Inputs: []Input{fileInput("/"+name, nil)},
			Stdout: &stdout, Stderr: &stderr,
		})
		if err != nil || exit.Code != 0 {
			t.Fatal(exit, err)
		}
		if !bytes.Contains(stdout.Bytes(), []byte(name)) {
			t.Errorf("%s is not in %q", name, &stdout)
		}
		if n > 0 && stderr.Len() > 0 {
			t.Error("the instance was not used again")
		}
	}
}

// FuzzGlobals: what withGlobals makes of a module is one if that is one, and it
// says how many globals can be found in it.
func FuzzGlobals(f *testing.F) {
	f.Add(reactor(nil, 0))
	f.Add(assemble(bodies["ok"]))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x07\x80\x80\x80\x80\x10"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x06\x05\xff\xff\xff\xff\x0f"))
	runtime := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigInterpreter())
	f.Fuzz(func(t *testing.T, wasm []byte) {
		out, n, err := withGlobals(wasm)
		if err != nil {
			return
		}
		before, err := runtime.CompileModule(t.Context(), wasm)
		if err != nil {
			return
		}
		defer before.Close(t.Context())
		after, err := runtime.CompileModule(t.Context(), out)
		if err != nil {
			if bytes.Contains(wasm, []byte("\x00global")) {
				return // the module has exports of these names
			}
			t.Fatalf("with %d globals exported it does not compile: %v", n, err)
		}
		defer after.Close(t.Context())
		if got, want := len(after.ExportedFunctions()), len(before.ExportedFunctions()); got != want {
			t.Errorf("%d functions, before %d", got, want)
		}
	})
}

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
