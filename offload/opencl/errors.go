package opencl

import "fmt"

// Error is a call of OpenCL that failed.
type Error struct {
	Call string
	Code int32
}

func (e *Error) Error() string {
	if name, ok := codes[e.Code]; ok {
		return e.Call + ": " + name
	}
	return fmt.Sprintf("%s: error %d", e.Call, e.Code)
}

// BuildError is a program that does not compile.
type BuildError struct{ Log string }

func (e *BuildError) Error() string { return "the program does not build: " + e.Log }

// NotFound: there is no platform, or no device of a platform.
func (e *Error) notFound() bool { return e.Code == -1 || e.Code == -1001 }

func check(call string, code int32) error {
	if code == 0 {
		return nil
	}
	return &Error{call, code}
}

// codes are those of cl.h.
var codes = map[int32]string{
	-1: "device not found", -2: "device not available", -3: "compiler not available",
	-4: "memory object allocation failure", -5: "out of resources", -6: "out of host memory",
	-7: "profiling information not available", -8: "memory copy overlap", -9: "image format mismatch",
	-10: "image format not supported", -11: "build program failure", -12: "map failure",
	-13: "misaligned sub-buffer offset", -14: "an event that was waited for failed", -15: "compile program failure",
	-16: "linker not available", -17: "link program failure", -18: "device partition failed",
	-19: "kernel argument information not available",
	-30: "invalid value", -31: "invalid device type", -32: "invalid platform", -33: "invalid device",
	-34: "invalid context", -35: "invalid queue properties", -36: "invalid command queue", -37: "invalid host pointer",
	-38: "invalid memory object", -39: "invalid image format descriptor", -40: "invalid image size", -41: "invalid sampler",
	-42: "invalid binary", -43: "invalid build options", -44: "invalid program", -45: "invalid program executable",
	-46: "invalid kernel name", -47: "invalid kernel definition", -48: "invalid kernel", -49: "invalid argument index",
	-50: "invalid argument value", -51: "invalid argument size", -52: "invalid kernel arguments",
	-53: "invalid work dimension", -54: "invalid work group size", -55: "invalid work item size", -56: "invalid global offset",
	-57: "invalid event wait list", -58: "invalid event", -59: "invalid operation", -61: "invalid buffer size",
	-63: "invalid global work size", -64: "invalid property", -1001: "no platform is installed",
}
