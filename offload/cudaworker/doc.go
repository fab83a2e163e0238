// Package cudaworker is the worker process for one GPU of NVIDIA's: the program
// quern-cuda.
//
//	quern-cuda --probe cuda                 prints the GPUs as JSON (worker.Report)
//	quern-cuda --probe cuda --device ID     the same of one, after it has computed a known answer
//	quern-cuda cuda --device ID --cache DIR a worker, started by an agent with a socket as descriptor 3
//
// It carries out recipes (package recipe) as the worker for OpenCL does, with
// kernels in PTX, through gorgonia.org/cu. That needs cgo, the header cuda.h of
// CUDA 11 or 12 (13 changed cuCtxCreate) and libcuda to link with, so all but this
// file is behind the build tag cuda; and it ends the process from an init function
// where there is no GPU, so quern-cuda is a program of its own. See make cuda.
//
// A GPU is called by its UUID, as in CUDA_VISIBLE_DEVICES, which `quern worker`
// sets for this program: the driver then brings up that GPU and no other.
//
// A global size becomes a grid of blocks of the local size, which a recipe for
// CUDA always has. The driver does not know how many arguments a kernel takes;
// package ptx does, and a launch is checked against it. A kernel that leaves its
// memory makes the driver useless for the rest of the process: the run fails, the
// fault is the kernel's, and the worker ends (worker.Exit.Last).
//
// The driver keeps what it compiles in CUDA_CACHE_PATH; this process keeps the
// last few modules loaded.
package cudaworker
