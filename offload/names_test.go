package offload

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"slices"
	"strings"
	"testing"
)

// TestSumsOfOddNames: sha256sum escapes names as the command of coreutils 9 does, so
// that it can check what the kernel has written.
func TestSumsOfOddNames(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	lines := []string{}
	for name, escaped := range map[string]string{
		"plain": "", "tab\tand é": "", "quote\"": "",
		`back\slash`: `back\\slash`, "new\nline": `new\nline`, "carriage\rreturn": `carriage\rreturn`, "all\\\n\r": `all\\\n\r`,
	} {
		r.write("/in/"+name, name)
		mark := `\`
		if escaped == "" {
			mark, escaped = "", name
		}
		lines = append(lines, fmt.Sprintf("%s%x  /in/%s\n", mark, sha256.Sum256([]byte(name)), escaped))
	}
	id := r.submit("sums", "version: 1\nkernel: sha256sum\ninputs: /in\nsplit: none\n")
	if r.wait(id); r.state(id) != "succeeded: all tasks done" {
		t.Fatal(r.state(id))
	}
	got := strings.SplitAfter(r.outputs(id)["output"], "\n")
	slices.Sort(got)
	slices.Sort(lines)
	if got = got[1:]; !slices.Equal(got, lines) { // the first is what follows the last line
		t.Errorf("%q\nwant: %q", got, lines)
	}
}

// TestPicturesOfOneName: pictures that another format gives one name have names of
// their own in an archive, within a task and where archives are put together.
func TestPicturesOfOneName(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("it compiles 7 MB of WebAssembly")
	}
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	m := image.NewGray(image.Rect(0, 0, 8, 8))
	var asJPEG, asPNG bytes.Buffer
	if err := jpeg.Encode(&asJPEG, m, nil); err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(&asPNG, m); err != nil {
		t.Fatal(err)
	}
	r.write("/in/a.jpg", asJPEG.String())
	r.write("/in/a.png", asPNG.String())
	const spec = "version: 1\nkernel: resize\nparams: {width: 4, format: png, as: tar}\ninputs: /in\n"
	for name, more := range map[string]string{"one task": "split: none\n", "two tasks": "split: file\nreduce: {}\n"} {
		id := r.submit(name, spec+more)
		if r.wait(id); r.state(id) != "succeeded: all tasks done" {
			t.Fatal(r.state(id))
		}
		var names []string
		for archive := tar.NewReader(strings.NewReader(r.outputs(id)["output"])); ; {
			h, err := archive.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, h.Name)
		}
		if !slices.Equal(names, []string{"in/a.png", "in/a-2.png"}) {
			t.Errorf("%s: %q", name, names)
		}
	}
}
