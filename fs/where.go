package fs

import (
	"context"

	"quernfs/internal/wire"
)

// Piece is a range of a file that lies on one chunk server, or on several
// alike: a part of one data shard, a part of a replicated block, or a hole
// (Block 0).
type Piece struct {
	Off, Len int64
	Block    uint64
	Servers  []uint32 // that hold it as it is; none: it has to be decoded, or is a hole
}

// Layout says where the bytes of a file lie, in their order: all of its
// committed size, except what is kept in the inode.
func (fs *FS) Layout(ctx context.Context, ino uint64) ([]Piece, error) {
	var out []Piece
	for off := uint64(0); ; {
		a, err := dataMeta{fs}.Extents(ctx, &wire.GetExtents{Ino: ino, Off: off})
		if err != nil {
			return nil, err
		}
		blocks := map[uint64]*wire.Block{}
		for _, b := range a.Blocks {
			blocks[b.Id] = b
		}
		size := a.GetInode().GetAttr().GetSize()
		upto, start := min(a.GetUpto(), size), off
		for _, e := range a.Extents {
			from, to := max(e.Off, off), min(e.Off+uint64(e.Len), upto)
			if from >= to {
				continue
			}
			if from > off {
				out = append(out, Piece{Off: int64(off), Len: int64(from - off)})
			}
			out = cutShards(out, blocks[e.Block], int64(from), int64(uint64(e.BlockOff)+from-e.Off), int64(to-from))
			off = to
		}
		if off < upto {
			out = append(out, Piece{Off: int64(off), Len: int64(upto - off)})
			off = upto
		}
		if off >= size {
			return out, nil
		}
		if upto <= start {
			return nil, wire.Errorf(wire.Internal, "layout", "", "the extents end at %d of %d", upto, size)
		}
	}
}

// cutShards appends the pieces of [at, at+n) of a block, which are the file's
// from off on.
func cutShards(out []Piece, b *wire.Block, off, at, n int64) []Piece {
	if b.GetShardLength() == 0 {
		return append(out, Piece{Off: off, Len: n})
	}
	l := int64(b.ShardLength)
	if b.K == 1 { // replicas
		p := Piece{Off: off, Len: n, Block: b.Id}
		for _, s := range b.Shards {
			if s.Server != 0 {
				p.Servers = append(p.Servers, s.Server)
			}
		}
		return append(out, p)
	}
	for n > 0 {
		i := at / l
		part := min(n, (i+1)*l-at)
		p := Piece{Off: off, Len: part, Block: b.Id}
		if i < int64(len(b.Shards)) && b.Shards[i].Server != 0 {
			p.Servers = []uint32{b.Shards[i].Server}
		}
		out = append(out, p)
		off, at, n = off+part, at+part, n-part
	}
	return out
}

// Where says how many of a file's bytes each chunk server holds as they are.
func (fs *FS) Where(ctx context.Context, ino uint64) (map[uint32]int64, error) {
	pieces, err := fs.Layout(ctx, ino)
	if err != nil {
		return nil, err
	}
	where := map[uint32]int64{}
	for _, p := range pieces {
		for _, s := range p.Servers {
			where[s] += p.Len
		}
	}
	return where, nil
}
