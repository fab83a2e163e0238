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
