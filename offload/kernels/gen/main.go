// Command gen builds ../src and ../media into the modules that package kernels
// embeds. It runs in the directory of that package (see go:generate there).
package main

import (
	"fmt"
	"os"

	"quernfs/offload/kernels/build"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run() error {
	for dir, file := range map[string]string{"src": "bundled.wasm.gz", "media": "media.wasm.gz"} {
		packed, err := build.Bundle(dir)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, packed, 0o644); err != nil {
			return err
		}
	}
	version, err := build.Toolchain()
	if err != nil {
		return err
	}
	return os.WriteFile("bundled.go.txt", []byte(version+"\n"), 0o644)
}
