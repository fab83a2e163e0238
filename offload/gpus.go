package offload

import (
	"context"
	"errors"

	"quernfs/offload/sandbox"
)

// gpus are the GPUs of this host, which kernels and programs use in turn. See
// sandbox.Host.
type gpus interface {
	TakeGPU(uuid string) bool
	GiveGPU(uuid string)
	TakeGPUs(n int, memory uint64) ([]sandbox.GPU, bool)
	GiveGPUs([]sandbox.GPU)
}

// errGPUs is a program that needs more GPUs than are free.
var errGPUs = errors.New("the GPUs of this host are in use")

// programGPUs reserves GPUs for a program. Where a kernel of the runtime cuda
// runs on one that it needs it waits for the end of that, and no other kernel gets
// one before it.
func (d *devices) programGPUs(ctx context.Context, n int, memory uint64) ([]sandbox.GPU, error) {
	d.mu.Lock()
	d.queue++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.queue--
		d.mu.Unlock()
		d.wake() // kernels that let it go first
	}()
	for {
		d.mu.Lock()
		got, ok := d.gpus.TakeGPUs(n, memory)
		held := false
		for _, x := range d.all {
			held = held || x.taken
		}
		freed := d.freed
		d.mu.Unlock()
		if ok {
			return got, nil
		}
		if !held {
			return nil, errGPUs
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// giveGPUs returns what programGPUs has given.
func (d *devices) giveGPUs(got []sandbox.GPU) {
	d.gpus.GiveGPUs(got)
	d.wake()
}
