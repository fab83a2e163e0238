package data

import (
	"context"
	"syscall"
)

// Seek returns the first offset from off on that holds data, or with hole, that
// lies in a hole; the end of the file is a hole. ENXIO as a syscall.Errno: off
// is at or beyond the end, or no data follows.
func (f *File) Seek(ctx context.Context, off int64, hole bool) (int64, error) {
	for pos := off; ; {
		f.mu.RLock()
		size := f.size
		if off < 0 || off >= size {
			f.mu.RUnlock()
			return 0, syscall.ENXIO
		}
		found, unknown := f.seekFrom(pos, size, hole)
		f.mu.RUnlock()
		if unknown {
			if err := f.fetch(ctx, found); err != nil {
				return 0, err
			}
			pos = found
			continue
		}
		if found >= size && !hole {
			return 0, syscall.ENXIO
		}
		return min(found, size), nil
	}
}

// seekFrom looks through the layers from pos on, up to size. With unknown it
// stopped at found, where the extents are not known. f.mu is held.
func (f *File) seekFrom(pos, size int64, hole bool) (found int64, unknown bool) {
	if f.inlined {
		switch n := int64(len(f.inline)); {
		case (pos < n) != hole:
			return pos, false
		case hole:
			return n, false
		}
		return size, false
	}
	for pos < size {
		data, known, stop := f.classify(pos, size)
		switch {
		case !known:
			return pos, true
		case data != hole:
			return pos, false
		}
		pos = stop
	}
	return size, false
}

// classify says whether [pos, stop) is data or hole, or not known.
func (f *File) classify(pos, size int64) (data, known bool, stop int64) {
	dirty, stop := f.dirtyAt(pos, size)
	if dirty {
		return true, true, stop
	}
	k, ok := f.known.at(pos, stop)
	if !ok {
		return false, false, k.end
	}
	s, ok := f.extents.at(pos, k.end)
	return ok, true, s.end
}
