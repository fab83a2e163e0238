package meta

import (
	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/lease"
	"quernfs/meta/state"
)

// stateTree is the state as one command sees it before it is applied. One
// goroutine uses it.
type stateTree struct {
	st   *state.State
	jobs map[uint64]*wire.Job // those that were asked for
}

func newStateTree(st *state.State) stateTree { return stateTree{st, map[uint64]*wire.Job{}} }

func (t stateTree) entry(parent uint64, name string) *wire.Dentry {
	d, err := t.st.Entry(parent, name)
	if err != nil {
		return nil
	}
	return d
}

// job is nil if there is none. Where its results go never changes.
func (t stateTree) job(id uint64) *wire.Job {
	j, known := t.jobs[id]
	if !known {
		j, _ = t.st.Job(id)
		t.jobs[id] = j
	}
	return j
}

func (t stateTree) outDir(job uint64) uint64 { return t.job(job).GetOutDir() }

func (t stateTree) outParent(job uint64) uint64 { return t.job(job).GetOutParent() }

func (t stateTree) ending(job uint64) (*wire.Source, *wire.Entry) {
	j := t.job(job)
	return j.GetSource(), j.GetNotify()
}

func (t stateTree) isDir(ino uint64) bool {
	in, err := t.st.Inode(ino)
	return err == nil && isDir(in)
}

func (t stateTree) node(name string) *wire.Node {
	n, err := t.st.NodeByName(name)
	if err != nil {
		return nil
	}
	return n
}

const (
	typeMask = 0o170000
	typeDir  = 0o040000
	typeFile = 0o100000
)

func isRegular(in *wire.Inode) bool { return in.GetAttr().GetMode()&typeMask == typeFile }
func isDir(in *wire.Inode) bool     { return in.GetAttr().GetMode()&typeMask == typeDir }

// openers lists the sessions that may have the victim open: those that said
// so, and the requester, if it holds any lease on it.
func (l *leader) openers(op *lease.Op, ino uint64) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	open := append([]uint64(nil), op.Open(ino)...)
	if l.table.Mode(op.Session, ino) > wire.Mode_NONE {
		open = append(open, op.Session)
	}
	return open
}

// granted gives r the leases that go with it. A record that comes with a lease
// is read again after the lease was given: whoever changes it later has to
// recall the lease first, so the record and the lease agree.
func (l *leader) granted(op *lease.Op, cmd *wire.Command, r *wire.Result) *wire.Result {
	out := wire.Shallow(r)
	out.Grants = nil
	held := map[uint64]bool{}
	give := func(g *wire.Grant) {
		if g != nil && !held[g.Ino] {
			held[g.Ino] = true
			out.Grants = append(out.Grants, g)
		}
	}
	refresh := func(in *wire.Inode) {
		// A commit answers with an empty inode for a file that is gone.
		if in.GetAttr() != nil && !held[in.Attr.Ino] {
			give(l.table.Refresh(op.Session, in.Attr.Ino, op))
		}
	}
	func() {
		l.mu.Lock()
		defer l.unlock()
		if _, creates := cmd.Op.(*wire.Command_Create); creates && r.Inode != nil {
			mode := wire.Mode_READ
			if r.Created && isRegular(r.Inode) {
				mode = wire.Mode_WRITE
			}
			give(l.table.Grant(op.Session, r.Inode.Attr.Ino, mode, op))
		} else {
			refresh(r.Inode)
		}
		for _, in := range r.Inodes {
			refresh(in)
		}
		refresh(r.Victim)
		refresh(r.Parent)
		refresh(r.OldParent)
		for _, d := range []*wire.Inode{r.Parent, r.OldParent} {
			// Somebody else changes the directory just now: the lease on it covers
			// the name, but its attributes are about to be out of date.
			if d != nil && l.table.DirBusy(d.Attr.Ino, op.Session) {
				held[d.Attr.Ino] = false
			}
		}
	}()

	st := l.s.fsm.state()
	applied, _ := st.Applied()
	again := func(in *wire.Inode) *wire.Inode {
		if in.GetAttr() == nil || !held[in.Attr.Ino] || applied == r.Index {
			return in
		}
		if now, err := st.Inode(in.Attr.Ino); err == nil {
			return now
		}
		return in // removed meanwhile; nobody can come upon the lease
	}
	out.Inode, out.Victim = again(r.Inode), again(r.Victim)
	out.Parent, out.OldParent = dirRecord(r.Parent, held, again), dirRecord(r.OldParent, held, again)
	if len(r.Inodes) > 0 {
		out.Inodes = make([]*wire.Inode, len(r.Inodes))
		for i, in := range r.Inodes {
			out.Inodes[i] = again(in)
		}
	}
	return out
}

// dirRecord leaves a directory out whose attributes cannot be relied on though a
// lease on it was given.
func dirRecord(dir *wire.Inode, held map[uint64]bool, again func(*wire.Inode) *wire.Inode) *wire.Inode {
	if dir == nil {
		return nil
	}
	if sure, given := held[dir.Attr.Ino]; given && !sure {
		return nil
	}
	return again(dir)
}

// openSession carries out OpenSession, which nothing conflicts with: not even
// the grace holds it up.
func (l *leader) openSession(cmd *wire.Command) (*wire.Result, error) {
	until := l.sessionLife()
	if err := l.cover(until); err != nil {
		return nil, err
	}
	r, err := l.propose(&wire.Command{Cred: cmd.Cred, Op: cmd.Op})
	if err != nil || r.Code != 0 {
		return r, err
	}
	l.mu.Lock()
	l.table.Join(r.Value, until)
	if op := cmd.GetOpenSession(); op.GetRole() != "" {
		l.opener[r.Value] = transport.Peer{Role: op.Role, Name: op.Cert}
	}
	l.reclaimed[r.Value] = true // it has held nothing before
	l.unlock()
	if op := cmd.GetOpenSession(); op.GetSole() {
		l.supersede(op, r.Value)
	}
	return r, nil
}

// supersede ends the sessions in whose place a new one has come, so that nobody
// waits for their leases to run out.
func (l *leader) supersede(op *wire.OpenSession, id uint64) {
	all, err := l.s.fsm.state().Sessions()
	if err != nil {
		return // they end by their time
	}
	for _, rec := range all {
		if rec.Id < id && rec.Name == op.Name && rec.Host == op.Host {
			l.end(rec.Id)
		}
	}
}
