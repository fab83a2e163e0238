//go:build linux && (amd64 || arm64)

package opencl

import (
	"errors"
	"runtime"
	"time"
	"unsafe"
)

const (
	queueProfiling = 1 << 1
	memReadWrite   = 1 << 0

	profilingStart = 0x1282
	profilingEnd   = 0x1283

	contextPlatform = 0x1084
)

// Context is a device in use, with one queue.
type Context struct {
	lib        *Library
	dev        *Device
	ctx, queue uintptr
}

// Open makes a context on the device.
func (d *Device) Open() (*Context, error) {
	properties := []uintptr{contextPlatform, d.platform, 0}
	id := []uintptr{d.id}
	ctx, err := d.lib.create(createContext, uintptr(unsafe.Pointer(&properties[0])), 1, uintptr(unsafe.Pointer(&id[0])), 0, 0)
	if err != nil {
		return nil, err
	}
	queue, err := d.lib.create(createCommandQueue, ctx, d.id, queueProfiling)
	if err != nil {
		_ = d.lib.do(releaseContext, ctx)
		return nil, err
	}
	return &Context{d.lib, d, ctx, queue}, nil
}

// Device is what the context runs on.
func (c *Context) Device() *Device { return c.dev }

// Close gives the context back. Programs and buffers are closed before.
func (c *Context) Close() error {
	if c.ctx == 0 {
		return nil
	}
	err := errors.Join(c.lib.do(releaseCommandQueue, c.queue), c.lib.do(releaseContext, c.ctx))
	c.ctx = 0
	return err
}

// Buffer is memory of the device.
type Buffer struct {
	c    *Context
	mem  uintptr
	size int
}

// Buffer makes a buffer of size bytes, at least 1. Its content is not defined.
func (c *Context) Buffer(size int) (*Buffer, error) {
	mem, err := c.lib.create(createBuffer, c.ctx, memReadWrite, uintptr(size), 0)
	if err != nil {
		return nil, err
	}
	return &Buffer{c, mem, size}, nil
}

// Size in bytes.
func (b *Buffer) Size() int { return b.size }

// Write copies p to the beginning of the buffer.
func (b *Buffer) Write(p []byte) error { return b.copy(enqueueWriteBuffer, p) }

// Read copies the beginning of the buffer to p.
func (b *Buffer) Read(p []byte) error { return b.copy(enqueueReadBuffer, p) }

func (b *Buffer) copy(c call, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if len(p) > b.size {
		return &Error{callNames[c], -30}
	}
	err := b.c.lib.do(c, b.c.queue, b.mem, 1, 0, uintptr(len(p)), uintptr(unsafe.Pointer(&p[0])), 0, 0, 0)
	runtime.KeepAlive(p)
	return err
}

// Zero fills the buffer with zeros.
func (b *Buffer) Zero() error {
	pattern := new(uint8)
	if err := b.c.lib.do(enqueueFillBuffer, b.c.queue, b.mem, uintptr(unsafe.Pointer(pattern)), 1, 0, uintptr(b.size), 0, 0, 0); err != nil {
		return err
	}
	return b.c.lib.do(finish, b.c.queue)
}

// Close frees the memory.
func (b *Buffer) Close() error {
	if b.mem == 0 {
		return nil
	}
	err := b.c.lib.do(releaseMemObject, b.mem)
	b.mem = 0
	return err
}

// Run enqueues k over the global size (one to three dimensions) in groups of
// the local size (nil: as the driver likes), waits for its end, and says how
// long it ran on the device.
func (c *Context) Run(k *Kernel, global, local []int) (time.Duration, error) {
	if len(global) == 0 || len(global) > 3 || local != nil && len(local) != len(global) {
		return 0, &Error{callNames[enqueueNDRangeKernel], -53}
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	g, ls := sizes(global), sizes(local)
	var l uintptr
	if ls != nil {
		l = address(&pin, &ls[0])
	}
	event := new(uintptr)
	err := c.lib.do(enqueueNDRangeKernel, c.queue, k.id, uintptr(len(g)), 0, uintptr(unsafe.Pointer(&g[0])), l, 0, 0, uintptr(unsafe.Pointer(event)))
	if err != nil {
		return 0, err
	}
	err = c.lib.do(waitForEvents, 1, uintptr(unsafe.Pointer(event)))
	var took time.Duration
	if err == nil {
		took, err = c.took(*event)
	}
	return took, errors.Join(err, c.lib.do(releaseEvent, *event))
}

func (c *Context) took(event uintptr) (time.Duration, error) {
	start, end := new(uint64), new(uint64)
	for what, to := range map[uintptr]*uint64{profilingStart: start, profilingEnd: end} {
		if err := c.lib.do(getEventProfilingInfo, event, what, 8, uintptr(unsafe.Pointer(to)), 0); err != nil {
			return 0, err
		}
	}
	return time.Duration(*end - *start), nil
}

func sizes(in []int) []uintptr {
	var out []uintptr
	for _, n := range in {
		out = append(out, uintptr(n))
	}
	return out
}
