package offload

import (
	"context"
	"errors"

	"quernfs/offload/sandbox"
)

// errGPUs is a program that needs more GPUs than are free.
var errGPUs = errors.New("the GPUs of this host are in use")

// programGPUs reserves GPUs for a program. Where a kernel of the runtime cuda
// runs on one that it needs it waits for the end of that.
func (d *devices) programGPUs(ctx context.Context, host *sandbox.Host, n int, memory uint64) ([]sandbox.GPU, error) {
	for {
		d.mu.Lock()
		got, ok := host.TakeGPUs(n, memory)
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
