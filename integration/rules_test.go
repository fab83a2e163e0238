package integration

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRules: a rule made through one mount is for what is written through another,
// outlives kill -9 of everything, and takes a file away only when its result is
// there; what was refused is told by every mount, then too.
func TestRules(t *testing.T) {
	c := startCluster(t)
	second := c.secondMount()
	a, b := c.mnt, second.dir
	for _, dir := range []string{"in", "out", "seen"} {
		if err := os.Mkdir(filepath.Join(a, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put := func(mnt, name, text string) error {
		t.Helper()
		writeFile(t, filepath.Join(mnt, "rule"), text)
		return os.Rename(filepath.Join(mnt, "rule"), filepath.Join(mnt, ".compute", "rules", name+".yaml"))
	}
	const rule = "version: 1\nmatch: {path: /in}\njob: {kernel: wordcount, output: '/out/{file}'}\nthen: drop\n"
	if err := put(a, "count", rule); err != nil {
		t.Fatal(err, readFile(t, filepath.Join(a, ".compute", "errors", "count")))
	}
	if err := put(a, "wrong", "version: 1\nmatch: {path: /in}\njob: {kernel: nosuch}\n"); err == nil {
		t.Error("a rule with a kernel that is not there is taken")
	}
	os.Remove(filepath.Join(a, "rule"))

	// lands writes a file through one mount, and looks at both.
	lands := func(mnt, name string) {
		t.Helper()
		path := filepath.Join(mnt, "in", name)
		writeFile(t, path, strings.Repeat(name+" ", 3))
		open, err := os.Open(path) // gone under its name, it can still be read
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		eventually(t, patience, func() error {
			for _, m := range []string{a, b} {
				if got, err := os.ReadFile(filepath.Join(m, "out", name)); err != nil || string(got) != "3 "+name+"\n" {
					return fmt.Errorf("on %s the result is %q, %v", m, got, err)
				}
				if _, err := os.Stat(filepath.Join(m, "in", name)); !os.IsNotExist(err) {
					return fmt.Errorf("on %s the source: %v", m, err)
				}
			}
			return nil
		})
		if open != nil {
			if data, err := io.ReadAll(open); err != nil || len(data) != 3*(len(name)+1) {
				t.Errorf("what was open reads %q, %v", data, err)
			}
			open.Close()
		}
	}
	for i, mnt := range []string{a, b, a, b} {
		lands(mnt, fmt.Sprint("file", i))
	}
	if entries, err := os.ReadDir(filepath.Join(b, "in")); err != nil || len(entries) > 0 {
		t.Errorf("left in /in: %v, %v", entries, err)
	}
	text := func(mnt string) string { return readFile(t, filepath.Join(mnt, ".compute", "errors", "wrong")) }
	if text(a) != text(b) || !strings.HasPrefix(text(b), `line 3: there is no kernel "nosuch"`) {
		t.Errorf("errors/wrong: %q, %q", text(a), text(b))
	}

	c.killAll()
	c.start()
	b = c.secondMount().dir
	if !strings.HasPrefix(text(a), `line 3: there is no kernel "nosuch"`) {
		t.Errorf("after a restart errors/wrong is %q", text(a))
	}
	lands(b, "later")
	lands(a, "last")
	// Replaced on one mount, it counts on the other from the next file on.
	if err := put(b, "count", strings.ReplaceAll(strings.ReplaceAll(rule, "/out/", "/seen/"), "then: drop\n", "")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(a, "in", "kept"), "x")
	eventually(t, patience, func() error {
		_, err := os.Stat(filepath.Join(b, "seen", "kept"))
		return err
	})
	if _, err := os.Stat(filepath.Join(b, "in", "kept")); err != nil {
		t.Errorf("a file that is to be kept: %v", err)
	}
	if err := os.Remove(filepath.Join(b, ".compute", "rules", "count.yaml")); err != nil {
		t.Fatal(err)
	}
	jobs := func() int {
		entries, err := os.ReadDir(filepath.Join(a, ".compute", "jobs"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := jobs()
	writeFile(t, filepath.Join(a, "in", "alone"), "x")
	if n := jobs(); n != before {
		t.Errorf("%d jobs after the rule was removed, %d before", n, before)
	}
}
