package fs

import (
	"reflect"
	"testing"
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
	reads := readPages{ss: spans{{16384, 20480}}}
	all, valid, maybe := in.waitingPages(span{0, maxOff}, [2]readPages{reads, {}})
	if !reflect.DeepEqual(all, spans{{0, 4096}, {8192, 20480}}) || !reflect.DeepEqual(valid, spans{{12288, 20480}}) || len(maybe) != 0 {
		t.Error(all, valid, maybe)
	}
	all, valid, maybe = in.waitingPages(span{0, 10000}, [2]readPages{{any: true}, {}})
	if !reflect.DeepEqual(all, spans{{0, 4096}, {8192, 10000}}) || len(valid) != 0 || !reflect.DeepEqual(maybe, spans{{8192, 10000}}) {
		t.Error(all, valid, maybe)
	}
}
