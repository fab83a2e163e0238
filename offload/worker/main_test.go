package worker

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
)

// The test binary is the worker, too.
func TestMain(m *testing.M) {
	switch os.Getenv("QUERN_TEST_ROLE") {
	case "worker":
		os.Exit(Main(os.Args[1:]))
	case "last":
		_ = Serve(func(*Run, io.Reader, io.Writer, io.Writer) Exit { return Exit{Code: 1, Last: true} })
		os.Exit(0)
	case "keeper":
		os.Exit(orphan())
	}
	dir, err := os.MkdirTemp("", "quern-worker-test-")
	if err != nil {
		panic(err)
	}
	if testWorker, err = workerCommand(dir); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// testWorker is the command of workers.
var testWorker []string

func testConfig(t *testing.T) Config {
	t.Helper()
	return Config{Command: testWorker, Env: []string{"QUERN_TEST_ROLE=worker"}, CacheDir: t.TempDir()}
}

// orphan starts a worker that loops for ever, says its process id, and waits
// to be killed.
func orphan() int {
	p, err := Start(context.Background(), Config{Command: []string{os.Args[0], "wasm"}, Env: []string{"QUERN_TEST_ROLE=worker"}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(p.Pid())
	_, err = p.Run(context.Background(), &Task{Run: Run{Module: os.Args[1], Digest: digestOf(os.Args[1]), Memory: 1 << 20}})
	fmt.Println(err)
	return 1
}
