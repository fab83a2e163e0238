package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRuleCommands drives quern rule on a tree that looks like a mount: rules are
// ordinary files there.
func TestRuleCommands(t *testing.T) {
	table := mountTable
	t.Cleanup(func() { mountTable = table })
	mountTable = os.DevNull // whatever is mounted where the test runs
	mnt := t.TempDir()
	for name, text := range map[string]string{
		".compute/rules/cameras.yaml":                                   "version: 1\nabout: what the cameras see\nmatch: {path: /camera, except: /camera/test, min_size: 3}\nwhen: close\njob: {kernel: digits}\nthen: {keep_if: {matches: '^7'}}\n",
		".compute/rules/broken.yaml":                                    "version: 1\nmatches: {}\n",
		".compute/rules/.tmp.yaml":                                      "half",
		fmt.Sprint(".compute/users/", os.Geteuid(), "/rules/mine.yaml"): "version: 1\nmatch: {path: /mine}\njob: {kernel: ~/own}\n",
		".compute/queue/x.raw":                                          "12345",
		"camera/a.raw":                                                  "12345",
		"camera/b/c.raw":                                                "12345",
		"camera/.part":                                                  "12345",
		"camera/.tmp/d.raw":                                             "12345",
		"camera/test/e.raw":                                             "12345",
		"camera/small":                                                  "1",
		"other/f.raw":                                                   "12345",
		"new.yaml":                                                      "version: 1\nmatch: {path: ['/**/*.raw', /camera]}\njob: {exec: {argv: [sh]}}\n",
	} {
		p := filepath.Join(mnt, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	quern := func(exit int, args ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if got := run(append([]string{"quern", "rule"}, args...), &stdout, &stderr); got != exit {
			t.Errorf("%v: exit %d: %s%s", args, got, stdout.String(), stderr.String())
		}
		return stdout.String() + stderr.String()
	}
	ls := quern(0, "ls", "--mount", mnt)
	for _, want := range []string{"cameras", "/camera", "close", "digits", `keep_if: {matches: "^7"}`, "what the cameras see", `does not count: line 2: unknown field "matches"`} {
		if !strings.Contains(ls, want) {
			t.Errorf("ls lacks %q:\n%s", want, ls)
		}
	}
	if strings.Contains(ls, "tmp") {
		t.Errorf("ls:\n%s", ls)
	}
	var all []ruleInfo
	if err := json.Unmarshal([]byte(quern(0, "ls", "--json", "--mount", mnt)), &all); err != nil || len(all) != 3 || all[0].Error == "" || all[1].Then == "" || all[2].Name != "~mine" || all[2].Runs != "~/own" {
		t.Errorf("%v %+v", err, all)
	}
	if got := quern(0, "show", "~mine", "--mount", mnt); !strings.Contains(got, "match: {path: /mine}") {
		t.Errorf("show: %s", got)
	}
	if got := quern(1, "show", "~cameras", "--mount", mnt) + quern(1, "show", "mine", "--mount", mnt); strings.Count(got, "there is no rule") != 2 {
		t.Errorf("show: %s", got)
	}
	if got := quern(0, "show", "cameras", "--mount", mnt); !strings.HasPrefix(got, "version: 1\nabout: ") {
		t.Errorf("show: %s", got)
	}
	if got := quern(0, "test", "cameras", "--mount", mnt); got != "/camera/a.raw\t5 B\n/camera/b/c.raw\t5 B\n" {
		t.Errorf("test: %q", got)
	}
	if got := quern(0, "test", "cameras", "/camera/b", "/other", "--mount", mnt); got != "/camera/b/c.raw\t5 B\n" {
		t.Errorf("test: %q", got)
	}
	var found []matchInfo
	if err := json.Unmarshal([]byte(quern(0, "test", filepath.Join(mnt, "new.yaml"), "--json", "--mount", mnt)), &found); err != nil || len(found) != 5 {
		t.Errorf("%v %v", err, found)
	}
	quern(1, "test", "broken", "--mount", mnt)
	quern(1, "show", "nosuch", "--mount", mnt)
	quern(2, "ls")
	quern(2, "rm", "../x", "--mount", mnt)
	quern(1, "ls", "--mount", filepath.Join(mnt, "camera"))
	quern(0, "rm", "cameras", "--mount", mnt)
	quern(1, "rm", "cameras", "--mount", mnt)
}
