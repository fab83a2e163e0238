package onnxworker

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quernfs/offload/jobfile"
	"quernfs/offload/trial"
	"quernfs/offload/worker"
)

// shades is a JPEG picture, dark on the left and light on the right.
func shades(t *testing.T, w, h int) []byte {
	t.Helper()
	m := image.NewGray(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.SetGray(x, y, color.Gray{uint8(255 * x / w)})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// leftRight adds up the first and the last two of 4 numbers.
var leftRight = []float32{1, 0, 1, 0, 0, 1, 0, 1}

// TestClassify has models look at files of every kind.
func TestClassify(t *testing.T) {
	h := bench(t)
	many := func(n int) (rows []float32) {
		for i := range n {
			rows = append(rows, float32(i%2), 0, 0, 0.5)
		}
		return rows
	}
	type file struct {
		name string
		data []byte
	}
	photo := file{"/p/photo.jpg", shades(t, 300, 200)}
	rows := file{"/p/rows.qna", array(4, many(5)...)}
	lines := func(format string, n int, from string) (out string) {
		for i := range n {
			class, score := 1, 0.5
			if i%2 == 1 {
				class, score = 0, 1.0
			}
			out += fmt.Sprintf(format, from, i, class, score)
		}
		return out
	}
	const jsonl = `{"input":"%s","record":%d,"class":%d,"score":%g}` + "\n"
	for name, c := range map[string]struct {
		dims  []int64
		text  string // of classify
		batch string
		files []file
		want  string // of an error: what it must say, after "error: "
	}{
		"rows":                    {[]int64{0, 4}, "{}", "", []file{rows}, lines(jsonl, 5, "/p/rows.qna")},
		"rows, two at once":       {[]int64{0, 4}, "{}", "batch: 2, ", []file{rows, {"/q.qna", array(4, many(4)...)}}, lines(jsonl, 5, "/p/rows.qna") + lines(jsonl, 4, "/q.qna")},
		"rows, three and no less": {[]int64{3, 4}, "{}", "", []file{rows}, lines(jsonl, 5, "/p/rows.qna")},
		"csv":                     {[]int64{0, 4}, "{as: csv, labels: [left, right]}", "", []file{{"/r", array(4, 0, 0, 1, 0)}}, "input,record,class,label,score\n/r,0,1,right,1\n"},
		"picture":                 {[]int64{0, 1, 1, 4}, "{fit: fill, scale: 0.01, top: 1}", "", []file{photo}, `{"input":"/p/photo.jpg","record":0,"class":1,"score":3.8`},
		"picture for 4 numbers":   {[]int64{0, 4}, "{shape: [1, 4], fit: fill, labels: [left, right]}", "", []file{photo, rows}, `{"input":"/p/photo.jpg","record":0,"class":1,"label":"right","score":1.49`},
		"skip":                    {[]int64{0, 4}, "{broken: skip}", "", []file{{"/a.txt", []byte("text")}, {"/b.qna", rows.data[:30]}, {"/c.qna", array(3, 1, 2, 3)}, rows}, lines(jsonl, 1, "/b.qna") + lines(jsonl, 5, "/p/rows.qna")},
		"nothing":                 {[]int64{0, 4}, "{}", "", nil, ""},
		"text":                    {[]int64{0, 4}, "{}", "", []file{{"/a.txt", []byte("text")}}, "error: /a.txt: it is neither"},
		"another size":            {[]int64{0, 4}, "{}", "", []file{{"/c.qna", array(3, 1, 2, 3)}}, "error: /c.qna: it has records of 3 numbers, and model.onnx takes records of the dimensions [4]"},
		"no frame":                {[]int64{0, 4}, "{broken: skip}", "", []file{photo}, "error: what a picture is of these has to be said, in the param shape"},
		"labels":                  {[]int64{0, 4}, "{labels: [a], broken: skip}", "", []file{rows}, "error: it gives 2 scores, and there are 1 labels"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, data := range map[string][]byte{
				"model.onnx": layer(leftRight, c.dims, 2), "kernel.yaml": []byte("version: 1\nonnx: {" + c.batch + "classify: " + c.text + "}\n"),
			} {
				if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b, err := trial.FromDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			p, err := worker.Start(t.Context(), worker.Config{Command: append(h.Command, "onnx", "--device", "cpu"), Env: h.Env})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			_, digest, err := b.File("model.onnx")
			if err != nil {
				t.Fatal(err)
			}
			task := trial.Task(b, jobfile.RuntimeONNX, filepath.Join(dir, "model.onnx"), digest, &trial.Input{})
			task.Inputs = nil
			for _, f := range c.files {
				r := bytes.NewReader(f.data)
				task.Inputs = append(task.Inputs, worker.Input{Path: f.name, Size: int64(len(f.data)),
					ReadAt: func(_ context.Context, p []byte, off int64) (int, error) { return r.ReadAt(p, off) }})
			}
			got, _, err := trial.RunOn(t.Context(), p, task)
			want, fails := strings.CutPrefix(c.want, "error: ")
			switch {
			case fails && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%v, want %q", err, want)
			case !fails && err != nil:
				t.Error(err)
			case !fails && (!strings.HasPrefix(string(got), want) || strings.HasSuffix(want, "\n") && string(got) != want || want == "" && len(got) > 0):
				t.Errorf("%s\nwant\n%s", got, want)
			}
		})
	}
	t.Run("the bundled one", func(t *testing.T) {
		b, err := trial.Bundled("classify")
		if err != nil {
			t.Fatal(err)
		}
		in, err := b.Sample(0, 1)
		if err != nil {
			t.Fatal(err)
		}
		have, absent := h.Variants(t.Context(), b)
		if len(have) != 1 {
			t.Fatal(have, absent)
		}
		for _, o := range h.Test(t.Context(), b, in, have) {
			if o.Err != nil {
				t.Errorf("%s: %v", o.Label(), o.Err)
			}
		}
	})
}
