package state

import (
	"bytes"

	"quernfs/internal/wire"
)

// Bits of Fallocate.mode, as in fallocate(2).
const (
	fallocKeepSize  = 1
	fallocPunchHole = 2
	fallocZeroRange = 16
)

// cloneExtents is how many extents one Clone shares at most; it clones less
// than it was asked for beyond that.
const cloneExtents = 1 << 16

// fallocate needs no permission: the caller has the file open for writing.
// Space is not reserved: nothing is overwritten in place. It counts as a change of
// the file also where it changes nothing, as on Linux's filesystems.
func (t *tx) fallocate(op *wire.Fallocate) *wire.Result {
	in := t.inode(op.Ino)
	keep := op.Mode&fallocKeepSize != 0
	hole := op.Mode &^ fallocKeepSize
	switch {
	case in == nil:
		return fail(wire.NotFound)
	case isDir(in):
		return fail(wire.IsDir)
	case !isRegular(in) || op.Len == 0:
		return fail(wire.Invalid)
	case hole != 0 && hole != fallocZeroRange && !(hole == fallocPunchHole && keep):
		return fail(wire.Unsupported)
	case op.Off > wire.MaxFile || op.Len > wire.MaxFile-op.Off:
		return fail(wire.FileTooBig)
	}
	stop := op.Off + op.Len
	in = t.modify(in, op.Before)
	if hole != 0 {
		t.zero(in, op.Off, stop)
	}
	if !keep {
		in.Attr.Size = max(in.Attr.Size, stop)
	}
	t.putInode(in)
	return &wire.Result{Inode: in}
}

// zero makes [lo, hi) read as zeros.
func (t *tx) zero(in *wire.Inode, lo, hi uint64) {
	t.cut(in, lo, hi)
	if n := uint64(len(in.Inline)); in.HasInline && lo < n {
		content := bytes.Clone(in.Inline)
		clear(content[lo:min(hi, n)])
		setInline(in, content)
	}
}

// clone needs no permission: the caller has src open for reading and dst for
// writing.
func (t *tx) clone(op *wire.Clone) *wire.Result {
	src, dst := t.inode(op.Src), t.inode(op.Dst)
	switch {
	case src == nil || dst == nil:
		return fail(wire.NotFound)
	case isDir(src) || isDir(dst):
		return fail(wire.IsDir)
	case !isRegular(src) || !isRegular(dst):
		return fail(wire.Invalid)
	}
	n := op.Len
	if op.SrcOff >= src.Attr.Size {
		return &wire.Result{Inode: dst}
	}
	if rest := src.Attr.Size - op.SrcOff; n == 0 || n > rest {
		n = rest
	}
	switch {
	case op.DstOff > wire.MaxFile || n > wire.MaxFile-op.DstOff:
		return fail(wire.FileTooBig)
	case op.Src == op.Dst && op.SrcOff < op.DstOff+n && op.DstOff < op.SrcOff+n:
		return failf(wire.Invalid, "the ranges overlap")
	}
	if src.HasInline {
		return t.cloneInline(op, src, dst, n)
	}
	if dst.HasInline && (op.DstOff > 0 || n < uint64(len(dst.Inline))) && len(dst.Inline) > 0 {
		return failf(wire.NeedExtents, "inode %d has inline data that must become extents first", op.Dst)
	}

	var shared []*wire.Extent
	t.extents(op.Src, op.SrcOff, func(ex *wire.Extent) bool {
		if ex.Off >= op.SrcOff+n {
			return false
		}
		if len(shared) == cloneExtents {
			n = ex.Off - op.SrcOff
			return false
		}
		ex = part(ex, max(ex.Off, op.SrcOff), min(end(ex), op.SrcOff+n))
		ex.Off = ex.Off - op.SrcOff + op.DstOff
		shared = append(shared, ex)
		return true
	})
	dst = t.modify(dst, op.Before)
	dropInline(dst)
	t.cut(dst, op.DstOff, op.DstOff+n)
	for _, ex := range shared {
		t.put(dst, ex)
	}
	dst.Attr.Size = max(dst.Attr.Size, op.DstOff+n)
	t.putInode(dst)
	return &wire.Result{Inode: dst, Value: n}
}

// cloneInline copies n bytes out of an inline file into one that is, or
// becomes, inline too.
func (t *tx) cloneInline(op *wire.Clone, src, dst *wire.Inode, n uint64) *wire.Result {
	var content []byte // of src in the range, but for zeros at its end
	if have := uint64(len(src.Inline)); op.SrcOff < have {
		content = src.Inline[op.SrcOff:min(op.SrcOff+n, have)]
	}
	fits := dst.HasInline || dst.Attr.Allocated == 0
	if stop := op.DstOff + uint64(len(content)); len(content) > 0 && stop > uint64(dst.Policy.GetInlineMax()) || !fits {
		return failf(wire.NeedExtents, "inode %d has inline data that must become extents first", op.Src)
	}

	dst = t.modify(dst, op.Before)
	t.zero(dst, op.DstOff, op.DstOff+n)
	if len(content) > 0 {
		whole := make([]byte, max(uint64(len(dst.Inline)), op.DstOff+uint64(len(content))))
		copy(whole, dst.Inline)
		copy(whole[op.DstOff:], content)
		setInline(dst, whole)
	}
	dst.Attr.Size = max(dst.Attr.Size, op.DstOff+n)
	t.putInode(dst)
	return &wire.Result{Inode: dst, Value: n}
}
