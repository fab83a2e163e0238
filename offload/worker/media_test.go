package worker

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quernfs/offload/kernels"
	"quernfs/offload/kernels/squeeze"
)

// mediaRunner runs the kernels of the second module.
type mediaRunner struct {
	t      *testing.T
	p      *Process
	module string
	digest []byte
}

func newMediaRunner(t *testing.T) *mediaRunner {
	k, ok := kernels.Find("csv", "")
	if !ok {
		t.Fatal("there is no kernel csv")
	}
	wasm, digest, err := k.Module()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "k.wasm")
	if err := os.WriteFile(file, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	return &mediaRunner{t, start(t), file, digest}
}

// run returns what the kernel wrote, and its peak memory. With fails it returns
// what the kernel says instead.
func (k *mediaRunner) run(kernel, phase string, params []string, fails bool, files ...namedFile) (string, int64) {
	k.t.Helper()
	var stdout, stderr bytes.Buffer
	task := &Task{
		Run:    Run{Module: k.module, Digest: k.digest, Memory: 256 << 20, Args: []string{kernel, kernel}, Env: []string{"QUERN_PHASE=" + phase}},
		Stdout: &stdout, Stderr: &stderr,
	}
	for _, p := range params {
		task.Run.Env = append(task.Run.Env, "QUERN_"+p)
	}
	for _, f := range files {
		r := bytes.NewReader(f.data)
		task.Inputs = append(task.Inputs, Input{Path: f.path, Size: int64(len(f.data)),
			ReadAt: func(_ context.Context, p []byte, off int64) (int, error) { return r.ReadAt(p, off) }})
	}
	exit, err := k.p.Run(k.t.Context(), task)
	if err != nil || exit.Trap != "" || (exit.Code != 0) != fails {
		k.t.Fatalf("%s: %+v, %v\n%s", kernel, exit, err, &stderr)
	}
	if fails {
		return stderr.String(), exit.PeakMemory
	}
	return stdout.String(), exit.PeakMemory
}

func TestMediaKernels(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("it compiles 7 MB of WebAssembly")
	}
	k := newMediaRunner(t)
	files := goSources(t)
	t.Run("cat", func(t *testing.T) {
		got, _ := k.run("cat", "single", nil, false, namedFile{"/a", []byte("one ")}, namedFile{"/b", []byte("two")})
		if got != "one two" {
			t.Errorf("%q", got)
		}
	})
	t.Run("compression", func(t *testing.T) { k.compression(t, files) })
	t.Run("csv", func(t *testing.T) { k.csv(t, files) })
	t.Run("resize", k.resize)
}

// compression compresses real text in three parts, puts them together, and
// compares what commands, if they are here, and the kernels make of that.
func (k *mediaRunner) compression(t *testing.T, files []namedFile) {
	var text []byte
	for _, f := range files {
		if len(text) < 1<<20 {
			text = append(text, f.data...)
		}
	}
	var noise []byte
	for i := 0; len(noise) < 1<<20; i++ {
		noise = append(noise, fmt.Sprintf("%x\n", i*i*i*7919)...)
	}
	text = append(text, noise...)
	third := len(text) / 3
	for _, c := range []struct {
		format, back string
		levels       []string
	}{{"gzip", "gunzip", []string{"", "9"}}, {"zstd", "unzstd", []string{"", "19"}}} {
		for _, level := range c.levels {
			var params []string
			if level != "" {
				params = []string{"LEVEL=" + level}
			}
			var parts []namedFile
			for i, data := range [][]byte{text[:third], text[third : 2*third], text[2*third:], nil} {
				out, peak := k.run(c.format, "map", params, false, namedFile{"/t", data})
				parts = append(parts, namedFile{fmt.Sprintf("/.part.%05d", i), []byte(out)})
				if peak > 200<<20 {
					t.Errorf("%s, level %q: %d MiB", c.format, level, peak>>20)
				}
			}
			all, _ := k.run(c.format, "reduce", params, false, parts...)
			if len(all) > len(text)*2/3 {
				t.Errorf("%s, level %q: %d bytes of %d", c.format, level, len(all), len(text))
			}
			back, peak := k.run(c.back, "single", nil, false, namedFile{"/t", []byte(all)})
			if back != string(text) {
				t.Errorf("%s: %d bytes came back of %d", c.back, len(back), len(text))
			}
			t.Logf("%s, level %q: %d bytes become %d, decompressing takes %d MiB", c.format, level, len(text), len(all), peak>>20)
			if _, err := exec.LookPath(c.format); err != nil {
				t.Logf("no command %s to compare with", c.format)
				continue
			}
			cmd := exec.Command(c.format, "-dc")
			cmd.Stdin = strings.NewReader(all)
			if out, err := cmd.Output(); err != nil || string(out) != string(text) {
				t.Errorf("%s -dc: %d bytes of %d, %v", c.format, len(out), len(text), err)
			}
		}
		var packed bytes.Buffer
		if err := squeeze.Compress(squeeze.Format(c.format), 1, &packed, bytes.NewReader(text[:100_000])); err != nil {
			t.Fatal(err)
		}
		for name, in := range map[string][]byte{"is not in the format": text[:100], "ends too early": packed.Bytes()[:packed.Len()/2]} {
			if said, _ := k.run(c.back, "single", nil, true, namedFile{"/t", in}); !strings.Contains(said, name) {
				t.Errorf("%s: %q, want %q", c.back, said, name)
			}
		}
		if said, _ := k.run(c.format, "single", []string{"LEVEL=77"}, true, namedFile{"/t", nil}); !strings.Contains(said, "level of "+c.format) {
			t.Errorf("level 77: %q", said)
		}
	}
}

// csv aggregates a table of the sources' lines, and compares with SQLite.
func (k *mediaRunner) csv(t *testing.T, files []namedFile) {
	var table strings.Builder
	w := csv.NewWriter(&table)
	for _, f := range files {
		for i, line := range strings.Split(string(f.data), "\n") {
			indent := len(line) - len(strings.TrimLeft(line, "\t"))
			if err := w.Write([]string{filepath.Dir(f.path), filepath.Base(f.path), fmt.Sprint(i + 1), fmt.Sprint(indent), fmt.Sprintf("%d.%02d", len(line), i%100), strings.TrimSpace(line)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.Flush()
	const header = "dir,file,line,indent,size,text\n"
	params := []string{"WHERE=indent >= 1 and text ~ '^(return|if) ' and size * 2 < 150", "BY=dir", "AGGREGATE=count, sum(size) as size, max(line), min(indent), count(text) as texts"}
	lines := strings.SplitAfter(table.String(), "\n")
	var parts []namedFile
	for i := range 3 {
		part := strings.Join(lines[i*len(lines)/3:(i+1)*len(lines)/3], "")
		out, _ := k.run("csv", "map", params, false, namedFile{fmt.Sprintf("/t.csv@%015d", i), []byte(header + part)})
		parts = append(parts, namedFile{fmt.Sprintf("/.part.%05d", i), []byte(out)})
	}
	got, _ := k.run("csv", "reduce", params, false, parts...)
	single, _ := k.run("csv", "single", params, false, namedFile{"/t.csv", []byte(header + table.String())})
	if got != single || strings.Count(got, "\n") < 4 {
		t.Fatalf("in parts:\n%s\nin one:\n%s", got, single)
	}
	// Records that are chosen, in parts and at once.
	params = []string{"WHERE=contains(text, ',') and contains(text, '\"')", "SELECT=text, line as n"}
	parts = parts[:0]
	for i := range 3 {
		part := strings.Join(lines[i*len(lines)/3:(i+1)*len(lines)/3], "")
		out, _ := k.run("csv", "map", params, false, namedFile{"/t.csv", []byte(header + part)})
		parts = append(parts, namedFile{fmt.Sprintf("/.part.%05d", i), []byte(out)})
	}
	chosen, _ := k.run("csv", "reduce", params, false, parts...)
	sqlite, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("no sqlite3 to compare with")
	}
	name := filepath.Join(t.TempDir(), "t.csv")
	if err := os.WriteFile(name, []byte(header+table.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	query := func(sql string) [][]string {
		cmd := exec.Command(sqlite, ":memory:")
		cmd.Stdin = strings.NewReader(".import --csv " + name + " t\n.mode csv\n.headers on\n" + sql + ";\n")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return records(t, string(out))
	}
	// As whole hundredths, since SQLite adds floats.
	want := query(`select dir, count(*) as count, sum(cast(round(size * 100) as integer)) as size, max(cast(line as integer)) as "max(line)",
		min(cast(indent as integer)) as "min(indent)", count(text) as texts from t
		where cast(indent as real) >= 1 and (text glob 'return *' or text glob 'if *') and size * 2 < 150 group by dir order by dir`)
	have := records(t, got)
	if len(have) != len(want) {
		t.Fatalf("%v, want %v", have, want)
	}
	for i := range want {
		if i > 0 { // 12.5 becomes 1250
			whole, part, _ := strings.Cut(have[i][2], ".")
			have[i][2] = strings.TrimLeft(whole+(part + "00")[:2], "0")
		}
		if !slices.Equal(have[i], want[i]) {
			t.Errorf("%v, want %v", have[i], want[i])
		}
	}
	wantChosen := query(`select text, line as n from t where instr(text, ',') > 0 and instr(text, '"') > 0 order by rowid`)
	if have := records(t, chosen); len(have) < 50 || fmt.Sprint(have) != fmt.Sprint(wantChosen) {
		t.Errorf("%d records are chosen, want %d", len(have), len(wantChosen))
	}
	if said, _ := k.run("csv", "single", []string{"WHERE=sise > 3"}, true, namedFile{"/t.csv", []byte(header)}); !strings.Contains(said, `/t.csv: there is no column "sise"`) {
		t.Errorf("%q", said)
	}
}

func records(t *testing.T, text string) [][]string {
	t.Helper()
	all, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatalf("%v\n%.500s", err, text)
	}
	return all
}

// resize makes small pictures, one and an archive of them.
func (k *mediaRunner) resize(t *testing.T) {
	var pictures []namedFile
	for i, name := range []string{"/p/a.png", "/p/b.PNG", "/p/c.png", "/p/c.jpg"} {
		m := image.NewRGBA(image.Rect(0, 0, 400+i, 300))
		for p := range m.Pix {
			m.Pix[p] = uint8(60 * i)
			if p%4 == 3 {
				m.Pix[p] = 255
			}
		}
		var b bytes.Buffer
		if err := png.Encode(&b, m); err != nil {
			t.Fatal(err)
		}
		pictures = append(pictures, namedFile{name, b.Bytes()})
	}
	one, _ := k.run("resize", "single", []string{"WIDTH=40"}, false, pictures[1])
	m, format, err := image.Decode(strings.NewReader(one))
	if err != nil || format != "png" || m.Bounds() != image.Rect(0, 0, 40, 30) {
		t.Fatalf("%s, %v", format, err)
	}
	if c := color.RGBAModel.Convert(m.At(9, 9)); c != (color.RGBA{60, 60, 60, 255}) {
		t.Errorf("its colour is %v", c)
	}
	// A photograph of 6 million pixels is read in 64 MiB.
	var photo bytes.Buffer
	if err := jpeg.Encode(&photo, image.NewYCbCr(image.Rect(0, 0, 3000, 2000), image.YCbCrSubsampleRatio420), nil); err != nil {
		t.Fatal(err)
	}
	small, peak := k.run("resize", "single", []string{"WIDTH=300"}, false, namedFile{"/p/photo.jpg", photo.Bytes()})
	if m, format, err := image.Decode(strings.NewReader(small)); err != nil || format != "jpeg" || m.Bounds() != image.Rect(0, 0, 300, 200) || peak > 64<<20 {
		t.Errorf("%s, %v, in %d MiB", format, err, peak>>20)
	}
	params := []string{"WIDTH=40", "HEIGHT=40", "AS=tar", "FORMAT=jpeg", "QUALITY=70", "BROKEN=skip"}
	broken := namedFile{"/p/x.png", []byte("no picture")}
	a, _ := k.run("resize", "map", params, false, append(slices.Clone(pictures[:2]), broken)...)
	b, _ := k.run("resize", "map", params, false, pictures[2:]...)
	all, _ := k.run("resize", "reduce", params, false, namedFile{"/.part.00000", []byte(a)}, namedFile{"/.part.00001", []byte(b)})
	var names []string
	for r := tar.NewReader(strings.NewReader(all)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if m, format, err := image.Decode(r); err != nil || format != "jpeg" || m.Bounds().Dx() != 40 {
			t.Errorf("%s: %s, %v", h.Name, format, err)
		}
	}
	slices.Sort(names)
	if want := []string{"p/a.jpg", "p/b.jpg", "p/c.jpg", "p/c.png.jpg"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
	for want, c := range map[string]struct {
		phase  string
		params []string
		files  []namedFile
	}{
		"/p/x.png: it is neither":     {"single", []string{"WIDTH=40"}, []namedFile{broken}},
		"a width or a height":         {"single", nil, pictures[:1]},
		"{file} each gets":            {"single", []string{"WIDTH=40"}, pictures},
		"leave reduce out":            {"map", []string{"WIDTH=40"}, pictures},
		"the param as must be":        {"single", []string{"WIDTH=40", "AS=zip"}, pictures[:1]},
		"the param WIDTH must be a w": {"single", []string{"WIDTH=4O"}, pictures[:1]},
	} {
		if said, _ := k.run("resize", c.phase, c.params, true, c.files...); !strings.Contains(said, want) {
			t.Errorf("%q, want %q", said, want)
		}
	}
}
