package fs

import (
	"reflect"
	"testing"

	"quernfs/internal/wire"
)

func TestCutShards(t *testing.T) {
	b := &wire.Block{Id: 7, K: 4, M: 2, Length: 1000, ShardLength: 250}
	for i := range 6 {
		b.Shards = append(b.Shards, &wire.Shard{Server: uint32(i + 1)})
	}
	b.Shards[2].Server = 0 // lost
	copies := &wire.Block{Id: 8, K: 1, M: 2, Length: 1000, ShardLength: 1000,
		Shards: []*wire.Shard{{Server: 4}, {}, {Server: 2}}}
	for _, c := range []struct {
		b          *wire.Block
		off, at, n int64
		want       []Piece
	}{
		{b, 5000, 0, 250, []Piece{{5000, 250, 7, []uint32{1}}}},
		{b, 5000, 200, 500, []Piece{{5000, 50, 7, []uint32{1}}, {5050, 250, 7, []uint32{2}}, {5300, 200, 7, nil}}},
		{b, 0, 999, 1, []Piece{{0, 1, 7, []uint32{4}}}},
		{copies, 10, 100, 300, []Piece{{10, 300, 8, []uint32{4, 2}}}},
		{nil, 10, 100, 300, []Piece{{Off: 10, Len: 300}}},
	} {
		if got := cutShards(nil, c.b, c.off, c.at, c.n); !reflect.DeepEqual(got, c.want) {
			t.Errorf("[%d, +%d) of block %d: %v, want %v", c.at, c.n, c.b.GetId(), got, c.want)
		}
	}
}
