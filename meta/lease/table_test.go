package lease

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"quernfs/internal/wire"
)

var seed = flag.Uint64("seed", 0, "of the random interleavings; 0: a new one")

// The world of the property test: a table, sessions that answer late, replies
// that come late, and the truth. Every session is a client that follows the
// rules for late grants.
type world struct {
	t     *testing.T
	rnd   *rand.Rand
	table *Table

	value map[uint64]int // of each inode: grows with each change
	names map[Name]int   // of each entry
	users map[uint64]*fake
	ops   []*running
	reads []*reading
	log   []string
}

// fake is a client.
type fake struct {
	id     uint64
	held   map[uint64]wire.Mode // what it believes to hold
	grant  map[uint64]uint64
	recall map[uint64]uint64 // the highest recall seen
	cached map[uint64]int    // value of an inode
	known  map[Name]int      // value of an entry
	newest map[uint64]int    // the highest value seen, cached or not: versions grow
	newer  map[Name]int
	inbox  []*wire.Recall
	late   []delivery
	gone   bool
}

// delivery is a reply on its way.
type delivery struct {
	grants []*wire.Grant
	ino    uint64 // a value that came with it; 0: none
	value  int
	name   *Name
	entry  int
}

type running struct {
	*Op
	kind    string
	ino     uint64
	name    Name
	mode    wire.Mode
	claimed bool
}

// reading is a query between its grant and its look at the state.
type reading struct {
	session uint64
	ino     uint64
	name    *Name
	grant   *wire.Grant
}

const dir = 1

func newWorld(t *testing.T, rnd *rand.Rand) *world {
	w := &world{t: t, rnd: rnd, table: New(1 << 40), value: map[uint64]int{}, names: map[Name]int{}, users: map[uint64]*fake{}}
	for id := uint64(1); id <= 4; id++ {
		w.users[id] = &fake{
			id: id, held: map[uint64]wire.Mode{}, grant: map[uint64]uint64{}, recall: map[uint64]uint64{},
			cached: map[uint64]int{}, known: map[Name]int{}, newest: map[uint64]int{}, newer: map[Name]int{},
		}
		w.table.Join(id, time.Unix(1000, 0))
	}
	return w
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	for _, l := range w.log[max(0, len(w.log)-60):] {
		w.t.Log(l)
	}
	w.t.Fatalf(format, args...)
}

func (w *world) user() *fake { return w.users[1+w.rnd.Uint64N(4)] }
func (w *world) inode() uint64 {
	return 1 + w.rnd.Uint64N(3)
}

// pump routes the table's recalls.
func (w *world) pump() {
	sends, _ := w.table.Take()
	for _, s := range sends {
		w.note("recall %d to %d: ino %d mode %v names %v victim %v", s.Recall.Id, s.Session, s.Recall.Ino, s.Recall.Mode, s.Recall.Names, s.Recall.Victim)
		w.users[s.Session].inbox = append(w.users[s.Session].inbox, s.Recall)
	}
}

// step does one random thing.
func (w *world) step() {
	u := w.user()
	switch k := w.rnd.IntN(100); {
	case k < 12 && len(w.ops) < 12:
		w.begin(u)
	case k < 20:
		w.query(u)
	case k < 40 && len(w.reads) > 0:
		w.look(w.rnd.IntN(len(w.reads)))
	case k < 60 && len(u.late) > 0:
		w.deliver(u, w.rnd.IntN(len(u.late)))
	case k < 80 && len(u.inbox) > 0:
		w.answer(u, w.rnd.IntN(len(u.inbox)))
	case k < 97 && len(w.ops) > 0:
		w.advance(w.rnd.IntN(len(w.ops)))
	case k < 98 && len(u.held) > 0:
		for ino := range u.held {
			w.note("%d releases %d", u.id, ino)
			w.table.Release(u.id, []*wire.Grant{{Ino: ino, Id: u.grant[ino]}})
			u.recall[ino] = max(u.recall[ino], u.grant[ino])
			u.drop(ino, wire.Mode_NONE)
			break
		}
	}
	w.pump()
	w.check()
}

func (w *world) begin(u *fake) {
	r := &running{ino: w.inode(), name: Name{dir, fmt.Sprint(w.rnd.IntN(2))}}
	switch w.rnd.IntN(5) {
	case 0, 1:
		r.kind, r.mode = "take", []wire.Mode{wire.Mode_OPEN, wire.Mode_READ, wire.Mode_WRITE, wire.Mode_WRITE}[w.rnd.IntN(4)]
		if r.ino == dir && r.mode == wire.Mode_WRITE {
			r.mode = wire.Mode_READ
		}
	case 2:
		r.kind = "change"
	case 3:
		r.kind = "victim"
	case 4:
		r.kind = "names"
	}
	if r.kind == "names" {
		r.Op = w.table.Lock(u.id, r.name)
	} else {
		r.Op = w.table.Lock(u.id)
	}
	w.ops = append(w.ops, r)
	w.note("%d begins %s %v on %d %v", u.id, r.kind, r.mode, r.ino, r.name)
	w.claim(r)
}

// claim goes on to the inodes once the names are held.
func (w *world) claim(r *running) {
	if r.claimed || !r.Locked() {
		return
	}
	r.claimed = true
	c := Claim{Ino: r.ino, Kind: Change}
	switch r.kind {
	case "take":
		c.Kind, c.Mode = Take, r.mode
	case "victim":
		c.Victim = true
	case "names":
		c = Claim{Ino: dir, Kind: Names, Names: []string{r.name.Name}}
	}
	w.table.Claim(r.Op, c)
}

// advance carries an operation out, or gives it up.
func (w *world) advance(i int) {
	r := w.ops[i]
	w.claim(r)
	if !r.Ready() {
		if w.rnd.IntN(40) == 0 {
			w.note("%d gives up %s on %d", r.Session, r.kind, r.ino)
			w.table.End(r.Op)
			w.ops = append(w.ops[:i], w.ops[i+1:]...)
		}
		return
	}
	u := w.users[r.Session]
	d := delivery{ino: r.ino}
	switch r.kind {
	case "take":
		if g := w.table.Grant(u.id, r.ino, r.mode, r.Op); g != nil {
			d.grants = append(d.grants, g)
		} else if !u.gone {
			w.fail("a ready Take of %v on %d got nothing", r.mode, r.ino)
		}
	case "change", "victim":
		w.value[r.ino]++
		for _, o := range w.users {
			if o != u && !o.gone && o.held[r.ino] >= wire.Mode_READ {
				w.fail("%d changes %d while %d believes to hold %v", u.id, r.ino, o.id, o.held[r.ino])
			}
			if o != u && !o.gone && r.kind == "victim" && o.held[r.ino] == wire.Mode_OPEN && !contains(r.Open(r.ino), o.id) {
				w.fail("%d has %d open, and nobody knows", o.id, r.ino)
			}
		}
		if g := w.table.Refresh(u.id, r.ino, r.Op); g != nil {
			d.grants = append(d.grants, g)
		}
	case "names":
		d.ino = 0
		w.names[r.name]++
		for _, o := range w.users {
			if o == u || o.gone || o.held[dir] < wire.Mode_READ {
				continue
			}
			if _, ok := o.known[r.name]; ok {
				w.fail("%d changes %v while %d caches it", u.id, r.name, o.id)
			}
		}
		if g := w.table.Refresh(u.id, dir, r.Op); g != nil {
			d.grants = append(d.grants, g)
		}
		n := r.name
		d.name, d.entry = &n, w.names[r.name]
	}
	d.value = w.value[r.ino]
	w.note("%d is done with %s on %d: %v", r.Session, r.kind, r.ino, d.grants)
	w.table.End(r.Op)
	w.ops = append(w.ops[:i], w.ops[i+1:]...)
	u.late = append(u.late, d)
}

func contains(ids []uint64, id uint64) bool {
	for _, x := range ids {
		if x == id {
			return true
		}
	}
	return false
}

// query asks for a lease along with an answer.
func (w *world) query(u *fake) {
	r := &reading{session: u.id, ino: w.inode()}
	if w.rnd.IntN(2) == 0 {
		n := Name{dir, fmt.Sprint(w.rnd.IntN(2))}
		r.ino, r.name = dir, &n
		if !w.table.NameBusy(n) {
			r.grant = w.table.Grant(u.id, dir, wire.Mode_READ, nil)
		}
	} else if !w.table.DirBusy(r.ino, u.id) && !w.table.Delayed(u.id, r.ino) {
		r.grant = w.table.Grant(u.id, r.ino, wire.Mode_READ, nil)
	}
	if w.rnd.IntN(10) == 0 {
		w.table.Undo(u.id, r.grant)
		r.grant = nil
	}
	w.note("%d asks for %d %v: %v", u.id, r.ino, r.name, r.grant)
	w.reads = append(w.reads, r)
}

// look reads the state for a query.
func (w *world) look(i int) {
	r := w.reads[i]
	w.reads = append(w.reads[:i], w.reads[i+1:]...)
	d := delivery{}
	if r.grant != nil {
		d.grants = []*wire.Grant{r.grant}
	}
	if r.name != nil {
		d.name, d.entry = r.name, w.names[*r.name]
	} else {
		d.ino, d.value = r.ino, w.value[r.ino]
	}
	w.users[r.session].late = append(w.users[r.session].late, d)
}

// deliver brings a reply to a client, which records what the rules allow.
func (w *world) deliver(u *fake, i int) {
	d := u.late[i]
	u.late = append(u.late[:i], u.late[i+1:]...)
	u.newest[d.ino] = max(u.newest[d.ino], d.value)
	if _, ok := u.cached[d.ino]; ok { // newer than what is cached, it replaces that
		u.cached[d.ino] = u.newest[d.ino]
	}
	if d.name != nil {
		u.newer[*d.name] = max(u.newer[*d.name], d.entry)
		if _, ok := u.known[*d.name]; ok {
			u.known[*d.name] = u.newer[*d.name]
		}
	}
	for _, g := range d.grants {
		if g.Id <= u.recall[g.Ino] {
			continue
		}
		w.note("%d records %v", u.id, g)
		u.held[g.Ino] = max(u.held[g.Ino], g.Mode)
		u.grant[g.Ino] = max(u.grant[g.Ino], g.Id)
		if g.Ino == d.ino && g.Mode >= wire.Mode_READ {
			u.cached[d.ino] = u.newest[d.ino]
		}
		if d.name != nil && g.Ino == dir && g.Mode >= wire.Mode_READ {
			u.known[*d.name] = u.newer[*d.name]
		}
	}
}

func (u *fake) drop(ino uint64, mode wire.Mode) {
	if mode == wire.Mode_NONE {
		delete(u.held, ino)
	} else if u.held[ino] > mode {
		u.held[ino] = mode
	}
	if mode < wire.Mode_READ {
		delete(u.cached, ino)
		if ino == dir {
			clear(u.known)
		}
	}
}

// answer obeys a recall.
func (w *world) answer(u *fake, i int) {
	r := u.inbox[i]
	u.inbox = append(u.inbox[:i], u.inbox[i+1:]...)
	u.recall[r.Ino] = max(u.recall[r.Ino], r.Id)
	a := &wire.Recalled{Id: r.Id, Ino: r.Ino}
	if len(r.Names) > 0 {
		for _, n := range r.Names {
			delete(u.known, Name{r.Ino, n})
		}
		delete(u.cached, r.Ino)
	}
	mode := min(u.held[r.Ino], r.Mode)
	open := u.held[r.Ino] >= wire.Mode_OPEN && w.rnd.IntN(2) == 0 // it has the file open
	if mode == wire.Mode_OPEN && !open {
		mode = wire.Mode_NONE
	}
	u.drop(r.Ino, mode)
	a.Mode, a.Open = mode, r.Victim && mode >= wire.Mode_OPEN
	w.note("%d answers %d: %v open %v", u.id, r.Id, a.Mode, a.Open)
	w.table.Recalled(u.id, a)
}

// check: what clients believe never conflicts, and what they cache is true.
func (w *world) check() {
	for _, a := range w.users {
		if a.gone {
			continue
		}
		for ino, m := range a.held {
			if w.table.Mode(a.id, ino) < m {
				w.fail("%d believes to hold %v on %d, the table says %v", a.id, m, ino, w.table.Mode(a.id, ino))
			}
			for _, b := range w.users {
				if b != a && !b.gone && conflict(m, b.held[ino]) {
					w.fail("%d believes %v and %d believes %v on %d", a.id, m, b.id, b.held[ino], ino)
				}
			}
		}
		for ino, v := range a.cached {
			if a.held[ino] >= wire.Mode_READ && v != w.value[ino] && !w.changing(a, ino) {
				w.fail("%d caches %d of %d, the truth is %d", a.id, v, ino, w.value[ino])
			}
		}
		for n, v := range a.known {
			if a.held[dir] >= wire.Mode_READ && v != w.names[n] && !w.changing(a, dir) {
				w.fail("%d caches %d of %v, the truth is %d", a.id, v, n, w.names[n])
			}
		}
	}
}

// changing: a change of the client's own is under way, or its reply is: then it
// cannot tell old from new, and does not try to.
func (w *world) changing(u *fake, ino uint64) bool {
	for _, d := range u.late {
		if d.ino == ino || d.name != nil && ino == dir {
			return true
		}
	}
	for _, r := range w.ops {
		if r.Session == u.id && (r.ino == ino || ino == dir) {
			return true
		}
	}
	return false
}

// settle lets everything finish, and fails if something cannot.
func (w *world) settle() {
	for range 10000 {
		if len(w.ops) == 0 {
			return
		}
		for i := len(w.ops) - 1; i >= 0; i-- {
			w.claim(w.ops[i])
			if w.ops[i].Ready() {
				w.advance(i)
				w.pump()
			}
		}
		w.pump()
		for id := uint64(1); id <= 4; id++ {
			for u := w.users[id]; len(u.inbox) > 0; {
				w.answer(u, 0)
				w.pump()
			}
		}
		w.check()
	}
	for _, r := range w.ops {
		w.note("stuck: session %d %s %v on %d, name %v, locked %v, recalls %v", r.Session, r.kind, r.mode, r.ino, r.name, r.Locked(), r.pending)
		for id, h := range w.table.inode(r.ino).holders {
			w.note("  session %d holds %+v", id, *h)
		}
	}
	w.fail("%d operations never got ready", len(w.ops))
}

func TestTableProperties(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", s)
	for run := range uint64(150) {
		w := newWorld(t, rand.New(rand.NewPCG(s, run)))
		for range 500 {
			w.step()
		}
		if w.rnd.IntN(3) == 0 { // one session dies
			u := w.user()
			u.gone = true
			u.inbox, u.late = nil, nil
			w.table.Drop(u.id)
			w.note("%d dies", u.id)
			w.pump()
		}
		w.settle()
	}
}
