package lease

import (
	"math/rand/v2"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// lockModel is the simplest thing that can be right: for each byte, who has it.
type lockModel map[space]map[Owner]*[lockBytes]byte // 0 none, 1 read, 2 write

const lockBytes = 17 // the last stands for all above it

func (m lockModel) of(k space, o Owner) *[lockBytes]byte {
	if m[k] == nil {
		m[k] = map[Owner]*[lockBytes]byte{}
	}
	if m[k][o] == nil {
		m[k][o] = new([lockBytes]byte)
	}
	return m[k][o]
}

func span(l *wire.Lock) (from, to uint64) {
	if l.Flock {
		return 0, lockBytes - 1
	}
	return l.Start, min(l.End, lockBytes-1) // a test's End is below the last, or beyond all
}

func (m lockModel) set(o Owner, l *wire.Lock) {
	b := m.of(spaceOf(l), o)
	from, to := span(l)
	for i := from; i <= to; i++ {
		b[i] = map[uint32]byte{wire.ReadLock: 1, wire.WriteLock: 2, wire.Unlock: 0}[l.Type]
	}
}

// blockers are the owners whose bytes conflict with the request.
func (m lockModel) blockers(o Owner, l *wire.Lock) map[Owner]bool {
	out := map[Owner]bool{}
	from, to := span(l)
	for other, b := range m[spaceOf(l)] {
		for i := from; i <= to && other != o; i++ {
			if b[i] == 2 || b[i] == 1 && l.Type == wire.WriteLock {
				out[other] = true
			}
		}
	}
	return out
}

// circle: o would wait for somebody who waits for o.
func (m lockModel) circle(o Owner, l *wire.Lock, waiting []*Waiter) bool {
	seen := map[Owner]bool{}
	var reach func(map[Owner]bool) bool
	reach = func(next map[Owner]bool) bool {
		for n := range next {
			if n == o {
				return true
			}
			if seen[n] {
				continue
			}
			seen[n] = true
			for _, w := range waiting {
				if w.Owner == n && !w.Lock.Flock && reach(m.blockers(n, w.Lock)) {
					return true
				}
			}
		}
		return false
	}
	return reach(m.blockers(o, l))
}

func TestLocksAgainstModel(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", s)
	for run := range uint64(200) {
		rnd := rand.New(rand.NewPCG(s, run))
		table, model := NewLocks(), lockModel{}
		var waiting []*Waiter
		granted := func() {
			for _, w := range table.Granted() {
				if len(model.blockers(w.Owner, w.Lock)) > 0 {
					t.Fatalf("run %d: granted against a holder: %v %v", run, w.Owner, w.Lock)
				}
				model.set(w.Owner, w.Lock)
				waiting = without(waiting, w)
			}
		}
		for range 300 {
			o := Owner{1 + rnd.Uint64N(3), 1 + rnd.Uint64N(2)}
			from := rnd.Uint64N(lockBytes - 1)
			l := &wire.Lock{
				Ino: 1 + rnd.Uint64N(2), Owner: o.ID, Flock: rnd.IntN(4) == 0, Type: uint32(rnd.IntN(3)),
				Start: from, End: from + rnd.Uint64N(lockBytes-1-from),
			}
			if rnd.IntN(6) == 0 {
				l.End = ^uint64(0)
			}
			switch k := rnd.IntN(20); {
			case k < 8:
				conflicts := l.Type != wire.Unlock && len(model.blockers(o, l)) > 0
				if got := table.Set(o, l) != nil; got != conflicts {
					t.Fatalf("run %d: Set %v %v: conflict %v, want %v", run, o, l, got, conflicts)
				}
				if !conflicts {
					model.set(o, l)
				}
			case k < 16 && l.Type != wire.Unlock:
				circle := !l.Flock && model.circle(o, l, waiting)
				w, err := table.Wait(o, l)
				if (err != nil) != circle {
					t.Fatalf("run %d: Wait %v %v: %v, a circle: %v", run, o, l, err, circle)
				}
				if err != nil {
					break
				}
				if w.Granted {
					if len(model.blockers(o, l)) > 0 {
						t.Fatalf("run %d: granted against a holder", run)
					}
					model.set(o, l)
				} else {
					waiting = append(waiting, w)
				}
			case k < 17 && len(waiting) > 0:
				w := waiting[rnd.IntN(len(waiting))]
				table.Cancel(w)
				waiting = without(waiting, w)
			case k < 18:
				for _, w := range table.Drop(o.Session) {
					waiting = without(waiting, w)
				}
				for _, owners := range model {
					for other := range owners {
						if other.Session == o.Session {
							delete(owners, other)
						}
					}
				}
			default:
				if got, want := table.Test(o, l) != nil, l.Type != wire.Unlock && len(model.blockers(o, l)) > 0; l.Type != wire.Unlock && got != want {
					t.Fatalf("run %d: Test %v %v: %v, want %v", run, o, l, got, want)
				}
			}
			granted()
			// Nobody waits for nothing: a waiter has a holder against it, or, if its
			// owner holds nothing, a waiter before it in the same space.
			first := map[space]bool{}
			for _, w := range waiting {
				at := !first[spaceOf(w.Lock)]
				first[spaceOf(w.Lock)] = true
				if len(model.blockers(w.Owner, w.Lock)) == 0 && (table.held[w.Owner] > 0 || at) {
					t.Fatalf("run %d: %v waits for nothing: %v", run, w.Owner, w.Lock)
				}
			}
		}
		// When all holders let go, all waiters come through.
		for range 1000 {
			if len(waiting) == 0 {
				break
			}
			for o := range table.held {
				for ino := uint64(1); ino <= 2; ino++ {
					for _, flock := range []bool{false, true} {
						u := &wire.Lock{Ino: ino, Owner: o.ID, Flock: flock, Type: wire.Unlock, End: ^uint64(0)}
						table.Set(o, u)
						model.set(o, u)
						granted()
					}
				}
			}
		}
		if len(waiting) > 0 {
			t.Fatalf("run %d: %d waiters never came through", run, len(waiting))
		}
	}
}

func without(list []*Waiter, w *Waiter) []*Waiter {
	for i, x := range list {
		if x == w {
			return append(append([]*Waiter(nil), list[:i]...), list[i+1:]...)
		}
	}
	return list
}

func TestWaitersAreServedInOrder(t *testing.T) {
	table := NewLocks()
	lock := func(typ uint32) *wire.Lock { return &wire.Lock{Ino: 1, Type: typ, End: 9} }
	a, b, c := Owner{1, 1}, Owner{2, 1}, Owner{3, 1}
	table.Set(a, lock(wire.ReadLock))
	w, _ := table.Wait(b, lock(wire.WriteLock))
	r, _ := table.Wait(c, lock(wire.ReadLock))
	if r.Granted {
		t.Fatal("a reader overtook a waiting writer")
	}
	table.Set(a, lock(wire.Unlock))
	if !w.Granted || r.Granted {
		t.Fatalf("writer %v, reader %v", w.Granted, r.Granted)
	}
	table.Set(b, lock(wire.Unlock))
	if !r.Granted {
		t.Fatal("the reader was forgotten")
	}
}

func TestCancelledWaitKeepsOlderLock(t *testing.T) {
	table := NewLocks()
	a, b := Owner{1, 1}, Owner{2, 1}
	read := &wire.Lock{Ino: 1, Type: wire.ReadLock, End: 9}
	write := &wire.Lock{Ino: 1, Type: wire.WriteLock, End: 9}
	table.Set(a, read)
	table.Set(b, read)
	table.Wait(a, write)
	ended, holds := table.CancelLike(a, write)
	if len(ended) != 1 || holds {
		t.Fatalf("ended %d, holds %v", len(ended), holds)
	}
	if table.Test(b, write) == nil {
		t.Fatal("the read lock is gone")
	}
	table.Set(b, &wire.Lock{Ino: 1, Type: wire.Unlock, End: 9})
	if w, _ := table.Wait(a, write); !w.Granted {
		t.Fatal("nobody is in the way")
	}
	if _, holds := table.CancelLike(a, write); !holds {
		t.Fatal("a granted lock is held")
	}
}
