package fs

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

func TestPages(t *testing.T) {
	for _, c := range []struct {
		off, n int64
		want   span
	}{
		{0, 1, span{0, 4096}}, {4095, 2, span{0, 8192}}, {4096, 4096, span{4096, 8192}},
		{5000, 0, span{4096, 8192}}, {0, 0, span{0, 0}}, {maxOff - 10, 5, span{(maxOff - 10) &^ 4095, maxOff}},
	} {
		if got := pages(c.off, c.n); got != c.want {
			t.Errorf("pages(%d, %d) = %v, want %v", c.off, c.n, got, c.want)
		}
	}
}

// The set of spans against a set of numbers.
func TestSpansModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const size = 64
	for range 500 {
		var ss spans
		var model [size]bool
		for range 12 {
			lo := r.Int64N(size)
			s := span{lo, lo + r.Int64N(size-lo+1)}
			ss = ss.add(s)
			for i := s.lo; i < s.hi; i++ {
				model[i] = true
			}
		}
		for i := 1; i < len(ss); i++ {
			if ss[i].lo <= ss[i-1].hi {
				t.Fatalf("not merged: %v", ss)
			}
		}
		var got [size]bool
		for _, s := range ss {
			for i := s.lo; i < s.hi; i++ {
				got[i] = true
			}
		}
		if got != model {
			t.Fatalf("%v: %v, want %v", ss, got, model)
		}
		var rest [size]bool
		for _, s := range (span{0, size}).without(ss) {
			for i := s.lo; i < s.hi; i++ {
				rest[i] = true
			}
		}
		for i := range rest {
			if rest[i] == model[i] {
				t.Fatalf("without %v: %d", ss, i)
			}
		}
		probe := span{r.Int64N(size), size}
		want := false
		for i := probe.lo; i < probe.hi; i++ {
			want = want || model[i]
		}
		if ss.overlaps(probe) != want {
			t.Fatalf("%v overlaps %v: want %v", ss, probe, want)
		}
	}
}

func TestWithoutKeepsWhole(t *testing.T) {
	if got := (span{0, maxOff}).without(spans{{4096, 8192}}); !reflect.DeepEqual(got, spans{{0, 4096}, {8192, maxOff}}) {
		t.Error(got)
	}
}
