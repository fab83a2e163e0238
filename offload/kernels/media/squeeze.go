//go:build wasip1

package main

import (
	"bufio"
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
	switch name {
	case "gunzip":
		return squeeze.Decompress(squeeze.Gzip, out, os.Stdin)
	case "unzstd":
		return squeeze.Decompress(squeeze.Zstd, out, os.Stdin)
	}
	f := squeeze.Format(name)
	_, _, usual := f.Levels()
	level, err := number("LEVEL", usual)
	if err != nil {
		return err
	}
	return squeeze.Compress(f, level, out, os.Stdin)
}
