// Package squeeze compresses and decompresses streams on one thread and in
// bounded memory: what the kernels gzip, gunzip, zstd and unzstd do.
//
// What Compress writes for one part of an input is whole by itself: a member of
// gzip (RFC 1952) or a frame of zstd (RFC 8878). Members, and frames, that
// follow each other decompress to what their parts were, one after the other:
// so parts can be compressed apart and put together by concatenation.
//
// The same bytes in give the same bytes out: there is no time and no name in a
// header.
package squeeze

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Format is one of compression.
type Format string

const (
	Gzip Format = "gzip"
	Zstd Format = "zstd"
)

// MaxWindow is how far back a frame of zstd may refer, in bytes: what zstd -19
// and, without --long=28 or more, every level of the command needs at most.
const MaxWindow = 128 << 20

// Levels are the least, the greatest and the usual level of a format.
func (f Format) Levels() (least, most, usual int) {
	if f == Gzip {
		return 1, 9, 6
	}
	return 1, 22, 3
}

// Compress writes what in holds as one member or frame, an empty input too.
// Level is one of those that Levels allows; zstd knows four, which stand for 1
// and 2, 3 to 5, 6 to 9, and more.
func Compress(f Format, level int, out io.Writer, in io.Reader) error {
	if least, most, _ := f.Levels(); level < least || level > most {
		return fmt.Errorf("level of %s must be from %d to %d, not %d", f, least, most, level)
	}
	var w io.WriteCloser
	var err error
	if f == Gzip {
		w, err = gzip.NewWriterLevel(out, level)
	} else {
		w, err = zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true))
	}
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{in}, make([]byte, 256<<10)); err != nil {
		return err
	}
	return w.Close()
}

// Decompress writes what the members or frames of in hold. Anything else in it,
// and an end that is missing, is an error; an empty input holds nothing.
func Decompress(f Format, out io.Writer, in io.Reader) error {
	b := bufio.NewReaderSize(in, 256<<10)
	if _, err := b.Peek(1); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return err
	}
	var r io.Reader
	if f == Gzip {
		z, err := gzip.NewReader(b)
		if err != nil {
			return explain(f, err)
		}
		r = z
	} else {
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(MaxWindow))
		if err != nil {
			return explain(f, err)
		}
		defer z.Close()
		r = z
	}
	w := &counter{w: out}
	_, err := io.CopyBuffer(w, struct{ io.Reader }{r}, make([]byte, 256<<10))
	if w.err != nil {
		return w.err
	}
	return explain(f, err)
}

// counter tells errors of the output from those of the input.
type counter struct {
	w   io.Writer
	err error
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.err = err
	return n, err
}

// explain says what is wrong with an input.
func explain(f Format, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, zstd.ErrMagicMismatch):
		return fmt.Errorf("the input, or what follows a part of it, is not in the format of %s", f)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("the input ends too early: it is cut short, or a part of a file; %s needs split: file", unName(f))
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("the input refers further back than %d MiB: compress it without --long=28 or more", MaxWindow>>20)
	}
	return fmt.Errorf("the input cannot be decompressed: %w", err)
}

func unName(f Format) string {
	if f == Gzip {
		return "gunzip"
	}
	return "unzstd"
}
