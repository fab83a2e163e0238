package fs

import (
	"context"
	"sync"

	"quernfs/internal/wire"
)

// isVirtual: the inode is the overlay's, not meta's.
func isVirtual(ino uint64) bool { return wire.PartitionOf(ino) == wire.VirtualPartition }

// queueNames remembers under which name a file of the job queue was opened for
// writing here.
type queueNames struct {
	mu    sync.Mutex
	names map[uint64]string
}

func (q *queueNames) note(ino uint64, name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.names == nil {
		q.names = map[uint64]string{}
	}
	q.names[ino] = name
}

func (q *queueNames) of(ino uint64) (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, ok := q.names[ino]
	return n, ok
}

func (q *queueNames) drop(ino uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.names, ino)
}

// enqueueWritten tells the overlay of a job file that was written in place.
func (fs *FS) enqueueWritten(ctx context.Context, cred *wire.Cred, in *inode) error {
	o := fs.over()
	name, ok := fs.queue.of(in.ino)
	if o == nil || !ok {
		return nil
	}
	if err := fs.flush(ctx, in); err != nil {
		return err
	}
	return o.Enqueue(ctx, cred, name, in.ino)
}

// renameQueued is rename where the queue may be involved: the overlay is asked
// before a file becomes one of its entries, and told when one is no more.
func (fs *FS) renameQueued(ctx context.Context, cred *wire.Cred, q *wire.Rename) error {
	o := fs.over()
	into, outOf := q.NewParent == wire.QueueIno, q.Parent == wire.QueueIno
	if o == nil || !into && !outOf {
		return fs.rename(ctx, cred, q)
	}
	f, err := fs.lookup(ctx, cred, q.Parent, q.Name)
	if err != nil {
		return err
	}
	if f.in == nil {
		return wire.Errorf(wire.NotFound, "rename", q.Name, "no such entry")
	}
	if into {
		if err := fs.flush(ctx, f.in); err != nil {
			return err
		}
		if err := o.Enqueue(ctx, cred, q.NewName, f.in.ino); err != nil {
			return err
		}
	}
	if err := fs.rename(ctx, cred, q); err != nil {
		return err
	}
	if into {
		fs.queue.note(f.in.ino, q.NewName)
	} else {
		fs.queue.drop(f.in.ino)
	}
	if outOf {
		return o.Dequeue(ctx, cred, q.Name)
	}
	return nil
}

// unlinkQueued is unlink where the queue may be involved.
func (fs *FS) unlinkQueued(ctx context.Context, cred *wire.Cred, dir uint64, name string) error {
	if err := fs.unlink(ctx, cred, dir, name, false); err != nil {
		return err
	}
	if o := fs.over(); o != nil && dir == wire.QueueIno {
		return o.Dequeue(ctx, cred, name)
	}
	return nil
}

// linkQueued is link where the queue may be involved.
func (fs *FS) linkQueued(ctx context.Context, cred *wire.Cred, ino, dir uint64, name string) (found, error) {
	if o := fs.over(); o != nil && dir == wire.QueueIno {
		if err := fs.flush(ctx, fs.inode(ino)); err != nil {
			return found{}, err
		}
		if err := o.Enqueue(ctx, cred, name, ino); err != nil {
			return found{}, err
		}
	}
	return fs.link(ctx, cred, ino, dir, name)
}
