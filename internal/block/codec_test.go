package block

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"quernfs/internal/wire"
)

// seeded returns a source that QUERN_SEED, if set, repeats.
func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("QUERN_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("QUERN_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func fill(r *rand.Rand, b []byte) []byte {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestShardLength(t *testing.T) {
	for _, c := range []struct{ length, k, want int }{
		{0, 4, 1}, {1, 4, 1}, {4, 4, 1}, {5, 4, 2}, {19, 4, 5}, {1, 1, 1}, {4 << 20, 4, 1 << 20}, {4<<20 - 1, 4, 1 << 20}, {4 << 20, 32, 128 << 10}, {4 << 20, 3, 1398102},
	} {
		if n := ShardLength(c.length, c.k); n != c.want {
			t.Errorf("ShardLength(%d, %d) = %d, want %d", c.length, c.k, n, c.want)
		}
	}
}

func TestPieces(t *testing.T) {
	r := seeded(t)
	for range 500 {
		k, length := 1+r.IntN(8), 1+r.IntN(2000)
		l := ShardLength(length, k)
		data := fill(r, make([]byte, length))
		c, _ := NewCodec(k, 0)
		shards, err := c.Split(data)
		if err != nil {
			t.Fatal(err)
		}
		off := r.IntN(length)
		n := 1 + r.IntN(length-off)
		got := make([]byte, n)
		for _, p := range Pieces(l, off, n) {
			copy(got[p.At:p.At+p.Len], shards[p.Shard][p.Off:])
		}
		if !bytes.Equal(got, data[off:off+n]) {
			t.Fatalf("k %d length %d: bytes %d+%d differ", k, length, off, n)
		}
	}
}

func TestAlign(t *testing.T) {
	const L = LeafSize
	for _, c := range []struct{ length, off, n, lo, hi int }{
		{3*L + 5, 0, 1, 0, L}, {3*L + 5, L - 1, 2, 0, 2 * L}, {3*L + 5, 3 * L, 5, 3 * L, 3*L + 5}, {7, 3, 2, 0, 7}, {2 * L, L, L, L, 2 * L},
	} {
		if lo, hi := Align(c.length, c.off, c.n); lo != c.lo || hi != c.hi {
			t.Errorf("Align(%d, %d, %d) = %d, %d", c.length, c.off, c.n, lo, hi)
		}
	}
}

func clone(shards [][]byte) [][]byte {
	out := make([][]byte, len(shards))
	for i := range shards {
		out[i] = bytes.Clone(shards[i])
	}
	return out
}

// TestEveryErasure takes every set of up to m shards away and decodes them.
func TestEveryErasure(t *testing.T) {
	r := seeded(t)
	for _, p := range []struct{ k, m int }{{1, 0}, {1, 2}, {2, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {8, 3}} {
		for _, length := range []int{1, 2, p.k - 1, p.k, p.k + 1, 1000, 9000*p.k + 1} {
			if length < 1 {
				continue
			}
			t.Run(fmt.Sprintf("%d+%d/%d", p.k, p.m, length), func(t *testing.T) {
				c, err := NewCodec(p.k, p.m)
				if err != nil {
					t.Fatal(err)
				}
				data := fill(r, make([]byte, length))
				shards, err := c.Encode(data, nil)
				if err != nil {
					t.Fatal(err)
				}
				whole := clone(shards)
				var joined []byte
				for _, s := range whole[:p.k] {
					joined = append(joined, s...)
				}
				if !bytes.Equal(joined[:length], data) || len(bytes.Trim(joined[length:], "\x00")) > 0 {
					t.Fatal("the data shards are not the block and zeros")
				}
				for lost := range uint(1) << (p.k + p.m) {
					broken := clone(whole)
					for i := range broken {
						if lost>>i&1 == 1 {
							broken[i] = nil
						}
					}
					err := c.Reconstruct(broken)
					if bits.OnesCount(lost) > p.m {
						if !errors.Is(err, wire.Unavailable) {
							t.Fatalf("lost %b: %v", lost, err)
						}
						continue
					}
					if err != nil {
						t.Fatalf("lost %b: %v", lost, err)
					}
					for i := range broken {
						if !bytes.Equal(broken[i], whole[i]) {
							t.Fatalf("lost %b: shard %d differs", lost, i)
						}
					}
				}
			})
		}
	}
}

// TestCodecProperties tries random policies and lengths, ranges of shards and
// reused buffers.
func TestCodecProperties(t *testing.T) {
	r := seeded(t)
	for range 300 {
		k, m := 1+r.IntN(MaxK), r.IntN(MaxM+1)
		length := 1 + r.IntN(1<<r.IntN(18))
		c, err := NewCodec(k, m)
		if err != nil {
			t.Fatal(err)
		}
		data := fill(r, make([]byte, length))
		buf := fill(r, make([]byte, c.BufferSize(length)))
		shards, err := c.Encode(data, buf)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%d+%d length %d", k, m, length)
		l := ShardLength(length, k)
		for i, s := range shards {
			if len(s) != l {
				t.Fatalf("%s: shard %d has %d bytes", name, i, len(s))
			}
			if k > 1 && (i+1)*l <= length && &s[0] != &data[i*l] {
				t.Fatalf("%s: shard %d is a copy", name, i)
			}
		}
		// A range of some lost shards, decoded from the same range of the others.
		lo := r.IntN(l)
		hi := lo + 1 + r.IntN(l-lo)
		part, want := make([][]byte, k+m), make([]bool, k+m)
		lost := r.Perm(k + m)[:r.IntN(m+1)]
		for i := range part {
			part[i] = bytes.Clone(shards[i][lo:hi])
		}
		for _, i := range lost {
			part[i], want[i] = make([]byte, 0, hi-lo), true
		}
		if err := c.ReconstructSome(part, want); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, i := range lost {
			if !bytes.Equal(part[i], shards[i][lo:hi]) {
				t.Fatalf("%s: bytes %d to %d of shard %d differ", name, lo, hi, i)
			}
		}
	}
}

func TestCodecRefuses(t *testing.T) {
	for _, p := range []struct{ k, m int }{{0, 1}, {33, 0}, {1, 9}, {4, -1}} {
		if _, err := NewCodec(p.k, p.m); !errors.Is(err, wire.Invalid) {
			t.Errorf("NewCodec(%d, %d): %v", p.k, p.m, err)
		}
	}
	c, _ := NewCodec(2, 1)
	if _, err := c.Encode(nil, nil); !errors.Is(err, wire.Invalid) {
		t.Errorf("an empty block: %v", err)
	}
	if _, err := c.Encode(make([]byte, MaxBlockSize+1), nil); !errors.Is(err, wire.Invalid) {
		t.Errorf("a block too long: %v", err)
	}
	if err := c.Reconstruct([][]byte{{1}, {1, 2}, nil}); !errors.Is(err, wire.Invalid) {
		t.Errorf("unequal shards: %v", err)
	}
	if err := c.Reconstruct([][]byte{{1}, {1}}); !errors.Is(err, wire.Invalid) {
		t.Errorf("too few places: %v", err)
	}
}

// TestFormatIsFixed holds the code and the digests to what is on disks already.
func TestFormatIsFixed(t *testing.T) {
	data := make([]byte, 300_000)
	for i := range data {
		data[i] = byte(i*7 + i>>8)
	}
	c, _ := NewCodec(4, 2)
	shards, err := c.Encode(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	for _, s := range shards {
		root := Root(len(s), Leaves(s))
		h.Write(root[:])
	}
	golden(t, "roots of a 4+2 block", h.Sum(nil), "a7b62520823f7ec1e4f39fb3187a8e2ef8c0d26068d711b1fb001b43cdb2fe6d")
}

func golden(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if hex.EncodeToString(got) != want {
		t.Errorf("%s: %x, want %s", what, got, want)
	}
}

// BenchmarkBlock is what the client does to a block before it sends it.
func BenchmarkBlock(b *testing.B) {
	for _, p := range []Policy{{K: 4, M: 2}, {K: 8, M: 3}, {K: 1, M: 2}} {
		c, _ := NewCodec(p.K, p.M)
		data := fill(rand.New(rand.NewPCG(1, 1)), make([]byte, 4<<20))
		buf := make([]byte, c.BufferSize(len(data)))
		b.Run(p.String()+"/encode", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := c.Encode(data, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(p.String()+"/encode+hash", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				shards, err := c.Encode(data, buf)
				if err != nil {
					b.Fatal(err)
				}
				LeavesOf(shards)
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)*(1<<30)/float64(len(data)), "s/GiB")
		})
	}
}
