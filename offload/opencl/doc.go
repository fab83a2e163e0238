// Package opencl is a small binding of OpenCL 1.2: what it takes to run kernels
// on one device, and no more.
//
// libOpenCL.so.1 is opened at run time through purego: nothing of OpenCL is
// needed to build or to start a program that imports this package, and cgo is
// not used. A program that imports it is linked to the C library, though; so
// only quern-opencl does, and quern stays static.
//
//	Open ──▶ Library ──Devices──▶ Device ──Open──▶ Context ──Build──▶ Program ──Kernel──▶ Kernel
//	                                                  │
//	                                                  └──Buffer──▶ Buffer
//
// A Context has one queue, in order; every call waits for its end, so that an
// error is told by the call that caused it. One goroutine uses a Context and
// what belongs to it. Errors of OpenCL are of type Error, with the name of the
// call and of the code.
//
// A driver may crash or hang: this package belongs into a process that can be
// killed (package clworker).
package opencl
