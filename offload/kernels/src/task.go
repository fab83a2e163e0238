//go:build wasip1

package main

import (
	"bufio"
	"runtime/debug"

	"quernfs/offload/kernels/task"
)

func main() {} // of a command; a reactor has none

// warmHeap is how much the heap holds before the first task, in bytes: a task
// that makes the memory grow costs its instance, see docs/compute.md.
const warmHeap = 2 << 20

var warmed []byte

// Buffers that every task uses: a task touches as much of them as it has to do,
// and what it does not touch need not be put back.
var (
	block = make([]byte, 256<<10)
	lines = bufio.NewReaderSize(nil, 64<<10)
)

func init() {
	task.Run = run
	warmed = make([]byte, warmHeap)
	warmed = nil
	debug.FreeOSMemory()
}
