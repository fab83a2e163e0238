// Command genptx compiles sources in OpenCL C into PTX, each into a file of the
// same name beside it: genptx k.cl makes k.ptx. Without arguments it compiles
// bundled/*/*.cl (see go:generate in package kernels).
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"quernfs/offload/kernels/build"
)

func main() {
	sources := os.Args[1:]
	if len(sources) == 0 {
		sources, _ = filepath.Glob("bundled/*/*.cl")
	}
	for _, source := range sources {
		ptx, err := build.PTX(source)
		if err == nil {
			err = os.WriteFile(build.PTXName(source), ptx, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "genptx:", err)
			os.Exit(1)
		}
	}
}
