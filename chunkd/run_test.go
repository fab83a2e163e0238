package chunkd

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// leader is a Meta that a test scripts: each heartbeat is answered by answer.
type leader struct {
	mu     sync.Mutex
	beats  []*wire.Heartbeat
	answer func(*wire.Heartbeat) (*wire.HeartbeatReply, error)
	beat   chan struct{} // after each one
}

func (l *leader) Heartbeat(_ context.Context, hb *wire.Heartbeat) (*wire.HeartbeatReply, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beats = append(l.beats, hb)
	select {
	case l.beat <- struct{}{}:
	default:
	}
	return l.answer(hb)
}

// start runs s against a leader until the test ends.
func start(t *testing.T, s *Store, blocks *Client, answer func(*wire.Heartbeat) (*wire.HeartbeatReply, error)) *leader {
	l := &leader{answer: answer, beat: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx, l, blocks) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	return l
}

// until waits for a heartbeat for which ok is true.
func (l *leader) until(t *testing.T, ok func(*wire.Heartbeat) bool) *wire.Heartbeat {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for seen := 0; ; {
		l.mu.Lock()
		beats := l.beats[seen:]
		seen = len(l.beats)
		l.mu.Unlock()
		for _, hb := range beats {
			if ok(hb) {
				return hb
			}
		}
		select {
		case <-l.beat:
		case <-deadline:
			t.Fatal("the heartbeat did not come")
		}
	}
}

func TestHeartbeatDeletes(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	for i := range uint64(4) {
		put(t, s, shardID{i, 0}, []byte("data"))
	}
	lost := true // the first answer that the deletion was told in gets lost
	var told atomic.Int32
	l := start(t, s, nil, func(hb *wire.Heartbeat) (*wire.HeartbeatReply, error) {
		if len(hb.Deleted) > 0 {
			told.Add(1)
			if lost {
				lost = false
				return nil, wire.Unavailable
			}
			return &wire.HeartbeatReply{}, nil
		}
		if told.Load() > 0 || hb.Shards < 4 {
			return &wire.HeartbeatReply{}, nil
		}
		return &wire.HeartbeatReply{Remove: []*wire.ShardID{{Block: 1}, {Block: 2}, {Block: 77}}}, nil
	})
	hb := l.until(t, func(hb *wire.Heartbeat) bool { return len(hb.Deleted) > 0 })
	if hb.Node != 1 || hb.Boot == 0 || hb.Total == 0 || hb.Free == 0 || len(hb.Deleted) != 3 {
		t.Errorf("%v", hb)
	}
	hb = l.until(t, func(hb *wire.Heartbeat) bool { return told.Load() == 2 && len(hb.Deleted) == 0 })
	if hb.Shards != 2 {
		t.Errorf("%v", hb)
	}
	_, err := get(s, shardID{1, 0})
	mustCode(t, err, wire.NotFound)
	mustHave(t, s, shardID{3, 0}, []byte("data"))
}

// TestBadShardIsToldThenDropped damages a shard: it stays until the leader
// knows.
func TestBadShardIsToldThenDropped(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	id := shardID{5, 1}
	put(t, s, id, shardBytes(id, 100_000))
	damage(t, s, id, 70_000)
	var answers atomic.Int32
	l := start(t, s, nil, func(hb *wire.Heartbeat) (*wire.HeartbeatReply, error) {
		if len(hb.Bad) == 0 {
			return &wire.HeartbeatReply{}, nil
		}
		if answers.Add(1) < 2 {
			return nil, wire.Unavailable
		}
		if _, err := s.Locate(context.Background(), id.block, id.index); err != nil {
			t.Errorf("it was dropped before the leader knew: %v", err)
		}
		return &wire.HeartbeatReply{}, nil
	})
	if _, err := s.Scrub(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	hb := l.until(t, func(hb *wire.Heartbeat) bool { return answers.Load() >= 2 && len(hb.Bad) > 0 })
	if hb.Bad[0].Block != 5 || hb.Bad[0].Index != 1 {
		t.Errorf("%v", hb.Bad)
	}
	l.until(t, func(hb *wire.Heartbeat) bool { return hb.Shards == 0 && len(hb.Bad) == 0 })
	_, err := get(s, id)
	mustCode(t, err, wire.NotFound)
}

func TestRebuild(t *testing.T) {
	p := block.Policy{K: 4, M: 2}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 7, kind)
			for _, n := range c.nodes {
				n.role = "chunkd"
			}
			data := randomBytes(seeded(t), 400_000)
			b := c.write(9, p, data)
			fresh := c.nodes[6].store
			client := c.fresh()
			client.SetCapability(nil) // chunk servers are known by their role
			type job struct {
				index, from uint32
				prepare     func()
				code        wire.Code
			}
			jobs := []job{
				{index: 1, from: 2}, // a copy
				{index: 2, from: 3, prepare: func() { c.nodes[2].setDown(true) }},                       // decoded
				{index: 5, from: 6, prepare: func() { damage(t, c.nodes[5].store, shardID{9, 5}, 99) }}, // decoded parity
				{index: 0, from: 1, prepare: func() { // too little is left
					for i := range 5 {
						c.nodes[i].setDown(false)
						if err := c.nodes[i].store.Delete(t.Context(), []*wire.ShardID{{Block: 9, Index: uint32(i)}}); err != nil {
							t.Error(err)
						}
					}
				}, code: wire.Corrupt},
			}
			var mu sync.Mutex
			var todo *wire.Rebuild
			l := start(t, fresh, client, func(hb *wire.Heartbeat) (*wire.HeartbeatReply, error) {
				mu.Lock()
				defer mu.Unlock()
				if todo == nil || len(hb.Rebuilt) > 0 {
					return &wire.HeartbeatReply{}, nil
				}
				// Asked again and again until it is done.
				return &wire.HeartbeatReply{Rebuild: []*wire.Rebuild{todo, todo}}, nil
			})
			for _, j := range jobs {
				if j.prepare != nil {
					j.prepare()
				}
				mu.Lock()
				todo = &wire.Rebuild{Block: b, Index: j.index, From: j.from}
				mu.Unlock()
				fresh.work.poke()
				hb := l.until(t, func(hb *wire.Heartbeat) bool {
					return slices.ContainsFunc(hb.Rebuilt, func(r *wire.Rebuilt) bool { return r.Index == j.index })
				})
				mu.Lock()
				todo = nil
				mu.Unlock()
				r := hb.Rebuilt[0]
				if r.Block != 9 || r.From != j.from || wire.Code(r.Code) != j.code {
					t.Fatalf("%v", r)
				}
				if j.code != wire.OK {
					continue
				}
				if r.Shard.Server != 7 || !bytes.Equal(r.Shard.Root, b.Shards[j.index].Root) ||
					!block.VerifyProof(testKey, 7, 9, j.index, b.ShardLength, r.Shard.Root, r.Shard.Proof) {
					t.Fatalf("%v", r)
				}
				if _, err := fresh.verify(t.Context(), shardID{9, j.index}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestRebuildInPlace has the server itself hold the damaged shard.
func TestRebuildInPlace(t *testing.T) {
	p := block.Policy{K: 2, M: 1}
	c := newCluster(t, 3, transport.InProcess)
	data := randomBytes(seeded(t), 100_000)
	b := c.write(9, p, data)
	s := c.nodes[0].store
	damage(t, s, shardID{9, 0}, 10)
	r := s.rebuild(t.Context(), &wire.Rebuild{Block: b, Index: 0, From: 1}, c.client)
	if r.Code != 0 || r.Shard.GetServer() != 1 {
		t.Fatalf("%v", r)
	}
	mustHave(t, s, shardID{9, 0}, data[:50_000])
	// Once more: it is whole, nothing is to be done.
	puts := s.Stats().Puts
	if r := s.rebuild(t.Context(), &wire.Rebuild{Block: b, Index: 0}, nil); r.Code != 0 || s.Stats().Puts != puts {
		t.Fatalf("%v", r)
	}
	for _, bad := range []*wire.Rebuild{{}, {Block: b, Index: 3}, {Block: &wire.Block{Id: 1, K: 2, M: 1}}} {
		if r := s.rebuild(t.Context(), bad, c.client); r.Code != uint32(wire.Invalid) {
			t.Errorf("%v", r)
		}
	}
}

// TestCapabilities asks for each call with and without the right to it.
func TestCapabilities(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	cfg := testConfig(t.TempDir())
	cfg.Now = func() time.Time { return now }
	s := openStore(t, cfg)
	n := &testNode{handlers: map[wire.Method]transport.Handler{}}
	s.Register(n)
	data := []byte("hello")
	id := shardID{1, 0}
	put(t, s, id, data)
	good := block.Capability(testKey, 5, now.Add(time.Minute))
	for _, c := range []struct {
		role  string
		token []byte
		want  wire.Code
	}{
		{"client", good, wire.OK},
		{"edge", good, wire.OK},
		{"chunkd", nil, wire.OK},
		{"client", nil, wire.Forbidden},
		{"agent", block.Capability(testKey, 5, now), wire.Forbidden},
		{"client", block.Capability(bytes.Repeat([]byte{1}, 32), 5, now.Add(time.Minute)), wire.Forbidden},
	} {
		q := putRequest(id, data)
		q.Capability = c.token
		for m, req := range map[wire.Method]*transport.Request{
			wire.MethodPutShard:  {Msg: q, Payload: data},
			wire.MethodGetShard:  {Msg: &wire.GetShard{Block: 1, Len: 5, Capability: c.token}},
			wire.MethodOpenShard: {Msg: &wire.OpenShard{Block: 1, Capability: c.token}},
			wire.MethodSegmentFD: {Msg: &wire.SegmentFD{Segment: 1, Capability: c.token}},
		} {
			req.Method, req.Peer = m, transport.Peer{Role: c.role}
			reply, err := n.handlers[m](t.Context(), req)
			release(reply)
			want := c.want
			if m == wire.MethodPutShard && c.token == nil { // a chunk server reads from others, and stores nothing there
				want = wire.Forbidden
			}
			if wire.CodeOf(err) != want {
				t.Errorf("%s by %s: %v, want %v", m, c.role, err, want)
			}
			req.Msg = &wire.Empty{}
			if _, err := n.handlers[m](t.Context(), req); wire.CodeOf(err) != wire.Invalid {
				t.Errorf("%s with another message: %v", m, err)
			}
		}
	}
}

// TestGetShardRanges asks for ranges that are not whole leaves.
func TestGetShardRanges(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	const L = block.LeafSize
	id := shardID{1, 0}
	data := shardBytes(id, 2*L+100)
	put(t, s, id, data)
	for _, c := range []struct {
		off, n uint32
		want   wire.Code
		bytes  int
	}{
		{0, L, wire.OK, L}, {L, L, wire.OK, L}, {L, 1 << 30, wire.OK, L + 100}, {2 * L, 100, wire.OK, 100}, {0, 2*L + 100, wire.OK, 2*L + 100},
		{1, L, wire.Invalid, 0}, {0, L - 1, wire.Invalid, 0}, {0, 0, wire.Invalid, 0}, {3 * L, L, wire.Invalid, 0}, {2 * L, 99, wire.Invalid, 0}, {^uint32(0) &^ (L - 1), ^uint32(0), wire.Invalid, 0},
	} {
		reply, err := s.get(id, &wire.GetShard{Block: 1, Off: c.off, Len: c.n, Leaves: true})
		if wire.CodeOf(err) != c.want {
			t.Errorf("%d+%d: %v", c.off, c.n, err)
		}
		if err == nil && (len(reply.Payload[0]) != c.bytes || !bytes.Equal(reply.Payload[0], data[c.off:int(c.off)+c.bytes])) {
			t.Errorf("%d+%d: %d bytes", c.off, c.n, len(reply.Payload[0]))
		}
		release(reply)
	}
}
