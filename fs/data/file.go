package data

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// File is the content of one regular file. All methods may be called from many
// goroutines.
type File struct {
	path *Path
	ino  uint64

	mu        sync.RWMutex
	policy    block.Policy
	size      int64
	version   uint64  // of the inode last adopted or committed
	epoch     uint64  // grows when extents that were asked for may be out of date
	parts     []*part // written and not yet committed, oldest first; only the last may be in an open draft
	streaming bool    // its last draft was a private one that it filled

	// Content is either inline (inlined: all of it is in inline) or the layers
	// parts over extents over holes.
	inlined      bool
	inline       []byte // at most size bytes; zeros follow
	storedInline bool   // meta has inline content: the next extents drop it
	external     bool   // MakeExtents: never inline again

	pending *change       // for the next commit
	sent    *change       // in the commit in flight
	times   *wire.SetAttr // the last deferred mtime and ctime: every commit of data repeats them

	extents  spanMap[uint64]   // committed: block id
	known    spanMap[struct{}] // where extents is complete
	fetching chan struct{}     // closed when the fetch of extents under way ends; or nil

	stored   int64  // bytes that meta says the file occupies (allocated.go)
	storedAt uint64 // the version of the inode that this is from
	counted  bool   // fresh and unknown are up to date
	fresh    int64  // bytes of parts that lie over no extent
	unknown  int64  // where first that is not known, or -1

	lost  error  // data was dropped: reported by the next Flush
	drops uint64 // how often everything dirty was dropped

	readers readers // read-ahead; a lock of its own

	forgotten bool // guarded by Path.filesMu

	// Guarded by Path.mu.
	inReady    bool
	committing bool // in the commit in flight
	again      bool // became ready since it was taken for it
	gates      int  // > 0: not to be committed now
	alone      bool // a commit with it failed: commit it by itself
	tries      int  // failed commits
	waiting    bool // for a retry
	lastErr    error
	changedAt  time.Time // pending is due FlushAfter this
	listed     bool      // in Path.changed
	turn       chan struct{}
}

// change is what a commit changes in a file beside extents.
type change struct {
	attr    *wire.SetAttr // or nil
	inline  bool          // the inline content as it is at the commit
	minSize int64         // the size grows to this: the data at the end has become a hole
	charged int64         // of Path.used
	done    []chan struct{}
}

func (f *File) object() string { return fmt.Sprintf("ino %d", f.ino) }

// Ino is the inode number.
func (f *File) Ino() uint64 { return f.ino }

// Size is the size that a reader here sees: what is committed and what is not.
func (f *File) Size() int64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.size
}

// Dirty says that something is not committed yet.
func (f *File) Dirty() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.dirtyLocked()
}

func (f *File) dirtyLocked() bool {
	return len(f.parts) > 0 || f.pending != nil || f.sent != nil
}

// Reset says what meta has now: after a lease was taken, after a command of
// this mount changed the inode. What is known of extents is forgotten, unless
// the inode is the one known already; dirty data stays, on top.
func (f *File) Reset(inode *wire.Inode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v := inode.GetAttr().GetVersion(); v != 0 && v == f.version && !inode.GetHasInline() && !f.inlined && f.policy == block.FromWire(inode.GetPolicy()) {
		return
	}
	f.adopt(inode)
}

// inlineMax is the largest content that lives in the inode.
func (f *File) inlineMax() int64 {
	if f.external || f.policy.InlineMax <= block.NeverInline {
		return 0
	}
	return int64(min(f.policy.InlineMax, f.policy.BlockSize))
}

// adopt takes over the inode that meta has. f.mu is held.
func (f *File) adopt(inode *wire.Inode) {
	if pol := block.FromWire(inode.GetPolicy()); pol.K > 0 {
		f.policy = pol
	} else if f.policy.K == 0 {
		f.policy = block.Policy{K: 1}.Resolved()
	}
	a := inode.GetAttr()
	f.version = a.GetVersion()
	f.stored, f.storedAt = int64(a.GetAllocated()), a.GetVersion()
	f.counted = false
	f.epoch++
	f.times = nil
	f.extents.reset()
	f.known.reset()
	f.streaming = false
	size := int64(a.GetSize())
	empty := size == 0
	for _, c := range []*change{f.pending, f.sent} {
		if c != nil {
			size = max(size, c.minSize)
		}
	}
	folded := !f.inlined && f.storedInline && len(f.parts) > 0
	f.storedInline = inode.GetHasInline()
	if f.storedInline || f.stored == 0 {
		f.known.set(span[struct{}]{end: maxOff})
	}
	dirtyInline := f.inlined && (f.pending != nil && f.pending.inline || f.sent != nil && f.sent.inline)
	switch {
	case dirtyInline:
		f.size = max(size, int64(len(f.inline)))
		if f.size > f.inlineMax() {
			f.spill()
		}
	case len(f.parts) > 0:
		f.inlined, f.inline = false, nil
		f.size = size
		for _, pt := range f.parts {
			f.size = max(f.size, pt.spans.end())
		}
		if f.storedInline && !folded {
			f.fold(inode.GetInline())
		}
	default:
		f.size = size
		f.inlined = f.storedInline || empty && size <= f.inlineMax() && f.inlineMax() > 0
		f.inline = nil
		if f.storedInline {
			f.inline = slices.Clone(inode.GetInline())
			f.inline = f.inline[:min(int64(len(f.inline)), size)]
		}
	}
}

const maxOff = int64(wire.MaxFile)

// SetAttr adds deferred attributes (no size): they go with the file's next
// commit, which is begun FlushAfter from now at the latest.
func (f *File) SetAttr(a *wire.SetAttr) {
	f.mu.Lock()
	c := f.changing()
	c.attr = mergeAttr(c.attr, a)
	if a.GetMask()&(wire.SetMtime|wire.SetCtime) != 0 {
		f.times = mergeAttr(f.times, timesOf(a))
	}
	f.mu.Unlock()
	f.changeLater()
}

// changing returns the pending change, made if there is none. f.mu is held.
func (f *File) changing() *change {
	if f.pending == nil {
		f.pending = &change{done: []chan struct{}{make(chan struct{})}}
	}
	return f.pending
}

// changeLater has the pending change committed FlushAfter from its start.
func (f *File) changeLater() {
	p := f.path
	p.mu.Lock()
	defer p.mu.Unlock()
	if !f.listed && !f.inReady && !f.waiting {
		f.listed = true
		f.changedAt = time.Now()
		p.changed = append(p.changed, f)
		p.armTimer()
	}
}

// changeDue has the pending change committed now.
func (f *File) changeDue() {
	f.path.mu.Lock()
	defer f.path.mu.Unlock()
	f.path.readyLocked(f)
}

// timesOf is the part of a that a commit of data repeats, so that meta does not
// stamp the time of the commit on data written before.
func timesOf(a *wire.SetAttr) *wire.SetAttr {
	return &wire.SetAttr{Mask: a.GetMask() & (wire.SetMtime | wire.SetCtime), MtimeNs: a.GetMtimeNs(), CtimeNs: a.GetCtimeNs()}
}

// mergeAttr is what a followed by b does. Either may be nil; neither is
// changed.
func mergeAttr(a, b *wire.SetAttr) *wire.SetAttr {
	if a == nil || b == nil {
		if a == nil {
			a = b
		}
		if a == nil {
			return nil
		}
		c := proto.Clone(a).(*wire.SetAttr)
		c.Ino, c.Size, c.Handle = 0, 0, false
		c.Mask &^= wire.SetSize
		return c
	}
	c := mergeAttr(a, nil)
	if b.GetKillSuid() && c.Mask&wire.SetMode != 0 {
		c.Mode &^= 0o4000
		if c.Mode&0o010 != 0 {
			c.Mode &^= 0o2000
		}
	}
	c.KillSuid = c.KillSuid || b.GetKillSuid()
	if b.GetMask()&wire.SetMode != 0 {
		c.Mode, c.KillSuid = b.GetMode(), b.GetKillSuid()
	}
	if b.GetMask()&wire.SetUID != 0 {
		c.Uid = b.GetUid()
	}
	if b.GetMask()&wire.SetGID != 0 {
		c.Gid = b.GetGid()
	}
	if b.GetMask()&(wire.SetAtime|wire.AtimeNow) != 0 {
		c.Mask &^= wire.SetAtime | wire.AtimeNow
		c.AtimeNs = b.GetAtimeNs()
	}
	if b.GetMask()&(wire.SetMtime|wire.MtimeNow) != 0 {
		c.Mask &^= wire.SetMtime | wire.MtimeNow
		c.MtimeNs = b.GetMtimeNs()
	}
	if b.GetMask()&wire.SetCtime != 0 {
		c.CtimeNs = b.GetCtimeNs()
	}
	c.Mask |= b.GetMask() &^ wire.SetSize
	return c
}

// Discard drops what is dirty, at once and without waiting: the file has been
// deleted.
func (f *File) Discard() { f.drop(nil) }

// drop takes everything dirty away; lost, if not nil, is what the next Flush
// returns if there was something.
func (f *File) drop(lost error) {
	f.mu.Lock()
	if lost != nil && f.dirtyLocked() {
		f.lost = lost
	}
	f.epoch++
	f.drops++
	f.version = 0 // the next Reset is taken at its word
	f.cut(0, maxOff)
	charged := int64(0)
	if c := f.pending; c != nil {
		f.pending = nil
		charged = c.charged
		c.close()
	}
	f.mu.Unlock()
	f.path.mu.Lock()
	f.path.chargeLocked(-charged)
	f.path.unstick(f)
	f.path.mu.Unlock()
	f.path.forgetClean(f)
}

// close tells those who wait for the change.
func (c *change) close() {
	for _, ch := range c.done {
		close(ch)
	}
	c.done = nil
}

// cut removes [off, end) from what is dirty and from what is known of the
// extents, where it becomes a hole. Parts that are empty then are over. f.mu is
// held; no commit of this file is in flight, unless all is dropped.
func (f *File) cut(off, end int64) {
	f.parts = slices.DeleteFunc(f.parts, func(pt *part) bool {
		pt.spans.clear(off, end)
		if pt.spans.count() > 0 {
			return false
		}
		pt.finish()
		pt.close()
		return true
	})
	if f.inlined && off < int64(len(f.inline)) {
		if end >= int64(len(f.inline)) {
			f.inline = f.inline[:off]
		} else {
			clear(f.inline[off:end])
		}
	}
	f.extents.clear(off, end)
	f.counted = false
}
