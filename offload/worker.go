package offload

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"quernfs/offload/sandbox"
	"quernfs/offload/worker"
)

// helperPrograms are the runtimes whose worker is a program of its own, which
// lies beside quern.
var helperPrograms = map[string]string{"opencl": "quern-opencl", "cuda": "quern-cuda", "onnx": "quern-onnx", "fpga": "quern-opencl", "rtl": "quern-opencl"}

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

// helperEnviron is the environment of a helper program. The driver of CUDA reads
// it before the program's own first line: which GPU it is for, by the UUID that is
// its name (as for programs, see sandbox.Host.Devices), and where to keep what
// it compiles.
func helperEnviron(args, env []string) []string {
	env = slices.Clone(env)
	if !slices.Contains(args, "cuda") {
		return env
	}
	set := func(name, value string) {
		env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		env = append(env, name+"="+value)
	}
	for i := range len(args) - 1 {
		switch args[i] {
		case "--device":
			set("CUDA_VISIBLE_DEVICES", args[i+1])
		case "--cache":
			set("CUDA_CACHE_PATH", filepath.Join(args[i+1], "compute"))
		}
	}
	return env
}

// become replaces this process by the program name beside it, which keeps its
// descriptors, and the signal for the death of its parent.
func become(name string, args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	file := filepath.Join(filepath.Dir(exe), name)
	if err := syscall.Exec(file, append([]string{file}, args...), helperEnviron(args, os.Environ())); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
