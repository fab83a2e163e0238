//go:build wasip1

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"quernfs/offload/kernels/squeeze"
	"quernfs/offload/kernels/task"
)

// squeezed compresses all inputs, one after the other, to one member or frame,
// at params.level; or decompresses them. The reduce step puts parts one after
// the other, which makes a file of them.
func squeezed(out *bufio.Writer, name, phase string) error {
	if phase == "reduce" {
		return task.CopyInput(out)
	}
	if from := map[string]squeeze.Format{"gunzip": squeeze.Gzip, "unzstd": squeeze.Zstd}[name]; from != "" {
		return task.EachFile(func(path string, in io.Reader) error {
			behind, err := squeeze.Decompress(from, out, in)
			if behind > 0 {
				fmt.Fprintf(os.Stderr, "%s: the last %d bytes are not in the format of %s, and were left out\n", path, behind, from)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			return nil
		})
	}
	f := squeeze.Format(name)
	_, _, usual := f.Levels()
	level, err := number("LEVEL", usual)
	if err != nil {
		return err
	}
	return squeeze.Compress(f, level, out, os.Stdin)
}
