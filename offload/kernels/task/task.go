//go:build wasip1

// Package task is what surrounds a task inside a module of kernels: how it is
// started, what it is told and what it reads.
//
// The module is a reactor: a worker calls its _initialize once, keeps what the
// memory then holds, and calls quern_task for each task, with the memory as it
// was kept. What takes time is in init therefore, not in a task.
package task

import (
	"bufio"
	"io"
	"os"
	"strings"
	"unsafe"
)

// Run carries out one task: the module's init sets it. The task's arguments are
// in os.Args, its environment in os.Getenv.
var Run func(out *bufio.Writer) error

// output is what every task writes to. A task touches as much of it as it has to
// write, and what it does not touch need not be put back.
var output = bufio.NewWriterSize(os.Stdout, 64<<10)

// dataError is the status EX_DATAERR of <sysexits.h>: the data, or what the job says,
// is wrong, and another attempt would end as this one did. Whether the input could
// be read and the output be written is the agent's to know.
const dataError = 65

// start carries out one task and returns its exit status.
//
//go:wasmexport quern_task
func start() int32 {
	os.Args = given(argsSizes, argsGet)
	for _, kv := range given(environSizes, environGet) {
		k, v, _ := strings.Cut(kv, "=")
		os.Setenv(k, v)
	}
	err := Run(output)
	if e := output.Flush(); err == nil {
		err = e
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return dataError
	}
	return 0
}

//go:wasmimport wasi_snapshot_preview1 args_sizes_get
func argsSizes(n, size *uint32) uint32

//go:wasmimport wasi_snapshot_preview1 args_get
func argsGet(list, text unsafe.Pointer) uint32

//go:wasmimport wasi_snapshot_preview1 environ_sizes_get
func environSizes(n, size *uint32) uint32

//go:wasmimport wasi_snapshot_preview1 environ_get
func environGet(list, text unsafe.Pointer) uint32

// given are the arguments, or the environment, of the task: those in os.Args and
// os.Environ are of the module's start.
func given(sizes func(n, size *uint32) uint32, get func(list, text unsafe.Pointer) uint32) []string {
	var n, size uint32
	if sizes(&n, &size) != 0 || n == 0 || size == 0 {
		return nil
	}
	list, text := make([]uint32, n), make([]byte, size)
	if get(unsafe.Pointer(&list[0]), unsafe.Pointer(&text[0])) != 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// CopyInput is the reduce step of kernels whose parts only follow each other.
func CopyInput(out io.Writer) error {
	_, err := io.Copy(out, os.Stdin)
	return err
}
