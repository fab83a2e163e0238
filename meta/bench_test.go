package meta

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"quernfs/internal/wire"
)

// BenchmarkCreate: files a second, by one session in process, each durable when
// its create returns.
func BenchmarkCreate(b *testing.B) {
	for _, servers := range []int{1, 3} {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("servers=%d/callers=%d", servers, callers), func(b *testing.B) {
				r := newRig(b, servers)
				u := r.user("bench")
				dir := u.must(mkdir(wire.RootIno, "d")).Inode.Attr.Ino
				var next atomic.Int64
				b.ResetTimer()
				var wg sync.WaitGroup
				for range callers {
					wg.Go(func() {
						for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
							cmd := create(dir, fmt.Sprint(i))
							cmd.Cred = root
							if _, err := u.Do(b.Context(), cmd); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
			})
		}
	}
}

// BenchmarkLookup: what a mount without a lease pays.
func BenchmarkLookup(b *testing.B) {
	r := newRig(b, 1)
	u := r.user("bench")
	u.must(create(wire.RootIno, "f"))
	q := lookup(wire.RootIno, "f")
	q.Cred = root
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := u.Ask(b.Context(), q); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
