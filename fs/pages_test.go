package fs

import (
	"reflect"
	"testing"
	"time"
)

func TestReadPages(t *testing.T) {
	var p readPages
	if ss, sure := p.within(span{0, 4096}); !sure || len(ss) != 0 {
		t.Error("of a new inode no page is valid")
	}
	p.read(span{0, 8192})
	p.read(span{16384, 20480})
	p.drop(span{4096, 8192})
	if ss, sure := p.within(span{0, 17000}); !sure || !reflect.DeepEqual(ss, spans{{0, 4096}, {16384, 17000}}) {
		t.Error(ss, sure)
	}
	for i := range int64(maxSpans + 1) {
		p.read(span{i * 2 * 4096, i*2*4096 + 4096})
	}
	if ss, sure := p.within(span{4096, 8192}); sure || len(ss) != 1 {
		t.Error("too many to note: any page may be valid")
	}
	p.drop(span{0, 4096})
	if !p.any {
		t.Error("one page dropped says nothing of the others")
	}
	p.drop(span{0, maxOff})
	if ss, sure := p.within(span{0, maxOff}); !sure || len(ss) != 0 {
		t.Error("all dropped: none is valid")
	}
}

func TestInner(t *testing.T) {
	for _, c := range []struct {
		off, n int64
		want   span
	}{{0, 4096, span{0, 4096}}, {1, 4095, span{}}, {1, 8191, span{4096, 8192}}, {100, 10000, span{4096, 8192}}, {0, 100, span{}}, {4096, 0, span{}}} {
		if got := inner(c.off, c.n); got != c.want {
			t.Errorf("inner(%d, %d) = %v, want %v", c.off, c.n, got, c.want)
		}
	}
}

func TestWaitingPages(t *testing.T) {
	in := &inode{ops: map[*op]struct{}{}}
	add := func(o *op) { in.ops[o] = struct{}{} }
	add(&op{span: span{0, 4096}, waiting: true})                                             // a read: locked, not valid
	add(&op{span: span{8192, 20480}, fills: span{12288, 16384}, write: true, waiting: true}) // a write of one page and two parts
	add(&op{span: span{40960, 45056}, write: true})                                          // goes on
	in.pages.read(span{16384, 20480})
	all, valid, maybe := in.waitingPages(span{0, maxOff})
	if !reflect.DeepEqual(all, spans{{0, 4096}, {8192, 20480}}) || !reflect.DeepEqual(valid, spans{{12288, 20480}}) || len(maybe) != 0 {
		t.Error(all, valid, maybe)
	}
	in.pages.reads.any = true
	all, valid, maybe = in.waitingPages(span{0, 10000})
	if !reflect.DeepEqual(all, spans{{0, 4096}, {8192, 10000}}) || len(valid) != 0 || !reflect.DeepEqual(maybe, spans{{8192, 10000}}) {
		t.Error(all, valid, maybe)
	}
}

// A page that is read while it is being dropped counts as read afterwards.
func TestPageNotes(t *testing.T) {
	var n pageNotes
	n.read(span{0, 8192})
	n.fill(span{0, 4096})
	d := n.begin(span{0, maxOff})
	if ss, _ := n.reads.within(span{0, maxOff}); !reflect.DeepEqual(ss, spans{{0, 8192}}) {
		t.Error("forgotten before it was dropped:", ss)
	}
	n.read(span{4096, 12288})
	n.end(d)
	if ss, _ := n.reads.within(span{0, maxOff}); !reflect.DeepEqual(ss, spans{{4096, 12288}}) {
		t.Error(ss)
	}
	if ss, _ := n.filled.within(span{0, maxOff}); len(ss) != 0 {
		t.Error(ss)
	}
	n.gone(span{8192, maxOff})
	if ss, _ := n.reads.within(span{0, maxOff}); !reflect.DeepEqual(ss, spans{{4096, 8192}}) {
		t.Error(ss)
	}
}

func TestBehind(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return now.Add(d) }
	page := func(i int64) span { return span{i * 4096, i*4096 + 4096} }
	n := pageNotes{last: at(0), recent: []recentRead{
		{page(0), at(-time.Second)}, {page(1), at(-10 * time.Millisecond)}, {page(2), at(-10 * time.Millisecond)}, {page(2), at(time.Millisecond)}, {page(9), at(time.Millisecond)},
	}}
	all := span{0, 4 * 4096}
	if sure, maybe := n.behind(all, now); !reflect.DeepEqual(sure, spans{page(2)}) || !reflect.DeepEqual(maybe, spans{page(1)}) {
		t.Error("read before, about then, and since:", sure, maybe)
	}
	if sure, maybe := n.behind(all, at(dropWindow+time.Second)); len(sure)+len(maybe) != 0 {
		t.Error("long after the last drop:", sure, maybe)
	}
	n.lost = at(0)
	if sure, maybe := n.behind(all, now); !reflect.DeepEqual(sure, spans{page(2)}) || !reflect.DeepEqual(maybe, spans{{0, 8192}, page(3)}) {
		t.Error("more reads than are remembered:", sure, maybe)
	}
}
