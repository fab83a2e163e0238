package lease

import (
	"slices"
	"time"

	"quernfs/internal/wire"
)

// Kind says what an operation is about to do with an inode.
type Kind int

const (
	Peek Kind = iota + 1
	Change
	Names
	Take
)

// Claim is what an operation needs of one inode.
type Claim struct {
	Ino    uint64
	Kind   Kind
	Mode   wire.Mode // with Take
	Names  []string  // with Names; none: only the directory's attributes change
	Victim bool      // with Change: ask the holders whether they have it open
	Dir    bool      // with Victim: a directory, whose names need not be forgotten
	Of     uint64    // with Names: they do not change, and only this session is asked

	told bool // Names, Victim: the holders have been asked
}

// limit is the highest mode that other sessions may keep.
func (c *Claim) limit() wire.Mode {
	switch {
	case c.Dir:
		return wire.Mode_READ
	case c.Kind == Change, c.Kind == Take && c.Mode == wire.Mode_WRITE:
		return wire.Mode_OPEN
	case c.Kind == Take && c.Mode <= wire.Mode_OPEN:
		return wire.Mode_WRITE
	}
	return wire.Mode_READ
}

// blocks says whether the claim, made by session by, holds up a grant of mode
// to session. With answer the grant would come along with an answer.
func (c *Claim) blocks(by, session uint64, mode wire.Mode, answer bool) bool {
	if c.Victim {
		return true
	}
	if by == session {
		return answer && c.Kind == Change && mode < wire.Mode_WRITE
	}
	switch c.Kind {
	case Change:
		return mode >= wire.Mode_READ
	case Take:
		return conflict(mode, c.Mode)
	}
	return mode == wire.Mode_WRITE
}

func conflict(a, b wire.Mode) bool {
	return min(a, b) >= wire.Mode_READ && max(a, b) == wire.Mode_WRITE
}

// Name is one entry of a directory.
type Name struct {
	Dir  uint64
	Name string
}

// Op is one operation. Its fields belong to the Table.
type Op struct {
	Session uint64
	// Done is for the caller: whoever waits for the operation.
	Done chan struct{}

	n       uint64 // order of arrival at the inodes; 0: names only so far
	names   []Name
	looks   bool // a look-up: it changes nothing
	locked  bool // names are its own
	claims  []Claim
	ready   bool
	ended   bool
	pending map[uint64]struct{} // recalls with names or victim that are unanswered
	open    map[uint64][]uint64 // victim → sessions that have it open
}

// Locked: the names are the operation's own.
func (op *Op) Locked() bool { return op.locked }

// Ready: the operation may go ahead.
func (op *Op) Ready() bool { return op.ready }

// Open lists the sessions that said they have victim ino open.
func (op *Op) Open(ino uint64) []uint64 { return op.open[ino] }

// Send is a recall to be sent to a session.
type Send struct {
	Session uint64
	Recall  *wire.Recall
}

// Table is the table of leases. The zero Table is not usable: see New.
type Table struct {
	last     uint64 // id given last
	arrived  uint64 // Op.n given last
	sessions map[uint64]*session
	inodes   map[uint64]*inode
	names    map[Name][]*Op
	recalls  map[uint64]*recall
	pending  map[*Op]struct{} // claimed, not yet ready

	sends []Send
	woken []*Op
}

type session struct {
	until time.Time
	holds map[uint64]*hold
	owes  map[uint64]*recall
	looks map[*Op]struct{} // its look-ups, from Look to End
}

type hold struct {
	mode   wire.Mode
	id     uint64
	before wire.Mode // what it was before the last grant
	asked  wire.Mode // with askID: the mode last asked to come down to
	askID  uint64    // 0: nothing is asked
}

type inode struct {
	holders map[uint64]*hold
	ops     []*Op // that claim it, in order of arrival; not ended
}

// recall is a question to one session that has not been answered.
type recall struct {
	session uint64
	msg     *wire.Recall
	op      *Op // with names or victim
}

// New makes an empty table whose ids lie above first.
func New(first uint64) *Table {
	return &Table{
		last: first, sessions: map[uint64]*session{}, inodes: map[uint64]*inode{}, names: map[Name][]*Op{},
		recalls: map[uint64]*recall{}, pending: map[*Op]struct{}{},
	}
}

// Take returns what has become due since the last call: recalls to be sent,
// and operations that have become Locked or Ready.
func (t *Table) Take() ([]Send, []*Op) {
	s, w := t.sends, t.woken
	t.sends, t.woken = nil, nil
	return s, w
}

// Join makes a session known, or renews it.
func (t *Table) Join(id uint64, until time.Time) {
	s := t.sessions[id]
	if s == nil {
		s = &session{holds: map[uint64]*hold{}, owes: map[uint64]*recall{}, looks: map[*Op]struct{}{}}
		t.sessions[id] = s
	}
	if until.After(s.until) {
		s.until = until
	}
}

// Renew extends a session's life; false: it is not known.
func (t *Table) Renew(id uint64, until time.Time) bool {
	if t.sessions[id] == nil {
		return false
	}
	t.Join(id, until)
	return true
}

// Until says how long a session lives without a renewal; zero: not known.
func (t *Table) Until(id uint64) time.Time {
	if s := t.sessions[id]; s != nil {
		return s.until
	}
	return time.Time{}
}

// Expired lists the sessions whose life ended before t0, sorted.
func (t *Table) Expired(t0 time.Time) []uint64 {
	var ids []uint64
	for id, s := range t.sessions {
		if s.until.Before(t0) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Drop forgets a session that has ended, with all it holds and owes.
func (t *Table) Drop(id uint64) {
	s := t.sessions[id]
	if s == nil {
		return
	}
	delete(t.sessions, id)
	for rid, r := range s.owes {
		delete(t.recalls, rid)
		if r.op != nil {
			delete(r.op.pending, rid)
		}
	}
	for ino := range s.holds {
		delete(t.inodes[ino].holders, id)
		t.tidy(ino)
	}
	t.advanceAll()
}

// Lock queues an operation for names; it goes on to Claim once Locked. Without
// names it is Locked at once.
func (t *Table) Lock(session uint64, names ...Name) *Op {
	op := &Op{Session: session, Done: make(chan struct{}, 1)}
	for _, n := range names {
		if !slices.Contains(op.names, n) {
			op.names = append(op.names, n)
			t.names[n] = append(t.names[n], op)
		}
	}
	t.tryNames(op)
	return op
}

func (t *Table) tryNames(op *Op) {
	if op.locked || op.ended {
		return
	}
	for _, n := range op.names {
		if t.names[n][0] != op {
			return
		}
	}
	op.locked = true
	t.woken = append(t.woken, op)
}

// NameBusy: an operation on the entry is waiting or under way.
func (t *Table) NameBusy(n Name) bool { return t.Waiters(n) > 0 }

// Waiters counts the operations on an entry, with the one that is under way.
func (t *Table) Waiters(n Name) int { return len(t.names[n]) }

// DirBusy: an operation of another session changes the directory's entries, so
// that its listing and its attributes are about to be out of date.
func (t *Table) DirBusy(ino, session uint64) bool {
	e := t.inodes[ino]
	if e == nil {
		return false
	}
	for _, op := range e.ops {
		if op.Session == session {
			continue
		}
		for i := range op.claims {
			if c := &op.claims[i]; c.Ino == ino && c.Kind == Names && c.Of == 0 {
				return true
			}
		}
	}
	return false
}

// Claim adds the inodes that a Locked operation is about, once. Claims of one
// inode are merged: at most one of each kind, and of each session with Of.
func (t *Table) Claim(op *Op, claims ...Claim) {
	t.arrived++
	op.n = t.arrived
	op.pending = map[uint64]struct{}{}
	for _, c := range claims {
		op.add(c)
	}
	for i := range op.claims {
		e := t.inode(op.claims[i].Ino)
		if len(e.ops) == 0 || e.ops[len(e.ops)-1] != op {
			e.ops = append(e.ops, op)
		}
	}
	t.pending[op] = struct{}{}
	t.advance(op)
}

func (op *Op) add(c Claim) {
	c.told = false
	for i := range op.claims {
		have := &op.claims[i]
		if have.Ino == c.Ino && have.Kind == c.Kind && have.Of == c.Of {
			have.Dir = have.Dir && c.Dir || c.Dir && !have.Victim
			have.Victim = have.Victim || c.Victim
			have.Mode = max(have.Mode, c.Mode)
			for _, n := range c.Names {
				if !slices.Contains(have.Names, n) {
					have.Names = append(slices.Clip(have.Names), n)
				}
			}
			return
		}
	}
	op.claims = append(op.claims, c)
}

// End takes an operation out, whatever it has come to.
func (t *Table) End(op *Op) {
	if op.ended {
		return
	}
	op.ended = true
	delete(t.pending, op)
	if s := t.sessions[op.Session]; s != nil {
		delete(s.looks, op)
	}
	for id := range op.pending {
		r := t.recalls[id]
		delete(t.recalls, id)
		if s := t.sessions[r.session]; s != nil {
			delete(s.owes, id)
		}
	}
	for i := range op.claims {
		ino := op.claims[i].Ino
		if e := t.inodes[ino]; e != nil {
			e.ops = slices.DeleteFunc(e.ops, func(o *Op) bool { return o == op })
		}
	}
	for _, n := range op.names {
		q := slices.DeleteFunc(t.names[n], func(o *Op) bool { return o == op })
		if len(q) == 0 {
			delete(t.names, n)
			continue
		}
		t.names[n] = q
		t.tryNames(q[0])
	}
	for i := range op.claims {
		t.advanceInode(op.claims[i].Ino)
		t.tidy(op.claims[i].Ino)
	}
}

func (t *Table) inode(ino uint64) *inode {
	e := t.inodes[ino]
	if e == nil {
		e = &inode{holders: map[uint64]*hold{}}
		t.inodes[ino] = e
	}
	return e
}

func (t *Table) tidy(ino uint64) {
	if e := t.inodes[ino]; e != nil && len(e.holders) == 0 && len(e.ops) == 0 {
		delete(t.inodes, ino)
	}
}
