package meta

import (
	"context"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// A command whose caller has given up is not carried out any more once that is
// settled.
func TestSettledCommandsAreOver(t *testing.T) {
	r := newRig(t, 1)
	a, b := r.user("a"), r.user("b")
	b.must(create(wire.RootIno, "x"))
	a.mustAsk(lookup(wire.RootIno, "x"))
	a.mu.Lock()
	a.stuck = true
	a.mu.Unlock()
	ctx, done := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer done()
	if _, err := b.Do(ctx, unlink(wire.RootIno, "x")); wire.CodeOf(err) != wire.Timeout {
		t.Fatalf("unlink: %v", err)
	}
	if err := b.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.unstick() // now it goes on, and finds that it is too late
	eventually(t, "the command is over", func() bool {
		l, err := r.nodes[0].meta.leading("test")
		if err != nil {
			t.Fatal(err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.calls) == 0
	})
	b.mustAsk(lookup(wire.RootIno, "x"))
}
