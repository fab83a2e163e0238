package squeeze

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// samples are what is compressed: text, noise, zeroes, nothing.
func samples(t *testing.T) map[string][]byte {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	noise := make([]byte, 300_001)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	text, err := os.ReadFile("squeeze.go")
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"text": bytes.Repeat(text, 50), "noise": noise, "zeroes": make([]byte, 5<<20), "a byte": {7}, "nothing": {}}
}

// TestRoundTrip: what is compressed, in one or several parts, is what comes out,
// here and of the commands of that name.
func TestRoundTrip(t *testing.T) {
	for _, f := range []Format{Gzip, Zstd} {
		for name, data := range samples(t) {
			for _, level := range []int{1, 3, 6, 9, 19} {
				if _, most, _ := f.Levels(); level > most {
					continue
				}
				for _, parts := range []int{1, 3} {
					t.Run(fmt.Sprintf("%s/%s/%d/%d", f, name, level, parts), func(t *testing.T) {
						var packed bytes.Buffer
						for i := range parts {
							part := data[i*len(data)/parts : (i+1)*len(data)/parts]
							if err := Compress(f, level, &packed, bytes.NewReader(part)); err != nil {
								t.Fatal(err)
							}
						}
						var got bytes.Buffer
						if _, err := Decompress(f, &got, bytes.NewReader(packed.Bytes())); err != nil || !bytes.Equal(got.Bytes(), data) {
							t.Fatalf("%d bytes came back of %d: %v", got.Len(), len(data), err)
						}
						if level == 6 {
							byCommand(t, f, packed.Bytes(), data)
						}
						if name == "zeroes" && packed.Len() > 20_000 {
							t.Errorf("5 MiB of zeroes take %d bytes", packed.Len())
						}
					})
				}
			}
		}
	}
}

// byCommand decompresses with the command, and decompresses what it compressed.
func byCommand(t *testing.T, f Format, packed, want []byte) {
	t.Helper()
	if _, err := exec.LookPath(string(f)); err != nil {
		t.Logf("no command %s to compare with", f)
		return
	}
	run := func(in []byte, args ...string) []byte {
		c := exec.Command(string(f), args...)
		c.Stdin = bytes.NewReader(in)
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%s %v: %v", f, args, err)
		}
		return out
	}
	if got := run(packed, "-dc"); !bytes.Equal(got, want) {
		t.Errorf("%s -dc gives %d bytes of %d", f, len(got), len(want))
	}
	var got bytes.Buffer
	if _, err := Decompress(f, &got, bytes.NewReader(run(want, "-c"))); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("what %s -c wrote: %d bytes of %d, %v", f, got.Len(), len(want), err)
	}
}

// TestDamage: every input that is not whole is an error in words.
func TestDamage(t *testing.T) {
	data := bytes.Repeat([]byte("the quick brown fox\n"), 5000)
	for _, f := range []Format{Gzip, Zstd} {
		var b bytes.Buffer
		if err := Compress(f, 1, &b, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		flipped := bytes.Clone(b.Bytes())
		flipped[len(flipped)/2] ^= 0x40
		for name, c := range map[string]struct {
			in   []byte
			want string
		}{
			"text":      {data, "is not in the format of " + string(f)},
			"cut short": {b.Bytes()[:b.Len()-3], "ends too early"},
			"flipped":   {flipped, ""},
		} {
			_, err := Decompress(f, io.Discard, bytes.NewReader(c.in))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %s: %v, want %q", f, name, err, c.want)
			}
		}
		for _, level := range []int{0, 23} {
			if err := Compress(f, level, io.Discard, strings.NewReader("")); err == nil || !strings.Contains(err.Error(), "level of "+string(f)) {
				t.Errorf("%s, level %d: %v", f, level, err)
			}
		}
	}
	full := &limited{n: 100}
	if _, err := Decompress(Gzip, full, bytes.NewReader(gzipped(t, data))); err != errFull {
		t.Errorf("an output that is full: %v", err)
	}
}

func gzipped(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	if err := Compress(Gzip, 6, &b, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var errFull = fmt.Errorf("full")

// limited takes n bytes.
type limited struct{ n int }

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.n {
		return 0, errFull
	}
	l.n -= len(p)
	return len(p), nil
}

// FuzzDecompress: nothing panics, and what decompresses without an error
// survives another round.
func FuzzDecompress(f *testing.F) {
	for _, format := range []Format{Gzip, Zstd} {
		var b bytes.Buffer
		if err := Compress(format, 1, &b, strings.NewReader("some text, some text")); err != nil {
			f.Fatal(err)
		}
		f.Add(format == Gzip, b.Bytes())
		f.Add(format == Gzip, b.Bytes()[:b.Len()/2])
	}
	f.Fuzz(func(t *testing.T, gz bool, data []byte) {
		format := Zstd
		if gz {
			format = Gzip
		}
		var out bytes.Buffer
		if _, err := Decompress(format, &capped{&out, 1 << 20}, bytes.NewReader(data)); err != nil {
			return
		}
		var again, back bytes.Buffer
		if err := Compress(format, 1, &again, bytes.NewReader(out.Bytes())); err != nil {
			t.Fatal(err)
		}
		if _, err := Decompress(format, &back, &again); err != nil || !bytes.Equal(back.Bytes(), out.Bytes()) {
			t.Fatalf("%d bytes became %d: %v", out.Len(), back.Len(), err)
		}
	})
}

type capped struct {
	w    io.Writer
	left int
}

func (c *capped) Write(p []byte) (int, error) {
	if len(p) > c.left {
		return 0, errFull
	}
	c.left -= len(p)
	return c.w.Write(p)
}

// BenchmarkCompress is the speed on this machine without WebAssembly.
func BenchmarkCompress(b *testing.B) {
	data, err := os.ReadFile(filepath.Join("squeeze.go"))
	if err != nil {
		b.Fatal(err)
	}
	data = bytes.Repeat(data, 500)
	for _, f := range []Format{Gzip, Zstd} {
		b.Run(string(f), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, _, usual := f.Levels()
				if err := Compress(f, usual, io.Discard, bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestBehind: what follows the last member and is none is left out, and told, as
// gzip(1) does; zeros are padding. A member that is cut short is an error.
func TestBehind(t *testing.T) {
	pack := func(f Format) string {
		var b bytes.Buffer
		if err := Compress(f, 3, &b, strings.NewReader("text\n")); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	one, frame := pack(Gzip), pack(Zstd)
	for _, c := range []struct {
		f      Format
		in     string
		out    string
		behind int64
		fails  bool
	}{
		{Gzip, one + "garbage", "text\n", 7, false},
		{Gzip, one + one + "x", "text\ntext\n", 1, false},
		{Gzip, one + strings.Repeat("\x00", 512), "text\n", 0, false},
		{Gzip, one + one[:5], "text\n", 0, true},
		{Gzip, "garbage" + one, "", 0, true},
		{Zstd, frame + "garbage", "text\n", 7, false},
		{Zstd, frame + frame, "text\ntext\n", 0, false},
		{Zstd, frame + "abc", "text\n", 0, true},                          // or the beginning of a frame
		{Zstd, frame + strings.Repeat("\x00", 512), "text\n", 512, false}, // zstd(1) knows no padding
		{Zstd, frame + frame[:9], "text\n", 0, true},
		{Zstd, "garbage" + frame, "", 0, true},
	} {
		var out bytes.Buffer
		behind, err := Decompress(c.f, &out, strings.NewReader(c.in))
		if out.String() != c.out || behind != c.behind || (err != nil) != c.fails {
			t.Errorf("%s %q: %q, %d, %v", c.f, c.in, out.String(), behind, err)
		}
	}
}
