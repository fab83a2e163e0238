package fs

import "quernfs/internal/wire"

// fileLock is one lock that a process of this host holds. The table exists for
// the leader that has forgotten the locks, and to know at close whether there
// are any.
type fileLock struct {
	owner      uint64
	flock      bool
	typ        uint32 // F_RDLCK 0, F_WRLCK 1
	start, end uint64 // inclusive
	pid        uint32
}

func (l *fileLock) wire(ino uint64) *wire.Lock {
	return &wire.Lock{Ino: ino, Owner: l.owner, Flock: l.flock, Type: l.typ, Start: l.start, End: l.end, Pid: l.pid}
}

// lockTable has the locks on one file, those of one owner not overlapping.
type lockTable []fileLock

// set records that l.owner now has l, or, with type Unlock, nothing, in the
// range of l: what it had there before is cut away, and neighbours of one type
// become one.
func (t lockTable) set(l fileLock) lockTable {
	out := make(lockTable, 0, len(t)+2)
	for _, x := range t {
		if x.owner != l.owner || x.flock != l.flock || x.end < l.start || l.end < x.start {
			if joins(x, l) {
				l.start, l.end = min(l.start, x.start), max(l.end, x.end)
				continue
			}
			out = append(out, x)
			continue
		}
		if x.typ == l.typ {
			l.start, l.end = min(l.start, x.start), max(l.end, x.end)
			continue
		}
		if x.start < l.start {
			left := x
			left.end = l.start - 1
			out = append(out, left)
		}
		if x.end > l.end {
			right := x
			right.start = l.end + 1
			out = append(out, right)
		}
	}
	if l.typ != wire.Unlock {
		out = append(out, l)
	}
	return out
}

func joins(x, l fileLock) bool {
	return x.owner == l.owner && x.flock == l.flock && x.typ == l.typ && l.typ != wire.Unlock &&
		(l.start > 0 && x.end == l.start-1 || x.start > 0 && l.end == x.start-1)
}

// holds says whether owner has any lock.
func (t lockTable) holds(owner uint64, flock bool) bool {
	for _, x := range t {
		if x.owner == owner && x.flock == flock {
			return true
		}
	}
	return false
}
