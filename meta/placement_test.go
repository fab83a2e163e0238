package meta

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"quernfs/internal/wire"
)

// farm makes servers spread over racks and hosts.
func farm(n, racks, perHost int, free func(i int) uint64) []site {
	var out []site
	for i := range n {
		st := &wire.NodeStatus{
			Node: &wire.Node{Id: uint32(i + 1), Kind: "chunkd", State: "up"}, Alive: true, Total: 4 << 40, Free: free(i),
		}
		if racks > 0 {
			st.Node.Labels = append(st.Node.Labels, &wire.Label{Key: "rack", Value: fmt.Sprint(i % racks)})
		}
		if perHost > 0 {
			st.Node.Labels = append(st.Node.Labels, &wire.Label{Key: "host", Value: fmt.Sprint(i / perHost)})
		}
		out = append(out, siteOf(st, false))
	}
	return out
}

func even(int) uint64 { return 1 << 40 }

func TestPlacementBalance(t *testing.T) {
	for _, c := range []struct {
		name  string
		sites []site
		k, m  uint32
	}{
		{"12 equal servers", farm(12, 0, 0, even), 4, 2},
		{"12 in 3 racks", farm(12, 3, 0, even), 4, 2},
		{"24 in 6 racks, 2 on a host", farm(24, 6, 2, even), 8, 3},
	} {
		const blocks = 4000
		a, err := place(&wire.Policy{K: c.k, M: c.m}, 1, blocks, c.sites)
		if err != nil {
			t.Fatal(err)
		}
		count := map[uint32]int{}
		for _, ticket := range a.Tickets {
			seen := map[uint32]bool{}
			for _, s := range ticket.Servers {
				if seen[s] {
					t.Fatalf("%s: two shards of block %d on server %d", c.name, ticket.Block, s)
				}
				seen[s] = true
				count[s]++
			}
			if len(seen) != int(c.k+c.m) {
				t.Fatalf("%s: %d servers", c.name, len(seen))
			}
		}
		want := float64(blocks*int(c.k+c.m)) / float64(len(c.sites))
		worst := 0.0
		for _, s := range c.sites {
			worst = max(worst, math.Abs(float64(count[s.id])-want)/want)
		}
		t.Logf("%s: within %.1f %%", c.name, 100*worst)
		if worst > 0.07 {
			t.Errorf("%s: %v", c.name, count)
		}
	}
}

func TestPlacementFollowsFreeSpace(t *testing.T) {
	sites := farm(10, 0, 0, func(i int) uint64 {
		if i < 5 {
			return 1 << 40
		}
		return 2 << 40
	})
	count := map[bool]int{}
	for b := range uint64(6000) {
		count[rank(b+1, sites)[0].id > 5]++
	}
	if ratio := float64(count[true]) / float64(count[false]); ratio < 1.85 || ratio > 2.15 {
		t.Errorf("servers with twice the room come first %.2f times as often", ratio)
	}
}

func TestPlacementSpreads(t *testing.T) {
	// 6 racks of unequal size: no rack has two shards of a 4+2 block.
	sites := farm(25, 6, 0, even)
	a, err := place(&wire.Policy{K: 4, M: 2}, 1, 500, sites)
	if err != nil {
		t.Fatal(err)
	}
	for _, ticket := range a.Tickets {
		racks := map[uint32]bool{}
		for _, s := range ticket.Servers {
			racks[(s-1)%6] = true
		}
		if len(racks) != 6 {
			t.Fatalf("block %d lies in %d racks: %v", ticket.Block, len(racks), ticket.Servers)
		}
	}
	// 3 racks: two shards in each, and never two on one host.
	sites = farm(12, 3, 1, even)
	a, _ = place(&wire.Policy{K: 4, M: 2}, 1, 500, sites)
	for _, ticket := range a.Tickets {
		racks := map[uint32]int{}
		for _, s := range ticket.Servers {
			racks[(s-1)%3]++
		}
		for _, n := range racks {
			if n != 2 {
				t.Fatalf("block %d: %v", ticket.Block, racks)
			}
		}
	}
}

func TestPlacementIsStable(t *testing.T) {
	sites := farm(12, 0, 0, even)
	moved := 0
	const blocks = 2000
	for b := range uint64(blocks) {
		before := choose(6, rank(b+1, sites), nil)
		after := choose(6, rank(b+1, sites[:11]), nil) // server 12 has gone
		had := map[uint32]bool{}
		for _, s := range before {
			had[s.id] = true
		}
		for _, s := range after {
			if !had[s.id] {
				moved++
			}
		}
	}
	// Half of the blocks had a shard on it: only these move.
	if moved > blocks*6/12*11/10 {
		t.Errorf("%d shards moved when one server of 12 went", moved)
	}
}

// TestPlacementFull: where room is what is missing, the answer is that there is none.
func TestPlacementFull(t *testing.T) {
	p := &wire.Policy{K: 4, M: 2}
	for _, c := range []struct {
		room, full, down int
		code             wire.Code
	}{{0, 6, 0, wire.NoSpace}, {4, 2, 0, wire.NoSpace}, {5, 1, 0, wire.OK}, {0, 5, 1, wire.NoSpace}, {0, 4, 2, wire.TooFew}, {4, 0, 2, wire.TooFew}} {
		var sites []site
		for i := range c.room + c.full + c.down {
			n := &wire.NodeStatus{Node: &wire.Node{Id: uint32(i + 1)}, Alive: i < c.room+c.full, Total: 1 << 40, Free: 1 << 39}
			n.Full = i >= c.room
			sites = append(sites, siteOf(n, false))
		}
		if _, err := place(p, 1, 1, sites); wire.CodeOf(err) != c.code {
			t.Errorf("%d with room, %d full, %d down: %v, want %v", c.room, c.full, c.down, err, c.code)
		}
	}
}

func TestPlacementWithTooFew(t *testing.T) {
	policy := &wire.Policy{K: 4, M: 2}
	for _, c := range []struct {
		up     int
		tooFew bool
		code   wire.Code
	}{{6, false, wire.OK}, {5, true, wire.OK}, {4, false, wire.TooFew}, {0, false, wire.TooFew}} {
		sites := farm(6, 0, 0, even)
		for i := c.up; i < 6; i++ {
			sites[i].usable = false
		}
		a, err := place(policy, 1, 1, sites)
		if wire.CodeOf(err) != c.code || err == nil && (a.TooFew != c.tooFew || len(a.Tickets[0].Servers) != c.up) {
			t.Errorf("%d up: %v %v", c.up, a, err)
		}
	}
	// What is to be avoided is used only when there is nothing else.
	sites := farm(8, 0, 0, even)
	sites[0].avoid, sites[1].avoid = true, true
	a, _ := place(policy, 1, 50, sites)
	for _, ticket := range a.Tickets {
		for _, s := range ticket.Servers {
			if s <= 2 {
				t.Fatalf("block %d: %v", ticket.Block, ticket.Servers)
			}
		}
	}
	sites[2].usable = false
	a, _ = place(policy, 1, 1, sites)
	if len(a.Tickets[0].Servers) != 6 {
		t.Errorf("avoided servers are not used in need: %v", a)
	}
	// Full, draining and silent servers take nothing.
	for _, n := range []*wire.NodeStatus{
		{Node: &wire.Node{Id: 1}, Alive: true, Total: 1 << 40, Free: 1 << 20},
		{Node: &wire.Node{Id: 1, State: "draining"}, Alive: true, Total: 1 << 40, Free: 1 << 39},
		{Node: &wire.Node{Id: 1, State: "up"}, Total: 1 << 40, Free: 1 << 39},
	} {
		if siteOf(n, false).usable {
			t.Errorf("usable: %v", n)
		}
	}
}

func TestPlanRepairs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	sites := farm(9, 3, 0, even)
	block := func(id uint64, servers ...uint32) *wire.Block {
		b := &wire.Block{Id: id, K: 4, M: 2}
		for _, s := range servers {
			b.Shards = append(b.Shards, &wire.Shard{Server: s})
		}
		return b
	}
	dead := map[uint32]bool{9: true}
	readable := func(id uint32) bool { return !dead[id] }
	sites[8].usable = false

	// The block with least to spare comes first, one that is lost not at all.
	lacks := []lack{
		{block: block(1, 1, 2, 3, 4, 5, 0), index: 5},
		{block: block(2, 1, 2, 3, 4, 0, 9), index: 4},
		{block: block(3, 1, 2, 3, 0, 0, 9), index: 3},
	}
	got := planRepairs(lacks, sites, readable, map[uint32]int{}, 10, 8)
	if len(got) != 2 || got[0].block.Id != 2 || got[1].block.Id != 1 {
		t.Fatalf("order: %v", got)
	}
	// Bounds hold, and no target has a shard of the block already.
	for range 200 {
		var lacks []lack
		for i := range uint64(40) {
			perm := rnd.Perm(8)
			b := block(100+i, uint32(perm[0]+1), uint32(perm[1]+1), uint32(perm[2]+1), uint32(perm[3]+1), uint32(perm[4]+1), 0)
			lacks = append(lacks, lack{block: b, index: 5})
		}
		load := map[uint32]int{}
		got := planRepairs(lacks, sites, readable, load, 20, 4)
		if len(got) > 20 {
			t.Fatalf("%d orders", len(got))
		}
		for _, o := range got {
			for _, s := range o.block.Shards {
				if s.Server == o.target {
					t.Fatalf("block %d: server %d has a shard already", o.block.Id, o.target)
				}
			}
			if o.target == 9 {
				t.Fatal("a dead server is to rebuild")
			}
		}
		for s, n := range load {
			if n > 4 {
				t.Fatalf("server %d has %d orders", s, n)
			}
		}
	}
	// With no server to spare a bad shard is made anew where it lies, a shard on
	// a server to be emptied stays.
	six := farm(6, 0, 0, even)
	b := block(7, 1, 2, 3, 4, 5, 6)
	got = planRepairs([]lack{{block: b, index: 2, from: 3, bad: true}}, six, readable, map[uint32]int{}, 10, 8)
	if len(got) != 1 || got[0].target != 3 {
		t.Fatalf("bad shard: %v", got)
	}
	if got = planRepairs([]lack{{block: b, index: 2, from: 3}}, six, readable, map[uint32]int{}, 10, 8); len(got) != 0 {
		t.Fatalf("drain with no server to spare: %v", got)
	}
}
