package jobfile

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

const goodRule = `version: 1
about: what the cameras see
match:
  path: [/camera, '/drone/**/*.raw']
  except: /camera/test
  min_size: 1KiB
  max_size: 1GiB
when: [close]
job:
  kernel: digits
  output: /seen/{name}.labels
  after: {calibrate: ok}
then: {keep_if: {matches: '^\d+ 7 '}}
`

func TestParseRule(t *testing.T) {
	r, err := ParseRule([]byte(goodRule))
	if err != nil {
		t.Fatal(err)
	}
	if r.About != "what the cameras see" || !reflect.DeepEqual(r.Match, []Input{{Pattern: "/camera", Line: 4}, {Pattern: "/drone/**/*.raw", Line: 4}}) || !reflect.DeepEqual(r.Except, []Input{{Pattern: "/camera/test", Line: 5}}) ||
		r.MinSize != 1<<10 || r.MaxSize != 1<<30 || !r.Close || r.Rename || r.Then != (Then{NotFound, `^\d+ 7 `}) || r.Job.Map.Kernel != "digits" || r.Job.OutputLine != 11 {
		t.Errorf("%+v", r)
	}
	for _, c := range []struct {
		path string
		size int64
		want bool
	}{
		{"/camera/a", 5 << 10, true},
		{"/camera/x/y/a", 5 << 10, true},
		{"/camera", 5 << 10, true}, // a file of that name
		{"/camera2", 5 << 10, false},
		{"/camera/a", 1023, false},
		{"/camera/a", 1 << 30, true},
		{"/camera/a", 1<<30 + 1, false},
		{"/camera/test/a", 5 << 10, false},
		{"/camera/.tmp/a", 5 << 10, false},
		{"/camera/x/.a", 5 << 10, false},
		{"/drone/1/b.raw", 5 << 10, true},
		{"/drone/b.txt", 5 << 10, false},
	} {
		if got := r.Applies(c.path, c.size); got != c.want {
			t.Errorf("%s of %d: %v", c.path, c.size, got)
		}
	}
	// The job file of a rule is one that Parse takes, about this file alone.
	for _, p := range []string{"/camera/a.raw", "/camera/odd [1]* \\ \"x\": y", "/camera/über"} {
		for _, after := range [][]string{nil, {"one", "calibrate", "t: w"}} {
			text, err := r.JobFile(p, "h", after...)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Parse(text)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			names := map[string]string{}
			for _, a := range s.After {
				names[a.Name] = a.When
			}
			want := map[string]string{"calibrate": "ok"}
			if after != nil {
				want["one"], want["t: w"] = "any", "any"
			}
			if len(s.Inputs) != 1 || !Match(s.Inputs[0].Pattern, p) || Match(s.Inputs[0].Pattern, p+"x") || !maps.Equal(names, want) || s.Output != r.Job.Output {
				t.Errorf("%s: %+v", p, s)
			}
		}
	}
}

// TestRuleHere: the job of a rule can be bound to the host that the file came
// through, beside what its placement says.
func TestRuleHere(t *testing.T) {
	for _, c := range []struct {
		placement, allows, refuses string
	}{
		{"", "cam1", "cam2"},
		{"placement: {locality: any, zones: edge}", "cam1", "cam2"},
		{"placement: {hosts: cam*}", "cam1", "cam2"},
		{"placement: {hosts: 'cam2 or cam1'}", "cam1", "cam2"},
		{"placement: {hosts: [cam2, cam1]}", "cam1", "cam2"},
		{"placement: {hosts: cam2}", "", "cam1"},
	} {
		r, err := ParseRule([]byte("version: 1\nwhere: here\nmatch: {path: /a}\njob:\n  kernel: k\n  " + c.placement + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := r.JobFile("/a", "cam1")
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		host := func(name string) Host {
			return Host{Names: []string{name}, Labels: map[string]string{"host": name, "zone": "edge"}}
		}
		if c.allows != "" && !s.Allows(host(c.allows)) || s.Allows(host(c.refuses)) {
			t.Errorf("%s:\n%s", c.placement, text)
		}
		if _, err := r.JobFile("/a", ""); err == nil {
			t.Error("a host without a name")
		}
	}
}

// TestRuleTree: {path} and {dir} of a rule begin where the tree begins that it looks
// at.
func TestRuleTree(t *testing.T) {
	r, err := ParseRule([]byte("version: 1\nmatch: {path: ['/in', '/raw/*/**/*.raw']}\njob: {kernel: k, output: '/out/{path}'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{
		"/in/a": "a", "/in/x/[1]/a*": "x/[1]/a*", "/raw/cam/x/a.raw": "cam/x/a.raw",
	} {
		text, err := r.JobFile(p, "h")
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(text)
		if err != nil || !Match(s.Inputs[0].Pattern, p) {
			t.Fatalf("%v\n%s", err, text)
		}
		if got := s.OutputName("j", p, 0, false); got != want {
			t.Errorf("%s: %s, not %s", p, got, want)
		}
	}
}

func TestThen(t *testing.T) {
	for text, want := range map[string]Then{
		"keep":                       {Drop: Never},
		"drop":                       {Drop: Always},
		"{drop_if: empty}":           {Drop: Empty},
		"{drop_if: nonempty}":        {Drop: NotEmpty},
		"{keep_if: empty}":           {Drop: NotEmpty},
		"{keep_if: nonempty}":        {Drop: Empty},
		"{drop_if: {matches: a.c}}":  {Found, "a.c"},
		"{keep_if: {matches: 'a$'}}": {NotFound, "a$"},
	} {
		r, err := ParseRule([]byte("version: 1\nmatch: {path: /a}\njob: {kernel: grep}\nthen: " + text + "\n"))
		if err != nil || r.Then != want || !r.Close || !r.Rename {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
	}
}

func TestParseRuleRefuses(t *testing.T) {
	const job = "job: {kernel: k}\n"
	const head = "version: 1\nmatch: {path: /a}\n" + job
	const thenMust = `then must be keep, drop, or a mapping such as {keep_if: nonempty} or {drop_if: {matches: PATTERN}}, not `
	for text, want := range map[string]string{
		"":                               `a rule is empty`,
		"- a\n":                          `line 1: a rule is a list of fields such as "kernel: wordcount", not a list`,
		"match: {path: /a}\n" + job:      `line 1: a rule begins with "version: 1"`,
		"version: 2\n":                   `line 1: version must be 1, not the number 2`,
		"version: 1\n" + job:             `the rule matches nothing: give "match: {path: /DIRECTORY}"`,
		"version: 1\nmatch: /a\n":        `line 2: match must be a mapping such as {path: /camera/**}, not "/a"`,
		"version: 1\nmatch: {}\n":        `line 2: match has no path: give "path: /DIRECTORY" or a pattern`,
		"version: 1\nmatches: {}\n":      `line 2: unknown field "matches"; did you mean "match"?`,
		"version: 1\nabout: [x]\n":       `line 2: about must be text, not a list`,
		"version: 1\nabout: \"a\\nb\"\n": `line 2: about must be one line of at most 200 bytes`,

		"version: 1\nmatch:\n  path: a\n":                                `line 3: a path of match.path must begin with "/", the root of the mount; "a" does not`,
		"version: 1\nmatch:\n  path: [/a, '/b/[']\n":                     `line 3: a path of match.path "/b/[": a [ without its ]`,
		"version: 1\nmatch:\n  path: []\n":                               `line 3: match.path must name at least one path`,
		"version: 1\nmatch:\n  path: {a: b}\n":                           `line 3: match.path must be a list, not a mapping`,
		"version: 1\nmatch:\n  path: /a\n  except: 7\n":                  `line 4: a path of match.except must begin with "/", the root of the mount; "7" does not`,
		"version: 1\nmatch:\n  path: /a\n  min_size: big\n":              `line 4: match.min_size must be a size from 0 to 1048576TiB such as 64KiB, not "big"`,
		"version: 1\nmatch:\n  path: /a\n  max_size: 0\n":                `line 4: match.max_size must be a size from 1 to 1048576TiB such as 1GiB, not the number 0`,
		"version: 1\nmatch:\n  min_size: 2\n  path: /a\n  max_size: 1\n": `line 5: match.min_size is above match.max_size: no file fits`,
		"version: 1\nmatch:\n  path: /a\n  size: 1\n":                    `line 4: unknown field "size"`,

		head + "where: there\n":   `line 4: where must be any or here, not "there"`,
		head + "when: open\n":     `line 4: when must be close, rename or both, not "open"`,
		head + "when: []\n":       `line 4: when must be close, rename or both, not an empty list`,
		head + "when: {a: b}\n":   `line 4: when must be a list, not a mapping`,
		head + "when: [close, 1]": `line 4: when must be close, rename or both, not the number 1`,

		"version: 1\nmatch: {path: /a}\n":                                   `the rule has no job: give "job:" and what it runs, such as {kernel: wordcount}`,
		"version: 1\nmatch: {path: /a}\njob: grep\n":                        `line 3: job must be a mapping such as {kernel: wordcount}, not "grep"`,
		"version: 1\nmatch: {path: /a}\njob:\n  kernel: k\n  inputs: /x\n":  `line 5: inputs is not given here: the input is the file that the rule is for`,
		"version: 1\nmatch: {path: /a}\njob:\n  kernel: k\n  version: 1\n":  `line 5: version is not given here: the input is the file that the rule is for`,
		"version: 1\nmatch: {path: /a}\njob:\n  kernel: k\n  name: x\n":     `line 5: name is not given here: the input is the file that the rule is for`,
		"version: 1\nmatch: {path: /a}\njob:\n  kernel: k\n  retriez: 1\n":  `line 5: unknown field "retriez"; did you mean "retries"?`,
		"version: 1\nmatch: {path: /a}\njob:\n  kernel: k\n\n  memory: 1\n": `line 6: memory must be a size from 1MiB to 4GiB such as 256MiB, not the number 1`,
		"version: 1\nmatch: {path: /a}\njob: {output: x}\n":                 `the job names no kernel: give "kernel: NAME", "wasm: /PATH" or "exec: {argv: [PROGRAM, …]}"`,

		"version: 1\nmatch: {path: /a}\nthen: drop\njob: {kernel: k, output: '/b/{file}', if_exists: skip}\n": `line 3: then removes the file once its results are there, but with "if_exists: skip" they may be left out: use fail or replace`,
		head + "then: burn\n":                             `line 4: ` + thenMust + `"burn"`,
		head + "then: [keep]\n":                           `line 4: ` + thenMust + `a list`,
		head + "then: {}\n":                               `line 4: ` + thenMust + `a mapping`,
		head + "then: {if: x}\n":                          `line 4: unknown field "if"`,
		head + "then: {keep_if: maybe}\n":                 `line 4: then.keep_if must be empty, nonempty or {matches: PATTERN}, not "maybe"`,
		head + "then: {drop_if: {}}\n":                    `line 4: then.drop_if must be empty, nonempty or {matches: PATTERN}, not a mapping`,
		head + "then: {keep_if: empty, drop_if: empty}\n": `line 4: then has keep_if and drop_if; keep one`,
		head + "then: {keep_if: {matches: '('}}\n":        "line 4: then.keep_if.matches is not a regular expression: error parsing regexp: missing closing ): `(`",
		head + "then: {keep_if: {matches: ''}}\n":         `line 4: then.keep_if.matches must have 1 to 1024 bytes, not 0`,
		head + "then: {keep_if: {matches: [a]}}\n":        `line 4: then.keep_if.matches must be text, not a list`,
		head + "then: {keep_if: {match: a}}\n":            `line 4: unknown field "match"; did you mean "matches"?`,
	} {
		_, err := ParseRule([]byte(text))
		if err == nil || err.Error() != want {
			t.Errorf("%q:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

// TestEndFields: combine, notify, output_limit.
func TestEndFields(t *testing.T) {
	const head = "version: 1\nkernel: k\ninputs: [/a]\n"
	s, err := Parse([]byte(head + "combine: {args: [x]}\nreduce: {}\nnotify: /log//ends.json\noutput_limit: 1.5GiB\n"))
	if err != nil {
		t.Fatal(err)
	}
	c := Inherit(*s.Combine, s.Map)
	if c.Kernel != "k" || !slices.Equal(c.Args, []string{"x"}) || s.Notify != "/log/ends.json" || s.NotifyLine != 6 || s.OutputLimit != 3<<29 {
		t.Errorf("%+v", s)
	}
	for text, want := range map[string]string{
		"combine: wordcount\nreduce: {}\n":   `line 4: combine must be a mapping such as {kernel: wordcount}, not "wordcount"`,
		"combine: {kernel: K}\nreduce: {}\n": `line 4: combine.kernel must be NAME or NAME@VERSION, or ~/NAME, one of your own, not "K"`,
		"combine: {kernel: k, wasm: /x}\n":   `line 4: combine kernel and wasm are both given; keep one`,
		"combine: {exec: {argv: [sh]}}\n":    `line 4: combine runs a kernel or a module, not a program: give combine.kernel or combine.wasm`,
		"combine: {params: x}\n":             `line 4: combine.params must be a mapping such as {top: 20}, not "x"`,
		"combine: {kernal: k}\n":             `line 4: unknown field "kernal"; did you mean "kernel"?`,
		"\ncombine: {}\n":                    `line 5: combine comes before a reduce step, and there is none: give "reduce: {}"`,
		"notify: ends\n":                     `line 4: notify must begin with "/", the root of the mount; "ends" does not`,
		"notify: [/a]\n":                     `line 4: notify must be text, not a list`,
		"notify: /log/\n":                    `line 4: notify must end in a file name, such as /log/ends.json`,
		"notify: /\n":                        `line 4: notify must end in a file name, such as /ends.json`,
		"notify: /.compute/rules/x\n":        `line 4: notify must be a file of your own, not one below /.compute`,
		"notify: /a/../b\n":                  `line 4: notify must not contain ".."`,
		"output_limit: none\n":               `line 4: output_limit must be a size from 1KiB to 1TiB such as 10GiB, not "none"`,
		"output_limit: 5\n":                  `line 4: output_limit must be a size from 1KiB to 1TiB such as 10GiB, not the number 5`,
		"output_limit: [1GiB]\n":             `line 4: output_limit must be a size from 1KiB to 1TiB such as 10GiB, not a list`,
	} {
		if _, err := Parse([]byte(head + text)); err == nil || err.Error() != want {
			t.Errorf("%q:\ngot  %v\nwant %s", text, err, want)
		}
	}
	const program = "version: 1\nexec: {argv: [sh]}\ninputs: [/a]\nreduce: {}\ncombine: {}\n"
	if _, err := Parse([]byte(program)); err == nil || err.Error() != `line 5: combine names no kernel, and that of the map is a program: give combine.kernel or combine.wasm` {
		t.Error(err)
	}
}

// TestRuleSchema holds docs/rule.schema.json and the parser together.
func TestRuleSchema(t *testing.T) {
	data, err := os.ReadFile("../../docs/rule.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type object struct {
		AdditionalProperties *bool `json:"additionalProperties"`
		Properties           map[string]object
	}
	var schema object
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string][]string{
		"":      {"about", "job", "match", "then", "version", "when", "where"},
		"match": {"except", "max_size", "min_size", "path"},
	} {
		o := schema
		if at != "" {
			o = schema.Properties[at]
		}
		if got := slices.Sorted(maps.Keys(o.Properties)); !slices.Equal(got, want) || o.AdditionalProperties == nil || *o.AdditionalProperties {
			t.Errorf("the schema's %q has the fields %v", at, got)
		}
		for _, name := range want {
			text := "version: 1\n" + name + ": {unexpected: 1}\n"
			if at != "" {
				text = "version: 1\n" + at + ":\n  " + name + ": {unexpected: 1}\n"
			}
			if _, err := ParseRule([]byte(text)); err != nil && strings.Contains(err.Error(), "unknown field \""+name) {
				t.Errorf("the parser does not know %s: %v", name, err)
			}
		}
	}
}

// FuzzParseRule: whatever comes, it is a rule that makes job files, or one
// sentence.
func FuzzParseRule(f *testing.F) {
	f.Add([]byte(goodRule), "/camera/a")
	f.Add([]byte("version: 1\nmatch: {path: /a}\njob: {kernel: grep, after: [x]}\nthen: {drop_if: {matches: a+}}\n"), "/a/[b]*")
	f.Add([]byte("version: 1\nmatch: &m {path: /a}\njob: *m\n"), "/a")
	f.Fuzz(func(t *testing.T, data []byte, p string) {
		r, err := ParseRule(data)
		if err != nil {
			if text := err.Error(); text == "" || strings.ContainsAny(text, "\n\x00") {
				t.Errorf("not one sentence: %q", text)
			}
			return
		}
		if _, err := absolute(0, "", p); err != nil || strings.Contains(p, "\x00") || len(p) > 200 {
			return
		}
		r.Applies(p, 100)
		text, err := r.JobFile(p, "h", "other")
		if err != nil {
			return
		}
		if s, err := Parse(text); err == nil && (len(s.Inputs) != 1 || len(s.After) == 0) {
			t.Errorf("%+v", s)
		}
	})
}

// TestWrongRules is TestWrongValues for rules.
func TestWrongRules(t *testing.T) {
	compiled, err := jsonschema.NewCompiler().Compile("../../docs/rule.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	base := map[string]string{"version": "1", "match": "{path: /a}", "job": "{kernel: k}"}
	refused := 0
	for _, at := range []string{"version", "about", "match", "match.path", "match.except", "match.min_size", "match.max_size", "when", "where", "job", "then", "then.keep_if", "then.drop_if", "then.keep_if.matches"} {
		f := field{path: strings.Split(at, ".")}
		wrong := 0
		for _, value := range values {
			var b strings.Builder
			for _, name := range []string{"version", "match", "job"} {
				if name != f.path[0] {
					fmt.Fprintf(&b, "%s: %s\n", name, base[name])
				}
			}
			for i, name := range f.path {
				if last := i == len(f.path)-1; !last {
					fmt.Fprintf(&b, "%s%s:\n", strings.Repeat("  ", i), name)
					continue
				}
				if f.path[0] == "match" && i == 1 && name != "path" {
					b.WriteString("  path: /a\n")
				}
				fmt.Fprintf(&b, "%s%s: %s\n", strings.Repeat("  ", i), name, value)
			}
			text := b.String()
			_, err := ParseRule([]byte(text))
			if line := strings.Count(text, "\n"); err != nil {
				if wrong++; at != "job" && !oneSentence(err, line) {
					t.Errorf("%q, of line %d: %v", text, line, err)
				}
			}
			var root yaml.Node
			if yaml.Unmarshal([]byte(text), &root) == nil && !valid(compiled, &root) && !valid(compiled, asText(&root)) {
				if refused++; err == nil {
					t.Errorf("%q is taken, and the schema refuses it", text)
				}
			}
		}
		if wrong == 0 {
			t.Errorf("%s takes anything", at)
		}
	}
	t.Logf("%d values refused by the schema", refused)
}
