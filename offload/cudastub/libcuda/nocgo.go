//go:build !linux || !cgo

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "the stub of libcuda is built with CGO_ENABLED=1 on Linux")
	os.Exit(1)
}
