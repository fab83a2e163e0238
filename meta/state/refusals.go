package state

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"quernfs/internal/wire"
)

// Why job files, rules and attributes were refused is kept here, so that every
// mount tells the same, after any restart. There is one refusal of a user's name; the
// number of all and of a user's bounds them, and so does their age.
const (
	maxRefusals    = 4096
	maxOwnRefusals = 128 // of a user other than root
	maxRefusalText = 4 << 10
	refusalAge     = int64(30 * 24 * time.Hour)
)

func (v *view) refusal(number uint64) *wire.Refusal {
	r := new(wire.Refusal)
	if !v.load(refusalKey(nil, number), r) {
		return nil
	}
	return r
}

// refusals calls each with all refusals, the oldest first.
func (v *view) refusals(each func(*wire.Refusal) bool) {
	v.prefix([]byte{kJob, jRefusal}, func(key, value []byte) bool {
		r := new(wire.Refusal)
		return v.decode(key, value, r) && each(r)
	})
}

// refusalsAbout are the numbers of those about an inode.
func (v *view) refusalsAbout(ino uint64) (numbers []uint64) {
	v.prefix(be64([]byte{kJob, jRefusalAbout}, ino), func(key, _ []byte) bool {
		if len(key) == 18 {
			numbers = append(numbers, num64(key[10:]))
		}
		return true
	})
	return numbers
}

func (t *tx) putRefusal(op *wire.PutRefusal) *wire.Result {
	if code := checkName(op.Name); code != wire.OK {
		return failf(code, "a refusal cannot be called %q", op.Name)
	}
	if n := len(op.Text); n == 0 || n > maxRefusalText {
		return failf(wire.Invalid, "a refusal of %d bytes, not 1 to %d", n, maxRefusalText)
	}
	uid := t.cred.GetUid()
	t.forgetRefusal(uid, op.Name)
	t.makeRoom(uid)
	r := &wire.Refusal{
		Number: t.take(nextRefusal, 1), Name: op.Name, Ino: op.Ino, Text: op.Text,
		Uid: uid, Gid: t.cred.GetGid(), TimeNs: t.now,
	}
	t.counts[countRefusals]++
	t.set(refusalKey(nil, r.Number), r)
	t.setRaw(refusalNameKey(nil, uid, r.Name), be64(nil, r.Number))
	if r.Ino != 0 {
		t.setRaw(refusalAboutKey(nil, r.Ino, r.Number), nil)
	}
	t.trimRefusals()
	return &wire.Result{Value: r.Number}
}

// makeRoom forgets the oldest refusal of a user who may have no more.
func (t *tx) makeRoom(uid uint32) {
	n, oldest := 0, uint64(math.MaxUint64)
	t.prefix(refusalNameKey(nil, uid, ""), func(_, value []byte) bool {
		n++
		oldest = min(oldest, num64(value))
		return true
	})
	if uid == 0 || n < maxOwnRefusals {
		return
	}
	if r := t.refusal(oldest); r != nil {
		t.dropRefusal(r)
	}
}

// trimRefusals forgets the oldest of too many, and those that are too old.
func (t *tx) trimRefusals() {
	var gone []*wire.Refusal
	t.refusals(func(r *wire.Refusal) bool {
		if t.counts[countRefusals]-uint64(len(gone)) <= maxRefusals && t.now-r.TimeNs <= refusalAge {
			return false
		}
		gone = append(gone, r)
		return true
	})
	for _, r := range gone {
		t.dropRefusal(r)
	}
}

func (t *tx) dropRefusal(r *wire.Refusal) {
	t.counts[countRefusals]--
	t.del(refusalKey(nil, r.Number))
	t.del(refusalNameKey(nil, r.Uid, r.Name))
	if r.Ino != 0 {
		t.del(refusalAboutKey(nil, r.Ino, r.Number))
	}
}

// forgetRefusal forgets the refusal of a user's name, if there is one.
func (t *tx) forgetRefusal(uid uint32, name string) {
	if n, ok := t.number(refusalNameKey(nil, uid, name)); ok {
		if r := t.refusal(n); r != nil {
			t.dropRefusal(r)
		}
	}
}

// forgetRefusalsAbout forgets those about inodes.
func (t *tx) forgetRefusalsAbout(inos []uint64) {
	for _, ino := range inos {
		for _, n := range t.refusalsAbout(ino) {
			if r := t.refusal(n); r != nil {
				t.dropRefusal(r)
			}
		}
	}
}

func (t *tx) clearRefusal(op *wire.ClearRefusal) *wire.Result {
	if op.Name != "" {
		t.forgetRefusal(t.cred.GetUid(), op.Name)
	}
	if op.Ino != 0 {
		t.forgetRefusalsAbout([]uint64{op.Ino})
	}
	return &wire.Result{}
}

func (v *view) listRefusals(op *wire.ListRefusals) *wire.Answer {
	var all []*wire.Refusal
	add := func(r *wire.Refusal) {
		fits := r != nil && (op.Name == "" || r.Name == op.Name) && (op.Ino == 0 || r.Ino == op.Ino) && (op.Number == 0 || r.Number == op.Number) && (!op.Own || r.Uid == op.Uid)
		if fits {
			all = append(all, r)
		}
	}
	switch {
	case op.GetNumber() != 0:
		add(v.refusal(op.Number))
	case op.GetOwn() && op.GetName() != "":
		if n, ok := v.number(refusalNameKey(nil, op.Uid, op.Name)); ok {
			add(v.refusal(n))
		}
	case op.GetOwn() && op.GetIno() == 0:
		v.prefix(refusalNameKey(nil, op.Uid, ""), func(_, value []byte) bool {
			add(v.refusal(num64(value)))
			return true
		})
		slices.SortFunc(all, func(a, b *wire.Refusal) int { return cmp.Compare(a.Number, b.Number) })
	case op.GetIno() != 0:
		for _, n := range v.refusalsAbout(op.Ino) {
			add(v.refusal(n))
		}
	default:
		v.refusals(func(r *wire.Refusal) bool {
			add(r)
			return true
		})
	}
	return &wire.Answer{Op: &wire.Answer_Refusals{Refusals: &wire.RefusalsAnswer{Refusals: all}}}
}

// seeRefusal tallies a key of refusals; false: it is none.
func (c *checker) seeRefusal(key, value []byte) bool {
	switch {
	case len(key) == 10 && key[1] == jRefusal:
		r := new(wire.Refusal)
		if c.v.decode(key, value, r) {
			c.refusals.count++
			c.refusals.last = max(c.refusals.last, r.Number)
			if n, ok := c.v.number(refusalNameKey(nil, r.Uid, r.Name)); !ok || n != r.Number || num64(key[2:]) != n {
				c.bad(fmt.Sprintf("refusal %d", r.Number), "its name %q leads to %d", r.Name, n)
			}
			if r.Ino != 0 {
				c.refusals.about++
			}
		}
	case len(key) > 6 && key[1] == jRefusalName && len(value) == 8:
		c.refusals.names++
	case len(key) == 18 && key[1] == jRefusalAbout:
		c.refusals.index++
		if r := c.v.refusal(num64(key[10:])); r == nil || r.Ino != num64(key[2:]) {
			c.bad(fmt.Sprintf("refusal %d", num64(key[10:])), "is not about inode %d", num64(key[2:]))
		}
	default:
		return false
	}
	return true
}

// refusalTally is what the state says of refusals, from all sides.
type refusalTally struct {
	count, names, about, index int
	last                       uint64
}

func (c *checker) checkRefusals() {
	r := c.refusals
	if r.count != r.names || r.about != r.index || r.count > maxRefusals || uint64(r.count) != c.counts[countRefusals] {
		c.bad("refusals", "%d, by %d names; %d about inodes, %d in their index", r.count, r.names, r.about, r.index)
	}
	if r.last >= c.counts[nextRefusal] {
		c.bad("counter "+counterNames[nextRefusal], "is %d, but %d has been given out", c.counts[nextRefusal], r.last)
	}
}
