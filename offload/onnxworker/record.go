package onnxworker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"math"
	"slices"

	"golang.org/x/image/draw"

	"quernfs/offload/jobfile"
	"quernfs/offload/kernels/picture"
)

// frame is what a picture becomes before a model sees it.
type frame struct {
	colours, height, width int
	last                   bool // colours are the last dimension, not the first
}

// elements is how many numbers a picture becomes.
func (f frame) elements() int { return f.colours * f.height * f.width }

// frameOf finds out what pictures a model takes whose records have these
// dimensions, of which those below 1 may be anything. ok is false if it takes
// none.
func frameOf(dims []int64, c *jobfile.Classify) (f frame, ok bool) {
	open := len(dims) != 2 && len(dims) != 3 || slices.ContainsFunc(dims, func(d int64) bool { return d < 1 })
	shape := c.Shape
	if !open {
		shape = nil
		for _, d := range dims {
			shape = append(shape, int(d))
		}
	}
	switch len(shape) {
	case 2:
		return frame{1, shape[0], shape[1], false}, true
	case 3:
		f = frame{shape[0], shape[1], shape[2], false}
		if c.Layout == "nhwc" || c.Layout == "" && !colours(shape[0]) && colours(shape[2]) {
			f = frame{shape[2], shape[0], shape[1], true}
		}
		return f, colours(f.colours)
	}
	return f, false
}

func colours(n int) bool { return n == 1 || n == 3 }

// numbers appends what m becomes.
func (f frame) numbers(to []float32, m image.Image, orientation int, c *jobfile.Classify) []float32 {
	o := picture.Options{Width: f.width, Height: f.height, Fit: picture.Fit(c.Fit), Enlarge: true}
	small := o.Picture(m, orientation)
	all := image.NewRGBA(image.Rect(0, 0, f.width, f.height))
	draw.Draw(all, all.Bounds(), image.NewUniform(color.White), image.Point{}, draw.Src)
	// With contain there is white at two sides.
	at := image.Pt((f.width-small.Bounds().Dx())/2, (f.height-small.Bounds().Dy())/2)
	draw.Draw(all, small.Bounds().Add(at), small, image.Point{}, draw.Over)
	value := func(k, i int) float32 {
		p := all.Pix[4*i:]
		v := float64(p[k])
		if f.colours == 1 { // as ITU-R BT.601 has it
			v = 0.299*float64(p[0]) + 0.587*float64(p[1]) + 0.114*float64(p[2])
		}
		return float32((v*c.Scale - of(c.Mean, k, 0)) / of(c.Std, k, 1))
	}
	n := f.width * f.height
	if f.last {
		for i := range n {
			for k := range f.colours {
				to = append(to, value(k, i))
			}
		}
		return to
	}
	for k := range f.colours {
		for i := range n {
			to = append(to, value(k, i))
		}
	}
	return to
}

// of is the value of colour k.
func of(values []float64, k int, otherwise float64) float64 {
	switch {
	case len(values) == 0:
		return otherwise
	case k < len(values):
		return values[k]
	}
	return values[0]
}

// eachRow reads the arrays of a file, the first bytes of which are QNA1, row by
// row. f must not keep what it is given.
func eachRow(in io.Reader, f func([]float32) error) error {
	for number := 0; ; number++ {
		var head [12]byte
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) && number > 0 {
			return nil
		} else if err != nil {
			return fmt.Errorf("it ends before array %d", number)
		}
		if string(head[:4]) != "QNA1" {
			return fmt.Errorf("array %d does not begin with QNA1", number)
		}
		rows, cols := binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[8:])
		if cols > maxColumns || cols == 0 && rows > 0 {
			return fmt.Errorf("array %d has %d columns, of 1 to %d", number, cols, maxColumns)
		}
		buf, row := make([]byte, 4*cols), make([]float32, cols)
		for range rows {
			if _, err := io.ReadFull(in, buf); err != nil {
				return fmt.Errorf("it ends within array %d", number)
			}
			for i := range row {
				row[i] = math.Float32frombits(binary.LittleEndian.Uint32(buf[4*i:]))
			}
			if err := f(row); err != nil {
				return err
			}
		}
	}
}

// maxColumns bounds a row, in elements.
const maxColumns = 1 << 24
