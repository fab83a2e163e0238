package transport

import (
	"context"
	"os"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// Kind says how two ends are joined.
type Kind int

const (
	InProcess Kind = iota + 1 // a function call
	Unix                      // a Unix socket on one host; files can be passed
	QUIC                      // everything else
)

// Conn is one peer as its client sees it. All methods may be called
// concurrently; each obeys its context's deadline, and a call without one gets
// DefaultTimeout. Requests and replies are never changed by the receiver, nor
// may the sender change them after the call began (in process they are the
// same memory).
//
// An error is a *wire.Error: the peer's own, or wire.Unavailable, wire.Timeout,
// wire.Interrupted when no answer came. A call that failed so may still have
// been carried out.
type Conn interface {
	// Call sends a small request (up to MaxMessage) and waits for the reply.
	Call(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, error)
	// CallBulk is Call with raw bytes on either side. The bytes of payload
	// follow the request; they may be reused when CallBulk returns. The reply's
	// bytes are put into into, which must be large enough; n says how many came.
	CallBulk(ctx context.Context, m wire.Method, req proto.Message, payload [][]byte, into []byte) (resp proto.Message, n int, err error)
	// CallFile is Call where the peer passes an open file with its reply: a new
	// descriptor, for the caller to close. Over QUIC it fails with
	// wire.Unsupported.
	CallFile(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, *os.File, error)
	// Stream opens a two-way stream of messages, which lives until either side
	// closes it, the connection ends, or ctx is done.
	Stream(ctx context.Context, m wire.Method) (Stream, error)
	Kind() Kind
	// Done is closed when the connection is of no use any more.
	Done() <-chan struct{}
	Close() error
}

// Stream carries messages of one method's shape both ways: the client sends
// Req messages and receives Resp messages. One goroutine may send while another
// receives.
type Stream interface {
	Send(proto.Message) error
	Recv() (proto.Message, error)
	Close() error // both sides' pending and later calls fail; may be called twice
}

// Peer is who calls, as the transport has proved it.
type Peer struct {
	Role string // "meta", "chunkd", "edge", "agent", "client"; on a Unix socket or in process what the caller declares
	Name string
	Kind Kind
}

// Request is one incoming call.
type Request struct {
	Method  wire.Method
	Msg     proto.Message
	Payload []byte // bulk bytes; valid until the handler returns
	Peer    Peer
}

// Reply is the answer of a handler.
type Reply struct {
	Msg proto.Message
	// Payload follows the message. Release, if set, is called once the bytes
	// have been sent or copied.
	Payload [][]byte
	Release func()
	// File is passed to the caller (in process and over a Unix socket only); the
	// server keeps it open and its own.
	File *os.File
}

// Handler serves the calls of one method. An error travels as a wire.Failure.
type Handler func(ctx context.Context, req *Request) (Reply, error)

// StreamHandler serves one stream; the stream closes when it returns. ctx ends
// with the connection or the server.
type StreamHandler func(ctx context.Context, peer Peer, s Stream) error

// DefaultTimeout bounds a call whose context has no deadline.
const DefaultTimeout = 30e9

// MaxMessage is the largest encoded message, in bytes; MaxPayload the largest
// bulk payload. Longer ones are refused before anything is allocated.
const (
	MaxMessage = 16 << 20
	MaxPayload = 64 << 20
)

// Call is Conn.Call with the reply's type.
func Call[R proto.Message](ctx context.Context, c Conn, m wire.Method, req proto.Message) (R, error) {
	resp, err := c.Call(ctx, m, req)
	if err != nil {
		var zero R
		return zero, err
	}
	r, ok := resp.(R)
	if !ok {
		var zero R
		return zero, wire.Errorf(wire.Internal, m.String(), "", "the reply is not one of this call")
	}
	return r, nil
}
