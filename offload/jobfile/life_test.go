package jobfile

import (
	"reflect"
	"testing"
	"time"
)

func TestLife(t *testing.T) {
	const head = "version: 1\nkernel: k\ninputs: [/a]\n"
	for _, c := range []struct {
		file string
		want Life
	}{
		{"", Life{}},
		{"after: fetch\n", Life{After: []After{{"fetch", "ok", 4}}}},
		{"after: [a, b]\n", Life{After: []After{{"a", "ok", 4}, {"b", "ok", 4}}}},
		{"after:\n  a: any\n  b: failed\n", Life{After: []After{{"a", "any", 5}, {"b", "failed", 6}}}},
		{"array: 7\npriority: -3\n", Life{Array: 7, Priority: -3}},
		{"ttl: never\n", Life{TTL: Forever}},
		{"deadline: 90m\nttl: 7d\n", Life{DeadlineAfter: 90 * time.Minute, TTL: 7 * 24 * time.Hour}},
		{"deadline: 2026-01-31T18:00:00+01:00\n", Life{Deadline: time.Date(2026, 1, 31, 17, 0, 0, 0, time.UTC)}},
		{"memoise: true\n", Life{Memoise: true}},
		{"memoise: false\n", Life{}},
		{"output: /r/{file}\nif_exists: skip\n", Life{IfExists: Skip}},
	} {
		s, err := Parse([]byte(head + c.file))
		if err != nil {
			t.Errorf("%q: %v", c.file, err)
			continue
		}
		if c.want.IfExists == "" {
			c.want.IfExists = Replace
		}
		if !s.Deadline.IsZero() {
			s.Deadline = s.Deadline.UTC()
		}
		if !reflect.DeepEqual(s.Life, c.want) {
			t.Errorf("%q: %+v", c.file, s.Life)
		}
	}
	if _, err := Parse([]byte("version: 1\nkernel: k\narray: 3\n")); err != nil {
		t.Errorf("an array without inputs: %v", err)
	}
	for file, want := range map[string]string{
		"after: {a: yes}\n":                           `line 4: after.a must be ok, failed or any, not "yes"`,
		"after: {a: [ok]}\n":                          `line 4: after.a must be text, not a list`,
		"after: [a, a]\n":                             `line 4: after has "a" twice`,
		"after: a/b\n":                                `line 4: a job in after must be a plain file name, not "a/b"`,
		"after:\n":                                    `line 4: after must be a list of jobs, or a mapping such as {fetch: ok, cleanup: any}, not nothing`,
		"array: 0\n":                                  `line 4: array must be a number from 1 to 100000, not the number 0`,
		"array: 1.5\n":                                `line 4: array must be a number from 1 to 100000, not the number 1.5`,
		"priority: high\n":                            `line 4: priority must be a number from -1000 to 1000, not "high"`,
		"deadline: soon\n":                            `line 4: deadline must be a time such as 2026-01-31T18:00:00Z, or a duration from submission such as 90m, 12h or 7d, not "soon"`,
		"deadline: -3h\n":                             `line 4: deadline must be a time such as 2026-01-31T18:00:00Z, or a duration from submission such as 90m, 12h or 7d, not "-3h"`,
		"ttl: 100000d\n":                              `line 4: ttl must be a duration such as 90m, 12h or 7d, or never, not "100000d"`,
		"ttl: [1h]\n":                                 `line 4: ttl must be a duration such as 90m, 12h or 7d, or never, not a list`,
		"memoise: 1\n":                                `line 4: memoise must be true or false, not the number 1`,
		"if_exists: skip\n":                           `if_exists is for results in a directory of the mount: give "output: /DIRECTORY/NAME"`,
		"output: /r/x\nif_exists: keep\n":             `line 5: if_exists must be replace, fail or skip, not "keep"`,
		"output: /r/{nam}\n":                          `line 4: output has {nam}; did you mean "{name}"?; there are {file} {name} {ext} {dir} {path} {job} {task}`,
		"output: /r/{dir}/\n":                         `line 4: output must end in a file name, such as /r/{dir}/{file}`,
		"output: /r/\n":                               `line 4: output must end in a file name, such as /r/{file}`,
		"output: /r/../x\n":                           `line 4: output must not contain ".."`,
		"output: /r/.part.x\n":                        `line 4: output must not begin with .part., ".part.x" does`,
		"output: /r/{name}\nreduce: {}\n":             `line 4: output names each result for its input, but a reduce step leaves one: use a name without {file} {name} {ext} {dir} {path}`,
		"output: /r/{name}\nsplit: shard\n":           `line 4: output names each result for its input, so each task has to be one file: leave split away`,
		"array: 2\nsplit: lines\n":                    `array and split are both given; each task of an array gets all inputs`,
		"array: 2\noutput: /r/{name}\nretries: 1\n":   `line 5: output names each result for its input, but each task of an array gets all inputs: use {task} instead`,
		"array: 2\ntask_bytes: 1MiB\noutput: /r/{x\n": `array and split are both given; each task of an array gets all inputs`,
	} {
		if _, err := Parse([]byte(head + file)); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", file, err, want)
		}
	}
}

func TestOutputName(t *testing.T) {
	for _, c := range []struct {
		output, input, want, wantOfMany string
	}{
		{"result", "/a/b.txt", "result", "result.00007"},
		{"re{name}", "/a/b.txt", "re{name}", "re{name}.00007"},
		{"/r/result", "/a/b.txt", "result", "result.00007"},
		{"/r/{name}.{ext}", "/a/b.tar.gz", "b.tar.gz", "b.tar.gz"},
		{"/r/{name}.png", "/a/b.tar.jpg", "b.tar.png", "b.tar.png"},
		{"/r/{file}.sum", "/a/.hidden", ".hidden.sum", ".hidden.sum"},
		{"/r/{job}-{task}", "", "j-00007", "j-00007"},
		{"/r/{job}", "", "j", "j.00007"},
		{"/{job}/x", "", "j/x", "j/x.00007"},
		{"/r/{path}", "/tree/a/b.txt", "a/b.txt", "a/b.txt"},
		{"/r/{path}.gz", "/tree/b.txt", "b.txt.gz", "b.txt.gz"},
		{"/r/{dir}/{name}.png", "/tree/a/c/b.jpg", "a/c/b.png", "a/c/b.png"},
		{"/r/{dir}/{name}.png", "/tree/b.jpg", "b.png", "b.png"},
		{"/r/{ext}/{file}", "/tree/b", "b", "b"},
		{"/r/s/{path}", "/glob/x/a/b.txt", "x/a/b.txt", "x/a/b.txt"},
		{"/r/{path}", "/single/x/b.txt", "b.txt", "b.txt"},
		{"/r/{path}", "/marked/x/y/b.txt", "y/b.txt", "y/b.txt"},
		{"/r/{path}", "/more/1/x/b.txt", "x/b.txt", "x/b.txt"},
		{"/r/{path}", "/elsewhere/b.txt", "b.txt", "b.txt"},
	} {
		s, err := Parse([]byte("version: 1\nkernel: k\ninputs: [/tree, '/glob/*/**/*.txt', /single/x/b.txt, /marked/x/./y/b.txt, '/more/[0-9]/./**/*.txt']\noutput: '" + c.output + "'\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.OutputName("j", c.input, 7, false); got != c.want {
			t.Errorf("%s of %s: %s", c.output, c.input, got)
		}
		if got := s.OutputName("j", c.input, 7, true); got != c.wantOfMany {
			t.Errorf("%s of %s, of many: %s", c.output, c.input, got)
		}
	}
}
