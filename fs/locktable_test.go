package fs

import (
	"math/rand/v2"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// The lock table of one owner against an array of bytes.
func TestLockTableModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const size = 32
	for range 300 {
		var table lockTable
		var model [2][size]int // 0 none, 1 read, 2 write; for two owners
		for range 20 {
			who := r.IntN(2)
			lo := r.IntN(size)
			hi := lo + r.IntN(size-lo)
			typ := uint32(r.IntN(3))
			table = table.set(fileLock{owner: uint64(who), typ: typ, start: uint64(lo), end: uint64(hi)})
			for i := lo; i <= hi; i++ {
				model[who][i] = map[uint32]int{0: 1, 1: 2, wire.Unlock: 0}[typ]
			}
			var got [2][size]int
			for _, l := range table {
				for i := l.start; i <= l.end; i++ {
					if got[l.owner][i] != 0 {
						t.Fatalf("locks overlap: %+v", table)
					}
					got[l.owner][i] = int(l.typ) + 1
				}
			}
			if got != model {
				t.Fatalf("%+v: %v, want %v", table, got, model)
			}
		}
	}
}

func TestLockTableJoins(t *testing.T) {
	var table lockTable
	table = table.set(fileLock{owner: 1, start: 0, end: 9})
	table = table.set(fileLock{owner: 1, start: 10, end: 19})
	table = table.set(fileLock{owner: 1, start: 30, end: ^uint64(0)})
	if len(table) != 2 {
		t.Errorf("%+v", table)
	}
	if table = table.set(fileLock{owner: 1, typ: wire.Unlock, end: ^uint64(0)}); len(table) != 0 {
		t.Errorf("%+v", table)
	}
	table = table.set(fileLock{owner: 2, flock: true, end: ^uint64(0)})
	if table.holds(2, false) || !table.holds(2, true) {
		t.Error("the two kinds of locks are apart")
	}
}
