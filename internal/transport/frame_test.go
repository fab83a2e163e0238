package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

func frameOf(t testing.TB, h header, m proto.Message) []byte {
	t.Helper()
	size := 0
	if m != nil {
		size = proto.Size(m)
	}
	b, err := appendFrame(nil, h, m, size)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes of a frame are part of the protocol.
func TestFrameGolden(t *testing.T) {
	h := header{kind: frameCall, method: wire.MethodQuery, payload: 0x01020304, millis: 30_000, id: 0x1122334455667788}
	got := hex.EncodeToString(frameOf(t, h, &wire.Query{Session: 5}))
	const want = "01" + "03" + "0b00" + "02000000" + "04030201" + "30750000" + "8877665544332211" + "1005"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := parseHeader(frameOf(t, header{kind: framePulse}, nil)); err != nil {
		t.Error(err)
	}
}

func TestFrameRefused(t *testing.T) {
	for name, test := range map[string]struct {
		h    header
		harm func(b []byte)
		want string
	}{
		"another version":    {header{kind: frameCall}, func(b []byte) { b[0] = 2 }, "version 2, not 1"},
		"HTTP":               {header{kind: frameCall}, func(b []byte) { copy(b, "GET / HTTP/1.1\r\nHost: a") }, "no QuernFS process"},
		"no type":            {header{}, nil, "unknown type 0"},
		"type from later on": {header{kind: framePulse + 1}, nil, "unknown type 11"},
		"long message":       {header{kind: frameCall}, func(b []byte) { binary.LittleEndian.PutUint32(b[4:], MaxMessage+1) }, "longer than"},
		"long payload":       {header{kind: frameReply, payload: MaxPayload + 1}, nil, "longer than"},
		"payload of a cancel": {
			header{kind: frameCancel, payload: 1}, nil, "carries no payload"},
	} {
		t.Run(name, func(t *testing.T) {
			b := make([]byte, headerSize)
			test.h.put(b)
			if test.harm != nil {
				test.harm(b)
			}
			_, err := newFrameReader(bytes.NewReader(b)).next()
			wantText(t, err, test.want)
			wantCode(t, err, wire.Invalid)
		})
	}
}

// Frames come out as they went in, however the bytes are cut.
func TestFrameReader(t *testing.T) {
	var stream []byte
	sizes := []int{0, 1, 100, readBuffer - 40, readBuffer - 3, readBuffer, readBuffer + 1, 200_000}
	for i, n := range sizes {
		m := &wire.Failure{Code: uint32(i + 1), Message: strings.Repeat("x", n)}
		stream = append(stream, frameOf(t, header{kind: frameReply, id: uint64(i), payload: uint32(n)}, m)...)
		stream = append(stream, pattern(i, n)...)
	}
	for name, cut := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r },
		"bytes": iotest.OneByteReader,
		"half":  iotest.HalfReader,
		"late":  iotest.DataErrReader,
	} {
		t.Run(name, func(t *testing.T) {
			r := newFrameReader(cut(bytes.NewReader(stream)))
			for i, n := range sizes {
				h, err := r.next()
				if err != nil || h.id != uint64(i) || int(h.payload) != n {
					t.Fatalf("frame %d: %+v, %v", i, h, err)
				}
				var m wire.Failure
				if err := r.message(h, &m); err != nil || m.Code != uint32(i+1) || len(m.Message) != n {
					t.Fatalf("message %d: %v", i, err)
				}
				p := make([]byte, n)
				if err := r.payload(p); err != nil || !bytes.Equal(p, pattern(i, n)) {
					t.Fatalf("payload %d: %v", i, err)
				}
			}
			if _, err := r.next(); err != io.EOF {
				t.Errorf("at the end: %v", err)
			}
		})
	}
	for _, cut := range []int{1, headerSize - 1, headerSize, headerSize + 1, headerSize + 3} {
		r := newFrameReader(bytes.NewReader(frameOf(t, header{kind: frameReply}, &wire.Failure{Code: 3, Op: "op"})[:cut]))
		h, err := r.next()
		if err == nil {
			err = r.message(h, new(wire.Failure))
		}
		if err != io.ErrUnexpectedEOF {
			t.Errorf("cut after %d: %v", cut, err)
		}
	}
}

// FuzzFrames reads frames from any bytes: it must not panic, nor allocate for
// what is not there beyond the limits, and what it accepts it must write back
// the same.
func FuzzFrames(f *testing.F) {
	f.Add(frameOf(f, header{kind: frameOpen}, &wire.Opening{Use: useCalls, Role: "client", Name: "a"}))
	f.Add(append(frameOf(f, header{kind: frameCall, method: wire.MethodPutShard, payload: 5, millis: 7}, &wire.PutShard{Block: 9}), "hello"...))
	f.Add(append(frameOf(f, header{kind: frameCancel, id: 4}, nil), frameOf(f, header{kind: frameFailure}, &wire.Failure{Code: 2})...))
	f.Add([]byte("\x01\x03\x0a\x00\xff\xff\xff\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newFrameReader(bytes.NewReader(b))
		for {
			h, err := r.next()
			if err != nil {
				return
			}
			if h.message > MaxMessage || h.payload > MaxPayload {
				t.Fatalf("let through %+v", h)
			}
			var back [headerSize]byte
			h.put(back[:])
			if again, err := parseHeader(back[:]); err != nil || again != h {
				t.Fatalf("%+v becomes %+v, %v", h, again, err)
			}
			var m proto.Message
			if s, ok := wire.Shapes[h.method]; ok {
				m = s.Req()
			}
			if err := r.message(h, m); err != nil {
				return
			}
			if err := r.skip(int(h.payload)); err != nil {
				return
			}
		}
	})
}

// FuzzServer lets a server read anything from a client: it must end the
// connection or wait for more, and serve others as before.
func FuzzServer(f *testing.F) {
	open := frameOf(f, header{kind: frameOpen}, &wire.Opening{Use: useCalls})
	bulk := frameOf(f, header{kind: frameOpen}, &wire.Opening{Use: useBulk})
	stream := frameOf(f, header{kind: frameOpen}, &wire.Opening{Use: useStream, Method: uint32(wire.MethodSession)})
	call := frameOf(f, header{kind: frameCall, method: wire.MethodQuery, id: 1, millis: 100}, &wire.Query{Session: 1})
	f.Add(append(open, call...))
	f.Add(append(bulk, append(frameOf(f, header{kind: frameCall, method: wire.MethodPutShard, payload: 5}, &wire.PutShard{}), "hello"...)...))
	f.Add(append(stream, frameOf(f, header{kind: frameMessage}, renew(1))...))
	f.Add(append(open, frameOf(f, header{kind: frameCall, method: 77}, nil)...))
	f.Add(call)

	mux := echoMux()
	mux.HandleStream(wire.MethodSession, nil, func(_ context.Context, _ Peer, s Stream) error {
		for {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
	})
	dir, err := os.MkdirTemp("", "fuzz-server-")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	path := dir + "/s"
	s, err := NewServer(ServerConfig{Mux: mux, UnixPath: path})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close(testContext(f)) })
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write(b) // it may end early
		c.CloseWrite()
		io.Copy(io.Discard, c) // until the server ends it, too
	})
}

// A peer that announces a long message or payload and sends little of it has
// little allocated for it.
func TestAnnouncedIsNotAllocated(t *testing.T) {
	for _, sent := range []int{0, 10, firstRead, 3 * firstRead} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := newFrameReader(bytes.NewReader(make([]byte, sent)))
		if _, err := r.take(MaxPayload); err != io.ErrUnexpectedEOF {
			t.Errorf("%d of %d bytes: %v", sent, MaxPayload, err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > uint64(8*sent+2*firstRead) {
			t.Errorf("%d bytes came, %d were allocated", sent, n)
		}
	}
	want := pattern(5, 9*firstRead+17)
	r := newFrameReader(bytes.NewReader(want))
	got, err := r.take(len(want))
	if err != nil || !bytes.Equal((*got)[:len(want)], want) {
		t.Errorf("%d bytes did not come whole: %v", len(want), err)
	}
}
