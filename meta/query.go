package meta

import (
	"cmp"
	"context"
	"slices"
	"time"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/lease"
)

// query serves MethodQuery. Every answer is as of a moment between the call's
// arrival and its end: this server leads, which it has verified, so no other can
// have changed the state meanwhile; and what a WRITE lease delays is recalled
// before it is read.
func (s *Server) query(ctx context.Context, peer transport.Peer, q *wire.Query) (*wire.Answer, error) {
	l, err := s.leading("query")
	if err != nil {
		return nil, err
	}
	if err := l.admission(peer).query(q); err != nil {
		return nil, err
	}
	if s.check.verify(ctx, s.raft) != nil {
		if ctx.Err() != nil {
			return nil, &wire.Error{Code: wire.CodeOf(ctx.Err()), Op: "query", Err: ctx.Err()}
		}
		return nil, s.notLeader("query")
	}
	switch op := q.Op.(type) {
	case *wire.Query_Allocate:
		return l.allocate(ctx, q, op.Allocate)
	case *wire.Query_ListNodes:
		return &wire.Answer{Op: &wire.Answer_Nodes{Nodes: &wire.NodesAnswer{Nodes: l.nodes.list()}}}, nil
	case *wire.Query_Status:
		return l.status(op.Status)
	case *wire.Query_StatFs:
		return l.statFS(q)
	case *wire.Query_ExplainJob:
		return s.explain(ctx, op.ExplainJob)
	}
	ctx, done := context.WithTimeout(ctx, s.cfg.Timing.OpTimeout)
	defer done()
	if err := l.settled(ctx, "query"); err != nil {
		return nil, err
	}
	if q.Session != 0 {
		l.mu.Lock()
		gone := l.table.Until(q.Session).IsZero()
		l.mu.Unlock()
		if gone {
			return nil, wire.Errorf(wire.NoSession, "query", "", "the session has ended")
		}
	}
	switch op := q.Op.(type) {
	case *wire.Query_Lookup:
		return l.lookup(ctx, q, op.Lookup)
	case *wire.Query_GetInode:
		return l.read(ctx, q, op.GetInode.GetIno(), op.GetInode.GetLease())
	case *wire.Query_Access:
		return l.read(ctx, q, op.Access.GetIno(), false)
	case *wire.Query_GetExtents:
		return l.read(ctx, q, op.GetExtents.GetIno(), false)
	case *wire.Query_GetXattr:
		return l.read(ctx, q, op.GetXattr.GetIno(), false)
	case *wire.Query_ListXattr:
		return l.read(ctx, q, op.ListXattr.GetIno(), false)
	case *wire.Query_ReadDir:
		return l.readDir(ctx, q, op.ReadDir)
	case *wire.Query_Acquire:
		return l.acquire(ctx, q, op.Acquire)
	}
	return l.ask(ctx, q)
}

// ask reads the state when it is the caller's turn.
func (l *leader) ask(ctx context.Context, q *wire.Query) (*wire.Answer, error) {
	done, err := l.reads.take(ctx, payerOf(q.Cred, q.Session), 0)
	if err != nil {
		return nil, err
	}
	defer done()
	return l.s.fsm.state().Query(q)
}

// peek waits until no other session delays changes of ino. For a look-up it does
// not when that is urgent: then ino comes without a lease that covers attributes.
func (l *leader) peek(ctx context.Context, session, ino uint64, look bool) error {
	l.mu.Lock()
	if !l.table.Delayed(session, ino) {
		l.mu.Unlock()
		return nil
	}
	var op *lease.Op
	if look {
		op = l.table.Look(session)
	} else {
		op = l.table.Lock(session)
	}
	l.table.Claim(op, lease.Claim{Ino: ino, Kind: lease.Peek})
	l.unlock()
	err := l.await(ctx, op.Done, "query", func() bool { return op.Ready() || look && l.table.Urgent(op) })
	l.mu.Lock()
	l.table.End(op)
	l.unlock()
	return err
}

// read answers a query about one inode. The grant, a new one if wanted, else a
// renewal of what is held, is given before the state is read.
func (l *leader) read(ctx context.Context, q *wire.Query, ino uint64, wanted bool) (*wire.Answer, error) {
	if err := l.peek(ctx, q.Session, ino, false); err != nil {
		return nil, err
	}
	l.mu.Lock()
	var g *wire.Grant
	if !l.table.DirBusy(ino, q.Session) {
		if wanted {
			g = l.table.Grant(q.Session, ino, wire.Mode_READ, nil)
		} else {
			g = l.table.Refresh(q.Session, ino, nil)
		}
	}
	l.unlock()
	a, err := l.ask(ctx, q)
	if err == nil {
		a, err = l.unlessGone(q.Session, a)
	}
	if err != nil {
		l.undo(q.Session, g)
		return nil, err
	}
	if g != nil {
		if wire.Code(a.Code) == wire.NotFound {
			l.undo(q.Session, g)
			return a, nil
		}
		a.Grants = append(a.Grants, g)
	}
	return a, nil
}

// unlessGone turns an answer with an inode that has no name, and is not kept for
// this session, into NotFound: whoever it is kept for lets go of it at any
// moment.
func (l *leader) unlessGone(session uint64, a *wire.Answer) (*wire.Answer, error) {
	in := a.GetInode().GetInode()
	if session == 0 || in == nil || in.Attr.Nlink > 0 {
		return a, nil
	}
	holders, err := l.s.fsm.state().Holders(in.Attr.Ino)
	if err != nil || slices.Contains(holders, session) {
		return a, err
	}
	return &wire.Answer{Code: uint32(wire.NotFound), Index: a.Index}, nil
}

// undo takes a grant back that was never shown.
func (l *leader) undo(session uint64, g *wire.Grant) {
	if g == nil {
		return
	}
	l.mu.Lock()
	l.table.Undo(session, g)
	l.unlock()
}

// lookup resolves a name. Which inode the leases are for is known only from the
// state, and may change until they are given: then it starts again. An entry
// that is being changed is waited for, so that what is found comes with a lease:
// then the session is asked before the inode goes that it is about to open. It is
// not waited for while somebody waits for the session (lease.Urgent).
func (l *leader) lookup(ctx context.Context, q *wire.Query, op *wire.Lookup) (*wire.Answer, error) {
	st := l.s.fsm.state()
	name := lease.Name{Dir: op.GetParent(), Name: op.GetName()}
	var turn *lease.Op // keeps the entry as it is
	asked := false     // who has changed it just now
	defer func() {
		if turn != nil {
			l.mu.Lock()
			l.table.End(turn)
			l.unlock()
		}
	}()
	for {
		var child uint64
		if d, err := st.Entry(name.Dir, name.Name); err == nil {
			child = d.Ino
			if err := l.peek(ctx, q.Session, child, true); err != nil {
				return nil, err
			}
		}
		var dirGrant, childGrant *wire.Grant
		owed := false
		l.mu.Lock()
		if op.Lease && turn == nil && l.table.NameBusy(name) {
			turn = l.table.Look(q.Session, name)
		}
		answerable := func() bool { return turn == nil || turn.Locked() || l.table.Urgent(turn) }
		if !answerable() {
			l.unlock()
			if err := l.await(ctx, turn.Done, "lookup", answerable); err != nil {
				return nil, err
			}
			continue
		}
		if fresh := l.fresh.of(q.Session, []lease.Name{name}, time.Now()); len(fresh) > 0 && (turn == nil || turn.Locked()) && !asked {
			asked = true
			if turn == nil {
				turn = l.table.Look(q.Session, name)
			}
			l.unlock()
			if err := l.forgotten(ctx, q.Session, fresh); err != nil {
				return nil, err
			}
			continue
		}
		whole := !l.table.DirBusy(name.Dir, q.Session)
		if op.Lease {
			urgent := turn != nil && !turn.Locked()
			if owed = urgent && l.table.Owed(turn); !owed {
				dirGrant = l.table.Grant(q.Session, name.Dir, wire.Mode_READ, nil)
			}
			if child != 0 {
				if childGrant = l.table.Grant(q.Session, child, wire.Mode_READ, nil); childGrant == nil {
					childGrant = l.table.Grant(q.Session, child, wire.Mode_OPEN, nil)
				}
			}
			if urgent {
				childGrant = cmp.Or(l.table.Attend(turn, child), childGrant)
			}
		}
		l.unlock()
		a, err := l.ask(ctx, q)
		if err != nil {
			return nil, err
		}
		found := a.GetInode().GetInode().GetAttr().GetIno()
		if found != child {
			l.undo(q.Session, childGrant)
			childGrant = nil
		}
		if found != child && found != 0 {
			l.undo(q.Session, dirGrant)
			if ctx.Err() != nil {
				return nil, wire.Errorf(wire.Timeout, "lookup", op.Name, "the entry keeps changing")
			}
			continue
		}
		if a.GetInode() == nil { // refused: nothing was learned that may be cached
			l.undo(q.Session, dirGrant)
			return a, nil
		}
		a.Owed = owed
		for _, g := range []*wire.Grant{dirGrant, childGrant} {
			if g != nil {
				a.Grants = append(a.Grants, g)
			}
		}
		if in := a.GetInode(); in != nil && !(whole && dirGrant != nil) {
			in.Parent = nil // its attributes are about to change
		}
		return a, nil
	}
}

// readDir lists a page. The leases on the children are given between a reading
// of the names and one of the inodes; a child that another session may be
// changing under a WRITE lease comes without its inode.
func (l *leader) readDir(ctx context.Context, q *wire.Query, op *wire.ReadDir) (*wire.Answer, error) {
	grants := map[uint64]*wire.Grant{}
	delayed := map[uint64]bool{}
	if op.GetPlus() {
		bare := &wire.Query{Partition: q.Partition, Session: q.Session, Cred: q.Cred, Op: &wire.Query_ReadDir{
			ReadDir: &wire.ReadDir{Ino: op.Ino, After: op.After, Limit: op.Limit},
		}}
		a, err := l.ask(ctx, bare)
		if err != nil || a.Code != 0 {
			return a, err
		}
		l.mu.Lock()
		for _, e := range a.GetDir().GetEntries() {
			grants[e.Ino] = nil
			if l.table.Delayed(q.Session, e.Ino) {
				delayed[e.Ino] = true
			} else if op.Lease {
				grants[e.Ino] = l.table.Grant(q.Session, e.Ino, wire.Mode_READ, nil)
			}
		}
		l.unlock()
	}
	var dirGrant *wire.Grant
	l.mu.Lock()
	if op.GetLease() && !l.table.DirBusy(op.Ino, q.Session) {
		dirGrant = l.table.Grant(q.Session, op.Ino, wire.Mode_READ, nil)
	}
	l.unlock()
	a, err := l.ask(ctx, q)
	if err == nil {
		l.mu.Lock()
		fresh := l.fresh.in(q.Session, op.Ino, time.Now())
		l.mu.Unlock()
		err = l.forgotten(ctx, q.Session, fresh)
	}
	if err != nil || a.Code != 0 {
		l.undo(q.Session, dirGrant)
		return a, err
	}
	if dirGrant != nil {
		a.Grants = append(a.Grants, dirGrant)
	}
	for _, e := range a.GetDir().GetEntries() {
		g, seen := grants[e.Ino]
		if !seen || delayed[e.Ino] {
			e.Inode = nil // it came after the first reading, or is not ours to tell
			continue
		}
		if g != nil {
			a.Grants = append(a.Grants, g)
			grants[e.Ino] = nil // a second name of it
		}
	}
	return a, nil
}

// acquire takes a lease and answers with the inode as it then is.
func (l *leader) acquire(ctx context.Context, q *wire.Query, want *wire.Acquire) (*wire.Answer, error) {
	ino, mode := want.GetIno(), want.GetMode()
	if q.Session == 0 || mode < wire.Mode_OPEN || mode > wire.Mode_WRITE {
		return nil, wire.Errorf(wire.Invalid, "acquire", "", "a session and a mode are needed")
	}
	st := l.s.fsm.state()
	in, err := st.Inode(ino)
	if err != nil {
		return refusal(err)
	}
	if mode == wire.Mode_WRITE && isDir(in) {
		return nil, wire.Errorf(wire.IsDir, "acquire", "", "directories have no WRITE lease")
	}
	l.mu.Lock()
	op := l.table.Lock(q.Session)
	l.table.Claim(op, lease.Claim{Ino: ino, Kind: lease.Take, Mode: mode})
	l.unlock()
	err = l.await(ctx, op.Done, "acquire", op.Ready)
	var g *wire.Grant
	l.mu.Lock()
	if err == nil {
		g = l.table.Grant(q.Session, ino, mode, op)
	}
	l.table.End(op)
	l.unlock()
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, wire.Errorf(wire.NoSession, "acquire", "", "the session has ended")
	}
	a, err := l.ask(ctx, &wire.Query{Session: q.Session, Cred: q.Cred, Op: &wire.Query_GetInode{GetInode: &wire.GetInode{Ino: ino}}})
	if err == nil {
		a, err = l.unlessGone(q.Session, a)
	}
	if err != nil || a.Code != 0 {
		l.undo(q.Session, g)
		return a, err
	}
	a.Grants = append(a.Grants, g)
	return a, nil
}

// refusal turns an error of the state that is a plain fact into an answer.
func refusal(err error) (*wire.Answer, error) {
	if code := wire.CodeOf(err); code == wire.NotFound {
		return &wire.Answer{Code: uint32(code)}, nil
	}
	return nil, err
}

// statFS adds up the servers that take data.
func (l *leader) statFS(q *wire.Query) (*wire.Answer, error) {
	st := l.s.fsm.state()
	a, err := st.Query(q)
	if err != nil || a.Code != 0 {
		return a, err
	}
	p, err := st.Policy()
	if err != nil {
		return nil, err
	}
	total, free := l.nodes.space()
	data, all := uint64(p.GetK()), uint64(p.GetK()+p.GetM())
	f := a.GetStatFs()
	f.Total, f.Free = total/max(all, 1)*data, free/max(all, 1)*data
	return a, nil
}
