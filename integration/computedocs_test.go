package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// docBlock is an indented block of a page.
type docBlock struct {
	line    int
	text    string
	output  bool   // what the block before prints
	section string // the heading above
}

// docBlocks are the indented blocks of a page, in order. One after a paragraph
// that ends in "prints" is what the commands before it print at their end.
func docBlocks(page string) (out []docBlock) {
	var b *docBlock
	before, section := "", ""
	fenced := false // between two lines of ```
	for i, line := range strings.Split(page, "\n") {
		text, indented := strings.CutPrefix(line, "    ")
		if strings.HasPrefix(line, "```") {
			fenced, b = !fenced, nil
			continue
		}
		if fenced {
			continue
		}
		switch {
		case indented && b == nil:
			out = append(out, docBlock{line: i + 1, output: strings.HasSuffix(before, "prints"), section: section})
			b = &out[len(out)-1]
			fallthrough
		case indented:
			b.text += text + "\n"
		case strings.TrimSpace(line) == "" && b != nil:
			b.text += "\n"
		case strings.TrimSpace(line) != "":
			b, before = nil, line
			if heading, ok := strings.CutPrefix(line, "## "); ok {
				section = heading
			}
		}
	}
	for i := range out {
		out[i].text = strings.TrimRight(out[i].text, "\n") + "\n"
	}
	return out
}

// TestComputeDocs replays docs/compute.md: its commands work when pasted, and
// print what the page says.
func TestComputeDocs(t *testing.T) {
	needTool(t, "setfattr", "getfattr", "go")
	page := readFile(t, filepath.Join("..", "docs", "compute.md"))
	blocks := docBlocks(page)
	if len(blocks) < 10 {
		t.Fatalf("%d blocks", len(blocks))
	}
	c := startCluster(t, "--exec-allow", "python3")
	without := noSandbox(t)
	if _, err := os.Stat("/usr/bin/python3"); without == "" && err != nil {
		without = err.Error()
	}
	if without != "" {
		t.Logf("the section on programs is left out: %s", without)
	}
	dir := workDir(t)
	env := append([]string{"MNT=" + c.mnt, "GOFLAGS=", "GOWORK=off"}, os.Environ()...)
	env = append(env, "PATH="+filepath.Dir(quern)+":"+os.Getenv("PATH"))
	last := ""
	for _, b := range blocks {
		if without != "" && b.section == "Programs of the host" {
			continue
		}
		if b.output {
			if !strings.HasSuffix(last, b.text) {
				t.Errorf("docs/compute.md:%d: the commands before print\n%s\nand not\n%s", b.line, last, b.text)
			}
			continue
		}
		fails := strings.Contains(b.text, "# Invalid argument")
		line := b.text
		if fails {
			line = "set +e\n" + line
		}
		out, err := tryShell(dir, line, env...)
		if err != nil {
			t.Fatalf("docs/compute.md:%d: %v\n%s\n%s", b.line, err, b.text, out)
		}
		if fails && !strings.Contains(out, "did you mean") {
			t.Errorf("docs/compute.md:%d: the refusal has no reason:\n%s", b.line, out)
		}
		last = out
	}
}
