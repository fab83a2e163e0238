package meta

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"quernfs/internal/wire"
	"quernfs/meta/client"
)

// register is a name in a directory: it exists or it does not.
type register struct {
	name   string
	create bool
	lookup bool
}

// nameModel: exclusive create fails where there is a name, unlink where there is
// none. A command carried out twice would answer so for no reason.
var nameModel = porcupine.Model{
	Partition: func(h []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, o := range h {
			n := o.Input.(register).name
			by[n] = append(by[n], o)
		}
		var out [][]porcupine.Operation
		for _, ops := range by {
			out = append(out, ops)
		}
		return out
	},
	Init: func() any { return false },
	Step: func(state, input, output any) (bool, any) {
		exists, in, out := state.(bool), input.(register), output.(wire.Code)
		switch {
		case in.lookup:
			return exists == (out == wire.OK), exists
		case in.create:
			return exists == (out == wire.Exists), true
		}
		return exists == (out == wire.OK), false
	},
}

// TestExactlyOnceOverLeaderChanges: clients create and remove a few names while
// leaders are killed; the history must be that of some order of single
// executions.
func TestExactlyOnceOverLeaderChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, overUnix)
	var mu sync.Mutex
	var history []porcupine.Operation
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for c := range 6 {
		u := r.user(fmt.Sprint("client-", c))
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(c), 1))
			for {
				select {
				case <-stop:
					return
				default:
				}
				in := register{name: fmt.Sprint("n", rnd.IntN(4)), create: rnd.IntN(2) == 0, lookup: rnd.IntN(3) == 0}
				began := time.Now().UnixNano()
				var err error
				switch {
				case in.lookup:
					_, err = u.ask(lookup(wire.RootIno, in.name))
				case in.create:
					_, err = u.do(create(wire.RootIno, in.name))
				default:
					_, err = u.do(unlink(wire.RootIno, in.name))
				}
				code := wire.CodeOf(err)
				if code != wire.OK && code != wire.Exists && code != wire.NotFound {
					t.Errorf("%+v: %v", in, err)
					return
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: c, Input: in, Call: began, Output: code, Return: time.Now().UnixNano()})
				mu.Unlock()
			}
		})
	}
	for range 2 {
		pause(400 * time.Millisecond)
		mu.Lock()
		n := len(history)
		mu.Unlock()
		old := r.leader()
		r.kill(old)
		eventually(t, "commands go on", func() bool { mu.Lock(); defer mu.Unlock(); return len(history) > n+40 })
		r.start(old)
	}
	close(stop)
	wg.Wait()
	if res, _ := porcupine.CheckOperationsVerbose(nameModel, history, 20*time.Second); res == porcupine.Illegal {
		t.Fatalf("a history of %d operations that no single execution of each explains", len(history))
	}
	t.Logf("%d operations", len(history))
}

func TestWipedFollowerIsFilledBySnapshot(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, func(r *rig) { r.timing.SnapshotLag, r.timing.Segment = 50, 4096 })
	u := r.user("one")
	for i := range 200 {
		u.must(create(wire.RootIno, fmt.Sprint(i)))
	}
	lead := r.leader()
	victim := (lead + 1) % 3
	r.stop(victim)
	if err := os.RemoveAll(r.nodes[victim].dir); err != nil {
		t.Fatal(err)
	}
	if err := r.nodes[lead].meta.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	for i := range 120 {
		u.must(create(wire.RootIno, fmt.Sprint("more-", i)))
	}
	r.start(victim)
	want, _ := r.nodes[r.leader()].meta.fsm.state().Applied()
	eventually(t, "the wiped server catches up", func() bool {
		got, _ := r.nodes[victim].meta.fsm.state().Applied()
		return got >= want
	})
	if applied, _ := r.nodes[victim].meta.Applied(); applied >= 320 {
		t.Errorf("it was filled by %d log entries, not by a snapshot", applied)
	}
	st := r.nodes[victim].meta.fsm.state()
	for _, name := range []string{"0", "199", "more-119"} {
		if _, err := st.Entry(wire.RootIno, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	sameState(t, r)

	// And it starts again from what it was given.
	r.stop(victim)
	r.start(victim)
	sameState(t, r)
}

// sameState waits until all members hold the same bytes.
func sameState(t *testing.T, r *rig) {
	t.Helper()
	eventually(t, "all members agree", func() bool {
		var first [32]byte
		for i, n := range r.nodes {
			if n.meta == nil {
				continue
			}
			d, err := n.meta.fsm.state().Digest()
			if err != nil {
				return false
			}
			if i == 0 {
				first = d
			} else if d != first {
				return false
			}
		}
		return true
	})
}

func TestJoinAndLeave(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	u := r.user("one")
	u.must(create(wire.RootIno, "a"))
	for i := 1; i < 3; i++ {
		m := Member{Name: fmt.Sprintf("meta-%d", i+1), Addr: fmt.Sprintf("meta-%d", i+1)}
		m.Endpoint = r.endpoint(m.Name)
		r.members = append(r.members, m)
		r.nodes = append(r.nodes, &member{Member: m, dir: filepath.Join(r.dir, m.Name)})
		if err := r.tryStart(i, r.members, []*wire.Endpoint{r.members[0].Endpoint}); err != nil {
			t.Fatal(err)
		}
	}
	r.whole()
	sameState(t, r)
	a := u.mustAsk(&wire.Query{Op: &wire.Query_Status{Status: &wire.Status{Leases: true}}})
	if n := len(a.GetStatus().Members); n != 3 {
		t.Fatalf("%d members", n)
	}
	r.kill(0)
	u2 := r.user("two")
	u2.must(create(wire.RootIno, "b"))

	pool := r.newPool("client", "operator")
	defer pool.Close()
	c, err := client.Open(testCtx(t), client.Config{Servers: r.servers(), Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Call(testCtx(t), wire.MethodJoin, &wire.JoinMeta{Name: "meta-1", Leave: true}); err != nil {
		t.Fatal(err)
	}
	a = u2.mustAsk(&wire.Query{Op: &wire.Query_Status{Status: &wire.Status{}}})
	if n := len(a.GetStatus().Members); n != 2 {
		t.Fatalf("%d members after one left", n)
	}
}

func TestBadDirectories(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.leader()
	dir := r.nodes[0].dir
	open := func(dir string) error {
		_, err := openHome(Disk{}, dir, r.key)
		return err
	}
	if err := open(dir); wire.CodeOf(err) != wire.Busy || !strings.Contains(err.Error(), "another metadata server is running") {
		t.Errorf("second opener: %v", err)
	}
	foreign := t.TempDir()
	os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o600)
	if err := open(foreign); wire.CodeOf(err) != wire.Invalid || !strings.Contains(err.Error(), "give an empty one") {
		t.Errorf("foreign directory: %v", err)
	}
	u := r.user("one")
	u.must(create(wire.RootIno, "a"))
	r.stop(0)
	again := func() error {
		err := r.tryStart(0, r.members, nil)
		if err == nil {
			t.Fatal("it started")
		}
		return err
	}
	os.WriteFile(filepath.Join(dir, "current"), []byte("nonsense"), 0o600)
	if err := again(); wire.CodeOf(err) != wire.Corrupt || !strings.Contains(err.Error(), "`current` is damaged") {
		t.Errorf("damaged file: %v", err)
	}
	os.WriteFile(filepath.Join(dir, "current"), []byte("state-7\n"), 0o600)
	if err := again(); wire.CodeOf(err) != wire.Corrupt || !strings.Contains(err.Error(), "state-7 is missing") {
		t.Errorf("missing state: %v", err)
	}
	os.WriteFile(filepath.Join(dir, "current"), []byte("state-1\n"), 0o600)
	os.RemoveAll(filepath.Join(dir, "log"))
	os.RemoveAll(filepath.Join(dir, "snapshots"))
	if err := again(); wire.CodeOf(err) != wire.Corrupt || !strings.Contains(err.Error(), "the log ends at") {
		t.Errorf("lost log: %v", err)
	}
}

func TestSessionlessClients(t *testing.T) {
	r := newRig(t, 1)
	r.leader()
	open := func(role string) *client.Client {
		pool := r.newPool(role, role+"-1")
		t.Cleanup(func() { pool.Close() })
		c, err := client.Open(testCtx(t), client.Config{Servers: r.servers(), Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ctx := testCtx(t)
	c := open("chunkd")
	node := &wire.Node{Name: "chunkd-1", Kind: "chunkd", State: "up"}
	id, err := c.RegisterNode(ctx, node)
	if err != nil || id == 0 {
		t.Fatalf("register: %d %v", id, err)
	}
	if again, err := c.RegisterNode(ctx, node); again != id || err != nil {
		t.Fatalf("register again: %d %v", again, err)
	}
	if _, err := c.Call(ctx, wire.MethodHeartbeat, &wire.Heartbeat{}); wire.CodeOf(err) != wire.NotFound {
		t.Errorf("heartbeat of nobody: %v", err)
	}
	reply, err := c.Call(ctx, wire.MethodHeartbeat, &wire.Heartbeat{Node: id, Total: 1 << 40, Free: 1 << 39, Boot: 1})
	if err != nil || len(reply.(*wire.HeartbeatReply).Nodes) != 1 {
		t.Fatalf("heartbeat: %v %v", reply, err)
	}
	if _, err := open("client").RegisterNode(ctx, node); wire.CodeOf(err) != wire.Forbidden {
		t.Errorf("a client registers a node: %v", err)
	}
	if _, err := open("client").Do(ctx, create(wire.RootIno, "x")); wire.CodeOf(err) != wire.NoSession {
		t.Errorf("a mutation without a session: %v", err)
	}
	purge := &wire.Command{Op: &wire.Command_PurgeBlocks{PurgeBlocks: &wire.PurgeBlocks{}}}
	if _, err := c.Do(ctx, purge); wire.CodeOf(err) != wire.Forbidden {
		t.Errorf("an internal command from outside: %v", err)
	}
	u := r.user("one")
	eventually(t, "a session learns the map", func() bool { u.mu.Lock(); defer u.mu.Unlock(); return len(u.nodes) == 1 })
	q := &wire.Query{Op: &wire.Query_Allocate{Allocate: &wire.Allocate{Policy: &wire.Policy{K: 1, M: 0}, Count: 3}}}
	a := u.mustAsk(q)
	if n := len(a.GetAllocate().Tickets); n != 3 || a.GetAllocate().Tickets[0].Servers[0] != id {
		t.Fatalf("allocate: %v", a)
	}
	q = &wire.Query{Op: &wire.Query_Allocate{Allocate: &wire.Allocate{Policy: &wire.Policy{K: 4, M: 2}, Count: 1}}}
	if _, err := u.ask(q); wire.CodeOf(err) != wire.TooFew {
		t.Errorf("too few: %v", err)
	}
}

func TestCloseIsOrderly(t *testing.T) {
	r := newRig(t, 1)
	u := r.user("one")
	u.must(create(wire.RootIno, "a"))
	id := u.Session()
	if err := u.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.nodes[0].meta.fsm.state().Session(id); wire.CodeOf(err) != wire.NotFound {
		t.Fatalf("the session is still there: %v", err)
	}
}
