package meta

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
	"quernfs/meta/client"
)

// chunk is a chunk server that stores nothing and does what it is told.
type chunk struct {
	t    *testing.T
	c    *client.Client
	key  []byte
	id   uint32
	todo *wire.Heartbeat // what the next heartbeat says
	gone map[uint64]bool
	made int

	// With holds it tells its inventory, two shards a page.
	holds  map[shardKey]bool
	number uint64
	index  uint64
	after  *wire.ShardID
	rounds int
}

func (r *rig) chunk(t *testing.T, n int) *chunk {
	pool := r.newPool("chunkd", fmt.Sprint("chunkd-", n))
	t.Cleanup(func() { pool.Close() })
	c, err := client.Open(testCtx(t), client.Config{Servers: r.servers(), Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	id, err := c.RegisterNode(testCtx(t), &wire.Node{Name: fmt.Sprint("chunkd-", n), Kind: "chunkd", State: "up"})
	if err != nil {
		t.Fatal(err)
	}
	return &chunk{t: t, c: c, key: r.key, id: id, todo: new(wire.Heartbeat), gone: map[uint64]bool{}}
}

func (k *chunk) beat() {
	hb := k.todo
	k.todo = new(wire.Heartbeat)
	hb.Node, hb.Total, hb.Free, hb.Boot = k.id, 1<<40, 1<<39, 1
	k.number++
	hb.Number = k.number
	if k.holds != nil && k.index != 0 {
		k.page(hb)
	}
	resp, err := k.c.Call(testCtx(k.t), wire.MethodHeartbeat, hb)
	if err != nil {
		k.t.Fatal(err)
	}
	reply := resp.(*wire.HeartbeatReply)
	k.index = reply.Index
	if hb.InventoryUpto != nil && !reply.InventoryAgain {
		if k.after = hb.InventoryUpto; k.after.Block == math.MaxUint64 {
			k.after = nil
			k.rounds++
		}
	}
	for _, s := range reply.Remove {
		k.gone[s.Block] = true
		delete(k.holds, shardKey{s.Block, s.Index})
		k.todo.Deleted = append(k.todo.Deleted, s)
	}
	for _, r := range reply.Rebuild {
		root := r.Block.Shards[r.Index].Root
		k.made++
		if k.holds != nil {
			k.holds[shardKey{r.Block.Id, r.Index}] = true
		}
		k.todo.Rebuilt = append(k.todo.Rebuilt, &wire.Rebuilt{Block: r.Block.Id, Index: r.Index, From: r.From, Shard: &wire.Shard{
			Server: k.id, Root: root, Proof: block.Proof(k.key, k.id, r.Block.Id, r.Index, r.Block.ShardLength, root),
		}})
	}
}

// page adds the next page of the inventory.
func (k *chunk) page(hb *wire.Heartbeat) {
	const size = 2
	var ids []shardKey
	for id := range k.holds {
		if k.after == nil || compareKeys(id, shardKey{k.after.Block, k.after.Index}) > 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, compareKeys)
	hb.InventoryAfter, hb.InventoryIndex = k.after, k.index
	hb.InventoryUpto = &wire.ShardID{Block: math.MaxUint64, Index: math.MaxUint32}
	if len(ids) > size {
		ids = ids[:size]
		hb.InventoryUpto = &wire.ShardID{Block: ids[size-1].block, Index: ids[size-1].index}
	}
	for _, id := range ids {
		hb.Inventory = append(hb.Inventory, &wire.ShardID{Block: id.block, Index: id.index})
	}
}

// commit stores one block of 2+1 for ino.
func (u *user) commit(r *rig, ino uint64) *wire.Block {
	u.t.Helper()
	a := u.mustAsk(&wire.Query{Op: &wire.Query_Allocate{Allocate: &wire.Allocate{Policy: &wire.Policy{K: 2, M: 1}, Count: 1}}})
	ticket := a.GetAllocate().Tickets[0]
	b := &wire.Block{Id: ticket.Block, K: 2, M: 1, Length: 8192, ShardLength: 4096}
	for i, s := range ticket.Servers {
		root := sha256.Sum256([]byte{byte(i), byte(ticket.Block)})
		b.Shards = append(b.Shards, &wire.Shard{Server: s, Root: root[:], Proof: block.Proof(r.key, s, b.Id, uint32(i), b.ShardLength, root[:])})
	}
	u.must(&wire.Command{Op: &wire.Command_Commit{Commit: &wire.Commit{
		Blocks: []*wire.Block{b},
		Files:  []*wire.FileUpdate{{Ino: ino, MinSize: 8192, Extents: []*wire.Extent{{Len: 8192, Block: b.Id}}, DropInline: true}},
	}}})
	return b
}

func TestDeletionAndRepair(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(r *rig) {
		r.adjust = func(c *Config) { c.DeleteDelay = 10 * time.Millisecond; c.DeadAfter = time.Hour }
	})
	r.leader()
	var servers []*chunk
	for i := range 4 {
		servers = append(servers, r.chunk(t, i+1))
	}
	beat := func(except uint32) {
		for _, s := range servers {
			if s.id != except {
				s.beat()
			}
		}
	}
	beat(0)
	u := r.user("one")
	ino := u.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	b := u.commit(r, ino)
	st := r.nodes[0].meta.fsm.state()
	holder := func(i int) uint32 {
		rec, err := st.Block(b.Id)
		if err != nil {
			t.Fatal(err)
		}
		return rec.Shards[i].Server
	}
	status := func() *wire.StatusAnswer {
		return u.mustAsk(&wire.Query{Op: &wire.Query_Status{Status: &wire.Status{}}}).GetStatus()
	}
	if s := status(); s.BlocksHealthy != 1 || s.BlocksDegraded != 0 {
		t.Fatalf("status: %v", s)
	}

	// A server finds its shard gone: another one makes it anew.
	lost := holder(0)
	for _, s := range servers {
		if s.id == lost {
			s.todo.Bad = []*wire.ShardID{{Block: b.Id, Index: 0}}
		}
	}
	beat(0)
	if s := status(); s.BlocksDegraded != 1 {
		t.Fatalf("a lost shard: %v", s)
	}
	eventually(t, "the shard is made anew", func() bool { beat(0); return holder(0) != 0 })

	// A client reports a bad one: it is replaced, then the old copy removed.
	bad := holder(1)
	pool := r.newPool("client", "reader")
	defer pool.Close()
	c, err := client.Open(testCtx(t), client.Config{Servers: r.servers(), Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Call(testCtx(t), wire.MethodBadShard, &wire.BadShard{Block: b.Id, Index: 1, Server: bad, Corrupt: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bad shard is replaced", func() bool { beat(0); return holder(1) != bad })
	eventually(t, "the bad copy is removed", func() bool {
		beat(0)
		for _, s := range servers {
			if s.id == bad {
				return s.gone[b.Id]
			}
		}
		return false
	})

	// A server is drained: its shard moves away.
	drained := holder(2)
	u.must(&wire.Command{Op: &wire.Command_PutNode{PutNode: &wire.PutNode{Node: &wire.Node{Id: drained, Name: nameOf(st.Nodes, drained), Kind: "chunkd", State: "draining"}}}})
	eventually(t, "the drained server is empty", func() bool { beat(0); return holder(2) != drained })

	// The file goes: the shards are deleted, then the record.
	for _, s := range servers {
		clear(s.gone)
	}
	u.must(unlink(wire.RootIno, "f"))
	u.must(&wire.Command{Op: &wire.Command_ReleaseOrphans{ReleaseOrphans: &wire.ReleaseOrphans{Inos: []uint64{ino}}}})
	eventually(t, "the block is purged", func() bool {
		beat(0)
		_, err := st.Block(b.Id)
		return wire.CodeOf(err) == wire.NotFound
	})
	n := 0
	for _, s := range servers {
		if s.gone[b.Id] {
			n++
		}
	}
	if n < 3 { // a fourth may have had an old copy
		t.Errorf("%d servers deleted a shard", n)
	}
}

func nameOf(nodes func() ([]*wire.Node, error), id uint32) string {
	all, _ := nodes()
	for _, n := range all {
		if n.Id == id {
			return n.Name
		}
	}
	return ""
}

// jobs is a scheduler that says what it saw.
type jobs struct {
	led  chan JobView
	over chan struct{}
}

func (j *jobs) Lead(ctx context.Context, v JobView) {
	j.led <- v
	<-ctx.Done()
	close(j.over)
}

func (j *jobs) Poll(ctx context.Context, p *wire.Poll) (*wire.PollReply, error) {
	return &wire.PollReply{Stop: []*wire.RunningTask{{Job: uint64(p.Node)}}}, nil
}

func TestJobScheduler(t *testing.T) {
	j := &jobs{led: make(chan JobView, 1), over: make(chan struct{})}
	r := newRig(t, 1, func(r *rig) { r.adjust = func(c *Config) { c.Jobs = j } })
	v := <-j.led
	pool := r.newPool("agent", "agent-1")
	defer pool.Close()
	c, err := client.Open(testCtx(t), client.Config{Servers: r.servers(), Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	id, err := c.RegisterNode(testCtx(t), &wire.Node{Name: "h:agent-1", Kind: "agent", State: "up"})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := c.Call(testCtx(t), wire.MethodPoll, &wire.Poll{Node: id}); err != nil || resp.(*wire.PollReply).Stop[0].Job != uint64(id) {
		t.Fatalf("poll: %v %v", resp, err)
	}
	digest := sha256.Sum256([]byte("x"))
	submit := &wire.Command{Cred: root, Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{
		Job: &wire.Job{Name: "j", Digest: digest[:], Spec: []byte("x"), Cred: root}, Tasks: []*wire.Task{{N: 0}},
	}}}
	u := r.user("one")
	u.must(submit)
	<-v.Changed()
	all, err := v.Jobs()
	if err != nil || len(all) != 1 {
		t.Fatalf("jobs: %v %v", all, err)
	}
	if _, err := v.Propose(testCtx(t), chmod(1, 0)); wire.CodeOf(err) != wire.Forbidden {
		t.Errorf("a scheduler changes a file: %v", err)
	}
	r.stop(0)
	<-j.over
}
