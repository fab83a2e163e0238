package fs

import (
	"context"
	"errors"

	"quernfs/internal/wire"
)

// lock takes, releases or tests a file lock. With wait it waits as long as ctx
// lives. For a test, conflict is the lock in the way, nil if there is none.
func (fs *FS) lock(ctx context.Context, in *inode, l fileLock, wait bool) error {
	q := l.wire(in.ino)
	q.Wait = wait
	if l.typ == wire.Unlock {
		// The table is told first: a leader that has forgotten must not be told of
		// a lock that is being given up.
		in.mu.Lock()
		in.locks = in.locks.set(l)
		in.mu.Unlock()
	}
	if _, err := fs.meta.Lock(ctx, q); err != nil {
		return err
	}
	if l.typ != wire.Unlock {
		in.mu.Lock()
		in.locks = in.locks.set(l)
		in.mu.Unlock()
	}
	return nil
}

// testLock returns the lock that is in the way of l, nil if there is none.
func (fs *FS) testLock(ctx context.Context, in *inode, l fileLock) (*wire.Lock, error) {
	q := l.wire(in.ino)
	q.Test = true
	r, err := fs.meta.Lock(ctx, q)
	if err != nil && (r == nil || !errors.Is(err, wire.Again)) {
		return nil, err
	}
	return r.GetConflict(), nil
}

// unlockAll drops the locks of an owner, if it has any.
func (fs *FS) unlockAll(ctx context.Context, in *inode, owner uint64, flock bool) error {
	in.mu.Lock()
	any := in.locks.holds(owner, flock)
	in.mu.Unlock()
	if !any {
		return nil
	}
	return fs.lock(ctx, in, fileLock{owner: owner, flock: flock, typ: wire.Unlock, end: ^uint64(0)}, false)
}
