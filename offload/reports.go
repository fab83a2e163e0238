package offload

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// reports sends what tasks report to meta. Those that come while a command is
// under way go together in the next one.
type reports struct {
	meta Meta

	mu      sync.Mutex
	queue   []*report // guarded by mu
	sending bool      // guarded by mu
}

type report struct {
	update *wire.UpdateTask
	ctx    context.Context
	done   chan error // capacity 1
}

const (
	reportBatch = 256
	reportBytes = 1 << 20 // of one command; a report is never divided
)

// send returns what meta has answered.
func (r *reports) send(ctx context.Context, u *wire.UpdateTask) error {
	x := &report{update: u, ctx: ctx, done: make(chan error, 1)}
	r.mu.Lock()
	r.queue = append(r.queue, x)
	begin := !r.sending
	r.sending = true
	r.mu.Unlock()
	if begin {
		go r.run()
	}
	select {
	case err := <-x.done:
		return err
	case <-ctx.Done():
		return wire.Errorf(wire.CodeOf(ctx.Err()), "report task", "", "meta does not answer in time")
	}
}

// run sends until there is nothing left.
func (r *reports) run() {
	for {
		r.mu.Lock()
		n, size := 0, 0
		for n < min(len(r.queue), reportBatch) && (n == 0 || size < reportBytes) {
			size += proto.Size(r.queue[n].update)
			n++
		}
		list := r.queue[:n:n]
		r.queue = r.queue[n:]
		r.sending = n > 0
		r.mu.Unlock()
		if n == 0 {
			return
		}
		r.together(list)
	}
}

// together sends the reports in one command. It is given up when the first of
// their callers gives up: each sends its own again.
func (r *reports) together(list []*report) {
	if len(list) == 1 {
		_, err := r.meta.Do(list[0].ctx, command(list[0].update))
		list[0].done <- err
		return
	}
	b := &wire.Batch{}
	for _, x := range list {
		b.Commands = append(b.Commands, command(x.update))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, x := range list {
		stop := context.AfterFunc(x.ctx, cancel)
		defer stop()
	}
	res, err := r.meta.Do(ctx, &wire.Command{Cred: rootCred, Op: &wire.Command_Batch{Batch: b}})
	for i, err := range resultsOf(res, err, len(list)) {
		list[i].done <- err
	}
}

func command(u *wire.UpdateTask) *wire.Command {
	return &wire.Command{Cred: rootCred, Op: &wire.Command_UpdateTask{UpdateTask: u}}
}
