package data

import (
	"context"
	"testing"
	"testing/synctest"

	"quernfs/internal/traffic"
)

// TestReadExactly reads a file in order: not a byte more than that is fetched,
// while reading ahead counts for the reader.
func TestReadExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		want := fill(5, 24<<20)
		storedFile(t, c, 7, want)
		c.onRead = func(ctx context.Context, _ uint64, n int) error {
			traffic.Of(ctx).Add(n, true)
			return nil
		}
		p := New(Config{}, c, c)
		f := p.File(c.inode(7))
		var m traffic.Meter
		ctx := traffic.With(t.Context(), &m)
		buf := make([]byte, 10_000)
		for off := 1000; off < 12<<20; off += len(buf) {
			if _, err := f.ReadExactly(ctx, buf, int64(off)); err != nil || firstDiff(buf, want[off:off+len(buf)]) >= 0 {
				t.Fatal(off, err)
			}
		}
		n := (12<<20 - 1000 + len(buf) - 1) / len(buf) * len(buf)
		if s := p.Stats(); s.Prefetched != 0 || c.readBytes != n || m.Remote() != uint64(n) {
			t.Errorf("%d bytes asked for, %d read, %d counted, %d blocks read ahead", n, c.readBytes, m.Remote(), s.Prefetched)
		}
		for off := 0; off < 12<<20; off += len(buf) {
			if _, err := f.ReadAt(ctx, buf, int64(off)); err != nil {
				t.Fatal(off, err)
			}
			synctest.Wait()
		}
		if s := p.Stats(); s.Prefetched == 0 || m.Remote() != uint64(c.readBytes) {
			t.Errorf("%d blocks read ahead; %d bytes read, %d counted", s.Prefetched, c.readBytes, m.Remote())
		}
		closed(t, p)
	})
}
