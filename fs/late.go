package fs

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// When it has the reply to a truncate, punch, zero or copy, the kernel goes on: it sets
// its size of the file, and makes parts of pages zeros. Meanwhile the lease may be
// recalled, another mount write, and a read here fill these pages anew: then the kernel
// cuts off what has just come. It does so under the inode's lock, which it took for the
// operation. So who is to give up the lease waits until it has let go of that: until
// another operation comes that needs the lock, or, if none does, one of our own has
// had it.

// lateWait bounds that. It is passed where an operation has the lock that waits for
// the recall and was not seen coming.
const lateWait = time.Second

// settledName is the attribute that is removed to have the lock; nobody has it. Of such
// ones the kernel asks nothing but whether we may.
const settledName = "trusted.quern.settled"

// locked notes that an operation on an inode has come for which the kernel holds its
// lock. Call unlocked when it is answered.
func (in *inode) locked() {
	in.exclusive.Add(1)
	if in.late.Swap(false) {
		in.mu.Lock()
		in.changed()
		in.mu.Unlock()
	}
}

func (in *inode) unlocked() { in.exclusive.Add(-1) }

// lockedAs is locked for the files that the kernel has by these names. What it returns
// is their unlocked.
func (fs *FS) lockedAs(names ...place) (over func()) {
	var list []*inode
	for _, n := range names {
		if in := fs.inode(n.dir).given(n.name); in != nil {
			in.locked()
			list = append(list, in)
		}
	}
	return func() {
		for _, in := range list {
			in.unlocked()
		}
	}
}

// awaitLate waits until the kernel has done all that it does with replies that were
// given.
func (fs *FS) awaitLate(k kernel, in *inode) {
	in.mu.Lock()
	given := in.lookups > 0
	in.mu.Unlock()
	if !given || !in.late.Load() {
		return
	}
	done := make(chan struct{})
	fs.spawn(func() {
		defer close(done)
		k.settle(in.ino)
	})
	limit := time.NewTimer(lateWait)
	defer limit.Stop()
	for {
		in.mu.Lock()
		wake := in.wake
		in.mu.Unlock()
		if !in.late.Load() {
			return
		}
		select {
		case <-done:
			in.late.Store(false)
			return
		case <-wake:
		case <-limit.C:
			return
		}
	}
}

// settle has the kernel take an inode's lock, for an attribute that is not there.
func (c *conn) settle(ino uint64) {
	err := c.withHandle(ino, func(fd int) error {
		err := unix.Removexattr("/proc/self/fd/"+strconv.Itoa(fd), settledName)
		if err == unix.ENODATA {
			err = nil
		}
		return err
	})
	if err != nil {
		c.log.Debug("the kernel could not be waited for", "ino", ino, "err", err)
	}
}

// isSettle: a request of ours that is to have the inode's lock and nothing else.
func isSettle(pid uint32, name string) bool {
	return name == settledName && int(pid) == os.Getpid()
}
