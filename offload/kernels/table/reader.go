package table

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// reader reads records of comma-separated values as RFC 4180 has them, and what is
// common beside it: lines end in LF, CRLF or CR, empty ones are passed over, and a
// quote within a field that does not begin with one is data. What stands in quotes
// is left as it is, line ends too.
type reader struct {
	in    *bufio.Reader
	comma rune
	// fields is how many each record has; 0: as many as the first.
	fields int

	// strict: a quote within a field that does not begin with one is an error. What
	// begins within quotes, since it is a part of a file, is known by that.
	strict bool

	line   int // of what is read next, from 1
	at     int // where the last record began
	raw    []byte
	buf    []byte
	ends   []int // in buf, of the fields
	record []string
}

var (
	errFieldCount = errors.New("the record has not as many fields as there are columns")
	errBareQuote  = errors.New("there is a quote within a field that does not begin with one; files whose fields have line breaks or single quotes in them need split: file")
	errQuote      = errors.New("a quoted field is not closed, or goes on behind its quote; files whose fields have line breaks in them need split: file")
)

func newReader(in io.Reader, comma rune) *reader {
	return &reader{in: bufio.NewReaderSize(in, 64<<10), comma: comma, line: 1}
}

// run takes over what has no meaning, as far as it lies in memory, and says whether
// there was any.
func (r *reader) run(quoted bool) bool {
	p, _ := r.in.Peek(r.in.Buffered())
	i := 0
	for ; i < len(p); i++ {
		b := p[i]
		if b == '"' || b == '\n' || b == '\r' || !quoted && (rune(b) == r.comma || b >= utf8.RuneSelf && r.comma >= utf8.RuneSelf) {
			break
		}
	}
	r.buf = append(r.buf, p[:i]...)
	_, _ = r.in.Discard(i)
	return i > 0
}

// next is the next character, the bytes of which are in raw; a line end of any kind
// is '\n' unless it is in quotes.
func (r *reader) next(quoted bool) (c rune, err error) {
	b, err := r.in.ReadByte()
	if err != nil {
		return 0, err
	}
	r.raw = append(r.raw[:0], b)
	switch {
	case b == '\r' && quoted:
		if p, err := r.in.Peek(1); err != nil || p[0] != '\n' {
			r.line++ // else the LF counts
		}
		return '\r', nil
	case b == '\r':
		if p, err := r.in.Peek(1); err == nil && p[0] == '\n' {
			_, _ = r.in.Discard(1)
		}
		r.line++
		return '\n', nil
	case b == '\n':
		r.line++
		return '\n', nil
	case b < utf8.RuneSelf || r.comma < utf8.RuneSelf:
		return rune(b), nil
	}
	if err := r.in.UnreadByte(); err != nil {
		return 0, err
	}
	p, _ := r.in.Peek(utf8.UTFMax)
	c, n := utf8.DecodeRune(p)
	r.raw = append(r.raw[:0], p[:n]...)
	_, err = r.in.Discard(n)
	return c, err
}

// Read returns the next record, which is valid until the next call, or io.EOF.
func (r *reader) Read() ([]string, error) {
	r.buf, r.ends = r.buf[:0], r.ends[:0]
	const (
		begin  = iota // of a field
		plain         // within one that has no quotes
		quoted        // within quotes
		behind        // behind the closing quote
	)
	state := begin
	r.at = r.line
	for {
		if (state == plain || state == quoted) && r.run(state == quoted) {
			continue
		}
		c, err := r.next(state == quoted)
		if err == io.EOF {
			switch {
			case state == quoted:
				return nil, errQuote
			case state == begin && len(r.ends) == 0:
				return nil, io.EOF
			}
			return r.done()
		}
		if err != nil {
			return nil, err
		}
		switch {
		case state == quoted && c == '"':
			state = behind
		case state == quoted:
			r.buf = append(r.buf, r.raw...)
		case state == begin && c == '\n' && len(r.ends) == 0: // an empty line
			r.at = r.line
		case c == '\n':
			return r.done()
		case c == r.comma:
			r.ends = append(r.ends, len(r.buf))
			state = begin
		case state == begin && c == '"':
			state = quoted
		case state == behind && c == '"':
			r.buf = append(r.buf, '"')
			state = quoted
		case state == behind:
			return nil, errQuote
		case c == '"' && r.strict:
			return nil, errBareQuote
		default:
			r.buf = append(r.buf, r.raw...)
			state = plain
		}
	}
}

func (r *reader) done() ([]string, error) {
	r.ends = append(r.ends, len(r.buf))
	all := string(r.buf)
	r.record = r.record[:0]
	from := 0
	for _, end := range r.ends {
		r.record = append(r.record, all[from:end])
		from = end
	}
	if r.fields == 0 {
		r.fields = len(r.record)
	}
	if len(r.record) != r.fields {
		return nil, errFieldCount
	}
	return r.record, nil
}

// decode makes UTF-8 of an input: by the mark at its beginning, or as encoding says
// (utf-8, utf-16, utf-16le, utf-16be, latin1). A mark is passed over. What was cut at
// lines (ranges) was cut at bytes that are none in utf-16.
func decode(in io.Reader, encoding string, ranges bool) (io.Reader, error) {
	b := bufio.NewReaderSize(in, 64<<10)
	mark, err := b.Peek(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	marked := ""
	switch {
	case len(mark) >= 3 && string(mark[:3]) == "\xef\xbb\xbf":
		marked = "utf-8"
	case len(mark) >= 2 && string(mark[:2]) == "\xff\xfe":
		marked = "utf-16le"
	case len(mark) >= 2 && string(mark[:2]) == "\xfe\xff":
		marked = "utf-16be"
	}
	switch {
	case marked == "" || encoding == "latin1":
	case encoding == "" || encoding == marked || encoding == "utf-16" && marked != "utf-8":
		n := 2
		if marked == "utf-8" {
			n = 3
		}
		_, _ = b.Discard(n)
		encoding = marked
	}
	switch encoding {
	case "", "utf-8":
		return b, nil
	case "utf-16":
		return nil, errors.New("it has no mark at its beginning that says which utf-16 it is: give encoding: utf-16le or utf-16be")
	case "latin1":
		return &transcoder{in: b, next: nextLatin1}, nil
	}
	if ranges {
		return nil, errors.New("it is in utf-16, and so cannot be read in parts: it needs split: file")
	}
	low, high := 0, 1
	if encoding == "utf-16be" {
		low, high = 1, 0
	}
	return &transcoder{in: b, next: func(b *bufio.Reader) (rune, error) {
		unit := func() (rune, error) {
			var two [2]byte
			if _, err := io.ReadFull(b, two[:]); err != nil {
				if errors.Is(err, io.ErrUnexpectedEOF) {
					return 0, errors.New("it has an odd number of bytes, and so is not whole in utf-16; utf-16 needs split: file")
				}
				return 0, err
			}
			return rune(two[low]) | rune(two[high])<<8, nil
		}
		c, err := unit()
		if err != nil || !utf16.IsSurrogate(c) {
			return c, err
		}
		d, err := unit()
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		return utf16.DecodeRune(c, d), nil
	}}, nil
}

func nextLatin1(b *bufio.Reader) (rune, error) {
	c, err := b.ReadByte()
	return rune(c), err
}

// transcoder makes UTF-8 of characters.
type transcoder struct {
	in   *bufio.Reader
	next func(*bufio.Reader) (rune, error)
	err  error
}

func (t *transcoder) Read(p []byte) (n int, err error) {
	for t.err == nil && len(p)-n >= utf8.UTFMax {
		var c rune
		if c, t.err = t.next(t.in); t.err == nil {
			n += utf8.EncodeRune(p[n:], c)
		}
	}
	if n > 0 {
		return n, nil
	}
	if t.err == nil {
		return 0, fmt.Errorf("a read of less than %d bytes", utf8.UTFMax)
	}
	return 0, t.err
}
