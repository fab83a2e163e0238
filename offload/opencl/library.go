//go:build linux && (amd64 || arm64)

package opencl

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Name of the loader of drivers, which every installation of OpenCL has.
const Name = "libOpenCL.so.1"

// call numbers a function of the library.
type call int

const (
	getPlatformIDs call = iota
	getPlatformInfo
	getDeviceIDs
	getDeviceInfo
	createContext
	releaseContext
	createCommandQueue
	releaseCommandQueue
	createProgramWithSource
	createProgramWithBinary
	buildProgram
	getProgramBuildInfo
	getProgramInfo
	releaseProgram
	createKernel
	getKernelInfo
	getKernelWorkGroupInfo
	releaseKernel
	setKernelArg
	createBuffer
	releaseMemObject
	enqueueWriteBuffer
	enqueueReadBuffer
	enqueueFillBuffer
	enqueueNDRangeKernel
	waitForEvents
	getEventProfilingInfo
	releaseEvent
	finish
	calls
)

var callNames = [calls]string{
	"clGetPlatformIDs", "clGetPlatformInfo", "clGetDeviceIDs", "clGetDeviceInfo",
	"clCreateContext", "clReleaseContext", "clCreateCommandQueue", "clReleaseCommandQueue",
	"clCreateProgramWithSource", "clCreateProgramWithBinary", "clBuildProgram", "clGetProgramBuildInfo", "clGetProgramInfo", "clReleaseProgram",
	"clCreateKernel", "clGetKernelInfo", "clGetKernelWorkGroupInfo", "clReleaseKernel", "clSetKernelArg",
	"clCreateBuffer", "clReleaseMemObject", "clEnqueueWriteBuffer", "clEnqueueReadBuffer", "clEnqueueFillBuffer",
	"clEnqueueNDRangeKernel", "clWaitForEvents", "clGetEventProfilingInfo", "clReleaseEvent", "clFinish",
}

// Library is an opened loader of drivers. It stays open: drivers do not like to
// be unloaded.
type Library struct{ fn [calls]uintptr }

// Open opens the library called name ("": Name).
func Open(name string) (*Library, error) {
	if name == "" {
		name = Name
	}
	h, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("OpenCL is not installed here: %w", err)
	}
	l := new(Library)
	for i, f := range callNames {
		if l.fn[i], err = purego.Dlsym(h, f); err != nil {
			return nil, fmt.Errorf("%s is older than OpenCL 1.2: %w", name, err)
		}
	}
	return l, nil
}

// do calls a function that returns a cl_int.
//
//go:uintptrescapes
func (l *Library) do(c call, args ...uintptr) error {
	r, _, _ := purego.SyscallN(l.fn[c], args...)
	return check(callNames[c], int32(r))
}

// create calls a function that returns a handle, and whose last argument, which
// is added here, points to a cl_int.
//
//go:uintptrescapes
func (l *Library) create(c call, args ...uintptr) (uintptr, error) {
	code := new(int32)
	var pin runtime.Pinner
	defer pin.Unpin()
	r, _, _ := purego.SyscallN(l.fn[c], append(args, address(&pin, code))...)
	return r, check(callNames[c], *code)
}

// maxInfo bounds what is taken for an answer about an object, in bytes.
const maxInfo = 1 << 30

// info calls one of the functions clGetXInfo, whose last arguments are the size
// of the answer, where it goes, and where its true size goes.
func (l *Library) info(c call, args ...uintptr) ([]byte, error) {
	n := new(uint)
	var pin runtime.Pinner
	defer pin.Unpin()
	if err := l.do(c, append(args, 0, 0, address(&pin, n))...); err != nil {
		return nil, err
	}
	if *n == 0 {
		return nil, nil
	}
	if *n > maxInfo {
		return nil, fmt.Errorf("%s: an answer of %d bytes", callNames[c], *n)
	}
	b := make([]byte, *n)
	err := l.do(c, append(args, uintptr(*n), address(&pin, &b[0]), 0)...)
	return b, err
}

// address is where p points to, which stays there until pin is undone. Only a
// conversion among the arguments of a call that is marked uintptrescapes does
// without.
func address[T any](pin *runtime.Pinner, p *T) uintptr {
	pin.Pin(p)
	return uintptr(unsafe.Pointer(p))
}
