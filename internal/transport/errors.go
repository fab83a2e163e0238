package transport

import (
	"context"
	"errors"
	"io"

	"quernfs/internal/wire"
)

// waitError is what a call fails with when its context ended before the answer
// came.
func waitError(ctxErr error, m wire.Method, peer string) error {
	if errors.Is(ctxErr, context.DeadlineExceeded) {
		return wire.Errorf(wire.Timeout, opName(m), peer, "no answer in time")
	}
	return &wire.Error{Code: wire.Interrupted, Op: opName(m), Object: peer, Err: context.Canceled}
}

// lostError is what a call fails with when the connection ended, for cause.
func lostError(m wire.Method, peer string, cause error) error {
	var e *wire.Error
	if errors.As(cause, &e) {
		return &wire.Error{Code: e.Code, Op: opName(m), Object: peer, Leader: e.Leader, Err: e.Err}
	}
	return &wire.Error{Code: wire.Unavailable, Op: opName(m), Object: peer, Err: cause}
}

// endError is what a stream's calls fail with after its other side closed it in
// order; it matches io.EOF.
func endError(m wire.Method, peer string) error {
	return &wire.Error{Code: wire.Unavailable, Op: opName(m), Object: peer, Err: io.EOF}
}

// closedError is what the calls of a side fail with once it has closed.
func closedError(m wire.Method, peer string) error {
	return wire.Errorf(wire.Unavailable, m.String(), peer, "closed on this side")
}

// carried makes of a handler's error what its caller gets: the same in process
// as over a wire.
func carried(err error) error {
	var e *wire.Error
	if errors.As(err, &e) && e.Err == nil {
		return e
	}
	return wire.ToFailure(err).Err()
}

// opName names a call in an error; method 0 is the connecting itself.
func opName(m wire.Method) string {
	if m == 0 {
		return "connect"
	}
	return m.String()
}
