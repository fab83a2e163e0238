package group

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// Position is a place in the log.
type Position struct{ Index, Term uint64 }

// Agree checks that what a state has applied is what log and snapshot say:
// the entry at applied is there, with the same term, or the snapshot stands
// for it, and the log goes on from there. An error says in one sentence what
// does not fit.
func Agree(applied, snapshot Position, logs raft.LogStore) error {
	first, err := logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := logs.LastIndex()
	if err != nil {
		return err
	}
	switch {
	case applied.Index > max(last, snapshot.Index):
		return fmt.Errorf("the state has entry %d, the log ends at %d", applied.Index, max(last, snapshot.Index))
	case first > max(applied.Index, snapshot.Index)+1:
		return fmt.Errorf("the log begins at entry %d, the state ends at %d", first, applied.Index)
	case applied.Index == 0 || applied.Index < snapshot.Index:
		// The state has come from the snapshot. What the log has below may be
		// what a leader was about to cut off when the snapshot came instead.
		return nil
	}
	term := snapshot.Term
	if applied.Index > snapshot.Index {
		var l raft.Log
		if err := logs.GetLog(applied.Index, &l); err != nil {
			return fmt.Errorf("the state has entry %d, the log does not: %w", applied.Index, err)
		}
		term = l.Term
	}
	if term != applied.Term {
		return fmt.Errorf("the state has entry %d of term %d, the log has one of term %d in its place", applied.Index, applied.Term, term)
	}
	return nil
}

// guard is the log. It refuses to cut off what the state has applied: a leader
// that asks for that lacks what a majority had.
type guard struct {
	raft.LogStore
	g *Group
}

var _ raft.MonotonicLogStore = (*guard)(nil)

func (l *guard) IsMonotonic() bool {
	m, ok := l.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// DeleteRange removes entries: from the beginning, those that a snapshot stands
// for; from the end, those that a new leader does not have; all, after a
// snapshot came from the leader.
func (l *guard) DeleteRange(from, to uint64) error {
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	snapshot, err := l.g.snapshot()
	if err != nil {
		return err
	}
	if err := maySever(from, to, first, last, l.g.cfg.Applied().Index, snapshot.Index); err != nil {
		l.g.damaged(err)
		return err
	}
	return l.LogStore.DeleteRange(from, to)
}

// maySever says what is wrong with removing the entries from..to of a log of
// first..last.
func maySever(from, to, first, last, applied, snapshot uint64) error {
	kept := max(applied, snapshot)
	if to >= last && from > first && from <= kept || from <= first && to >= applied && applied > snapshot {
		return fmt.Errorf("the leader's log contradicts this server's: it would cut off entry %d, and the state has all up to %d", from, kept)
	}
	return nil
}

// snapshot is the newest one's place.
func (g *Group) snapshot() (Position, error) {
	all, err := g.cfg.Snapshots.List()
	if err != nil || len(all) == 0 {
		return Position{}, err
	}
	return Position{all[0].Index, all[0].Term}, nil
}

// holds says whether this server has all that a snapshot has, which then needs
// no installing: raft would throw the log away that goes beyond it. An error
// says that the snapshot does not fit to what is here.
func (g *Group) holds(q *raft.InstallSnapshotRequest) (bool, error) {
	if q.Term < g.term() {
		return false, nil // raft refuses it
	}
	own, err := g.snapshot()
	if err != nil {
		return false, err
	}
	if own.Index == q.LastLogIndex && own.Term == q.LastLogTerm {
		return true, nil
	}
	var l raft.Log
	if g.cfg.Logs.GetLog(q.LastLogIndex, &l) == nil && l.Term == q.LastLogTerm {
		return true, nil
	}
	applied := g.cfg.Applied()
	switch {
	case q.LastLogIndex > max(applied.Index, own.Index):
		return false, nil
	case l.Index == q.LastLogIndex, own.Index == q.LastLogIndex:
		err := fmt.Errorf("the leader's snapshot contradicts this server's log: it ends at entry %d of term %d", q.LastLogIndex, q.LastLogTerm)
		g.damaged(err)
		return false, err
	}
	return false, fmt.Errorf("a snapshot up to entry %d is older than what is here, up to %d", q.LastLogIndex, applied.Index)
}
