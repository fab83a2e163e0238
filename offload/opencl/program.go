//go:build linux && (amd64 || arm64)

package opencl

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"
)

const (
	programDevices     = 0x1163
	programBinarySizes = 0x1165
	programBinaries    = 0x1166
	buildLog           = 0x1183
	kernelNumArgs      = 0x1191
	kernelGroup        = 0x11B0
)

// Program is a program built for the device of a context.
type Program struct {
	c  *Context
	id uintptr
}

// Build compiles source with options of the OpenCL compiler. What is wrong with
// the source is a *BuildError.
func (c *Context) Build(source, options string) (*Program, error) {
	text := []byte(source + "\x00")
	strs := []*byte{&text[0]}
	id, err := c.lib.create(createProgramWithSource, c.ctx, 1, uintptr(unsafe.Pointer(&strs[0])), 0)
	runtime.KeepAlive(text)
	if err != nil {
		return nil, err
	}
	return c.build(id, options)
}

// Load takes what Binary returned on a device and driver of the same kind.
func (c *Context) Load(binary []byte, options string) (*Program, error) {
	if len(binary) == 0 {
		return nil, &Error{callNames[createProgramWithBinary], -42}
	}
	device, size := []uintptr{c.dev.id}, []uintptr{uintptr(len(binary))}
	ptr := []*byte{&binary[0]}
	status := new(int32)
	id, err := c.lib.create(createProgramWithBinary, c.ctx, 1, uintptr(unsafe.Pointer(&device[0])),
		uintptr(unsafe.Pointer(&size[0])), uintptr(unsafe.Pointer(&ptr[0])), uintptr(unsafe.Pointer(status)))
	runtime.KeepAlive(binary)
	if err != nil {
		return nil, err
	}
	return c.build(id, options)
}

func (c *Context) build(id uintptr, options string) (*Program, error) {
	device := []uintptr{c.dev.id}
	opts := []byte(options + "\x00")
	err := c.lib.do(buildProgram, id, 1, uintptr(unsafe.Pointer(&device[0])), uintptr(unsafe.Pointer(&opts[0])), 0, 0)
	if err == nil {
		return &Program{c, id}, nil
	}
	if e := new(Error); errors.As(err, &e) && e.Code == -11 {
		log, logErr := c.lib.info(getProgramBuildInfo, id, c.dev.id, buildLog)
		if logErr != nil {
			log = []byte(logErr.Error())
		}
		err = &BuildError{strings.TrimSpace(strings.TrimRight(string(log), "\x00"))}
	}
	_ = c.lib.do(releaseProgram, id)
	return nil, err
}

// Binary is what Load takes.
func (p *Program) Binary() ([]byte, error) {
	lib := p.c.lib
	devices, err := lib.info(getProgramInfo, p.id, programDevices)
	if err != nil {
		return nil, err
	}
	if len(devices) != 8 {
		return nil, fmt.Errorf("a program of one device has %d bytes of devices", len(devices))
	}
	n, err := lib.number(getProgramInfo, p.id, programBinarySizes)
	if err != nil || n == 0 || n > maxInfo {
		return nil, errors.Join(err, fmt.Errorf("a binary of %d bytes", n))
	}
	binary := make([]byte, n)
	ptr := []*byte{&binary[0]}
	err = lib.do(getProgramInfo, p.id, programBinaries, 8, uintptr(unsafe.Pointer(&ptr[0])), 0)
	runtime.KeepAlive(binary)
	return binary, err
}

// Close gives the program back. Its kernels are closed before.
func (p *Program) Close() error {
	if p.id == 0 {
		return nil
	}
	err := p.c.lib.do(releaseProgram, p.id)
	p.id = 0
	return err
}

// Kernel is one entry point.
type Kernel struct {
	c    *Context
	id   uintptr
	Args int // how many arguments it takes
	// MaxGroup is how many work items a group of it may have on the device.
	MaxGroup int
}

// Kernel finds an entry point of the program.
func (p *Program) Kernel(name string) (*Kernel, error) {
	text := []byte(name + "\x00")
	lib := p.c.lib
	id, err := lib.create(createKernel, p.id, uintptr(unsafe.Pointer(&text[0])))
	if err != nil {
		return nil, err
	}
	args, err := lib.number(getKernelInfo, id, kernelNumArgs)
	group := make([]uint, 1)
	if err == nil {
		err = lib.do(getKernelWorkGroupInfo, id, p.c.dev.id, kernelGroup, 8, uintptr(unsafe.Pointer(&group[0])), 0)
	}
	if err != nil {
		_ = lib.do(releaseKernel, id)
		return nil, err
	}
	return &Kernel{p.c, id, int(args), int(group[0])}, nil
}

// SetBuffer makes b argument i.
func (k *Kernel) SetBuffer(i int, b *Buffer) error {
	mem := []uintptr{b.mem}
	return k.c.lib.do(setKernelArg, k.id, uintptr(i), 8, uintptr(unsafe.Pointer(&mem[0])))
}

// SetScalar makes the bytes of a number argument i.
func (k *Kernel) SetScalar(i int, value []byte) error {
	return k.c.lib.do(setKernelArg, k.id, uintptr(i), uintptr(len(value)), uintptr(unsafe.Pointer(&value[0])))
}

// Close gives the kernel back.
func (k *Kernel) Close() error {
	if k.id == 0 {
		return nil
	}
	err := k.c.lib.do(releaseKernel, k.id)
	k.id = 0
	return err
}
