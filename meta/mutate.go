package meta

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// repeatFor is longer than any client goes on repeating a command.
const repeatFor = time.Minute

// callKey names a command of a session: what comes twice while it is under way
// is carried out once.
type callKey struct{ session, seq uint64 }

// call is a command under way. It runs on a goroutine of its own, so that a
// caller who gives up, or a second one, changes nothing about it.
type call struct {
	done   chan struct{}
	result *wire.Result
	err    error
}

// mutate serves MethodMutate.
func (s *Server) mutate(ctx context.Context, peer transport.Peer, cmd *wire.Command) (*wire.Result, error) {
	l, err := s.leading("mutate")
	if err != nil {
		return nil, err
	}
	a := l.admission(peer)
	if err := a.command(cmd); err != nil {
		return nil, err
	}
	cmd = a.signed(cmd)
	if _, ok := cmd.Op.(*wire.Command_OpenSession); ok {
		return l.openSession(cmd)
	}
	c, err := l.begin(ctx, cmd)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
		return c.result, c.err
	case <-ctx.Done():
		return nil, &wire.Error{Code: wire.CodeOf(ctx.Err()), Op: "mutate", Err: ctx.Err()}
	}
}

// begin starts a command, or finds it under way, or its stored reply.
func (l *leader) begin(ctx context.Context, cmd *wire.Command) (*call, error) {
	key := callKey{cmd.Session, cmd.Seq}
	once := key.session != 0 && key.seq != 0
	if !calm(cmd) {
		if err := l.settled(ctx, "mutate"); err != nil {
			return nil, err
		}
	}
	select {
	case l.slots <- struct{}{}:
	default:
		return nil, wire.Errorf(wire.Unavailable, "mutate", "", "too many commands are under way")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if once {
		if c := l.calls[key]; c != nil {
			<-l.slots
			return c, nil
		}
		if l.underWay[cmd.Session] >= maxOfSession {
			<-l.slots
			return nil, wire.Errorf(wire.Unavailable, "mutate", "", "too many commands of this session are under way")
		}
	}
	if cmd.Session != 0 && l.table.Until(cmd.Session).IsZero() {
		<-l.slots
		return nil, wire.Errorf(wire.NoSession, "mutate", "", "the session has ended")
	}
	c := &call{done: make(chan struct{})}
	started := l.spawnLocked(func() {
		defer func() { <-l.slots }()
		c.result, c.err = l.safely(cmd)
		close(c.done)
		if once {
			l.mu.Lock()
			delete(l.calls, key)
			if l.underWay[cmd.Session]--; l.underWay[cmd.Session] == 0 {
				delete(l.underWay, cmd.Session)
			}
			l.mu.Unlock()
		}
	})
	if !started {
		<-l.slots
		return nil, l.lost("mutate")
	}
	if once {
		l.calls[key] = c
		l.underWay[cmd.Session]++
	}
	return c, nil
}

// safely is carryOut, with a panic of which the command dies and nobody else.
func (l *leader) safely(cmd *wire.Command) (r *wire.Result, err error) {
	defer func() {
		if v := recover(); v != nil {
			l.log.Error("a command panicked", "command", opName(cmd), "panic", v, "stack", string(debug.Stack()))
			r, err = nil, wire.Errorf(wire.Internal, "mutate", "", "panic: %v", v)
		}
	}()
	return l.carryOut(cmd)
}

func opName(cmd *wire.Command) string {
	name, _ := opOf(cmd.ProtoReflect())
	return string(name)
}

// carryOut is the path of a mutation: names, leases, log, grants.
func (l *leader) carryOut(cmd *wire.Command) (*wire.Result, error) {
	st := l.s.fsm.state()
	// A command repeated over the change of leaders is known here before any
	// lease is recalled for it again. Later repetitions are rare, and the state
	// machine knows them too.
	if cmd.Session != 0 && cmd.Seq != 0 && time.Since(l.since) < repeatFor {
		if r, ok := st.Stored(cmd.Session, cmd.Seq); ok {
			return r, nil
		}
	}
	ctx, done := context.WithTimeout(l.ctx, l.s.cfg.Timing.OpTimeout)
	defer done()
	l.mu.Lock()
	op := l.table.Lock(cmd.Session, names(cmd)...)
	l.unlock()
	defer func() {
		l.mu.Lock()
		l.table.End(op)
		l.unlock()
	}()
	if err := l.await(ctx, op.Done, "mutate", op.Locked); err != nil {
		return nil, err
	}
	view := newStateTree(st)
	claims := targets(cmd, view)
	l.mu.Lock()
	fresh := l.fresh.of(cmd.Session, unclaimed(names(cmd), claims), time.Now())
	l.table.Claim(op, slices.Concat(claims, forgotten(fresh))...)
	l.unlock()
	if err := l.await(ctx, op.Done, "mutate", op.Ready); err != nil {
		return nil, err
	}
	l.mu.Lock()
	for _, x := range fresh {
		l.fresh.drop(x)
	}
	if len(claims) > 0 {
		l.fresh.add(cmd.Session, names(cmd), time.Now())
	}
	l.mu.Unlock()
	ready := stamped(cmd, stamping{view, func(ino uint64) []uint64 { return l.openers(op, ino) }, l.s.cfg.Limits})
	end, err := l.writes.take(ctx, payerOf(cmd.Cred, cmd.Session), proto.Size(ready))
	if err != nil {
		return nil, wire.Errorf(wire.Busy, "mutate", "", "the log did not have room in time")
	}
	r, err := l.propose(ready)
	end()
	if err != nil {
		return nil, err
	}
	if aboutJobs(cmd) {
		l.jobs.signal()
	}
	if r.Code != 0 {
		return r, nil
	}
	if after := rowOf(cmd).after; after != nil {
		after(l, cmd, r)
	} else if cmd.Session != 0 {
		r = l.granted(op, cmd, r)
	}
	return r, nil
}

// forgetGone drops the leases on inodes that do not exist any more. One that has
// a name left, or is open elsewhere, may be cached under its lease.
func (l *leader) forgetGone(session uint64, inos []uint64) {
	st := l.s.fsm.state()
	gone := slices.DeleteFunc(slices.Clone(inos), func(ino uint64) bool {
		_, err := st.Inode(ino)
		return !errors.Is(err, wire.NotFound)
	})
	l.mu.Lock()
	defer l.unlock()
	for _, ino := range gone {
		l.table.Forget(session, ino)
	}
}
