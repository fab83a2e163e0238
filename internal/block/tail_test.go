package block

import (
	"math/rand/v2"
	"testing"
)

// TestTail verifies tails of all kinds, and that nothing else passes for one.
func TestTail(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		shard := make([]byte, 1+r.IntN(3*LeafSize))
		for i := range shard {
			shard[i] = byte(r.Uint32())
		}
		leaves := Leaves(shard)
		i := r.IntN(LeafCount(len(shard)))
		lo, hi := LeafBounds(len(shard), i)
		leaf := shard[lo:hi]
		n := 1 + r.IntN(len(leaf))
		at := TailStart(len(leaf), n)
		if at%64 != 0 || len(leaf)-at < n || len(leaf)-at >= n+64 && at > 0 {
			t.Fatalf("the tail of %d of %d bytes begins at %d", n, len(leaf), at)
		}
		state, err := TailState(leaf[:at])
		if err != nil {
			t.Fatal(err)
		}
		tail := append([]byte(nil), leaf[at:]...)
		if !VerifyTail(leaves, i, len(leaf), state, tail) {
			t.Fatalf("a tail of %d of %d bytes is refused", len(tail), len(leaf))
		}
		k := r.IntN(len(tail))
		tail[k] ^= 1
		if VerifyTail(leaves, i, len(leaf), state, tail) {
			t.Fatal("a tail with a wrong bit is taken")
		}
		tail[k] ^= 1
		state[r.IntN(len(state))] ^= 1
		if VerifyTail(leaves, i, len(leaf), state, tail) {
			t.Fatal("a wrong state is taken")
		}
		if VerifyTail(leaves, i+1, len(leaf), state, tail) || VerifyTail(leaves, i, len(leaf)+64, state, tail) ||
			VerifyTail(leaves, i, len(tail)-1, state, tail) || VerifyTail(leaves, i, len(leaf), state[:31], tail) {
			t.Fatal("a tail of another leaf is taken")
		}
	}
	if _, err := TailState(make([]byte, 63)); err == nil {
		t.Error("a state in the middle of 64 bytes")
	}
}
