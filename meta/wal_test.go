package meta

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// A member whose last entries were never committed drops them when it hears
// from a new leader. Its log must open after that: raft-wal 0.4.0 left a segment
// that it called sealed and that had no index.
func TestLogOpensAfterItsEndWasDropped(t *testing.T) {
	dir := t.TempDir()
	open := func() *wal.WAL {
		w, err := wal.Open(dir, wal.WithSegmentSize(1<<20))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	store := func(w *wal.WAL, from, to uint64, term uint64) {
		for i := from; i <= to; i++ {
			if err := w.StoreLog(&raft.Log{Index: i, Term: term, Data: fmt.Appendf(nil, "entry %d of term %d", i, term)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	w := open()
	store(w, 1, 20, 1)
	if err := w.DeleteRange(19, 20); err != nil {
		t.Fatal(err)
	}
	for term := uint64(2); term < 5; term++ { // opened, and its end dropped, again and again
		store(w, 19, 22, term)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		w = open()
		for i := uint64(1); i <= 22; i++ {
			var l raft.Log
			if err := w.GetLog(i, &l); err != nil {
				t.Fatalf("term %d, entry %d: %v", term, i, err)
			}
			want := uint64(1)
			if i >= 19 {
				want = term
			}
			if l.Index != i || l.Term != want || string(l.Data) != fmt.Sprintf("entry %d of term %d", i, want) {
				t.Errorf("term %d, entry %d: %d of term %d, %q", term, i, l.Index, l.Term, l.Data)
			}
		}
		if err := w.DeleteRange(19, 22); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
