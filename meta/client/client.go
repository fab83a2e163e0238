package client

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// Holder keeps what a session holds: leases, caches, locks. The package
// comment says in which order its methods are called.
type Holder interface {
	// Recall brings the lease down as asked and says what is left. It runs on
	// a goroutine of its own and may take as long as flushing takes; it must
	// not wait for commands of this session other than those of the flush.
	Recall(*wire.Recall) *wire.Recalled
	// Held lists every lease held now, Locks every file lock, for a leader that
	// has forgotten them.
	Held() []*wire.Grant
	Locks() []*wire.LockClaim
	// Reclaimed tells what the leader has accepted, with new ids; a lease that
	// is not listed is gone, without a recall. One that is listed but unknown
	// here is to be ignored.
	Reclaimed([]*wire.Grant)
	// Lapsed: the lease ran out without a renewal. Nothing cached may be used,
	// nothing may be delayed, until Reclaimed. What is dirty is kept.
	Lapsed()
	// Ended: the session was ended by meta and nothing is held; what was dirty
	// is lost and must be dropped before Ended returns. Commands belong to the
	// new session from then on.
	Ended()
	// Nodes is the cluster map, whenever it changes.
	Nodes([]*wire.NodeStatus)
	// Capability is the token for the chunk servers, whenever it is renewed.
	Capability([]byte)
}

// Dialer finds connections; *transport.Pool is one.
type Dialer interface {
	Get(ctx context.Context, e *wire.Endpoint) (transport.Conn, error)
}

// Config says which cluster, and who we are.
type Config struct {
	Servers     []*wire.Endpoint // of the meta servers; at least one
	Pool        Dialer
	Name        string        // for people: the mount point or the process
	Host        string        // default: the host's name
	Sole        bool          // no other process uses this Name on this Host: what is left of one that was killed is ended at once
	Holder      Holder        // nil: no session
	CallTimeout time.Duration // bounds every call, retries included; default 30 s
	Log         *slog.Logger
}

// Client is one session's, or a sessionless, connection to the cluster. All
// methods may be called concurrently.
type Client struct {
	cfg    Config
	log    *slog.Logger
	finder *finder

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	calls  *queue // callbacks, in order

	mu      sync.Mutex
	session uint64        // 0: none, or a new one is being opened
	ready   chan struct{} // closed when session is usable; replaced when it ends
	seq     sequence
	epoch   uint64 // counts connections of the push stream
	seen    uint64 // highest id of a grant received
	floor   uint64
	push    *push // nil: not connected
	closed  bool

	closeOnce sync.Once
	closeErr  error
}

// Open opens the session and returns once it is connected; without a Holder it
// returns at once, and calls find the servers when they are made.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if len(cfg.Servers) == 0 {
		return nil, wire.Errorf(wire.Invalid, "open session", "", "no metadata server is named")
	}
	if cfg.Pool == nil {
		return nil, wire.Errorf(wire.Invalid, "open session", "", "no connection pool is given")
	}
	if cfg.CallTimeout <= 0 {
		cfg.CallTimeout = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Host == "" {
		cfg.Host, _ = os.Hostname()
	}
	c := &Client{cfg: cfg, log: cfg.Log, finder: newFinder(cfg.Servers, cfg.Pool), calls: newQueue(), ready: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if cfg.Holder == nil {
		close(c.ready)
		return c, nil
	}
	ctx, done := context.WithTimeout(ctx, cfg.CallTimeout)
	defer done()
	id, err := c.openSession(ctx)
	if err != nil {
		c.cancel()
		return nil, err
	}
	ready := c.ready
	c.wg.Add(2)
	go func() { defer c.wg.Done(); c.calls.run(c.ctx) }()
	go func() { defer c.wg.Done(); newKeeper(c, id).run() }()
	select {
	case <-ready:
		return c, nil
	case <-ctx.Done():
		c.cancel()
		c.wg.Wait()
		return nil, wire.Errorf(wire.Unavailable, "open session", "", "no metadata server accepted the session in time")
	}
}

// Session is the session's id, 0 without one or while a new one is being opened.
func (c *Client) Session() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

// Floor: grants with ids up to this count only if Held listed them or
// Reclaimed did; see the package comment.
func (c *Client) Floor() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.floor
}

// Do carries out cmd exactly once. It sets session (unless the caller did), seq
// and ack_below of a copy of the message, never of cmd itself. A cmd.session
// that is not the present session gives NoSession: so a change that was made
// under a session can never be carried out under its successor. A result whose
// code is not 0 comes back beside its *wire.Error.
func (c *Client) Do(ctx context.Context, cmd *wire.Command) (*wire.Result, error) {
	ctx, done := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer done()
	msg := wire.Shallow(cmd)
	msg.Seq, msg.AckBelow = 0, 0
	if c.cfg.Holder != nil {
		session, err := c.usable(ctx, cmd.Session)
		if err != nil {
			return nil, err
		}
		msg.Session = session
		c.mu.Lock()
		if c.session != session {
			c.mu.Unlock()
			return nil, wire.Errorf(wire.NoSession, opName(cmd), "", "the session has ended")
		}
		msg.Seq, msg.AckBelow = c.seq.take()
		c.mu.Unlock()
		defer func() {
			c.mu.Lock()
			if c.session == session {
				c.seq.done(msg.Seq)
			}
			c.mu.Unlock()
		}()
	}
	resp, epoch, err := c.call(ctx, wire.MethodMutate, msg, true)
	if err != nil {
		c.mu.Lock()
		if c.session == msg.Session {
			c.seq.unheard = max(c.seq.unheard, msg.Seq)
		}
		c.mu.Unlock()
		c.ended(msg.Session, err)
		return nil, err
	}
	r := resp.(*wire.Result)
	if len(r.Grants) > 0 {
		r = withGrants(r, c.admit(epoch, r.Grants))
	}
	if r.Code != 0 {
		err := failed(wire.Code(r.Code), opName(cmd), r.Message)
		c.ended(msg.Session, err)
		return r, err
	}
	return r, nil
}

const settleEvery = 50 * time.Millisecond // between looks for commands under way

// Settle returns when none of the commands that have failed here so far can be carried
// out any more: one that may still be on its way has been carried out by then, or
// will be refused. It waits for commands that were begun earlier than these.
func (c *Client) Settle(ctx context.Context) error {
	c.mu.Lock()
	session, last := c.session, c.seq.unheard
	c.mu.Unlock()
	for {
		c.mu.Lock()
		gone, over := c.session != session, c.seq.low > last
		c.mu.Unlock()
		if gone || last == 0 {
			return nil // what belongs to a session that has ended is refused
		}
		if over {
			break
		}
		select {
		case <-time.After(settleEvery):
		case <-ctx.Done():
			return ctxError(ctx, "settle", "earlier commands are still under way")
		}
	}
	// Any command says that those before it are over (ack_below).
	_, err := c.Do(ctx, &wire.Command{Session: session, Op: &wire.Command_ReleaseOrphans{ReleaseOrphans: &wire.ReleaseOrphans{}}})
	if errors.Is(err, wire.NoSession) {
		return nil
	}
	return err
}

// Ask answers q, as of a moment between call and return. An answer whose code
// is not 0 comes back beside its *wire.Error.
func (c *Client) Ask(ctx context.Context, q *wire.Query) (*wire.Answer, error) {
	ctx, done := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer done()
	msg := q
	if c.cfg.Holder != nil {
		session, err := c.usable(ctx, q.Session)
		if err != nil {
			return nil, err
		}
		msg = &wire.Query{Partition: q.Partition, Session: session, Cred: q.Cred, Op: q.Op}
	}
	resp, epoch, err := c.call(ctx, wire.MethodQuery, msg, true)
	if err != nil {
		c.ended(msg.Session, err)
		return nil, err
	}
	a := resp.(*wire.Answer)
	if len(a.Grants) > 0 {
		a = answerWith(a, c.admit(epoch, a.Grants))
	}
	if a.Code != 0 {
		err := failed(wire.Code(a.Code), queryName(q), a.Message)
		c.ended(msg.Session, err)
		return a, err
	}
	return a, nil
}

// Lock takes, releases or tests a file lock. With wait it waits as long as ctx
// lives, over leader changes too; when ctx ends, the error is Interrupted and
// what the owner held before is unchanged, unless the lock had just been
// granted: then Lock succeeds. A conflict gives Again with the reply beside the error.
func (c *Client) Lock(ctx context.Context, l *wire.Lock) (*wire.LockReply, error) {
	if !l.Wait || l.Type == wire.Unlock {
		var done context.CancelFunc
		ctx, done = context.WithTimeout(ctx, c.cfg.CallTimeout)
		defer done()
	}
	session, err := c.usable(ctx, 0)
	if err != nil {
		return nil, err
	}
	resp, _, err := c.call(ctx, wire.MethodLock, &wire.LockCall{Session: session, Lock: l}, !l.Wait)
	if err != nil && ctx.Err() != nil && l.Wait && l.Type != wire.Unlock && !l.Test {
		// The lock may have been granted just now: ask, and give up the wait.
		ctx, done := context.WithTimeout(c.ctx, c.cfg.CallTimeout)
		defer done()
		resp, _, err = c.call(ctx, wire.MethodLock, &wire.LockCall{Session: session, Lock: l, Cancel: true}, true)
	}
	if err != nil {
		c.ended(session, err)
		return nil, err
	}
	r := resp.(*wire.LockReply)
	if r.Code != 0 {
		err := failed(wire.Code(r.Code), "lock", "")
		c.ended(session, err)
		return r, err
	}
	return r, nil
}

// Release gives leases back, whole: nothing of the lease on these inodes is
// left, unless a grant with a higher id was given meanwhile. It neither waits nor fails: a lease whose release
// gets lost is recalled one day.
func (c *Client) Release(grants []*wire.Grant) {
	if len(grants) == 0 {
		return
	}
	c.mu.Lock()
	p := c.push
	c.mu.Unlock()
	if p != nil {
		p.send(&wire.FromClient{Op: &wire.FromClient_Release{Release: &wire.Release{Grants: grants}}})
	}
}

// Call makes any call at the leader, with retries until CallTimeout.
func (c *Client) Call(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, error) {
	ctx, done := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer done()
	resp, _, err := c.call(ctx, m, req, true)
	return resp, err
}

// RegisterNode makes node known, by its name, and returns its id. It needs no
// session; the caller's role must be one that serves (chunkd, agent, edge).
func (c *Client) RegisterNode(ctx context.Context, node *wire.Node) (uint32, error) {
	ctx, done := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer done()
	cmd := &wire.Command{Op: &wire.Command_PutNode{PutNode: &wire.PutNode{Node: node}}}
	resp, _, err := c.call(ctx, wire.MethodMutate, cmd, true)
	if err != nil {
		return 0, err
	}
	r := resp.(*wire.Result)
	if r.Code != 0 {
		return 0, failed(wire.Code(r.Code), "register node", r.Message)
	}
	return uint32(r.Value), nil
}

// Close ends the session, so that nobody has to wait for its lease to run out.
// The caller has flushed what it wants kept. Close waits for recalls that the
// Holder is still carrying out.
func (c *Client) Close(ctx context.Context) error {
	c.closeOnce.Do(func() {
		c.mu.Lock()
		id := c.session
		c.closed = true
		c.mu.Unlock()
		if id != 0 {
			ctx, done := context.WithTimeout(ctx, c.cfg.CallTimeout)
			cmd := &wire.Command{Session: id, Op: &wire.Command_EndSession{EndSession: &wire.EndSession{Id: id}}}
			_, _, err := c.call(ctx, wire.MethodMutate, cmd, true)
			done()
			if err != nil && !errors.Is(err, wire.NoSession) {
				c.closeErr = err
			}
		}
		c.cancel()
		c.wg.Wait()
	})
	return c.closeErr
}

// usable waits until there is a session; want, if not 0, must be it.
func (c *Client) usable(ctx context.Context, want uint64) (uint64, error) {
	if c.cfg.Holder == nil {
		return 0, nil
	}
	for {
		c.mu.Lock()
		id, ready, closed := c.session, c.ready, c.closed
		c.mu.Unlock()
		switch {
		case closed:
			return 0, wire.Errorf(wire.Shutdown, "session", "", "the client is closed")
		case id != 0 && want != 0 && want != id:
			return 0, wire.Errorf(wire.NoSession, "session", "", "the session has ended")
		case id != 0:
			return id, nil
		case want != 0:
			return 0, wire.Errorf(wire.NoSession, "session", "", "the session has ended")
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return 0, ctxError(ctx, "session", "no session could be opened")
		case <-c.ctx.Done():
			return 0, wire.Errorf(wire.Shutdown, "session", "", "the client is closed")
		}
	}
}

// admit returns those grants that may be shown to the caller: none, if the
// push stream was connected anew since the call began.
func (c *Client) admit(epoch uint64, grants []*wire.Grant) []*wire.Grant {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch {
		return nil
	}
	for _, g := range grants {
		c.seen = max(c.seen, g.Id)
	}
	return grants
}

// ended looks at the error of a call: NoSession means that the push stream will
// learn the same, so it is hurried.
func (c *Client) ended(session uint64, err error) {
	if session == 0 || !errors.Is(err, wire.NoSession) {
		return
	}
	c.mu.Lock()
	p := c.push
	if c.session != session {
		p = nil
	}
	c.mu.Unlock()
	if p != nil {
		p.close()
	}
}

func (c *Client) openSession(ctx context.Context) (uint64, error) {
	cmd := &wire.Command{Op: &wire.Command_OpenSession{OpenSession: &wire.OpenSession{Name: c.cfg.Name, Host: c.cfg.Host, Sole: c.cfg.Sole}}}
	resp, _, err := c.call(ctx, wire.MethodMutate, cmd, true)
	if err != nil {
		return 0, err
	}
	r := resp.(*wire.Result)
	if r.Code != 0 {
		return 0, failed(wire.Code(r.Code), "open session", r.Message)
	}
	return r.Value, nil
}
