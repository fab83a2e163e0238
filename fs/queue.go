package fs

import (
	"context"
	"strings"
	"sync"

	"quernfs/internal/wire"
)

// isVirtual: the inode is the overlay's, not meta's.
func isVirtual(ino uint64) bool { return wire.PartitionOf(ino) == wire.VirtualPartition }

// checked: the overlay is asked before a file becomes an entry of this
// directory, the job queue or that of the rules.
func checked(dir uint64) bool { return dir == wire.QueueIno || dir == wire.RulesIno }

// checkedFor is checked, and true for where cred keeps rules of his own.
func (fs *FS) checkedFor(ctx context.Context, cred *wire.Cred, dir uint64, name string) bool {
	if checked(dir) || !strings.HasSuffix(name, ".yaml") && !strings.HasSuffix(name, ".yml") {
		return checked(dir)
	}
	r, ok := fs.over().(Rules)
	return ok && r.OwnRules(ctx, cred, dir)
}

// enqueue asks the overlay about an entry of such a directory.
func enqueue(ctx context.Context, o Overlay, cred *wire.Cred, dir uint64, name string, ino uint64) error {
	if dir == wire.QueueIno {
		return o.Enqueue(ctx, cred, name, ino)
	}
	if r, ok := o.(Rules); ok {
		return r.CheckRule(ctx, cred, dir, name, ino)
	}
	return nil
}

// dequeue tells the overlay that there is no such entry any more.
func dequeue(ctx context.Context, o Overlay, cred *wire.Cred, dir uint64, name string) error {
	if dir == wire.QueueIno {
		return o.Dequeue(ctx, cred, name)
	}
	if r, ok := o.(Rules); ok {
		r.RuleGone(ctx, cred, dir, name)
	}
	return nil
}

// queueNames remembers under which name a file of such a directory was opened for
// writing here.
type queueNames struct {
	mu    sync.Mutex
	names map[uint64]place
}

func (q *queueNames) note(ino, dir uint64, name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.names == nil {
		q.names = map[uint64]place{}
	}
	q.names[ino] = place{dir, name}
}

func (q *queueNames) of(ino uint64) (place, bool) {
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

// enqueueWritten tells the overlay of a job file or rule that was written in place.
func (fs *FS) enqueueWritten(ctx context.Context, cred *wire.Cred, in *inode) error {
	o := fs.over()
	at, ok := fs.queue.of(in.ino)
	if o == nil || !ok {
		return nil
	}
	if err := fs.flush(ctx, in); err != nil {
		return err
	}
	return enqueue(ctx, o, cred, at.dir, at.name, in.ino)
}

// renameQueued is rename where the queue may be involved: the overlay is asked
// before a file becomes one of its entries, and told when one is no more.
func (fs *FS) renameQueued(ctx context.Context, cred *wire.Cred, q *wire.Rename) error {
	o := fs.over()
	into, outOf := fs.checkedFor(ctx, cred, q.NewParent, q.NewName), fs.checkedFor(ctx, cred, q.Parent, q.Name)
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
		if err := enqueue(ctx, o, cred, q.NewParent, q.NewName, f.in.ino); err != nil {
			return err
		}
	}
	if err := fs.rename(ctx, cred, q); err != nil {
		return err
	}
	if into {
		fs.queue.note(f.in.ino, q.NewParent, q.NewName)
	} else {
		fs.queue.drop(f.in.ino)
	}
	if outOf {
		return dequeue(ctx, o, cred, q.Parent, q.Name)
	}
	return nil
}

// unlinkQueued is unlink where the queue may be involved.
func (fs *FS) unlinkQueued(ctx context.Context, cred *wire.Cred, dir uint64, name string) error {
	if err := fs.unlink(ctx, cred, dir, name, false); err != nil {
		return err
	}
	if o := fs.over(); o != nil && fs.checkedFor(ctx, cred, dir, name) {
		return dequeue(ctx, o, cred, dir, name)
	}
	return nil
}

// linkQueued is link where the queue may be involved.
func (fs *FS) linkQueued(ctx context.Context, cred *wire.Cred, ino, dir uint64, name string) (found, error) {
	if o := fs.over(); o != nil && fs.checkedFor(ctx, cred, dir, name) {
		if err := fs.flush(ctx, fs.inode(ino)); err != nil {
			return found{}, err
		}
		if err := enqueue(ctx, o, cred, dir, name, ino); err != nil {
			return found{}, err
		}
	}
	return fs.link(ctx, cred, ino, dir, name)
}
