package block

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/minio/sha256-simd"
)

// HashSize is the length of a digest.
const HashSize = sha256.Size

const rootTag = "quern shard v1"

// Leaves returns the leaf digests of shard, HashSize bytes each.
func Leaves(shard []byte) []byte {
	out := make([]byte, LeafCount(len(shard))*HashSize)
	for i := range LeafCount(len(shard)) {
		hashLeaf(out, shard, i)
	}
	return out
}

func hashLeaf(out, shard []byte, i int) {
	lo, hi := LeafBounds(len(shard), i)
	d := sha256.Sum256(shard[lo:hi])
	copy(out[i*HashSize:], d[:])
}

// LeavesOf returns the leaf digests of every shard, hashing on up to
// GOMAXPROCS goroutines. Shards that are the same memory are hashed once.
func LeavesOf(shards [][]byte) [][]byte {
	out := make([][]byte, len(shards))
	type job struct{ shard, leaf int }
	var jobs []job
	for i, s := range shards {
		if i > 0 && len(s) > 0 && len(shards[i-1]) == len(s) && &s[0] == &shards[i-1][0] {
			out[i] = out[i-1]
			continue
		}
		n := LeafCount(len(s))
		out[i] = make([]byte, n*HashSize)
		for l := range n {
			jobs = append(jobs, job{i, l})
		}
	}
	var next atomic.Int64
	work := func() {
		for {
			n := int(next.Add(1)) - 1
			if n >= len(jobs) {
				return
			}
			hashLeaf(out[jobs[n].shard], shards[jobs[n].shard], jobs[n].leaf)
		}
	}
	// A leaf takes some 45 µs: below four of them a goroutine is not worth it.
	helpers := min(runtime.GOMAXPROCS(0), len(jobs)/4) - 1
	var wg sync.WaitGroup
	for range helpers {
		wg.Go(work)
	}
	work()
	wg.Wait()
	return out
}

// Root returns the root digest of a shard of length bytes with these leaves.
func Root(length int, leaves []byte) [32]byte {
	b := make([]byte, 0, 256)
	b = append(b, rootTag...)
	b = binary.LittleEndian.AppendUint64(b, uint64(length))
	b = append(b, leaves...)
	return sha256.Sum256(b)
}

// VerifyRoot says whether leaves are the digests of a shard of length bytes
// whose root is root.
func VerifyRoot(length int, leaves, root []byte) bool {
	if length < 1 || len(leaves) != LeafCount(length)*HashSize {
		return false
	}
	r := Root(length, leaves)
	return bytes.Equal(r[:], root)
}

// VerifyLeaf says whether leaf is the whole leaf i of the shard with these
// leaf digests.
func VerifyLeaf(leaves []byte, i int, leaf []byte) bool {
	if i < 0 || (i+1)*HashSize > len(leaves) {
		return false
	}
	d := sha256.Sum256(leaf)
	return bytes.Equal(d[:], leaves[i*HashSize:(i+1)*HashSize])
}

// VerifyRange says whether b, which starts at byte off of a shard (off on a
// leaf boundary) and holds whole leaves, matches the leaf digests.
func VerifyRange(leaves []byte, off int, b []byte) bool {
	for i := off / LeafSize; len(b) > 0; i++ {
		n := min(LeafSize, len(b))
		if !VerifyLeaf(leaves, i, b[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
