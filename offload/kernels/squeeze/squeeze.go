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

// Decompress writes what the members or frames of in hold. An end that is missing is
// an error, and an input that does not begin with one; an empty input holds nothing.
// As gzip(1) does, it leaves out what follows the last of them and is none, and says
// how many bytes that were, 0 if they are zeros throughout: padding.
func Decompress(f Format, out io.Writer, in io.Reader) (behind int64, err error) {
	b := bufio.NewReaderSize(in, 256<<10)
	if _, err := b.Peek(1); errors.Is(err, io.EOF) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	w := &counter{w: out}
	if f == Gzip {
		err = gunzip(w, b)
	} else {
		err = unzstd(w, b)
	}
	switch {
	case w.err != nil:
		return 0, w.err
	case errors.Is(err, errBehind):
		if f == Zstd {
			return rest(b, 4) // it has read what is no magic number
		}
		return rest(b, 0)
	}
	return 0, explain(f, err)
}

// errBehind is something else behind a member or frame.
var errBehind = errors.New("something follows")

func gunzip(w io.Writer, b *bufio.Reader) error {
	z, err := gzip.NewReader(b)
	buf := make([]byte, 256<<10)
	for err == nil {
		z.Multistream(false)
		if _, err := io.CopyBuffer(w, struct{ io.Reader }{z}, buf); err != nil {
			return err
		}
		switch magic, err := b.Peek(2); {
		case len(magic) == 0 && errors.Is(err, io.EOF):
			return nil
		case len(magic) == 0:
			return err
		case magic[0] != 0x1f || len(magic) > 1 && magic[1] != 0x8b:
			return errBehind
		}
		err = z.Reset(b)
	}
	return err
}

func unzstd(w io.Writer, b *bufio.Reader) error {
	z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(MaxWindow))
	if err != nil {
		return err
	}
	defer z.Close()
	begins := frame(b)
	_, err = io.CopyBuffer(w, struct{ io.Reader }{z}, make([]byte, 256<<10))
	if begins && errors.Is(err, zstd.ErrMagicMismatch) {
		return errBehind
	}
	return err
}

// frame says whether what comes begins as a frame of zstd does, or one to be passed
// over.
func frame(b *bufio.Reader) bool {
	m, err := b.Peek(4)
	return err == nil && (string(m) == "\x28\xb5\x2f\xfd" || m[0]&0xf0 == 0x50 && string(m[1:]) == "\x2a\x4d\x18")
}

// rest reads what is left, and says how much that is, with what was read of it before;
// 0 if all of it is zero.
func rest(b *bufio.Reader, before int64) (n int64, err error) {
	n = before
	buf, padding := make([]byte, 64<<10), before == 0
	for {
		k, err := b.Read(buf)
		for _, c := range buf[:k] {
			padding = padding && c == 0
		}
		n += int64(k)
		switch {
		case errors.Is(err, io.EOF) && padding:
			return 0, nil
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		}
	}
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
		return fmt.Errorf("the input is not in the format of %s", f)
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
