//go:build linux && (amd64 || arm64)

// Command quern-opencl runs kernels on one device of OpenCL, bitstreams on one
// FPGA, or models of circuits on a simulated one; `quern worker opencl`, `fpga` or
// `rtl`, and agents start it. It is a program of its own, since it needs the C
// library to open drivers with, and quern does not.
package main

import (
	"os"
	"slices"

	"quernfs/offload/clworker"
	"quernfs/offload/rtlworker"
)

func main() {
	if slices.Contains(os.Args[1:min(len(os.Args), 3)], "rtl") {
		os.Exit(rtlworker.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(clworker.Main(os.Args[1:], os.Stdout, os.Stderr))
}
