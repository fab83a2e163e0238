package meta

import (
	"cmp"
	"math"
	"slices"

	"quernfs/internal/wire"
)

// site is a chunk server as placement sees it.
type site struct {
	id      uint32
	free    uint64
	usable  bool     // alive, in service, with room, its disk works
	full    bool     // alive, in service, but without room
	domains []string // one for each of levels, "" if unlabelled
	avoid   bool
}

// levels are the failure domains, the widest first.
var levels = []string{"site", "zone", "rack", "host", "disk"}

// minFree is the room below which a server takes no new shards.
const minFree = 64 << 20

// siteOf makes a site of a node. What it lies in is qualified by the wider
// domains: rack 1 of one site is not rack 1 of another.
func siteOf(n *wire.NodeStatus, avoid bool) site {
	s := site{id: n.Node.Id, free: n.Free, domains: make([]string, len(levels)), avoid: avoid}
	up := n.Alive && inService(n) && !n.Failed
	s.full = up && (n.Full || noRoom(n))
	s.usable = up && !s.full
	path := ""
	for i, level := range levels {
		for _, l := range n.Node.Labels {
			if l.Key == level {
				path += "\x00" + level + "\x00" + l.Value
				s.domains[i] = path
			}
		}
	}
	return s
}

// noRoom: too little is free. One of which no heartbeat has come yet may have room.
func noRoom(n *wire.NodeStatus) bool { return n.Total > 0 && n.Free < minFree }

func inService(n *wire.NodeStatus) bool { return n.Node.State == "" || n.Node.State == "up" }

// mix hashes a block and a server to a number that looks random.
func mix(block uint64, server uint32) uint64 {
	x := block*0x9e3779b97f4a7c15 ^ uint64(server)*0xd1342543de82ef95
	for range 2 {
		x ^= x >> 32
		x *= 0xd6e8feb86659fd93
	}
	return x ^ x>>32
}

// rank orders servers for a block by weighted rendezvous hashing (Schindelhauer
// and Schomaker 2005; the logarithmic form of Mosharaf et al.): of many blocks,
// each server comes first for a share in proportion to its weight, and a server
// that goes or comes changes nothing between the others.
func rank(block uint64, sites []site) []site {
	type scored struct {
		site
		score float64
	}
	all := make([]scored, 0, len(sites))
	for _, s := range sites {
		if !s.usable {
			continue
		}
		u := (float64(mix(block, s.id)>>11) + 0.5) / (1 << 53)
		all = append(all, scored{s, -weight(s.free) / math.Log(u)})
	}
	slices.SortFunc(all, func(a, b scored) int {
		if a.avoid != b.avoid {
			if a.avoid {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id))
	})
	out := make([]site, len(all))
	for i, s := range all {
		out[i] = s.site
	}
	return out
}

// weight of the free space: in whole GiB, so that it is the same for hours and
// placement is stable.
func weight(free uint64) float64 { return float64(free>>30) + 1 }

// choose picks n servers for one block out of ranked, no server twice. A failure
// domain gets no more than its fair share of the shards, at each level, as far
// as that can be had; then the order of rank decides. taken are servers that
// have a shard of the block already.
func choose(n int, ranked, taken []site) []site {
	quota := make([]int, len(levels))
	for i := range levels {
		seen := map[string]bool{}
		for _, s := range ranked {
			seen[s.domains[i]] = true
		}
		for _, s := range taken {
			seen[s.domains[i]] = true
		}
		quota[i] = (n + len(taken) + len(seen) - 1) / max(len(seen), 1)
	}
	used := make([]map[string]int, len(levels))
	for i := range used {
		used[i] = map[string]int{}
	}
	busy := map[uint32]bool{}
	take := func(s site) {
		busy[s.id] = true
		for i, d := range s.domains {
			used[i][d]++
		}
	}
	for _, s := range taken {
		take(s)
	}
	var out []site
	// The narrowest domain is given up first, the widest last, then all.
	for strict := len(levels); strict >= 0 && len(out) < n; strict-- {
		for _, s := range ranked {
			if len(out) == n {
				break
			}
			if busy[s.id] || !within(s, used, quota, strict) {
				continue
			}
			take(s)
			out = append(out, s)
		}
	}
	return out
}

// within: the first strict levels have room for a shard on s. Servers without
// the label share no domain.
func within(s site, used []map[string]int, quota []int, strict int) bool {
	for i := range strict {
		if d := s.domains[i]; d != "" && used[i][d] >= quota[i] {
			return false
		}
	}
	return true
}

// place answers an Allocate for the blocks first, first+1, … It fails with NoSpace
// where room is what is missing, with TooFew where servers are.
func place(p *wire.Policy, first uint64, count int, sites []site) (*wire.AllocateAnswer, error) {
	n := int(p.GetK() + p.GetM())
	need := min(int(p.GetK())+1, n)
	usable, full, good := 0, 0, 0
	for _, s := range sites {
		if s.full {
			full++
		}
		if s.usable {
			usable++
			if !s.avoid {
				good++
			}
		}
	}
	switch {
	case usable < need && usable+full >= need:
		return nil, wire.Errorf(wire.NoSpace, "allocate", "", "policy %d+%d needs %d chunk servers with room: %d of the %d that are up have some", p.GetK(), p.GetM(), need, usable, usable+full)
	case usable < need:
		return nil, wire.Errorf(wire.TooFew, "allocate", "", "policy %d+%d needs %d chunk servers: %d are up, %d of them full", p.GetK(), p.GetM(), need, usable+full, full)
	}
	out := &wire.AllocateAnswer{TooFew: usable < n}
	var spares []site
	for i := range count {
		ranked := rank(first+uint64(i), sites)
		ticket := &wire.Ticket{Block: first + uint64(i)}
		chosen := choose(n, ranked, nil)
		for _, s := range chosen {
			ticket.Servers = append(ticket.Servers, s.id)
		}
		out.Tickets = append(out.Tickets, ticket)
		if i == 0 {
			spares = ranked
		}
	}
	for _, s := range spares {
		if count > 1 || !slices.Contains(out.Tickets[0].Servers, s.id) {
			out.Spares = append(out.Spares, s.id)
		}
	}
	out.Spares = out.Spares[:min(len(out.Spares), 32)]
	return out, nil
}
