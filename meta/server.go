package meta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/group"
	"quernfs/meta/state"
)

// Server is one metadata server.
type Server struct {
	cfg   Config
	log   *slog.Logger
	home  *home
	fsm   *fsm
	wal   RaftLog
	snaps *snapshots
	layer *transport.RaftLayer
	group *group.Group
	raft  *raft.Raft // of group
	check verifier

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	down   chan struct{} // closed once raft has shut down

	started chan struct{} // closed once group and raft are set

	mu        sync.Mutex
	lead      *leader                   // nil: not leading, or not yet able to serve
	turned    chan struct{}             // closed and replaced when lead changes
	endpoints map[string]*wire.Endpoint // of members, by address
	failed    error                     // why the server has stopped by itself

	closeOnce sync.Once
	closeErr  error
}

// Open starts the server: it opens or makes Dir, becomes a member of the group,
// or asks to, and serves on Config.Mux. It returns before there is a leader, and
// before it is taken in; see WaitLeader.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := cfg.lost(); err != nil {
		return nil, err
	}
	h, err := openHome(cfg.Disk, cfg.Dir, cfg.Key)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Log.With("meta", cfg.Name), home: h, turned: make(chan struct{}), endpoints: map[string]*wire.Endpoint{}, down: make(chan struct{}), started: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.check.window = cfg.Timing.LeaderLease / 2
	for _, m := range cfg.Members {
		s.endpoints[m.Addr] = m.Endpoint
	}
	for _, e := range cfg.Join {
		s.endpoints[e.Addr] = e
	}
	if err := s.start(); err != nil {
		s.stop()
		return nil, err
	}
	s.register()
	return s, nil
}

// start opens the state, the log and the snapshots, makes them agree, and
// starts raft over them.
func (s *Server) start() error {
	st, err := s.home.openState()
	if err != nil {
		return err
	}
	s.fsm = &fsm{home: s.home, log: s.log, fatal: s.fail}
	s.fsm.cur.Store(st)
	if s.snaps, err = openSnapshots(s.home); err != nil {
		return s.damaged(err)
	}
	if err := s.home.disk.makeDir(s.home.path("log")); err != nil {
		return err
	}
	logger := &raftLog{log: s.log}
	if s.wal, err = s.home.disk.openLog(s.home.path("log"), s.cfg.Timing.Segment, logger); err != nil {
		return s.damaged(err)
	}
	if err := s.agree(); err != nil {
		return err
	}
	return s.startRaft(logger)
}

func (s *Server) startRaft(logger *raftLog) error {
	t := s.cfg.Timing
	notify := make(chan bool, 64)
	conf := raft.DefaultConfig()
	conf.Logger = logger
	conf.NotifyCh = notify
	// A leader is missed after one to two heartbeat times; one round of votes
	// follows. Heartbeats go out ten times as often, from a goroutine that does
	// not wait for disks, so a busy machine does not lose its leader.
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = t.Heartbeat, t.Heartbeat, t.LeaderLease
	conf.CommitTimeout = 100 * time.Millisecond
	conf.MaxAppendEntries = 512
	conf.BatchApplyCh = true
	conf.SnapshotInterval, conf.SnapshotThreshold, conf.TrailingLogs = 15*time.Second, t.SnapshotLag, t.SnapshotLag
	conf.NoSnapshotRestoreOnStart = true // the state is on disk; agree has checked it
	conf.NoLegacyTelemetry = true

	ep := s.cfg.Server.Endpoint()
	ep.Addr = s.cfg.Addr
	others := s.others()
	g, err := group.Open(group.Config{
		Name: s.cfg.Name, Addr: s.cfg.Addr, Home: record{s.home, s.cfg.Right}, Alone: len(others) == 0, Lost: s.cfg.lostText(),
		Logs: s.wal, Stable: s.wal, Snapshots: s.snaps, FSM: s.fsm,
		Applied: func() group.Position {
			index, term := s.fsm.state().Applied()
			return group.Position{Index: index, Term: term}
		},
		StateCluster: func() []byte {
			id, _ := s.fsm.state().ClusterID()
			return id
		},
		Transport: func(g *group.Group, local string) group.Transport {
			s.layer = transport.NewRaftLayer(s.cfg.Server, s.cfg.Pool, local)
			s.layer.Resolve, s.layer.Cluster, s.layer.Admit = s.endpoint, g.Cluster, g.Admit
			return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
				Stream: s.layer, MaxPool: 4, Timeout: 10 * time.Second, Logger: logger, MaxRPCsInFlight: 32,
			})
		},
		Ask: s.askToJoin, Endpoint: ep, Raft: conf, Log: s.log,
		Damaged: func(err error) { s.fail(s.damaged(err)) },
	})
	if err != nil {
		return s.damaged(err)
	}
	s.group, s.raft = g, g.Raft()
	close(s.started)
	s.wg.Go(func() { s.watch(notify) })
	return nil
}

// agree brings the state up to the newest snapshot, if a crash came between
// taking one over and installing it, and checks that the log goes on from there.
func (s *Server) agree() error {
	all, err := s.snaps.List()
	if err != nil {
		return s.damaged(err)
	}
	var applied, snapshot group.Position
	applied.Index, applied.Term = s.fsm.state().Applied()
	if len(all) > 0 {
		snapshot = group.Position{Index: all[0].Index, Term: all[0].Term}
		if applied.Index < snapshot.Index {
			_, r, err := s.snaps.Open(all[0].ID)
			if err != nil {
				return s.damaged(err)
			}
			if err := s.fsm.Restore(r); err != nil {
				return s.damaged(err)
			}
			applied.Index, applied.Term = s.fsm.state().Applied()
		}
	}
	if err := group.Agree(applied, snapshot, s.wal); err != nil {
		return s.damaged(err)
	}
	return nil
}

// damaged is the one sentence for a directory that cannot be used as it is. A
// copy of a member's directory has forgotten what it voted and acknowledged
// since: only the directory of the only member may be put back from one.
func (s *Server) damaged(err error) error {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return &wire.Error{Code: wire.CodeOf(err), Op: "open metadata server", Object: s.cfg.Dir, Err: err}
	}
	what := "remove the directory and start the server again: the others fill it"
	if len(s.others()) == 0 {
		what = "restore the directory from a copy"
	}
	return &wire.Error{
		Code: wire.Corrupt, Op: "open metadata server", Object: s.cfg.Dir, Err: fmt.Errorf("%w; %s", err, what),
	}
}

// watch follows raft's word on who leads.
func (s *Server) watch(notify <-chan bool) {
	var l *leader
	retire := func() {
		if l != nil {
			s.setLeader(nil)
			l.stop()
			l = nil
		}
	}
	defer retire()
	for {
		select {
		case leads := <-notify:
			retire()
			if leads {
				l = newLeader(s)
				l.wg.Go(l.run)
			}
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Server) setLeader(l *leader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead != l {
		s.lead = l
		close(s.turned)
		s.turned = make(chan struct{})
	}
}

// leading returns the leader's half of this server, or NotLeader.
func (s *Server) leading(op string) (*leader, error) {
	s.mu.Lock()
	l := s.lead
	s.mu.Unlock()
	if l == nil {
		return nil, s.notLeader(op)
	}
	return l, nil
}

// notLeader says who leads, if that is known and somebody else.
func (s *Server) notLeader(op string) error {
	addr, id := s.raft.LeaderWithID()
	if id == s.group.ID() {
		addr = "" // it has been elected and cannot serve yet
	}
	return &wire.Error{Code: wire.NotLeader, Op: op, Object: s.cfg.Name, Leader: group.AddrOf(addr)}
}

func (s *Server) endpoint(addr string) *wire.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endpoints[addr]
}

// Leads says whether this server leads and serves.
func (s *Server) Leads() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lead != nil
}

// WaitLeader returns once some server is known to lead: this one, when it is
// able to serve, or another.
func (s *Server) WaitLeader(ctx context.Context) error {
	for {
		s.mu.Lock()
		l, turned, failed := s.lead, s.turned, s.failed
		s.mu.Unlock()
		if failed != nil {
			return failed
		}
		if _, id := s.raft.LeaderWithID(); l != nil || id != "" && id != s.group.ID() {
			return nil
		}
		t := time.NewTimer(20 * time.Millisecond)
		select {
		case <-turned:
		case <-t.C: // another server's election makes no noise here
		case <-ctx.Done():
			t.Stop()
			if err := s.group.Waiting(); err != nil {
				return &wire.Error{Code: wire.Unavailable, Op: "wait for a leader", Object: s.cfg.Name, Err: err}
			}
			return wire.Errorf(wire.Unavailable, "wait for a leader", s.cfg.Name, "none was elected in time: are more than half of the members running?")
		case <-s.ctx.Done():
			t.Stop()
			return wire.Errorf(wire.Shutdown, "wait for a leader", s.cfg.Name, "the server has stopped")
		}
		t.Stop()
	}
}

// Ready is WaitLeader, and then, if this server leads, waits until it serves
// everything: the sessions of the last leader have come back, or their time is
// over.
func (s *Server) Ready(ctx context.Context) error {
	if err := s.WaitLeader(ctx); err != nil {
		return err
	}
	if l, err := s.leading("ready"); err == nil {
		return l.settled(ctx, "ready")
	}
	return nil
}

// Applied says how many entries of the log this server has applied since its
// start, and how many it passed over since its state had them.
func (s *Server) Applied() (applied, skipped uint64) {
	return s.fsm.applied.Load(), s.fsm.skipped.Load()
}

// Digest is the digest of the whole state, as of the entry index: two members
// that have applied the same entries have the same.
func (s *Server) Digest() (index uint64, sum [32]byte, err error) {
	for {
		st := s.fsm.state()
		index, _ = st.Applied()
		if sum, err = st.Digest(); err != nil {
			return 0, sum, err
		}
		if now, _ := st.Applied(); now == index && st == s.fsm.state() {
			return index, sum, nil
		}
	}
}

// CheckState looks for contradictions within the state.
func (s *Server) CheckState() ([]state.Problem, error) { return s.fsm.state().Check() }

// fail stops a server whose state can take no more entries.
func (s *Server) fail(err error) {
	s.mu.Lock()
	first := s.failed == nil
	if first {
		s.failed = err
	}
	s.mu.Unlock()
	if first {
		s.log.Error("the metadata state failed, this server stops", "err", err)
		s.cancel()
		s.wg.Go(func() {
			select {
			case <-s.started:
				s.raft.Shutdown().Error()
			case <-s.down:
			}
		})
	}
}

// Close hands leadership over, stops raft, and leaves a state that needs no
// replay. It may be called twice.
func (s *Server) Close(ctx context.Context) error {
	s.closeOnce.Do(func() {
		if s.raft.State() == raft.Leader && s.group.Voters() > 1 {
			s.within(ctx, 2*time.Second, func() error { return s.raft.LeadershipTransfer().Error() })
		}
		s.cancel()
		s.within(ctx, 10*time.Second, func() error {
			if err := s.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
				s.log.Debug("no snapshot at the end", "err", err)
			}
			return nil
		})
		s.closeErr = s.stop()
	})
	return s.closeErr
}

// within runs f for at most d: what it does goes on, but is not waited for. f
// is not run where there is no time for it.
func (s *Server) within(ctx context.Context, d time.Duration, f func() error) {
	if ctx.Err() != nil {
		return
	}
	ctx, done := context.WithTimeout(ctx, d)
	defer done()
	over := make(chan struct{})
	go func() {
		defer close(over)
		if err := f(); err != nil {
			s.log.Debug("closing", "err", err)
		}
	}()
	select {
	case <-over:
	case <-ctx.Done():
	}
}

// stop ends in the order in which things depend on each other; any of them may
// be missing.
func (s *Server) stop() error {
	s.cancel()
	var errs []error
	if s.group != nil {
		errs = append(errs, s.group.Close())
	}
	close(s.down)
	s.wg.Wait()
	if s.wal != nil {
		errs = append(errs, s.wal.Close())
	}
	if s.fsm != nil {
		errs = append(errs, s.fsm.state().Close())
	}
	return errors.Join(append(errs, s.home.close())...)
}

// settled waits for what raft says of a proposal. Raft forgets one that was
// queued just as it shut down: such a proposal gets the error here.
func (s *Server) settled(f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-s.down:
	}
	select {
	case err := <-done:
		return err
	default:
		return raft.ErrRaftShutdown
	}
}

// register serves the methods.
func (s *Server) register() {
	m := s.cfg.Mux
	transport.HandleCall(m, wire.MethodMutate, methods[wire.MethodMutate], s.mutate)
	transport.HandleCall(m, wire.MethodQuery, methods[wire.MethodQuery], s.query)
	transport.HandleCall(m, wire.MethodLock, methods[wire.MethodLock], s.lock)
	transport.HandleCall(m, wire.MethodBadShard, methods[wire.MethodBadShard], s.badShard)
	transport.HandleCall(m, wire.MethodHeartbeat, methods[wire.MethodHeartbeat], s.heartbeat)
	transport.HandleCall(m, wire.MethodPoll, methods[wire.MethodPoll], s.poll)
	transport.HandleCall(m, wire.MethodJoin, methods[wire.MethodJoin], s.joined)
	m.HandleStream(wire.MethodSession, methods[wire.MethodSession], s.session)
}

// verifier asks raft whether this server still leads, once for all who ask at
// about the same time. Its word holds for window, which is well below the time
// after which the others may elect another leader.
type verifier struct {
	window time.Duration

	mu      sync.Mutex
	good    time.Time // the last successful check began then
	running *check
}

type check struct {
	done chan struct{}
	err  error
}

func (v *verifier) verify(ctx context.Context, r *raft.Raft) error {
	v.mu.Lock()
	if time.Since(v.good) < v.window {
		v.mu.Unlock()
		return nil
	}
	c := v.running
	if c == nil {
		c = &check{done: make(chan struct{})}
		v.running = c
		go func() { // ends when raft answers, at the latest when it stops leading
			began := time.Now()
			c.err = r.VerifyLeader().Error()
			v.mu.Lock()
			if v.running = nil; c.err == nil {
				v.good = began
			}
			v.mu.Unlock()
			close(c.done)
		}()
	}
	v.mu.Unlock()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reset: what was verified in an earlier term counts no more.
func (v *verifier) reset() {
	v.mu.Lock()
	v.good = time.Time{}
	v.mu.Unlock()
}
