package offload

import (
	"bytes"
	"io"
	"regexp"

	"quernfs/internal/wire"
)

// finder looks for a line that fits the pattern of a job's source, in what the
// job's last step writes. A nil one looks for nothing.
type finder struct {
	re    *regexp.Regexp
	line  []byte // of which the end has not come yet
	found bool
}

// maxLine is where a longer line is cut, to be looked at in pieces.
const maxLine = 64 << 10

// newFinder is nil if the job asks for nothing, or for what this version of quern
// cannot read: then nobody has looked.
func newFinder(j *wire.Job) *finder {
	pattern := j.GetSource().GetPattern()
	if pattern == "" {
		return nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil
	}
	return &finder{re: re}
}

// Write takes the next bytes of a result. It never fails.
func (f *finder) Write(p []byte) (int, error) {
	if f == nil || f.found {
		return len(p), nil
	}
	n := len(p)
	for len(p) > 0 && !f.found {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			room := min(len(p), maxLine-len(f.line))
			if f.line = append(f.line, p[:room]...); len(f.line) == maxLine {
				f.end()
			}
			p = p[room:]
			continue
		}
		room := min(end, maxLine-len(f.line))
		f.line = append(f.line, p[:room]...)
		f.end()
		if p = p[room:]; room == end {
			p = p[1:]
		}
	}
	return n, nil
}

// end says that the line is over.
func (f *finder) end() {
	if f == nil {
		return
	}
	f.found = f.found || f.re.Match(f.line)
	f.line = f.line[:0]
}

// zeros takes a hole of a result: bytes of a line, all 0.
func (f *finder) zeros(n int64) {
	if f == nil {
		return
	}
	for zero := make([]byte, maxLine); n > 0 && !f.found; n -= maxLine {
		_, _ = f.Write(zero[:min(n, maxLine)])
	}
}

// reader looks at what is read from r, a result of its own.
func (f *finder) reader(r io.Reader) io.Reader {
	if f == nil {
		return r
	}
	return io.TeeReader(r, f)
}

// verdict is what was found, once all results have been written.
func (f *finder) verdict() wire.Verdict {
	if f == nil {
		return wire.Verdict_UNKNOWN
	}
	if len(f.line) > 0 {
		f.end()
	}
	if f.found {
		return wire.Verdict_PRESENT
	}
	return wire.Verdict_ABSENT
}
