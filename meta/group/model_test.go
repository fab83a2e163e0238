package group

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"quernfs/internal/wire"
)

// The model is whole groups of the real raft and the real Group, over disks and
// a network in memory and synctest's clock. Servers are crashed, lose their
// disks, are started again and are cut off; after each of these a command is
// given. Checked is:
//
//   - no two servers apply different entries at one index, in all their lives;
//   - a leader that acknowledges a command has applied all that were acknowledged before;
//   - at the end, with the network whole and all servers started, a leader has
//     all that was acknowledged; and there is one, in a group that all vote in, if no more than
//     a minority ever lost their disks.

// memStore is a log that, like the real one, has no holes.
type memStore struct{ *raft.InmemStore }

func (memStore) IsMonotonic() bool { return true }

// disk is what a server keeps over a crash.
type disk struct {
	store memStore
	snaps *raft.InmemSnapshotStore
	rec   *Record
	right bool
	state *state
}

func newDisk() *disk {
	return &disk{store: memStore{raft.NewInmemStore()}, snaps: raft.NewInmemSnapshotStore(), state: &state{Entries: map[uint64]entry{}}}
}

func (d *disk) Load() (*Record, error)  { return d.rec, nil }
func (d *disk) Save(r Record) error     { d.rec = &r; return nil }
func (d *disk) MayBegin() (bool, error) { return d.right, nil }
func (d *disk) UseRight() error         { d.right = false; return nil }

type entry struct {
	Term uint64
	Data string
}

// state is what has been applied.
type state struct {
	mu      sync.Mutex
	At      Position
	Entries map[uint64]entry
}

func (s *state) copy() *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &state{At: s.At, Entries: map[uint64]entry{}}
	for i, e := range s.Entries {
		c.Entries[i] = e
	}
	return c
}

func (s *state) position() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.At
}

func (s *state) has(data string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.Entries {
		if e.Data == data {
			return true
		}
	}
	return false
}

// world is a group of servers and all that is known of it from outside.
type world struct {
	nodes []*node
	rnd   *rand.Rand

	mu      sync.Mutex
	cut     map[int]bool // off the network
	applied map[uint64]entry
	faults  []string
	acked   []string
	writes  int
	story   []string
	lost    int // disks
}

func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// linked says whether two servers can talk.
func (w *world) linked(a, b int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return a == b || !w.cut[a] && !w.cut[b]
}

type node struct {
	w     *world
	n     int
	name  string
	disk  *disk
	group *Group                // nil: down
	shown atomic.Pointer[Group] // the same, for other nodes
	trans atomic.Pointer[memTransport]
	wiped int
	hurt  error
}

// Of raft.FSM.
func (n *node) Apply(l *raft.Log) any {
	w, s := n.w, n.disk.state
	got := entry{l.Term, string(l.Data)}
	w.mu.Lock()
	if want, known := w.applied[l.Index]; known && want != got {
		w.faults = append(w.faults, fmt.Sprintf("%s applies %v at %d, where %v was applied", n.name, got, l.Index, want))
	}
	w.applied[l.Index] = got
	w.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.Index > s.At.Index {
		s.Entries[l.Index], s.At = got, Position{l.Index, l.Term}
	}
	return nil
}

func (n *node) Snapshot() (raft.FSMSnapshot, error) { return n.disk.state.copy(), nil }

func (s *state) Persist(to raft.SnapshotSink) error {
	if err := gob.NewEncoder(to).Encode(s); err != nil {
		to.Cancel()
		return err
	}
	return to.Close()
}
func (s *state) Release() {}

func (n *node) Restore(r io.ReadCloser) error {
	defer r.Close()
	next := &state{Entries: map[uint64]entry{}}
	if err := gob.NewDecoder(r).Decode(next); err != nil {
		return err
	}
	if have := n.disk.state.position(); next.At.Index < have.Index {
		return fmt.Errorf("the snapshot ends at %d, the state at %d", next.At.Index, have.Index)
	}
	n.disk.state = next
	return nil
}

// start is what Server.start does.
func (n *node) start() error {
	d := n.disk
	snaps, _ := d.snaps.List()
	var at Position
	if len(snaps) > 0 && snaps[0].Index > 0 {
		at = Position{snaps[0].Index, snaps[0].Term}
		if d.state.position().Index < at.Index {
			_, r, err := d.snaps.Open(snaps[0].ID)
			if err != nil {
				return err
			}
			if err := n.Restore(r); err != nil {
				return err
			}
		}
	}
	if err := Agree(d.state.position(), at, d.store); err != nil {
		return err
	}
	conf := raft.DefaultConfig()
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 200*time.Millisecond, 200*time.Millisecond, 150*time.Millisecond
	conf.CommitTimeout = 50 * time.Millisecond
	conf.SnapshotInterval, conf.SnapshotThreshold, conf.TrailingLogs = 500*time.Millisecond, 6, 3
	conf.NoSnapshotRestoreOnStart, conf.NoLegacyTelemetry = true, true
	conf.Logger = hclog.NewNullLogger()
	g, err := Open(Config{
		Name: n.name, Addr: n.name, Home: d, Alone: len(n.w.nodes) == 1, Lost: "all is lost",
		Logs: d.store, Stable: d.store, Snapshots: d.snaps, FSM: n,
		Applied:      func() Position { return n.disk.state.position() },
		StateCluster: func() []byte { return nil },
		Transport: func(g *Group, local string) Transport {
			t := &memTransport{n: n, g: g, addr: raft.ServerAddress(local), in: make(chan raft.RPC), done: make(chan struct{})}
			n.trans.Store(t)
			return t
		},
		Ask: n.ask, Raft: conf, Log: slog.New(slog.DiscardHandler),
		Damaged: func(err error) {
			n.w.mu.Lock()
			n.hurt = err
			n.w.mu.Unlock()
		},
	})
	n.group = g
	n.shown.Store(g)
	return err
}

func (n *node) stop() {
	if n.group != nil {
		n.group.Close()
		n.group = nil
		n.shown.Store(nil)
	}
}

func (n *node) ask(ctx context.Context, q *wire.JoinMeta) (*wire.JoinReply, error) {
	for _, m := range n.w.nodes {
		if g := m.shown.Load(); m != n && g != nil && n.w.linked(n.n, m.n) && g.Raft() != nil && g.Raft().State() == raft.Leader {
			return g.Take(ctx, q)
		}
	}
	return nil, errors.New("nobody leads")
}

func (n *node) leads() bool { return n.group != nil && n.group.Raft().State() == raft.Leader }

// memTransport carries raft's messages between nodes.
type memTransport struct {
	n    *node
	g    *Group
	addr raft.ServerAddress
	in   chan raft.RPC
	done chan struct{}
	once sync.Once
	mu   sync.Mutex
	beat func(raft.RPC)
}

var errNet = errors.New("no answer")

// send carries one message and its answer, if the two are linked at both times,
// and the right member is there.
func send[R any](t *memTransport, target raft.ServerAddress, cmd any, into *R, data io.Reader) error {
	id, addr, _ := strings.Cut(string(target), "|")
	i := slices.IndexFunc(t.n.w.nodes, func(m *node) bool { return m.name == AddrOf(raft.ServerAddress(addr)) })
	if i < 0 {
		return errNet
	}
	m := t.n.w.nodes[i]
	to := m.trans.Load()
	if to == nil || !t.n.w.linked(t.n.n, i) {
		return errNet
	}
	select {
	case <-to.done:
		return errNet
	default:
	}
	if err := to.g.Admit(id, t.g.Cluster()); err != nil {
		return err
	}
	back := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: cmd, RespChan: back, Reader: data}
	to.mu.Lock()
	beat := to.beat
	to.mu.Unlock()
	if q, ok := cmd.(*raft.AppendEntriesRequest); ok && beat != nil && len(q.Entries) == 0 && q.PrevLogEntry == 0 && q.PrevLogTerm == 0 && q.LeaderCommitIndex == 0 {
		beat(rpc)
	} else {
		select {
		case to.in <- rpc:
		case <-to.done:
			return errNet
		case <-t.done:
			return errNet
		case <-time.After(time.Second):
			return errNet
		}
	}
	select {
	case r := <-back:
		if !t.n.w.linked(t.n.n, i) {
			return errNet
		}
		if r.Error == nil {
			*into = *(r.Response.(*R))
		}
		return r.Error
	case <-to.done:
	case <-t.done:
	case <-time.After(time.Second):
	}
	return errNet
}

func (t *memTransport) Consumer() <-chan raft.RPC     { return t.in }
func (t *memTransport) LocalAddr() raft.ServerAddress { return t.addr }
func (t *memTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}
func (t *memTransport) AppendEntries(_ raft.ServerID, to raft.ServerAddress, q *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	c := *q // the caller uses it again
	return send(t, to, &c, r, nil)
}
func (t *memTransport) RequestVote(_ raft.ServerID, to raft.ServerAddress, q *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	return send(t, to, q, r, nil)
}
func (t *memTransport) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, q *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	return send(t, to, q, r, nil)
}
func (t *memTransport) InstallSnapshot(_ raft.ServerID, to raft.ServerAddress, q *raft.InstallSnapshotRequest, r *raft.InstallSnapshotResponse, data io.Reader) error {
	b, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	return send(t, to, q, r, bytes.NewReader(b))
}
func (t *memTransport) TimeoutNow(_ raft.ServerID, to raft.ServerAddress, q *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	return send(t, to, q, r, nil)
}
func (t *memTransport) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte { return []byte(a) }
func (t *memTransport) DecodePeer(b []byte) raft.ServerAddress                  { return raft.ServerAddress(b) }
func (t *memTransport) SetHeartbeatHandler(f func(raft.RPC)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.beat = f
}
func (t *memTransport) Close() error {
	t.once.Do(func() { close(t.done) })
	return nil
}

// newWorld makes a group of n voters, begun as older versions did it (all at
// once), or by one with the right to.
func newWorld(n int, seed uint64, begin bool) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 7)), cut: map[int]bool{}, applied: map[uint64]entry{}}
	var conf raft.Configuration
	for i := range n {
		m := &node{w: w, n: i, name: fmt.Sprint("m", i+1), disk: newDisk()}
		w.nodes = append(w.nodes, m)
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(m.name), Address: raft.ServerAddress(m.name)})
	}
	w.nodes[0].disk.right = begin
	for _, m := range w.nodes {
		if !begin {
			c := raft.DefaultConfig()
			c.LocalID, c.Logger = raft.ServerID(m.name), hclog.NewNullLogger()
			if err := raft.BootstrapCluster(c, m.disk.store, m.disk.store, m.disk.snaps, &memTransport{}, conf); err != nil {
				panic(err)
			}
		}
		w.start(m)
	}
	w.await(20*time.Second, w.whole)
	return w
}

func (w *world) start(m *node) {
	if err := m.start(); err != nil {
		w.fault("%s does not start: %v", m.name, err)
	}
}

// whole: somebody leads a group in which all vote, and all are level.
func (w *world) whole() bool {
	var at []uint64
	leaders := 0
	for _, m := range w.nodes {
		if m.group == nil || m.group.Voters() != len(w.nodes) || !m.group.votes() {
			return false
		}
		if m.leads() {
			leaders++
		}
		at = append(at, m.disk.state.position().Index)
	}
	return leaders == 1 && slices.Min(at) == slices.Max(at)
}

func (w *world) await(limit time.Duration, f func() bool) bool {
	for began := time.Now(); time.Since(began) < limit; time.Sleep(50 * time.Millisecond) {
		if f() {
			return true
		}
	}
	return false
}

// write gives a command to whoever says that it leads.
func (w *world) write() {
	for _, m := range w.nodes {
		if !m.leads() {
			continue
		}
		w.writes++
		data := fmt.Sprint("w", w.writes)
		before := len(w.acked)
		done := make(chan error, 1)
		f := m.group.Raft().Apply([]byte(data), time.Second)
		go func() { done <- f.Error() }() // ends with raft at the latest
		select {
		case err := <-done:
			if err != nil {
				continue
			}
		case <-time.After(2 * time.Second):
			continue
		}
		for _, a := range w.acked[:before] {
			if !m.disk.state.has(a) {
				w.fault("%s acknowledges %s and does not have %s, which was acknowledged before", m.name, data, a)
			}
		}
		w.acked = append(w.acked, data)
	}
}

// action is something that may befall the group.
type action struct {
	text string
	do   func()
}

// actions lists what may happen now. Servers that look the same (but for their
// names) count once.
func (w *world) actions() []action {
	var all []action
	seen := map[string]bool{}
	for _, m := range w.nodes {
		last, _ := m.disk.store.LastIndex()
		look := fmt.Sprint(m.group != nil, m.leads(), w.cut[m.n], m.wiped > 0, last, m.disk.rec != nil && strings.Contains(m.disk.rec.ID, "/"))
		if seen[look] {
			continue
		}
		seen[look] = true
		add := func(what string, do func()) { all = append(all, action{what + " " + m.name, do}) }
		if m.group != nil {
			add("crash", func() { w.crash(m) })
		} else {
			add("start", func() { w.start(m) })
		}
		if last > 0 {
			add("wipe", func() { w.wipe(m) })
		}
		if m.group != nil && !w.cut[m.n] {
			add("cut", func() { w.setCut(m.n, true) })
		}
	}
	if len(w.cut) > 0 {
		all = append(all, action{"heal", func() { w.heal() }})
	}
	return all
}

func (w *world) setCut(i int, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cut {
		w.cut[i] = true
	} else {
		delete(w.cut, i)
	}
}

func (w *world) heal() {
	for i := range w.nodes {
		w.setCut(i, false)
	}
}

// crash ends a server; what its state had not flushed is gone.
func (w *world) crash(m *node) {
	m.stop()
	if w.rnd.IntN(2) == 0 {
		snaps, _ := m.disk.snaps.List()
		old := &state{Entries: map[uint64]entry{}}
		if len(snaps) > 0 && snaps[0].Index > 0 {
			_, r, err := m.disk.snaps.Open(snaps[0].ID)
			if err == nil {
				err = gob.NewDecoder(r).Decode(old)
			}
			if err != nil {
				w.fault("%v", err)
			}
		}
		m.disk.state = old
	}
}

func (w *world) wipe(m *node) {
	m.stop()
	m.disk = newDisk()
	m.wiped++
	w.lost++
}

// end makes the group whole again, if it can be, and looks at it.
func (w *world) end() {
	w.heal()
	for _, m := range w.nodes {
		if m.group == nil {
			w.start(m)
		}
	}
	whole := w.await(60*time.Second, w.whole)
	w.write()
	for _, m := range w.nodes {
		if !m.leads() || m.group.Raft().VerifyLeader().Error() != nil {
			continue
		}
		for _, a := range w.acked {
			if !m.disk.state.has(a) {
				w.fault("%s leads, and %s, which was acknowledged, is gone", m.name, a)
			}
		}
	}
	var wiped int
	for _, m := range w.nodes {
		if m.wiped > 0 {
			wiped++
		}
		w.mu.Lock()
		if m.hurt != nil {
			w.faults = append(w.faults, fmt.Sprintf("%s is damaged: %v", m.name, m.hurt))
		}
		w.mu.Unlock()
	}
	if !whole && wiped <= (len(w.nodes)-1)/2 {
		w.fault("%d servers of %d lost their disks, and the group does not become whole again", wiped, len(w.nodes))
	}
	for _, m := range w.nodes {
		m.stop()
	}
}

// run lets things happen as choose says, until it says -1, and returns how many
// choices there were each time.
func run(t *testing.T, n int, seed uint64, begin bool, choose func(step, of int) (int, time.Duration)) (of []int, acked int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(n, seed, begin)
		w.write()
		for step := 0; ; step++ {
			all := w.actions()
			i, pause := choose(step, len(all))
			if i < 0 {
				break
			}
			of = append(of, len(all))
			a := all[i%len(all)]
			w.story = append(w.story, a.text)
			a.do()
			time.Sleep(pause)
			w.write()
		}
		w.end()
		acked = len(w.acked)
		for _, f := range w.faults {
			t.Errorf("%d servers, seed %d, %s: %s", n, seed, strings.Join(w.story, ", "), f)
		}
	})
	return of, acked
}

// settle is long enough for an election, or for a server to be taken in and
// filled.
const settle = 1500 * time.Millisecond

// every runs all sequences of so many events.
func every(t *testing.T, n, length int) (runs int) {
	var path []int
	for {
		of, _ := run(t, n, uint64(runs), false, func(step, of int) (int, time.Duration) {
			if step == length {
				return -1, 0
			}
			if step == len(path) {
				path = append(path, 0)
			}
			return path[step], settle
		})
		if t.Failed() {
			return runs
		}
		runs++
		// The next one: the last event that has another choice.
		i := length - 1
		for i >= 0 && path[i]+1 >= of[i] {
			i--
		}
		if i < 0 {
			return runs
		}
		path = append(path[:i], path[i]+1)
	}
}

func setting(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// TestModelEvery: all sequences of a few events, of one less with -short.
// QUERN_MODEL_LENGTH makes them longer.
func TestModelEvery(t *testing.T) {
	length := 3
	if testing.Short() {
		length = 2
	}
	length = setting("QUERN_MODEL_LENGTH", length)
	for _, c := range []struct{ n, length int }{{3, length}, {5, length - 1}} {
		t.Run(fmt.Sprint(c.n, " servers"), func(t *testing.T) {
			began := time.Now()
			runs := every(t, c.n, c.length)
			t.Logf("%d sequences of %d events in %v", runs, c.length, time.Since(began).Round(time.Millisecond))
		})
	}
}

// TestModelRandom: long sequences, with pauses of any length. QUERN_MODEL_SEED
// repeats one, QUERN_MODEL_RUNS makes more of them.
func TestModelRandom(t *testing.T) {
	runs, first := setting("QUERN_MODEL_RUNS", 60), rand.Uint64()
	if s := os.Getenv("QUERN_MODEL_SEED"); s != "" {
		first, _ = strconv.ParseUint(s, 10, 64)
		runs = 1
	}
	acked := 0
	for i := range runs {
		seed := first + uint64(i)
		rnd := rand.New(rand.NewPCG(seed, 1))
		n, length := 3+2*rnd.IntN(2), 5+rnd.IntN(8)
		_, k := run(t, n, seed, rnd.IntN(3) == 0, func(step, of int) (int, time.Duration) {
			if step == length {
				return -1, 0
			}
			return rnd.IntN(of), []time.Duration{0, 30 * time.Millisecond, 250 * time.Millisecond, settle, 4 * settle}[rnd.IntN(5)]
		})
		acked += k
		if t.Failed() {
			t.Fatalf("QUERN_MODEL_SEED=%d", seed)
		}
	}
	t.Logf("%d sequences from seed %d, %d commands acknowledged", runs, first, acked)
}
