package meta

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// Member is one metadata server: its name, which never changes, and the address
// that raft and redirected clients reach it at.
type Member struct {
	Name, Addr string
	Endpoint   *wire.Endpoint // more ways to reach it, or nil
}

// Config says what a server is, and its place in the cluster.
type Config struct {
	Disk Disk   // zero: the operating system's
	Dir  string // holds the log, the state and the snapshots; made if missing
	Name string // unique among the members, the same at every start
	Addr string // advertised, host:port; in process any unique word
	Key  []byte // the cluster key

	Server *transport.Server // carries raft, with Pool
	Mux    *transport.Mux    // gets the handlers
	Pool   *transport.Pool

	// Members are the metadata servers of the cluster, this one included, and
	// Join further ones: who is asked to take this server in when its directory is
	// empty. None: it is the only one.
	Members []Member
	Join    []*wire.Endpoint
	// Right is a file: while it is there, this server may begin the cluster, if
	// its directory is empty. Open removes it when it has. One server is
	// given it, once in the life of a cluster. "": no right.
	Right string
	// LostHint ends the sentence with which the only server refuses an empty
	// directory: what else can be done.
	LostHint string
	// Policy of the root directory of a new cluster; zero: 4+2.
	Policy block.Policy

	LeaseTime   time.Duration // default 8 s
	DeleteDelay time.Duration // from freeing a block to deleting its shards; default 60 s
	DeadAfter   time.Duration // from the last heartbeat to rebuilding elsewhere; default 10 min

	Jobs   JobScheduler // nil: jobs wait
	Limits Limits       // of each user but root
	Log    *slog.Logger

	// For tests; zero gives the defaults of raft.go.
	Timing Timing
}

// Limits are what the jobs of a user that have not ended may amount to, and how many
// that have ended are kept for how long; 0: anything.
type Limits struct {
	Jobs  uint32
	Tasks uint64
	Bytes uint64 // of job files and of the names of inputs
	Ended uint64
	TTL   time.Duration // of a job whose file does not say
}

// DefaultLimits are such that no user fills the memory of the metadata servers, or
// keeps their scheduler busy for long.
var DefaultLimits = Limits{Jobs: 10_000, Tasks: 1_000_000, Bytes: 256 << 20, Ended: 10_000, TTL: 30 * 24 * time.Hour}

// Timing bounds how long things take that time decides.
type Timing struct {
	Heartbeat   time.Duration // without contact: elections begin; default 750 ms
	LeaderLease time.Duration // without a quorum: the leader steps down; default 500 ms
	Courtesy    time.Duration // a silent session in nobody's way is kept; default 5 min
	OpTimeout   time.Duration // an operation's wait for others; default 28 s
	TicketLife  time.Duration // a block must be committed so long after its id was given out; default 1 h
	SnapshotLag uint64        // entries between snapshots; default 20000
	Segment     int           // bytes of one file of the log; default 16 MiB
}

// JobScheduler gives tasks to agents. One belongs to each server and works
// while that server leads.
type JobScheduler interface {
	// Lead runs on a goroutine of its own from the moment this server leads
	// until ctx ends, which is when it stops leading. Everything that the
	// scheduler remembers from an earlier term may be out of date.
	Lead(ctx context.Context, view JobView)
	// Poll answers an agent. It is called only between the start and the end of
	// Lead, by many goroutines; ctx ends at the latest when leading does. It
	// waits up to p.wait_ms for a task.
	Poll(ctx context.Context, p *wire.Poll) (*wire.PollReply, error)
}

// JobView is what a scheduler sees of the cluster. It is an alias, so that a
// scheduler can spell it out and need not import this package.
type JobView = interface {
	// Propose carries out SubmitJob, UpdateJob or UpdateTask. An error means that
	// it may or may not have been carried out; a result's code other than 0
	// comes as *wire.Error beside the result.
	Propose(ctx context.Context, cmd *wire.Command) (*wire.Result, error)
	// Query reads the state as this leader has applied it.
	Query(q *wire.Query) (*wire.Answer, error)
	// Jobs are the jobs that have not ended.
	Jobs() ([]*wire.Job, error)
	// Nodes are all nodes, with their liveness; shared, not to be changed.
	Nodes() []*wire.NodeStatus
	// Changed is signalled (capacity 1) after a command about jobs was applied
	// or a node came or went.
	Changed() <-chan struct{}
}

func (c *Config) check() error {
	bad := func(text string) error { return wire.Errorf(wire.Invalid, "open metadata server", c.Name, "%s", text) }
	switch {
	case c.Dir == "":
		return bad("no directory is given")
	case c.Name == "" || c.Addr == "":
		return bad("a name and an address are needed")
	case strings.ContainsAny(c.Name, "/\n") || strings.Contains(c.Addr, "/"):
		return bad("neither the name nor the address may have a slash")
	case len(c.Key) == 0:
		return bad("the cluster key is missing")
	case c.Server == nil || c.Mux == nil || c.Pool == nil:
		return bad("a transport server, its mux and a pool are needed")
	}
	named := len(c.Members) == 0 || len(c.Join) > 0
	for _, m := range c.Members {
		named = named || m.Name == c.Name && m.Addr == c.Addr
	}
	if !named {
		return bad("it is not among the members of the cluster, with this address")
	}
	if c.Policy == (block.Policy{}) {
		c.Policy = block.Policy{K: 4, M: 2}
	}
	if err := c.Policy.Validate(); err != nil {
		return err
	}
	set(&c.LeaseTime, 8*time.Second)
	set(&c.DeleteDelay, time.Minute)
	set(&c.DeadAfter, 10*time.Minute)
	set(&c.Timing.Heartbeat, 750*time.Millisecond)
	set(&c.Timing.LeaderLease, 500*time.Millisecond)
	set(&c.Timing.Courtesy, 5*time.Minute)
	set(&c.Timing.OpTimeout, 28*time.Second)
	set(&c.Timing.TicketLife, time.Hour)
	if c.Timing.SnapshotLag == 0 {
		c.Timing.SnapshotLag = 20000
	}
	if c.Timing.Segment == 0 {
		c.Timing.Segment = 16 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func set(d *time.Duration, to time.Duration) {
	if *d <= 0 {
		*d = to
	}
}

// lost refuses the only server of a cluster without its directory, before
// anything is made there.
func (c *Config) lost() error {
	if len(c.Join) > 0 || len(c.Members) > 1 {
		return nil
	}
	empty, err := blank(c.Disk, c.Dir)
	if err != nil || !empty {
		return nil // what is wrong is said by those who open it
	}
	if may, err := (record{home: &home{disk: c.Disk, dir: c.Dir}, right: c.Right}).MayBegin(); may || err != nil {
		return err
	}
	return wire.Errorf(wire.Corrupt, "open metadata server", c.Name, "%s", c.lostText())
}

func (c *Config) lostText() string {
	return "the metadata of this filesystem is gone: " + c.Dir + " is empty, and there is no other metadata server to fill it; restore it from a copy" + c.LostHint
}
