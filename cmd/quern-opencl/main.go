//go:build linux && (amd64 || arm64)

// Command quern-opencl runs kernels on one device of OpenCL; `quern worker
// opencl` and agents start it. It is a program of its own, since it needs the C
// library to open drivers with, and quern does not.
package main

import (
	"os"

	"quernfs/offload/clworker"
)

func main() { os.Exit(clworker.Main(os.Args[1:], os.Stdout, os.Stderr)) }
