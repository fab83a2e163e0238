package state

import (
	"math"

	"quernfs/internal/wire"
)

// The content of a file is its extents, or, if it is small, the bytes in its
// inode; where there is neither, up to its size, it is zeros. Everything here works on
// an inode that has been copied (edit) and will be put by the caller.

// trashStep is how many extents of deleted files go with each command, so that
// no single one takes long however large a file was.
const trashStep = 512

// end is the file offset behind ex: its key.
func end(ex *wire.Extent) uint64 { return ex.Off + uint64(ex.Len) }

// part is ex between file offsets lo and hi, which lie in it.
func part(ex *wire.Extent, lo, hi uint64) *wire.Extent {
	return &wire.Extent{Off: lo, Len: uint32(hi - lo), Block: ex.Block, BlockOff: ex.BlockOff + uint32(lo-ex.Off)}
}

// continues says whether b is what follows a, in the file and in the block.
func continues(a, b *wire.Extent) bool {
	return a.Block == b.Block && end(a) == b.Off && a.BlockOff+a.Len == b.BlockOff
}

func (t *tx) addExtent(in *wire.Inode, ex *wire.Extent) {
	t.wkey = extentKey(t.wkey[:0], in.Attr.Ino, end(ex))
	t.set(t.wkey, ex)
	in.Attr.Allocated += uint64(ex.Len)
	t.ref(ex.Block, 1, int64(ex.Len))
}

func (t *tx) dropExtent(in *wire.Inode, ex *wire.Extent) {
	t.wkey = extentKey(t.wkey[:0], in.Attr.Ino, end(ex))
	t.del(t.wkey)
	in.Attr.Allocated -= uint64(ex.Len)
	t.ref(ex.Block, -1, -int64(ex.Len))
}

// cut makes a hole of [lo, hi) in a file of extents.
func (t *tx) cut(in *wire.Inode, lo, hi uint64) {
	if in.HasInline || in.Attr.Allocated == 0 || lo >= in.Attr.Size || lo >= hi {
		return
	}
	t.extents(in.Attr.Ino, lo, func(ex *wire.Extent) bool {
		if ex.Off >= hi {
			return false
		}
		t.dropExtent(in, ex)
		if ex.Off < lo {
			t.addExtent(in, part(ex, ex.Off, lo))
		}
		if end(ex) > hi {
			t.addExtent(in, part(ex, hi, end(ex)))
		}
		return true
	})
}

// put lets the range of ex, which is a hole, be ex; one extent is made of
// those that continue each other. The size does not change.
func (t *tx) put(in *wire.Inode, ex *wire.Extent) {
	if in.Attr.Allocated > 0 {
		before := new(wire.Extent)
		t.wkey = extentKey(t.wkey[:0], in.Attr.Ino, ex.Off)
		if t.load(t.wkey, before) && continues(before, ex) {
			t.dropExtent(in, before)
			ex = &wire.Extent{Off: before.Off, Len: before.Len + ex.Len, Block: ex.Block, BlockOff: before.BlockOff}
		}
	}
	if in.Attr.Allocated > 0 && end(ex) < in.Attr.Size {
		t.extents(in.Attr.Ino, end(ex), func(next *wire.Extent) bool {
			if continues(ex, next) {
				t.dropExtent(in, next)
				ex = &wire.Extent{Off: ex.Off, Len: ex.Len + next.Len, Block: ex.Block, BlockOff: ex.BlockOff}
			}
			return false
		})
	}
	t.addExtent(in, ex)
}

// setInline makes content the whole content of a file without extents.
func setInline(in *wire.Inode, content []byte) {
	in.Inline, in.HasInline, in.Attr.Allocated = content, true, uint64(len(content))
}

func dropInline(in *wire.Inode) {
	if in.HasInline {
		in.Inline, in.HasInline, in.Attr.Allocated = nil, false, 0
	}
}

// truncate sets the size. Beyond the old one there is a hole.
func (t *tx) truncate(in *wire.Inode, size uint64) {
	if in.HasInline && uint64(len(in.Inline)) > size {
		setInline(in, in.Inline[:size:size])
	}
	t.cut(in, size, math.MaxUint64)
	in.Attr.Size = size
}

// destroy removes an inode that has no name and no holder.
func (t *tx) destroy(in *wire.Inode) {
	ino := in.Attr.Ino
	t.inodes.put(ino, nil)
	t.counts[countInodes]--
	if in.HasXattr {
		t.prefix(key8(nil, kXattr, ino), func(key, _ []byte) bool {
			t.del(key)
			return true
		})
	}
	if in.HasInline || in.Attr.Allocated == 0 {
		return
	}
	rest := &wire.Inode{Attr: &wire.Attr{Ino: ino, Allocated: in.Attr.Allocated}}
	if !t.drain(rest, trashStep) {
		t.wkey = trashKey(t.wkey[:0], ino)
		t.setRaw(t.wkey, nil)
		t.counts[countTrash]++
	}
}

// drain removes up to n extents of a destroyed inode and says whether none is
// left.
func (t *tx) drain(in *wire.Inode, n int) (empty bool) {
	empty = true
	t.extents(in.Attr.Ino, 0, func(ex *wire.Extent) bool {
		if n == 0 {
			empty = false
			return false
		}
		n--
		t.dropExtent(in, ex)
		return true
	})
	return empty
}

// collect removes some more of the extents that large deleted files have left.
// It is called after each command, so that every replica does the same.
func (t *tx) collect() {
	t.collectStaged()
	if t.counts[countTrash] == 0 {
		return
	}
	t.prefix([]byte{kTrash}, func(key, _ []byte) bool {
		if len(key) != 9 {
			t.fail(corrupt(key, errShortKey))
			return false
		}
		if t.drain(&wire.Inode{Attr: &wire.Attr{Ino: num64(key[1:])}}, trashStep) {
			t.del(key)
			t.counts[countTrash]--
		}
		return false
	})
	t.settle()
}
