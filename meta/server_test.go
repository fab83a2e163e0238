package meta

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"quernfs/internal/wire"
)

func TestSingleServer(t *testing.T) {
	r := newRig(t, 1)
	u := r.user("one")
	res := u.must(create(wire.RootIno, "a"))
	if !res.Created || u.mode(res.Inode.Attr.Ino) != wire.Mode_WRITE {
		t.Fatalf("a new file comes with WRITE: %v", res)
	}
	a := u.mustAsk(lookup(wire.RootIno, "a"))
	if a.GetInode().Inode.Attr.Ino != res.Inode.Attr.Ino || u.mode(wire.RootIno) != wire.Mode_READ {
		t.Fatalf("lookup: %v", a)
	}
	if _, err := u.ask(lookup(wire.RootIno, "b")); wire.CodeOf(err) != wire.NotFound {
		t.Fatalf("lookup of nothing: %v", err)
	}
	if _, err := u.do(create(wire.RootIno, "a")); wire.CodeOf(err) != wire.Exists {
		t.Fatalf("create twice: %v", err)
	}
}

func TestRestartReplaysNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	u := r.user("one")
	for i := range 100 {
		u.must(create(wire.RootIno, fmt.Sprint(i)))
	}
	r.stop(0)
	r.start(0)
	r.leader()
	if applied, _ := r.nodes[0].meta.Applied(); applied > 5 {
		t.Fatalf("%d entries were applied again after a clean stop", applied)
	}
	u.mustAsk(lookup(wire.RootIno, "99"))
}

func TestThreeServersFailOver(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name string
		opts []func(*rig)
	}{{"in process", nil}, {"unix", []func(*rig){overUnix}}} {
		t.Run(kind.name, func(t *testing.T) {
			r := newRig(t, 3, kind.opts...)
			u := r.user("one")
			u.must(create(wire.RootIno, "before"))
			var wg sync.WaitGroup
			stop := make(chan struct{})
			var mu sync.Mutex
			made := map[string]bool{}
			for w := range 4 {
				wg.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						name := fmt.Sprintf("%d-%d", w, i)
						// Exclusive: had it been carried out twice, the second would fail.
						if _, err := u.do(create(wire.RootIno, name)); err != nil {
							t.Errorf("create %s: %v", name, err)
							return
						}
						mu.Lock()
						made[name] = true
						mu.Unlock()
					}
				})
			}
			pause(300 * time.Millisecond)
			old := r.leader()
			mu.Lock()
			before := len(made)
			mu.Unlock()
			began := time.Now()
			r.kill(old)
			eventually(t, "commands go on", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(made) > before+8
			})
			t.Logf("fail-over: %v", time.Since(began))
			close(stop)
			wg.Wait()
			for name := range made {
				u.mustAsk(lookup(wire.RootIno, name))
			}
			if u.happened("ended") {
				t.Error("the session did not survive")
			}
			r.start(old)
		})
	}
}
