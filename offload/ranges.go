package offload

import (
	"bytes"
	"context"
	"io"
	"sort"

	"golang.org/x/sync/errgroup"

	"quernfs/internal/block"
	"quernfs/internal/traffic"
	"quernfs/internal/wire"
)

// A task that gets ranges of a file sees a file that consists of these alone.
// Ranges of lines are cut so that each line is seen by one task: by the one in
// whose range it ends. (The end of a shard can be verified by itself, its
// beginning cannot; see internal/block. So it costs less to fetch the few
// bytes before a range than those after it.)

// stretch is a part of what a task sees: bytes of the file, or bytes in memory.
type stretch struct {
	at  int64 // in what the task sees
	len int64
	off int64  // in the file
	mem []byte // instead; nil: of the file
}

// rangeView is what a task sees of a file.
type rangeView struct {
	parts []stretch
	size  int64

	window   []byte // bytes of the file that were read last
	windowAt int64
}

// windowSize is how much of a file is read at once. Windows begin at multiples
// of it, which are borders of leaves: so no leaf is read twice.
const windowSize = 256 << 10

// How the beginning of a line is looked for, backwards: at first in the few bytes
// that cost little (internal/block, tail.go), then leaf by leaf, so that none is
// fetched twice, at last in windows.
const (
	lineStep  = 512
	lineTail  = 8 << 10 // of all the first steps
	lineLeaf  = block.LeafSize
	lineLeafs = 4 // so many, then windows
	// memLine is the longest beginning of a line that is kept in memory.
	memLine = 256 << 10
)

// found is what of a range a task sees: the lines that end in it.
type found struct {
	start, end int64
	head       []byte // of the line that began before the range; nil: there is none, or it is long
}

// viewRanges finds out what a task sees of a file.
func viewRanges(ctx context.Context, f File, t *wire.TaskInput) (*rangeView, error) {
	all, err := findLines(ctx, f, t)
	if err != nil {
		return nil, err
	}
	v := &rangeView{}
	for i, x := range all {
		v.addFound(x, int64(t.Ranges[i].Off))
	}
	return v, nil
}

// addFound adds what was found of the range that begins at off.
func (v *rangeView) addFound(x found, off int64) {
	if len(x.head) > 0 {
		v.add(stretch{len: int64(len(x.head)), mem: x.head})
		x.start = off
	}
	v.add(stretch{off: x.start, len: x.end - x.start})
}

// findLines finds out which lines end in the ranges; or, where these are not of
// lines, gives the ranges themselves.
func findLines(ctx context.Context, f File, t *wire.TaskInput) ([]found, error) {
	all := make([]found, len(t.Ranges))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, r := range t.Ranges {
		off, end := int64(r.Off), int64(r.Off+r.Len)
		all[i] = found{start: off, end: end}
		if !t.Records {
			continue
		}
		g.Go(func() error {
			if end < int64(t.Size) {
				stop, _, err := lineStart(ctx, f, end, off)
				if err != nil {
					return err
				}
				end = stop
			}
			if end == off { // no line ends here
				all[i] = found{off, off, nil}
				return nil
			}
			start, head, err := lineStart(ctx, f, off, 0)
			all[i] = found{start, end, head}
			return err
		})
	}
	return all, g.Wait()
}

func (v *rangeView) add(s stretch) {
	if s.len == 0 {
		return
	}
	s.at = v.size
	v.parts = append(v.parts, s)
	v.size += s.len
}

// lineStart finds where the line begins that goes on at off: after the last
// newline in [least, off), or at least. head are the bytes from there to off,
// unless they are many.
func lineStart(ctx context.Context, f File, off, least int64) (start int64, head []byte, err error) {
	step := int64(lineStep)
	for at := off; at > least; {
		n := step
		switch behind := off - at; {
		case behind < lineTail:
			n, step = min(step, lineTail-behind), 4*step
		case behind < lineLeafs*lineLeaf:
			n = (at-1)%lineLeaf + 1
		default:
			n = (at-1)%windowSize + 1
		}
		n = min(n, at-least)
		buf := make([]byte, n)
		if _, err := readExactly(ctx, f, buf, at-n); err != nil {
			return 0, nil, err
		}
		i := bytes.LastIndexByte(buf, '\n')
		if off-at <= memLine {
			head = append(buf[i+1:len(buf):len(buf)], head...)
		}
		if i >= 0 {
			at = at - n + int64(i) + 1
			if int64(len(head)) != off-at {
				head = nil
			}
			return at, head, nil
		}
		at -= n
	}
	if int64(len(head)) != off-least {
		head = nil
	}
	return least, head, nil
}

// readExactly fills p, without reading ahead.
func readExactly(ctx context.Context, f File, p []byte, off int64) (int, error) {
	read := f.ReadAt
	if e, ok := f.(exactReader); ok {
		read, ctx = e.ReadExactly, traffic.Patiently(ctx)
	}
	total := 0
	for total < len(p) {
		n, err := read(ctx, p[total:], off+int64(total))
		total += n
		if total == len(p) {
			break
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// load reads the window around at, as far as it lies in s.
func (v *rangeView) load(ctx context.Context, f File, s stretch, at int64) error {
	start := at / windowSize * windowSize
	end := min(start+windowSize, s.off+s.len)
	start = max(start, s.off)
	if int64(cap(v.window)) < end-start {
		v.window = make([]byte, windowSize)
	}
	v.window, v.windowAt = v.window[:end-start], start
	if _, err := readExactly(ctx, f, v.window, start); err != nil {
		v.window = v.window[:0]
		return err
	}
	return nil
}

// readAt reads what the task sees; io.EOF at its end.
func (v *rangeView) readAt(ctx context.Context, f File, p []byte, off int64) (int, error) {
	total := 0
	i := sort.Search(len(v.parts), func(i int) bool { return v.parts[i].at+v.parts[i].len > off })
	for ; i < len(v.parts) && total < len(p); i++ {
		s := v.parts[i]
		skip := off + int64(total) - s.at
		want := p[total:min(int64(len(p)), int64(total)+s.len-skip)]
		if s.mem != nil {
			total += copy(want, s.mem[skip:])
			continue
		}
		for len(want) > 0 {
			at := s.off + skip
			if at < v.windowAt || at >= v.windowAt+int64(len(v.window)) {
				if err := v.load(ctx, f, s, at); err != nil {
					return total, err
				}
			}
			n := copy(want, v.window[at-v.windowAt:])
			want, total, skip = want[n:], total+n, skip+int64(n)
		}
	}
	if total < len(p) {
		return total, io.EOF
	}
	return total, nil
}
