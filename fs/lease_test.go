package fs

import (
	"testing"
	"time"

	"quernfs/internal/wire"
)

const (
	none  = wire.Mode_NONE
	open_ = wire.Mode_OPEN
	read  = wire.Mode_READ
	write = wire.Mode_WRITE
)

func TestAdmit(t *testing.T) {
	for _, c := range []struct {
		name   string
		have   held
		grant  *wire.Grant
		floor  uint64
		want   held
		admits bool
	}{
		{"first", held{}, &wire.Grant{Mode: read, Id: 5}, 0, held{read, 5, 0}, true},
		{"no grant", held{read, 5, 0}, nil, 0, held{read, 5, 0}, false},
		{"upgrade", held{read, 5, 0}, &wire.Grant{Mode: write, Id: 9}, 0, held{write, 9, 0}, true},
		{"an answer does not take away", held{write, 9, 0}, &wire.Grant{Mode: read, Id: 12}, 0, held{write, 12, 0}, true},
		{"overtaken by a newer grant", held{write, 9, 0}, &wire.Grant{Mode: read, Id: 7}, 0, held{write, 9, 0}, true},
		{"overtaken by a recall", held{none, 5, 8}, &wire.Grant{Mode: read, Id: 7}, 0, held{none, 5, 8}, false},
		{"after the recall", held{none, 5, 8}, &wire.Grant{Mode: read, Id: 9}, 0, held{read, 9, 8}, true},
		{"of an old connection", held{}, &wire.Grant{Mode: read, Id: 9}, 9, held{}, false},
	} {
		got := c.have
		if ok := got.admit(c.grant, c.floor); ok != c.admits || got != c.want {
			t.Errorf("%s: %v, %v; want %v, %v", c.name, got, ok, c.want, c.admits)
		}
	}
}

func TestLower(t *testing.T) {
	for _, c := range []struct {
		from, to wire.Mode
		open     bool
		want     wire.Mode
	}{
		{write, read, false, read}, {write, read, true, read},
		{write, open_, false, none}, {write, open_, true, open_},
		{read, open_, false, none}, {read, open_, true, open_},
		{read, none, true, none}, {read, read, false, read},
		{none, open_, true, none}, {open_, open_, true, open_}, {open_, open_, false, none},
	} {
		h := held{mode: c.from, grant: 3}
		h.lower(c.to, 7, c.open)
		if h.mode != c.want || h.recall != 7 {
			t.Errorf("%v to %v, open %v: %v; want %v", c.from, c.to, c.open, h, c.want)
		}
	}
}

func TestReclaimed(t *testing.T) {
	for _, c := range []struct {
		have held
		g    *wire.Grant
		want held
	}{
		{held{write, 3, 1}, &wire.Grant{Mode: write, Id: 1 << 40}, held{write, 1 << 40, 1}},
		{held{write, 3, 1}, nil, held{none, 3, 1}},
		{held{read, 3, 1}, &wire.Grant{Mode: write, Id: 9}, held{read, 9, 1}},
		{held{write, 3, 1}, &wire.Grant{Mode: read, Id: 9}, held{read, 9, 1}},
	} {
		got := c.have
		got.reclaimed(c.g)
		if got != c.want {
			t.Errorf("%v with %v: %v; want %v", c.have, c.g, got, c.want)
		}
	}
}

func TestPlanRecall(t *testing.T) {
	for _, c := range []struct {
		from, to           wire.Mode
		dir, names, victim bool
		want               recallPlan
	}{
		{write, read, false, false, false, recallPlan{flush: true}},
		{write, open_, false, false, false, recallPlan{flush: true, drop: true, attrs: true}},
		{read, open_, false, false, false, recallPlan{drop: true, attrs: true}},
		{read, open_, true, false, false, recallPlan{attrs: true, entries: true}},
		{read, read, true, true, false, recallPlan{names: true, attrs: true}},
		{open_, open_, false, false, true, recallPlan{attrs: true}},
		{none, open_, false, false, false, recallPlan{}},
		{read, read, false, false, false, recallPlan{}},
		{write, open_, false, false, true, recallPlan{flush: true, drop: true, attrs: true}},
	} {
		if got := planRecall(c.from, c.to, c.dir, c.names, c.victim); got != c.want {
			t.Errorf("%v to %v (dir %v names %v victim %v): %+v; want %+v", c.from, c.to, c.dir, c.names, c.victim, got, c.want)
		}
	}
}

func TestAppendAt(t *testing.T) {
	for _, c := range []struct {
		kernel, size, want int64
		moved              bool
	}{{100, 100, 100, false}, {100, 250, 250, true}, {100, 0, 0, true}} {
		if off, moved := appendAt(c.kernel, c.size); off != c.want || moved != c.moved {
			t.Errorf("kernel at %d, size %d: %d, %v", c.kernel, c.size, off, moved)
		}
	}
}

func TestRelatime(t *testing.T) {
	hour := int64(time.Hour)
	for _, c := range []struct {
		atime, mtime, ctime, now int64
		want                     bool
	}{
		{10, 20, 5, 30, true}, {20, 10, 5, 30, false}, {20, 10, 25, 30, true}, {10, 10, 5, 30, true},
		{20, 10, 5, 20 + 24*hour, true}, {20, 10, 5, 19 + 24*hour, false},
	} {
		if got := relatime(&wire.Attr{AtimeNs: c.atime, MtimeNs: c.mtime, CtimeNs: c.ctime}, c.now); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestAdmits(t *testing.T) {
	at := func(lo, hi int64) *op { return &op{need: read, span: span{lo, hi}} }
	r := &recalling{to: open_, drop: true}
	if !r.admits(at(0, 4096), appendChain{}) {
		t.Error("draining: everything goes on")
	}
	r.phase, r.touched, r.active = closing, spans{{0, 4096}}, spans{{8192, 12288}}
	for _, c := range []struct {
		o    *op
		want bool
	}{{at(0, 4096), true}, {at(4096, 8192), false}, {at(8192, 16384), true}, {at(0, 0), false}} {
		if got := r.admits(c.o, appendChain{}); got != c.want {
			t.Errorf("closing %v: %v", c.o.span, got)
		}
	}
	r.phase = shut
	if r.admits(at(0, 4096), appendChain{}) {
		t.Error("shut: nothing goes on")
	}
	down := &recalling{to: read}
	if !down.admits(&op{need: read}, appendChain{}) || down.admits(&op{need: write}, appendChain{}) {
		t.Error("down to READ: reads go on, writes do not")
	}
	half := chainAfter(4096, time.Now())
	for _, r := range []*recalling{{to: open_, drop: true}, {to: read}} {
		if r.admits(&op{need: write, append: true, off: 0}, half) || !r.admits(&op{need: write, append: true, off: 4096}, half) {
			t.Error("of appends only the rest of a record goes on")
		}
	}
}
