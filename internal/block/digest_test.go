package block

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"quernfs/internal/wire"
)

func TestLeaves(t *testing.T) {
	r := seeded(t)
	for _, n := range []int{1, LeafSize - 1, LeafSize, LeafSize + 1, 3*LeafSize + 17, 1 << 20} {
		shard := fill(r, make([]byte, n))
		leaves := Leaves(shard)
		root := Root(n, leaves)
		if len(leaves) != LeafCount(n)*HashSize || !VerifyRoot(n, leaves, root[:]) || !VerifyRange(leaves, 0, shard) {
			t.Fatalf("%d bytes do not verify", n)
		}
		many := LeavesOf([][]byte{shard, shard[:n/2+1], shard})
		if !bytes.Equal(many[0], leaves) || !bytes.Equal(many[2], leaves) || !bytes.Equal(many[1], Leaves(shard[:n/2+1])) {
			t.Fatalf("%d bytes: LeavesOf and Leaves differ", n)
		}
		if VerifyRoot(n+1, leaves, root[:]) || VerifyRoot(n, leaves[:len(leaves)-1], root[:]) || VerifyRoot(n, leaves, root[:31]) {
			t.Fatalf("%d bytes: a wrong length passes", n)
		}
		i := r.IntN(n)
		shard[i] ^= 1 << r.IntN(8)
		lo, hi := LeafBounds(n, i/LeafSize)
		if VerifyLeaf(leaves, i/LeafSize, shard[lo:hi]) || VerifyRange(leaves, 0, shard) {
			t.Fatalf("%d bytes: a flipped bit passes", n)
		}
		if lo > 0 && !VerifyRange(leaves, 0, shard[:lo]) {
			t.Fatalf("%d bytes: a flip in leaf %d spoils others", n, i/LeafSize)
		}
	}
	if VerifyLeaf(nil, 0, nil) || VerifyLeaf(make([]byte, 32), -1, nil) || VerifyLeaf(make([]byte, 32), 1, nil) {
		t.Error("a leaf that is not there passes")
	}
}

func key(b byte) []byte { return bytes.Repeat([]byte{b}, KeySize) }

func TestProof(t *testing.T) {
	root := Root(5, Leaves([]byte("shard")))
	golden(t, "root", root[:], "a34dc9469ef4a0939b44804575b384bdd43273230157b3b873d82a5e5277275a")
	proof := Proof(key(1), 2, 3, 4, 5, root[:])
	golden(t, "proof", proof, "aee6fa8fe8c08a219d67b05d1c3c4b379b412a9556bd32e45d2f973d35c643d3")
	other := Root(5, Leaves([]byte("Shard")))
	for _, c := range []struct {
		key    []byte
		node   uint32
		block  uint64
		index  uint32
		length uint32
		root   []byte
		proof  []byte
		want   bool
	}{
		{key(1), 2, 3, 4, 5, root[:], proof, true},
		{key(2), 2, 3, 4, 5, root[:], proof, false},
		{key(1), 9, 3, 4, 5, root[:], proof, false},
		{key(1), 2, 9, 4, 5, root[:], proof, false},
		{key(1), 2, 3, 9, 5, root[:], proof, false},
		{key(1), 2, 3, 4, 9, root[:], proof, false},
		{key(1), 2, 3, 4, 5, other[:], proof, false},
		{key(1), 2, 3, 4, 5, root[:], proof[:31], false},
		{key(1), 2, 3, 4, 5, root[:], nil, false},
		{key(1), 2, 3, 4, 5, root[:20], Proof(key(1), 2, 3, 4, 5, root[:20]), false},
	} {
		if got := VerifyProof(c.key, c.node, c.block, c.index, c.length, c.root, c.proof); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestCapability(t *testing.T) {
	expiry := time.Unix(1_800_000_000, 999)
	token := Capability(key(1), 77, expiry)
	golden(t, "capability", token, "4d0000000000000000d2496b00000000aae974e90b0fe631d548c672544c73e8291fb5a90d7b3ad04155bd24a87f89d7")
	if s, err := VerifyCapability(key(1), token, expiry.Add(-time.Second)); err != nil || s != 77 {
		t.Errorf("a good one: %d, %v", s, err)
	}
	bad := func(what string, key, token []byte, now time.Time) {
		t.Helper()
		if _, err := VerifyCapability(key, token, now); !errors.Is(err, wire.Forbidden) {
			t.Errorf("%s: %v", what, err)
		}
	}
	now := expiry.Add(-time.Hour)
	bad("expired", key(1), token, time.Unix(1_800_000_000, 0))
	bad("another key", key(2), token, now)
	bad("short", key(1), token[:47], now)
	bad("long", key(1), append(bytes.Clone(token), 0), now)
	bad("none", key(1), nil, now)
	for i := range token {
		forged := bytes.Clone(token)
		forged[i] ^= 1
		bad("forged", key(1), forged, now)
	}
}

func FuzzVerifyCapability(f *testing.F) {
	now := time.Unix(1_700_000_000, 0)
	f.Add(Capability(key(1), 1, now.Add(time.Hour)))
	f.Add([]byte{})
	f.Add(make([]byte, CapabilitySize))
	f.Fuzz(func(t *testing.T, token []byte) {
		session, err := VerifyCapability(key(1), token, now)
		if err != nil {
			if !errors.Is(err, wire.Forbidden) {
				t.Fatal(err)
			}
			return
		}
		// Only what Capability makes may pass.
		expiry := time.Unix(int64(uint64(token[8])|uint64(token[9])<<8|uint64(token[10])<<16|uint64(token[11])<<24|uint64(token[12])<<32|uint64(token[13])<<40|uint64(token[14])<<48|uint64(token[15])<<56), 0)
		if !bytes.Equal(token, Capability(key(1), session, expiry)) {
			t.Fatalf("%x passed", token)
		}
	})
}
