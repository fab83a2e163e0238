package state

import (
	"slices"

	"quernfs/internal/wire"
)

// maxRanges bounds the ranges of reserved inode numbers that a session keeps;
// the oldest is forgotten first.
const maxRanges = 64

// session is a session as Apply keeps it in memory: the record, and the
// sequence numbers of its stored replies, ascending.
type session struct {
	rec  *wire.Session
	seqs []uint64
}

// sessions reads all sessions.
func (v *view) sessions() map[uint64]*session {
	all := map[uint64]*session{}
	v.prefix([]byte{kSession}, func(key, value []byte) bool {
		rec := new(wire.Session)
		if v.decode(key, value, rec) {
			all[rec.Id] = &session{rec: rec}
		}
		return true
	})
	v.prefix([]byte{kReply}, func(key, _ []byte) bool {
		if len(key) != 17 {
			return true
		}
		if s := all[num64(key[1:])]; s != nil {
			s.seqs = append(s.seqs, num64(key[9:]))
		}
		return true
	})
	return all
}

// once runs a command of a session exactly once: a repeated one gets the
// reply that was stored when it ran.
func (t *tx) once(c *wire.Command) *wire.Result {
	s := t.sessions[c.Session]
	if s == nil {
		return fail(wire.NoSession)
	}
	t.acknowledge(s, c.AckBelow)
	if c.Seq == 0 {
		return t.run(c)
	}
	if c.Seq < s.rec.AckBelow {
		return failf(wire.Stale, "command %d of session %d has been acknowledged", c.Seq, c.Session)
	}
	at, found := slices.BinarySearch(s.seqs, c.Seq)
	if found {
		return t.reply(c.Session, c.Seq)
	}
	r := t.run(c)
	if t.sessions[c.Session] == nil { // it ended itself
		return r
	}
	s.seqs = slices.Insert(s.seqs, at, c.Seq)
	t.wkey = replyKey(t.wkey[:0], c.Session, c.Seq)
	t.set(t.wkey, slim(r))
	return r
}

// acknowledge drops the replies below below.
func (t *tx) acknowledge(s *session, below uint64) {
	if below <= s.rec.AckBelow {
		return
	}
	s.rec = editSession(s.rec)
	s.rec.AckBelow = below
	t.changes[s.rec.Id] = struct{}{}
	n, _ := slices.BinarySearch(s.seqs, below)
	for _, seq := range s.seqs[:n] {
		t.wkey = replyKey(t.wkey[:0], s.rec.Id, seq)
		t.del(t.wkey)
	}
	s.seqs = slices.Delete(s.seqs, 0, n)
}

func editSession(s *wire.Session) *wire.Session {
	return &wire.Session{
		Id: s.Id, Name: s.Name, Host: s.Host, CreatedNs: s.CreatedNs, AckBelow: s.AckBelow,
		Reserved: s.Reserved,
	}
}

// slim is r as it is stored: without the inline data of the inodes of a
// Commit, which refill puts back.
func slim(r *wire.Result) *wire.Result {
	if len(r.Inodes) == 0 {
		return r
	}
	inodes := make([]*wire.Inode, len(r.Inodes))
	for i, in := range r.Inodes {
		inodes[i] = in
		if len(in.Inline) > 0 {
			c := edit(in)
			c.Attr, c.Inline = in.Attr, nil
			inodes[i] = c
		}
	}
	return &wire.Result{Code: r.Code, Message: r.Message, Index: r.Index, Value: r.Value, Inodes: inodes}
}

// refill gives the inodes of a Commit as they are now in place of those whose
// inline data was not stored.
func (v *view) refill(r *wire.Result, inode func(uint64) *wire.Inode) {
	for i, in := range r.Inodes {
		if in.HasInline {
			r.Inodes[i] = new(wire.Inode)
			if now := inode(in.Attr.GetIno()); now != nil {
				r.Inodes[i] = now
			}
		}
	}
}

func (t *tx) reply(session, seq uint64) *wire.Result {
	r := new(wire.Result)
	t.wkey = replyKey(t.wkey[:0], session, seq)
	if !t.load(t.wkey, r) {
		return fail(wire.Internal)
	}
	t.refill(r, t.inode)
	return r
}

func (t *tx) openSession(op *wire.OpenSession) *wire.Result {
	rec := &wire.Session{Id: t.take(nextSession, 1), Name: op.Name, Host: op.Host, CreatedNs: t.now, Role: op.Role, Cert: op.Cert}
	t.sessions[rec.Id] = &session{rec: rec}
	t.changes[rec.Id] = struct{}{}
	return &wire.Result{Value: rec.Id}
}

// endSession also succeeds when the session has ended before.
func (t *tx) endSession(op *wire.EndSession) *wire.Result {
	if t.session != 0 && t.session != op.Id {
		return failf(wire.Perm, "session %d cannot end session %d", t.session, op.Id)
	}
	s := t.sessions[op.Id]
	if s == nil {
		return new(wire.Result)
	}
	for _, seq := range s.seqs {
		t.wkey = replyKey(t.wkey[:0], op.Id, seq)
		t.del(t.wkey)
	}
	delete(t.sessions, op.Id)
	t.changes[op.Id] = struct{}{}
	var held []uint64
	t.prefix([]byte{kOrphan}, func(key, _ []byte) bool {
		if len(key) == 17 && num64(key[9:]) == op.Id {
			held = append(held, num64(key[1:]))
		}
		return true
	})
	for _, ino := range held {
		t.release(ino, op.Id)
	}
	t.dropStagedOf(op.Id)
	return new(wire.Result)
}

// releaseOrphans: numbers that the session does not hold are passed over.
func (t *tx) releaseOrphans(op *wire.ReleaseOrphans) *wire.Result {
	for _, ino := range op.Inos {
		t.release(ino, t.session)
	}
	return new(wire.Result)
}

// hold records that sessions have the nameless inode ino open, and says
// whether any of them exists.
func (t *tx) hold(ino uint64, sessions []uint64) bool {
	held := false
	for _, id := range sessions {
		if t.sessions[id] != nil {
			t.wkey = orphanKey(t.wkey[:0], ino, id)
			t.setRaw(t.wkey, nil)
			held = true
		}
	}
	return held
}

// kept: one of open that is not the present session holds in, which has lost a name.
func (t *tx) kept(in *wire.Inode, open []uint64) bool {
	return in.Attr.Nlink == 0 && slices.ContainsFunc(open, func(id uint64) bool { return id != t.session && t.sessions[id] != nil })
}

// release ends one session's hold on an orphan, which goes with the last one.
func (t *tx) release(ino, session uint64) {
	if !t.orphaned(ino, session) {
		return
	}
	t.wkey = orphanKey(t.wkey[:0], ino, session)
	t.del(t.wkey)
	if t.holders(ino) == nil {
		if in := t.inode(ino); in != nil && in.Attr.Nlink == 0 {
			t.destroy(in)
		}
	}
}

// holders lists the sessions that have the nameless inode ino open.
func (v *view) holders(ino uint64) (sessions []uint64) {
	v.prefix(key8(nil, kOrphan, ino), func(key, _ []byte) bool {
		if len(key) == 17 {
			sessions = append(sessions, num64(key[9:]))
		}
		return true
	})
	return sessions
}

// reserveInodes gives the session numbers of its own for Create.ino.
func (t *tx) reserveInodes(op *wire.ReserveInodes) *wire.Result {
	if op.Count == 0 || op.Count > 1<<20 {
		return failf(wire.Invalid, "%d inode numbers asked for: 1 to %d can be reserved", op.Count, 1<<20)
	}
	s := t.sessions[t.session]
	if s == nil {
		return failf(wire.Invalid, "only a session can reserve inode numbers")
	}
	first := t.take(nextIno, op.Count)
	ranges := append(slices.Clone(s.rec.Reserved), &wire.InodeRange{First: first, Count: op.Count})
	if n := len(ranges) - maxRanges; n > 0 {
		ranges = ranges[n:]
	}
	t.setReserved(s, ranges)
	return &wire.Result{Value: first}
}

func (t *tx) setReserved(s *session, ranges []*wire.InodeRange) {
	s.rec = editSession(s.rec)
	s.rec.Reserved = ranges
	t.changes[s.rec.Id] = struct{}{}
}

// mayUse says whether ino is reserved for the session and not used yet.
func (t *tx) mayUse(ino uint64) bool {
	s := t.sessions[t.session]
	return s != nil && slices.ContainsFunc(s.rec.Reserved, func(r *wire.InodeRange) bool { return inRange(r, ino) })
}

func inRange(r *wire.InodeRange, ino uint64) bool { return ino >= r.First && ino-r.First < r.Count }

// spend takes ino, for which mayUse holds, out of the session's ranges.
func (t *tx) spend(ino uint64) {
	s := t.sessions[t.session]
	var ranges []*wire.InodeRange
	for _, r := range s.rec.Reserved {
		if !inRange(r, ino) {
			ranges = append(ranges, r)
			continue
		}
		if n := ino - r.First; n > 0 {
			ranges = append(ranges, &wire.InodeRange{First: r.First, Count: n})
		}
		if n := r.First + r.Count - ino - 1; n > 0 {
			ranges = append(ranges, &wire.InodeRange{First: ino + 1, Count: n})
		}
	}
	t.setReserved(s, ranges)
}

// Stored returns the stored reply of a session's command. The leader looks here
// before it recalls leases for a command that has run already.
func (s *State) Stored(session, seq uint64) (*wire.Result, bool) {
	r, found := new(wire.Result), false
	err := s.read(func(v *view) {
		if found = v.load(replyKey(nil, session, seq), r); found {
			v.refill(r, v.inode)
		}
	})
	if err != nil || !found {
		return nil, false
	}
	return r, true
}
