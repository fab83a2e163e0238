package chunkd

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/traffic"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

var kinds = map[string]transport.Kind{"local": transport.InProcess, "remote": transport.QUIC}

// readSome compares random ranges of a block, its ends and all of it.
func readSome(t testing.TB, r *rand.Rand, c *Client, b *wire.Block, data []byte) {
	t.Helper()
	read := func(off, n int) {
		t.Helper()
		p := make([]byte, n)
		if err := c.ReadBlock(t.Context(), b, p, off); err != nil {
			t.Fatalf("bytes %d+%d of %d: %v", off, n, len(data), err)
		}
		if !bytes.Equal(p, data[off:off+n]) {
			t.Fatalf("bytes %d+%d of %d differ", off, n, len(data))
		}
	}
	read(0, len(data))
	read(0, 1)
	read(len(data)-1, 1)
	for range 6 {
		off := r.IntN(len(data))
		read(off, 1+r.IntN(min(len(data)-off, 1<<r.IntN(21))))
	}
}

func TestWriteRead(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			r := seeded(t)
			c := newCluster(t, 6, kind)
			id := uint64(0)
			for _, p := range []block.Policy{{K: 1}, {K: 1, M: 2}, {K: 4, M: 2}, {K: 3, M: 1}, {K: 5}} {
				for _, n := range []int{1, 5, 4096, 200_000, 4*block.LeafSize + 1, 1<<20 + 13} {
					id++
					data := randomBytes(r, n)
					b := c.write(id, p, data)
					if int(b.K) != p.K || int(b.M) != p.M || int(b.Length) != n || b.Id != id || len(b.Shards) != p.Shards() {
						t.Fatalf("%v", b)
					}
					for i, s := range b.Shards {
						if int(s.Server) != i+1 || !block.VerifyProof(testKey, s.Server, id, uint32(i), b.ShardLength, s.Root, s.Proof) {
							t.Fatalf("shard %d: %v", i, s)
						}
					}
					readSome(t, r, c.client, b, data)
					readSome(t, r, c.fresh(), b, data)
				}
			}
		})
	}
}

// TestLinks: a meter is told what came from which server over the network, and in how
// much time; of what is read on the host it is not.
func TestLinks(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			data := randomBytes(seeded(t), 1<<20)
			c := newCluster(t, 2, kind)
			b := c.write(1, block.Policy{K: 2}, data)
			var m traffic.Meter
			got := make([]byte, len(data))
			if err := c.fresh().ReadBlock(traffic.With(t.Context(), &m), b, got, 0); err != nil || !bytes.Equal(got, data) {
				t.Fatal(err)
			}
			links := m.Links()
			if kind != transport.QUIC {
				if len(links) != 0 {
					t.Errorf("links %v on one host", links)
				}
				return
			}
			total := int64(0)
			for _, s := range b.Shards {
				l := links[s.Server]
				if total += l.Bytes; l.Bytes < 1<<19 || l.Took <= 0 {
					t.Errorf("from server %d came %d bytes in %v", s.Server, l.Bytes, l.Took)
				}
			}
			if uint64(total) != m.Remote() || len(links) != 2 {
				t.Errorf("links %v, %d bytes in all", links, m.Remote())
			}
		})
	}
}

// TestDegraded takes every set of m servers away, or damages what they hold.
func TestDegraded(t *testing.T) {
	for name, kind := range kinds {
		for _, p := range []block.Policy{{K: 1, M: 2}, {K: 2, M: 1}, {K: 4, M: 2}} {
			t.Run(fmt.Sprintf("%s/%v", name, p), func(t *testing.T) {
				r := seeded(t)
				data := randomBytes(r, 300_000)
				c := newCluster(t, p.Shards(), kind)
				for lost := range uint64(1) << p.Shards() {
					var gone []int
					for i := range p.Shards() {
						if lost>>i&1 == 1 {
							gone = append(gone, i)
						}
					}
					if len(gone) != p.M {
						continue
					}
					b := c.write(lost, p, data)
					for _, i := range gone {
						c.nodes[i].setDown(true)
					}
					readSome(t, r, c.fresh(), b, data)
					for _, i := range gone {
						c.nodes[i].setDown(false)
						for at := 0; at < int(b.ShardLength); at += block.LeafSize {
							damage(t, c.nodes[i].store, shardID{lost, uint32(i)}, at)
						}
					}
					readSome(t, r, c.fresh(), b, data)
					for _, i := range gone {
						if i < p.K && p.K > 1 && !c.reported(lost, uint32(i), true) {
							t.Errorf("the damage of shard %d was not reported", i)
						}
						c.nodes[i].store.Delete(t.Context(), []*wire.ShardID{{Block: lost, Index: uint32(i)}})
					}
					readSome(t, r, c.fresh(), b, data)
				}
			})
		}
	}
}

// TestTooMuchLost reads what cannot be read: an error, at once.
func TestTooMuchLost(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			p := block.Policy{K: 4, M: 2}
			c := newCluster(t, 6, kind)
			data := randomBytes(seeded(t), 300_000)
			b := c.write(1, p, data)
			got := make([]byte, len(data))
			for i := range 3 {
				c.nodes[i].setDown(true)
			}
			mustCode(t, c.fresh().ReadBlock(t.Context(), b, got, 0), wire.Unavailable)
			mustCode(t, c.fresh().ReadBlock(t.Context(), b, got[:10], 5), wire.Unavailable)
			// What lies on a server that is up can be read all the same.
			if err := c.fresh().ReadBlock(t.Context(), b, got[:100], 3*int(b.ShardLength)+50); err != nil || !bytes.Equal(got[:100], data[3*int(b.ShardLength)+50:][:100]) {
				t.Errorf("%v", err)
			}
			for i := range 3 {
				c.nodes[i].setDown(false)
			}
			if err := c.fresh().ReadBlock(t.Context(), b, got, 0); err != nil || !bytes.Equal(got, data) {
				t.Errorf("when they are back: %v", err)
			}
			for i := range 3 {
				damage(t, c.nodes[i].store, shardID{1, uint32(i)}, 7)
			}
			mustCode(t, c.fresh().ReadBlock(t.Context(), b, got, 0), wire.Corrupt)

			lost := &wire.Block{Id: 1, K: 4, M: 2, Length: b.Length, ShardLength: b.ShardLength}
			for _, s := range b.Shards {
				lost.Shards = append(lost.Shards, &wire.Shard{Root: s.Root})
			}
			mustCode(t, c.fresh().ReadBlock(t.Context(), lost, got, 0), wire.Unavailable)
		})
	}
}

// TestScatteredDamage has damage in more than m shards, but nowhere in more
// than m at the same place.
func TestScatteredDamage(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			p := block.Policy{K: 3, M: 1}
			c := newCluster(t, 4, kind)
			data := randomBytes(seeded(t), 3*4*block.LeafSize)
			b := c.write(1, p, data)
			for i := range 4 {
				damage(t, c.nodes[i].store, shardID{1, uint32(i)}, i*block.LeafSize+99)
			}
			got := make([]byte, len(data))
			if err := c.fresh().ReadBlock(t.Context(), b, got, 0); err != nil || !bytes.Equal(got, data) {
				t.Fatal(err)
			}
		})
	}
}

// TestDegradedReadIsSmall decodes a small range from small ranges.
func TestDegradedReadIsSmall(t *testing.T) {
	p := block.Policy{K: 4, M: 2}
	c := newCluster(t, 6, transport.QUIC)
	data := randomBytes(seeded(t), block.MaxBlockSize)
	b := c.write(1, p, data)
	c.nodes[1].setDown(true)
	got := make([]byte, 4096)
	off := int(b.ShardLength) + 500_000
	if err := c.client.ReadBlock(t.Context(), b, got, off); err != nil || !bytes.Equal(got, data[off:off+4096]) {
		t.Fatal(err)
	}
	var bytes uint64
	for _, n := range c.nodes {
		bytes += n.store.Stats().ReadBytes
	}
	if bytes > 6*block.LeafSize {
		t.Errorf("%d bytes were read for 4096", bytes)
	}
}

func TestReroute(t *testing.T) {
	p := block.Policy{K: 4, M: 2}
	data := randomBytes(seeded(t), 500_000)
	write := func(c *cluster, spares ...uint32) (*wire.Block, error) {
		return c.client.WriteBlock(t.Context(), p, ticket(1, p), spares, data)
	}
	servers := func(b *wire.Block) []uint32 {
		var out []uint32
		for _, s := range b.GetShards() {
			out = append(out, s.Server)
		}
		return out
	}
	check := func(t *testing.T, c *cluster, b *wire.Block, err error, on ...int) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		got := servers(b)
		seen := map[uint32]bool{}
		for _, s := range got {
			if s != 0 && seen[s] {
				t.Fatalf("two shards on one server: %v", got)
			}
			seen[s] = true
		}
		stored := len(got) - len(slices.DeleteFunc(slices.Clone(got), func(s uint32) bool { return s != 0 }))
		if stored != on[0] {
			t.Fatalf("%d shards stored, want %d: %v", stored, on[0], got)
		}
		readSome(t, seeded(t), c.fresh(), b, data)
	}
	t.Run("to spares", func(t *testing.T) {
		c := newCluster(t, 9, transport.QUIC)
		c.nodes[1].setDown(true)
		c.nodes[4].setDown(true)
		c.nodes[6].setDown(true) // the first spare, too
		b, err := write(c, 7, 8, 9, 3)
		check(t, c, b, err, 6)
		if f := c.client.Failing(); !slices.Equal(f, []uint32{2, 5, 7}) {
			t.Errorf("failing: %v", f)
		}
		// The next block does not even ask them.
		before := c.nodes[1].count(wire.MethodPutShard)
		b, err = c.client.WriteBlock(t.Context(), p, ticket(2, p), []uint32{8, 9}, data)
		check(t, c, b, err, 6)
		if n := c.nodes[1].count(wire.MethodPutShard); n != before {
			t.Errorf("the failing server was asked again")
		}
	})
	t.Run("full disk", func(t *testing.T) {
		c := newCluster(t, 7, transport.InProcess)
		c.nodes[2].store.cfg.Capacity = 1
		b, err := write(c, 7)
		check(t, c, b, err, 6)
		if b.Shards[2].Server != 7 || !slices.Contains(c.client.Failing(), 3) || !c.client.healthy(3) {
			t.Errorf("%v, failing %v", servers(b), c.client.Failing())
		}
	})
	t.Run("no room", func(t *testing.T) {
		c := newCluster(t, 7, transport.InProcess)
		for _, n := range c.nodes[1:] {
			n.store.cfg.Capacity = 1
		}
		_, err := write(c, 7)
		mustCode(t, err, wire.NoSpace)
		// With two that are down besides there still would be enough.
		c.nodes[0].setDown(true)
		c.nodes[1].setDown(true)
		_, err = write(c, 7)
		mustCode(t, err, wire.NoSpace)
		c.nodes[2].setDown(true)
		_, err = write(c, 7)
		mustCode(t, err, wire.TooFew)
	})
	t.Run("degraded", func(t *testing.T) {
		c := newCluster(t, 6, transport.QUIC)
		c.nodes[0].setDown(true)
		b, err := write(c)
		check(t, c, b, err, 5)
		if b.Shards[0].Server != 0 || len(b.Shards[0].Root) != 32 {
			t.Errorf("the missing shard: %v", b.Shards[0])
		}
	})
	t.Run("few servers in the ticket", func(t *testing.T) {
		c := newCluster(t, 6, transport.QUIC)
		tk := ticket(1, p)
		tk.Servers = tk.Servers[:5]
		b, err := c.client.WriteBlock(t.Context(), p, tk, nil, data)
		check(t, c, b, err, 5)
		tk.Block = 2
		b, err = c.client.WriteBlock(t.Context(), p, tk, []uint32{6}, data)
		check(t, c, b, err, 6)
	})
	t.Run("too few", func(t *testing.T) {
		c := newCluster(t, 6, transport.QUIC)
		c.nodes[0].setDown(true)
		c.nodes[1].setDown(true)
		_, err := write(c)
		mustCode(t, err, wire.TooFew)
	})
	t.Run("a server that does not answer", func(t *testing.T) {
		c := newCluster(t, 7, transport.QUIC)
		c.client = c.newClient(100 * time.Millisecond)
		defer c.nodes[3].hold(wire.MethodPutShard)()
		b, err := write(c, 7)
		check(t, c, b, err, 6)
		if b.Shards[3].Server != 7 {
			t.Errorf("%v", servers(b))
		}
	})
	t.Run("the caller gives up", func(t *testing.T) {
		c := newCluster(t, 6, transport.QUIC)
		defer c.nodes[3].hold(wire.MethodPutShard)()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := c.client.WriteBlock(ctx, p, ticket(1, p), nil, data)
			done <- err
		}()
		cancel()
		mustCode(t, <-done, wire.Interrupted)
	})
}

// TestHedge has a server that does not answer in time: the read goes around it.
func TestHedge(t *testing.T) {
	p := block.Policy{K: 4, M: 2}
	c := newCluster(t, 6, transport.QUIC)
	data := randomBytes(seeded(t), 1<<20)
	b := c.write(1, p, data)
	letGo := c.nodes[2].hold(wire.MethodGetShard)
	defer letGo()
	got := make([]byte, len(data))
	start := time.Now()
	if err := c.client.ReadBlock(t.Context(), b, got, 0); err != nil || !bytes.Equal(got, data) {
		t.Fatal(err)
	}
	if d := time.Since(start); d < minHedge || d > 9*time.Second {
		t.Errorf("it took %v", d)
	}
	// Who is patient waits for it.
	ctx, cancel := context.WithTimeout(traffic.Patiently(t.Context()), 10*minHedge)
	mustCode(t, c.newClient(0).ReadBlock(ctx, b, got, 0), wire.Unavailable)
	cancel()
	// With parity gone as well, the slow one is waited for.
	c.nodes[4].setDown(true)
	c.nodes[5].setDown(true)
	clear(got)
	done := make(chan error)
	go func() { done <- c.client.ReadBlock(t.Context(), b, got, 0) }()
	letGo()
	if err := <-done; err != nil || !bytes.Equal(got, data) {
		t.Fatal(err)
	}
	// And for ever it is not.
	defer c.nodes[2].hold(wire.MethodGetShard)()
	slow := c.newClient(200 * time.Millisecond)
	mustCode(t, slow.ReadBlock(t.Context(), b, got, 0), wire.Unavailable)
}

func TestReadRefuses(t *testing.T) {
	p := block.Policy{K: 2, M: 1}
	c := newCluster(t, 3, transport.InProcess)
	b := c.write(1, p, make([]byte, 1000))
	for _, r := range []struct{ off, n int }{{0, 1001}, {1000, 1}, {-1, 2}, {999, 2}, {1 << 62, 1}} {
		mustCode(t, c.client.ReadBlock(t.Context(), b, make([]byte, r.n), r.off), wire.Invalid)
	}
	if err := c.client.ReadBlock(t.Context(), b, nil, 1000); err != nil {
		t.Errorf("nothing at the end: %v", err)
	}
	for _, change := range []func(*wire.Block){
		func(b *wire.Block) { b.K = 0 },
		func(b *wire.Block) { b.Shards = b.Shards[:2] },
		func(b *wire.Block) { b.ShardLength = 499 },
		func(b *wire.Block) { b.Length = 0 },
		func(b *wire.Block) { b.Shards[0] = &wire.Shard{Server: 1, Root: []byte("short")} },
		func(b *wire.Block) { b.Shards[0] = nil },
	} {
		bad := &wire.Block{Id: 1, K: b.K, M: b.M, Length: b.Length, ShardLength: b.ShardLength, Shards: slices.Clone(b.Shards)}
		change(bad)
		mustCode(t, c.client.ReadBlock(t.Context(), bad, make([]byte, 1), 0), wire.Invalid)
	}
	stale := c.fresh()
	stale.SetCapability(block.Capability(testKey, 1, time.Now().Add(-time.Second)))
	if err := stale.ReadBlock(t.Context(), b, make([]byte, 1), 0); err == nil {
		t.Error("an expired capability reads")
	}
	if _, err := stale.WriteBlock(t.Context(), p, ticket(2, p), nil, []byte("x")); wire.CodeOf(err) != wire.TooFew {
		t.Errorf("an expired capability writes: %v", err)
	}
}

// TestMovedShard reads locally with a place in mind that is not true any more.
func TestMovedShard(t *testing.T) {
	p := block.Policy{K: 2, M: 1}
	c := newCluster(t, 3, transport.InProcess)
	data := randomBytes(seeded(t), 100_000)
	b := c.write(1, p, data)
	got := make([]byte, len(data))
	if err := c.client.ReadBlock(t.Context(), b, got, 0); err != nil {
		t.Fatal(err)
	}
	s := c.nodes[0].store
	if err := s.Delete(t.Context(), []*wire.ShardID{{Block: 1}}); err != nil {
		t.Fatal(err)
	}
	put(t, s, shardID{1, 0}, data[:50_000])
	clear(got)
	if err := c.client.ReadBlock(t.Context(), b, got, 0); err != nil || !bytes.Equal(got, data) {
		t.Fatal(err)
	}
	if c.reported(1, 0, true) || c.reported(1, 0, false) {
		t.Error("a shard that moved within its server was called bad")
	}
}

// TestConcurrentReads is for the race detector: readers, writers and servers
// that come and go.
func TestConcurrentReads(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			p := block.Policy{K: 4, M: 2}
			c := newCluster(t, 8, kind)
			r := seeded(t)
			var blocks []*wire.Block
			var datas [][]byte
			for i := range 4 {
				datas = append(datas, randomBytes(r, 300_000+i))
				blocks = append(blocks, c.write(uint64(i+1), p, datas[i]))
			}
			var wg sync.WaitGroup
			for w := range 4 {
				r := rand.New(rand.NewPCG(r.Uint64(), 0))
				wg.Go(func() {
					for n := range 30 {
						i := r.IntN(4)
						off := r.IntN(len(datas[i]))
						p := make([]byte, 1+r.IntN(len(datas[i])-off))
						if err := c.client.ReadBlock(t.Context(), blocks[i], p, off); err != nil || !bytes.Equal(p, datas[i][off:off+len(p)]) {
							t.Errorf("reader %d, read %d: %v", w, n, err)
						}
					}
				})
			}
			wg.Go(func() {
				for n := range 10 {
					c.nodes[n%2].setDown(true)
					if _, err := c.client.WriteBlock(t.Context(), p, ticket(uint64(100+n), p), []uint32{7, 8}, datas[0]); err != nil {
						t.Error(err)
					}
					c.nodes[n%2].setDown(false)
				}
			})
			wg.Wait()
		})
	}
}
