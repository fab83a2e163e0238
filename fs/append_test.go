package fs

import (
	"testing"
	"time"
)

func TestUnfinishedAppends(t *testing.T) {
	for _, c := range []struct {
		cached bool
		off, n int64
		want   bool
	}{
		{true, 0, 100, false}, {true, 4000, 96, true}, {true, 0, 1 << 20, true}, {true, 4096, 1, false},
		{false, 4000, 96, false}, {false, 0, 1 << 20, true}, {false, 10, 1<<20 - 4095, true}, {false, 10, 1<<20 - 4096, false},
	} {
		if got := unfinished(writing{cached: c.cached, off: c.off}, c.n); got != c.want {
			t.Errorf("append of %d at %d, cached %v: unfinished %v", c.n, c.off, c.cached, got)
		}
	}
}

func TestAppendChain(t *testing.T) {
	now := time.Unix(1000, 0)
	c := chainAfter(4096, now)
	for _, x := range []struct {
		off  int64
		at   time.Duration
		want bool
	}{{4096, 0, true}, {4096, appendWait - 1, true}, {4096, appendWait, false}, {0, 0, false}} {
		if got := c.continues(&op{off: x.off}, now.Add(x.at)); got != x.want {
			t.Errorf("an append at %d after %v continues it: %v", x.off, x.at, got)
		}
	}
	if (appendChain{}).open(now) {
		t.Error("no append is unfinished")
	}
}
