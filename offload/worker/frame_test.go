package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"testing"
	"testing/fstest"
	"time"
)

type pipe struct {
	io.Reader
	io.Writer
}

func TestFrames(t *testing.T) {
	var wire bytes.Buffer
	l := newLink(pipe{&wire, &wire})
	for _, n := range []int{0, 1, 100, 1 << 16, MaxFrame - 1} {
		body := bytes.Repeat([]byte{byte(n)}, n)
		if err := l.send(kindOut, body[:n/2], body[n/2:]); err != nil {
			t.Fatal(err)
		}
		k, got, err := l.recv()
		if err != nil || k != kindOut || !bytes.Equal(got, body) {
			t.Fatalf("%d bytes: kind %d, %d bytes, %v", n, k, len(got), err)
		}
	}
	if err := l.send(kindOut, make([]byte, MaxFrame)); err == nil {
		t.Error("a frame that is too long was sent")
	}
	q := readRequest{3, 1 << 40, 4096}
	if got, err := decodeRead(q.encode()); err != nil || got != q {
		t.Errorf("%+v, %v", got, err)
	}
	if size, path, err := decodeInput(bytes.Join(encodeInput(77, "/a"), nil)); err != nil || size != 77 || path != "/a" {
		t.Errorf("%d %q %v", size, path, err)
	}
}

// FuzzWorker plays a keeper that sends anything: the worker answers or gives
// up, and allocates no more than frames hold.
func FuzzWorker(f *testing.F) {
	var seed bytes.Buffer
	l := newLink(pipe{&seed, &seed})
	run, _ := json.Marshal(Run{Module: "/nonexistent", Inputs: 1})
	_ = l.send(kindRun, run)
	_ = l.send(kindInput, encodeInput(5, "/a")...)
	f.Add(seed.Bytes())
	f.Add([]byte{255, 255, 255, 255, 1})
	f.Add([]byte{1, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := newEngine("")
		if err != nil {
			t.Fatal(err)
		}
		_ = serve(e, pipe{bytes.NewReader(data), io.Discard})
		_, _ = decodeRead(data)
		_, _, _ = decodeInput(data)
	})
}

// memSource has its inputs in memory.
type memSource struct {
	data [][]byte
	most int // bytes of one answer
}

func (s *memSource) readInput(i int, p []byte, off int64) (int, error) {
	if len(p) > s.most {
		p = p[:s.most]
	}
	return bytes.NewReader(s.data[i]).ReadAt(p, off)
}

// TestInputs checks the tree of inputs as fstest does, and that the stream is
// their concatenation.
func TestInputs(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	src := &memSource{most: 1 << 16}
	in := newInputs(src)
	var names []string
	var all []byte
	for i := range 40 {
		data := make([]byte, rnd.Intn(3)*rnd.Intn(100_000))
		rnd.Read(data)
		name := fmt.Sprintf("d%d/e%d/f%d", i%3, i%5, i)
		if err := in.add("/"+name, int64(len(data))); err != nil {
			t.Fatal(err)
		}
		src.data, names, all = append(src.data, data), append(names, name), append(all, data...)
	}
	in.seal()
	if err := fstest.TestFS(in, names...); err != nil {
		t.Error(err)
	}
	for i, name := range names {
		if got, err := fs.ReadFile(in, name); err != nil || !bytes.Equal(got, src.data[i]) {
			t.Fatalf("%s: %d of %d bytes, %v", name, len(got), len(src.data[i]), err)
		}
	}
	src.most = 1 << 20
	if got, err := io.ReadAll(in.stream()); err != nil || !bytes.Equal(got, all) {
		t.Errorf("the stream has %d of %d bytes, %v", len(got), len(all), err)
	}
	for _, bad := range []string{"", "/", "/d0", "/d0/e0/f0", "/d0/e0/f0/x", "/../x", "/a//b"} {
		if in.add(bad, 1) == nil {
			t.Errorf("%q was added", bad)
		}
	}
	if _, err := in.Open("nothing/here"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestTail(t *testing.T) {
	tail := NewTail(10)
	for _, s := range []string{"abc", "defghij", "k", "0123456789ABC"} {
		_, _ = tail.Write([]byte(s))
	}
	if tail.String() != "3456789ABC" || tail.Total() != 24 {
		t.Errorf("%q of %d", tail, tail.Total())
	}
}
