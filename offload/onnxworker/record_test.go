package onnxworker

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"image"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quernfs/offload/jobfile"
	"quernfs/offload/kernels"
)

var update = flag.Bool("update", false, "write the files of the test of the bundled kernel classify again")

// array is one in the form of package kernels.
func array(cols int, v ...float32) []byte {
	b := binary.LittleEndian.AppendUint32([]byte("QNA1"), uint32(len(v)/cols))
	b = binary.LittleEndian.AppendUint32(b, uint32(cols))
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

// manifest is what a test says of classify.
func manifest(t testing.TB, text string) *jobfile.Classify {
	t.Helper()
	k, err := jobfile.ParseKernel([]byte("version: 1\nonnx: {classify: " + text + "}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k.ONNX.Classify
}

func TestFrameOf(t *testing.T) {
	for _, c := range []struct {
		dims []int64
		text string
		want frame
		ok   bool
	}{
		{[]int64{3, 224, 200}, "{}", frame{3, 224, 200, false}, true},
		{[]int64{224, 200, 3}, "{}", frame{3, 224, 200, true}, true},
		{[]int64{3, 8, 3}, "{}", frame{3, 8, 3, false}, true},
		{[]int64{3, 8, 3}, "{layout: nhwc}", frame{3, 3, 8, true}, true},
		{[]int64{1, 28, 28}, "{}", frame{1, 28, 28, false}, true},
		{[]int64{28, 20}, "{}", frame{1, 28, 20, false}, true},
		{[]int64{3, -1, -1}, "{shape: [3, 64, 48]}", frame{3, 64, 48, false}, true},
		{[]int64{3, -1, -1}, "{}", frame{}, false},
		{[]int64{64}, "{shape: [8, 8]}", frame{1, 8, 8, false}, true},
		{[]int64{192}, "{shape: [8, 8, 3]}", frame{3, 8, 8, true}, true},
		{[]int64{64}, "{}", frame{}, false},
		{[]int64{4, 8, 8}, "{}", frame{4, 8, 8, false}, false},
	} {
		got, ok := frameOf(c.dims, manifest(t, c.text))
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%v, %s: %+v, %v", c.dims, c.text, got, ok)
		}
	}
}

// TestNumbers: a picture of two pixels, side by side.
func TestNumbers(t *testing.T) {
	m := image.NewRGBA(image.Rect(0, 0, 2, 1))
	m.SetRGBA(0, 0, color.RGBA{255, 0, 51, 255})
	m.SetRGBA(1, 0, color.RGBA{255, 0, 204, 255})
	for name, c := range map[string]struct {
		f           frame
		text        string
		orientation int
		want        []float32
	}{
		"colours first":  {frame{3, 1, 2, false}, "{fit: fill}", 1, []float32{1, 1, 0, 0, .2, .8}},
		"colours last":   {frame{3, 1, 2, true}, "{fit: fill}", 1, []float32{1, 0, .2, 1, 0, .8}},
		"turned":         {frame{3, 1, 2, true}, "{fit: fill}", 3, []float32{1, 0, .8, 1, 0, .2}},
		"turned by 90":   {frame{3, 2, 1, true}, "{fit: fill}", 8, []float32{1, 0, .8, 1, 0, .2}},
		"gray":           {frame{1, 1, 2, false}, "{fit: fill, scale: 1}", 1, []float32{0.299*255 + 0.114*51, 0.299*255 + 0.114*204}},
		"mean and std":   {frame{3, 1, 2, false}, "{fit: fill, mean: [1, 0.5, 0.2], std: [1, 0.5, 2]}", 1, []float32{0, 0, -1, -1, 0, .3}},
		"one mean":       {frame{3, 1, 2, true}, "{fit: fill, mean: 0.5, std: 0.5}", 1, []float32{1, -1, -.6, 1, -1, .6}},
		"cover":          {frame{3, 1, 1, true}, "{}", 1, []float32{1, 0, .2}},
		"contain, white": {frame{1, 3, 2, true}, "{fit: contain, scale: 1}", 1, []float32{255, 255, 0.299*255 + 0.114*51, 0.299*255 + 0.114*204, 255, 255}},
	} {
		got := c.f.numbers(nil, m, c.orientation, manifest(t, c.text))
		if len(got) != len(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
			continue
		}
		for i := range got {
			if d := math.Abs(float64(got[i] - c.want[i])); d > 1e-5*max(1, math.Abs(float64(c.want[i]))) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
				break
			}
		}
	}
}

func TestClasses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, c := range map[string]struct {
		text   string
		scores [][]float32
		want   string
	}{
		"the largest": {"{}", [][]float32{{1, 3, 2}, {5, 5, 0}}, `{"input":"/a","record":0,"class":1,"score":3}` + "\n" + `{"input":"/a","record":1,"class":0,"score":5}` + "\n"},
		"two, labels": {"{top: 2, labels: [a, \"b \\\"c\\\"\", d]}", [][]float32{{1, 3, 2}},
			`{"input":"/a","record":0,"class":1,"label":"b \"c\"","score":3}` + "\n" + `{"input":"/a","record":0,"class":2,"label":"d","score":2}` + "\n"},
		"csv":       {"{as: csv, labels: ['x,y', z]}", [][]float32{{0.25, 0}}, "input,record,class,label,score\n/a,0,0,\"x,y\",0.25\n"},
		"none":      {"{as: csv}", nil, "input,record,class,label,score\n"},
		"softmax":   {"{softmax: true, top: 3}", [][]float32{{1000, 1000}}, `{"input":"/a","record":0,"class":0,"score":0.5}` + "\n" + `{"input":"/a","record":0,"class":1,"score":0.5}` + "\n"},
		"no number": {"{top: 2}", [][]float32{{nan, inf, -5}}, `{"input":"/a","record":0,"class":1,"score":null}` + "\n" + `{"input":"/a","record":0,"class":2,"score":-5}` + "\n"},
	} {
		var b bytes.Buffer
		w := newClasses(manifest(t, c.text), &b)
		for i, s := range c.scores {
			if err := w.write(record{"/a", i}, s); err != nil {
				t.Error(err)
			}
		}
		if err := w.end(); err != nil || b.String() != c.want {
			t.Errorf("%s: %q, %v; want %q", name, b.String(), err, c.want)
		}
	}
	w := newClasses(manifest(t, "{labels: [a]}"), &bytes.Buffer{})
	if err := w.write(record{}, []float32{1, 2}); err == nil || !strings.Contains(err.Error(), "2 scores, and there are 1 labels") {
		t.Errorf("%v", err)
	}
}

func TestEachRow(t *testing.T) {
	two := slices.Concat(array(2, 1, 2, 3, 4), array(3, 5, 6, 7), array(1))
	var got []string
	if err := eachRow(bytes.NewReader(two), func(r []float32) error { got = append(got, fmt.Sprint(r)); return nil }); err != nil || strings.Join(got, "") != "[1 2][3 4][5 6 7]" {
		t.Errorf("%v, %v", got, err)
	}
	for want, in := range map[string]string{
		"it ends before array 0":         "QNA1",
		"array 1 does not begin":         string(array(1, 1)) + strings.Repeat("x", 12),
		"it ends within array 0":         string(array(2, 1, 2))[:16],
		"has 4294967295 columns":         "QNA1\x01\x00\x00\x00\xff\xff\xff\xff",
		"array 0 has 0 columns, of 1 to": "QNA1\xff\xff\xff\xff\x00\x00\x00\x00",
	} {
		if err := eachRow(strings.NewReader(in), func([]float32) error { return nil }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzEachRow(f *testing.F) {
	f.Add(array(2, 1, 2, 3, 4))
	f.Add([]byte("QNA1\x01\x00\x00\x00\xff\xff\xff\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		n := 0
		_ = eachRow(bytes.NewReader(in), func(r []float32) error { n += len(r); return nil })
		if 4*n > len(in) {
			t.Errorf("%d numbers of %d bytes", n, len(in))
		}
	})
}

// TestBundled: the files that `quern kernel test classify` compares with.
func TestBundled(t *testing.T) {
	w := []float32{2, 0, 1.5, 0, 2, 1.5, 3, 0, -1, 0, 3, -1} // 4 numbers to 3 scores
	in := array(4, 9, 1, 0, 0, 1, 9, 0, 0, 5, 5, 0, 0, 0, 0, 2, 1)
	c := manifest(t, "{labels: [left, right, both]}")
	var out bytes.Buffer
	lines := newClasses(c, &out)
	n := 0
	err := eachRow(bytes.NewReader(in), func(r []float32) error {
		scores := make([]float32, 3)
		for i, x := range r {
			for k := range scores {
				scores[k] += x * w[3*i+k]
			}
		}
		for k := range scores {
			scores[k] = max(scores[k], 0)
		}
		n++
		return lines.write(record{"/input", n - 1}, scores)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := lines.end(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string][]byte{"model.onnx": Dense(w, 4, 3), "test.qna": in, "test.jsonl": out.Bytes()} {
		if *update {
			if err := os.WriteFile(filepath.Join("../kernels/bundled/classify", file), want, 0o644); err != nil {
				t.Fatal(err)
			}
		} else if !bytes.Equal(kernels.File("classify", file), want) {
			t.Errorf("bundled/classify/%s is not what it should be: go test ./offload/onnxworker -run TestBundled -update", file)
		}
	}
}
