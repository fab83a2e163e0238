package transport

import (
	"bufio"
	"encoding/binary"
	"io"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// frameVersion is the first byte of every frame.
const frameVersion = 1

// headerSize is the length of a frame's header; doc.go draws it.
const headerSize = 24

type frameType uint8

const (
	frameOpen    frameType = 1  // first on every pipe: Opening
	frameAccept  frameType = 2  // answer to open
	frameCall    frameType = 3  // request, and payload on a bulk pipe
	frameReply   frameType = 4  // reply, and payload on a bulk pipe
	frameFailure frameType = 5  // Failure, in place of accept or reply
	frameCancel  frameType = 6  // the caller of id no longer waits
	frameMessage frameType = 7  // one message of a stream
	frameEnd     frameType = 8  // the sender has left the stream: Failure, or nothing
	frameBye     frameType = 9  // the server takes no more calls on this connection
	framePulse   frameType = 10 // nothing: see pulse
)

// header is a frame's header.
type header struct {
	kind    frameType
	method  wire.Method
	message uint32 // length
	payload uint32 // length
	millis  uint32 // calls: time left to the deadline
	id      uint64 // calls: pairs a reply with its call
}

// put writes the header to the first headerSize bytes of b.
func (h *header) put(b []byte) {
	b = b[:headerSize]
	b[0], b[1] = frameVersion, byte(h.kind)
	binary.LittleEndian.PutUint16(b[2:], uint16(h.method))
	binary.LittleEndian.PutUint32(b[4:], h.message)
	binary.LittleEndian.PutUint32(b[8:], h.payload)
	binary.LittleEndian.PutUint32(b[12:], h.millis)
	binary.LittleEndian.PutUint64(b[16:], h.id)
}

// parseHeader reads a header from headerSize bytes. What it lets through may be
// allocated for.
func parseHeader(b []byte) (header, error) {
	b = b[:headerSize]
	if b[0] != frameVersion {
		return header{}, frameError("version %d, not %d: the peer is of another release, or no QuernFS process", b[0], frameVersion)
	}
	h := header{
		kind:    frameType(b[1]),
		method:  wire.Method(binary.LittleEndian.Uint16(b[2:])),
		message: binary.LittleEndian.Uint32(b[4:]),
		payload: binary.LittleEndian.Uint32(b[8:]),
		millis:  binary.LittleEndian.Uint32(b[12:]),
		id:      binary.LittleEndian.Uint64(b[16:]),
	}
	if h.kind < frameOpen || h.kind > framePulse {
		return header{}, frameError("unknown type %d", h.kind)
	}
	if h.message > MaxMessage {
		return header{}, frameError("a message of %d bytes is longer than the %d allowed", h.message, MaxMessage)
	}
	if h.payload > MaxPayload {
		return header{}, frameError("a payload of %d bytes is longer than the %d allowed", h.payload, MaxPayload)
	}
	if h.payload > 0 && h.kind != frameCall && h.kind != frameReply {
		return header{}, frameError("type %d carries no payload", h.kind)
	}
	return h, nil
}

func frameError(format string, args ...any) error {
	return wire.Errorf(wire.Invalid, "frame", "", format, args...)
}

// appendFrame appends header and message, with their lengths set, to b; the
// payload is for the caller to send after it. size is proto.Size(m), m may be
// nil.
func appendFrame(b []byte, h header, m proto.Message, size int) ([]byte, error) {
	h.message = uint32(size)
	at := len(b)
	b = append(b, make([]byte, headerSize)...)
	h.put(b[at:])
	if m == nil {
		return b, nil
	}
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
	if err != nil {
		return nil, wire.Errorf(wire.Internal, h.method.String(), "", "the message cannot be encoded")
	}
	if len(b)-at-headerSize != size {
		return nil, wire.Errorf(wire.Internal, h.method.String(), "", "the message was changed while it was being sent")
	}
	return b, nil
}

// frameReader takes a stream of bytes apart. After an error it is of no more
// use. After next, exactly the frame's message and then its payload are to be
// taken.
type frameReader struct {
	b *bufio.Reader
}

// readBuffer is the size of a frameReader's buffer: messages up to it are
// decoded where they lie.
const readBuffer = 32 << 10

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{b: bufio.NewReaderSize(r, readBuffer)}
}

// next reads the next header; io.EOF if the bytes end before it.
func (r *frameReader) next() (header, error) {
	b, err := r.b.Peek(headerSize)
	if err != nil {
		if len(b) > 0 && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return header{}, err
	}
	h, err := parseHeader(b)
	if err != nil {
		return header{}, err
	}
	r.b.Discard(headerSize)
	return h, nil
}

// message decodes the message of the frame of h into m; a nil m skips it.
func (r *frameReader) message(h header, m proto.Message) error {
	n := int(h.message)
	if m == nil {
		_, err := r.b.Discard(n)
		return unexpected(err)
	}
	if n <= readBuffer {
		b, err := r.b.Peek(n)
		if err != nil {
			return unexpected(err)
		}
		err = decode(h, b, m)
		r.b.Discard(n)
		return err
	}
	buf, err := r.take(n)
	if err != nil {
		return err
	}
	defer putBuffer(buf)
	return decode(h, (*buf)[:n], m)
}

// firstRead is how much is allocated for what a peer only says that it sends;
// as much of it as has come may be allocated three times over.
const firstRead = 1 << 20

// take reads n bytes into a pooled buffer, which grows as they come: a peer that
// announces much and sends nothing costs little.
func (r *frameReader) take(n int) (*[]byte, error) {
	buf, have := getBuffer(min(n, firstRead)), 0
	for {
		end := min(n, len(*buf))
		if _, err := io.ReadFull(r.b, (*buf)[have:end]); err != nil {
			putBuffer(buf)
			return nil, unexpected(err)
		}
		if have = end; have == n {
			return buf, nil
		}
		more := getBuffer(min(n, 4*have))
		copy(*more, (*buf)[:have])
		putBuffer(buf)
		buf = more
	}
}

// payload reads the payload, or the next part of it, into p.
func (r *frameReader) payload(p []byte) error {
	_, err := io.ReadFull(r.b, p)
	return unexpected(err)
}

// skip passes over n bytes.
func (r *frameReader) skip(n int) error {
	_, err := r.b.Discard(n)
	return unexpected(err)
}

func decode(h header, b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return frameError("a message cannot be read")
	}
	return nil
}

// unexpected turns the end of the bytes within a frame into an error of its own.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
