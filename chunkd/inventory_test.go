package chunkd

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// pages collects what a leader is told of the inventory.
type pages struct {
	mu     sync.Mutex
	index  uint64
	answer func(hb *wire.Heartbeat, reply *wire.HeartbeatReply) error
	rounds [][]string // each page as text
}

func (p *pages) Heartbeat(_ context.Context, hb *wire.Heartbeat) (*wire.HeartbeatReply, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index++
	reply := &wire.HeartbeatReply{Index: p.index}
	if p.answer != nil {
		if err := p.answer(hb, reply); err != nil {
			return nil, err
		}
	}
	if hb.InventoryUpto == nil || reply.InventoryAgain {
		return reply, nil
	}
	if hb.InventoryAfter == nil {
		p.rounds = append(p.rounds, nil)
	}
	last := len(p.rounds) - 1
	p.rounds[last] = append(p.rounds[last], pageText(hb))
	return reply, nil
}

func pageText(hb *wire.Heartbeat) string {
	text := ""
	for _, id := range hb.Inventory {
		text += fmt.Sprintf("%d.%d ", id.Block, id.Index)
	}
	if hb.InventoryUpto == lastShard {
		return text + "end"
	}
	return text
}

// TestInventoryPages steps through rounds by hand.
func TestInventoryPages(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	cfg := testConfig(t.TempDir())
	cfg.Now = func() time.Time { return now }
	s := openStore(t, cfg)
	for _, id := range []shardID{{1, 0}, {1, 2}, {2, 0}, {3, 1}} {
		put(t, s, id, []byte("data"))
	}
	inv := &inventory{every: time.Hour, size: 2}
	p := new(pages)
	beat := func() error {
		_, err := s.heartbeat(t.Context(), p, inv)
		return err
	}
	want := func(rounds ...[]string) {
		t.Helper()
		if !slices.EqualFunc(p.rounds, rounds, slices.Equal) {
			t.Fatalf("told %q, want %q", p.rounds, rounds)
		}
	}
	beats := func(n int) {
		for range n {
			if err := beat(); err != nil {
				t.Fatal(err)
			}
		}
	}
	number, index := uint64(0), uint64(0)
	p.answer = func(hb *wire.Heartbeat, reply *wire.HeartbeatReply) error {
		if hb.Number <= number || hb.InventoryUpto != nil && hb.InventoryIndex != index {
			t.Errorf("heartbeat %d after %d, index %d instead of %d", hb.Number, number, hb.InventoryIndex, index)
		}
		number, index = hb.Number, reply.Index
		return nil
	}
	beats(1) // it does not know the leader's index yet
	want()
	beats(1)
	want([]string{"1.0 1.2 "})
	put(t, s, shardID{4, 0}, []byte("more"))
	// A lost answer, and a leader that could not look: the page comes again, as
	// it is then.
	whole := p.answer
	p.answer = func(*wire.Heartbeat, *wire.HeartbeatReply) error { return wire.Unavailable }
	if beat() == nil {
		t.Fatal("no error")
	}
	number = inv.number
	p.answer = func(hb *wire.Heartbeat, reply *wire.HeartbeatReply) error {
		reply.InventoryAgain = true
		return whole(hb, reply)
	}
	beats(2)
	p.answer = whole
	want([]string{"1.0 1.2 "})
	beats(2)
	first := []string{"1.0 1.2 ", "2.0 3.1 ", "4.0 end"}
	want(first)
	now = now.Add(time.Hour - 1)
	beats(2)
	want(first)
	now = now.Add(1)
	beats(1)
	want(first, []string{"1.0 1.2 "})

	// A restart in the middle of a round begins a new one.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg)
	inv = &inventory{every: time.Hour, size: 2}
	number = 0
	beats(9)
	want(first, []string{"1.0 1.2 "}, first)

	// An empty server says so too; a leader without an index is not told.
	if err := s.Delete(t.Context(), []*wire.ShardID{{Block: 1}, {Block: 1, Index: 2}, {Block: 2}, {Block: 3, Index: 1}, {Block: 4}}); err != nil {
		t.Fatal(err)
	}
	p.rounds, now = nil, now.Add(time.Hour)
	beats(1)
	want([]string{"end"})
	p.answer = func(_ *wire.Heartbeat, reply *wire.HeartbeatReply) error { reply.Index = 0; return nil }
	beats(1)
	now = now.Add(time.Hour)
	beats(2)
	want([]string{"end"})
}

// TestInventoryRun: Run tells all and deletes what it is told to.
func TestInventoryRun(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.InventoryEvery = 10 * time.Millisecond
	s := openStore(t, cfg)
	for i := range uint64(3) {
		put(t, s, shardID{i + 1, 0}, []byte("data"))
	}
	p := &pages{answer: func(hb *wire.Heartbeat, reply *wire.HeartbeatReply) error {
		for _, id := range hb.Inventory {
			if id.Block == 2 {
				reply.Remove = append(reply.Remove, id)
			}
		}
		return nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx, p, nil) }()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for over := false; !over; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("told %q", p.rounds)
		}
		p.mu.Lock()
		if n := len(p.rounds); n > 0 {
			over = slices.Equal(p.rounds[n-1], []string{"1.0 3.0 end"})
		}
		p.mu.Unlock()
	}
	cancel()
	<-done
}

// TestRemovalAndRebuildExclude: of one shard, until the leader knows.
func TestRemovalAndRebuildExclude(t *testing.T) {
	w := newWork()
	a, b := shardID{1, 0}, shardID{2, 0}
	ids := []*wire.ShardID{a.wire(), b.wire()}
	if !w.begin(a) {
		t.Fatal("the rebuild does not begin")
	}
	got := w.beginRemoval(ids)
	if len(got) != 1 || got[0].Block != 2 {
		t.Fatalf("removing %v", got)
	}
	if w.begin(b) {
		t.Error("rebuilding what is being removed")
	}
	w.endRemoval(got, false)
	if !w.begin(b) || len(w.deleted) != 0 {
		t.Error("the removal failed, and is not over")
	}
	w.end(b, nil)
	w.end(a, &wire.Rebuilt{Block: 1})
	if got := w.beginRemoval(ids[:1]); len(got) != 0 {
		t.Error("removing what was rebuilt, before the leader knows")
	}
	hb := new(wire.Heartbeat)
	w.report(hb)
	w.told(hb)
	got = w.beginRemoval(ids[:1])
	w.endRemoval(got, true)
	if len(got) != 1 || len(w.deleted) != 1 || !w.begin(a) {
		t.Errorf("%v %v", got, w.deleted)
	}
}
