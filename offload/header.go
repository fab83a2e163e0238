package offload

import (
	"bytes"
	"context"
	"fmt"

	"quernfs/internal/wire"
)

// Where files begin with a header, a part of one is of no use without. So with
// header: N each range of lines becomes a file of its own that begins with the
// file's first N lines. Since each is a file of its own, a reader that keeps to
// its format sees where a cut lies within a record: the file ends there.

// maxHeader bounds what a header may have, in bytes.
const maxHeader = 1 << 20

// readHeader returns the first lines of a file of that size: all of it, if it has
// no more.
func readHeader(ctx context.Context, f File, size int64, lines int) ([]byte, error) {
	var head []byte
	for step, end := int64(lineStep), 0; int64(len(head)) < min(size, maxHeader); step *= 4 {
		at := int64(len(head))
		head = append(head, make([]byte, min(step, size-at, maxHeader-at))...)
		if _, err := readExactly(ctx, f, head[at:], at); err != nil {
			return nil, err
		}
		for {
			i := bytes.IndexByte(head[end:], '\n')
			if i < 0 {
				break
			}
			end += i + 1
			if lines--; lines == 0 {
				return head[:end:end], nil
			}
		}
	}
	if size > maxHeader {
		return nil, fmt.Errorf("its header is longer than %d KiB", maxHeader>>10)
	}
	return head, nil
}

// viewParts is what a task sees of each of its ranges of a file.
func viewParts(ctx context.Context, f File, t *wire.TaskInput, lines int) ([]*rangeView, error) {
	head, err := readHeader(ctx, f, int64(t.Size), lines)
	if err != nil {
		return nil, err
	}
	all, err := findLines(ctx, f, t)
	if err != nil {
		return nil, err
	}
	var out []*rangeView
	for i, x := range all {
		off := int64(t.Ranges[i].Off)
		v := &rangeView{}
		if len(head) > 0 {
			v.add(stretch{len: int64(len(head)), mem: head})
		}
		if x.start < int64(len(head)) { // the header itself, which is there already
			x = found{start: min(int64(len(head)), x.end), end: x.end}
		}
		v.addFound(x, off)
		out = append(out, v)
	}
	return out, nil
}

// rangeName is what the task calls its range k of a file. Names are in the order of
// the ranges.
func rangeName(t *wire.TaskInput, k int) string {
	if r := t.Ranges[k]; r.Off > 0 || r.Len < t.Size {
		return fmt.Sprintf("%s@%015d", t.Path, r.Off)
	}
	return t.Path
}
