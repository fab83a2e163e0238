package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"

	"quernfs/offload/kernels"
)

// kernelRunner runs the bundled kernels over files.
type kernelRunner struct {
	t      *testing.T
	p      *Process
	module string
	digest []byte
}

func newKernelRunner(t *testing.T) *kernelRunner {
	wasm, digest, err := kernels.Module()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "k.wasm")
	if err := os.WriteFile(file, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	return &kernelRunner{t, start(t), file, digest}
}

type namedFile struct {
	path string
	data []byte
}

func (k *kernelRunner) run(kernel, phase string, args []string, files []namedFile) string {
	k.t.Helper()
	found, ok := kernels.Find(kernel, "")
	if !ok {
		k.t.Fatalf("no kernel %s", kernel)
	}
	var stdout, stderr bytes.Buffer
	task := &Task{
		Run: Run{
			Module: k.module, Digest: k.digest, Memory: 256 << 20, Env: []string{"QUERN_PHASE=" + phase},
			Args: append(append([]string{kernel}, found.Args...), args...),
		},
		Stdout: &stdout, Stderr: &stderr,
	}
	for _, f := range files {
		r := bytes.NewReader(f.data)
		task.Inputs = append(task.Inputs, Input{Path: f.path, Size: int64(len(f.data)),
			ReadAt: func(_ context.Context, p []byte, off int64) (int, error) { return r.ReadAt(p, off) }})
	}
	exit, err := k.p.Run(k.t.Context(), task)
	if err != nil || exit.Code != 0 {
		k.t.Fatalf("%s: %+v, %v\n%s", kernel, exit, err, &stderr)
	}
	return stdout.String()
}

// goSources are real text: some of the Go toolchain's own.
func goSources(t *testing.T) []namedFile {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("no Go toolchain to take text from: ", err)
	}
	src := filepath.Join(strings.TrimSpace(string(root)), "src")
	var out []namedFile
	for _, dir := range []string{"fmt", "strings", "go/ast", "net/http", "unicode"} {
		err := filepath.WalkDir(filepath.Join(src, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			out = append(out, namedFile{"/src" + strings.TrimPrefix(path, src), data})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].path < out[j].path })
	return out
}

// identifiers are what wordcount takes for words if asked for identifiers: bytes
// beyond ASCII count as letters, so the text is read as Latin-1.
func identifiers(text []byte) (out []string) {
	latin := make([]rune, len(text))
	for i, c := range text {
		latin[i] = rune(c)
	}
	for _, w := range regexp.MustCompile(`[0-9A-Za-z_\x{80}-\x{ff}]+`).FindAllString(string(latin), -1) {
		if w[0] >= '0' && w[0] <= '9' {
			continue
		}
		raw := make([]byte, 0, len(w))
		for _, r := range w {
			raw = append(raw, byte(r))
		}
		out = append(out, string(raw))
	}
	return out
}

// spaced are the words between ASCII's white space.
func spaced(text []byte) []string {
	return strings.FieldsFunc(strings.ToValidUTF8(string(text), "?"), func(r rune) bool { return strings.ContainsRune(" \t\n\v\f\r", r) })
}

// countWords is the reference of the kernel wordcount.
func countWords(files []namedFile, split func([]byte) []string, top int) string {
	counts := map[string]int{}
	for _, f := range files {
		for _, w := range split(f.data) {
			counts[w]++
		}
	}
	var words []string
	for w := range counts {
		words = append(words, w)
	}
	sort.Slice(words, func(i, j int) bool {
		if a, b := counts[words[i]], counts[words[j]]; a != b {
			return a > b
		}
		return words[i] < words[j]
	})
	var out strings.Builder
	for _, w := range words[:min(top, len(words))] {
		fmt.Fprintf(&out, "%d %s\n", counts[w], w)
	}
	return out.String()
}

func TestBundledKernels(t *testing.T) {
	k := newKernelRunner(t)
	files := goSources(t)

	t.Run("wordcount", func(t *testing.T) {
		third := len(files) / 3
		for _, c := range []struct {
			words string
			split func([]byte) []string
		}{{"space", spaced}, {"identifiers", identifiers}} {
			parts := []namedFile{
				{"/.part.00000", []byte(k.run("wordcount", "map", []string{"--top", "3", "--words", c.words}, files[:third]))},
				{"/.part.00001", []byte(k.run("wordcount", "map", []string{"--words=" + c.words}, files[third:]))},
			}
			want := countWords(files, c.split, 500)
			if got := k.run("wordcount", "reduce", []string{"--top=500"}, parts); got != want {
				t.Errorf("%s: map and reduce differ from the reference:\n%s\nwant\n%s", c.words, firstLines(got), firstLines(want))
			}
			if got := k.run("wordcount", "single", []string{"--top", "500", "--words", c.words}, files); got != want {
				t.Errorf("%s: one step differs from the reference:\n%s\nwant\n%s", c.words, firstLines(got), firstLines(want))
			}
			t.Logf("of %d files:\n%s", len(files), firstLines(want))
		}
	})
	t.Run("sha256sum", func(t *testing.T) {
		var want strings.Builder
		for _, f := range files {
			sum := sha256.Sum256(f.data)
			want.WriteString(hex.EncodeToString(sum[:]) + "  " + f.path + "\n")
		}
		if got := k.run("sha256sum", "single", nil, files); sorted(got) != sorted(want.String()) {
			t.Errorf("got\n%s\nwant\n%s", firstLines(got), firstLines(want.String()))
		}
	})
	t.Run("grep", func(t *testing.T) {
		const pattern = `func \(.*Reader\) Read`
		re := regexp.MustCompile(pattern)
		var want strings.Builder
		for _, f := range files {
			for i, line := range strings.Split(string(f.data), "\n") {
				if re.MatchString(line) {
					fmt.Fprintf(&want, "%s:%d:%s\n", f.path, i+1, line)
				}
			}
		}
		if got := k.run("grep", "single", []string{pattern}, files); got == "" || sorted(got) != sorted(want.String()) {
			t.Errorf("got\n%s\nwant\n%s", firstLines(got), firstLines(want.String()))
		}
	})
	t.Run("histogram", func(t *testing.T) {
		var counts [256]int
		for _, f := range files {
			for _, c := range f.data {
				counts[c]++
			}
		}
		var want strings.Builder
		for b, n := range counts {
			fmt.Fprintf(&want, "%d %d\n", b, n)
		}
		if got := k.run("histogram", "single", nil, files); got != want.String() {
			t.Errorf("got\n%s\nwant\n%s", firstLines(got), firstLines(want.String()))
		}
		half := len(files) / 2
		parts := []namedFile{
			{"/a", []byte(k.run("histogram", "map", nil, files[:half]))},
			{"/b", []byte(k.run("histogram", "map", nil, files[half:]))},
		}
		if got := k.run("histogram", "reduce", nil, parts); got != want.String() {
			t.Errorf("reduce: got\n%s\nwant\n%s", firstLines(got), firstLines(want.String()))
		}
	})
}

func firstLines(s string) string {
	lines := strings.SplitAfterN(s, "\n", 9)
	return strings.Join(lines[:min(8, len(lines))], "")
}

// sorted orders lines: a walk visits /src/a/b before /src/a.go or after it,
// as its library likes.
func sorted(s string) string {
	lines := strings.Split(s, "\n")
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// TestLongListing: a directory whose listing takes several calls.
func TestLongListing(t *testing.T) {
	k := newKernelRunner(t)
	var files []namedFile
	var want strings.Builder
	for i := range 2000 {
		f := namedFile{fmt.Sprintf("/in some directory/%s-%04d", strings.Repeat("x", i%60), i), []byte{byte(i)}}
		files = append(files, f)
	}
	sort.Slice(files, func(i, j int) bool { return files[i].path < files[j].path })
	for _, f := range files {
		fmt.Fprintf(&want, "%x  %s\n", sha256.Sum256(f.data), f.path)
	}
	if got := k.run("sha256sum", "single", nil, files); got != want.String() {
		t.Errorf("%d bytes, not %d", len(got), want.Len())
	}
}
