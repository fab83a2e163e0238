package data

import (
	"math/rand/v2"
	"testing"
)

// TestSpanMapModel compares the map with an array of bytes, one entry a byte.
func TestSpanMapModel(t *testing.T) {
	for _, size := range []int64{40, 5000, 100000} {
		seed := rand.Uint64()
		t.Logf("size %d seed %d", size, seed)
		rng := rand.New(rand.NewPCG(seed, 1))
		type byteAt struct {
			src int
			at  int64
		}
		model := make([]byteAt, size)
		var m spanMap[int]
		for step := range 6000 {
			off := rng.Int64N(size)
			end := off + 1 + rng.Int64N(min(size-off, 1+size/int64(1+rng.IntN(400))))
			if rng.IntN(4) == 0 {
				m.clear(off, end)
				clear(model[off:end])
			} else {
				s := span[int]{off: off, end: end, src: 1 + rng.IntN(2), at: off + int64(rng.IntN(2))*7}
				m.set(s)
				for i := off; i < end; i++ {
					model[i] = byteAt{s.src, s.at + i - off}
				}
			}
			if step%500 == 0 || size == 40 {
				check(t, &m, func(i int64) (int, int64) { return model[i].src, model[i].at }, size)
			}
		}
	}
}

func check(t *testing.T, m *spanMap[int], model func(int64) (int, int64), size int64) {
	t.Helper()
	n, bytes, pos := 0, int64(0), int64(0)
	var last span[int]
	for s := range m.all() {
		if s.off < pos || s.end <= s.off || n > 0 && last.joins(s) {
			t.Fatalf("span %v after %v", s, last)
		}
		for ; pos < s.off; pos++ {
			if src, _ := model(pos); src != 0 {
				t.Fatalf("byte %d is missing", pos)
			}
		}
		for ; pos < s.end; pos++ {
			if src, at := model(pos); src != s.src || at != s.at+pos-s.off {
				t.Fatalf("byte %d: want %d %d, have %v", pos, src, at, s)
			}
		}
		n, bytes, last = n+1, bytes+s.len(), s
	}
	for ; pos < size; pos++ {
		if src, _ := model(pos); src != 0 {
			t.Fatalf("byte %d is missing", pos)
		}
	}
	if n != m.count() || bytes != m.bytes {
		t.Fatalf("count %d bytes %d, want %d %d", m.count(), m.bytes, n, bytes)
	}
	for _, p := range m.pages {
		if len(p) == 0 || len(p) > pageMax {
			t.Fatalf("page of %d", len(p))
		}
	}
}

// BenchmarkSpanMapRandom sets 4 KiB ranges at random among 100,000.
func BenchmarkSpanMapRandom(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	var m spanMap[struct{}]
	for range 200000 {
		off := rng.Int64N(200000) * 8192
		m.set(span[struct{}]{off: off, end: off + 4096, at: rng.Int64()})
	}
	b.ResetTimer()
	for range b.N {
		off := rng.Int64N(200000) * 8192
		m.set(span[struct{}]{off: off, end: off + 4096, at: off})
	}
}
