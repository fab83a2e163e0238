package block

import "quernfs/internal/wire"

// LeafSize is the unit of verification: every leaf has its own digest.
const LeafSize = wire.LeafSize

// ShardLength returns the length of each shard of a block of length bytes cut
// into k data shards: ceil(length/k), at least 1.
func ShardLength(length, k int) int {
	if length < 1 {
		return 1
	}
	return (length + k - 1) / k
}

// LeafCount returns the number of leaves of a shard of length bytes.
func LeafCount(length int) int { return (length + LeafSize - 1) / LeafSize }

// LeafBounds returns the bytes [lo, hi) of leaf i in a shard of length bytes.
func LeafBounds(length, i int) (lo, hi int) {
	return i * LeafSize, min((i+1)*LeafSize, length)
}

// Align widens the range [off, off+n) of a shard of length bytes to whole
// leaves.
func Align(length, off, n int) (lo, hi int) {
	return off / LeafSize * LeafSize, min((off+n+LeafSize-1)/LeafSize*LeafSize, length)
}

// Piece is the part of a range of a block that one data shard holds.
type Piece struct {
	Shard int
	Off   int // in the shard
	Len   int
	At    int // in the range
}

// Pieces cuts the range [off, off+n) of a block into what each data shard of
// shardLength bytes holds of it, in order.
func Pieces(shardLength, off, n int) []Piece {
	var out []Piece
	for at := 0; at < n; {
		i, in := (off+at)/shardLength, (off+at)%shardLength
		c := min(n-at, shardLength-in)
		out = append(out, Piece{Shard: i, Off: in, Len: c, At: at})
		at += c
	}
	return out
}
