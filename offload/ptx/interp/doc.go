// Package interp executes kernels in PTX on the host, so that tests run what is
// shipped for GPUs where there is no GPU. It says nothing of how a GPU's own
// compiler and memory behave; what it shows is that the instructions of a kernel
// compute the right thing.
//
//	Parse ──▶ Module.Kernel ──▶ Launch(grid, block, arguments) ──▶ Heap
//
// Blocks run one after the other. The threads of a block run one at a time, each
// to its next barrier or its end, in an order that turns around at each barrier:
// a barrier that is missing is likely to show. Memory is checked at each access,
// and holds rubbish until it is written.
//
// It knows the instructions that compilers make of integer and floating point
// kernels without calls, local arrays, textures and warp operations; what it does
// not know it refuses when the module is loaded, and never guesses. The meaning of
// the instructions is that of the Parallel Thread Execution ISA.
package interp
