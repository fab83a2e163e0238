//go:build linux && cgo

// Command libcuda is a stub of NVIDIA's driver library, built with
// -buildmode=c-shared as libcuda.so.1: for tests only. It has the part of the
// driver's interface that quern-cuda uses; its devices are the host's memory, and
// it executes PTX with package interp. The rest of what gorgonia.org/cu is linked
// with (unsupported.c) answers that it is not supported.
//
// What a driver's user may get wrong is an error here, too: a call on a thread
// without a context, memory that is not the device's, and any call after a
// kernel has left its memory.
//
// The environment says how it behaves:
//
//	CUDA_VISIBLE_DEVICES   as for the driver: numbers or UUIDs
//	QUERN_STUB_DEVICES     how many devices there are; 1
//	QUERN_STUB_MEMORY      bytes of each; 256 MiB
//	QUERN_STUB_INIT        what cuInit returns; 0
//	QUERN_STUB_LAUNCH      KERNEL:HOW, where HOW is crash, hang, wrong, or the number of an error
package main

// #include <signal.h>
// #include <stddef.h>
// #include <stdint.h>
// #include <sys/resource.h>
// // The process ends at once, as it would without a runtime of Go in this library.
// static void crash(void) {
// 	struct rlimit none = {0, 0};
// 	setrlimit(RLIMIT_CORE, &none);
// 	signal(SIGSEGV, SIG_DFL);
// 	*(volatile int *)0 = 1;
// }
// static uint64_t at(void **list, int i) { return (uint64_t)list[i]; }
// static void *as_pointer(uint64_t v) { return (void *)v; }
import "C"

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"quernfs/offload/ptx/interp"
)

func main() {}

// Codes of the interface.
const (
	success          = 0
	invalidValue     = 1
	outOfMemory      = 2
	notInitialized   = 3
	noDevice         = 100
	invalidDevice    = 101
	invalidContext   = 201
	invalidPTX       = 218
	invalidHandle    = 400
	notFound         = 500
	illegalAddress   = 700
	outOfResources   = 701
	misaligned       = 716
	launchFailed     = 719
	notSupported     = 801
	driverVersion    = 12020
	maxThreads       = 1024
	capability       = 75 // 7.5
	jitErrorLog      = 5  // CU_JIT_ERROR_LOG_BUFFER
	jitErrorLogBytes = 6
)

type device struct {
	number int
	memory int64
}

type context struct {
	dev    *device
	heap   interp.Heap
	broken C.int // of a kernel that left its memory: the answer to every call
}

type function struct {
	ctx *context
	k   *interp.Kernel
}

var (
	mu       sync.Mutex // guards all of these; a call holds it to its end
	visible  []*device
	started  bool
	handles  = map[uintptr]any{}   // *context, *interp.Module, *function, *time.Time
	next     = uintptr(0x51000000) // the next handle
	currents = map[int]uintptr{}   // context by thread
)

func handle(x any) uintptr {
	next += 16
	handles[next] = x
	return next
}

// current is the context of this thread, and whether it can be used.
func current() (*context, C.int) {
	if !started {
		return nil, notInitialized
	}
	c, ok := handles[currents[unix.Gettid()]].(*context)
	switch {
	case !ok:
		return nil, invalidContext
	case c.broken != success:
		return nil, c.broken
	}
	return c, success
}

func uuid(number int) [16]byte {
	u := [16]byte{0: 0x51, 1: 0x75, 2: 0x65, 3: 0x72, 4: 0x6e, 6: 0x40, 8: 0x80}
	u[15] = byte(number)
	return u
}

func uuidText(number int) string {
	u := uuid(number)
	return fmt.Sprintf("GPU-%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

func number(name string, standard int64) int64 {
	if v, err := strconv.ParseInt(os.Getenv(name), 10, 64); err == nil {
		return v
	}
	return standard
}

//export cuInit
func cuInit(flags C.uint) C.int {
	mu.Lock()
	defer mu.Unlock()
	if code := number("QUERN_STUB_INIT", 0); code != 0 {
		return C.int(code)
	}
	all := make([]*device, number("QUERN_STUB_DEVICES", 1))
	for i := range all {
		all[i] = &device{i, number("QUERN_STUB_MEMORY", 256<<20)}
	}
	visible = all
	if list, set := os.LookupEnv("CUDA_VISIBLE_DEVICES"); set {
		visible = nil
		for word := range strings.SplitSeq(list, ",") {
			i := slices.IndexFunc(all, func(d *device) bool { return uuidText(d.number) == word || strconv.Itoa(d.number) == word })
			if i < 0 {
				break // as the driver does: what comes after is not seen
			}
			visible = append(visible, all[i])
		}
	}
	if len(visible) == 0 {
		return noDevice
	}
	started = true
	return success
}

//export cuDriverGetVersion
func cuDriverGetVersion(v *C.int) C.int {
	*v = driverVersion
	return success
}

//export cuDeviceGetCount
func cuDeviceGetCount(n *C.int) C.int {
	*n = C.int(len(visible))
	return success
}

//export cuDeviceGet
func cuDeviceGet(d *C.int, ordinal C.int) C.int {
	if int(ordinal) < 0 || int(ordinal) >= len(visible) {
		return invalidDevice
	}
	*d = ordinal
	return success
}

//export cuDeviceGetName
func cuDeviceGetName(name *C.char, size C.int, d C.int) C.int {
	text := fmt.Sprintf("stub of a GPU %d (host memory)\x00", visible[d].number)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(name)), size), text)
	return success
}

//export cuDeviceGetUuid
func cuDeviceGetUuid(to unsafe.Pointer, d C.int) C.int {
	*(*[16]byte)(to) = uuid(visible[d].number)
	return success
}

//export cuDeviceTotalMem_v2
func cuDeviceTotalMem_v2(to *C.size_t, d C.int) C.int {
	*to = C.size_t(visible[d].memory)
	return success
}

//export cuDeviceGetAttribute
func cuDeviceGetAttribute(to *C.int, attribute C.int, d C.int) C.int {
	v, ok := map[C.int]C.int{1: maxThreads, 8: 48 << 10, 16: 1, 75: capability / 10, 76: capability % 10}[attribute]
	if !ok {
		return invalidValue
	}
	*to = v
	return success
}

//export cuCtxCreate_v2
func cuCtxCreate_v2(to *uintptr, flags C.uint, d C.int) C.int {
	mu.Lock()
	defer mu.Unlock()
	if int(d) >= len(visible) {
		return invalidDevice
	}
	c := &context{dev: visible[d]}
	c.heap.Limit = c.dev.memory
	*to = handle(c)
	currents[unix.Gettid()] = *to
	return success
}

//export cuCtxDestroy_v2
func cuCtxDestroy_v2(c uintptr) C.int {
	mu.Lock()
	defer mu.Unlock()
	if _, ok := handles[c].(*context); !ok {
		return invalidContext
	}
	delete(handles, c)
	return success
}

//export cuCtxSetCurrent
func cuCtxSetCurrent(c uintptr) C.int {
	mu.Lock()
	defer mu.Unlock()
	if _, ok := handles[c].(*context); !ok {
		return invalidContext
	}
	currents[unix.Gettid()] = c
	return success
}

//export cuCtxSynchronize
func cuCtxSynchronize() C.int {
	mu.Lock()
	defer mu.Unlock()
	_, code := current()
	return code
}

//export cuModuleLoadDataEx
func cuModuleLoadDataEx(to *uintptr, image *C.char, n C.uint, options *C.int, values *unsafe.Pointer) C.int {
	mu.Lock()
	defer mu.Unlock()
	c, code := current()
	if code != success {
		return code
	}
	m, err := interp.Parse([]byte(C.GoString(image)))
	if err == nil {
		*to = handle(&module{c, m})
		return success
	}
	var log, size uint64
	for i := range int(n) {
		switch v := uint64(C.at(values, C.int(i))); unsafe.Slice(options, n)[i] {
		case jitErrorLog:
			log = v
		case jitErrorLogBytes:
			size = v
		}
	}
	if log != 0 && size > 0 {
		text := unsafe.Slice((*byte)(C.as_pointer(C.uint64_t(log))), size)
		text[copy(text[:size-1], "stub: "+err.Error())] = 0
	}
	return invalidPTX
}

type module struct {
	ctx *context
	m   *interp.Module
}

//export cuModuleUnload
func cuModuleUnload(m uintptr) C.int {
	mu.Lock()
	defer mu.Unlock()
	if _, ok := handles[m].(*module); !ok {
		return invalidHandle
	}
	delete(handles, m)
	return success
}

//export cuModuleGetFunction
func cuModuleGetFunction(to *uintptr, h uintptr, name *C.char) C.int {
	mu.Lock()
	defer mu.Unlock()
	m, ok := handles[h].(*module)
	if !ok {
		return invalidHandle
	}
	k := m.m.Kernel(C.GoString(name))
	if k == nil {
		return notFound
	}
	*to = handle(&function{m.ctx, k})
	return success
}

//export cuFuncGetAttribute
func cuFuncGetAttribute(to *C.int, attribute C.int, f uintptr) C.int {
	if attribute != 0 {
		return invalidValue
	}
	*to = maxThreads
	return success
}

//export cuMemAlloc_v2
func cuMemAlloc_v2(to *C.ulonglong, size C.size_t) C.int {
	mu.Lock()
	defer mu.Unlock()
	c, code := current()
	if code != success {
		return code
	}
	if size == 0 {
		return invalidValue
	}
	p := c.heap.Alloc(int64(size))
	if p == 0 {
		return outOfMemory
	}
	*to = C.ulonglong(p)
	return success
}

//export cuMemFree_v2
func cuMemFree_v2(p C.ulonglong) C.int {
	mu.Lock()
	defer mu.Unlock()
	c, code := current()
	if code == success && !c.heap.Free(uint64(p)) {
		return invalidValue
	}
	return code
}

// withMemory does something with memory of the device.
func withMemory(p C.ulonglong, size C.size_t, do func(mem []byte)) C.int {
	mu.Lock()
	defer mu.Unlock()
	c, code := current()
	if code != success {
		return code
	}
	mem, err := c.heap.At(uint64(p), int(size))
	if err != nil {
		return invalidValue
	}
	do(mem)
	return success
}

//export cuMemcpyHtoD_v2
func cuMemcpyHtoD_v2(to C.ulonglong, from unsafe.Pointer, size C.size_t) C.int {
	return withMemory(to, size, func(mem []byte) { copy(mem, unsafe.Slice((*byte)(from), size)) })
}

//export cuMemcpyDtoH_v2
func cuMemcpyDtoH_v2(to unsafe.Pointer, from C.ulonglong, size C.size_t) C.int {
	return withMemory(from, size, func(mem []byte) { copy(unsafe.Slice((*byte)(to), size), mem) })
}

//export cuMemsetD8_v2
func cuMemsetD8_v2(to C.ulonglong, value C.uchar, n C.size_t) C.int {
	return withMemory(to, n, func(mem []byte) {
		for i := range mem {
			mem[i] = byte(value)
		}
	})
}

//export cuEventCreate
func cuEventCreate(to *uintptr, flags C.uint) C.int {
	mu.Lock()
	defer mu.Unlock()
	_, code := current()
	if code == success {
		*to = handle(new(time.Time))
	}
	return code
}

//export cuEventDestroy_v2
func cuEventDestroy_v2(e uintptr) C.int {
	mu.Lock()
	defer mu.Unlock()
	delete(handles, e)
	return success
}

//export cuEventRecord
func cuEventRecord(e uintptr, stream uintptr) C.int {
	mu.Lock()
	defer mu.Unlock()
	_, code := current()
	at, ok := handles[e].(*time.Time)
	if code == success && !ok {
		return invalidHandle
	}
	if code == success {
		*at = time.Now()
	}
	return code
}

//export cuEventSynchronize
func cuEventSynchronize(e uintptr) C.int { return cuCtxSynchronize() }

//export cuEventElapsedTime
func cuEventElapsedTime(ms *C.float, from, to uintptr) C.int {
	mu.Lock()
	defer mu.Unlock()
	a, ok := handles[from].(*time.Time)
	b, ok2 := handles[to].(*time.Time)
	if !ok || !ok2 || a.IsZero() || b.IsZero() {
		return invalidHandle
	}
	*ms = C.float(float64(b.Sub(*a)) / 1e6)
	return success
}

//export cuLaunchKernel
func cuLaunchKernel(h uintptr, gx, gy, gz, bx, by, bz, shared C.uint, stream uintptr, params *unsafe.Pointer, extra *unsafe.Pointer) C.int {
	mu.Lock()
	defer mu.Unlock()
	c, code := current()
	if code != success {
		return code
	}
	f, ok := handles[h].(*function)
	if !ok || f.ctx != c {
		return invalidHandle
	}
	if shared != 0 || stream != 0 || extra != nil {
		return notSupported
	}
	how := ""
	if kernel, h, found := strings.Cut(os.Getenv("QUERN_STUB_LAUNCH"), ":"); found && kernel == f.k.Name {
		how = h
	}
	switch number, err := strconv.Atoi(how); {
	case err == nil:
		return C.int(number)
	case how == "crash":
		C.crash()
	case how == "hang":
		for {
			time.Sleep(time.Hour)
		}
	}
	var args [][]byte
	for i, p := range f.k.Params {
		value := C.as_pointer(C.at(params, C.int(i)))
		args = append(args, slices.Clone(unsafe.Slice((*byte)(value), p.Size)))
	}
	if how == "wrong" {
		return success // and nothing is computed
	}
	err := f.k.Launch(&c.heap, [3]uint32{uint32(gx), uint32(gy), uint32(gz)}, [3]uint32{uint32(bx), uint32(by), uint32(bz)}, args, 0)
	var fault *interp.Fault
	switch {
	case err == nil:
		return success
	case errors.Is(err, interp.ErrArguments):
		return invalidValue
	case errors.As(err, &fault) && fault.Misaligned:
		c.broken = misaligned
	case errors.As(err, &fault):
		c.broken = illegalAddress
	default:
		c.broken = launchFailed
	}
	// Launches are asynchronous: the next call tells.
	return success
}
