package offload

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"quernfs/offload/sandbox"
	"quernfs/offload/worker"
)

// helperPrograms are the runtimes whose worker is a program of its own, which
// lies beside quern.
var helperPrograms = map[string]string{"opencl": "quern-opencl", "onnx": "quern-onnx"}

// WorkerMain is the command `quern worker RUNTIME` and `quern worker --probe
// RUNTIME`: it returns the exit status.
func WorkerMain(args []string) int {
	runtime := ""
	if len(args) > 0 {
		runtime = args[0]
	}
	probe := runtime == "--probe" && len(args) > 1
	if probe {
		runtime = args[1]
	}
	switch name, helper := helperPrograms[runtime]; {
	case helper:
		err := become(name, args)
		fmt.Fprintf(os.Stderr, "quern worker: the runtime %s is absent: %v\n", runtime, err)
		return 1
	case probe && runtime == "wasm":
		_ = json.NewEncoder(os.Stdout).Encode(worker.Report{Runtime: "wasm", Devices: []worker.Device{{ID: "cpu", Name: "cpu", Type: "cpu"}}})
		return 0
	case probe && runtime == runtimeExec:
		return sandbox.Probe(os.Stdout, os.Stderr)
	case runtime == runtimeExec:
		return sandbox.Main(args[1:])
	case probe:
		fmt.Fprintf(os.Stderr, "quern worker: there is no runtime %q\n", runtime)
		return 1
	}
	return worker.Main(args)
}

// become replaces this process by the program name beside it, which keeps its
// descriptors, and the signal for the death of its parent.
func become(name string, args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	file := filepath.Join(filepath.Dir(exe), name)
	if err := syscall.Exec(file, append([]string{file}, args...), slices.Clone(os.Environ())); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
