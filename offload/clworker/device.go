//go:build linux && (amd64 || arm64)

package clworker

import (
	"errors"
	"fmt"
	"time"

	"quernfs/offload/opencl"
	"quernfs/offload/recipe"
)

var _ recipe.Device = (*machine)(nil)

// Name, MaxAlloc, Program, Buffer and Failed are those of recipe.Device.
func (m *machine) Name() string { return m.ctx.Device().Name }

func (m *machine) MaxAlloc() int64 { return m.ctx.Device().MaxAlloc }

func (m *machine) Program(source []byte) (recipe.Program, error) {
	p, err := m.program(source)
	var build *opencl.BuildError
	if errors.As(err, &build) {
		return nil, &recipe.BuildError{Log: build.Log}
	}
	if err != nil {
		return nil, err
	}
	return program{m.ctx, p}, nil
}

func (m *machine) Buffer(size int) (recipe.Buffer, error) {
	b, err := m.ctx.Buffer(size)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Failed knows the codes for what is wrong with a kernel or its manifest, an
// argument that makes no sense. Others are the device's.
func (m *machine) Failed(err error) bool {
	var call *opencl.Error
	return errors.As(err, &call) && (call.Code > -30 || call.Code < -70)
}

type program struct {
	ctx *opencl.Context
	p   *opencl.Program
}

func (p program) Kernel(name string) (recipe.Kernel, error) {
	k, err := p.p.Kernel(name)
	if err != nil {
		return nil, err
	}
	return kernel{p.ctx, k}, nil
}

type kernel struct {
	ctx *opencl.Context
	k   *opencl.Kernel
}

func (k kernel) Args() int     { return k.k.Args }
func (k kernel) MaxGroup() int { return k.k.MaxGroup }
func (k kernel) Close() error  { return k.k.Close() }

func (k kernel) SetBuffer(i int, b recipe.Buffer) error {
	mem, ok := b.(*opencl.Buffer)
	if !ok {
		return fmt.Errorf("a buffer of another device: %T", b)
	}
	return k.k.SetBuffer(i, mem)
}

func (k kernel) SetScalar(i int, value []byte) error { return k.k.SetScalar(i, value) }

func (k kernel) Run(global, local []int) (time.Duration, error) {
	return k.ctx.Run(k.k, global, local)
}
