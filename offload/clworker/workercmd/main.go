//go:build linux && (amd64 || arm64)

// Command workercmd is `quern worker` for WebAssembly, OpenCL, bitstreams and models of circuits in one small
// program, for tests: they build it, without the race detector, under which
// compiling a module takes a minute.
package main

import (
	"os"
	"slices"

	"quernfs/offload/clworker"
	"quernfs/offload/rtlworker"
	"quernfs/offload/worker"
)

func main() {
	args := os.Args[1:]
	switch {
	case slices.Contains(args, "opencl"), slices.Contains(args, "fpga"):
		os.Exit(clworker.Main(args, os.Stdout, os.Stderr))
	case slices.Contains(args, "rtl"):
		os.Exit(rtlworker.Main(args, os.Stdout, os.Stderr))
	}
	os.Exit(worker.Main(args))
}
