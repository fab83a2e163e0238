package data

import (
	"iter"
	"slices"
	"sort"
)

// span says that bytes [off, end) of a file are bytes [at, at+end-off) of src.
type span[S comparable] struct {
	off, end int64
	at       int64
	src      S
}

func (s span[S]) len() int64 { return s.end - s.off }

// clip returns the part of s inside [off, end).
func (s span[S]) clip(off, end int64) span[S] {
	if off > s.off {
		s.at += off - s.off
		s.off = off
	}
	s.end = min(s.end, end)
	return s
}

// joins says that t continues s in the file and in the source.
func (s span[S]) joins(t span[S]) bool {
	return s.end == t.off && s.src == t.src && s.at+s.len() == t.at
}

// pageMax bounds the spans of one page: small enough that shifting them is
// cheap, large enough that a hundred thousand spans have few pages.
const pageMax = 256

// spanMap is a sorted set of spans that do not overlap; spans that join are
// merged. It is an array of small arrays: finding is two binary searches,
// changing shifts within one page. The zero value is empty. Not safe for
// concurrent use.
type spanMap[S comparable] struct {
	pages [][]span[S] // none is empty
	n     int
	bytes int64
}

func (m *spanMap[S]) count() int { return m.n }

func (m *spanMap[S]) reset() { *m = spanMap[S]{} }

// end is the end of the last span, 0 if there is none.
func (m *spanMap[S]) end() int64 {
	if m.n == 0 {
		return 0
	}
	last := m.pages[len(m.pages)-1]
	return last[len(last)-1].end
}

// seek returns the place of the first span that ends after off: the place
// behind the last span, (len(pages), 0), if there is none.
func (m *spanMap[S]) seek(off int64) (pg, i int) {
	pg = sort.Search(len(m.pages), func(j int) bool {
		page := m.pages[j]
		return page[len(page)-1].end > off
	})
	if pg == len(m.pages) {
		return pg, 0
	}
	page := m.pages[pg]
	return pg, sort.Search(len(page), func(j int) bool { return page[j].end > off })
}

// over yields the spans that touch [off, end), clipped to it, in order. The map
// must not change meanwhile.
func (m *spanMap[S]) over(off, end int64) iter.Seq[span[S]] {
	return func(yield func(span[S]) bool) {
		pg, i := m.seek(off)
		for ; pg < len(m.pages); pg, i = pg+1, 0 {
			for _, s := range m.pages[pg][i:] {
				if s.off >= end || !yield(s.clip(off, end)) {
					return
				}
			}
		}
	}
}

// all yields every span in order.
func (m *spanMap[S]) all() iter.Seq[span[S]] { return m.over(-1, 1<<63-1) }

// at returns the span at off clipped to [off, end): if off lies in a gap, found
// is false and the span is the gap, [off, its end).
func (m *spanMap[S]) at(off, end int64) (s span[S], found bool) {
	pg, i := m.seek(off)
	if pg == len(m.pages) {
		return span[S]{off: off, end: end}, false
	}
	s = m.pages[pg][i]
	if s.off > off {
		return span[S]{off: off, end: min(s.off, end)}, false
	}
	return s.clip(off, end), true
}

// set maps [s.off, s.end) to s, in place of what was there.
func (m *spanMap[S]) set(s span[S]) {
	if s.off < s.end {
		m.replace(s.off, s.end, s, true)
	}
}

// clear unmaps [off, end).
func (m *spanMap[S]) clear(off, end int64) {
	if off < end && m.n > 0 {
		m.replace(off, end, span[S]{}, false)
	}
}

// replace takes [off, end) out and puts s in if put, merged with its
// neighbours.
func (m *spanMap[S]) replace(off, end int64, s span[S], put bool) {
	var buf [3]span[S]
	repl := buf[:0]
	add := func(t span[S]) {
		if k := len(repl); k > 0 && repl[k-1].joins(t) {
			repl[k-1].end = t.end
			return
		}
		repl = append(repl, t)
	}

	pg, i := m.seek(off)
	p0, i0 := pg, i
	// The neighbour on the left belongs to what is replaced if it joins s.
	if put {
		if lp, li, ok := m.before(pg, i); ok && m.pages[lp][li].joins(s) {
			p0, i0 = lp, li
			add(m.pages[lp][li])
			m.bytes -= m.pages[lp][li].len()
		}
	}
	p1, i1 := pg, i // end of what is replaced
	right, haveRight := span[S]{}, false
	for p1 < len(m.pages) {
		t := m.pages[p1][i1]
		if t.off >= end {
			if put && t.off == end && s.joins(t) {
				right, haveRight = t, true
				m.bytes -= t.len()
				p1, i1 = m.after(p1, i1)
			}
			break
		}
		m.bytes -= t.len()
		if t.off < off {
			add(t.clip(t.off, off))
		}
		p1, i1 = m.after(p1, i1)
		if t.end > end {
			right, haveRight = t.clip(end, t.end), true
			break
		}
	}
	if put {
		add(s)
	}
	if haveRight {
		add(right)
	}
	for _, t := range repl {
		m.bytes += t.len()
	}
	m.splice(p0, i0, p1, i1, repl)
}

func (m *spanMap[S]) before(pg, i int) (int, int, bool) {
	if i > 0 {
		return pg, i - 1, true
	}
	if pg > 0 {
		return pg - 1, len(m.pages[pg-1]) - 1, true
	}
	return 0, 0, false
}

func (m *spanMap[S]) after(pg, i int) (int, int) {
	if i+1 < len(m.pages[pg]) {
		return pg, i + 1
	}
	return pg + 1, 0
}

// splice puts repl in place of the spans from (p0, i0) up to, not including,
// (p1, i1).
func (m *spanMap[S]) splice(p0, i0, p1, i1 int, repl []span[S]) {
	if p0 == len(m.pages) {
		if len(repl) == 0 {
			return
		}
		// Behind the last span: sequential writes land here.
		if p0 > 0 {
			p0--
			i0 = len(m.pages[p0])
			p1, i1 = p0, i0
		} else {
			m.pages = append(m.pages, nil)
			p1, i1 = 0, 0
		}
	}
	if p1 > p0 && i1 == 0 {
		p1--
		i1 = len(m.pages[p1])
	}
	if p0 == p1 {
		m.n += len(repl) - (i1 - i0)
		m.pages[p0] = slices.Replace(m.pages[p0], i0, i1, repl...)
	} else {
		m.n += len(repl) - (len(m.pages[p0]) - i0) - i1
		for j := p0 + 1; j < p1; j++ {
			m.n -= len(m.pages[j])
		}
		m.pages[p0] = append(m.pages[p0][:i0], repl...)
		m.pages[p1] = slices.Delete(m.pages[p1], 0, i1)
		if len(m.pages[p1]) == 0 {
			p1++
		}
		m.pages = slices.Delete(m.pages, p0+1, p1)
	}
	switch page := m.pages[p0]; {
	case len(page) == 0:
		m.pages = slices.Delete(m.pages, p0, p0+1)
	case len(page) > pageMax:
		half := len(page) / 2
		if p0 == len(m.pages)-1 && i0 >= pageMax-1 {
			half = pageMax - 1 // appending: leave full pages behind
		}
		tail := slices.Clone(page[half:])
		m.pages[p0] = page[:half:half]
		m.pages = slices.Insert(m.pages, p0+1, tail)
	}
}
