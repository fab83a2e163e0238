//go:build linux && cgo && cuda

package cudaworker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"quernfs/offload/ptx"
	"quernfs/offload/recipe"
)

var errNoKernel = errors.New("the file has no such entry point")

// Kernel finds an entry point.
func (x *module) Kernel(name string) (recipe.Kernel, error) {
	e := x.file.Entry(name)
	if e == nil {
		return nil, errNoKernel
	}
	fn, err := x.mod.Function(name)
	if err != nil {
		return nil, check("cuModuleGetFunction", err)
	}
	most, err := fn.Attribute(cu.FnMaxThreadsPerBlock)
	if err != nil {
		return nil, check("cuFuncGetAttribute", err)
	}
	return &kernel{entry: e, fn: fn, most: most, args: make([]uint64, len(e.Params))}, nil
}

// kernel is one entry point with the arguments of its next launch.
type kernel struct {
	entry *ptx.Entry
	fn    cu.Function
	most  int
	args  []uint64
}

func (k *kernel) Args() int     { return len(k.args) }
func (k *kernel) MaxGroup() int { return k.most }
func (k *kernel) Close() error  { return nil } // with its module

// set makes the low size bytes of v argument i.
func (k *kernel) set(i, size int, v uint64) error {
	if want := k.entry.Params[i]; want.Size != size {
		return fmt.Errorf("kernel %s takes a %s there, of %d bytes, not %d", k.entry.Name, want.Type, want.Size, size)
	}
	k.args[i] = v
	return nil
}

func (k *kernel) SetBuffer(i int, b recipe.Buffer) error {
	mem, ok := b.(*buffer)
	if !ok {
		return fmt.Errorf("a buffer of another device: %T", b)
	}
	return k.set(i, 8, uint64(mem.at))
}

func (k *kernel) SetScalar(i int, value []byte) error {
	var v [8]byte
	copy(v[:], value)
	return k.set(i, len(value), binary.LittleEndian.Uint64(v[:]))
}

// most is how many blocks a grid may have in each direction.
var mostBlocks = [3]int{math.MaxInt32, 65535, 65535}

// Run launches blocks of the local size until the global size is covered.
func (k *kernel) Run(global, local []int) (time.Duration, error) {
	if len(global) == 0 || len(global) > 3 || len(local) != len(global) {
		return 0, fmt.Errorf("a global size of %d dimensions, a local one of %d", len(global), len(local))
	}
	grid, block := [3]int{1, 1, 1}, [3]int{1, 1, 1}
	for i := range global {
		block[i] = local[i]
		grid[i] = (global[i] + local[i] - 1) / local[i]
		if grid[i] > mostBlocks[i] {
			return 0, fmt.Errorf("a grid of %d blocks in direction %d; %d are the most", grid[i], i+1, mostBlocks[i])
		}
	}
	params := make([]unsafe.Pointer, len(k.args))
	for i := range k.args {
		params[i] = unsafe.Pointer(&k.args[i])
	}
	start, err := cu.MakeEvent(cu.DefaultEvent)
	if err != nil {
		return 0, check("cuEventCreate", err)
	}
	defer func() { _ = cu.DestroyEvent(&start) }()
	end, err := cu.MakeEvent(cu.DefaultEvent)
	if err != nil {
		return 0, check("cuEventCreate", err)
	}
	defer func() { _ = cu.DestroyEvent(&end) }()
	if err := start.Record(cu.NoStream); err != nil {
		return 0, check("cuEventRecord", err)
	}
	if err := k.fn.Launch(grid[0], grid[1], grid[2], block[0], block[1], block[2], 0, cu.NoStream, params); err != nil {
		return 0, check("cuLaunchKernel", err)
	}
	if err := end.Record(cu.NoStream); err != nil {
		return 0, check("cuEventRecord", err)
	}
	if err := end.Synchronize(); err != nil {
		return 0, check("cuEventSynchronize", err)
	}
	ms, err := start.Elapsed(end)
	if err != nil {
		return 0, check("cuEventElapsedTime", err)
	}
	return time.Duration(ms * float64(time.Millisecond)), nil
}
