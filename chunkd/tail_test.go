package chunkd

import (
	"bytes"
	"testing"

	"quernfs/internal/block"
	"quernfs/internal/traffic"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// TestTailIsSmall reads ends of leaves over the network: little more than what
// was asked for travels, and a damaged leaf is found out all the same.
func TestTailIsSmall(t *testing.T) {
	p := block.Policy{K: 4, M: 2}
	c := newCluster(t, 6, transport.QUIC)
	data := randomBytes(seeded(t), block.MaxBlockSize)
	b := c.write(1, p, data)
	read := func(off, n int) (remote uint64) {
		t.Helper()
		var m traffic.Meter
		got := make([]byte, n)
		if err := c.client.ReadBlock(traffic.With(t.Context(), &m), b, got, off); err != nil || !bytes.Equal(got, data[off:off+n]) {
			t.Fatalf("bytes %d+%d: %v", off, n, err)
		}
		if m.Local() != 0 {
			t.Errorf("%d bytes are said to be local", m.Local())
		}
		return m.Remote()
	}
	shard := int(b.ShardLength)
	if n := read(shard-300, 300); n < 300 || n > 1200 {
		t.Errorf("%d bytes travelled for the last 300 of a shard", n)
	}
	if n := read(2*shard-4096, 1000); n < 4096 || n > 4096+700 {
		t.Errorf("%d bytes travelled for 1000 of which the tail is 4096", n)
	}
	if n := read(2*shard, 300); n < block.LeafSize {
		t.Errorf("%d bytes travelled for the beginning of a leaf, which cannot be verified", n)
	}
	damage(t, c.nodes[2].store, shardID{1, 2}, shard-block.LeafSize+5)
	read(3*shard-300, 300) // decoded from the others
	if !c.reported(1, 2, true) {
		t.Error("the damage in the part that was not sent is not noticed")
	}
}

// TestTailOfServer asks for tails that make no sense.
func TestTailOfServer(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	id := shardID{1, 0}
	data := shardBytes(id, 3*block.LeafSize+100)
	put(t, s, id, data)
	for _, q := range []*wire.GetShard{
		{Len: block.LeafSize, Tail: block.LeafSize},    // all of it
		{Len: block.LeafSize, Tail: 1 << 31},           // more than there is
		{Len: 2 * block.LeafSize, Tail: 10},            // of two leaves
		{Off: 3 * block.LeafSize, Len: block.LeafSize}, // none
		{Off: 3 * block.LeafSize, Len: 100},            // none
	} {
		r, err := s.get(id, q)
		if err != nil {
			t.Fatalf("%v: %v", q, err)
		}
		want := data[q.Off:min(int(q.Off+q.Len), len(data))]
		if m := r.Msg.(*wire.GetShardReply); len(m.State) != 0 || !bytes.Equal(bytes.Join(r.Payload, nil), want) {
			t.Errorf("%v: %d bytes, a state of %d", q, len(bytes.Join(r.Payload, nil)), len(m.State))
		}
		r.Release()
	}
}
