package wire

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// Code says what went wrong. The list is append-only: a code keeps its number
// and its meaning for ever, since replies are stored in the state machine.
type Code uint32

const (
	OK           Code = 0
	Perm         Code = 1  // not the owner, or immutable by nature
	NotFound     Code = 2  // no such entry, inode, block, job
	Denied       Code = 3  // permission bits or ACL forbid it
	Exists       Code = 4  // the name is taken
	NotDir       Code = 5  // a directory was needed
	IsDir        Code = 6  // a directory cannot serve here
	Invalid      Code = 7  // the request makes no sense
	NotEmpty     Code = 8  // the directory has entries
	NameTooLong  Code = 9  // more than 255 bytes
	NoSpace      Code = 10 // no server has room
	TooManyLinks Code = 11 // link count at its limit
	NoAttr       Code = 12 // no such extended attribute
	Range        Code = 13 // a value is too large for its place
	Again        Code = 14 // a lock conflicts, or try again
	Deadlock     Code = 15 // waiting would never end
	Interrupted  Code = 16 // the caller gave up
	Busy         Code = 17 // in use, could not be freed in time
	Unsupported  Code = 18 // this peer or type cannot do it
	FileTooBig   Code = 19 // beyond the largest offset
	Quota        Code = 20 // over a quota
	CrossPart    Code = 21 // inodes of two partitions
	Stale        Code = 22 // an inode, attempt or handle that is gone

	Corrupt     Code = 40 // bytes that do not match their digest
	Unavailable Code = 41 // no answer from the peer, or too few peers
	Timeout     Code = 42 // the deadline passed
	NotLeader   Code = 43 // another meta server leads; Leader says which
	NoSession   Code = 44 // the session has been ended
	Forbidden   Code = 45 // the peer's role or capability does not allow the call
	Internal    Code = 46 // a broken invariant, reported by the peer
	NeedExtents Code = 47 // Clone of inline data that no longer fits inline
	TooFew      Code = 48 // too few servers for the policy
	Shutdown    Code = 49 // the peer is stopping
)

// fate says what becomes of a request that failed with a code, if it is made
// again as it is.
type fate uint8

const (
	final  fate = iota + 1 // the same
	passes                 // it may succeed
)

// codes says all of every code: a row cannot leave out whether its error may pass.
var codes = map[Code]struct {
	errno syscall.Errno
	text  string
	fate  fate
}{
	Perm:         {syscall.EPERM, "operation not permitted", final},
	NotFound:     {syscall.ENOENT, "not found", final},
	Denied:       {syscall.EACCES, "permission denied", final},
	Exists:       {syscall.EEXIST, "exists", final},
	NotDir:       {syscall.ENOTDIR, "not a directory", final},
	IsDir:        {syscall.EISDIR, "is a directory", final},
	Invalid:      {syscall.EINVAL, "invalid argument", final},
	NotEmpty:     {syscall.ENOTEMPTY, "directory not empty", final},
	NameTooLong:  {syscall.ENAMETOOLONG, "name too long", final},
	NoSpace:      {syscall.ENOSPC, "no space left", passes},
	TooManyLinks: {syscall.EMLINK, "too many links", final},
	NoAttr:       {syscall.ENODATA, "no such attribute", final},
	Range:        {syscall.ERANGE, "out of range", final},
	Again:        {syscall.EAGAIN, "try again", passes},
	Deadlock:     {syscall.EDEADLK, "deadlock avoided", passes},
	Interrupted:  {syscall.EINTR, "interrupted", passes},
	Busy:         {syscall.EBUSY, "busy", passes},
	Unsupported:  {syscall.EOPNOTSUPP, "not supported", final},
	FileTooBig:   {syscall.EFBIG, "file too large", final},
	Quota:        {syscall.EDQUOT, "quota exceeded", final},
	CrossPart:    {syscall.EXDEV, "crosses a partition", final},
	Stale:        {syscall.ESTALE, "stale", final},
	Corrupt:      {syscall.EIO, "data does not match its digest", passes},
	Unavailable:  {syscall.EIO, "unavailable", passes},
	Timeout:      {syscall.EIO, "timed out", passes},
	NotLeader:    {syscall.EIO, "not the leader", passes},
	NoSession:    {syscall.EIO, "session has ended", passes},
	Forbidden:    {syscall.EACCES, "not allowed for this role", final},
	Internal:     {syscall.EIO, "internal error", final},
	NeedExtents:  {syscall.EIO, "inline data must become extents first", final},
	TooFew:       {syscall.EIO, "too few servers for the policy", passes},
	Shutdown:     {syscall.EIO, "shutting down", passes},
}

// Errno is what a system call returns for the code: the one table from codes
// to errnos.
func (c Code) Errno() syscall.Errno {
	if c == OK {
		return 0
	}
	if e, ok := codes[c]; ok {
		return e.errno
	}
	return syscall.EIO
}

// MayPass says whether a request that failed with this code may succeed when it is
// made again as it is. What is not known to pass does not.
func (c Code) MayPass() bool { return codes[c].fate == passes }

func (c Code) String() string {
	if c == OK {
		return "ok"
	}
	if e, ok := codes[c]; ok {
		return e.text
	}
	return fmt.Sprintf("code %d", uint32(c))
}

// Error makes a bare Code usable as an error and as a target of errors.Is.
func (c Code) Error() string { return c.String() }

// Error is an error with its code, the operation and the object it was about.
type Error struct {
	Code   Code
	Op     string // "commit", "put shard"
	Object string // "ino 17", "block 4 shard 2 on chunkd-3"
	Leader string // with NotLeader: host:port of the leader, if known
	Err    error  // cause, or nil
}

// Errorf makes an *Error; the text becomes its cause.
func Errorf(c Code, op, object, format string, args ...any) *Error {
	return &Error{Code: c, Op: op, Object: object, Err: fmt.Errorf(format, args...)}
}

// Error is a sentence for users: it has no name of a call or a message.
func (e *Error) Error() string {
	s := about(e.Op, e.Object)
	if s != "" {
		s += ": "
	}
	if e.Err == nil {
		return s + e.Code.String()
	}
	if e.Err.Error() == "" {
		return s + e.Code.String()
	}
	return s + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Is matches a bare Code, so that errors.Is(err, wire.NotFound) works.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// CodeOf finds the code of any error: that of the first *Error or Code in
// its chain, Timeout and Interrupted for the context's errors, the code of a
// syscall.Errno, else Internal.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	var c Code
	if errors.As(err, &c) {
		return c
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Timeout
	}
	if errors.Is(err, context.Canceled) {
		return Interrupted
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		for k, v := range codes {
			if v.errno == no && k < Corrupt {
				return k
			}
		}
	}
	return Internal
}

// ErrnoOf is CodeOf(err).Errno(), except that a syscall.Errno passes as it is.
func ErrnoOf(err error) syscall.Errno {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no
	}
	return CodeOf(err).Errno()
}

// ToFailure encodes err for the wire.
func ToFailure(err error) *Failure {
	f := &Failure{Code: uint32(CodeOf(err)), Message: err.Error()}
	var e *Error
	if errors.As(err, &e) {
		f.Op, f.Object, f.Leader = e.Op, e.Object, e.Leader
		f.Message = ""
		if e.Err != nil {
			f.Message = e.Err.Error()
		}
	}
	return f
}

// Err decodes a failure that a peer sent.
func (f *Failure) Err() error {
	e := &Error{Code: Code(f.GetCode()), Op: f.GetOp(), Object: f.GetObject(), Leader: f.GetLeader()}
	if f.GetMessage() != "" {
		e.Err = errors.New(f.GetMessage())
	}
	return e
}
