package fs

import (
	"context"
	"errors"
	"sync"
	"time"

	"quernfs/internal/wire"
)

// idleFor is how long an inode that nobody uses is kept in any case: longer
// than any call lasts, so that a grant or a recall that is on its way finds
// what is known about the other.
const idleFor = opTimeout + 10*time.Second

// idleList has the inodes that are neither open nor known to the kernel, those
// that became so first in front. An inode that is used again stays in the list
// until its turn comes.
type idleList struct {
	mu   sync.Mutex
	list []*inode
}

func (l *idleList) add(in *inode) {
	l.mu.Lock()
	l.list = append(l.list, in)
	l.mu.Unlock()
}

// letGo is called when an inode loses a handle, the kernel's knowledge of it,
// or a name: if nothing refers to it any more, it becomes idle, and an inode
// without a name is given up.
func (fs *FS) letGo(in *inode) {
	in.mu.Lock()
	if in.open > 0 || in.lookups > 0 {
		later := in.victim && in.open == 0
		in.mu.Unlock()
		if later {
			fs.releaseLater(in)
		}
		return
	}
	in.idleSince = time.Now()
	queue := !in.queued
	in.queued = true
	orphan := in.rec != nil && in.rec.Attr.Nlink == 0 && !in.gone
	if orphan && !in.alone && !in.left && in.file != nil && in.file.Dirty() {
		in.left = true
		in.mu.Unlock()
		fs.spawn(func() {
			fs.writeBack(in)
			fs.letGo(in)
		})
		return
	}
	if orphan {
		in.gone = true
	}
	release := orphan || in.victim
	in.victim = false
	open := in.held.mode == wire.Mode_OPEN
	g := &wire.Grant{Ino: in.ino, Id: in.held.grant}
	if open {
		in.held.lower(wire.Mode_NONE, in.held.grant, false)
	}
	f := in.file
	in.mu.Unlock()
	if orphan && f != nil {
		f.Discard()
		fs.data.Forget(in.ino)
	}
	if release {
		fs.orphans.add(in.ino)
	}
	if open {
		fs.meta.Release([]*wire.Grant{g})
	}
	if queue {
		fs.idle.add(in)
	}
}

// foundFor is how long after the kernel was given a name for an inode it may
// still be about to open it.
const foundFor = 2 * time.Second

// find counts a name that the kernel is given. From then on a recall says that
// it may be opened. in.mu is held.
func (in *inode) find() {
	in.lookups++
	in.lookedUp = time.Now()
}

// justFound: the kernel may be about to open it. in.mu is held.
func (in *inode) justFound(now time.Time) bool {
	return in.lookups > 0 && now.Sub(in.lookedUp) < foundFor
}

// asked: meta asks here before the file goes, for this session holds a lease. What
// is no file is opened without one. in.mu is held.
func (in *inode) asked() bool { return in.held.mode >= wire.Mode_OPEN || !in.isReg() }

// safe is asked for who does not hold in.mu.
func (in *inode) safe() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.asked()
}

// releaseLater gives up an inode that has lost its name and is not open, unless
// it is opened soon. The kernel may know it for long after that, by names that
// it will not use again.
func (fs *FS) releaseLater(in *inode) {
	time.AfterFunc(foundFor, func() {
		in.mu.Lock()
		release := in.victim && in.open == 0
		if release {
			in.victim = false
		}
		in.mu.Unlock()
		if release {
			fs.orphans.add(in.ino)
		}
	})
}

// trim forgets inodes that have been idle for long: all that hold nothing, and
// the oldest others when there are more than MaxLeases.
func (fs *FS) trim() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fs.trimOnce(time.Now())
		case <-fs.ctx.Done():
			return
		}
	}
}

func (fs *FS) trimOnce(now time.Time) {
	fs.idle.mu.Lock()
	list := fs.idle.list
	fs.idle.list = nil
	fs.idle.mu.Unlock()
	fs.mu.RLock()
	excess := len(fs.inodes) - fs.cfg.MaxLeases
	fs.mu.RUnlock()
	var release []*wire.Grant
	keep := list[:0]
	for _, in := range list {
		switch g, fate := in.fate(now, excess > 0); fate {
		case idleKeep:
			keep = append(keep, in)
		case idleDrop:
			excess--
			if g != nil {
				release = append(release, g)
			}
			fs.mu.Lock()
			if fs.inodes[in.ino] == in {
				delete(fs.inodes, in.ino)
			}
			fs.mu.Unlock()
			fs.data.Forget(in.ino)
		}
	}
	if len(release) > 0 {
		fs.meta.Release(release)
	}
	fs.idle.mu.Lock()
	fs.idle.list = append(keep, fs.idle.list...)
	fs.idle.mu.Unlock()
}

type idleFate int

const (
	idleKeep  idleFate = iota
	idleLeave          // in use again: out of the list
	idleDrop           // forgotten; the grant, if there is one, is to be released
)

// fate decides about an inode in the list. Dropping it voids late grants.
func (in *inode) fate(now time.Time, crowded bool) (*wire.Grant, idleFate) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.open > 0 || in.lookups > 0 {
		in.queued = false
		return nil, idleLeave
	}
	busy := len(in.ops) > 0 || in.recall != nil || in.acquire != nil || in.promises > 0 || in.naming > 0 || len(in.locks) > 0
	if busy || now.Sub(in.idleSince) < idleFor || in.local.mask != 0 || in.file != nil && !in.gone && in.file.Dirty() {
		return nil, idleKeep
	}
	if in.held.mode != wire.Mode_NONE && !in.gone && !crowded {
		return nil, idleKeep
	}
	var g *wire.Grant
	if in.held.mode != wire.Mode_NONE {
		g = &wire.Grant{Ino: in.ino, Id: in.held.grant}
		in.fall(wire.Mode_NONE, in.held.grant, false)
	}
	return g, idleDrop
}

// orphanQueue has inodes without a name that are not used here any more; meta
// is told in batches.
type orphanQueue struct {
	mu   sync.Mutex
	list []uint64
	wake chan struct{} // capacity 1
}

const (
	orphanDelay = 20 * time.Millisecond // to gather a batch
	orphanBatch = 1000
)

func (q *orphanQueue) add(ino uint64) {
	q.mu.Lock()
	q.list = append(q.list, ino)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *orphanQueue) take() []uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.list), orphanBatch)
	out := q.list[:n:n]
	q.list = q.list[n:]
	return out
}

// clear: the session that had them has ended, and meta released them with it.
func (q *orphanQueue) clear() {
	q.mu.Lock()
	q.list = nil
	q.mu.Unlock()
}

func (fs *FS) releaseOrphans() {
	for {
		select {
		case <-fs.orphans.wake:
		case <-fs.ctx.Done():
			return
		}
		select {
		case <-time.After(orphanDelay):
		case <-fs.ctx.Done():
			return
		}
		fs.orphans.flush(fs.ctx, fs)
	}
}

// stillUnused leaves out the inodes that were opened, or found, since they were
// queued, and holds up opening the others until meta has been told.
func (fs *FS) stillUnused(inos []uint64) []uint64 {
	var out []uint64
	var release []*wire.Grant
	now := time.Now()
	for _, ino := range inos {
		if in := fs.peek(ino); in != nil {
			in.mu.Lock()
			used := !in.gone && (in.open > 0 || in.justFound(now))
			in.victim = in.victim || used
			in.releasing = !used
			in.lost = in.lost || !used
			if !used && in.held.mode == wire.Mode_OPEN {
				in.held.lower(wire.Mode_NONE, in.held.grant, false)
				release = append(release, &wire.Grant{Ino: ino, Id: in.held.grant})
			}
			later := used && in.open == 0
			in.mu.Unlock()
			if later {
				fs.releaseLater(in)
			}
			if used {
				continue
			}
		}
		out = append(out, ino)
	}
	if len(release) > 0 {
		fs.meta.Release(release)
	}
	return out
}

// told lets the inodes be opened that meta has been told about: meta knows
// whether they still exist.
func (fs *FS) told(inos []uint64) {
	for _, ino := range inos {
		if in := fs.peek(ino); in != nil {
			in.mu.Lock()
			in.releasing = false
			in.changed()
			in.mu.Unlock()
		}
	}
}

// flush tells meta about all of the queue. What cannot be told now is put back.
func (q *orphanQueue) flush(ctx context.Context, fs *FS) {
	for {
		inos := q.take()
		if len(inos) == 0 {
			return
		}
		if inos = fs.stillUnused(inos); len(inos) == 0 {
			continue
		}
		ctx, done := context.WithTimeout(ctx, opTimeout)
		_, err := fs.meta.Do(ctx, &wire.Command{Cred: rootCred, Op: &wire.Command_ReleaseOrphans{ReleaseOrphans: &wire.ReleaseOrphans{Inos: inos}}})
		done()
		fs.told(inos)
		if err == nil || errors.Is(err, wire.NoSession) {
			continue
		}
		if fs.ctx.Err() == nil {
			fs.log.Warn("files without a name could not be released yet", "files", len(inos), "err", err)
		}
		for _, ino := range inos {
			q.add(ino)
		}
		return
	}
}
