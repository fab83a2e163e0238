// Command gen builds ../src into bundled.wasm.gz. It runs in the directory of
// package kernels (see go:generate there).
package main

import (
	"fmt"
	"os"

	"quernfs/offload/kernels/build"
)

func main() {
	packed, err := build.Bundle("src")
	if err == nil {
		err = os.WriteFile("bundled.wasm.gz", packed, 0o644)
	}
	if err == nil {
		var version string
		if version, err = build.Toolchain(); err == nil {
			err = os.WriteFile("bundled.go.txt", []byte(version+"\n"), 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}
