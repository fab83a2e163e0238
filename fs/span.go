package fs

import "slices"

// span is a range of bytes of a file, [lo, hi).
type span struct{ lo, hi int64 }

const (
	pageSize = 4096
	maxOff   = int64(1<<63 - 1)
)

// pages widens [off, off+n) to whole pages of the kernel's cache.
func pages(off, n int64) span {
	lo := off &^ (pageSize - 1)
	if n > maxOff-off-pageSize {
		return span{lo, maxOff}
	}
	return span{lo, (off + n + pageSize - 1) &^ (pageSize - 1)}
}

func (s span) empty() bool          { return s.hi <= s.lo }
func (s span) overlaps(o span) bool { return s.lo < o.hi && o.lo < s.hi }

// spans is a set of bytes: sorted, not touching one another.
type spans []span

func (ss spans) overlaps(o span) bool {
	for _, s := range ss {
		if s.overlaps(o) {
			return true
		}
	}
	return false
}

// add returns the union of ss and o.
func (ss spans) add(o span) spans {
	if o.empty() {
		return ss
	}
	out := make(spans, 0, len(ss)+1)
	for _, s := range ss {
		if s.hi < o.lo || o.hi < s.lo {
			out = append(out, s)
			continue
		}
		o = span{min(o.lo, s.lo), max(o.hi, s.hi)}
	}
	out = append(out, o)
	slices.SortFunc(out, func(a, b span) int {
		switch {
		case a.lo < b.lo:
			return -1
		case a.lo > b.lo:
			return 1
		}
		return 0
	})
	return out
}

// without returns the parts of s that are not in ss.
func (s span) without(ss spans) spans {
	var out spans
	for _, x := range ss {
		if !s.overlaps(x) {
			continue
		}
		if s.lo < x.lo {
			out = append(out, span{s.lo, x.lo})
		}
		s.lo = x.hi
		if s.empty() {
			return out
		}
	}
	return append(out, s)
}

// within returns the parts of ss that are in s.
func (ss spans) within(s span) spans {
	var out spans
	for _, x := range ss {
		if x.overlaps(s) {
			out = append(out, span{max(x.lo, s.lo), min(x.hi, s.hi)})
		}
	}
	return out
}

// less returns ss without s.
func (ss spans) less(s span) spans {
	var out spans
	for _, x := range ss {
		out = append(out, x.without(spans{s})...)
	}
	return out
}
