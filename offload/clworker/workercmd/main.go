//go:build linux && (amd64 || arm64)

// Command workercmd is `quern worker` for WebAssembly and OpenCL in one small
// program, for tests: they build it, without the race detector, under which
// compiling a module takes a minute.
package main

import (
	"os"
	"slices"

	"quernfs/offload/clworker"
	"quernfs/offload/worker"
)

func main() {
	args := os.Args[1:]
	if slices.Contains(args, "opencl") {
		os.Exit(clworker.Main(args, os.Stdout, os.Stderr))
	}
	os.Exit(worker.Main(args))
}
