package interp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrArguments is a launch with other arguments than the kernel takes, or with a
// grid or block that no GPU takes.
var ErrArguments = errors.New("PTX: the launch does not fit the kernel")

// ErrSteps is a kernel that did not end within the limit of Launch.
var ErrSteps = errors.New("PTX: the kernel does not end")

// thread is one thread of a block.
type thread struct {
	regs []uint64
	pc   int
	done bool
}

// run is one launch.
type run struct {
	k      *Kernel
	heap   *Heap
	args   []byte
	shared []byte
	steps  int64 // left; negative: without a limit
}

// Launch runs k over grid x block threads with the bytes of its arguments, each
// of the size that Params says. An access that a kernel may not make is a *Fault.
// steps bounds the instructions of all threads; 0: there is no limit.
func (k *Kernel) Launch(heap *Heap, grid, block [3]uint32, args [][]byte, steps int64) error {
	threads := uint64(1)
	for d := range 3 {
		if grid[d] == 0 || block[d] == 0 || block[d] > 1024 || grid[d] > 1<<31-1 || d > 0 && grid[d] > 65535 {
			return fmt.Errorf("%w: grid %v, block %v", ErrArguments, grid, block)
		}
		threads *= uint64(block[d])
	}
	if threads > 1024 || len(args) != len(k.Params) {
		return fmt.Errorf("%w: %d threads in a block, %d arguments", ErrArguments, threads, len(args))
	}
	r := &run{k: k, heap: heap, args: make([]byte, k.bytes), shared: make([]byte, k.shared), steps: steps}
	if steps == 0 {
		r.steps = -1
	}
	for i, a := range args {
		if len(a) != k.Params[i].Size {
			return fmt.Errorf("%w: argument %d has %d bytes", ErrArguments, i, len(a))
		}
		copy(r.args[k.offset[i]:], a)
	}
	all := make([]thread, threads)
	regs := make([]uint64, len(k.start)*len(all))
	for i := range all {
		all[i].regs = regs[i*len(k.start):][:len(k.start):len(k.start)]
	}
	for z := range grid[2] {
		for y := range grid[1] {
			for x := range grid[0] {
				if err := r.block(all, grid, block, [3]uint32{x, y, z}); err != nil {
					return fmt.Errorf("PTX: kernel %s: %w", k.Name, err)
				}
			}
		}
	}
	return nil
}

// block runs the threads of one block, from barrier to barrier.
func (r *run) block(all []thread, grid, block, at [3]uint32) error {
	for i := range r.shared {
		r.shared[i] = rubbish
	}
	for i := range all {
		t := &all[i]
		t.pc, t.done = 0, false
		copy(t.regs, r.k.start)
		x, y := uint32(i)%block[0], uint32(i)/block[0]
		for d, v := range [3]uint32{x, y % block[1], y / block[1]} {
			t.regs[d], t.regs[3+d], t.regs[6+d], t.regs[9+d] = uint64(v), uint64(block[d]), uint64(at[d]), uint64(grid[d])
		}
	}
	for forward := true; ; forward = !forward {
		left := 0
		for i := range all {
			if !forward {
				i = len(all) - 1 - i
			}
			if all[i].done {
				continue
			}
			if err := r.thread(&all[i]); err != nil {
				return err
			}
			if !all[i].done {
				left++
			}
		}
		if left == 0 {
			return nil
		}
	}
}

// thread runs one thread to its next barrier or its end.
func (r *run) thread(t *thread) error {
	regs := t.regs
	for {
		in := &r.k.code[t.pc]
		t.pc++
		if r.steps >= 0 {
			if r.steps == 0 {
				return ErrSteps
			}
			r.steps--
		}
		if in.guard >= 0 && (regs[in.guard] != 0) == in.not {
			continue
		}
		switch in.kind {
		case kindCompute:
			regs[in.d] = in.f(regs[in.a], regs[in.b], regs[in.c])
		case kindJump:
			t.pc = in.target
		case kindExit:
			t.done = true
			return nil
		case kindBarrier:
			return nil
		default:
			if err := r.access(in, regs); err != nil {
				return fmt.Errorf("%s: %w", in.text, err)
			}
		}
	}
}

// access carries out what touches memory.
func (r *run) access(in *instr, regs []uint64) error {
	n := in.size * max(len(in.regs), 1)
	mem, err := r.memory(in.space, regs[in.a]+in.offset, n)
	if err != nil {
		return err
	}
	if in.kind == kindAtomic {
		old := load(mem, in.size)
		store(mem, in.size, in.f(old, regs[in.b], regs[in.c]))
		if in.d >= 0 {
			regs[in.d] = old
		}
		return nil
	}
	for i, reg := range in.regs {
		part := mem[i*in.size:]
		if in.kind == kindStore {
			store(part, in.size, regs[reg])
			continue
		}
		v := load(part, in.size)
		if in.signed {
			v = uint64(sign(v, in.size)) & mask(r.k.bits[reg])
		}
		regs[reg] = v
	}
	return nil
}

// memory is n bytes at an address of a space.
func (r *run) memory(s space, addr uint64, n int) ([]byte, error) {
	if addr%uint64(n) != 0 {
		return nil, &Fault{true, fmt.Sprintf("%d bytes at %#x are not aligned", n, addr)}
	}
	if s == spaceGlobal {
		return r.heap.At(addr, n)
	}
	mem := r.shared
	if s == spaceParam {
		mem = r.args
	}
	if addr > uint64(len(mem)) || uint64(n) > uint64(len(mem))-addr {
		return nil, &Fault{Text: fmt.Sprintf("%d bytes at %#x of %d bytes of memory of the block", n, addr, len(mem))}
	}
	return mem[addr:][:n], nil
}

func load(b []byte, size int) uint64 {
	switch size {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

func store(b []byte, size int, v uint64) {
	switch size {
	case 1:
		b[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(b, uint32(v))
	default:
		binary.LittleEndian.PutUint64(b, v)
	}
}
