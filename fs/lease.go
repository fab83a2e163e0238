package fs

import (
	"time"

	"quernfs/internal/wire"
)

// The decisions about leases, as functions of what is known.

// kernelTTL is how long the kernel may believe an entry or attributes that a
// lease covers. What ends the belief is a recall; the time-out only bounds what
// a lost notification could do.
const kernelTTL = 60 * time.Second

// held is what this session holds on one inode.
type held struct {
	mode   wire.Mode
	grant  uint64 // id of the newest grant recorded
	recall uint64 // id of the newest recall or release: grants up to it are void
}

// admit records a grant, unless it came too late. floor is the client's: grants
// up to it belong to a connection that is gone.
func (h *held) admit(g *wire.Grant, floor uint64) bool {
	if g == nil || g.Id <= h.recall || g.Id <= floor {
		return false
	}
	h.mode = max(h.mode, g.Mode)
	h.grant = max(h.grant, g.Id)
	return true
}

// lower brings the lease down to mode, for the recall or release id. OPEN is
// kept only for a file that is open, or may be about to be.
func (h *held) lower(to wire.Mode, id uint64, open bool) {
	h.recall = max(h.recall, id)
	h.mode = min(h.mode, to)
	if h.mode == wire.Mode_OPEN && !open {
		h.mode = wire.Mode_NONE
	}
}

// reclaimed replaces what is held by what a leader has accepted; nil: nothing.
func (h *held) reclaimed(g *wire.Grant) {
	if g == nil {
		h.mode = wire.Mode_NONE
		return
	}
	h.mode = min(h.mode, g.Mode)
	h.grant = max(h.grant, g.Id)
}

// recallPlan says what has to happen before a recall can be answered.
type recallPlan struct {
	flush   bool // write back what is dirty
	drop    bool // the kernel's pages go
	attrs   bool // the kernel's attributes go
	entries bool // the kernel's entries of this directory go
	names   bool // only these entries go
}

// planRecall: from is what is held, to what is asked for.
func planRecall(from, to wire.Mode, dir bool, names, victim bool) recallPlan {
	var p recallPlan
	if names {
		p.names, p.attrs = true, true
	}
	if victim {
		p.attrs = true // the link count changes
	}
	if from <= to {
		return p
	}
	p.flush = from == wire.Mode_WRITE && !dir
	if to < wire.Mode_READ && from >= wire.Mode_READ {
		p.attrs = true
		p.drop = !dir
		p.entries = dir
	}
	return p
}

// ttl is the time-out for something that a lease covers.
func ttl(covered bool) time.Duration {
	if covered {
		return kernelTTL
	}
	return 0
}

// appendAt decides where an O_APPEND write goes: at the true end, wherever the
// kernel believed it to be. moved: the kernel has put the bytes into the wrong
// place of its cache.
func appendAt(kernelOff, size int64) (off int64, moved bool) {
	return size, kernelOff != size
}

// relatime says whether a read at now changes the access time.
func relatime(a *wire.Attr, now int64) bool {
	return a.AtimeNs <= a.MtimeNs || a.AtimeNs <= a.CtimeNs || a.AtimeNs <= now-int64(24*time.Hour)
}
