package meta

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
	"quernfs/meta/lease"
)

// FuzzCommand has the leader look at any command that a peer may send, as it does
// before it is put into the log: nothing may panic, and the command itself is
// never changed.
func FuzzCommand(f *testing.F) {
	add := func(cmd *wire.Command) {
		b, err := proto.Marshal(cmd)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, op := range ops(&wire.Command{}) {
		cmd := withEmpty(&wire.Command{Session: 1}, op)
		add(cmd)
		add(&wire.Command{Session: 1, Op: &wire.Command_Batch{Batch: &wire.Batch{Commands: []*wire.Command{cmd, {}}}}})
	}
	add(updateTask(4, 70))
	add(create(1, "a"))
	add(&wire.Command{Session: 1, Op: &wire.Command_Rename{Rename: &wire.Rename{Parent: 1, Name: "a", NewParent: 1, NewName: "b", Flags: 2}}})
	tree := fakeTree{"1/a": 10, "1/b": 11, "job/7": 50, "results/7": 60, "60/a": 61}
	f.Fuzz(func(t *testing.T, b []byte) {
		cmd := new(wire.Command)
		if proto.Unmarshal(b, cmd) != nil {
			return
		}
		was := proto.CloneOf(cmd)
		for _, role := range allRoles {
			a := by(role, "a")
			if a.command(cmd) != nil {
				continue
			}
			own := a.signed(cmd)
			names(own)
			targets(own, tree)
			stamped(own, stamping{tree: tree, open: func(uint64) []uint64 { return []uint64{3} }})
			calm(own)
			aboutJobs(own)
			onlyJobs(own)
		}
		if !proto.Equal(cmd, was) {
			t.Errorf("%v has become %v", was, cmd)
		}
	})
}

// FuzzHeartbeat has the leader look at any heartbeat.
func FuzzHeartbeat(f *testing.F) {
	add := func(hb *wire.Heartbeat) {
		b, err := proto.Marshal(hb)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	id := &wire.ShardID{Block: 9, Index: 1}
	add(&wire.Heartbeat{Node: 10, Bad: []*wire.ShardID{id}, Rebuilt: []*wire.Rebuilt{{Block: 1}, {Code: 3}}})
	add(&wire.Heartbeat{Node: 10, InventoryAfter: id, Inventory: []*wire.ShardID{{Block: 10}, {Block: 10, Index: 2}}, InventoryUpto: &wire.ShardID{Block: 12}})
	f.Fuzz(func(t *testing.T, b []byte) {
		hb := new(wire.Heartbeat)
		if proto.Unmarshal(b, hb) != nil {
			return
		}
		for _, role := range allRoles {
			by(role, "chunkd-1").heartbeat(hb)
		}
		p, err := pageOf(hb)
		if err != nil || p == nil {
			return
		}
		if n := len(p.holds); n > 0 {
			p.cut(p.holds[n/2])
		}
		p.from()
		p.compare(nil)
	})
}

// FuzzLocks takes, tests and drops any locks, in any order.
func FuzzLocks(f *testing.F) {
	f.Add([]byte{0, 1, 0, 10, 5, 1, 0, 20, 2, 3, 4, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		l := lease.NewLocks()
		for r := bytes.NewReader(b); r.Len() >= 4; {
			var v [4]byte
			r.Read(v[:])
			q := &wire.Lock{Ino: uint64(v[0] & 3), Flock: v[0]&4 != 0, Type: uint32(v[0]>>3) & 3, Owner: uint64(v[1] & 3), Start: uint64(v[2]), End: uint64(v[3])}
			if v[3] == 255 {
				q.End = 1<<64 - 1
			}
			if lease.Check(q) != nil {
				continue
			}
			o := lease.Owner{Session: uint64(v[1]>>2) & 3, ID: q.Owner}
			switch v[1] >> 4 {
			case 0:
				l.Test(o, q)
			case 1:
				l.Drop(o.Session)
			case 2:
				if q.Type != wire.Unlock {
					l.Wait(o, q)
				}
			case 3:
				l.CancelLike(o, q)
			default:
				l.Set(o, q)
			}
			l.Granted()
		}
	})
}
