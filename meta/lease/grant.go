package lease

import (
	"slices"

	"quernfs/internal/wire"
)

// Grant gives session a lease of at least mode on ino, or returns nil where
// that conflicts with a holder or an operation. The grant comes along with an
// answer or a result; op is the operation it belongs to, nil for a mere answer.
func (t *Table) Grant(session, ino uint64, mode wire.Mode, op *Op) *wire.Grant {
	s := t.sessions[session]
	if s == nil || mode == wire.Mode_NONE {
		return nil
	}
	e := t.inode(ino)
	h := e.holders[session]
	enough := h != nil && h.mode >= mode
	if h != nil {
		mode = max(mode, h.mode)
	}
	if !t.free(session, e, ino, mode, op) {
		t.tidy(ino)
		if enough && op.takes() {
			// It held more, and that is being recalled just now: the old grant
			// stands, and the recall with it.
			return &wire.Grant{Ino: ino, Mode: h.mode, Id: h.id}
		}
		return nil
	}
	return t.give(session, ino, mode)
}

// Refresh renews the grant on an inode that session already caches, so that
// what comes with it may be cached; nil if it does not, or something is in the
// way.
func (t *Table) Refresh(session, ino uint64, op *Op) *wire.Grant {
	s := t.sessions[session]
	if s == nil {
		return nil
	}
	h := s.holds[ino]
	if h == nil || h.mode < wire.Mode_READ {
		return nil
	}
	return t.Grant(session, ino, h.mode, op)
}

// free: neither a holder nor an operation other than op is in the way.
func (t *Table) free(session uint64, e *inode, ino uint64, mode wire.Mode, op *Op) bool {
	for id, h := range e.holders {
		if id != session && conflict(mode, h.mode) {
			return false
		}
	}
	for _, o := range e.ops {
		if o == op || op.takes() && o.n > op.n && !o.ready {
			continue // a later one waits for a Take, and recalls what it was given
		}
		for i := range o.claims {
			if c := &o.claims[i]; c.Ino == ino && c.blocks(o.Session, session, mode, op == nil) {
				return false
			}
		}
	}
	return true
}

func (op *Op) takes() bool { return op != nil && len(op.claims) == 1 && op.claims[0].Kind == Take }

func (t *Table) give(session, ino uint64, mode wire.Mode) *wire.Grant {
	t.last++
	e, s := t.inode(ino), t.sessions[session]
	h := e.holders[session]
	if h == nil {
		h = &hold{}
		e.holders[session], s.holds[ino] = h, h
	}
	h.before, h.mode, h.id = h.mode, mode, t.last
	return &wire.Grant{Ino: ino, Mode: mode, Id: t.last}
}

// Undo takes back a grant that has not been shown to the session: it holds
// what it held before. A later grant stays.
func (t *Table) Undo(session uint64, g *wire.Grant) {
	s := t.sessions[session]
	if s == nil || g == nil {
		return
	}
	h := s.holds[g.Ino]
	if h == nil || h.id != g.Id {
		return
	}
	t.lower(session, g.Ino, h, h.before)
	t.advanceInode(g.Ino)
	t.tidy(g.Ino)
}

// Forget drops what a session holds on an inode that is gone for it.
func (t *Table) Forget(session, ino uint64) {
	if s := t.sessions[session]; s != nil && s.holds[ino] != nil {
		t.forget(session, ino)
		t.advanceInode(ino)
		t.tidy(ino)
	}
}

// Mode says what a session holds.
func (t *Table) Mode(session, ino uint64) wire.Mode {
	if s := t.sessions[session]; s != nil {
		if h := s.holds[ino]; h != nil {
			return h.mode
		}
	}
	return wire.Mode_NONE
}

// Reclaim takes what a session says it held, as far as nothing conflicts, and
// returns all that it holds now, with new ids, sorted by inode. What the
// session still owes is asked again, with new ids.
func (t *Table) Reclaim(session uint64, held []*wire.Grant) []*wire.Grant {
	s := t.sessions[session]
	if s == nil {
		return nil
	}
	for _, g := range held {
		if g.Mode < wire.Mode_OPEN || g.Mode > wire.Mode_WRITE || s.holds[g.Ino] != nil {
			continue
		}
		if e := t.inode(g.Ino); t.free(session, e, g.Ino, g.Mode, nil) {
			t.give(session, g.Ino, g.Mode)
		}
		t.tidy(g.Ino)
	}
	out := make([]*wire.Grant, 0, len(s.holds))
	for _, ino := range sorted(s.holds) {
		h := s.holds[ino]
		t.last++
		h.id = t.last
		out = append(out, &wire.Grant{Ino: ino, Mode: h.mode, Id: h.id})
	}
	return out
}

// Again issues anew all recalls that a session has not answered: its stream
// was cut, and they may be lost.
func (t *Table) Again(session uint64) {
	s := t.sessions[session]
	if s == nil {
		return
	}
	owed := sorted(s.owes)
	t.sends = slices.DeleteFunc(t.sends, func(x Send) bool { return x.Session == session })
	for _, id := range owed {
		r := s.owes[id]
		delete(s.owes, id)
		delete(t.recalls, id)
		msg := &wire.Recall{Ino: r.msg.Ino, Mode: r.msg.Mode, Names: r.msg.Names, Victim: r.msg.Victim, Grant: r.msg.Grant, Attrs: r.msg.Attrs}
		if r.op != nil {
			delete(r.op.pending, id)
			t.ask(r.op, session, msg)
			continue
		}
		if h := s.holds[msg.Ino]; h != nil && h.askID == id {
			h.askID = t.ask(nil, session, msg)
		}
	}
}

// Counts says how many leases of each mode a session holds.
func (t *Table) Counts(session uint64) (read, write uint64) {
	if s := t.sessions[session]; s != nil {
		for _, h := range s.holds {
			switch h.mode {
			case wire.Mode_READ:
				read++
			case wire.Mode_WRITE:
				write++
			}
		}
	}
	return read, write
}

// Delayed: another session holds WRITE on ino, and may delay changes of it.
func (t *Table) Delayed(session, ino uint64) bool {
	e := t.inodes[ino]
	if e == nil {
		return false
	}
	for id, h := range e.holders {
		if id != session && h.mode == wire.Mode_WRITE {
			return true
		}
	}
	return false
}
