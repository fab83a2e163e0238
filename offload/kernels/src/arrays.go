//go:build wasip1

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"quernfs/offload/kernels/task"
)

// array is a matrix of float32, row by row.
type array struct {
	rows, cols int
	x          []float32
}

// maxArray bounds what is read into memory, in elements: 1 GiB.
const maxArray = 1 << 28

// readArray reads "QNA1", rows and columns as uint32, and the elements; all
// little-endian.
func readArray(in io.Reader, what string) (*array, error) {
	var head [12]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, fmt.Errorf("the input ends before the array of %s", what)
	}
	if string(head[:4]) != "QNA1" {
		return nil, fmt.Errorf("the array of %s does not begin with QNA1", what)
	}
	rows, cols := uint64(binary.LittleEndian.Uint32(head[4:])), uint64(binary.LittleEndian.Uint32(head[8:]))
	if rows*cols > maxArray {
		return nil, fmt.Errorf("out of memory: the array of %s has %d elements", what, rows*cols)
	}
	a := &array{int(rows), int(cols), make([]float32, 0, min(rows*cols, 1<<20))}
	buf := make([]byte, 64<<10)
	for left := int(rows*cols) * 4; left > 0; {
		b := buf[:min(left, len(buf))]
		if _, err := io.ReadFull(in, b); err != nil {
			return nil, fmt.Errorf("the input ends in the array of %s", what)
		}
		for i := 0; i < len(b); i += 4 {
			a.x = append(a.x, math.Float32frombits(binary.LittleEndian.Uint32(b[i:])))
		}
		left -= len(b)
	}
	return a, nil
}

func (a *array) write(out io.Writer) error {
	b := append([]byte("QNA1"), 0, 0, 0, 0, 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(b[4:], uint32(a.rows))
	binary.LittleEndian.PutUint32(b[8:], uint32(a.cols))
	for _, v := range a.x {
		if b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v)); len(b) > 64<<10 {
			if _, err := out.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	_, err := out.Write(b)
	return err
}

// twoArrays reads the standard input of a step that has two arrays.
func twoArrays(first, second, phase string) (*array, *array, error) {
	if phase == "map" || phase == "reduce" {
		return nil, nil, errors.New("this kernel takes its whole input in one task: no reduce, and split: none")
	}
	in := bufio.NewReaderSize(os.Stdin, 256<<10)
	a, err := readArray(in, first)
	if err != nil {
		return nil, nil, err
	}
	b, err := readArray(in, second)
	if err != nil {
		return nil, nil, err
	}
	if _, err := in.ReadByte(); err != io.EOF {
		return nil, nil, errors.New("there is something after the second array")
	}
	return a, b, nil
}

// matmul multiplies. Each element is summed up in order, in float32.
func matmul(out io.Writer, phase string) error {
	a, b, err := twoArrays("a", "b", phase)
	if err != nil {
		return err
	}
	if a.cols != b.rows {
		return fmt.Errorf("a has %d columns and b has %d rows", a.cols, b.rows)
	}
	c := &array{a.rows, b.cols, make([]float32, a.rows*b.cols)}
	for i := range a.rows {
		row := c.x[i*b.cols : (i+1)*b.cols]
		for k := range a.cols {
			f := a.x[i*a.cols+k]
			for j, v := range b.x[k*b.cols : (k+1)*b.cols] {
				row[j] += float32(f * v)
			}
		}
	}
	return c.write(out)
}

// kmeans is one step of Lloyd's algorithm.
func kmeans(out io.Writer, phase string) error {
	centroids, points, err := twoArrays("centroids", "points", phase)
	if err != nil {
		return err
	}
	if centroids.cols != points.cols {
		return fmt.Errorf("centroids have %d columns and points %d", centroids.cols, points.cols)
	}
	d := points.cols
	sums := &array{centroids.rows, d, make([]float32, len(centroids.x))}
	counts := make([]uint32, centroids.rows)
	for p := range points.rows {
		point := points.x[p*d : (p+1)*d]
		best, least := 0, float32(math.Inf(1))
		for c := range centroids.rows {
			var distance float32
			for j, v := range centroids.x[c*d : (c+1)*d] {
				difference := point[j] - v
				distance += float32(difference * difference)
			}
			if distance < least {
				best, least = c, distance
			}
		}
		if centroids.rows > 0 {
			counts[best]++
			for j, v := range point {
				sums.x[best*d+j] += v
			}
		}
	}
	for i := range sums.x {
		if n := counts[i/d]; n == 0 {
			sums.x[i] = centroids.x[i]
		} else {
			sums.x[i] /= float32(n)
		}
	}
	return sums.write(out)
}

// threshold passes float32 numbers that are not below QUERN_THRESHOLD, and
// makes others 0. The reduce step puts the parts one after the other.
func threshold(out io.Writer, args []string, reduce bool) error {
	if reduce {
		return task.CopyInput(out)
	}
	s, _ := option(args, "threshold", "THRESHOLD")
	t, err := strconv.ParseFloat(s, 32)
	if s == "" {
		t, err = 0, nil
	}
	if err != nil {
		return errors.New("threshold must be a number, not " + strconv.Quote(s))
	}
	limit := float32(t)
	buf := block
	for {
		n, err := io.ReadFull(os.Stdin, buf)
		if n%4 != 0 {
			return errors.New("the input is not a whole number of float32")
		}
		for i := 0; i < n; i += 4 {
			if !(math.Float32frombits(binary.LittleEndian.Uint32(buf[i:])) >= limit) {
				binary.LittleEndian.PutUint32(buf[i:], 0)
			}
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return err
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
