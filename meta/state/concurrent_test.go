package state

import (
	"fmt"
	"sync"
	"testing"

	"quernfs/internal/wire"
)

// TestReadsBesideApply: a reader never sees half of a batch. A name moves
// between two directories; it is always in exactly one of them, and their entry
// counts agree with their listings.
func TestReadsBesideApply(t *testing.T) {
	r := newRig(t)
	mkdir := func(name string) uint64 { return r.must(mkdirAt(0, 0, 0, name)).Inode.Attr.Ino }
	a, b := mkdir("a"), mkdir("b")
	r.must(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: a, Name: "f", Mode: sIFREG | 0o644}}})

	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					if n > 20 {
						return
					}
				default:
				}
				found, counted := 0, uint64(0)
				err := r.s.read(func(v *view) {
					for _, dir := range []uint64{a, b} {
						found += len(v.entries(dir))
						counted += v.inode(dir).Entries
					}
				})
				if err != nil || found != 1 || counted != 1 {
					t.Errorf("%d entries, %d counted: %v", found, counted, err)
					return
				}
				if _, err := r.s.Query(&wire.Query{Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: a, Plus: true}}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	from, to := a, b
	for i := range 300 {
		batch := []*wire.Command{
			{Op: &wire.Command_Rename{Rename: &wire.Rename{Parent: from, Name: "f", NewParent: to, NewName: fmt.Sprint("g", i)}}},
			{Op: &wire.Command_Rename{Rename: &wire.Rename{Parent: to, Name: fmt.Sprint("g", i), NewParent: to, NewName: "f"}}},
		}
		r.must(&wire.Command{Op: &wire.Command_Batch{Batch: &wire.Batch{Commands: batch}}})
		from, to = to, from
	}
	close(stop)
	readers.Wait()
	r.check()
}
