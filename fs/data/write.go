package data

import (
	"context"
	"time"

	"quernfs/internal/wire"
)

// writeSlice bounds what one step of WriteAt asks memory for, so that a large
// write makes progress under a small limit.
const writeSlice = 256 << 10

// WriteAt stores b at off in memory; it is durable after Flush. The caller
// holds the write lease. At the dirty limit it waits for uploads, as long as
// ctx and Config.FlushTimeout allow. It fails at once with NoSpace while there
// is dirty data for which no server has room. n counts what was taken.
func (f *File) WriteAt(ctx context.Context, b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, wire.Errorf(wire.Invalid, "write", f.object(), "negative offset")
	}
	if int64(len(b)) > maxOff-off {
		return 0, wire.Errorf(wire.FileTooBig, "write", f.object(), "beyond the largest offset")
	}
	var until time.Time // once it has waited
	slice := int(max(4<<10, min(writeSlice, f.path.cfg.DirtyLimit/4)))
	for n < len(b) {
		m := min(slice, len(b)-n)
		if err := f.path.admit(ctx, int64(m), &until); err != nil {
			return n, err
		}
		grown, changed := f.store(b[n:n+m], off+int64(n))
		if grown != m {
			f.path.charge(int64(grown - m))
		}
		if changed {
			f.changeLater()
		}
		n += m
	}
	f.path.stats.written.Add(int64(n))
	return n, nil
}

// store puts b into the buffers. It returns by how much they grew, and whether
// there is a pending change now.
func (f *File) store(b []byte, off int64) (grown int, changed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := off + int64(len(b))
	if f.inlined {
		if max(end, f.size) <= f.inlineMax() {
			return f.storeInline(b, off), true
		}
		f.spill()
	}
	f.size = max(f.size, end)
	return f.append(b, off), false
}

// storeInline changes the inline content. f.mu is held.
func (f *File) storeInline(b []byte, off int64) (grown int) {
	end := off + int64(len(b))
	f.size = max(f.size, end)
	f.growInline()
	copy(f.inline[off:], b)
	c := f.changing()
	c.inline = true
	if more := int64(len(f.inline)) - c.charged; more > 0 {
		grown = int(min(more, int64(len(b))))
		c.charged += int64(grown)
	}
	return grown
}

// growInline makes the zeros between the inline content and the size explicit.
func (f *File) growInline() {
	if more := f.size - int64(len(f.inline)); more > 0 {
		f.inline = append(f.inline, make([]byte, more)...)
	}
}

// append puts b into drafts. f.mu is held.
func (f *File) append(b []byte, off int64) (grown int) {
	f.countWrite(off, off+int64(len(b)))
	for len(b) > 0 {
		pt := f.openPart(len(b))
		d := pt.d
		n, g := pt.put(b, off)
		grown += g
		full := d.tail == d.cap
		if full {
			f.streaming = f.streaming || d.private
			f.path.seal(d)
		} else {
			d.mu.Unlock()
		}
		b, off = b[n:], off+int64(n)
	}
	return grown
}

// spill turns inline content into dirty data, which the commit that makes it
// extents takes the place of the inline content with. f.mu is held.
func (f *File) spill() {
	content := f.inline
	f.inlined, f.inline = false, nil
	if c := f.pending; c != nil && c.inline {
		c.inline = false
		f.path.charge(-c.charged)
		c.charged = 0
	}
	f.fold(content)
}

// fold makes content, the file's stored inline bytes, dirty data where none
// lies above it. Where f has no parts yet all of it goes into one draft (a new
// part has room for it), so that the commit that drops the inline content
// carries all its bytes. f.mu is held.
func (f *File) fold(content []byte) {
	if len(content) == 0 {
		return
	}
	merged := make([]byte, len(content))
	copy(merged, content)
	for _, pt := range f.parts {
		for s := range pt.spans.over(0, int64(len(content))) {
			copy(merged[s.off:s.end], pt.d.buf[s.at:])
		}
	}
	f.path.charge(int64(f.append(merged, 0)))
}
