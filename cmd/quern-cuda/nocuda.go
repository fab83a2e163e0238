//go:build !linux || !cgo || !cuda

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "quern-cuda: built without CUDA; build it with: make cuda")
	os.Exit(1)
}
