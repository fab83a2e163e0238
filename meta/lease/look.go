package lease

import (
	"slices"

	"quernfs/internal/wire"
)

// A session may be unable to answer a recall of names before one of its look-ups
// has been answered: its kernel holds the directory's lock over the look-up. So
// a look-up waits for operations on its entry only while its session owes no
// such answer. Else it is told what the entry is now, which is right until the
// operation goes on, and the operation waits until the session has forgotten
// that: as if it had held the leases all along.

// Look queues a look-up of an entry, or with no name one of an inode that is
// going to Claim it.
func (t *Table) Look(session uint64, names ...Name) *Op {
	op := t.Lock(session, names...)
	op.looks = true
	if s := t.sessions[session]; s != nil {
		s.looks[op] = struct{}{}
	}
	return op
}

// Urgent: the look-up must not wait any longer. An operation that is Ready is
// waited for in any case: it waits for nobody.
func (t *Table) Urgent(look *Op) bool {
	s := t.sessions[look.Session]
	if s == nil || len(look.names) > 0 && t.names[look.names[0]][0].ready {
		return false
	}
	for _, r := range s.owes {
		if len(r.msg.Names) > 0 {
			return true
		}
	}
	return false
}

// Owed: the operation that the look-up of an entry did not wait for has asked its
// session to forget the entry, and has no answer yet. What the session is told
// now may reach it after it has forgotten: it must not come with a grant on the
// directory.
func (t *Table) Owed(look *Op) bool {
	head, c := t.ahead(look)
	return c != nil && t.asked(head, look.Session, c)
}

// ahead is the operation that has the entry of a look-up, and its claim on that, if
// it will change it.
func (t *Table) ahead(look *Op) (head *Op, c *Claim) {
	n := look.names[0]
	head = t.names[n][0]
	if head == look || head.n == 0 || head.Session == look.Session {
		return head, nil // it asks for nothing yet, or need not
	}
	for i := range head.claims {
		if c := &head.claims[i]; c.Kind == Names && c.Of == 0 && c.Ino == n.Dir && slices.Contains(c.Names, n.Name) {
			return head, c
		}
	}
	return head, nil
}

// asked: the operation waits for the session's answer about the names of c.
func (t *Table) asked(op *Op, session uint64, c *Claim) bool {
	for id := range op.pending {
		if r := t.recalls[id]; r.session == session && r.msg.Ino == c.Ino && len(r.msg.Names) > 0 {
			return true
		}
	}
	return false
}

// Attend has the operation that an urgent look-up of an entry did not wait for ask
// its session to forget what it is told. It returns the grant on the entry's
// inode, where that could not be given otherwise since it is about to go.
func (t *Table) Attend(look *Op, child uint64) (g *wire.Grant) {
	head, c := t.ahead(look)
	if c == nil {
		return nil
	}
	if !t.asked(head, look.Session, c) {
		t.ask(head, look.Session, &wire.Recall{Ino: c.Ino, Mode: wire.Mode_READ, Names: c.Names})
	}
	for i := range head.claims {
		if v := &head.claims[i]; v.Victim && v.Ino == child {
			g = t.give(look.Session, child, max(wire.Mode_OPEN, t.Mode(look.Session, child)))
			t.ask(head, look.Session, &wire.Recall{Ino: child, Mode: max(v.limit(), wire.Mode_OPEN), Victim: true, Grant: g.Id})
		}
	}
	return g
}
