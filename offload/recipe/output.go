package recipe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// write reads a buffer back and writes it out.
func (x *recipe) write(name string) error {
	b := x.buffers[name]
	data := make([]byte, b.bytes())
	if err := b.mem.Read(data); err != nil {
		return err
	}
	_, err := x.out.Write(data)
	return err
}

// finish writes what comes after the last piece.
func (x *recipe) finish() error {
	o := x.cl.Output
	switch o.Form {
	case "array":
		rows, err := o.Rows.Eval(x.dims)
		if err != nil {
			return err
		}
		cols, err := o.Cols.Eval(x.dims)
		if err != nil {
			return err
		}
		if rows > math.MaxUint32 || cols > math.MaxUint32 || cols != 0 && rows > math.MaxInt64/cols || rows*cols != x.buffers[o.Buffer].n {
			return fmt.Errorf("the output is said to have %d rows of %d numbers, and buffer %s has %d", rows, cols, o.Buffer, x.buffers[o.Buffer].n)
		}
		head := binary.LittleEndian.AppendUint32([]byte("QNA1"), uint32(rows))
		if _, err := x.out.Write(binary.LittleEndian.AppendUint32(head, uint32(cols))); err != nil {
			return err
		}
		return x.write(o.Buffer)
	case "lines":
		return x.lines(o.Buffer)
	}
	return nil
}

// lines writes "INDEX SUM" for every element.
func (x *recipe) lines(name string) error {
	b := x.buffers[name]
	if b == nil || b.ints == nil { // there was no piece: all sums are 0
		for _, c := range x.cl.Buffers {
			if c.Name != name {
				continue
			}
			n, err := c.Count.Eval(x.dims)
			if err != nil || n*8 > x.run.Memory {
				return errors.Join(err, fmt.Errorf("out of memory: %d sums", n))
			}
			b = &buffer{typ: c.Type, n: n, ints: make([]int64, n), sums: make([]float64, n)}
		}
	}
	w := make([]byte, 0, 4096)
	for i := range b.ints {
		if b.typ == "float" {
			w = fmt.Appendf(w, "%d %g\n", i, b.sums[i])
		} else {
			w = fmt.Appendf(w, "%d %d\n", i, b.ints[i])
		}
	}
	_, err := x.out.Write(w)
	return err
}
