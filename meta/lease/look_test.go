package lease

import (
	"slices"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// A look-up that waits must not wait any longer when its session owes an answer
// about names. What it is told then is recalled, if that has not been asked yet.
func TestUrgentLooks(t *testing.T) {
	table := New(0)
	for id := range uint64(3) {
		table.Join(id+1, time.Now().Add(time.Hour))
	}
	const dir, file = 10, 20
	n, other := Name{dir, "n"}, Name{dir, "other"}
	names := func(n Name) Claim { return Claim{Ino: dir, Kind: Names, Names: []string{n.Name}} }
	table.Grant(1, dir, wire.Mode_READ, nil)
	change, look := table.Lock(2, n), table.Look(1, n)
	if look.Locked() || table.Urgent(look) {
		t.Fatal("the look-up does not wait")
	}
	table.Claim(change, names(n), Claim{Ino: file, Kind: Change, Victim: true})
	sends, woken := table.Take()
	if len(sends) != 1 || !slices.Contains(woken, look) || !table.Urgent(look) || !table.Owed(look) {
		t.Fatalf("sent %v, woken %v, urgent %t, owed %t", sends, woken, table.Urgent(look), table.Owed(look))
	}

	// Told that file is what has the name, it may open it: it is asked about that.
	g := table.Attend(look, file)
	again, _ := table.Take()
	if g.GetMode() != wire.Mode_OPEN || len(again) != 1 || again[0].Recall.Ino != file || !again[0].Recall.Victim || again[0].Recall.Grant != g.Id {
		t.Fatalf("granted %v, sent %v", g, again)
	}
	table.Recalled(1, &wire.Recalled{Id: again[0].Recall.Id, Ino: file, Mode: wire.Mode_OPEN, Open: true})
	table.End(look)

	// Once it has answered it waits, but only while it owes nothing else.
	table.Recalled(1, &wire.Recalled{Id: sends[0].Recall.Id, Ino: dir, Mode: wire.Mode_READ})
	if !change.Ready() || !slices.Equal(change.Open(file), []uint64{1}) {
		t.Fatalf("ready %t, open in %v", change.Ready(), change.Open(file))
	}
	table.End(change)
	table.Grant(3, dir, wire.Mode_READ, nil)
	change = table.Lock(2, n)
	table.Claim(change, names(n))
	sends, _ = table.Take()
	table.Recalled(1, &wire.Recalled{Id: sends[0].Recall.Id, Ino: dir, Mode: wire.Mode_READ})
	look = table.Look(1, n)
	if table.Urgent(look) || change.Ready() {
		t.Fatal("the look-up does not wait for a change that waits for another session")
	}
	second := table.Lock(3, other)
	table.Claim(second, names(other))
	table.Take()
	if !table.Urgent(look) || table.Owed(look) {
		t.Fatalf("urgent %t, owed %t", table.Urgent(look), table.Owed(look))
	}
	table.Attend(look, 0)
	again, _ = table.Take()
	if len(again) != 1 || again[0].Session != 1 || !slices.Equal(again[0].Recall.Names, []string{"n"}) || !table.Owed(look) {
		t.Fatalf("sent %v", again)
	}
	table.Recalled(3, &wire.Recalled{Id: sends[1].Recall.Id, Ino: dir, Mode: wire.Mode_READ})
	if change.Ready() {
		t.Fatal("the change did not wait for what the look-up was told")
	}
	table.Recalled(1, &wire.Recalled{Id: again[0].Recall.Id, Ino: dir, Mode: wire.Mode_READ})
	if !change.Ready() || table.Urgent(look) && table.Owed(look) {
		t.Fatal("the change does not go on")
	}
}
