package meta

import (
	"testing"

	"quernfs/internal/wire"
)

func TestSpaceOfSharedDisks(t *testing.T) {
	type server struct {
		disk        string
		total, free uint64
		silent, ro  bool
	}
	for name, c := range map[string]struct {
		servers     []server
		total, free uint64
	}{
		"none":                     {nil, 0, 0},
		"a disk each":              {[]server{{"a", 100, 40, false, false}, {"b", 100, 30, false, false}}, 200, 70},
		"one disk":                 {[]server{{"a", 50, 40, false, false}, {"a", 60, 40, false, false}}, 70, 40},
		"one disk, asked in turns": {[]server{{"a", 50, 40, false, false}, {"a", 59, 39, false, false}}, 70, 40},
		"of unknown disks":         {[]server{{"", 50, 40, false, false}, {"", 50, 40, false, false}}, 100, 80},
		"silent":                   {[]server{{"a", 50, 40, false, false}, {"b", 50, 40, true, false}}, 50, 40},
		"one is full":              {[]server{{"a", 50, 40, false, false}, {"b", 50, 0, false, false}}, 100, 40},
		"one takes nothing":        {[]server{{"a", 50, 40, false, false}, {"b", 50, 40, false, true}}, 60, 40},
	} {
		m := nodeMap{nodes: map[uint32]*node{}}
		for i, s := range c.servers {
			id := uint32(i + 1)
			n := &node{rec: &wire.Node{Id: id, Kind: "chunkd"}, alive: !s.silent}
			n.last.Disk, n.last.Total, n.last.Free, n.last.ReadOnly = s.disk, s.total*minFree, s.free*minFree, s.ro
			m.nodes[id] = n
		}
		m.nodes[99] = &node{rec: &wire.Node{Id: 99, Kind: "agent"}, alive: true}
		if total, free := m.space(); total != c.total*minFree || free != c.free*minFree {
			t.Errorf("%s: %d total, %d free; want %d, %d", name, total/minFree, free/minFree, c.total, c.free)
		}
	}
}

// Where room runs short deleted blocks give theirs back at once, before a write
// fails for want of it.
func TestShortOfRoom(t *testing.T) {
	const gib = 1 << 30
	for name, c := range map[string]struct {
		n     *node
		short bool
	}{
		"a small disk, half full":   {&node{alive: true, last: wire.Heartbeat{Total: 5 * gib, Free: 2 * gib}}, false},
		"a small disk, almost full": {&node{alive: true, last: wire.Heartbeat{Total: 5 * gib, Free: gib}}, true},
		"a large disk, almost full": {&node{alive: true, last: wire.Heartbeat{Total: 10_000 * gib, Free: 100 * gib}}, false},
		"a large disk, full":        {&node{alive: true, last: wire.Heartbeat{Total: 10_000 * gib, Free: 7 * gib}}, true},
		"no room":                   {&node{alive: true, last: wire.Heartbeat{Total: gib, ReadOnly: true, Full: true}}, true},
		"a disk that fails":         {&node{alive: true, last: wire.Heartbeat{Total: gib, ReadOnly: true}}, false},
		"silent":                    {&node{last: wire.Heartbeat{Total: 5 * gib, Free: gib}}, false},
		"leaving":                   {&node{alive: true, rec: &wire.Node{State: "draining"}, last: wire.Heartbeat{Total: 5 * gib, Free: gib}}, false},
	} {
		n := c.n
		if n.rec == nil {
			n.rec = &wire.Node{}
		}
		n.rec.Id, n.rec.Kind = 1, "chunkd"
		m := nodeMap{nodes: map[uint32]*node{1: n}}
		if m.short() != c.short {
			t.Errorf("%s: short is %v", name, !c.short)
		}
	}
}
