//go:build linux && cgo && cuda

// Command quern-cuda runs kernels on one GPU of NVIDIA's; `quern worker cuda` and
// agents start it. It is a program of its own, since it is built with cgo and the
// header of a CUDA toolkit (make cuda), is linked with the driver's library, and
// ends at once where that finds no GPU; quern needs nothing of the sort.
package main

import (
	"os"

	"quernfs/offload/cudaworker"
)

func main() { os.Exit(cudaworker.Main(os.Args[1:], os.Stdout, os.Stderr)) }
