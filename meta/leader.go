package meta

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/lease"
)

const (
	tickEvery    = 200 * time.Millisecond
	horizonAhead = 20 * time.Second // beyond what the leases need now
	proposeWait  = 10 * time.Second // for a place in raft's queue
	maxInFlight  = 8192             // commands under way
	maxOfSession = maxInFlight / 4  // of one session
	maxWrites    = 256              // of these in the log and not applied yet
	maxWriting   = 4 << 20          // bytes of them
	graceLeast   = 1500 * time.Millisecond
)

// leader is what a server knows and does only while it leads. Nothing of it
// survives the term.
type leader struct {
	s      *Server
	log    *slog.Logger
	term   uint64
	ctx    context.Context // ends with the term
	cancel context.CancelFunc
	wg     sync.WaitGroup
	since  time.Time

	open  chan struct{} // closed when the grace is over
	slots chan struct{} // one for each command under way

	writes *turnstile // into the log
	reads  *turnstile // of the state

	// mu guards what follows, all of it plain data; see unlock.
	mu        sync.Mutex
	table     *lease.Table
	locks     *lease.Locks
	grace     *lease.Grace
	opened    bool
	streams   map[uint64]*stream
	reclaimed map[uint64]bool           // sessions that have said in this term what they hold
	ending    map[uint64]bool           // sessions whose EndSession is under way
	opener    map[uint64]transport.Peer // of a session, if it is known
	calls     map[callKey]*call
	underWay  map[uint64]int // how many commands, by session
	fresh     freshNames

	stampMu sync.Mutex // orders stamps and proposals
	last    int64

	covering turn // held over the proposal of horizon, which it guards
	horizon  time.Time

	ids     idRange
	tickets ticketClock // of maintain
	nodes   nodeMap
	work    work
	jobs    jobView
}

func newLeader(s *Server) *leader {
	l := &leader{
		s: s, log: s.log, since: time.Now(), open: make(chan struct{}), slots: make(chan struct{}, maxInFlight),
		locks: lease.NewLocks(), streams: map[uint64]*stream{}, reclaimed: map[uint64]bool{},
		ending: map[uint64]bool{}, opener: map[uint64]transport.Peer{}, calls: map[callKey]*call{}, underWay: map[uint64]int{}, covering: newTurn(), ids: idRange{reserving: newTurn()},
		writes: newTurnstile(maxWrites, maxWriting), reads: newTurnstile(4*runtime.GOMAXPROCS(0), math.MaxInt),
	}
	l.ctx, l.cancel = context.WithCancel(s.ctx)
	l.work = newWork()
	l.tickets.life = s.cfg.Timing.TicketLife
	l.jobs = jobView{l: l, changed: make(chan struct{}, 1)}
	return l
}

// stop ends the term and waits for what belongs to it.
func (l *leader) stop() {
	l.cancel()
	l.mu.Lock()
	for _, st := range l.streams {
		st.close()
	}
	l.mu.Unlock()
	l.wg.Wait()
	l.log.Info("no longer the leader", "term", l.term)
}

// run takes office: the state catches up with everything committed before, a
// new cluster is set up, the sessions of the last leader are given time to come
// back; then it serves until the term ends.
func (l *leader) run() {
	s := l.s
	s.check.reset()
	if err := s.settled(s.raft.Barrier(30 * time.Second)); err != nil {
		l.log.Debug("leadership was lost before it began", "err", err)
		return
	}
	l.term = s.raft.CurrentTerm()
	l.last = s.fsm.last.Load()
	for l.ctx.Err() == nil {
		err := l.prepare()
		if err == nil {
			break
		}
		l.log.Warn("the leader cannot serve yet", "err", err)
		l.pause(200 * time.Millisecond)
	}
	if l.ctx.Err() != nil {
		return
	}
	l.log.Info("leading", "term", l.term, "after", time.Since(l.since).Round(time.Millisecond))
	if s.cfg.Jobs != nil {
		l.wg.Go(func() { s.cfg.Jobs.Lead(l.ctx, &l.jobs) })
	}
	l.wg.Go(l.maintain)
	s.setLeader(l)
	l.tick(time.Now())
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			l.tick(now)
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *leader) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.ctx.Done():
	}
}

// prepare reads what the term starts from.
func (l *leader) prepare() error {
	st := l.s.fsm.state()
	if _, err := st.Inode(wire.RootIno); errors.Is(err, wire.NotFound) {
		id := l.s.group.Cluster()
		if len(id) == 0 {
			id = make([]byte, 16)
			rand.Read(id)
		}
		r, err := l.propose(&wire.Command{Op: &wire.Command_Bootstrap{Bootstrap: &wire.Bootstrap{
			Policy: l.s.cfg.Policy.ToWire(), RootMode: 0o755, ClusterId: id,
		}}})
		if err != nil {
			return err
		}
		if code := wire.Code(r.Code); code != wire.OK && code != wire.Exists {
			return wire.Errorf(code, "set up the cluster", "", "%s", r.Message)
		}
	}
	sessions, err := st.Sessions()
	if err != nil {
		return err
	}
	ns, err := st.Horizon()
	if err != nil {
		return err
	}
	if err := l.nodes.load(st, l.since); err != nil {
		return err
	}
	lease0 := l.s.cfg.LeaseTime
	now := time.Now()
	// No lease lasts beyond the recorded horizon, nor beyond a lease time from
	// now, for the last leader had stepped down before this one was elected. The
	// least grace lets sessions that are still about come back after a long
	// silence of all servers.
	until := time.Unix(0, ns)
	if most := now.Add(lease0 + time.Second); until.After(most) {
		until = most
	}
	if least := now.Add(graceLeast); until.Before(least) {
		until = least
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.table = lease.New(l.term << 40)
	ids := make([]uint64, len(sessions))
	for i, rec := range sessions {
		ids[i] = rec.Id
		if rec.Role != "" {
			l.opener[rec.Id] = transport.Peer{Role: rec.Role, Name: rec.Cert}
		}
		l.table.Join(rec.Id, until)
	}
	l.grace = lease.NewGrace(ids, until)
	l.horizon = time.Unix(0, ns)
	return nil
}

// unlock sends the recalls and wakes the waiters that have become due while mu
// was held, then releases it.
func (l *leader) unlock() {
	sends, woken := l.table.Take()
	for _, x := range sends {
		if st := l.streams[x.Session]; st != nil {
			st.put(&wire.Push{Op: &wire.Push_Recall{Recall: x.Recall}})
		}
	}
	for _, op := range woken {
		wake(op.Done)
	}
	for _, w := range l.locks.Granted() {
		wake(w.Done)
	}
	l.mu.Unlock()
}

// wake signals a channel of capacity 1.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// lost is the error of everything that the end of the term interrupts.
func (l *leader) lost(op string) error { return l.s.notLeader(op) }

// await waits until done says so, under mu, looking again at each signal.
func (l *leader) await(ctx context.Context, signal <-chan struct{}, op string, done func() bool) error {
	for {
		l.mu.Lock()
		ok := done()
		l.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-signal:
		case <-ctx.Done():
			return wire.Errorf(wire.Timeout, op, "", "a holder of a lease did not give it up in time")
		case <-l.ctx.Done():
			return l.lost(op)
		}
	}
}

// settled waits for the end of the grace.
func (l *leader) settled(ctx context.Context, op string) error {
	select {
	case <-l.open:
		return nil
	default:
	}
	select {
	case <-l.open:
		return nil
	case <-ctx.Done():
		return wire.Errorf(wire.Unavailable, op, "", "the new leader is still waiting for the sessions of the last one")
	case <-l.ctx.Done():
		return l.lost(op)
	}
}

// propose stamps a command, puts it into the log, and waits until it has been
// applied here. It changes cmd. An error means that it may have been, or may
// still be, carried out, unless the code is Again.
func (l *leader) propose(cmd *wire.Command) (*wire.Result, error) {
	l.stampMu.Lock()
	l.last = max(time.Now().UnixNano(), l.last+1)
	cmd.TimeNs = l.last
	data, err := proto.Marshal(cmd)
	if err != nil {
		l.stampMu.Unlock()
		return nil, wire.Errorf(wire.Invalid, "propose", "", "the command cannot be encoded")
	}
	f := l.s.raft.Apply(data, proposeWait)
	l.stampMu.Unlock()
	switch err := l.s.settled(f); {
	case err == nil:
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return nil, wire.Errorf(wire.Unavailable, "propose", "", "the log is overloaded")
	default:
		return nil, l.lost("propose")
	}
	switch r := f.Response().(type) {
	case *wire.Result:
		return r, nil
	case error:
		return nil, &wire.Error{Code: wire.Unavailable, Op: "apply", Err: r}
	}
	return nil, wire.Errorf(wire.Internal, "apply", "", "no result")
}

// internal proposes a command of the leader's own and turns its code into an
// error.
func (l *leader) internal(cmd *wire.Command, op string) (*wire.Result, error) {
	r, err := l.propose(cmd)
	if err == nil && r.Code != 0 {
		err = wire.Errorf(wire.Code(r.Code), op, "", "%s", r.Message)
	}
	return r, err
}

// cover makes sure that the recorded horizon reaches until, before a lease that
// lasts so long is given.
func (l *leader) cover(until time.Time) error {
	if err := l.covering.take(l.ctx, "lease horizon"); err != nil {
		return l.lost("lease horizon")
	}
	defer l.covering.pass()
	if !until.After(l.horizon) {
		return nil
	}
	ahead := until.Add(horizonAhead)
	_, err := l.internal(&wire.Command{Op: &wire.Command_LeaseHorizon{LeaseHorizon: &wire.LeaseHorizon{UntilNs: ahead.UnixNano()}}}, "lease horizon")
	if err == nil {
		l.horizon = ahead
	}
	return err
}

// tick does what time brings: the end of the grace, of leases, of nodes.
func (l *leader) tick(now time.Time) {
	l.mu.Lock()
	var fence []uint64
	if !l.opened {
		fence = l.tryOpen(now)
	} else {
		fence = append(fence, l.table.Overdue(now)...)
		for _, id := range l.locks.Awaited() {
			if l.table.Until(id).Before(now) {
				fence = append(fence, id)
			}
		}
		fence = append(fence, l.table.Expired(now.Add(-l.s.cfg.Timing.Courtesy))...)
	}
	busy := len(l.streams) > 0
	l.unlock()
	for _, id := range fence {
		l.end(id)
	}
	if busy {
		l.spawn(func() {
			if err := l.cover(now.Add(l.s.cfg.LeaseTime + horizonAhead/4)); err != nil {
				l.log.Debug("the lease horizon could not be moved", "err", err)
			}
		})
	}
	l.nodes.tick(l, now)
}

// tryOpen ends the grace if it is over; else it lists the sessions to fence
// first. mu is held.
func (l *leader) tryOpen(now time.Time) []uint64 {
	over, missing := l.grace.Over(now)
	if over && !l.opened {
		l.opened = true
		close(l.open)
		l.log.Info("serving", "term", l.term, "after", now.Sub(l.since).Round(time.Millisecond))
	}
	return missing
}

// spawn runs f on a goroutine of the term; false once the term has ended.
func (l *leader) spawn(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spawnLocked(f)
}

func (l *leader) spawnLocked(f func()) bool {
	if l.ctx.Err() != nil {
		return false
	}
	l.wg.Go(f) // stop takes mu between cancel and Wait
	return true
}

// end fences a session, in the background.
func (l *leader) end(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ending[id] {
		return
	}
	l.ending[id] = l.spawnLocked(func() {
		_, err := l.internal(&wire.Command{Op: &wire.Command_EndSession{EndSession: &wire.EndSession{Id: id, Fenced: true}}}, "end session")
		if err == nil {
			l.log.Info("session ended by the leader", "session", id)
			l.drop(id)
		}
		l.mu.Lock()
		delete(l.ending, id)
		l.mu.Unlock()
	})
}

// drop forgets a session that has ended.
func (l *leader) drop(id uint64) {
	l.mu.Lock()
	l.table.Drop(id)
	for _, w := range l.locks.Drop(id) {
		wake(w.Done)
	}
	l.grace.Arrived(id)
	delete(l.reclaimed, id)
	delete(l.opener, id)
	if st := l.streams[id]; st != nil {
		delete(l.streams, id)
		st.close()
	}
	l.unlock()
}

// capability is the token for the chunk servers, good for some renewals.
func (l *leader) capability(session uint64) []byte {
	return block.Capability(l.s.cfg.Key, session, time.Now().Add(max(10*time.Minute, 4*l.s.cfg.LeaseTime)))
}
