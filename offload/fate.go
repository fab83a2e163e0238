package offload

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"quernfs/internal/wire"
)

// fate is what an attempt that has failed means for its task.
type fate int

const (
	fault fate = iota // its own fault: it costs a retry
	lost              // not its own: the task begins anew, here or elsewhere, and that costs none
	final             // it would end so again: no attempt follows
)

// The statuses of <sysexits.h> with which kernels and programs say that another
// attempt would end as this one did.
const (
	exitUsage = 64
	exitData  = 65
)

// exitFate is what the status says with which a kernel or a program has ended by
// itself.
func exitFate(status int) fate {
	if status == exitUsage || status == exitData {
		return final
	}
	return fault
}

// fateOf decides by what the filesystem, or a host, has answered. A code that is
// known to pass (wire.Code.MayPass) costs nothing, any other ends the task: what is
// not known to pass would be tried for ever. otherwise is for errors without a code.
func fateOf(err error, otherwise fate) fate {
	var changed *changedError
	var moved *movedError
	var output *outputError
	switch {
	case errors.As(err, &moved):
		return lost // the next attempt reads a copy
	case errors.As(err, &changed), errors.As(err, &output):
		return final
	case errors.Is(err, errSlow), errors.Is(err, errTooMuch):
		return fault // another host may be faster, or allow more
	case errors.Is(err, errModule):
		return final
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return lost
	}
	var coded *wire.Error
	var bare wire.Code
	var errno syscall.Errno
	switch {
	case errors.As(err, &coded), errors.As(err, &bare):
	case errors.As(err, &errno): // of this host
		if wire.CodeOf(errno).MayPass() {
			return lost
		}
		return otherwise
	default:
		return otherwise
	}
	switch c := wire.CodeOf(err); {
	case c.MayPass():
		return lost
	case c == wire.Internal: // nobody knows what it is
		return fault
	}
	return final
}

// changedError is an input that is no longer what was submitted.
type changedError struct {
	path string
	gone bool // there is nothing of that name any more
}

func (e *changedError) Error() string {
	if e.gone {
		return fmt.Sprintf("input %s has been removed since the job was submitted", e.path)
	}
	return fmt.Sprintf("input %s has changed since the job was submitted", e.path)
}
