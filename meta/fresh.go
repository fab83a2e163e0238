package meta

import (
	"context"
	"slices"
	"time"

	"quernfs/meta/lease"
)

// A session's own change of a name recalls nothing from the session itself. Its
// kernel goes on to believe what the name was until it has looked at the
// result, and other threads there may be shown that, though the change has been
// made. So whoever else is about to be told of it waits until the session has
// forgotten the name.

const (
	freshFor  = time.Second           // after which a kernel has looked at the result
	maxFresh  = 100_000               // names that are remembered
	freshWait = 20 * time.Millisecond // of an urgent look-up: two may wait for each other
)

// freshNames are the names that sessions have changed just now. The leader's mutex
// guards them.
type freshNames struct {
	dirs  map[uint64]map[string]*freshName
	order []*freshName // the oldest first; some have been replaced
}

type freshName struct {
	lease.Name
	session uint64
	at      time.Time
}

// add notes that session is about to change names.
func (f *freshNames) add(session uint64, names []lease.Name, now time.Time) {
	if session == 0 {
		return
	}
	n := 0
	for n < len(f.order) && (len(f.order)-n+len(names) > maxFresh || now.Sub(f.order[n].at) >= freshFor) {
		f.drop(f.order[n])
		n++
	}
	f.order = f.order[n:]
	for _, name := range names {
		x := &freshName{name, session, now}
		f.order = append(f.order, x)
		if f.dirs == nil {
			f.dirs = map[uint64]map[string]*freshName{}
		}
		if f.dirs[name.Dir] == nil {
			f.dirs[name.Dir] = map[string]*freshName{}
		}
		f.dirs[name.Dir][name.Name] = x
	}
}

func (f *freshNames) drop(x *freshName) {
	if d := f.dirs[x.Dir]; d[x.Name.Name] == x {
		if delete(d, x.Name.Name); len(d) == 0 {
			delete(f.dirs, x.Dir)
		}
	}
}

// of lists those of names that a session other than this one has changed.
func (f *freshNames) of(session uint64, names []lease.Name, now time.Time) (list []*freshName) {
	for _, n := range names {
		if x := f.dirs[n.Dir][n.Name]; x != nil && x.session != session && now.Sub(x.at) < freshFor {
			list = append(list, x)
		}
	}
	return list
}

// in lists the names in a directory that sessions other than this one have
// changed.
func (f *freshNames) in(session, dir uint64, now time.Time) (list []*freshName) {
	for _, x := range f.dirs[dir] {
		if x.session != session && now.Sub(x.at) < freshFor {
			list = append(list, x)
		}
	}
	return list
}

// forgotten are claims that have the sessions forget names.
func forgotten(list []*freshName) (claims []lease.Claim) {
	for _, x := range list {
		i := slices.IndexFunc(claims, func(c lease.Claim) bool { return c.Ino == x.Dir && c.Of == x.session })
		if i < 0 {
			i = len(claims)
			claims = append(claims, lease.Claim{Ino: x.Dir, Kind: lease.Names, Of: x.session})
		}
		claims[i].Names = append(claims[i].Names, x.Name.Name)
	}
	return claims
}

// forgotten waits until nobody else believes what these names were, for a query of
// session. One that is urgent does not wait for long.
func (l *leader) forgotten(ctx context.Context, session uint64, list []*freshName) error {
	if len(list) == 0 {
		return nil
	}
	l.mu.Lock()
	op := l.table.Look(session)
	l.table.Claim(op, forgotten(list)...)
	l.unlock()
	late := false // l.mu guards it
	timer := time.AfterFunc(freshWait, func() {
		l.mu.Lock()
		late = true
		l.mu.Unlock()
		wake(op.Done)
	})
	defer timer.Stop()
	err := l.await(ctx, op.Done, "query", func() bool { return op.Ready() || late && l.table.Urgent(op) })
	l.mu.Lock()
	defer l.unlock()
	if err == nil && op.Ready() {
		for _, x := range list {
			l.fresh.drop(x)
		}
	}
	l.table.End(op)
	return err
}

// unclaimed are those of names that no claim recalls from everybody.
func unclaimed(names []lease.Name, claims []lease.Claim) []lease.Name {
	return slices.DeleteFunc(names, func(n lease.Name) bool {
		return slices.ContainsFunc(claims, func(c lease.Claim) bool {
			return c.Kind == lease.Names && c.Ino == n.Dir && slices.Contains(c.Names, n.Name)
		})
	})
}
