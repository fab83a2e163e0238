package meta

import (
	"context"
	"time"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/lease"
)

// lock serves MethodLock. A waiting call waits as long as its context lives.
func (s *Server) lock(ctx context.Context, peer transport.Peer, q *wire.LockCall) (*wire.LockReply, error) {
	l, err := s.leading("lock")
	if err != nil {
		return nil, err
	}
	if err := l.admission(peer).session("lock", q.GetSession()); err != nil {
		return nil, err
	}
	if err := lease.Check(q.GetLock()); err != nil {
		return nil, err
	}
	if s.check.verify(ctx, s.raft) != nil {
		return nil, s.notLeader("lock")
	}
	if err := l.settled(ctx, "lock"); err != nil {
		return nil, err
	}
	owner := lease.Owner{Session: q.Session, ID: q.Lock.Owner}
	switch {
	case q.Cancel:
		return l.cancelLock(owner, q.Lock)
	case q.Lock.Wait && !q.Lock.Test && q.Lock.Type != wire.Unlock:
		return l.waitLock(ctx, owner, q.Lock)
	}
	return l.tryLock(ctx, owner, q.Lock)
}

// live: the session is known. mu is held.
func (l *leader) live(session uint64) error {
	if l.table.Until(session).IsZero() {
		return wire.Errorf(wire.NoSession, "lock", "", "the session has ended")
	}
	return nil
}

// tryLock sets, releases or tests a lock now. A lock of a session that has run
// out is no conflict: that session is fenced first.
func (l *leader) tryLock(ctx context.Context, o lease.Owner, q *wire.Lock) (*wire.LockReply, error) {
	ctx, done := context.WithTimeout(ctx, l.s.cfg.Timing.OpTimeout)
	defer done()
	for {
		l.mu.Lock()
		if err := l.live(o.Session); err != nil {
			l.mu.Unlock()
			return nil, err
		}
		var conflict *wire.Lock
		if q.Test {
			conflict = l.locks.Test(o, q)
		} else {
			conflict = l.locks.Set(o, q)
		}
		var over []uint64
		if conflict != nil {
			for _, id := range l.locks.Blockers(o, q) {
				if l.table.Until(id).Before(time.Now()) {
					over = append(over, id)
				}
			}
		}
		l.unlock()
		if conflict == nil {
			return &wire.LockReply{}, nil
		}
		if len(over) == 0 {
			if q.Test {
				return &wire.LockReply{Conflict: conflict}, nil
			}
			return &wire.LockReply{Code: uint32(wire.Again), Conflict: conflict}, nil
		}
		for _, id := range over {
			l.end(id)
		}
		t := time.NewTimer(20 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return &wire.LockReply{Code: uint32(wire.Again), Conflict: conflict}, nil
		case <-l.ctx.Done():
			t.Stop()
			return nil, l.lost("lock")
		}
	}
}

func (l *leader) waitLock(ctx context.Context, o lease.Owner, q *wire.Lock) (*wire.LockReply, error) {
	l.mu.Lock()
	if err := l.live(o.Session); err != nil {
		l.mu.Unlock()
		return nil, err
	}
	w, err := l.locks.Wait(o, q)
	l.unlock()
	if err != nil {
		return &wire.LockReply{Code: uint32(wire.CodeOf(err))}, nil
	}
	for {
		l.mu.Lock()
		granted, over := w.Granted, w.Over()
		l.mu.Unlock()
		if granted {
			return &wire.LockReply{}, nil
		}
		if over { // cancelled, or its session has ended
			l.mu.Lock()
			err := l.live(o.Session)
			l.mu.Unlock()
			if err != nil {
				return nil, err
			}
			return &wire.LockReply{Code: uint32(wire.Interrupted)}, nil
		}
		select {
		case <-w.Done:
		case <-l.ctx.Done():
			return nil, l.lost("lock")
		case <-ctx.Done():
			l.mu.Lock()
			l.locks.Cancel(w)
			granted := w.Granted
			l.unlock()
			if granted {
				return &wire.LockReply{}, nil
			}
			return &wire.LockReply{Code: uint32(wire.Interrupted)}, nil
		}
	}
}

// cancelLock ends the waiting calls for the same lock. If it had been granted
// before, that is the answer.
func (l *leader) cancelLock(o lease.Owner, q *wire.Lock) (*wire.LockReply, error) {
	l.mu.Lock()
	if err := l.live(o.Session); err != nil {
		l.mu.Unlock()
		return nil, err
	}
	ended, holds := l.locks.CancelLike(o, q)
	for _, w := range ended {
		wake(w.Done)
	}
	l.unlock()
	if holds {
		return &wire.LockReply{}, nil
	}
	return &wire.LockReply{Code: uint32(wire.Interrupted)}, nil
}
