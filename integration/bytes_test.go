package integration

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Names as old archives have them: Latin-1, and Shift-JIS with a brace as second
// byte of a character.
const (
	latin  = "caf\xe9.txt"
	sjis   = "\x93\xfa\x96{"
	broken = "\xff\xfe"
)

// oldTar is an archive with such names.
func oldTar(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Name: "old/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "old/" + sjis + "/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "old/" + latin, Typeflag: tar.TypeReg, Mode: 0o644, Size: 4},
		{Name: "old/" + sjis + "/" + broken, Typeflag: tar.TypeReg, Mode: 0o644, Size: 4},
		{Name: "old/link\xe9", Typeflag: tar.TypeSymlink, Linkname: sjis + "/" + broken},
		{Name: "old/hard\xe9", Typeflag: tar.TypeLink, Linkname: "old/" + latin},
	} {
		h.Format = tar.FormatGNU
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("a b\n")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestNamesAreBytes: whatever bytes a name has, it is kept by every part: the
// namespace, links, attributes, jobs over it and what they write, and what is said
// of it.
func TestNamesAreBytes(t *testing.T) {
	needTool(t, "tar", "setfattr", "getfattr")
	for _, mode := range []string{"one process", "processes"} {
		t.Run(mode, func(t *testing.T) {
			args := []string{"--chunk-servers", "3", "--policy", "2+1"}
			if mode == "processes" {
				args = append(args, "--processes", "--agents", "3", "--meta-servers", "1")
			}
			c := startCluster(t, args...)
			archive := filepath.Join(filepath.Dir(c.mnt), "old.tar")
			if err := os.WriteFile(archive, oldTar(t), 0o644); err != nil {
				t.Fatal(err)
			}
			shell(t, c.mnt, "tar -xf "+archive)
			other := c.secondMount().dir
			for _, mnt := range []string{c.mnt, other} {
				old := filepath.Join(mnt, "old")
				if got := names(t, old); got != "caf\xe9.txt|hard\xe9|link\xe9|"+sjis {
					t.Errorf("%s: %q", mnt, got)
				}
				if to, err := os.Readlink(filepath.Join(old, "link\xe9")); err != nil || to != sjis+"/"+broken {
					t.Errorf("the link is to %q %v", to, err)
				}
				for _, name := range []string{latin, "hard\xe9", "link\xe9", sjis + "/" + broken} {
					if got := readFile(t, filepath.Join(old, name)); got != "a b\n" {
						t.Errorf("%q: %q", name, got)
					}
				}
			}
			at := filepath.Join(c.mnt, "old", latin)
			if err := unix.Setxattr(at, "user.\xe9\xff", []byte("v"), 0); err != nil {
				t.Fatal(err)
			}
			list := make([]byte, 256)
			n, err := unix.Listxattr(filepath.Join(other, "old", latin), list)
			if err != nil || string(list[:n]) != "user.\xe9\xff\x00" {
				t.Errorf("attributes: %q %v", list[:max(n, 0)], err)
			}
			if err := os.Rename(at, at+"\xe8"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(at+"\xe8", at); err != nil {
				t.Fatal(err)
			}

			if err := os.Mkdir(filepath.Join(c.mnt, "words"), 0o755); err != nil {
				t.Fatal(err)
			}
			// A job over them, one output for each, with patterns of bytes and of escapes.
			job := "version: 1\nkernel: wordcount\nsplit: file\noutput: /words/{name}.n\ninputs: ['/old/caf?.txt', \"/old/*/\\udcff*\"]\n"
			if got := runJob(t, c, "j\xe9", job); !strings.HasPrefix(got, "succeeded") {
				t.Fatalf("%q", got)
			}
			if got := names(t, filepath.Join(c.mnt, "words")); got != "caf\xe9.n|"+broken+".n" {
				t.Errorf("the results are %q", got)
			}
			if got := names(t, filepath.Join(c.mnt, ".compute/by-name")); got != "j\xe9" {
				t.Errorf("by-name lists %q", got)
			}
			out := mustQuern(t, "job", "ls", "--json", "--data", c.data)
			if !json.Valid([]byte(out)) || !strings.Contains(out, `"name": "j\udce9"`) {
				t.Errorf("job ls --json: %s", out)
			}

			// By an attribute, and what is refused.
			if err := unix.Setxattr(filepath.Join(other, "old", sjis), "user.compute.run", []byte("wordcount"), 0); err != nil {
				t.Errorf("run: %v", err)
			}
			bad := filepath.Join(c.mnt, ".bad\xe9.yaml")
			writeFile(t, bad, "version: 1\nkernel: wordcount\ninputs: [/none\xe9]\n")
			if err := os.Rename(bad, filepath.Join(c.mnt, ".compute/queue/bad\xe9.yaml")); err == nil {
				t.Error("a job over nothing is taken")
			}
			if got := names(t, filepath.Join(c.mnt, ".compute/errors")); got != "bad\xe9" {
				t.Errorf("errors lists %q", got)
			}
			if got := readFile(t, filepath.Join(c.mnt, ".compute/errors/bad\xe9")); !strings.Contains(got, "/none\xe9") {
				t.Errorf("the error: %q", got)
			}
		})
	}
}

// names lists a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, "|")
}

// TestProgramOverBytes: a program of the host gets such names in its arguments.
func TestProgramOverBytes(t *testing.T) {
	needSandbox(t)
	c := startCluster(t, "--chunk-servers", "3", "--policy", "2+1", "--exec-allow", "cat")
	for _, dir := range []string{sjis, broken} {
		if err := os.Mkdir(filepath.Join(c.mnt, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(c.mnt, sjis, latin), "bytes\n")
	job := "version: 1\nexec: {argv: [cat, '{inputs}']}\noutput: /" + broken + "/{name}\ninputs: ['/\x93\xfa\x96{']\n"
	if got := runJob(t, c, "cat", job); !strings.HasPrefix(got, "succeeded") {
		t.Fatalf("%q %q", got, readFile(t, filepath.Join(c.mnt, ".compute/by-name/cat/tasks/0/stderr")))
	}
	if got := names(t, filepath.Join(c.mnt, broken)); got != "caf\xe9" {
		t.Fatalf("the results are %q", got)
	}
	if got := readFile(t, filepath.Join(c.mnt, broken, "caf\xe9")); got != "bytes\n" {
		t.Errorf("%q", got)
	}
}
