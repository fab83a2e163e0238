//go:build !linux || !cgo

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "quern-onnx: built without cgo; build it with: make onnx")
	os.Exit(1)
}
