package client

import (
	"context"
	"errors"
	"reflect"
	"strings"

	"quernfs/internal/wire"
)

// withGrants is r with other grants. In process the leader's own message is
// what comes back, and it is not ours to change.
func withGrants(r *wire.Result, grants []*wire.Grant) *wire.Result {
	if len(grants) == len(r.Grants) {
		return r
	}
	out := wire.Shallow(r)
	out.Grants = grants
	return out
}

func answerWith(a *wire.Answer, grants []*wire.Grant) *wire.Answer {
	if len(grants) == len(a.Grants) {
		return a
	}
	out := wire.Shallow(a)
	out.Grants = grants
	return out
}

func opName(c *wire.Command) string  { return oneofName(c.GetOp(), "Command_") }
func queryName(q *wire.Query) string { return oneofName(q.GetOp(), "Query_") }

// oneofName makes "set attr" of *wire.Command_SetAttr.
func oneofName(op any, prefix string) string {
	if op == nil {
		return "command"
	}
	name := strings.TrimPrefix(reflect.TypeOf(op).Elem().Name(), prefix)
	var b strings.Builder
	for i, r := range name {
		if i > 0 && r >= 'A' && r <= 'Z' && name[i-1] >= 'a' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

// failed is the error for a code in a Result or an Answer.
func failed(code wire.Code, op, message string) error {
	e := &wire.Error{Code: code, Op: op}
	if message != "" {
		e.Err = errors.New(message)
	}
	return e
}

// ctxError tells the caller's own giving up from a deadline that passed.
func ctxError(ctx context.Context, op, text string) error {
	code := wire.Timeout
	if errors.Is(ctx.Err(), context.Canceled) {
		code = wire.Interrupted
	}
	return wire.Errorf(code, op, "", "%s", text)
}

// sequence numbers the commands of a session and knows which replies are
// still wanted.
type sequence struct {
	last  uint64              // number given last
	low   uint64              // all numbers below are done
	above map[uint64]struct{} // done, but above low

	unheard uint64 // the highest one whose outcome nobody here knows
}

// take gives the next number, and the lowest one that is not done.
func (s *sequence) take() (seq, low uint64) {
	if s.low == 0 {
		s.low = 1
	}
	s.last++
	return s.last, s.low
}

// done: nobody will repeat seq.
func (s *sequence) done(seq uint64) {
	if seq != s.low {
		if s.above == nil {
			s.above = map[uint64]struct{}{}
		}
		s.above[seq] = struct{}{}
		return
	}
	for s.low++; ; s.low++ {
		if _, ok := s.above[s.low]; !ok {
			return
		}
		delete(s.above, s.low)
	}
}
