//go:build linux && cgo

// Command quern-onnx runs models in the ONNX format; `quern worker onnx` and
// agents start it. It is a program of its own, since it is built with cgo (make
// onnx) and needs the library onnxruntime, and quern does not.
package main

import (
	"os"

	"quernfs/offload/onnxworker"
)

func main() { os.Exit(onnxworker.Main(os.Args[1:], os.Stdout, os.Stderr)) }
