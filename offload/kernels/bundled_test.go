package kernels

import (
	"bytes"
	"flag"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quernfs/offload/kernels/picture"
	"quernfs/offload/kernels/squeeze"
	"quernfs/offload/kernels/table"
)

var update = flag.Bool("update", false, "write the files of the tests of bundled kernels again")

// photo is a picture that lies on its side, as cameras write them.
func photo(t *testing.T) []byte {
	m := image.NewRGBA(image.Rect(0, 0, 96, 64))
	for y := range 64 {
		for x := range 96 {
			u, v := float64(x)/96, float64(y)/64
			m.Set(x, y, color.RGBA{uint8(255 * u), uint8(255 * v), uint8(127 + 120*math.Sin(9*u)*math.Cos(7*v)), 255})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	exif := "\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
	return bytes.Join([][]byte{b.Bytes()[:2], []byte(exif), b.Bytes()[2:]}, nil)
}

// TestKnownAnswers: the files that `quern kernel test` compares with are what the
// packages give, which their own tests compare with other implementations.
func TestKnownAnswers(t *testing.T) {
	text, err := os.ReadFile("bundled/csv/test.csv")
	if err != nil {
		t.Fatal(err)
	}
	prose := bytes.Repeat(append(text, "the quick brown fox jumps over the lazy dog\n"...), 40)
	squeezed := func(f squeeze.Format, level int) []byte {
		var b bytes.Buffer
		if err := squeeze.Compress(f, level, &b, bytes.NewReader(prose)); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	var answer, small bytes.Buffer
	q, err := table.Parse(table.Params{Where: "price * qty > 1 or note ~ 'broken'", By: "shop", Aggregate: "count, sum(price) as total, mean(qty), min(price), last(note)"})
	if err != nil {
		t.Fatal(err)
	}
	r := q.Start(table.Single, &answer)
	if err := r.File("test.csv", bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if err := r.End(); err != nil {
		t.Fatal(err)
	}
	camera := photo(t)
	if _, err := picture.Resize(&small, camera, picture.Options{Width: 24, Height: 24, Format: picture.PNG}); err != nil {
		t.Fatal(err)
	}
	gz, zst := squeezed(squeeze.Gzip, 9), squeezed(squeeze.Zstd, 19)
	for file, want := range map[string][]byte{
		"csv/test.out.csv": answer.Bytes(),
		"gzip/test.txt":    prose, "gzip/test.txt.gz": gz, "gunzip/test.txt": prose, "gunzip/test.txt.gz": gz,
		"zstd/test.txt": prose, "zstd/test.txt.zst": zst, "unzstd/test.txt": prose, "unzstd/test.txt.zst": zst,
		"resize/test.jpg": camera, "resize/test.png": small.Bytes(),
	} {
		if *update {
			if err := os.WriteFile(filepath.Join("bundled", file), want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		name, base, _ := strings.Cut(file, "/")
		if got := File(name, base); !bytes.Equal(got, want) {
			t.Errorf("bundled/%s is not what it should be; if a library has changed: go test ./offload/kernels -run KnownAnswers -update", file)
		}
	}
}
