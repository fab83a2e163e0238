//go:build linux && cgo

package onnxworker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"quernfs/offload/jobfile"
	"quernfs/offload/kernels/picture"
)

// maxPicture bounds a file of a picture, in bytes.
const maxPicture = 256 << 20

// classifier collects records until there are enough for the model.
type classifier struct {
	x        *model
	o        *jobfile.ONNX
	w        *classes
	errors   io.Writer
	memory   int64
	pictures bool // the model takes some
	frame    frame

	elements int // of a record that waits
	values   []float32
	waiting  []record
}

// classify has the model look at all files.
func (x *model) classify(o *jobfile.ONNX, memory int64, files fs.FS, stdout, stderr io.Writer) error {
	if len(x.dims) < 2 {
		return fmt.Errorf("%s: the model's input has the dimensions %v; a number of records and one more at least are needed", o.File, x.dims)
	}
	c := &classifier{x: x, o: o, errors: stderr, memory: memory, w: newClasses(o.Classify, stdout)}
	c.frame, c.pictures = frameOf(x.dims[1:], o.Classify)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		before := c.w.failed
		if err = c.file(files, "/"+name); err != nil && c.w.failed == before && o.Classify.Broken == "skip" && !errors.Is(err, errModel) {
			fmt.Fprintf(c.errors, "left out: /%s: %v\n", name, err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("/%s: %w", name, err)
		}
		return nil
	})
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		return err
	}
	return c.w.end()
}

// errModel is what is wrong with the model, or the memory, rather than with a file.
var errModel = errors.New("the model cannot be used so")

// file reads one input.
func (c *classifier) file(files fs.FS, name string) error {
	f, err := files.Open(name[1:])
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 64<<10)
	head, err := in.Peek(8)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if bytes.HasPrefix(head, []byte("QNA1")) {
		n := -1
		return eachRow(in, func(row []float32) error {
			n++
			if err := c.room(len(row)); err != nil {
				return err
			}
			return c.add(append(c.values, row...), record{name, n})
		})
	}
	if picture.FormatOf(head) == "" {
		return errors.New("it is neither a JPEG nor a PNG picture, nor an array (QNA1)")
	}
	if !c.pictures {
		return fmt.Errorf("%w: %s takes records of the dimensions %v: what a picture is of these has to be said, in the param shape", errModel, c.o.File, c.x.dims[1:])
	}
	data, err := io.ReadAll(io.LimitReader(in, maxPicture+1))
	if err != nil {
		return err
	}
	if len(data) > maxPicture {
		return fmt.Errorf("it is larger than %d MiB", maxPicture>>20)
	}
	// A pixel takes 8 bytes at most while it is read, but for progressive JPEG.
	m, _, err := picture.Decode(data, int(min(picture.MaxPixels, c.memory/8)))
	if err != nil {
		return err
	}
	if err := c.room(c.frame.elements()); err != nil {
		return err
	}
	return c.add(c.frame.numbers(c.values, m, picture.Orientation(data), c.o.Classify), record{name, 0})
}

// shape is that of a record of so many elements; nil: the model takes no such.
func (c *classifier) shape(elements int) []int {
	var shape []int
	left, open := elements, -1
	for i, d := range c.x.dims[1:] {
		if d < 1 {
			if open >= 0 {
				return c.given(elements)
			}
			open, d = i, 1
		}
		if left%int(d) != 0 {
			return nil
		}
		left /= int(d)
		shape = append(shape, int(d))
	}
	if open >= 0 {
		shape[open] = left
		return shape
	}
	if left != 1 {
		return nil
	}
	return shape
}

// given is the shape that the manifest gives, where the model leaves it open.
func (c *classifier) given(elements int) []int {
	n := 1
	for _, d := range c.o.Classify.Shape {
		n *= d
	}
	if len(c.o.Classify.Shape) != len(c.x.dims)-1 || n != elements {
		return nil
	}
	return c.o.Classify.Shape
}

// room makes sure that a record of so many elements can be added to those that
// wait.
func (c *classifier) room(elements int) error {
	if len(c.waiting) > 0 && c.elements == elements {
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	if c.shape(elements) == nil {
		return fmt.Errorf("it has records of %d numbers, and %s takes records of the dimensions %v", elements, c.o.File, c.x.dims[1:])
	}
	if n := int64(c.batch(elements)) * int64(elements) * 4; n > c.memory {
		return fmt.Errorf("%w: out of memory: %d records at once need %d bytes (batch, or memory in the job file)", errModel, c.batch(elements), n)
	}
	c.elements = elements
	return nil
}

// batch is how many records the model gets at once.
func (c *classifier) batch(elements int) int {
	if n := c.x.dims[0]; n > 0 { // it takes so many and no others
		return int(n)
	}
	if c.o.Batch > 0 {
		return c.o.Batch
	}
	return max(1, min(256, 4<<20/elements))
}

// add adds a record, with which values ends.
func (c *classifier) add(values []float32, r record) error {
	c.values = values
	if c.waiting = append(c.waiting, r); len(c.waiting) < c.batch(c.elements) {
		return nil
	}
	return c.flush()
}

// flush has the model look at what waits.
func (c *classifier) flush() error {
	n := len(c.waiting)
	if n == 0 {
		return nil
	}
	given := n
	if d := int(c.x.dims[0]); d > 0 { // the rest is filled up with zeroes
		given = d
		c.values = append(c.values, make([]float32, (d-n)*c.elements)...)
	}
	err := c.x.compute(c.shape(c.elements), c.values, given, func(out []float32) error {
		if len(out)%given != 0 || len(out) == 0 {
			return fmt.Errorf("it gives %d numbers for %d records", len(out), given)
		}
		each := len(out) / given
		for i, r := range c.waiting {
			if err := c.w.write(r, out[i*each:(i+1)*each]); err != nil {
				return err
			}
		}
		return nil
	})
	c.values, c.waiting = c.values[:0], slices.Delete(c.waiting, 0, n)
	if err != nil {
		c.w.failed = true
		return fmt.Errorf("%s: %w", c.o.File, err)
	}
	return nil
}
