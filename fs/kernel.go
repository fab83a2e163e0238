package fs

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
	// requests that are under way. It never waits.
	forgetAttrs(ino uint64)
	// forgetPages drops pages of a file, having written back those that were
	// changed through a mapping. It waits for pages that are locked.
	forgetPages(ino uint64, s span)
	// raiseSize makes the kernel's size of a file at least size. It waits while the
	// page that holds the last byte is locked.
	raiseSize(ino uint64, size int64)
	// clear makes bytes of one page zeros, if the kernel has it, and its size of the
	// file at least s.hi. It waits while the page is locked.
	clear(ino uint64, s span, from *zeros)
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
