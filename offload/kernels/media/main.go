//go:build wasip1

// The second module of kernels inside the quern binary: those that need
// libraries, which would make each task of the first one start later. It looks
// at its first argument, reads /in or the standard input, writes the standard
// output, and is told by QUERN_PHASE whether it maps (a reduce step follows),
// reduces, or does a single step. What it does is in packages that know nothing
// of WebAssembly: squeeze, table and picture.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"

	"quernfs/offload/kernels/task"
)

func main() {} // of a command; a reactor has none

// warmHeap is how much the heap holds before the first task, in bytes: a task
// that makes the memory grow costs its instance.
const warmHeap = 4 << 20

var warmed []byte

func init() {
	task.Run = run
	warmed = make([]byte, warmHeap)
	warmed = nil
	debug.FreeOSMemory()
}

func run(out *bufio.Writer) error {
	if len(os.Args) < 2 {
		return errors.New("the first argument names the kernel")
	}
	phase := os.Getenv("QUERN_PHASE")
	switch os.Args[1] {
	case "cat":
		return task.CopyInput(out)
	case "gzip", "zstd", "gunzip", "unzstd":
		return squeezed(out, os.Args[1], phase)
	case "csv":
		return csv(out, phase)
	case "resize":
		return resize(out, phase)
	}
	return errors.New("no kernel " + os.Args[1])
}

// param is a param of the job; "": it is not given.
func param(name string) string { return os.Getenv("QUERN_" + name) }

// number is a param that is a whole number, from 0.
func number(name string, otherwise int) (int, error) {
	s := param(name)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("the param %s must be a whole number, not %q", name, s)
	}
	return n, nil
}
