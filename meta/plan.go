package meta

import (
	"cmp"
	"slices"

	"quernfs/internal/wire"
)

// shardKey names a shard.
type shardKey struct {
	block uint64
	index uint32
}

// lack is a shard to be made anew on another server: it is lost, or its holder
// is not to be relied on.
type lack struct {
	block *wire.Block
	index uint32
	from  uint32 // the recorded holder, 0 if there is none
	bad   bool   // its holder is well but the shard is not: it may be made anew there
}

func (k lack) key() shardKey { return shardKey{k.block.Id, k.index} }

// order is a lack with the server that is to make it good.
type order struct {
	lack
	target uint32
}

// sound counts the shards of a block that can be read, other than except.
func sound(b *wire.Block, except uint32, readable func(server uint32) bool) int {
	n := 0
	for i, s := range b.Shards {
		if uint32(i) != except && s.Server != 0 && readable(s.Server) {
			n++
		}
	}
	return n
}

// planRepairs decides which lacks to make good now, and where: blocks with the
// fewest spare shards first, at most room in all and each on one server. Blocks
// of which too little is left to decode are passed over.
func planRepairs(lacks []lack, sites []site, readable func(uint32) bool, load map[uint32]int, room, each int) []order {
	byID := map[uint32]site{}
	for _, s := range sites {
		byID[s.id] = s
	}
	type urgent struct {
		lack
		spare int // shards beyond those needed to decode
	}
	var todo []urgent
	for _, k := range lacks {
		left := sound(k.block, k.index, readable)
		if k.from != 0 && !k.bad && readable(k.from) {
			left++
		}
		if spare := left - int(k.block.K); spare >= 0 {
			todo = append(todo, urgent{k, spare})
		}
	}
	slices.SortStableFunc(todo, func(a, b urgent) int {
		return cmp.Or(cmp.Compare(a.spare, b.spare), cmp.Compare(a.block.Id, b.block.Id), cmp.Compare(a.index, b.index))
	})
	var out []order
	for _, k := range todo {
		if len(out) >= room {
			break
		}
		var taken, free []site
		for i, s := range k.block.Shards {
			if uint32(i) != k.index && s.Server != 0 {
				taken = append(taken, siteByID(byID, s.Server))
			}
		}
		for _, s := range rank(k.block.Id, sites) {
			holds := slices.ContainsFunc(taken, func(t site) bool { return t.id == s.id })
			if !holds && s.id != k.from && load[s.id] < each {
				free = append(free, s)
			}
		}
		target := uint32(0)
		if chosen := choose(1, free, taken); len(chosen) > 0 {
			target = chosen[0].id
		} else if k.bad && byID[k.from].usable && load[k.from] < each {
			target = k.from
		}
		if target == 0 {
			continue
		}
		load[target]++
		out = append(out, order{k.lack, target})
	}
	return out
}

// siteByID is the site of a server, also of one that is no more.
func siteByID(byID map[uint32]site, id uint32) site {
	if s, ok := byID[id]; ok {
		return s
	}
	return site{id: id, domains: make([]string, len(levels))}
}
