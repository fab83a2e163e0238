//go:build linux && cgo && cuda

package cudaworker

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
	"gorgonia.org/cu"

	"quernfs/offload/jobfile"
	"quernfs/offload/ptx"
	"quernfs/offload/recipe"
	"quernfs/offload/worker"
)

// machine is the GPU of this process. One goroutine, on one thread, uses it.
type machine struct {
	gpu   gpu
	log   []byte // for the driver's compiler; not of Go's memory
	ready []*module
}

// module is one file of PTX in memory; the most recently used is last.
type module struct {
	digest [sha256.Size]byte
	file   *ptx.File
	mod    cu.Module
}

// keep is how many modules stay in memory.
const keep = 8

// newMachine makes a context on the GPU, for this goroutine, which stays on its
// thread. It lives as long as the process.
func newMachine(g gpu) (*machine, error) {
	ctx, err := g.dev.MakeContext(cu.SchedBlockingSync)
	if err == nil {
		err = ctx.Lock()
	}
	if err != nil {
		return nil, fmt.Errorf("device %s (%s): %w", g.info.ID, g.info.Name, err)
	}
	log, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	return &machine{gpu: g, log: log}, nil
}

// run carries out one run: the function that worker.Serve calls.
func (m *machine) run(r *worker.Run, stdin io.Reader, stdout, stderr io.Writer) worker.Exit {
	exit := recipe.Run(m, jobfile.RuntimeCUDA, r, stdin, stdout, stderr)
	// After a kernel that left its memory every call fails, to the end of the
	// process.
	exit.Last = cu.Synchronize() != nil
	return exit
}

// Name, MaxAlloc, Program, Buffer and Failed are those of recipe.Device.
func (m *machine) Name() string { return m.gpu.info.Name }

func (m *machine) MaxAlloc() int64 { return m.gpu.info.MaxAlloc }

func (m *machine) Program(file []byte) (recipe.Program, error) {
	digest := sha256.Sum256(file)
	for i, x := range m.ready {
		if x.digest == digest {
			m.ready = append(append(m.ready[:i:i], m.ready[i+1:]...), x)
			return x, nil
		}
	}
	f, err := ptx.Parse(file)
	if err != nil {
		return nil, &recipe.BuildError{Log: err.Error()}
	}
	clear(m.log)
	mod, err := cu.LoadDataEx(string(file), &cu.JITErrorLogBuffer{Buffer: m.log})
	if err != nil {
		return nil, m.buildError(err)
	}
	x := &module{digest, f, mod}
	m.ready = append(m.ready, x)
	if len(m.ready) > keep {
		_ = m.ready[0].mod.Unload()
		m.ready = m.ready[1:]
	}
	return x, nil
}

// buildError is what the driver says of a file that it does not load.
func (m *machine) buildError(err error) error {
	if m.Failed(err) {
		return err
	}
	text, _, _ := strings.Cut(string(m.log), "\x00")
	if text = strings.TrimSpace(text); text == "" {
		text = err.Error()
	}
	return &recipe.BuildError{Log: text}
}

// Failed knows the errors that tell of a kernel, its manifest or its size.
// Others are the device's.
func (m *machine) Failed(err error) bool {
	for _, theirs := range []error{
		cu.InvalidValue, cu.OutOfMemory, cu.NotFound, cu.InvalidHandle,
		cu.InvalidPtx, cu.InvalidImage, cu.InvalidSource, cu.NoBinaryForGpu,
		cu.LaunchOutOfResources, cu.LaunchTimeout, cu.LaunchFailed, cu.Assert,
		cu.IllegalAddress, cu.MisalignedAddress, cu.IllegalInstruction, cu.InvalidAddressSpace, cu.InvalidPc, cu.HardwareStackError,
	} {
		if errors.Is(err, theirs) {
			return false
		}
	}
	var call *callError
	return errors.As(err, &call)
}

// callError is an error of the driver in a call.
type callError struct {
	call string
	err  error
}

func (e *callError) Error() string { return e.call + ": " + e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

func check(call string, err error) error {
	if err == nil {
		return nil
	}
	return &callError{call, err}
}
