// Package cudastub builds quern-cuda for tests on machines without a GPU, a CUDA
// toolkit or a driver: with a header of our own (include/cuda.h), linked with a
// driver of our own (libcuda), whose GPUs are the host's memory and which executes
// PTX with the interpreter of package ptx/interp.
//
//	quern-cuda ──gorgonia.org/cu──▶ libcuda.so.1 (libcuda) ──▶ ptx/interp
//
// What runs on it is the program and the PTX that are shipped; what it cannot show
// is that a GPU and its driver do the same.
package cudastub
