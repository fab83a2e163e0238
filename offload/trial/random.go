package trial

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"math/rand/v2"

	"quernfs/offload/kernels/squeeze"
)

// sales is a table of about n bytes.
func sales(rnd *rand.Rand, n int) []byte {
	shops := []string{"north", "south", "\"east, far\"", "west"}
	out := []byte("id,shop,price,qty,note\n")
	for id := 1; len(out) < n; id++ {
		out = fmt.Appendf(out, "%d,%s,%d.%02d,%d,\"lot \"\"%d\"\"\"\n", id, shops[rnd.IntN(len(shops))], rnd.IntN(100), rnd.IntN(100), rnd.IntN(10), rnd.IntN(1000))
	}
	return out
}

// squeezed is data, compressed.
func squeezed(f squeeze.Format, data []byte) (*Input, error) {
	var b bytes.Buffer
	_, _, level := f.Levels()
	err := squeeze.Compress(f, level, &b, bytes.NewReader(data))
	return &Input{Data: b.Bytes(), Want: data}, err
}

// maxPhoto bounds a random picture, in bytes: 12 million pixels, about.
const maxPhoto = 4 << 20

// photo is a picture of about n bytes, with the grain that one of a camera has.
func photo(rnd *rand.Rand, n int) ([]byte, error) {
	side := 16
	for side*side < min(n, maxPhoto)*3 {
		side += 16
	}
	m := image.NewYCbCr(image.Rect(0, 0, side, side), image.YCbCrSubsampleRatio420)
	for i := range m.Y {
		x, y := i%m.YStride, i/m.YStride
		m.Y[i] = uint8(100*x/side + 100*y/side + rnd.IntN(24))
	}
	for i := range m.Cb {
		m.Cb[i], m.Cr[i] = uint8(100+i%m.CStride*50/m.CStride), uint8(100+i/m.CStride*100/side)
	}
	var b bytes.Buffer
	err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 85})
	return b.Bytes(), err
}
