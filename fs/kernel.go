package fs

import "time"

// kernel is what a mount in the kernel can be told. All methods may be called
// concurrently.
type kernel interface {
	// forgetEntry drops one name, positive or negative. It waits for the
	// directory's lock in the kernel.
	forgetEntry(dir uint64, name string)
	// expireEntry makes it look one name up again when it is next used. What is
	// still there under its name stays as it is, with what is mounted below it. It
	// waits for the directory's lock.
	expireEntry(dir uint64, name string)
	// forgetAttrs drops attributes and ACLs, and voids those in replies to
	// requests that are under way, if the kernel has the inode. It never waits.
	forgetAttrs(ino uint64) (known bool)
	// forgetPages drops pages of a file, having written back those that were
	// changed through a mapping. It waits for pages that are locked.
	forgetPages(ino uint64, s span)
	// raiseSize makes the kernel's size of a file at least size. It waits while the
	// page that holds the last byte is locked.
	raiseSize(ino uint64, size int64)
	// clear makes bytes of one page zeros, if the kernel has it, and its size of the
	// file at least s.hi. It waits while the page is locked.
	clear(ino uint64, s span, from *zeros)
	// settle returns when the kernel has done what it does under the inode's lock with
	// replies that were given. It waits for that lock.
	settle(ino uint64)
	// newEpoch makes the kernel look up every name again, those in replies that
	// are under way included. It never waits; false: this kernel cannot do it.
	newEpoch() bool
}

func (fs *FS) kernel() kernel {
	if r := fs.kern.Load(); r != nil {
		return r.kernel
	}
	return nil
}

const firstWait = 100 * time.Microsecond // between two looks whether the kernel has an inode

// forgetAttrs makes the kernel ask for attributes of in again, also where the
// reply that gives it the inode for the first time has been written, and it has not
// looked at it yet: then there is nothing yet that a notice could be about, and
// nothing tells when there is.
func (fs *FS) forgetAttrs(k kernel, in *inode) {
	for deadline := time.Now().Add(noticeWait); !k.forgetAttrs(in.ino) && time.Now().Before(deadline); time.Sleep(firstWait) {
		in.mu.Lock()
		given := in.lookups > 0
		in.mu.Unlock()
		if !given || fs.ctx.Err() != nil {
			return
		}
	}
}
