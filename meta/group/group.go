package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quernfs/internal/wire"
)

// Config is what a member is made of.
type Config struct {
	Name string // the same at every start
	Addr string // where the others reach it, without a slash
	Home Home
	// Alone: there are no other members to ask; Lost is the sentence with which
	// such a server refuses to start without its log.
	Alone bool
	Lost  string

	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	FSM       raft.FSM
	// Applied is the place of the last command in the state, StateCluster the
	// id of the cluster as the state has it (empty: not yet).
	Applied      func() Position
	StateCluster func() []byte

	// Transport makes what carries raft's messages, with the address that this
	// member has in raft. What comes in has to pass g.Admit.
	Transport func(g *Group, local string) Transport
	// Ask sends a join to the leader, if the others say who that is.
	Ask func(ctx context.Context, q *wire.JoinMeta) (*wire.JoinReply, error)
	// Endpoint says how this server is reached, for the join.
	Endpoint *wire.Endpoint

	Raft *raft.Config // but for LocalID
	// Damaged is called at most once: log and state contradict each other, or
	// the group does not take this server; it must stop.
	Damaged func(error)
	Log     *slog.Logger
}

// Group is this server's part in the raft group.
type Group struct {
	cfg   Config
	log   *slog.Logger
	gate  *gate
	raft  atomic.Pointer[raft.Raft]
	peers peers

	taking sync.Mutex // held while the group is being changed here

	mu      sync.Mutex
	rec     Record // ID never changes
	waiting error  // why it is not in the group yet

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	broken sync.Once
}

const (
	changeWait = 10 * time.Second // for a change of the group
	askWait    = 5 * time.Second  // for the answer to a join
	nearEnough = 512              // entries that a server may lack to be given its vote
)

// Open makes this server a member, or has it ask to become one. It returns
// before there is a leader.
func Open(cfg Config) (*Group, error) {
	g := &Group{cfg: cfg, log: cfg.Log}
	g.peers.down = map[raft.ServerID]bool{}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	begin, err := g.identify()
	if err != nil {
		g.cancel()
		return nil, err
	}
	conf := *cfg.Raft
	conf.LocalID = raft.ServerID(g.rec.ID)
	g.gate = newGate(g, cfg.Transport(g, raftAddr(g.rec.ID, cfg.Addr)))
	logs := &guard{cfg.Logs, g}
	if begin {
		first := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: conf.LocalID, Address: g.gate.LocalAddr()}}}
		if err := raft.BootstrapCluster(&conf, logs, cfg.Stable, cfg.Snapshots, g.gate, first); err != nil {
			g.Close()
			return nil, err
		}
		if err := cfg.Home.UseRight(); err != nil {
			g.Close()
			return nil, err
		}
	}
	r, err := raft.NewRaft(&conf, cfg.FSM, logs, cfg.Stable, cfg.Snapshots, g.gate)
	if err != nil {
		g.Close()
		return nil, err
	}
	r.RegisterObserver(raft.NewObserver(make(chan raft.Observation), false, g.peers.observe))
	g.raft.Store(r)
	if s := g.servers(); len(s) == 1 && s[0].ID == conf.LocalID {
		g.wg.Go(g.hurry)
	}
	g.wg.Go(g.belong)
	return g, nil
}

// Raft is the member itself.
func (g *Group) Raft() *raft.Raft { return g.raft.Load() }

// ID is this member's id in raft.
func (g *Group) ID() raft.ServerID { return raft.ServerID(g.rec.ID) }

// Close shuts raft down. It may be called twice.
func (g *Group) Close() error {
	g.cancel()
	var err error
	if r := g.raft.Load(); r != nil {
		err = r.Shutdown().Error()
	}
	g.wg.Wait()
	return errors.Join(err, g.gate.Close())
}

// damaged stops the server.
func (g *Group) damaged(err error) { g.broken.Do(func() { g.cfg.Damaged(err) }) }

// hurry has the only voter stand for election at once, by the message with
// which a leader asks its successor to: there is nobody to wait for.
func (g *Group) hurry() {
	addr := g.gate.LocalAddr()
	q := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.rec.ID), Addr: []byte(addr)}}
	if err := g.gate.TimeoutNow(g.ID(), addr, q, new(raft.TimeoutNowResponse)); err != nil {
		g.log.Debug("the election starts by its timer", "err", err)
	}
}

// servers is the group as this member's log has it.
func (g *Group) servers() []raft.Server {
	r := g.raft.Load()
	if r == nil {
		return nil
	}
	return r.GetConfiguration().Configuration().Servers
}

// votes: this member's own log says that it votes.
func (g *Group) votes() bool {
	for _, s := range g.servers() {
		if s.ID == g.ID() {
			return s.Suffrage == raft.Voter
		}
	}
	return false
}

// Voters is how many members vote.
func (g *Group) Voters() int {
	n := 0
	for _, s := range g.servers() {
		if s.Suffrage == raft.Voter {
			n++
		}
	}
	return n
}

func (g *Group) term() uint64 {
	if r := g.raft.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// Waiting says why this server is not in the group yet, nil if it is.
func (g *Group) Waiting() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

const (
	joinEvery  = 100 * time.Millisecond
	sayEvery   = 30 * time.Second
	lonelyTime = 10 * time.Second // a voter without a leader asks whether it still belongs to the group
)

// belong sees to it that this server is in the group, and votes.
func (g *Group) belong() {
	t := time.NewTicker(joinEvery)
	defer t.Stop()
	var said, lonely time.Time
	for {
		select {
		case now := <-t.C:
			_, leader := g.Raft().LeaderWithID()
			if votes := g.votes(); votes && (leader != "" || g.cfg.Alone) {
				g.notWaiting()
				lonely = time.Time{}
				continue
			} else if votes {
				if lonely.IsZero() {
					lonely = now
				}
				if now.Sub(lonely) < lonelyTime {
					continue
				}
			}
		case <-g.ctx.Done():
			return
		}
		g.mu.Lock()
		if g.waiting == nil {
			g.waiting = errors.New(whyWaiting)
		}
		g.mu.Unlock()
		err := g.ask()
		if err != nil && time.Since(said) > sayEvery && g.ctx.Err() == nil {
			said = time.Now()
			g.log.Warn(whyWaiting, "id", g.rec.ID, "err", err)
		}
	}
}

const whyWaiting = "this metadata server waits until a majority of the others, with their state, takes it in"

func (g *Group) notWaiting() {
	g.mu.Lock()
	waited := g.waiting != nil
	g.waiting = nil
	g.mu.Unlock()
	if waited {
		g.log.Info("this metadata server votes", "id", g.rec.ID)
	}
}

// ask joins once.
func (g *Group) ask() error {
	ctx, done := context.WithTimeout(g.ctx, askWait)
	defer done()
	reply, err := g.cfg.Ask(ctx, &wire.JoinMeta{
		Name: g.cfg.Name, Endpoint: g.cfg.Endpoint, Id: g.rec.ID, Addr: string(g.gate.LocalAddr()),
		Cluster: g.Cluster(), Applied: g.Raft().AppliedIndex(),
	})
	if err == nil {
		err = g.learn(reply.GetCluster())
	}
	if text := reply.GetRefused(); text != "" {
		g.damaged(errors.New(text))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = fmt.Errorf("%s: %w", whyWaiting, err)
	if err == nil {
		g.waiting = fmt.Errorf("this metadata server is being filled by the others")
	}
	return err
}
