package data

import (
	"context"

	"quernfs/internal/wire"
)

// Allocated is how many bytes of data the file occupies once all that is dirty
// is stored: what meta will say then, whatever has been stored by now. Holes
// count as nothing, and what a write puts over committed data counts once. It
// asks meta for extents where dirty data may lie over some. With an error n is
// the most that it can be.
func (f *File) Allocated(ctx context.Context) (n int64, err error) {
	for range 1000 {
		n, unknown := f.weigh()
		if unknown < 0 {
			return n, nil
		}
		if err := f.fetch(ctx, unknown); err != nil {
			return n, err
		}
	}
	return n, wire.Errorf(wire.Again, "stat", f.object(), "its extents keep changing")
}

// AllocatedNow is Allocated by what is known here. If that is not enough to be
// exact, n is the most that it can be.
func (f *File) AllocatedNow() (n int64, exact bool) {
	n, unknown := f.weigh()
	return n, unknown < 0
}

// weigh returns what Allocated does, and the first offset of dirty data under
// which the extents are not known, or -1.
func (f *File) weigh() (n, unknown int64) {
	f.mu.RLock()
	n, unknown, ok := f.weighed()
	f.mu.RUnlock()
	if ok {
		return n, unknown
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fresh, f.unknown = f.count()
	f.counted = true
	n, unknown, _ = f.weighed()
	return n, unknown
}

// weighed is weigh, if fresh is up to date. f.mu is held.
func (f *File) weighed() (n, unknown int64, ok bool) {
	switch {
	case f.inlined && (f.pending != nil && f.pending.inline || f.sent != nil && f.sent.inline):
		return f.size, -1, true // the commit makes the zeros at its end explicit
	case len(f.parts) == 0:
		return f.stored, -1, true
	case !f.counted:
		return 0, 0, false
	case f.storedInline:
		return f.fresh, -1, true // the commit drops the inline content
	}
	return f.stored + f.fresh, f.unknown, true
}

// count returns how many bytes of dirty data lie over no extent, and where
// first the extents below are not known, or -1. f.mu is held.
func (f *File) count() (fresh, unknown int64) {
	var dirty spanMap[struct{}]
	for _, pt := range f.parts {
		for s := range pt.spans.all() {
			dirty.set(span[struct{}]{off: s.off, end: s.end, at: s.off})
		}
	}
	unknown = -1
	for s := range dirty.all() {
		n, u := f.uncovered(s.off, s.end)
		fresh += n
		if unknown < 0 {
			unknown = u
		}
	}
	return fresh, unknown
}

// uncovered returns how many bytes of [off, end) lie over no extent, and where
// first it is not known, or -1. f.mu is held.
func (f *File) uncovered(off, end int64) (n, unknown int64) {
	n, unknown = end-off, -1
	for s := range f.extents.over(off, end) {
		n -= s.len()
	}
	for pos := off; pos < end && unknown < 0; {
		k, ok := f.known.at(pos, end)
		if !ok {
			unknown = pos
		}
		pos = k.end
	}
	return n, unknown
}

// countWrite keeps fresh up to date before [off, end) becomes dirty. f.mu is
// held.
func (f *File) countWrite(off, end int64) {
	if !f.counted || f.unknown >= 0 {
		f.counted = false
		return
	}
	for pos := off; pos < end; {
		dirty, stop := f.dirtyAt(pos, end)
		if !dirty {
			n, unknown := f.uncovered(pos, stop)
			if unknown >= 0 {
				f.counted = false
				return
			}
			f.fresh += n
		}
		pos = stop
	}
}

// dirtyAt says whether [pos, stop) is dirty. f.mu is held.
func (f *File) dirtyAt(pos, end int64) (dirty bool, stop int64) {
	stop = end
	for i := len(f.parts) - 1; i >= 0; i-- {
		s, ok := f.parts[i].spans.at(pos, stop)
		stop = s.end // newer parts are a gap up to here
		if ok {
			return true, stop
		}
	}
	return false, stop
}
