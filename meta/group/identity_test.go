package group

import (
	"bytes"
	"testing"

	"github.com/hashicorp/raft"
)

func FuzzDecodeRecord(f *testing.F) {
	f.Add(Record{ID: "meta-1"}.Encode())
	f.Add(Record{ID: "meta-1/0011", Cluster: newCluster()}.Encode())
	f.Add([]byte("quern member 1\nid \ncluster \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b)
		if err != nil {
			return
		}
		if again, err := DecodeRecord(r.Encode()); err != nil || again.ID != r.ID || !bytes.Equal(again.Cluster, r.Cluster) {
			t.Errorf("%v becomes %v, %v", r, again, err)
		}
	})
}

func TestDecide(t *testing.T) {
	group := []raft.Server{
		{ID: "m1", Address: "a1"}, {ID: "m2", Address: "a2"},
		{ID: "m3/old", Address: "a3/old", Suffrage: raft.Nonvoter},
	}
	for _, c := range []struct {
		id, addr string
		behind   uint64
		alive    bool
		want     step
		other    raft.ServerID
	}{
		{"m1", "a1", 0, true, nothing, ""},
		{"m1", "b1", 0, true, promote, ""}, // a new address
		{"m2/new", "a2/new", 0, true, refuse, "m2"},
		{"m2/new", "a2/new", 0, false, remove, "m2"},
		{"m3/old", "a3/old", nearEnough + 1, true, await, ""},
		{"m3/old", "a3/old", nearEnough, true, promote, ""},
		{"m3/old", "b3/old", 0, true, add, ""},
		{"m3/new", "a3/new", 0, false, remove, "m3/old"},
		{"m4/new", "a4/new", 0, false, add, ""},
	} {
		got, other := decide(group, raft.ServerID(c.id), raft.ServerAddress(c.addr), c.behind, func(raft.ServerID) bool { return c.alive })
		if got != c.want || other != c.other {
			t.Errorf("%+v: %v %s", c, got, other)
		}
	}
}

func TestMaySever(t *testing.T) {
	for _, c := range []struct {
		from, to, first, last, applied, snapshot uint64
		ok                                       bool
	}{
		{1, 50, 1, 100, 100, 60, true},       // what a snapshot stands for
		{1, 100, 1, 100, 100, 100, true},     // all of it
		{90, 100, 1, 100, 80, 60, true},      // what was never applied
		{80, 100, 1, 100, 80, 60, false},     // what was
		{70, 100, 1, 100, 50, 70, false},     // what a snapshot has
		{1, 100, 1, 100, 30, 0, false},       // all, and nothing stands for it
		{101, 110, 101, 110, 100, 100, true}, // all that came after the snapshot
		{101, 110, 101, 110, 105, 100, false},
		{1, 10, 1, 10, 0, 0, true},
	} {
		if err := maySever(c.from, c.to, c.first, c.last, c.applied, c.snapshot); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAgree(t *testing.T) {
	logs := raft.NewInmemStore()
	for i := uint64(11); i <= 20; i++ {
		if err := logs.StoreLog(&raft.Log{Index: i, Term: 2 + i/16}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		applied, snapshot Position
		ok                bool
	}{
		{Position{15, 2}, Position{10, 1}, true},
		{Position{15, 3}, Position{10, 1}, false},
		{Position{16, 3}, Position{10, 1}, true},
		{Position{21, 3}, Position{10, 1}, false}, // beyond the log
		{Position{9, 1}, Position{9, 1}, false},   // entry 10 is missing
		{Position{10, 1}, Position{10, 1}, true},
		{Position{10, 2}, Position{10, 1}, false},
		{Position{12, 1}, Position{14, 4}, true}, // came with the snapshot, over what the log had
		{Position{30, 4}, Position{31, 4}, true},
	} {
		if err := Agree(c.applied, c.snapshot, logs); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := Agree(Position{}, Position{}, raft.NewInmemStore()); err != nil {
		t.Error(err)
	}
}
