// Package picture makes small pictures of large ones: what the kernel resize
// does. JPEG and PNG go in and come out. Its memory is bounded: the size of a
// picture is read before its pixels are.
//
// A picture is turned as its EXIF orientation says, and then has none; other
// metadata and colour profiles are left out, and colours have 8 bits.
package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/draw"
)

// Format is one of a picture.
type Format string

const (
	JPEG Format = "jpeg"
	PNG  Format = "png"
)

// FormatOf looks at the first bytes of a file; "": it is neither.
func FormatOf(data []byte) Format {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xd8\xff")):
		return JPEG
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return PNG
	}
	return ""
}

var errFormat = errors.New("it is neither a JPEG nor a PNG picture")

// Decode reads a picture of at most pixels pixels. It is not turned yet:
// Orientation says how it is to be.
func Decode(data []byte, pixels int) (image.Image, Format, error) {
	f := FormatOf(data)
	var config func(io.Reader) (image.Config, error)
	var decode func(io.Reader) (image.Image, error)
	switch f {
	case JPEG:
		config, decode = jpeg.DecodeConfig, jpeg.Decode
	case PNG:
		config, decode = png.DecodeConfig, png.Decode
	default:
		return nil, "", errFormat
	}
	c, err := config(bytes.NewReader(data))
	if err != nil {
		return nil, f, err
	}
	if c.Width <= 0 || c.Height <= 0 {
		return nil, f, errors.New("it has no pixels")
	}
	if c.Height > pixels/c.Width {
		return nil, f, fmt.Errorf("it has %d x %d pixels, more than %d in all", c.Width, c.Height, pixels)
	}
	m, err := decode(bytes.NewReader(data))
	return m, f, err
}

// Fit is how a picture gets into a frame.
type Fit string

const (
	Contain Fit = "contain" // as large as fits into it
	Cover   Fit = "cover"   // fills it; what is beyond it is cut off on both sides
	Fill    Fit = "fill"    // pressed into it
)

// Options say what is made of a picture.
type Options struct {
	Width, Height int // of the frame; one may be 0, as the other has it
	Fit           Fit // "": Contain
	Enlarge       bool
	Format        Format // "": as it was
	Quality       int    // of JPEG, 1 to 100; 0: 85
	Pixels        int    // that a picture may have; 0: MaxPixels
}

// Bounds.
const (
	MaxPixels = 100_000_000
	maxSide   = 16384
	maxResult = 32 << 20 // pixels
)

// Check says what is wrong with options.
func (o *Options) Check() error {
	switch {
	case o.Width < 0 || o.Height < 0 || o.Width > maxSide || o.Height > maxSide:
		return fmt.Errorf("width and height must be from 1 to %d", maxSide)
	case o.Width == 0 && o.Height == 0:
		return errors.New("a width or a height is needed, such as params: {width: 256}")
	case o.Width > 0 && o.Height > maxResult/o.Width:
		return fmt.Errorf("a result of %d x %d pixels is too large", o.Width, o.Height)
	case o.Fit != "" && o.Fit != Contain && o.Fit != Cover && o.Fit != Fill:
		return fmt.Errorf("fit must be contain, cover or fill, not %q", o.Fit)
	case (o.Fit == Cover || o.Fit == Fill) && (o.Width == 0 || o.Height == 0):
		return fmt.Errorf("fit: %s needs a width and a height", o.Fit)
	case o.Format != "" && o.Format != JPEG && o.Format != PNG:
		return fmt.Errorf("format must be jpeg or png, not %q", o.Format)
	case o.Quality < 0 || o.Quality > 100:
		return fmt.Errorf("quality must be from 1 to 100, not %d", o.Quality)
	case o.Pixels < 0:
		return errors.New("pixels must not be negative")
	}
	return nil
}

// Resize makes a small picture of a large one, and says what format it has.
func Resize(out io.Writer, data []byte, o Options) (Format, error) {
	limit := o.Pixels
	if limit == 0 {
		limit = MaxPixels
	}
	m, f, err := Decode(data, limit)
	if err != nil {
		return f, err
	}
	if o.Format != "" {
		f = o.Format
	}
	small := o.Picture(m, Orientation(data))
	if f == PNG {
		return f, png.Encode(out, small)
	}
	quality := o.Quality
	if quality == 0 {
		quality = 85
	}
	return f, jpeg.Encode(out, onWhite(small), &jpeg.Options{Quality: quality})
}

// onWhite puts a picture that is not opaque on white, since JPEG has no
// transparency.
func onWhite(m *image.RGBA) *image.RGBA {
	if m.Opaque() {
		return m
	}
	white := image.NewRGBA(m.Bounds())
	draw.Draw(white, white.Bounds(), image.NewUniform(color.White), image.Point{}, draw.Src)
	draw.Draw(white, white.Bounds(), m, image.Point{}, draw.Over)
	return white
}

// Picture scales and turns m. What it returns begins at (0, 0).
func (o *Options) Picture(m image.Image, orientation int) *image.RGBA {
	width, height := m.Bounds().Dx(), m.Bounds().Dy()
	across := orientation >= 5
	if across {
		width, height = height, width
	}
	w, h, crop := o.size(width, height)
	if across {
		w, h = h, w
		crop.Min.X, crop.Min.Y, crop.Max.X, crop.Max.Y = crop.Min.Y, crop.Min.X, crop.Max.Y, crop.Max.X
	}
	return turn(scale(m, crop.Add(m.Bounds().Min), w, h), orientation)
}

// size is how large the result of a picture of this size is, and which part of
// the picture it shows.
func (o *Options) size(width, height int) (w, h int, part image.Rectangle) {
	part = image.Rect(0, 0, width, height)
	w, h = o.Width, o.Height
	x, y := float64(w)/float64(width), float64(h)/float64(height)
	switch {
	case o.Fit == Fill:
	case o.Fit == Cover:
		f := max(x, y)
		if f > 1 && !o.Enlarge { // as large as there is of this shape
			w, h = int(math.Round(float64(w)/f)), int(math.Round(float64(h)/f))
			f = 1
		}
		cw, ch := min(width, max(1, int(math.Round(float64(w)/f)))), min(height, max(1, int(math.Round(float64(h)/f))))
		part = image.Rect(0, 0, cw, ch).Add(image.Pt((width-cw)/2, (height-ch)/2))
	default:
		f := min(x, y)
		if w == 0 {
			f = y
		} else if h == 0 {
			f = x
		}
		if f > 1 && !o.Enlarge {
			f = 1
		}
		w, h = int(math.Round(float64(width)*f)), int(math.Round(float64(height)*f))
		// A frame with one side only does not bound the other: a long strip.
		if over := float64(w) * float64(h) / maxResult; over > 1 {
			w, h = int(float64(w)/math.Sqrt(over)), int(float64(h)/math.Sqrt(over))
		}
	}
	if o.Fit == Fill && !o.Enlarge {
		w, h = min(w, width), min(h, height)
	}
	return max(w, 1), max(h, 1), part
}

// maxBicubic bounds what the scaler keeps between its two passes: numbers of
// 32 bytes. Beyond it a simpler one is used, which keeps nothing.
const maxBicubic = 2 << 20

// scale makes w x h pixels of a part of m.
func scale(m image.Image, part image.Rectangle, w, h int) *image.RGBA {
	if k := int(min(float64(part.Dx())/float64(w), float64(part.Dy())/float64(h)) / 1.5); k > 1 {
		m, part = shrink(m, part, k)
	}
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	var by draw.Scaler = draw.CatmullRom
	if part.Dx() == w && part.Dy() == h {
		draw.Draw(out, out.Bounds(), m, part.Min, draw.Src)
		return out
	} else if w*part.Dy() > maxBicubic {
		by = draw.ApproxBiLinear
	}
	by.Scale(out, out.Bounds(), m, part, draw.Src, nil)
	return out
}

// shrink averages squares of k x k pixels. It takes little memory beyond its
// result, and is what makes large pictures cheap.
func shrink(m image.Image, part image.Rectangle, k int) (*image.RGBA, image.Rectangle) {
	w, h := part.Dx()/k, part.Dy()/k
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	// What does not fill a square is left out, on both sides alike.
	left, top := part.Min.X+(part.Dx()-w*k)/2, part.Min.Y+(part.Dy()-h*k)/2
	rows := image.NewRGBA(image.Rect(0, 0, w*k, k))
	n := uint32(k * k)
	for y := range h {
		draw.Draw(rows, rows.Bounds(), m, image.Pt(left, top+y*k), draw.Src)
		for x := range w {
			var r, g, b, a uint32
			for row := range k {
				p := rows.Pix[row*rows.Stride+x*k*4:][:k*4]
				for i := 0; i+3 < len(p); i += 4 {
					r, g, b, a = r+uint32(p[i]), g+uint32(p[i+1]), b+uint32(p[i+2]), a+uint32(p[i+3])
				}
			}
			d := out.Pix[y*out.Stride+x*4:]
			d[0], d[1], d[2], d[3] = uint8((r+n/2)/n), uint8((g+n/2)/n), uint8((b+n/2)/n), uint8((a+n/2)/n)
		}
	}
	return out, out.Bounds()
}

// turn makes a picture upright that has this EXIF orientation.
func turn(m *image.RGBA, orientation int) *image.RGBA {
	if orientation < 2 || orientation > 8 {
		return m
	}
	w, h := m.Bounds().Dx(), m.Bounds().Dy()
	size := image.Rect(0, 0, w, h)
	if orientation >= 5 {
		size = image.Rect(0, 0, h, w)
	}
	out := image.NewRGBA(size)
	for y := range h {
		for x := range w {
			var to image.Point
			switch orientation {
			case 2:
				to = image.Pt(w-1-x, y)
			case 3:
				to = image.Pt(w-1-x, h-1-y)
			case 4:
				to = image.Pt(x, h-1-y)
			case 5:
				to = image.Pt(y, x)
			case 6:
				to = image.Pt(h-1-y, x)
			case 7:
				to = image.Pt(h-1-y, w-1-x)
			case 8:
				to = image.Pt(y, w-1-x)
			}
			copy(out.Pix[to.Y*out.Stride+to.X*4:][:4], m.Pix[y*m.Stride+x*4:][:4])
		}
	}
	return out
}
