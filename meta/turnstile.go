package meta

import (
	"context"
	"sync"

	"quernfs/internal/wire"
)

// payer is for whom something is done: users share alike, and the sessions of each.
type payer struct {
	uid     uint32
	session uint64
}

func payerOf(cred *wire.Cred, session uint64) payer { return payer{cred.GetUid(), session} }

// turnstile lets a bounded amount of work go on at a time. Of those who wait the user is
// next who has had the least since he began to wait, and of his sessions the one that
// has. So whoever asks for a thousand things at once waits for them himself, and a
// stranger waits for what goes on now. It is start-time fair queueing (Goyal, Vin,
// Cheng 1996), of users and within each of sessions.
type turnstile struct {
	most, mostBytes int

	mu    sync.Mutex
	count int // under way; guarded by mu
	bytes int // of what is under way; guarded by mu
	users row // who waits; guarded by mu
}

// turnBytes is what costs as much as one more piece of work.
const turnBytes = 4 << 10

// row are those who wait at one level: the users, or the sessions of one.
type row struct {
	now uint64 // the start of the turn that was given last
	of  map[uint64]*party
}

// party is one of them.
type party struct {
	start    uint64     // of its next turn; grows by the cost of each
	sessions row        // of a user
	queue    []*entrant // of a session
}

type entrant struct {
	bytes int
	ready chan struct{} // closed once it may go on
	gone  bool          // nobody waits for it any more
}

func newTurnstile(most, mostBytes int) *turnstile {
	return &turnstile{most: most, mostBytes: mostBytes}
}

// take waits for a turn for work of so many bytes. The caller calls done when it has
// ended. An error is that of ctx.
func (t *turnstile) take(ctx context.Context, who payer, bytes int) (done func(), err error) {
	done = func() {
		t.mu.Lock()
		t.release(bytes)
		t.mu.Unlock()
	}
	t.mu.Lock()
	if len(t.users.of) == 0 && t.room(bytes) {
		t.count, t.bytes = t.count+1, t.bytes+bytes
		t.mu.Unlock()
		return done, nil
	}
	x := &entrant{bytes: bytes, ready: make(chan struct{})}
	s := t.users.get(uint64(who.uid)).sessions.get(who.session)
	s.queue = append(s.queue, x)
	t.mu.Unlock()
	select {
	case <-x.ready:
		return done, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-x.ready: // it came meanwhile
		t.release(bytes)
	default:
		x.gone = true
	}
	return nil, &wire.Error{Code: wire.CodeOf(ctx.Err()), Op: "wait for a turn", Err: ctx.Err()}
}

// room says whether something more may go on. mu is held.
func (t *turnstile) room(bytes int) bool {
	return t.count == 0 || t.count < t.most && t.bytes+bytes <= t.mostBytes
}

// release gives back what a turn had, and gives the next ones. mu is held.
func (t *turnstile) release(bytes int) {
	t.count, t.bytes = t.count-1, t.bytes-bytes
	for len(t.users.of) > 0 {
		uid, user := t.users.least()
		session, s := user.sessions.least()
		x := s.queue[0]
		if !x.gone && !t.room(x.bytes) {
			return
		}
		if s.queue = s.queue[1:]; !x.gone {
			cost := 1 + uint64(x.bytes)/turnBytes
			t.users.charge(user, cost)
			user.sessions.charge(s, cost)
			t.count, t.bytes = t.count+1, t.bytes+x.bytes
			close(x.ready)
		}
		if len(s.queue) == 0 {
			delete(user.sessions.of, session)
		}
		if len(user.sessions.of) == 0 {
			delete(t.users.of, uid)
		}
	}
}

// get is the party of one who waits. Who comes anew is as if he had had as much as
// the one who was served last.
func (r *row) get(key uint64) *party {
	p := r.of[key]
	if p == nil {
		if r.of == nil {
			r.of = map[uint64]*party{}
		}
		p = &party{start: r.now}
		r.of[key] = p
	}
	return p
}

// least is the party whose turn is next; there is one.
func (r *row) least() (key uint64, p *party) {
	for k, x := range r.of {
		if p == nil || x.start < p.start || x.start == p.start && k < key {
			key, p = k, x
		}
	}
	return key, p
}

func (r *row) charge(p *party, cost uint64) {
	r.now = p.start
	p.start += cost
}
