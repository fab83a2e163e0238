// Package clworker is the worker process for one device of OpenCL: the program
// quern-opencl.
//
//	quern-opencl --probe opencl                 prints the devices as JSON (worker.Report)
//	quern-opencl --probe opencl --device ID     the same of one, after it has computed a known answer
//	quern-opencl opencl --device ID --cache DIR a worker, started by an agent with a socket as descriptor 3
//
// and the same with fpga in the place of opencl: then the devices are those that
// are programmed with bitstreams, of which a worker loads only what a key that the
// host trusts has signed (package sign), and the known answer is that of the kernel
// whose directory trial.KnownEnv names.
//
// A worker is fed through the frames of package worker, as one for WebAssembly
// is: it reads a recipe (jobfile.OpenCL), fills buffers from the standard input,
// runs the passes piece by piece, and writes the result to the standard output.
// A kernel that hangs the device, and a driver that crashes, cost this process
// and nothing else.
//
// # Programs on disk
//
// Compiled programs are kept in DIR/programs, one file for each device, driver
// and source:
//
//	SHA-256 of what follows, 32 bytes | what clGetProgramInfo gives for CL_PROGRAM_BINARIES
//
// under the SHA-256 of device, versions, options and source as name. A file
// that is torn, or that the driver does not take, is made anew.
package clworker
