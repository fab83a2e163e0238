package meta

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// The roles of certificates.
const (
	roleMeta   = "meta"
	roleChunkd = "chunkd"
	roleEdge   = "edge"
	roleAgent  = "agent"
	roleClient = "client"
)

// methods says which roles may call what a metadata server serves. The calls
// themselves are looked at by commands, queries, and ownNode.
var methods = map[wire.Method][]string{
	wire.MethodMutate:    {roleClient, roleAgent, roleChunkd, roleEdge},
	wire.MethodQuery:     {roleClient, roleAgent, roleMeta},
	wire.MethodSession:   {roleClient, roleAgent},
	wire.MethodLock:      {roleClient},
	wire.MethodBadShard:  {roleClient, roleEdge},
	wire.MethodHeartbeat: {roleChunkd, roleAgent, roleEdge},
	wire.MethodPoll:      {roleAgent},
	wire.MethodJoin:      {roleMeta, roleClient}, // a client has members removed
}

// queries has a row for every query. An agent looks for what earlier attempts
// left, and for results to take over; what a job reads, it reads as a client.
var queries = map[protoreflect.Name]permit{
	"lookup":        {roles: holders},
	"get_inode":     {roles: clients},
	"read_dir":      {roles: clients},
	"get_xattr":     {roles: clients},
	"list_xattr":    {roles: clients},
	"get_extents":   {roles: clients},
	"acquire":       {roles: clients},
	"access":        {roles: clients},
	"stat_fs":       {roles: clients},
	"get_blocks":    {roles: clients},
	"allocate":      {roles: clients},
	"list_jobs":     {roles: clients},
	"get_job":       {roles: clients},
	"explain_job":   {roles: clients},
	"get_memo":      {roles: holders},
	"list_refusals": {roles: clients},
	"list_accounts": {roles: clients},
	"list_usage":    {roles: clients},
	"list_nodes":    {roles: []string{roleClient, roleMeta}},
	"status":        {roles: []string{roleClient, roleMeta}},
}

// admission judges what one peer sends; facts is what it has to know.
type admission struct {
	peer  transport.Peer
	facts facts
}

// facts are what the state and the leader know.
type facts interface {
	// opener is the role and name of the certificate that opened a session;
	// known: it is there, and kept them.
	opener(session uint64) (role, cert string, known bool)
	sessionsOf(role, cert string) int
	nodeByName(name string) *wire.Node
	nodeByID(id uint32) *wire.Node
	nodes() int
	task(job uint64, n uint32) *wire.Task
	entry(dir uint64, name string) *wire.Dentry
}

func forbidden(op, format string, args ...any) error {
	return wire.Errorf(wire.Forbidden, op, "", format, args...)
}

// opOf is the name of the operation that a Command or Query carries.
func opOf(m protoreflect.Message) (protoreflect.Name, bool) {
	f := m.WhichOneof(m.Descriptor().Oneofs().ByName("op"))
	if f == nil {
		return "", false
	}
	return f.Name(), true
}

// command says whether the peer may send cmd.
func (a admission) command(cmd *wire.Command) error {
	name, ok := opOf(cmd.ProtoReflect())
	if !ok {
		return wire.Errorf(wire.Invalid, "mutate", "", "the command is empty")
	}
	p, ok := commands[name]
	switch {
	case !ok || len(p.roles) == 0:
		return forbidden("mutate", "only the leader itself gives the command %s", name)
	case !slices.Contains(p.roles, a.peer.Role):
		return forbidden("mutate", "role %q of %q may not give the command %s", a.peer.Role, a.peer.Name, name)
	case p.session && cmd.Session == 0:
		return wire.Errorf(wire.NoSession, "mutate", "", "the command needs a session")
	}
	if p.check != nil {
		if err := p.check(a, cmd); err != nil {
			return err
		}
	}
	if n := len(cmd.GetBatch().GetCommands()); n > maxBatch {
		return wire.Errorf(wire.Invalid, "mutate", "", "a batch of %d commands: at most %d", n, maxBatch)
	}
	for _, c := range cmd.GetBatch().GetCommands() {
		if _, nested := c.GetOp().(*wire.Command_Batch); nested || c == nil {
			return wire.Errorf(wire.Invalid, "mutate", "", "a batch cannot hold a batch, or nothing")
		}
		if err := a.command(&wire.Command{Session: cmd.Session, Cred: cmd.Cred, Op: c.Op}); err != nil {
			return err
		}
	}
	if name == "end_session" { // ownSession has looked
		return nil
	}
	return a.session("mutate", cmd.Session)
}

// query says whether the peer may ask q.
func (a admission) query(q *wire.Query) error {
	name, ok := opOf(q.ProtoReflect())
	if !ok {
		return wire.Errorf(wire.Invalid, "query", "", "the query is empty")
	}
	if !slices.Contains(queries[name].roles, a.peer.Role) {
		return forbidden("query", "role %q of %q may not ask %s", a.peer.Role, a.peer.Name, name)
	}
	return a.session("query", q.Session)
}

// session says whether the peer may act in a session: it has opened it.
func (a admission) session(op string, id uint64) error {
	if id == 0 {
		return nil
	}
	role, cert, known := a.facts.opener(id)
	if known && (role != a.peer.Role || cert != a.peer.Name) {
		return forbidden(op, "%s %q has not opened session %d", a.peer.Role, a.peer.Name, id)
	}
	return nil // if it is not there, that is said elsewhere
}

// node says whether the peer speaks for a node: its kind is the peer's role, and
// the peer's certificate registered it. A chunk server's name is that of its
// certificate.
func (a admission) node(op string, n *wire.Node) error {
	if n.GetKind() != a.peer.Role || n.GetCert() != "" && n.GetCert() != a.peer.Name || n.GetKind() == roleChunkd && n.GetName() != a.peer.Name {
		return forbidden(op, "%s %q does not speak for %s %q", a.peer.Role, a.peer.Name, n.GetKind(), n.GetName())
	}
	return nil
}

func outsideOfSession(a admission, cmd *wire.Command) error {
	if cmd.Session != 0 {
		return forbidden("mutate", "a session is opened outside of another")
	}
	if n := len(cmd.GetOpenSession().GetName()) + len(cmd.GetOpenSession().GetHost()); n > maxNames {
		return wire.Errorf(wire.Invalid, "mutate", "", "the names of a session have %d bytes: at most %d", n, maxNames)
	}
	if a.peer.Role != roleClient && a.facts.sessionsOf(a.peer.Role, a.peer.Name) >= maxSessions {
		return wire.Errorf(wire.Range, "mutate", "", "%s %q has %d sessions, which is all that it may have", a.peer.Role, a.peer.Name, maxSessions)
	}
	return nil
}

// ownSession: a session ends itself only. A client may end any: what a process
// that died has left, an agent's too.
func ownSession(a admission, cmd *wire.Command) error {
	op := cmd.GetEndSession()
	if op.GetId() != cmd.Session || op.GetFenced() {
		return forbidden("mutate", "a session ends itself only")
	}
	if a.peer.Role == roleClient {
		return nil
	}
	return a.session("mutate", cmd.Session)
}

// ownRecord: servers and agents register themselves; root may change what is
// registered.
func ownRecord(a admission, cmd *wire.Command) error {
	n := cmd.GetPutNode().GetNode()
	if size := proto.Size(n); size > maxNode {
		return wire.Errorf(wire.Invalid, "mutate", "", "the record of a node has %d bytes: at most %d", size, maxNode)
	}
	if a.peer.Role == roleClient {
		switch {
		case cmd.Cred.GetUid() != 0:
			return forbidden("mutate", "only root changes the nodes of the cluster")
		case n.GetId() == 0:
			return forbidden("mutate", "a node registers itself, as chunkd, agent or edge")
		}
		return nil
	}
	if n.GetId() != 0 {
		return forbidden("mutate", "a node registers itself by its name")
	}
	if old := a.facts.nodeByName(n.GetName()); old != nil {
		if err := a.node("mutate", old); err != nil {
			return err
		}
	} else if a.facts.nodes() >= maxNodes {
		return wire.Errorf(wire.Range, "mutate", "", "there are %d nodes, which is all that there can be", maxNodes)
	}
	return a.node("mutate", &wire.Node{Name: n.GetName(), Kind: n.GetKind()})
}

// ownTask: an agent reports on attempts that were given to it, and results come
// from the directory of the attempt. A report that is late passes: the state
// knows that its attempt is over.
func ownTask(a admission, cmd *wire.Command) error {
	if a.peer.Role == roleClient {
		return nil
	}
	u := cmd.GetUpdateTask()
	t := u.GetTask()
	old := a.facts.task(t.GetJob(), t.GetN())
	if old == nil {
		return nil
	}
	if u.GetSecond() {
		return forbidden("mutate", "the leader begins attempts")
	}
	var agent uint32
	switch second := old.GetSecond(); {
	case second != nil && t.GetAttempt() == second.GetAttempt():
		agent = second.GetAgent()
	case t.GetAttempt() == old.GetAttempt():
		agent = old.GetAgent()
	case t.GetAttempt() > max(old.GetAttempt(), old.GetLastAttempt(), second.GetAttempt()):
		return forbidden("mutate", "the leader begins attempts")
	default:
		return nil
	}
	if !slices.Contains([]string{"pending", "staging", "running", "committing"}, old.GetState()) {
		return nil
	}
	if err := a.node("mutate", a.facts.nodeByID(agent)); err != nil {
		return err
	}
	if u.GetOutIno() == 0 {
		return nil
	}
	dir := a.facts.entry(wire.OutputsIno, wire.AttemptDir(agent, t.GetJob(), t.GetN(), t.GetAttempt()))
	if dir.GetIno() != u.GetOutIno() {
		return forbidden("mutate", "results come from the directory of their attempt")
	}
	return nil
}

// own says whether the peer may send a heartbeat or a poll of a node.
func (a admission) own(op string, id uint32) error {
	n := a.facts.nodeByID(id)
	if n == nil {
		return wire.Errorf(wire.NotFound, op, "", "node %d is not registered", id)
	}
	return a.node(op, n)
}

// Bounds of what a peer may say; those that are well say less. All mounts are
// told of all nodes.
const (
	maxReported = 8192      // things of a kind in a heartbeat
	maxDevices  = 256 << 10 // bytes
	maxNode     = 64 << 10  // bytes of a node's record
	maxNodes    = 16384
	maxBatch    = 4096 // commands
	maxNames    = 8192 // bytes of a session's names
	maxSessions = 4096 // of a certificate that is no client's: the agents of a cluster may share one
	maxAvoid    = 4096 // servers that an allocation names
)

// heartbeat says whether the peer may say what it says: of its own node, and of
// shards only as a chunk server, which has made those that it says it made.
func (a admission) heartbeat(hb *wire.Heartbeat) error {
	if err := a.own("heartbeat", hb.GetNode()); err != nil {
		return err
	}
	shards := len(hb.Bad) + len(hb.Deleted) + len(hb.Rebuilt) + len(hb.Inventory)
	if a.peer.Role != roleChunkd && (shards > 0 || hb.InventoryUpto != nil) {
		return forbidden("heartbeat", "role %q has no shards", a.peer.Role)
	}
	if max(len(hb.Bad), len(hb.Deleted), len(hb.Rebuilt), len(hb.Inventory)) > maxReported {
		return wire.Errorf(wire.Invalid, "heartbeat", "", "it says more than %d things of a kind", maxReported)
	}
	if n := proto.Size(&wire.Heartbeat{Devices: hb.Devices, Disk: hb.Disk}); n > maxDevices {
		return wire.Errorf(wire.Invalid, "heartbeat", "", "its devices are described in %d bytes: at most %d", n, maxDevices)
	}
	for _, r := range hb.Rebuilt {
		if r.GetCode() == 0 && r.GetShard().GetServer() != hb.GetNode() {
			return forbidden("heartbeat", "a server reports what it has made itself")
		}
	}
	return nil
}

// signed is cmd with who sent it, where the state keeps that. cmd itself is not
// changed.
func (a admission) signed(cmd *wire.Command) *wire.Command {
	r := rowOf(cmd)
	if r.sign == nil {
		return cmd
	}
	c := wire.Shallow(cmd)
	r.sign(a, c)
	return c
}

func signOpenSession(a admission, c *wire.Command) {
	q := wire.Shallow(c.GetOpenSession())
	q.Role, q.Cert = a.peer.Role, a.peer.Name
	c.Op = &wire.Command_OpenSession{OpenSession: q}
}

func signPutNode(a admission, c *wire.Command) {
	n := wire.Shallow(c.GetPutNode().GetNode())
	if n.Cert = a.peer.Name; a.peer.Role == roleClient {
		n.Cert = a.facts.nodeByID(n.GetId()).GetCert()
	}
	c.Op = &wire.Command_PutNode{PutNode: &wire.PutNode{Node: n}}
}

func signBatch(a admission, c *wire.Command) {
	b := &wire.Batch{Commands: make([]*wire.Command, len(c.GetBatch().GetCommands()))}
	for i, inner := range c.GetBatch().GetCommands() {
		b.Commands[i] = a.signed(inner)
	}
	c.Op = &wire.Command_Batch{Batch: b}
}

// leaderFacts is what a leader knows.
type leaderFacts struct{ l *leader }

func (l *leader) admission(peer transport.Peer) admission { return admission{peer, leaderFacts{l}} }

func (f leaderFacts) opener(session uint64) (role, cert string, known bool) {
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	o, known := f.l.opener[session]
	return o.Role, o.Name, known
}

func (f leaderFacts) sessionsOf(role, cert string) (n int) {
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	for _, o := range f.l.opener {
		if o.Role == role && o.Name == cert {
			n++
		}
	}
	return n
}

func (f leaderFacts) nodeByName(name string) *wire.Node {
	n, err := f.l.s.fsm.state().NodeByName(name)
	if err != nil {
		return nil
	}
	return n
}

func (f leaderFacts) nodeByID(id uint32) *wire.Node { return f.l.nodes.record(id) }

func (f leaderFacts) nodes() int { return f.l.nodes.count() }

func (f leaderFacts) task(job uint64, n uint32) *wire.Task {
	t, err := f.l.s.fsm.state().Task(job, n)
	if err != nil {
		return nil
	}
	return t
}

func (f leaderFacts) entry(dir uint64, name string) *wire.Dentry {
	d, err := f.l.s.fsm.state().Entry(dir, name)
	if err != nil {
		return nil
	}
	return d
}
