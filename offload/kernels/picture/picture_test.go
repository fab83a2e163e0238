package picture

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"
)

// wave is a smooth picture: what it shows at a place does not depend on its
// size. x and y are from 0 to 1.
func wave(x, y float64) color.RGBA {
	return color.RGBA{uint8(255 * x), uint8(255 * y), uint8(127 + 120*math.Sin(6*x)*math.Cos(5*y)), 255}
}

func waves(w, h int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.Set(x, y, wave((float64(x)+0.5)/float64(w), (float64(y)+0.5)/float64(h)))
		}
	}
	return m
}

func encode(t testing.TB, f Format, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	err := png.Encode(&b, m)
	if f == JPEG {
		b.Reset()
		err = jpeg.Encode(&b, m, &jpeg.Options{Quality: 95})
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func resized(t *testing.T, data []byte, o Options) image.Image {
	t.Helper()
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	f, err := Resize(&b, data, o)
	if err != nil {
		t.Fatal(err)
	}
	if got := FormatOf(b.Bytes()); got != f || o.Format != "" && o.Format != f {
		t.Fatalf("it is %s, said %s, asked for %q", got, f, o.Format)
	}
	m, _, err := Decode(b.Bytes(), MaxPixels)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// difference is the mean of that of all colours, 0 to 255.
func difference(a, b image.Image) float64 {
	sum := 0.0
	for y := range a.Bounds().Dy() {
		for x := range a.Bounds().Dx() {
			p := color.RGBAModel.Convert(a.At(a.Bounds().Min.X+x, a.Bounds().Min.Y+y)).(color.RGBA)
			q := color.RGBAModel.Convert(b.At(b.Bounds().Min.X+x, b.Bounds().Min.Y+y)).(color.RGBA)
			for _, d := range []int{int(p.R) - int(q.R), int(p.G) - int(q.G), int(p.B) - int(q.B), int(p.A) - int(q.A)} {
				sum += math.Abs(float64(d))
			}
		}
	}
	return sum / float64(4*a.Bounds().Dx()*a.Bounds().Dy())
}

// TestResize: a small picture of waves is the waves drawn small.
func TestResize(t *testing.T) {
	for _, c := range []struct {
		w, h       int
		o          Options
		wantW      int
		wantH      int
		whole      bool // it shows the whole picture
		difference float64
	}{
		{640, 480, Options{Width: 64, Height: 64}, 64, 48, true, 2},
		{640, 480, Options{Width: 64}, 64, 48, true, 2},
		{640, 480, Options{Height: 100}, 133, 100, true, 2},
		{480, 640, Options{Width: 301, Height: 300, Format: PNG}, 225, 300, true, 1.5},
		{640, 480, Options{Width: 100, Height: 100, Fit: Fill}, 100, 100, true, 2},
		{640, 480, Options{Width: 100, Height: 100, Fit: Cover}, 100, 100, false, 0},
		{480, 640, Options{Width: 1000, Height: 2000, Fit: Cover}, 320, 640, false, 0},
		{64, 48, Options{Width: 640}, 64, 48, true, 2},
		{64, 48, Options{Width: 640, Enlarge: true, Format: JPEG}, 640, 480, true, 2.5},
		{64, 48, Options{Width: 640, Height: 640, Fit: Fill}, 64, 48, true, 2},
		{64, 48, Options{Width: 96, Height: 24, Fit: Cover, Enlarge: true}, 96, 24, false, 0},
		{2000, 3, Options{Width: 10}, 10, 1, true, 60},
		{1, 1, Options{Width: 10, Height: 3, Enlarge: true}, 3, 3, true, 80},
		{1999, 1501, Options{Width: 1900}, 1900, 1427, true, 2},
	} {
		for _, f := range []Format{JPEG, PNG} {
			m := resized(t, encode(t, f, waves(c.w, c.h)), c.o)
			if m.Bounds().Dx() != c.wantW || m.Bounds().Dy() != c.wantH {
				t.Errorf("%s of %dx%d, %+v: %v, want %dx%d", f, c.w, c.h, c.o, m.Bounds(), c.wantW, c.wantH)
			} else if c.whole {
				if d := difference(m, waves(c.wantW, c.wantH)); d > c.difference {
					t.Errorf("%s of %dx%d, %+v: differs by %.2f", f, c.w, c.h, c.o, d)
				}
			}
		}
	}
	// Cover shows the middle.
	m := resized(t, encode(t, PNG, waves(400, 200)), Options{Width: 50, Height: 50, Fit: Cover})
	want := image.NewRGBA(image.Rect(0, 0, 50, 50))
	draw.Draw(want, want.Bounds(), waves(100, 50), image.Pt(25, 0), draw.Src)
	if d := difference(m, want); d > 1.5 {
		t.Errorf("cover differs from the middle by %.2f", d)
	}
}

// TestModels: pictures of every kind of colour.
func TestModels(t *testing.T) {
	src := waves(300, 200)
	palette := image.NewPaletted(src.Bounds(), color.Palette{color.White, color.Black, color.RGBA{255, 0, 0, 255}})
	clear := image.NewNRGBA(src.Bounds())
	for y := range 200 {
		for x := range 300 {
			palette.SetColorIndex(x, y, uint8(x/100))
			c := src.RGBAAt(x, y)
			clear.SetNRGBA(x, y, color.NRGBA{c.R, c.G, c.B, uint8(y)})
		}
	}
	gray, deep := image.NewGray(src.Bounds()), image.NewRGBA64(src.Bounds())
	draw.Draw(gray, src.Bounds(), src, image.Point{}, draw.Src)
	draw.Draw(deep, src.Bounds(), src, image.Point{}, draw.Src)
	for name, m := range map[string]draw.Image{"palette": palette, "clear": clear, "gray": gray, "deep": deep} {
		got := resized(t, encode(t, PNG, m), Options{Width: 30})
		// A square of 10 x 10 pixels is one, on average.
		want := image.NewRGBA(image.Rect(0, 0, 30, 20))
		for y := range 20 {
			for x := range 30 {
				var sum [4]uint32
				for i := range 100 {
					r, g, b, a := m.At(x*10+i%10, y*10+i/10).RGBA()
					sum = [4]uint32{sum[0] + r, sum[1] + g, sum[2] + b, sum[3] + a}
				}
				want.SetRGBA(x, y, color.RGBA{uint8(sum[0] / 25700), uint8(sum[1] / 25700), uint8(sum[2] / 25700), uint8(sum[3] / 25700)})
			}
		}
		if d := difference(got, want); d > 2.5 {
			t.Errorf("%s differs by %.2f", name, d)
		}
	}
	// What is clear becomes white.
	m := resized(t, encode(t, PNG, image.NewNRGBA(image.Rect(0, 0, 20, 20))), Options{Width: 5, Format: JPEG})
	if r, g, b, _ := m.At(2, 2).RGBA(); r < 0xf000 || g < 0xf000 || b < 0xf000 {
		t.Errorf("what is transparent is %v in JPEG", m.At(2, 2))
	}
}

// withOrientation puts EXIF data into a file.
func withOrientation(f Format, data []byte, o byte, little bool) []byte {
	tiff := []byte("MM\x00*\x00\x00\x00\x08\x00\x02\x01\x0f\x00\x02\x00\x00\x00\x01a\x00\x00\x00\x01\x12\x00\x03\x00\x00\x00\x01\x00" + string(o) + "\x00\x00\x00\x00\x00\x00")
	if little {
		tiff = []byte("II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00" + string(o) + "\x00\x00\x00\x00\x00\x00\x00")
	}
	if f == PNG {
		chunk := binary.BigEndian.AppendUint32(nil, uint32(len(tiff)))
		chunk = append(append(chunk, "eXIf"...), tiff...)
		chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
		return bytes.Join([][]byte{data[:33], chunk, data[33:]}, nil)
	}
	segment := append([]byte("Exif\x00\x00"), tiff...)
	head := append([]byte("\xff\xd8\xff\xe0\x00\x04ab\xff\xe1"), byte((len(segment)+2)>>8), byte(len(segment)+2))
	return bytes.Join([][]byte{head, segment, data[2:]}, nil)
}

// TestOrientation: where the beginning and the end of the first row of pixels
// are seen, as the EXIF standard says: "the 0th row is at the … side, the 0th
// column at the …".
func TestOrientation(t *testing.T) {
	m := image.NewRGBA(image.Rect(0, 0, 90, 60))
	red, green := color.RGBA{255, 0, 0, 255}, color.RGBA{0, 255, 0, 255}
	draw.Draw(m, image.Rect(0, 0, 30, 20), image.NewUniform(red), image.Point{}, draw.Src)
	draw.Draw(m, image.Rect(60, 0, 90, 20), image.NewUniform(green), image.Point{}, draw.Src)
	left, top, right, bottom := 0, 0, 1, 1
	for o, c := range map[byte][2][2]int{ // of red and green
		1: {{left, top}, {right, top}}, 2: {{right, top}, {left, top}}, 3: {{right, bottom}, {left, bottom}}, 4: {{left, bottom}, {right, bottom}},
		5: {{left, top}, {left, bottom}}, 6: {{right, top}, {right, bottom}}, 7: {{right, bottom}, {right, top}}, 8: {{left, bottom}, {left, top}},
		0: {{left, top}, {right, top}}, 9: {{left, top}, {right, top}},
	} {
		for _, f := range []Format{JPEG, PNG} {
			for _, little := range []bool{true, false} {
				got := resized(t, withOrientation(f, encode(t, f, m), o, little), Options{Width: 30, Height: 30})
				wantW, wantH := 30, 20
				if o >= 5 && o <= 8 {
					wantW, wantH = 20, 30
				}
				if got.Bounds().Dx() != wantW || got.Bounds().Dy() != wantH {
					t.Fatalf("%s, orientation %d: %v", f, o, got.Bounds())
				}
				for i, at := range c {
					r, g, _, _ := got.At(3+at[0]*(wantW-7), 3+at[1]*(wantH-7)).RGBA()
					if r>>8 > 200 != (i == 0) || g>>8 > 200 != (i == 1) {
						t.Errorf("%s, orientation %d: at %v is %d %d", f, o, at, r>>8, g>>8)
					}
				}
				if Orientation(encode(t, f, got)) != 1 {
					t.Error("the result has an orientation")
				}
			}
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "a width or a height is needed"},
		{Options{Width: -1}, "must be from 1"},
		{Options{Width: 20000}, "must be from 1 to 16384"},
		{Options{Width: 16000, Height: 16000}, "too large"},
		{Options{Width: 5, Fit: "crop"}, "contain, cover or fill"},
		{Options{Width: 5, Fit: Cover}, "needs a width and a height"},
		{Options{Width: 5, Format: "gif"}, "jpeg or png"},
		{Options{Width: 5, Quality: 101}, "quality"},
		{Options{Width: 5, Pixels: -1}, "pixels"},
	} {
		if err := c.o.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
	// A PNG file that says it has 60000 x 60000 pixels, and a JPEG one.
	huge := encode(t, PNG, waves(4, 4))
	binary.BigEndian.PutUint32(huge[16:], 60000)
	binary.BigEndian.PutUint32(huge[20:], 60000)
	binary.BigEndian.PutUint32(huge[29:], crc32.ChecksumIEEE(huge[12:29]))
	large := encode(t, JPEG, waves(4, 4))
	i := bytes.Index(large, []byte{0xff, 0xc0})
	copy(large[i+5:], "\xff\xff\xff\xff")
	photo := encode(t, JPEG, waves(300, 300))
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"huge":      {huge, "60000 x 60000 pixels, more than 100000000"},
		"large":     {large, "65535 x 65535 pixels"},
		"cut short": {photo[:len(photo)/2], ""},
		"text":      {[]byte("no picture"), "neither a JPEG nor a PNG"},
		"nothing":   {nil, "neither"},
		"a head":    {[]byte("\xff\xd8\xff"), ""},
	} {
		if _, err := Resize(io.Discard, c.data, Options{Width: 5}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := Resize(io.Discard, photo, Options{Width: 5, Pixels: 89_999}); err == nil {
		t.Error("a picture with a pixel too many is taken")
	}
}

// TestStrip: a frame with one side does not make a strip huge.
func TestStrip(t *testing.T) {
	m := image.NewGray(image.Rect(0, 0, 60000, 1))
	o := Options{Height: 16000, Enlarge: true}
	if w, h, _ := o.size(60000, 1); w*h > maxResult {
		t.Errorf("%d x %d", w, h)
	}
	if got := resized(t, encode(t, PNG, m), Options{Width: 100}); got.Bounds().Dx() != 100 || got.Bounds().Dy() != 1 {
		t.Errorf("%v", got.Bounds())
	}
}

// FuzzResize: whatever a file holds, it is an error or a picture of the size that
// was asked for.
func FuzzResize(f *testing.F) {
	for _, format := range []Format{JPEG, PNG} {
		data := encode(f, format, waves(9, 7))
		f.Add(data)
		f.Add(data[:len(data)/2])
		f.Add(withOrientation(format, data, 6, true))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var b bytes.Buffer
		if _, err := Resize(&b, data, Options{Width: 8, Height: 8, Pixels: 1 << 16}); err != nil {
			return
		}
		m, _, err := Decode(b.Bytes(), 64)
		if err != nil || m.Bounds().Dx() > 8 || m.Bounds().Dy() > 8 {
			t.Errorf("%v, %v", m, err)
		}
	})
}

func BenchmarkResize(b *testing.B) {
	data := encode(b, JPEG, waves(4000, 3000))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Resize(io.Discard, data, Options{Width: 256}); err != nil {
			b.Fatal(err)
		}
	}
}
