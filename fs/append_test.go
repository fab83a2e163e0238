package fs

import (
	"testing"
	"time"
)

func TestAppendChain(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		off, n int64
		open   bool
	}{{0, 100, false}, {4000, 96, true}, {0, 1 << 20, true}, {4096, 1, false}, {10, 0, false}} {
		got := appendChain{}.after(c.off, c.n, now)
		if got.open(now) != c.open || c.open && got.next != c.off+c.n {
			t.Errorf("append of %d at %d: %+v", c.n, c.off, got)
		}
		if got.open(now.Add(appendWait)) {
			t.Errorf("append of %d at %d stays open", c.n, c.off)
		}
	}
}
