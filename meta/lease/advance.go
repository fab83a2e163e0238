package lease

import (
	"slices"
	"time"

	"quernfs/internal/wire"
)

func (t *Table) advanceAll() {
	ops := make([]*Op, 0, len(t.pending))
	for op := range t.pending {
		ops = append(ops, op)
	}
	slices.SortFunc(ops, func(a, b *Op) int { return int(int64(a.n) - int64(b.n)) })
	for _, op := range ops {
		t.advance(op)
	}
}

func (t *Table) advanceInode(ino uint64) {
	e := t.inodes[ino]
	if e == nil {
		return
	}
	for _, op := range slices.Clone(e.ops) {
		t.advance(op)
	}
}

// advance sends the recalls that op needs now, and makes it ready when nothing
// stands in its way.
func (t *Table) advance(op *Op) {
	if op.ready || op.ended || op.n == 0 {
		return
	}
	clear := true
	for i := range op.claims {
		if !t.clear(op, &op.claims[i]) {
			clear = false
		}
	}
	if clear && len(op.pending) == 0 {
		op.ready = true
		delete(t.pending, op)
		t.woken = append(t.woken, op)
	}
}

// clear says whether the claim may be acted upon, and asks the holders for
// what stands in its way.
func (t *Table) clear(op *Op, c *Claim) bool {
	e := t.inodes[c.Ino]
	if t.queued(op, c, e) {
		return false
	}
	clear := true
	limit := c.limit()
	for _, id := range sorted(e.holders) {
		h := e.holders[id]
		if c.Of != 0 && id != c.Of {
			continue
		}
		if id == op.Session {
			// It has been asked to come down: what it holds is known once it answers.
			if c.Kind == Take && h.askID != 0 {
				clear = false
			}
			continue
		}
		switch {
		case c.Victim && !c.told:
			t.ask(op, id, &wire.Recall{Ino: c.Ino, Mode: max(limit, wire.Mode_OPEN), Victim: true, Grant: h.id})
		case c.Kind == Names && !c.told && h.mode >= wire.Mode_READ:
			t.ask(op, id, &wire.Recall{Ino: c.Ino, Mode: wire.Mode_READ, Names: c.Names, Attrs: len(c.Names) == 0})
		case h.mode > limit && !(c.Victim && c.told && len(op.pending) > 0):
			clear = false
			if h.askID == 0 || h.asked > limit {
				h.asked = limit
				h.askID = t.ask(nil, id, &wire.Recall{Ino: c.Ino, Mode: limit, Grant: h.id})
			}
		}
	}
	c.told = true
	return clear
}

// queued: an operation that the claim has to wait for is on the inode.
func (t *Table) queued(op *Op, c *Claim, e *inode) bool {
	if h := e.holders[op.Session]; h != nil && h.mode == wire.Mode_WRITE && c.Kind != Take && !c.Victim {
		return false
	}
	for _, o := range e.ops {
		if o == op || !(o.n < op.n || o.ready) {
			continue
		}
		for i := range o.claims {
			if oc := &o.claims[i]; oc.Ino == c.Ino && waits(c, op.Session, oc, o.Session) && (o.n < op.n || c.Kind == Take) {
				return true
			}
		}
	}
	return false
}

// waits says whether claim c of session a has to wait for claim o of session b.
func waits(c *Claim, a uint64, o *Claim, b uint64) bool {
	switch {
	case c.Victim && o.Kind == Take, c.Kind == Take && o.Victim:
		return true
	case a == b:
		return false
	case c.Kind == Take && o.Kind == Take:
		return conflict(c.Mode, o.Mode)
	case c.Kind == Take:
		return takeWaits(c.Mode, o.Kind)
	case o.Kind == Take:
		return takeWaits(o.Mode, c.Kind)
	}
	return false
}

// takeWaits: acquiring mode and doing kind exclude each other.
func takeWaits(mode wire.Mode, kind Kind) bool {
	if kind == Peek {
		return mode == wire.Mode_WRITE
	}
	return mode >= wire.Mode_READ
}

// ask issues a recall and returns its id.
func (t *Table) ask(op *Op, to uint64, msg *wire.Recall) uint64 {
	t.last++
	msg.Id = t.last
	r := &recall{session: to, msg: msg, op: op}
	t.recalls[msg.Id] = r
	t.sessions[to].owes[msg.Id] = r
	if op != nil {
		op.pending[msg.Id] = struct{}{}
	}
	if len(msg.Names) > 0 {
		for look := range t.sessions[to].looks {
			t.woken = append(t.woken, look) // see Urgent
		}
	}
	t.sends = append(t.sends, Send{Session: to, Recall: msg})
	return msg.Id
}

// Recalled takes a session's answer to a recall. An answer that keeps more
// than was asked for is no answer.
func (t *Table) Recalled(session uint64, a *wire.Recalled) {
	r := t.recalls[a.Id]
	if r == nil || r.session != session || r.msg.Ino != a.Ino || a.Mode > r.msg.Mode {
		return
	}
	delete(t.recalls, a.Id)
	s := t.sessions[session]
	delete(s.owes, a.Id)
	if h := s.holds[a.Ino]; h != nil {
		if h.askID == a.Id {
			h.askID = 0
		}
		if h.id <= a.Id {
			t.lower(session, a.Ino, h, a.Mode)
		}
	}
	if r.op != nil {
		delete(r.op.pending, a.Id)
		if r.msg.Victim && a.Open {
			if r.op.open == nil {
				r.op.open = map[uint64][]uint64{}
			}
			r.op.open[a.Ino] = append(r.op.open[a.Ino], session)
		}
		t.advance(r.op)
	}
	t.advanceInode(a.Ino)
	t.tidy(a.Ino)
}

func (t *Table) lower(session, ino uint64, h *hold, mode wire.Mode) {
	h.mode = min(h.mode, mode)
	if h.mode == wire.Mode_NONE {
		t.forget(session, ino)
	}
}

// forget removes a hold, and the question for it, if there is one.
func (t *Table) forget(session, ino uint64) {
	s := t.sessions[session]
	if h := s.holds[ino]; h != nil && h.askID != 0 {
		delete(t.recalls, h.askID)
		delete(s.owes, h.askID)
	}
	delete(s.holds, ino)
	delete(t.inodes[ino].holders, session)
}

// Release gives leases back unasked; a hold with a higher id stays.
func (t *Table) Release(session uint64, grants []*wire.Grant) {
	s := t.sessions[session]
	if s == nil {
		return
	}
	for _, g := range grants {
		if h := s.holds[g.Ino]; h != nil && h.id <= g.Id {
			t.forget(session, g.Ino)
			t.advanceInode(g.Ino)
			t.tidy(g.Ino)
		}
	}
}

// Overdue lists the sessions, sorted, whose life ended before now while some
// operation waits for them.
func (t *Table) Overdue(now time.Time) []uint64 {
	var ids []uint64
	for id, s := range t.sessions {
		if len(s.owes) > 0 && s.until.Before(now) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func sorted[V any](m map[uint64]V) []uint64 {
	ids := make([]uint64, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
