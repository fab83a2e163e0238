package client

import (
	"context"
	"errors"
	"time"

	"quernfs/internal/wire"
)

const (
	greetTimeout = 3 * time.Second // one attempt to connect the push stream
	reopenEvery  = 200 * time.Millisecond
)

// keeper keeps the session alive: it connects the push stream, renews, and
// decides when the lease has lapsed. All of its fields belong to run.
type keeper struct {
	c       *Client
	session uint64
	fresh   bool // nothing has been held under this session yet

	push   *push
	events chan event // from the readers and connectors, with their push
	lease  time.Duration
	valid  time.Time // the lease is ours until then
	lapsed bool
	n      uint64               // of the last renewal sent
	sent   map[uint64]time.Time // renewals without an answer
}

// event is something that happened to a stream.
type event struct {
	push    *push
	msg     *wire.Push
	lost    bool
	welcome *wire.Welcome
	sent    time.Time
	session uint64 // with welcome: a session opened in place of the old one
}

func newKeeper(c *Client, session uint64) *keeper {
	return &keeper{c: c, session: session, fresh: true, events: make(chan event, 64), lease: 8 * time.Second, sent: map[uint64]time.Time{}}
}

// run returns when the client closes.
func (k *keeper) run() {
	c := k.c
	lapse := time.NewTimer(time.Hour)
	renew := time.NewTicker(time.Hour)
	defer lapse.Stop()
	defer renew.Stop()
	connected := k.connect()
	for {
		select {
		case <-c.ctx.Done():
			<-connected
			k.drop()
			return
		case <-lapse.C:
			if !k.lapsed {
				k.lapsed = true
				c.log.Warn("the session's lease has lapsed", "session", k.session)
				c.calls.put(c.cfg.Holder.Lapsed)
			}
			if k.push != nil {
				k.drop()
				c.finder.move()
				connected = k.connect()
			}
		case <-renew.C:
			if k.push == nil {
				continue
			}
			if k.suspect() {
				k.drop()
				c.finder.move()
				connected = k.connect()
				continue
			}
			k.n++
			k.sent[k.n] = time.Now()
			k.push.send(&wire.FromClient{Op: &wire.FromClient_Renew{Renew: &wire.Renew{N: k.n}}})
		case e := <-k.events:
			switch {
			case e.welcome != nil:
				k.welcome(e)
				lapse.Reset(time.Until(k.valid))
				renew.Reset(k.lease / 4)
			case e.push != k.push:
			case e.lost:
				k.drop()
				connected = k.connect()
			default:
				k.receive(e.msg)
				if e.msg.GetRenewed() != nil {
					lapse.Reset(time.Until(k.valid))
				}
			}
		}
	}
}

// suspect: the last renewal but one still has no answer.
func (k *keeper) suspect() bool {
	for _, at := range k.sent {
		if time.Since(at) > k.lease/4 {
			return true
		}
	}
	return false
}

func (k *keeper) drop() {
	if k.push == nil {
		return
	}
	k.c.mu.Lock()
	k.c.push = nil
	k.c.mu.Unlock()
	p := k.push
	k.push = nil
	clear(k.sent)
	p.close()
	k.c.wg.Add(1)
	go func() { defer k.c.wg.Done(); p.wait() }()
}

func (k *keeper) receive(m *wire.Push) {
	c, h := k.c, k.c.cfg.Holder
	switch op := m.Op.(type) {
	case *wire.Push_Recall:
		p, r := k.push, op.Recall
		c.calls.put(func() {
			c.wg.Add(1)
			go func() {
				defer c.wg.Done()
				p.send(&wire.FromClient{Op: &wire.FromClient_Recalled{Recalled: h.Recall(r)}})
			}()
		})
	case *wire.Push_Renewed:
		at, ok := k.sent[op.Renewed.N]
		if !ok {
			return
		}
		for n := range k.sent {
			if n <= op.Renewed.N {
				delete(k.sent, n)
			}
		}
		k.valid = at.Add(k.lease - k.lease/10)
		k.capability(op.Renewed.Capability)
	case *wire.Push_Nodes:
		nodes := op.Nodes.Nodes
		c.calls.put(func() { h.Nodes(nodes) })
	}
}

func (k *keeper) capability(token []byte) {
	if len(token) > 0 {
		k.c.calls.put(func() { k.c.cfg.Holder.Capability(token) })
	}
}

// welcome takes over a stream that a connector has brought up.
func (k *keeper) welcome(e event) {
	c, h := k.c, k.c.cfg.Holder
	k.push = e.push
	k.lease = time.Duration(e.welcome.LeaseMs) * time.Millisecond
	if k.lease <= 0 {
		k.lease = 8 * time.Second
	}
	k.valid = e.sent.Add(k.lease - k.lease/10)
	k.lapsed = false
	clear(k.sent)
	c.mu.Lock()
	c.push = e.push
	c.mu.Unlock()
	k.capability(e.welcome.Capability)
	switch held := e.welcome.Held; {
	case e.session != 0: // a new one
		k.session, k.fresh = e.session, false
		c.calls.put(func() { h.Ended(); c.publish(e.session) })
	case k.fresh:
		k.fresh = false
		c.calls.put(func() { c.publish(k.session) })
	default:
		c.calls.put(func() { h.Reclaimed(held) })
	}
	c.log.Debug("session connected", "session", k.session, "held", len(e.welcome.Held))
	p := e.push
	p.start(func(m *wire.Push) { k.post(p.ctx, event{push: p, msg: m}) })
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		<-p.ctx.Done()
		k.post(c.ctx, event{push: p, lost: true})
	}()
}

func (k *keeper) post(ctx context.Context, e event) {
	select {
	case k.events <- e:
	case <-ctx.Done():
	}
}

// connect brings up a stream in the background, over a new session if the old
// one has been ended. The channel closes when it has given up or succeeded.
func (k *keeper) connect() <-chan struct{} {
	c, session, fresh := k.c, k.session, k.fresh
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		var pause backOff
		opened := uint64(0)
		for c.ctx.Err() == nil {
			e := event{session: opened}
			hello := &wire.Hello{Session: session}
			if !fresh && opened == 0 && !k.hello(hello) {
				return
			}
			ctx, done := context.WithTimeout(c.ctx, greetTimeout)
			var err error
			e.push, e.welcome, e.sent, err = c.greet(ctx, hello)
			done()
			switch {
			case err == nil:
				if !k.posted(e) {
					e.push.close()
					e.push.stream.Close()
				}
				return
			case errors.Is(err, wire.NoSession):
				c.log.Warn("the session was ended by the metadata servers", "session", session)
				c.retire()
				if session = k.reopen(&pause); session == 0 {
					return
				}
				opened = session
			default:
				c.log.Debug("the session is not connected", "session", session, "err", err)
				pause.wait(c.ctx)
			}
		}
	}()
	return finished
}

func (k *keeper) posted(e event) bool {
	select {
	case k.events <- e:
		return true
	case <-k.c.ctx.Done():
		return false
	}
}

// hello fills in what is held, asked in order with the other callbacks.
func (k *keeper) hello(h *wire.Hello) bool {
	c := k.c
	filled := make(chan struct{})
	c.calls.put(func() {
		c.mu.Lock()
		c.epoch++
		c.floor = c.seen
		c.mu.Unlock()
		h.Held = c.cfg.Holder.Held()
		h.Locks = c.cfg.Holder.Locks()
		close(filled)
	})
	select {
	case <-filled:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// reopen opens a new session, until the client closes.
func (k *keeper) reopen(pause *backOff) uint64 {
	for k.c.ctx.Err() == nil {
		ctx, done := context.WithTimeout(k.c.ctx, k.c.cfg.CallTimeout)
		id, err := k.c.openSession(ctx)
		done()
		if err == nil {
			return id
		}
		k.c.log.Debug("no new session yet", "err", err)
		pause.wait(k.c.ctx)
	}
	return 0
}

// retire makes the session unusable: calls wait for the next one.
func (c *Client) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != 0 {
		c.session = 0
		c.ready = make(chan struct{})
	}
	c.epoch++
	c.floor = c.seen
}

// publish lets calls use the session.
func (c *Client) publish(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = id
	c.seq = sequence{}
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
}
