// Package recipe carries out the recipes of kernels (jobfile.OpenCL) on a
// device: it fills buffers from the standard input, runs the passes piece by
// piece, and writes the result to the standard output. What the device is, and
// which language its kernels are in, is the business of who implements Device:
// clworker for OpenCL, cudaworker for CUDA.
//
//	standard input ──▶ buffers ──passes──▶ buffers ──▶ standard output
//	                      ▲                   │
//	                      └── next piece ◀────┘
//
// Prove has a device compute a known answer.
package recipe
