package fs

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"quernfs/fs/data"
	"quernfs/internal/wire"
)

// inode is what this mount knows of one inode: the lease it holds, what that
// lease lets it believe, and what is under way. inode.mu may be held while
// fs/data is asked for a size or told attributes; it is never held over a call
// to meta, to the kernel, or a read or write of data.
type inode struct {
	ino uint64
	fs  *FS

	mu   sync.Mutex
	wake chan struct{} // closed, and replaced, when something changes that others wait for

	held held
	seen uint64      // id of the newest grant that came, recorded or not
	gen  uint64      // grows whenever something believed is dropped
	rec  *wire.Inode // as meta last gave it; shared, never changed
	sure bool        // rec is what meta has, as long as at least READ is held

	unsettled int // commands about it that may still be carried out, though they have failed

	grown  uint64 // the size that it was last found to have got elsewhere
	raised uint64 // the size that the kernel has at least, as it was told of grown

	local   deferred
	carried deferred   // what was local and goes with a command that is under way
	file    *data.File // regular files, from first use
	stale   bool       // file may have changed elsewhere: it is Reset with the next lease

	ops     map[*op]struct{} // reads and writes under way
	recall  *recalling       // a recall is being carried out
	acquire *acquiring       // a call for a lease is under way
	pages   pageNotes        // what is known of its pages in the kernel
	chain   appendChain      // the append that may not be over

	appending sync.Mutex // makes the end of the file one writer's

	late      atomic.Bool  // the kernel may still be cutting off pages for a reply that was given
	exclusive atomic.Int32 // operations under way for which the kernel holds its lock
	promises  int          // replies under way that let the kernel keep attributes
	links     uint32       // that the kernel counts; 0: not known
	dropping  uint32       // that it is about to take from its count
	tells     bool         // the kernel may believe that the file occupies told
	told      uint64
	shown     map[string]uint64 // directories: inodes that the kernel was given by name; 0: none, or not yet
	unlisted  bool              // directories: the kernel was given more names
	looking   map[string]int    // directories: look-ups under way, by name

	dirOps  int                 // operations on this directory under way that hold its lock in the kernel
	naming  int                 // recalls of names under way
	leaving map[string]*leaving // the names that they are about

	at      place             // a name of it, as last seen here
	entries dirCache          // directories
	xattrs  map[string][]byte // nil value: no such attribute; valid as sure is

	open      int       // handles
	lookups   uint64    // of the kernel
	lookedUp  time.Time // when the kernel was last given a name for it
	locks     lockTable
	releasing bool      // meta is being told that it is not used here any more
	victim    bool      // meta was told that it is open when it lost a name
	lost      bool      // meta was told that it is not: it may be gone
	alone     bool      // no other session has it, if it has no name
	left      bool      // without a name, handle or the kernel's knowledge: what others are to see is being stored
	capsGone  bool      // security.capability has been removed since the lease came
	idleSince time.Time // neither open nor known to the kernel; zero: in use
	queued    bool      // in the list of idle inodes
	gone      bool      // nlink 0, and released: nothing of it is asked of meta
}

// changed wakes whoever waits for this inode. in.mu is held.
func (in *inode) changed() {
	close(in.wake)
	in.wake = make(chan struct{})
}

// usable: the lease may be relied upon. in.mu is held.
func (in *inode) usable(m wire.Mode) bool {
	return in.held.mode >= m && !in.fs.lapsed.Load()
}

// believed: the attributes are those that meta has, or will get from here.
// in.mu is held.
func (in *inode) believed() bool {
	return in.rec != nil && (in.sure && in.usable(wire.Mode_READ) || in.gone)
}

func (in *inode) isDir() bool {
	return in.rec != nil && in.rec.Attr.Mode&typeMask == typeDir
}

func (in *inode) isReg() bool {
	return in.rec != nil && in.rec.Attr.Mode&typeMask == typeReg
}

// regular is isReg for who does not hold in.mu.
func (in *inode) regular() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.isReg()
}

// attrs are the attributes to be shown, but for what the file occupies. in.mu is
// held; in.rec is not nil.
func (in *inode) attrs() attrs {
	a := attrsOf(in.rec.Attr)
	if in.gone {
		a.nlink = 0
	}
	if in.writes() {
		a.size = uint64(in.file.Size())
	}
	return in.local.over(in.carried.over(a))
}

// writes: what is known of the content here is ahead of meta. in.mu is held.
func (in *inode) writes() bool { return in.file != nil && in.held.mode == wire.Mode_WRITE }

// weighed are the attributes to be shown, with what the file occupies. Where that
// is not exact it is the most that it can be. in.mu is held; in.rec is not nil.
func (in *inode) weighed() (a attrs, exact bool) {
	a, exact = in.attrs(), true
	if in.writes() {
		var n int64
		n, exact = in.file.AllocatedNow()
		a.allocated = uint64(n)
	}
	return a, exact
}

// weigh makes weighed exact, if meta answers.
func (fs *FS) weigh(ctx context.Context, in *inode) {
	in.mu.Lock()
	f := in.file
	if !in.writes() {
		f = nil
	}
	in.mu.Unlock()
	if f != nil {
		_, _ = f.Allocated(ctx)
	}
}

// admit records a grant, unless it came too late. in.mu is held.
func (in *inode) admit(g *wire.Grant) bool {
	in.seen = max(in.seen, g.GetId())
	return in.held.admit(g, in.fs.meta.Floor())
}

// learn takes over what a reply says about the inode, with the grant that came
// with it (both may be nil). It reports whether the reply may be believed for
// as long as the lease is held. in.mu is held.
func (in *inode) learn(rec *wire.Inode, g *wire.Grant) bool {
	admitted := in.admit(g)
	if admitted {
		in.lost = false
	}
	valid := admitted && in.held.mode >= wire.Mode_READ
	if rec != nil && (in.rec == nil || rec.Attr.Version >= in.rec.Attr.Version) {
		in.resized(rec.Attr.Size)
		in.rec = rec
	}
	if !valid || rec == nil {
		return false
	}
	in.sure = in.unsettled == 0
	if in.stale && in.file != nil {
		in.file.Reset(in.rec)
	}
	in.stale = false
	return in.sure
}

// resized is told of the size that the record gets. in.mu is held.
func (in *inode) resized(size uint64) {
	if in.rec != nil && size > in.attrs().size {
		in.grown = size
	}
	in.grown, in.raised = min(in.grown, size), min(in.raised, size)
}

// contents returns the data.File. in.mu is held; in.rec is not nil.
func (in *inode) contents() *data.File {
	if in.file == nil {
		in.file = in.fs.data.File(in.rec)
		in.stale = false
	}
	return in.file
}

// fall brings the lease down and forgets what it covered. coming: it may be about
// to be opened. in.mu is held.
func (in *inode) fall(to wire.Mode, id uint64, coming bool) {
	in.held.lower(to, id, in.open > 0 || coming)
	if in.held.mode < wire.Mode_WRITE {
		in.local = deferred{} // flushed, or an access time that is not worth keeping
	}
	if in.held.mode < wire.Mode_READ {
		in.doubt()
		in.stale = true
		in.capsGone = false
		in.entries.clear()
	}
}

// doubt: the attributes known here may be out of date. in.mu is held.
func (in *inode) doubt() {
	in.sure = false
	in.links = 0
	in.xattrs = nil
	in.gen++
}

// promise decides whether the kernel may keep the attributes that a reply
// carries. A promise is kept until the reply has been written: a recall waits
// for that before it tells the kernel otherwise.
func (in *inode) promise() (time.Duration, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.believed() || in.recall != nil || in.naming > 0 || in.gone {
		return 0, false
	}
	in.promises++
	return kernelTTL, true
}

// promised: the reply has been written.
func (in *inode) promised() {
	in.mu.Lock()
	in.promises--
	if in.promises == 0 {
		in.changed()
	}
	in.mu.Unlock()
}

// beginDirOp and endDirOp surround an operation during which the kernel holds
// the directory's lock.
func (in *inode) beginDirOp() {
	in.mu.Lock()
	in.dirOps++
	if in.naming > 0 {
		in.changed()
	}
	in.mu.Unlock()
}

func (in *inode) endDirOp() {
	in.mu.Lock()
	in.dirOps--
	in.mu.Unlock()
}
