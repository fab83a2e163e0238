// Package ptx reads as much of PTX, the assembly language of NVIDIA's GPUs
// (Parallel Thread Execution ISA, versions 3 to 8), as it takes to call kernels
// rightly: which entry points a file has, and what arguments they take. The
// driver is told nothing of the sort, and reads past the end of what it is given
// if there is too little.
//
//	.version 4.0  .target sm_50  .address_size 64
//	.visible .entry NAME( .param .u64 A, .param .u32 B ) { BODY }
//
// Package interp, below, executes such files on the host, for tests.
package ptx
