package offload

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/place"
)

// View is what a scheduler sees of the cluster whose meta server leads.
type View = interface {
	// Propose carries out UpdateJob or UpdateTask.
	Propose(ctx context.Context, cmd *wire.Command) (*wire.Result, error)
	// Query reads the state as this leader has applied it.
	Query(q *wire.Query) (*wire.Answer, error)
	// Jobs are the jobs that have not ended, by number.
	Jobs() ([]*wire.Job, error)
	// Nodes are all nodes; shared, not to be changed.
	Nodes() []*wire.NodeStatus
	// Changed is signalled after a command about jobs was applied or a node came
	// or went.
	Changed() <-chan struct{}
}

// SchedulerConfig is useful when zero.
type SchedulerConfig struct {
	LostAfter  time.Duration // since an agent's last poll; 0: 15 s
	LateAfter  time.Duration // a task is not late before it has run for so long; 0: 1 s
	StuckAfter time.Duration // a task does not seem to hang before it has run for so long; 0: a minute
	Model      place.Model   // zero: place.Default
	Log        *slog.Logger
}

// Scheduler gives tasks to agents while this server leads. The state machine
// has the truth; what a Scheduler remembers lasts for one term and is read
// anew whenever a command is refused.
type Scheduler struct {
	cfg   SchedulerConfig
	log   *slog.Logger
	known *knowledge

	mu   sync.Mutex
	term *term // guarded by mu; nil: not leading
}

// NewScheduler makes a scheduler.
func NewScheduler(cfg SchedulerConfig) *Scheduler {
	if cfg.LostAfter <= 0 {
		cfg.LostAfter = 15 * time.Second
	}
	if cfg.LateAfter <= 0 {
		cfg.LateAfter = time.Second
	}
	if cfg.StuckAfter <= 0 {
		cfg.StuckAfter = stuckAfter
	}
	if cfg.Model == (place.Model{}) {
		cfg.Model = place.Default
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Scheduler{cfg: cfg, log: cfg.Log, known: newKnowledge(cfg.Model)}
}

// SchedulerFor is a Scheduler whose Lead takes the view type of another
// package.
type SchedulerFor[V View] struct{ *Scheduler }

// Lead is Scheduler.Lead.
func (s SchedulerFor[V]) Lead(ctx context.Context, view V) { s.Scheduler.Lead(ctx, view) }

// tick is how often a term looks for what no signal announces.
const tick = time.Second

// Lead schedules until ctx ends.
func (s *Scheduler) Lead(ctx context.Context, view View) {
	t := newTerm(s, view)
	s.mu.Lock()
	s.term = t
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		if s.term == t {
			s.term = nil
		}
		s.mu.Unlock()
		t.wg.Wait()
	}()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		if err := t.round(ctx, began); err != nil && ctx.Err() == nil {
			s.log.Warn("jobs were not scheduled", "err", err)
		}
		rest(ctx, min(restMost, 3*time.Since(began)))
		select {
		case <-view.Changed():
		case <-t.kick:
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// restMost is how long a term rests between two rounds at most.
const restMost = 5 * time.Millisecond

// rest waits, so that what happens meanwhile is seen by one round.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Poll answers an agent; see term.poll.
func (s *Scheduler) Poll(ctx context.Context, p *wire.Poll) (*wire.PollReply, error) {
	s.mu.Lock()
	t := s.term
	s.mu.Unlock()
	if t == nil {
		return nil, wire.Errorf(wire.Unavailable, "poll", "", "this server does not schedule jobs now")
	}
	return t.poll(ctx, p, time.Now())
}

// Explain answers for the tasks of a job that wait and are among the next of
// all jobs: with where they would go as of now, and what that is chosen from. For
// a sketch it answers where that would go.
func (s *Scheduler) Explain(_ context.Context, op *wire.ExplainJob) (*wire.JobsAnswer, error) {
	s.mu.Lock()
	t := s.term
	s.mu.Unlock()
	if t == nil {
		return nil, wire.Errorf(wire.Unavailable, "explain", "", "this server does not schedule jobs now")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	job := op.GetId()
	if job == 0 && op.GetSketch() != nil {
		return t.sketch(op.Sketch, time.Now()), nil
	}
	a := new(wire.JobsAnswer)
	j := t.jobs[job]
	if j == nil {
		return a, nil // it has ended: its records say all
	}
	if len(j.pending) == 0 {
		return a, nil
	}
	ahead, agents := t.look(time.Now())
	for i, n := range j.pending {
		p := ahead[place.ID{Job: job, N: n}]
		x := &wire.Task{Job: job, N: n, State: j.task(n).t.State, Placement: p}
		if i == 0 {
			x.Reason = t.why(j, n, agents)
		}
		if p != nil || x.Reason != "" {
			a.Tasks = append(a.Tasks, x)
		}
	}
	return a, nil
}

// term is what a scheduler remembers while its server leads. Only Lead's
// goroutine runs rounds.
type term struct {
	s     *Scheduler
	view  View
	kick  chan struct{} // capacity 1: something to do
	began time.Time

	mu       sync.Mutex
	loaded   bool                       // guarded by mu: the first round has read the state
	jobs     map[uint64]*jobState       // guarded by mu: those that have not ended
	agents   map[uint32]*agentState     // guarded by mu
	parked   map[*parked]bool           // guarded by mu: polls that wait
	hosts    map[uint32]string          // guarded by mu: the host of each node, as of the last round
	programs map[uint32]*wire.ExecOffer // guarded by mu: which programs each node runs, likewise
	nodes    []*wire.NodeStatus         // guarded by mu: all, as of the last round
	facts    map[uint32]jobfile.Host    // guarded by mu: what jobs can say of the agents among nodes; nil: not made yet

	begun  map[uint64]bool // guarded by mu: jobs whose tasks are being made
	wg     sync.WaitGroup  // of what makes them
	synced time.Time       // when tasks that run for long were last looked at; used by rounds only
}

func newTerm(s *Scheduler, view View) *term {
	return &term{
		s: s, view: view, kick: make(chan struct{}, 1), began: time.Now(), synced: time.Now(),
		jobs: map[uint64]*jobState{}, agents: map[uint32]*agentState{}, parked: map[*parked]bool{}, begun: map[uint64]bool{},
	}
}

func (t *term) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// round brings the term up to date and does what there is to do.
func (t *term) round(ctx context.Context, now time.Time) error {
	if err := t.refresh(now); err != nil {
		return err
	}
	t.mu.Lock()
	t.loaded = true
	t.mu.Unlock()
	err := errors.Join(
		t.lose(ctx, now),
		t.life(ctx, now),
		t.advance(ctx),
		t.assign(ctx, now),
	)
	t.release()
	return err
}
