package lease

import (
	"slices"

	"quernfs/internal/wire"
)

// Owner is who holds a lock: an owner within a session.
type Owner struct {
	Session uint64
	ID      uint64
}

// Locks is the table of file locks. The zero Locks is not usable: see NewLocks.
type Locks struct {
	spaces  map[space]*spaceLocks
	held    map[Owner]int // ranges held, in all spaces
	waiting map[Owner]map[*Waiter]struct{}
	granted []*Waiter
	dirty   []space // to be scanned: an owner that waits there has become a holder
}

type space struct {
	ino   uint64
	flock bool
}

type spaceLocks struct {
	held    []heldLock // POSIX: ranges of one owner never overlap
	waiters []*Waiter  // in order of arrival
}

type heldLock struct {
	owner      Owner
	start, end uint64 // end is inclusive
	write      bool
	pid        uint32
}

// Waiter is a lock request that waits.
type Waiter struct {
	Owner Owner
	Lock  *wire.Lock
	// Done is for the caller; Granted says that the lock is held.
	Done    chan struct{}
	Granted bool
	over    bool
}

// Over: the waiter is granted or cancelled.
func (w *Waiter) Over() bool { return w.over }

// NewLocks makes an empty table.
func NewLocks() *Locks {
	return &Locks{spaces: map[space]*spaceLocks{}, held: map[Owner]int{}, waiting: map[Owner]map[*Waiter]struct{}{}}
}

// Check says what is wrong with a request, nil if nothing is.
func Check(l *wire.Lock) error {
	switch {
	case l.GetType() > wire.Unlock:
		return wire.Errorf(wire.Invalid, "lock", "", "unknown lock type %d", l.GetType())
	case !l.Flock && l.Start > l.End:
		return wire.Errorf(wire.Invalid, "lock", "", "the range ends before it starts")
	}
	return nil
}

func spaceOf(l *wire.Lock) space { return space{l.Ino, l.Flock} }

func rangeOf(o Owner, l *wire.Lock) heldLock {
	h := heldLock{owner: o, start: l.Start, end: l.End, write: l.Type == wire.WriteLock, pid: l.Pid}
	if l.Flock {
		h.start, h.end = 0, ^uint64(0)
	}
	return h
}

func (h *heldLock) conflicts(o *heldLock) bool {
	return h.owner != o.owner && h.start <= o.end && o.start <= h.end && (h.write || o.write)
}

// Test returns the first lock that conflicts with l, nil if none does.
func (t *Locks) Test(o Owner, l *wire.Lock) *wire.Lock {
	s := t.spaces[spaceOf(l)]
	if s == nil {
		return nil
	}
	want := rangeOf(o, l)
	for i := range s.held {
		if h := &s.held[i]; h.conflicts(&want) {
			return &wire.Lock{Ino: l.Ino, Owner: h.owner.ID, Flock: l.Flock, Type: typeOf(h.write), Start: h.start, End: h.end, Pid: h.pid}
		}
	}
	return nil
}

func typeOf(write bool) uint32 {
	if write {
		return wire.WriteLock
	}
	return wire.ReadLock
}

// Set takes or releases a lock at once, or returns the lock that conflicts.
func (t *Locks) Set(o Owner, l *wire.Lock) *wire.Lock {
	if l.Type != wire.Unlock {
		if c := t.Test(o, l); c != nil {
			return c
		}
	}
	t.put(o, l)
	t.scan(spaceOf(l))
	return nil
}

// Wait takes a lock, or queues for it. The error is Deadlock, for a POSIX lock
// whose holders wait, directly or not, for o.
func (t *Locks) Wait(o Owner, l *wire.Lock) (*Waiter, error) {
	w := &Waiter{Owner: o, Lock: l, Done: make(chan struct{}, 1)}
	k := spaceOf(l)
	s := t.space(k)
	if t.grantable(s, w, len(s.waiters)) {
		w.Granted, w.over = true, true
		t.put(o, l)
		t.scan(k) // a downgrade may let others in
		return w, nil
	}
	if !l.Flock && t.circle(w) {
		t.tidy(k)
		return nil, wire.Errorf(wire.Deadlock, "lock", "", "the holder waits for a lock of this owner")
	}
	s.waiters = append(s.waiters, w)
	if t.waiting[o] == nil {
		t.waiting[o] = map[*Waiter]struct{}{}
	}
	t.waiting[o][w] = struct{}{}
	return w, nil
}

// Cancel takes a waiter out; if it has been granted, that stays.
func (t *Locks) Cancel(w *Waiter) {
	if w.over {
		return
	}
	k := spaceOf(w.Lock)
	t.leave(t.spaces[k], w)
	t.scan(k)
}

// CancelLike cancels all waiters of the same request, and says whether the
// owner holds the whole lock.
func (t *Locks) CancelLike(o Owner, l *wire.Lock) (ended []*Waiter, holds bool) {
	k := spaceOf(l)
	s := t.spaces[k]
	if s == nil {
		return nil, false
	}
	want := rangeOf(o, l)
	for _, w := range slices.Clone(s.waiters) {
		if h := rangeOf(w.Owner, w.Lock); h == want {
			t.leave(s, w)
			ended = append(ended, w)
		}
	}
	at, left := want.start, true
	for _, h := range s.held { // sorted by start among one owner's
		if h.owner == o && h.write == want.write && h.start <= at && at <= h.end {
			if h.end >= want.end {
				left = false
				break
			}
			at = h.end + 1
		}
	}
	t.scan(k)
	return ended, !left
}

// Granted returns the waiters granted since the last call.
func (t *Locks) Granted() []*Waiter {
	g := t.granted
	t.granted = nil
	return g
}

// Blockers lists the sessions whose locks conflict with the request.
func (t *Locks) Blockers(o Owner, l *wire.Lock) []uint64 {
	s := t.spaces[spaceOf(l)]
	if s == nil {
		return nil
	}
	want := rangeOf(o, l)
	var ids []uint64
	for i := range s.held {
		if h := &s.held[i]; h.conflicts(&want) && !slices.Contains(ids, h.owner.Session) {
			ids = append(ids, h.owner.Session)
		}
	}
	return ids
}

// Awaited lists the sessions that hold a lock somebody waits for.
func (t *Locks) Awaited() []uint64 {
	var ids []uint64
	for _, s := range t.spaces {
		for _, w := range s.waiters {
			for _, id := range t.Blockers(w.Owner, w.Lock) {
				if !slices.Contains(ids, id) {
					ids = append(ids, id)
				}
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// Drop releases all locks of a session and returns its waiters, which are over.
func (t *Locks) Drop(session uint64) []*Waiter {
	var ended []*Waiter
	var changed []space
	for k, s := range t.spaces {
		before := len(s.held) + len(s.waiters)
		s.held = slices.DeleteFunc(s.held, func(h heldLock) bool {
			if h.owner.Session != session {
				return false
			}
			t.count(h.owner, -1)
			return true
		})
		for _, w := range slices.Clone(s.waiters) {
			if w.Owner.Session == session {
				t.leave(s, w)
				ended = append(ended, w)
			}
		}
		if len(s.held)+len(s.waiters) != before {
			changed = append(changed, k)
		}
	}
	slices.SortFunc(changed, func(a, b space) int {
		if a.ino != b.ino {
			return int(int64(a.ino - b.ino))
		}
		if a.flock {
			return 1
		}
		return -1
	})
	for _, k := range changed {
		t.scan(k)
	}
	return ended
}

// Reclaim takes the locks that a session held under the last leader. One that
// conflicts, which a correct client's never does, is left out.
func (t *Locks) Reclaim(session uint64, claims []*wire.LockClaim) {
	for _, c := range claims {
		if l := c.GetLock(); l != nil && Check(l) == nil && l.Type != wire.Unlock {
			t.Set(Owner{session, l.Owner}, l)
		}
	}
}

func (t *Locks) space(k space) *spaceLocks {
	s := t.spaces[k]
	if s == nil {
		s = &spaceLocks{}
		t.spaces[k] = s
	}
	return s
}

func (t *Locks) tidy(k space) {
	if s := t.spaces[k]; s != nil && len(s.held) == 0 && len(s.waiters) == 0 {
		delete(t.spaces, k)
	}
}

func (t *Locks) leave(s *spaceLocks, w *Waiter) {
	w.over = true
	s.waiters = slices.DeleteFunc(s.waiters, func(x *Waiter) bool { return x == w })
	if m := t.waiting[w.Owner]; m != nil {
		delete(m, w)
		if len(m) == 0 {
			delete(t.waiting, w.Owner)
		}
	}
}

func (t *Locks) count(o Owner, by int) {
	if t.held[o] += by; t.held[o] == 0 {
		delete(t.held, o)
	}
}

// grantable: no holder conflicts, and an owner that holds nothing has no
// earlier waiter, among the first n, that conflicts.
func (t *Locks) grantable(s *spaceLocks, w *Waiter, n int) bool {
	want := rangeOf(w.Owner, w.Lock)
	for i := range s.held {
		if s.held[i].conflicts(&want) {
			return false
		}
	}
	if t.held[w.Owner] > 0 {
		return true
	}
	for _, e := range s.waiters[:n] {
		if h := rangeOf(e.Owner, e.Lock); h.conflicts(&want) {
			return false
		}
	}
	return true
}

// scan grants what has become grantable, in order of arrival, here and where
// that makes a difference.
func (t *Locks) scan(k space) {
	t.scanOne(k)
	for len(t.dirty) > 0 {
		k, t.dirty = t.dirty[0], t.dirty[1:]
		t.scanOne(k)
	}
}

func (t *Locks) scanOne(k space) {
	s := t.spaces[k]
	if s == nil {
		return
	}
	for again := true; again; {
		again = false
		for i, w := range s.waiters {
			if !t.grantable(s, w, i) {
				continue
			}
			t.leave(s, w)
			w.Granted = true
			t.put(w.Owner, w.Lock)
			t.granted = append(t.granted, w)
			again = true
			break
		}
	}
	t.tidy(k)
}

// circle: some holder that w would wait for waits, directly or not, for w's
// owner.
func (t *Locks) circle(w *Waiter) bool {
	seen := map[Owner]bool{}
	var reaches func(w *Waiter, goal Owner) bool
	reaches = func(w *Waiter, goal Owner) bool {
		s := t.spaces[spaceOf(w.Lock)]
		want := rangeOf(w.Owner, w.Lock)
		for i := range s.held {
			h := &s.held[i]
			if !h.conflicts(&want) {
				continue
			}
			if h.owner == goal {
				return true
			}
			if seen[h.owner] {
				continue
			}
			seen[h.owner] = true
			for next := range t.waiting[h.owner] {
				if !next.Lock.Flock && reaches(next, goal) {
					return true
				}
			}
		}
		return false
	}
	return reaches(w, w.Owner)
}

// put changes what the owner holds in the range to the request's type: ranges
// are cut, joined and kept sorted by start.
func (t *Locks) put(o Owner, l *wire.Lock) {
	s := t.space(spaceOf(l))
	if t.held[o] == 0 && l.Type != wire.Unlock {
		for w := range t.waiting[o] {
			t.dirty = append(t.dirty, spaceOf(w.Lock))
		}
	}
	want := rangeOf(o, l)
	kept := s.held[:0:0]
	for _, h := range s.held {
		if h.owner != o || h.end < want.start || h.start > want.end {
			kept = append(kept, h)
			continue
		}
		t.count(o, -1)
		if h.start < want.start {
			left := h
			left.end = want.start - 1
			kept = append(kept, left)
			t.count(o, 1)
		}
		if h.end > want.end {
			right := h
			right.start = want.end + 1
			kept = append(kept, right)
			t.count(o, 1)
		}
	}
	if l.Type != wire.Unlock {
		kept = slices.DeleteFunc(kept, func(h heldLock) bool { // join neighbours of the same kind
			if h.owner != o || h.write != want.write {
				return false
			}
			switch {
			case want.start > 0 && h.end == want.start-1:
				want.start = h.start
			case want.end < ^uint64(0) && h.start == want.end+1:
				want.end = h.end
			default:
				return false
			}
			t.count(o, -1)
			return true
		})
		kept = append(kept, want)
		t.count(o, 1)
	}
	slices.SortStableFunc(kept, func(a, b heldLock) int {
		switch {
		case a.start < b.start:
			return -1
		case a.start > b.start:
			return 1
		}
		return 0
	})
	s.held = kept
}
