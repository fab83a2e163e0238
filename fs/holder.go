package fs

import (
	"context"
	"slices"
	"sync/atomic"

	"quernfs/internal/wire"
	"quernfs/meta/client"
)

// holder is what the client calls back.
type holder struct{ fs *FS }

// ready waits until the FS has its client: callbacks may come before.
func (h *holder) ready() *FS {
	select {
	case <-h.fs.started:
	case <-h.fs.ctx.Done():
	}
	return h.fs
}

var _ client.Holder = (*holder)(nil)

// Recall obeys a recall.
func (h *holder) Recall(r *wire.Recall) *wire.Recalled {
	fs := h.ready()
	in := fs.inode(r.Ino)
	if len(r.Names) > 0 || r.Attrs {
		fs.recallNames(in, r)
	}
	return fs.recallLease(in, r)
}

// Held lists every lease.
func (h *holder) Held() []*wire.Grant {
	var list []*wire.Grant
	for _, in := range h.fs.all() {
		in.mu.Lock()
		if in.held.mode != wire.Mode_NONE {
			list = append(list, &wire.Grant{Ino: in.ino, Mode: in.held.mode, Id: in.held.grant})
		}
		in.mu.Unlock()
	}
	return list
}

// Locks lists every file lock.
func (h *holder) Locks() []*wire.LockClaim {
	var list []*wire.LockClaim
	for _, in := range h.fs.all() {
		in.mu.Lock()
		for _, l := range in.locks {
			list = append(list, &wire.LockClaim{Lock: l.wire(in.ino)})
		}
		in.mu.Unlock()
	}
	return list
}

// Reclaimed takes over what a leader has accepted; the rest is gone.
func (h *holder) Reclaimed(list []*wire.Grant) {
	fs := h.ready()
	byIno := make(map[uint64]*wire.Grant, len(list))
	for _, g := range list {
		byIno[g.Ino] = g
	}
	var gone []*inode
	for _, in := range fs.all() {
		in.mu.Lock()
		g := byIno[in.ino]
		before := in.held.mode
		if before != wire.Mode_NONE {
			in.held.reclaimed(g)
			if in.held.mode < wire.Mode_READ && before >= wire.Mode_READ {
				in.doubt()
				in.stale = true
				in.entries.clear()
				gone = append(gone, in)
			}
		}
		in.changed()
		in.mu.Unlock()
	}
	if len(gone) > 0 {
		fs.log.Warn("leases were lost while the servers were away", "leases", len(gone))
		fs.forgetKernel(gone)
	}
	fs.lapsed.Store(false)
	for _, in := range fs.all() {
		in.mu.Lock()
		in.changed()
		in.mu.Unlock()
	}
}

// Lapsed stops all use of what leases covered. What is dirty stays.
func (h *holder) Lapsed() {
	fs := h.ready()
	fs.lapsed.Store(true)
	list := fs.all()
	for _, in := range list {
		in.mu.Lock()
		in.gen++
		in.changed()
		in.mu.Unlock()
	}
	fs.forgetKernel(list)
}

// Ended drops everything that the old session had.
func (h *holder) Ended() {
	fs := h.ready()
	list := fs.all()
	for _, in := range list {
		in.mu.Lock()
		in.held.mode = wire.Mode_NONE
		in.held.recall = max(in.held.recall, in.held.grant)
		in.local, in.carried = deferred{}, deferred{}
		in.locks = nil
		in.stale = true
		in.doubt()
		in.entries.clear()
		in.changed()
		in.mu.Unlock()
	}
	if n := fs.data.Abandon(); n > 0 {
		fs.log.Error("the session was ended by the metadata servers: data that was not yet stored is lost", "bytes", n)
	}
	fs.orphans.clear()
	fs.lapsed.Store(false)
	fs.forgetKernel(list)
}

// Nodes and Capability are for the chunk servers' client.
func (h *holder) Nodes(n []*wire.NodeStatus) {
	h.fs.short.Store(noRoom(n))
	h.fs.chunks.SetNodes(n)
}
func (h *holder) Capability(token []byte) { h.fs.chunks.SetCapability(token) }

// noRoom says that there are chunk servers, and none of them has room.
func noRoom(list []*wire.NodeStatus) bool {
	full := false
	for _, n := range list {
		if n.GetNode().GetKind() != "chunkd" || !n.GetAlive() {
			continue
		}
		if !n.GetFull() {
			return false
		}
		full = true
	}
	return full
}

// closing is what a close waits for, that has written to in: nothing, unless there
// is no room. Then it is the last occasion to say that the data is not stored.
func (fs *FS) closing(ctx context.Context, in *inode) error {
	in.mu.Lock()
	f := in.file
	in.mu.Unlock()
	if f == nil {
		return nil
	}
	if fs.short.Load() {
		return fs.flush(ctx, in)
	}
	return f.Refused()
}

// forgetKernel drops from the kernel all that it keeps of these inodes. Pages
// may be locked by requests that wait for meta: they are not waited for.
func (fs *FS) forgetKernel(list []*inode) {
	k := fs.kernel()
	if k == nil {
		return
	}
	for _, in := range list {
		k.forgetAttrs(in.ino)
	}
	if !fs.forgetNames(k, list) {
		k.newEpoch()
	}
	fs.spawn(func() {
		for _, in := range list {
			in.mu.Lock()
			file := in.file != nil
			in.mu.Unlock()
			if file {
				fs.dropPages(k, in, span{0, maxOff})
			}
		}
	})
}

const forgetters = 16 // goroutines that tell the kernel of names

// forgetNames makes the kernel look up every name of these directories again. Those
// that are being changed come last, for they wait. false: some are still on
// their way.
func (fs *FS) forgetNames(k kernel, list []*inode) bool {
	complete := true
	var idle, busy []*inode
	for _, in := range list {
		in.mu.Lock()
		complete = complete && !in.unlisted
		switch {
		case len(in.shown) == 0:
		case in.dirOps > 0:
			busy = append(busy, in)
		default:
			idle = append(idle, in)
		}
		in.mu.Unlock()
	}
	dirs := make(chan *inode, len(idle)+len(busy))
	for _, in := range slices.Concat(idle, busy) {
		dirs <- in
	}
	close(dirs)
	done := make(chan struct{})
	var left atomic.Int32
	left.Store(forgetters)
	for range forgetters {
		fs.spawn(func() {
			for in := range dirs {
				names, _ := in.allShown()
				forgetEach(k, in, names)
			}
			if left.Add(-1) == 0 {
				close(done)
			}
		})
	}
	return complete && waitFor(done, allWait)
}

// committed is told by fs/data what meta has after a commit.
func (fs *FS) committed(rec *wire.Inode) {
	in := fs.peek(rec.GetAttr().GetIno())
	if in == nil {
		return
	}
	in.mu.Lock()
	in.learn(rec, nil)
	in.local.settle(rec.Attr)
	wrong := false
	if in.tells {
		a, _ := in.weighed()
		wrong = a.allocated != in.told
		in.tells = !wrong
	}
	in.mu.Unlock()
	if k := fs.kernel(); wrong && k != nil {
		k.forgetAttrs(in.ino)
	}
}
