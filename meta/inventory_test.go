package meta

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
	"quernfs/meta/state"
)

func TestTicketClock(t *testing.T) {
	t0 := time.Unix(1_700_000_000, 0)
	c := ticketClock{life: time.Hour}
	for _, step := range []struct {
		minute int
		next   uint64
		want   uint64
	}{
		{0, 10, 0}, {1, 11, 0}, {14, 30, 0}, {15, 40, 0}, {29, 50, 0}, {30, 60, 0}, {59, 90, 0},
		{60, 100, 10}, // what was handed out at minute 0 was below 10
		{61, 110, 10}, {74, 120, 10}, {75, 130, 40}, {89, 140, 40}, {90, 150, 60},
		{300, 160, 140}, // maintenance had stopped for hours
		{301, 161, 140}, {360, 170, 160},
		{4000, 170, 170}, {4001, 170, 170},
	} {
		if got := c.pass(t0.Add(time.Duration(step.minute)*time.Minute), step.next); got != step.want {
			t.Errorf("minute %d: below %d, want %d", step.minute, got, step.want)
		}
		if len(c.marks) > 6 {
			t.Errorf("minute %d: %d marks", step.minute, len(c.marks))
		}
	}
}

func TestLowestID(t *testing.T) {
	for _, c := range []struct{ next, end, reserved, want uint64 }{
		{0, 0, 1, 1}, {0, 0, 70, 70}, {5, 10, 10, 5}, {10, 10, 10, 10}, {9, 10, 80, 9}, {80, 80, 70, 80},
	} {
		r := idRange{next: c.next, end: c.end}
		if got := r.lowest(c.reserved); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func keys(pairs ...uint64) (out []shardKey) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, shardKey{pairs[i], uint32(pairs[i+1])})
	}
	return out
}

var lastKey = shardKey{math.MaxUint64, math.MaxUint32}

func TestComparePage(t *testing.T) {
	rec := func(block uint64, index uint32, made uint64) state.Held {
		return state.Held{Block: block, Index: index, Made: made}
	}
	recorded := []state.Held{rec(2, 0, 5), rec(3, 1, 6), {Block: 4, Made: 7, Freed: true}, rec(6, 2, 8), rec(9, 0, 20)}
	for _, c := range []struct {
		what         string
		page         page
		strays, lost []shardKey
	}{
		{"all is well", page{upto: lastKey, holds: keys(2, 0, 3, 1, 4, 0, 6, 2, 9, 0), index: 20}, nil, nil},
		{"freed and already deleted", page{upto: lastKey, holds: keys(2, 0, 3, 1, 6, 2, 9, 0), index: 20}, nil, nil},
		{"nothing is there", page{upto: lastKey, index: 20}, nil, keys(2, 0, 3, 1, 6, 2, 9, 0)},
		{"committed after the page was made", page{upto: lastKey, index: 7}, nil, keys(2, 0, 3, 1)},
		{"the leader had not answered yet", page{upto: lastKey}, nil, nil},
		{"strays everywhere", page{upto: lastKey, holds: keys(1, 0, 2, 0, 2, 1, 3, 0, 3, 1, 6, 2, 7, 7, 9, 0, 10, 0, 11, 1), index: 20},
			keys(1, 0, 2, 1, 3, 0, 7, 7, 10, 0, 11, 1), nil},
		{"the wrong index", page{upto: lastKey, holds: keys(2, 0, 3, 2, 6, 2, 9, 0), index: 20}, keys(3, 2), keys(3, 1)},
		{"only a part", page{after: &shardKey{2, 0}, upto: shardKey{6, 1}, holds: keys(3, 0), index: 20}, keys(3, 0), keys(3, 1)},
		{"up to one that is lost", page{after: &shardKey{2, 9}, upto: shardKey{6, 2}, holds: keys(3, 1), index: 20}, nil, keys(6, 2)},
		{"within one block", page{after: &shardKey{3, 0}, upto: shardKey{3, 1}, holds: keys(3, 1), index: 20}, nil, nil},
		{"between", page{after: &shardKey{6, 2}, upto: shardKey{8, 0}, holds: keys(8, 0), index: 20}, keys(8, 0), nil},
	} {
		strays, lost := c.page.compare(recorded)
		if !slices.Equal(strays, c.strays) || !slices.Equal(lost, c.lost) {
			t.Errorf("%s: strays %v, want %v; lost %v, want %v", c.what, strays, c.strays, lost, c.lost)
		}
	}
}

// TestComparePages: however an inventory is cut into pages, the outcome is that
// of sets.
func TestComparePages(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		var recorded []state.Held
		var holds, wantStrays, wantLost []shardKey
		for b := uint64(1); b < 30; b++ {
			at := rng.IntN(5) // 3, 4: not recorded here
			for i := range 3 {
				k, here := shardKey{b, uint32(i)}, rng.IntN(3) == 0
				if i == at {
					recorded = append(recorded, state.Held{Block: b, Index: k.index, Made: 1})
					here = rng.IntN(4) > 0
				}
				switch {
				case here:
					holds = append(holds, k)
					if i != at {
						wantStrays = append(wantStrays, k)
					}
				case i == at:
					wantLost = append(wantLost, k)
				}
			}
		}
		var strays, lost []shardKey
		var after *shardKey
		for rest := holds; ; {
			n := 1 + rng.IntN(7)
			p := page{after: after, upto: lastKey, holds: rest, index: 1}
			if n < len(rest) {
				p.holds, p.upto = rest[:n], rest[n-1]
			}
			last := p.upto == lastKey
			if rng.IntN(4) == 0 { // a leader that cannot look at all of it
				to := shardKey{uint64(rng.IntN(30)), math.MaxUint32}
				if compareKeys(to, p.upto) < 0 && (after == nil || compareKeys(to, *after) > 0) {
					p.cut(to)
					last = false
				}
			}
			s, l := p.compare(recordedFrom(recorded, p.from()))
			strays, lost, rest = append(strays, s...), append(lost, l...), rest[len(p.holds):]
			if last {
				break
			}
			after = &p.upto
		}
		if !slices.Equal(strays, wantStrays) || !slices.Equal(lost, wantLost) {
			t.Fatalf("seed %d: strays %v, want %v; lost %v, want %v", seed, strays, wantStrays, lost, wantLost)
		}
	}
}

func recordedFrom(all []state.Held, after uint64) []state.Held {
	i := slices.IndexFunc(all, func(h state.Held) bool { return h.Block > after })
	if i < 0 {
		return nil
	}
	return all[i:]
}

func TestOrphans(t *testing.T) {
	rec := func(servers ...uint32) *wire.Block {
		b := new(wire.Block)
		for _, s := range servers {
			b.Shards = append(b.Shards, &wire.Shard{Server: s})
		}
		return b
	}
	freed := rec(5, 6, 8)
	freed.FreedIndex = 9
	blocks := map[uint64]*wire.Block{1: nil, 2: rec(5, 6, 7), 3: rec(5, 6, 0), 4: freed, 5: rec(5, 99, 7)}
	moving := map[shardKey]bool{{2, 1}: true}
	strays := keys(
		1, 0, 1, 9, // no record: nobody's
		2, 0, // another server has it
		2, 1, // it is being made anew here
		2, 2, // it has been recorded here meanwhile
		2, 3, // no such shard
		3, 2, // lost: kept for the repair
		4, 2, // freed, a surplus copy
		5, 1, // its holder is dead
		6, 0, // not below the floor
	)
	got := orphans(strays, 7, blocks, func(id uint32) bool { return id != 99 }, func(k shardKey) bool { return moving[k] })
	if want := keys(1, 0, 1, 9, 2, 0, 2, 3, 4, 2); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestPageOf(t *testing.T) {
	id := func(k shardKey) *wire.ShardID { return &wire.ShardID{Block: k.block, Index: k.index} }
	make := func(after *shardKey, upto shardKey, holds ...uint64) *wire.Heartbeat {
		hb := &wire.Heartbeat{InventoryUpto: id(upto)}
		if after != nil {
			hb.InventoryAfter = id(*after)
		}
		for _, k := range keys(holds...) {
			hb.Inventory = append(hb.Inventory, id(k))
		}
		return hb
	}
	if p, err := pageOf(new(wire.Heartbeat)); p != nil || err != nil {
		t.Error(p, err)
	}
	for _, c := range []struct {
		hb *wire.Heartbeat
		ok bool
	}{
		{make(nil, lastKey), true}, {make(nil, lastKey, 0, 0, 0, 1), true}, {make(&shardKey{1, 1}, shardKey{2, 0}, 1, 2, 2, 0), true},
		{make(nil, lastKey, 2, 0, 1, 0), false}, {make(nil, lastKey, 2, 0, 2, 0), false}, {make(&shardKey{1, 1}, lastKey, 1, 1), false},
		{make(nil, shardKey{2, 0}, 2, 1), false}, {make(nil, lastKey, slices.Repeat([]uint64{1}, 2*maxPage+2)...), false},
	} {
		if _, err := pageOf(c.hb); (err == nil) != c.ok {
			t.Errorf("%.200v: %v", c.hb, err)
		}
	}
}

// TestInventory: orphans go once their tickets have expired, surplus copies
// too, what is committed never; what is missing is made anew.
func TestInventory(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(r *rig) {
		r.adjust = func(c *Config) {
			c.DeadAfter = time.Hour
			c.Timing.TicketLife = 200 * time.Millisecond
		}
	})
	r.leader()
	st := r.nodes[0].meta.fsm.state()
	servers := map[uint32]*chunk{}
	for i := range 4 {
		s := r.chunk(t, i+1)
		s.holds = map[shardKey]bool{}
		servers[s.id] = s
	}
	floor := func() uint64 {
		f, err := st.Floor()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	record := func(id uint64) *wire.Block {
		b, err := st.Block(id)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	// Whatever happens, what a record names is where it says, but for what
	// the test takes away.
	taken := map[shardKey]bool{}
	var committed []uint64
	beat := func() {
		for id, s := range servers {
			clear(s.gone)
			s.beat()
			for b := range s.gone {
				if b >= floor() {
					t.Errorf("block %d is deleted on %d, the floor is %d", b, id, floor())
				}
			}
		}
		for _, id := range committed {
			for i, s := range record(id).Shards {
				k := shardKey{id, uint32(i)}
				if s.Server != 0 && !taken[k] && !servers[s.Server].holds[k] {
					t.Fatalf("shard %v is gone from server %d", k, s.Server)
				}
			}
		}
	}
	rounds := func(n int) {
		at := map[uint32]int{}
		for id, s := range servers {
			at[id] = s.rounds + n
		}
		eventually(t, "rounds", func() bool {
			beat()
			for id, s := range servers {
				if s.rounds < at[id] {
					return false
				}
			}
			return true
		})
	}
	beat()
	u := r.user("one")
	// The crashed writer's block, then some that are committed.
	ticket := u.mustAsk(&wire.Query{Op: &wire.Query_Allocate{Allocate: &wire.Allocate{Policy: &wire.Policy{K: 2, M: 1}, Count: 1}}}).GetAllocate().Tickets[0]
	for i, s := range ticket.Servers {
		servers[s].holds[shardKey{ticket.Block, uint32(i)}] = true
	}
	var blocks []*wire.Block
	for i := range 6 {
		ino := u.must(create(wire.RootIno, fmt.Sprint("f", i))).Inode.Attr.Ino
		b := u.commit(r, ino)
		blocks = append(blocks, b)
		for i, s := range b.Shards {
			servers[s.Server].holds[shardKey{b.Id, uint32(i)}] = true
		}
		committed = append(committed, b.Id)
	}
	b := blocks[3]
	var surplus *chunk
	for id, s := range servers {
		if !slices.ContainsFunc(b.Shards, func(x *wire.Shard) bool { return x.Server == id }) {
			surplus = s
		}
	}
	extra := shardKey{b.Id, 1}
	surplus.holds[extra] = true

	orphaned := func() bool {
		for _, s := range servers {
			for i := range uint32(3) {
				if s.holds[shardKey{ticket.Block, i}] {
					return true
				}
			}
		}
		return false
	}
	eventually(t, "the floor passes", func() bool { beat(); return floor() > b.Id })
	rounds(2)
	eventually(t, "the orphan is removed", func() bool { beat(); return !orphaned() })
	eventually(t, "the surplus copy is removed", func() bool { beat(); return !surplus.holds[extra] })

	// The writer comes back: its commit is refused, and changes nothing.
	ino := u.must(create(wire.RootIno, "late")).Inode.Attr.Ino
	late := &wire.Block{Id: ticket.Block, K: 2, M: 1, Length: 8192, ShardLength: 4096}
	for i, s := range ticket.Servers {
		root := sha256.Sum256([]byte{byte(i)})
		late.Shards = append(late.Shards, &wire.Shard{Server: s, Root: root[:], Proof: block.Proof(r.key, s, late.Id, uint32(i), late.ShardLength, root[:])})
	}
	if _, err := u.do(&wire.Command{Op: &wire.Command_Commit{Commit: &wire.Commit{
		Blocks: []*wire.Block{late}, Files: []*wire.FileUpdate{{Ino: ino, Extents: []*wire.Extent{{Len: 8192, Block: late.Id}}}},
	}}}); wire.CodeOf(err) != wire.Stale {
		t.Errorf("a commit below the floor: %v", err)
	}

	// A delayed heartbeat with an empty inventory proves nothing.
	holder := servers[b.Shards[0].Server]
	if _, err := holder.c.Call(testCtx(t), wire.MethodHeartbeat, &wire.Heartbeat{
		Node: holder.id, Total: 1 << 40, Free: 1 << 39, Boot: 1, Number: 1, InventoryIndex: holder.index,
		InventoryUpto: &wire.ShardID{Block: math.MaxUint64, Index: math.MaxUint32},
	}); err != nil {
		t.Fatal(err)
	}
	if got := record(b.Id).Shards[0].Server; got != holder.id {
		t.Errorf("recorded on %d after a delayed heartbeat", got)
	}

	// A shard is silently lost: it is made anew, there or elsewhere.
	lost := shardKey{b.Id, 0}
	taken[lost] = true
	delete(holder.holds, lost)
	eventually(t, "the lost shard is made anew", func() bool {
		beat()
		s := record(b.Id).Shards[0].Server
		return s != 0 && servers[s].holds[lost]
	})
	delete(taken, lost)

	// A new leader goes on from the state.
	before := floor()
	r.stop(0)
	r.start(0)
	r.leader()
	st = r.nodes[0].meta.fsm.state()
	if floor() < before {
		t.Errorf("the floor fell from %d to %d", before, floor())
	}
	for _, s := range servers {
		s.holds[shardKey{ticket.Block, 2}] = true
	}
	eventually(t, "the orphans of the last term are removed", func() bool { beat(); return !orphaned() })
	rounds(2)
	for _, id := range committed {
		for i, s := range record(id).Shards {
			if s.Server == 0 || !servers[s.Server].holds[shardKey{id, uint32(i)}] {
				t.Errorf("block %d shard %d: on %d", id, i, s.Server)
			}
		}
	}
	if n, err := st.Check(); err != nil || len(n) > 0 {
		t.Errorf("%v %v", n, err)
	}
}
