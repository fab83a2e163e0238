package state

import (
	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// commit has no credentials to check: the data of many users may share a
// block. Who holds a file open for writing, or its write lease, has the right.
func (t *tx) commit(op *wire.Commit) *wire.Result {
	made := make(map[uint64]*wire.Block, len(op.Blocks))
	for _, b := range op.Blocks {
		if r := t.checkBlock(b); r != nil {
			return r
		}
		if made[b.Id] != nil {
			return failf(wire.Invalid, "block %d is there twice", b.Id)
		}
		made[b.Id] = b
	}
	seen := make(map[uint64]struct{}, len(op.Files))
	for _, f := range op.Files {
		if _, twice := seen[f.GetIno()]; twice {
			return failf(wire.Invalid, "inode %d is there twice", f.GetIno())
		}
		seen[f.GetIno()] = struct{}{}
		if r := t.checkUpdate(f, made); r != nil {
			return r
		}
	}

	for _, b := range op.Blocks {
		t.addBlock(b)
	}
	r := &wire.Result{Inodes: make([]*wire.Inode, len(op.Files))}
	for i, f := range op.Files {
		in := t.inode(f.GetIno())
		if in == nil { // deleted meanwhile
			r.Inodes[i] = new(wire.Inode)
			continue
		}
		in = edit(in)
		t.update(in, f)
		t.putInode(in)
		r.Inodes[i] = in
	}
	return r
}

// checkBlock says what is wrong with a new block.
func (t *tx) checkBlock(b *wire.Block) *wire.Result {
	p := block.Policy{K: int(b.GetK()), M: int(b.GetM())}
	if err := p.Validate(); err != nil {
		return failf(wire.Invalid, "block %d: %v", b.GetId(), err)
	}
	switch {
	case b.Id == 0 || b.Id >= t.counts[nextBlock]:
		return failf(wire.Invalid, "block %d was never given out", b.Id)
	case b.Length == 0 || b.Length > wire.BlockSize:
		return failf(wire.Invalid, "block %d has %d bytes, not 1 to %d", b.Id, b.Length, wire.BlockSize)
	case int(b.ShardLength) != block.ShardLength(int(b.Length), p.K):
		return failf(wire.Invalid, "block %d of %d bytes has shards of %d", b.Id, b.Length, b.ShardLength)
	case len(b.Shards) != p.Shards():
		return failf(wire.Invalid, "block %d has %d shards, not %d", b.Id, len(b.Shards), p.Shards())
	case t.block(b.Id) != nil:
		return failf(wire.Exists, "block %d has been committed before", b.Id)
	case b.Id < t.counts[ticketFloor]: // its shards may have been collected: the writer stores it anew
		return failf(wire.Stale, "the ticket of block %d has expired: ids start at %d now", b.Id, t.counts[ticketFloor])
	}
	stored := 0
	for i, s := range b.Shards {
		if len(s.GetRoot()) != 32 {
			return failf(wire.Invalid, "block %d shard %d has no root", b.Id, i)
		}
		if s.Server == 0 {
			continue
		}
		stored++
		if holds(b, s.Server) != i {
			return failf(wire.Invalid, "block %d has two shards on server %d", b.Id, s.Server)
		}
		if !block.VerifyProof(t.vkey, s.Server, b.Id, uint32(i), b.ShardLength, s.Root, s.Proof) {
			return failf(wire.Invalid, "block %d shard %d: server %d has not signed for it", b.Id, i, s.Server)
		}
	}
	if stored < p.Enough() {
		return failf(wire.TooFew, "block %d has %d shards stored: %s needs %d", b.Id, stored, p, p.Enough())
	}
	return nil
}

// checkUpdate says what is wrong with the change of one file. made are the
// blocks of the same commit.
func (t *tx) checkUpdate(f *wire.FileUpdate, made map[uint64]*wire.Block) *wire.Result {
	in := t.inode(f.GetIno())
	if in == nil {
		return nil
	}
	data := len(f.Extents) > 0 || f.HasInline || f.DropInline || f.MinSize > 0
	limit := max(in.Policy.GetInlineMax(), wire.InlineMax)
	switch {
	case data && !isRegular(in):
		return failf(wire.Invalid, "inode %d is not a regular file", f.Ino)
	case f.MinSize > wire.MaxFile:
		return fail(wire.FileTooBig)
	case f.Attr.GetMask()&wire.SetSize != 0:
		return failf(wire.Invalid, "a commit cannot truncate")
	case f.HasInline && (len(f.Extents) > 0 || f.DropInline):
		return failf(wire.Invalid, "inode %d: content both inline and in extents", f.Ino)
	case f.HasInline && len(f.Inline) > int(limit):
		return failf(wire.Invalid, "inode %d: %d bytes inline, at most %d are allowed", f.Ino, len(f.Inline), limit)
	}
	at, covered := uint64(0), uint64(0)
	for _, ex := range f.Extents {
		off, length := ex.GetOff(), uint64(ex.GetLen())
		b := made[ex.GetBlock()]
		if b == nil {
			if b = t.block(ex.GetBlock()); b == nil || b.Refs == 0 {
				return failf(wire.Stale, "inode %d: block %d does not exist", f.Ino, ex.GetBlock())
			}
		}
		switch {
		case length == 0 || off < at:
			return failf(wire.Invalid, "inode %d: extents are not in order", f.Ino)
		case off > wire.MaxFile-length:
			return fail(wire.FileTooBig)
		case uint64(ex.BlockOff)+length > uint64(b.Length):
			return failf(wire.Invalid, "inode %d: an extent leaves block %d", f.Ino, b.Id)
		}
		if off == covered {
			covered = off + length
		}
		at = off + length
	}
	if len(f.Extents) > 0 && in.HasInline && !f.DropInline && covered < uint64(len(in.Inline)) {
		return failf(wire.Invalid, "inode %d: the commit would lose its inline content", f.Ino)
	}
	return nil
}

// update carries out a checked change of one file on its edited inode.
func (t *tx) update(in *wire.Inode, f *wire.FileUpdate) {
	size, ctime := max(in.Attr.Size, f.MinSize), in.Attr.CtimeNs
	switch {
	case f.HasInline:
		t.cut(in, 0, in.Attr.Size)
		setInline(in, f.Inline)
		size = max(size, uint64(len(f.Inline)))
	case f.DropInline || len(f.Extents) > 0:
		dropInline(in)
	}
	for _, ex := range f.Extents {
		t.cut(in, ex.Off, end(ex))
		t.put(in, &wire.Extent{Off: ex.Off, Len: ex.Len, Block: ex.Block, BlockOff: ex.BlockOff})
		size = max(size, end(ex))
	}
	if len(f.Extents) > 0 || f.HasInline || size != in.Attr.Size {
		in.Attr.Size, in.Attr.MtimeNs, in.Attr.CtimeNs = size, t.now, t.now
	}
	t.assignBefore(in, f.Attr)
	in.Attr.CtimeNs = max(in.Attr.CtimeNs, ctime) // a link may have come since the attributes were deferred
}
