package meta

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/internal/wire/wiretest"
	"quernfs/meta/client"
	"quernfs/meta/state"
)

// known is facts for a test: sessions 1 (of client "c"), 2 (of agent "a") and 3
// (that kept nobody); nodes; task 7.0, whose attempt 4 runs on node 11 and has
// its results in inode 70.
type known struct{}

var knownNodes = []*wire.Node{
	{Id: 10, Name: "chunkd-1", Kind: "chunkd", Cert: "chunkd-1"},
	{Id: 11, Name: "h1:mount-1", Kind: "agent", Cert: "a"},
	{Id: 12, Name: "h2:mount-1", Kind: "agent", Cert: "b"},
	{Id: 13, Name: "chunkd-2", Kind: "chunkd"},
}

func (known) opener(id uint64) (role, cert string, ok bool) {
	switch id {
	case 1:
		return "client", "c", true
	case 2:
		return "agent", "a", true
	}
	return "", "", false
}

func (known) nodeByName(name string) *wire.Node {
	for _, n := range knownNodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (known) nodeByID(id uint32) *wire.Node {
	for _, n := range knownNodes {
		if n.Id == id {
			return n
		}
	}
	return nil
}

func (known) sessionsOf(_, cert string) int {
	if cert == "greedy" {
		return maxSessions
	}
	return 0
}

func (known) nodes() int { return len(knownNodes) }

func (known) task(job uint64, n uint32) *wire.Task {
	if job != 7 || n != 0 {
		return nil
	}
	return &wire.Task{Job: 7, State: "running", Attempt: 4, Agent: 11}
}

func (known) entry(_ uint64, name string) *wire.Dentry {
	if name == wire.AttemptDir(11, 7, 0, 4) {
		return &wire.Dentry{Ino: 70}
	}
	return nil
}

func by(role, name string) admission {
	return admission{transport.Peer{Role: role, Name: name}, known{}}
}

var allRoles = []string{roleMeta, roleChunkd, roleEdge, roleAgent, roleClient}

// ops lists the operations that a message can carry.
func ops(m protoreflect.ProtoMessage) []protoreflect.FieldDescriptor {
	fields := m.ProtoReflect().Descriptor().Oneofs().ByName("op").Fields()
	var out []protoreflect.FieldDescriptor
	for i := range fields.Len() {
		out = append(out, fields.Get(i))
	}
	return out
}

// withEmpty is m with an operation that says nothing.
func withEmpty[M protoreflect.ProtoMessage](m M, f protoreflect.FieldDescriptor) M {
	r := m.ProtoReflect()
	r.Set(f, r.NewField(f))
	return m
}

// Every command and every query has a row, and is refused to every role that the
// row does not name, within a batch too.
func TestEveryCommandHasAPermit(t *testing.T) {
	names := map[protoreflect.Name]bool{}
	for _, f := range ops(&wire.Command{}) {
		p, ok := commands[f.Name()]
		names[f.Name()] = true
		if !ok {
			t.Errorf("command %s has no row", f.Name())
		}
		if p.targets == nil {
			t.Errorf("the row of %s does not say what it changes of what others cache: noTargets, if nothing", f.Name())
		}
		for _, role := range allRoles {
			cmd := withEmpty(&wire.Command{Session: 3, Cred: root}, f)
			allowed := slices.Contains(p.roles, role)
			err := by(role, "x").command(cmd)
			if refused := wire.CodeOf(err) == wire.Forbidden && (strings.Contains(err.Error(), "may not give") || strings.Contains(err.Error(), "only the leader")); refused == allowed {
				t.Errorf("%s gives %s: %v", role, f.Name(), err)
			}
			if f.Name() == "batch" || allowed {
				continue
			}
			batch := &wire.Command{Session: 3, Cred: root, Op: &wire.Command_Batch{Batch: &wire.Batch{Commands: []*wire.Command{cmd}}}}
			if err := by(role, "x").command(batch); wire.CodeOf(err) != wire.Forbidden {
				t.Errorf("%s gives %s in a batch: %v", role, f.Name(), err)
			}
		}
	}
	for _, f := range ops(&wire.Query{}) {
		p, ok := queries[f.Name()]
		names[f.Name()] = true
		if !ok {
			t.Errorf("query %s has no row", f.Name())
		}
		for _, role := range allRoles {
			err := by(role, "x").query(withEmpty(&wire.Query{}, f))
			if refused := wire.CodeOf(err) == wire.Forbidden; refused == slices.Contains(p.roles, role) {
				t.Errorf("%s asks %s: %v", role, f.Name(), err)
			}
		}
	}
	for name := range commands {
		if !names[name] {
			t.Errorf("there is no command %s", name)
		}
	}
	for name := range queries {
		if !names[name] {
			t.Errorf("there is no query %s", name)
		}
	}
	for m := range wire.Shapes {
		if served := m >= wire.MethodMutate && m <= wire.MethodJoin; served && len(methods[m]) == 0 {
			t.Errorf("method %v has no row", m)
		}
	}
}

func putNode(n *wire.Node) *wire.Command {
	return &wire.Command{Op: &wire.Command_PutNode{PutNode: &wire.PutNode{Node: n}}}
}

func updateTask(attempt uint32, out uint64) *wire.Command {
	return &wire.Command{Session: 2, Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{
		Task: &wire.Task{Job: 7, Attempt: attempt, State: "succeeded"}, OutIno: out,
	}}}
}

// What a peer says is of itself.
func TestPermits(t *testing.T) {
	end := func(session, id uint64, fenced bool) *wire.Command {
		return &wire.Command{Session: session, Op: &wire.Command_EndSession{EndSession: &wire.EndSession{Id: id, Fenced: fenced}}}
	}
	drain := putNode(&wire.Node{Id: 13, Name: "chunkd-2", Kind: "chunkd", State: "draining"})
	drain.Cred = root
	user := putNode(&wire.Node{Id: 13, Name: "chunkd-2", Kind: "chunkd", State: "draining"})
	user.Cred = &wire.Cred{Uid: 1000}
	for _, c := range []struct {
		role, name string
		cmd        *wire.Command
		want       wire.Code
	}{
		{"client", "c", chmod(10, 0), wire.NoSession},
		{"client", "c", &wire.Command{Session: 1, Op: chmod(10, 0).Op}, wire.OK},
		{"client", "d", &wire.Command{Session: 1, Op: chmod(10, 0).Op}, wire.Forbidden},
		{"client", "c", &wire.Command{Session: 2, Op: chmod(10, 0).Op}, wire.Forbidden},
		{"client", "c", &wire.Command{Session: 3, Op: chmod(10, 0).Op}, wire.OK},
		{"client", "c", &wire.Command{Session: 1}, wire.Invalid},
		{"client", "c", end(1, 1, false), wire.OK},
		{"client", "c", end(1, 2, false), wire.Forbidden},
		{"client", "c", end(1, 1, true), wire.Forbidden},
		{"client", "c", end(2, 2, false), wire.OK}, // of an agent that died
		{"agent", "a", end(2, 2, false), wire.OK},
		{"agent", "b", end(2, 2, false), wire.Forbidden},
		{"agent", "a", end(1, 1, false), wire.Forbidden},
		{"chunkd", "chunkd-9", putNode(&wire.Node{Name: "chunkd-9", Kind: "chunkd"}), wire.OK},
		{"chunkd", "chunkd-2", putNode(&wire.Node{Name: "chunkd-2", Kind: "chunkd"}), wire.OK},
		{"chunkd", "chunkd-9", putNode(&wire.Node{Name: "chunkd-1", Kind: "chunkd"}), wire.Forbidden},
		{"chunkd", "chunkd-9", putNode(&wire.Node{Name: "chunkd-9", Kind: "agent"}), wire.Forbidden},
		{"chunkd", "chunkd-1", putNode(&wire.Node{Id: 10, Name: "chunkd-1", Kind: "chunkd"}), wire.Forbidden},
		{"agent", "a", putNode(&wire.Node{Name: "h9", Kind: "agent"}), wire.OK},
		{"agent", "a", putNode(&wire.Node{Name: "h2:mount-1", Kind: "agent"}), wire.Forbidden},
		{"agent", "a", putNode(&wire.Node{Name: "chunkd-1", Kind: "agent"}), wire.Forbidden},
		{"client", "c", putNode(&wire.Node{Name: "n"}), wire.Forbidden},
		{"client", "c", drain, wire.OK},
		{"client", "c", user, wire.Forbidden},
		{"agent", "a", updateTask(4, 70), wire.OK},
		{"agent", "a", updateTask(4, 71), wire.Forbidden}, // somebody's directory
		{"agent", "a", updateTask(5, 70), wire.Forbidden}, // an attempt that nobody gave it
		{"agent", "a", updateTask(3, 70), wire.OK},        // late: Stale, says the state
		{"client", "c", &wire.Command{Op: updateTask(4, 71).Op}, wire.OK},
	} {
		if got := wire.CodeOf(by(c.role, c.name).command(c.cmd)); got != c.want {
			t.Errorf("%s %s %v: %v, want %v", c.role, c.name, c.cmd, got, c.want)
		}
	}
	other := updateTask(4, 70)
	other.Session = 0
	if err := by("agent", "b").command(other); wire.CodeOf(err) != wire.Forbidden {
		t.Errorf("a report on another agent's task: %v", err)
	}

	id := &wire.ShardID{Block: 1}
	for _, c := range []struct {
		role, name string
		hb         *wire.Heartbeat
		want       wire.Code
	}{
		{"chunkd", "chunkd-1", &wire.Heartbeat{Node: 10, Bad: []*wire.ShardID{id}}, wire.OK},
		{"chunkd", "chunkd-2", &wire.Heartbeat{Node: 10}, wire.Forbidden},
		{"chunkd", "chunkd-2", &wire.Heartbeat{Node: 13}, wire.OK},
		{"chunkd", "chunkd-1", &wire.Heartbeat{Node: 13}, wire.Forbidden},
		{"agent", "a", &wire.Heartbeat{Node: 11}, wire.OK},
		{"agent", "a", &wire.Heartbeat{Node: 12}, wire.Forbidden},
		{"agent", "a", &wire.Heartbeat{Node: 10}, wire.Forbidden},
		{"agent", "a", &wire.Heartbeat{Node: 11, Bad: []*wire.ShardID{id}}, wire.Forbidden},
		{"agent", "a", &wire.Heartbeat{Node: 11, InventoryUpto: id}, wire.Forbidden},
		{"agent", "a", &wire.Heartbeat{Node: 99}, wire.NotFound},
		{"chunkd", "chunkd-1", &wire.Heartbeat{Node: 10, Bad: make([]*wire.ShardID, maxReported+1)}, wire.Invalid},
		{"chunkd", "chunkd-1", &wire.Heartbeat{Node: 10, Rebuilt: []*wire.Rebuilt{{Shard: &wire.Shard{Server: 13}}}}, wire.Forbidden},
		{"chunkd", "chunkd-1", &wire.Heartbeat{Node: 10, Rebuilt: []*wire.Rebuilt{{Code: 5}}}, wire.OK},
	} {
		if got := wire.CodeOf(by(c.role, c.name).heartbeat(c.hb)); got != c.want {
			t.Errorf("%s %s %v: %v, want %v", c.role, c.name, c.hb, got, c.want)
		}
	}
}

// A whole server, and peers that have a certificate and want more than it gives.
func TestHostilePeers(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	victim := r.user("victim")
	f := victim.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	ctx := testCtx(t)
	peer := func(role, name string) *client.Client {
		pool := r.newPool(role, name)
		t.Cleanup(func() { pool.Close() })
		c, err := client.Open(ctx, client.Config{Servers: r.servers(), Pool: pool, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	chunk, agent, second := peer("chunkd", "chunkd-1"), peer("agent", "a"), peer("agent", "b")
	server, err := chunk.RegisterNode(ctx, &wire.Node{Name: "chunkd-1", Kind: "chunkd", State: "up"})
	if err != nil {
		t.Fatal(err)
	}
	host, err := agent.RegisterNode(ctx, &wire.Node{Name: "h1:mount-1", Kind: "agent", State: "up"})
	if err != nil {
		t.Fatal(err)
	}
	u := victim.Session()
	calls := []struct {
		what string
		by   *client.Client
		m    wire.Method
		q    protoreflect.ProtoMessage
	}{
		{"bad shards of a server", agent, wire.MethodHeartbeat, &wire.Heartbeat{Node: server, Bad: []*wire.ShardID{{Block: 1}}}},
		{"bad shards of its own", agent, wire.MethodHeartbeat, &wire.Heartbeat{Node: host, Bad: []*wire.ShardID{{Block: 1}}}},
		{"a bad shard seen", agent, wire.MethodBadShard, &wire.BadShard{Block: 1, Server: server}},
		{"another agent's heartbeat", second, wire.MethodHeartbeat, &wire.Heartbeat{Node: host}},
		{"another agent's poll", second, wire.MethodPoll, &wire.Poll{Node: host}},
		{"another agent's name", second, wire.MethodMutate, putNode(&wire.Node{Name: "h1:mount-1", Kind: "agent"})},
		{"a name of another kind", chunk, wire.MethodMutate, putNode(&wire.Node{Name: "chunkd-2", Kind: "chunkd"})},
		{"a job", agent, wire.MethodMutate, &wire.Command{Cred: root, Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{}}}},
		{"the end of a client's session", agent, wire.MethodMutate, &wire.Command{Session: u, Op: &wire.Command_EndSession{EndSession: &wire.EndSession{Id: u}}}},
		{"a session for a chunk server", chunk, wire.MethodMutate, &wire.Command{Op: &wire.Command_OpenSession{OpenSession: &wire.OpenSession{}}}},
		{"a lock in a client's session", agent, wire.MethodLock, &wire.LockCall{Session: u, Lock: &wire.Lock{Ino: f}}},
		{"a poll of a chunk server", chunk, wire.MethodPoll, &wire.Poll{Node: server}},
		{"a vote", agent, wire.MethodJoin, &wire.JoinMeta{Name: "a", Id: "a", Addr: "a"}},
		{"a vote of a client", peer("client", "meta-1"), wire.MethodJoin, &wire.JoinMeta{Name: "meta-1", Id: "meta-1/00", Addr: "meta-1/00"}},
		{"the removal of another member", peer("meta", "x"), wire.MethodJoin, &wire.JoinMeta{Name: "meta-1", Leave: true}},
		{"a vote by another name", peer("meta", "x"), wire.MethodJoin, &wire.JoinMeta{Name: "meta-1", Id: "meta-1/00", Addr: "meta-1/00"}},
	}
	for _, role := range []*client.Client{agent, chunk} {
		for _, cmd := range []*wire.Command{create(wire.RootIno, "g"), chmod(f, 0o777), unlink(wire.RootIno, "f")} {
			cmd.Session, cmd.Cred = u, root
			calls = append(calls, struct {
				what string
				by   *client.Client
				m    wire.Method
				q    protoreflect.ProtoMessage
			}{fmt.Sprintf("%v as root", cmd), role, wire.MethodMutate, cmd})
		}
		for _, q := range []*wire.Query{getInode(f, false), {Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: 1}}}, {Op: &wire.Query_ListJobs{ListJobs: &wire.ListJobs{}}}} {
			calls = append(calls, struct {
				what string
				by   *client.Client
				m    wire.Method
				q    protoreflect.ProtoMessage
			}{fmt.Sprint(q), role, wire.MethodQuery, q})
		}
	}
	for _, c := range calls {
		if reply, err := c.by.Call(ctx, c.m, c.q); wire.CodeOf(err) != wire.Forbidden {
			t.Errorf("%s: %v, %v", c.what, reply, err)
		}
	}
	// A stream that says that it is somebody else's session.
	pool := r.newPool("agent", "a")
	defer pool.Close()
	conn, err := pool.Get(ctx, r.members[0].Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	st, err := conn.Stream(ctx, wire.MethodSession)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	st.Send(&wire.FromClient{Op: &wire.FromClient_Hello{Hello: &wire.Hello{Session: u}}})
	if m, err := st.Recv(); wire.CodeOf(err) != wire.Forbidden {
		t.Errorf("the push stream of a client's session: %v, %v", m, err)
	}
	if got := victim.mustAsk(getInode(f, false)).GetInode().Inode.Attr.Mode & 0o777; got != 0o644 {
		t.Errorf("the mode is %o", got)
	}
	if victim.happened("ended") || victim.happened("lapsed") {
		t.Error("the victim lost its session")
	}
}

// A client that takes nothing is cut off before much waits for it; the map of
// nodes, of which the newest says all, waits once.
func TestPushesThatNobodyTakes(t *testing.T) {
	st := newStream(t.Context(), nil)
	for range 1000 {
		st.put(&wire.Push{Op: &wire.Push_Nodes{Nodes: &wire.NodesAnswer{}}})
	}
	if len(st.msgs) != 1 {
		t.Errorf("%d maps wait", len(st.msgs))
	}
	for range maxPushes - 1 {
		st.put(&wire.Push{Op: &wire.Push_Recall{}})
	}
	if st.ctx.Err() != nil || len(st.msgs) != maxPushes {
		t.Fatalf("cut off with %d waiting", len(st.msgs))
	}
	st.put(&wire.Push{Op: &wire.Push_Recall{}})
	if st.ctx.Err() == nil || len(st.msgs) > 0 {
		t.Errorf("%d wait, and it is not cut off", len(st.msgs))
	}
}

// A certificate that is no client's has only so many sessions.
func TestSessionsOfACertificate(t *testing.T) {
	open := &wire.Command{Op: &wire.Command_OpenSession{OpenSession: &wire.OpenSession{}}}
	for _, tt := range []struct {
		role, name string
		want       wire.Code
	}{{"agent", "greedy", wire.Range}, {"agent", "modest", wire.OK}, {"client", "greedy", wire.OK}} {
		if err := by(tt.role, tt.name).command(open); wire.CodeOf(err) != tt.want {
			t.Errorf("a session for %s %q: %v", tt.role, tt.name, err)
		}
	}
}

// TestOnlyTheLeaderGives holds the rows and the state machine against each other:
// what the leader alone gives the state refuses to every session, and nothing else.
func TestOnlyTheLeaderGives(t *testing.T) {
	st, err := state.Open(state.Config{Dir: t.TempDir(), Key: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	index := uint64(0)
	apply := func(cmd *wire.Command) *wire.Result {
		index++
		r, err := st.Apply([]state.Entry{{Index: index, Term: 1, Command: cmd}})
		if err != nil {
			t.Fatal(err)
		}
		return r[0]
	}
	session := apply(&wire.Command{Op: &wire.Command_OpenSession{OpenSession: &wire.OpenSession{Name: "s"}}}).Value
	for i, f := range ops(&wire.Command{}) {
		if f.Name() == "end_session" {
			continue
		}
		r := apply(withEmpty(&wire.Command{Session: session, Seq: uint64(i + 1), Cred: root}, f))
		if refused := wire.Code(r.Code) == wire.Perm && strings.Contains(r.Message, "a session cannot give"); refused != commands[f.Name()].leads {
			t.Errorf("%s in a session: %v, %s", f.Name(), wire.Code(r.Code), r.Message)
		}
		if p := commands[f.Name()]; len(p.roles) == 0 && !p.leads {
			t.Errorf("%s: nobody may give it", f.Name())
		}
	}
}

// TestNoFieldIsLost: of a command with something in each of its fields, what the
// leader signs and completes has them all; it changes those alone that are its own.
func TestNoFieldIsLost(t *testing.T) {
	own := map[protoreflect.FullName]bool{
		"quern.Command.time_ns": true, "quern.PutNode.node": true, "quern.Batch.commands": true,
		"quern.OpenSession.role": true, "quern.OpenSession.cert": true,
		"quern.Unlink.open_sessions": true, "quern.Rename.open_sessions": true,
		"quern.UpdateTask.open_sessions": true, "quern.UpdateTask.source_sessions": true, "quern.UpdateTask.max_ended": true,
		"quern.SubmitJob.max_open": true, "quern.SubmitJob.max_tasks": true, "quern.SubmitJob.max_bytes": true, "quern.SubmitJob.ttl_ns": true,
		"quern.StageTasks.max_tasks": true, "quern.StageTasks.max_bytes": true,
		"quern.UpdateJob.max_tasks": true, "quern.UpdateJob.max_bytes": true, "quern.UpdateJob.max_ended": true,
	}
	same := func(what string, was, is protoreflect.Message) {
		was.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			if !own[f.FullName()] && f.Name() != "seq" && f.Name() != "ack_below" && f.Name() != "session" && f.ContainingOneof() == nil && !v.Equal(is.Get(f)) {
				t.Errorf("%s: %s is %v, was %v", what, f.FullName(), is.Get(f), v)
			}
			return true
		})
	}
	for i, f := range ops(&wire.Command{}) {
		cmd := wiretest.Fill((&wire.Command{}).ProtoReflect().Type(), i, 2).Interface().(*wire.Command)
		if cmd.ProtoReflect().WhichOneof(f.ContainingOneof()) != f {
			t.Fatalf("%s was to be filled", f.Name())
		}
		got := stamped(by("client", "x").signed(cmd), stamping{tree: fakeTree{}, open: func(ino uint64) []uint64 { return []uint64{ino} }})
		same(string(f.Name()), cmd.ProtoReflect(), got.ProtoReflect())
		same(string(f.Name()), cmd.ProtoReflect().Get(f).Message(), got.ProtoReflect().Get(f).Message())
		if n := got.GetPutNode().GetNode(); n != nil {
			was := cmd.GetPutNode().GetNode()
			n.Cert = was.Cert
			same("put_node", was.ProtoReflect(), n.ProtoReflect())
		}
	}
}
