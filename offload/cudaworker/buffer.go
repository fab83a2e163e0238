//go:build linux && cgo && cuda

package cudaworker

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"

	"quernfs/offload/recipe"
)

// buffer is memory of the GPU.
type buffer struct {
	at   cu.DevicePtr
	size int
}

func (m *machine) Buffer(size int) (recipe.Buffer, error) {
	at, err := cu.MemAlloc(int64(size))
	if err == cu.OutOfMemory {
		return nil, fmt.Errorf("out of memory: %s has no %d bytes left", m.gpu.info.Name, size)
	}
	if err != nil {
		return nil, check("cuMemAlloc", err)
	}
	return &buffer{at, size}, nil
}

func (b *buffer) Size() int { return b.size }

func (b *buffer) Write(p []byte) error {
	if err := b.fits(p); err != nil || len(p) == 0 {
		return err
	}
	return check("cuMemcpyHtoD", cu.MemcpyHtoD(b.at, unsafe.Pointer(&p[0]), int64(len(p))))
}

func (b *buffer) Read(p []byte) error {
	if err := b.fits(p); err != nil || len(p) == 0 {
		return err
	}
	return check("cuMemcpyDtoH", cu.MemcpyDtoH(unsafe.Pointer(&p[0]), b.at, int64(len(p))))
}

func (b *buffer) fits(p []byte) error {
	if len(p) > b.size {
		return fmt.Errorf("%d bytes are more than the %d of the buffer", len(p), b.size)
	}
	return nil
}

func (b *buffer) Zero() error { return check("cuMemsetD8", cu.MemsetD8(b.at, 0, int64(b.size))) }

func (b *buffer) Close() error {
	if b.at == 0 {
		return nil
	}
	err := check("cuMemFree", cu.MemFree(b.at))
	b.at = 0
	return err
}
