package jobfile

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const good = `version: 1
name: top
kernel: wordcount@1
inputs:
  - /src/**/*.go
  - /README.md
split: none
args: ["--top", "20", 7]
params: {top: 20, Stop: "the"}
reduce:
  kernel: merge
  args: [x]
output: result.txt
timeout: 90s
retries: 0
memory: 1.5 GiB
`

func TestParse(t *testing.T) {
	got, err := Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	want := &Spec{
		Name: "top", NameLine: 2,
		Map: Step{Kernel: "wordcount@1", KernelLine: 3, Args: []string{"--top", "20", "7"},
			Params: []Param{{"Stop", "the"}, {"top", "20"}}},
		Inputs: []Input{{Pattern: "/src/**/*.go", Line: 5}, {Pattern: "/README.md", Line: 6}},
		Split:  SplitNone, SplitLine: 7, Header: -1,
		Reduce: &Step{Kernel: "merge", KernelLine: 11, Args: []string{"x"}},
		Output: "result.txt", Timeout: 90 * time.Second, Retries: 0, Memory: 3 << 29,
		Life: Life{IfExists: Replace}, Placement: Placement{Locality: Prefer}, OutputLine: 13, LogLimit: 8 << 20,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if env := got.Map.Env(); !slices.Equal(env, []string{"QUERN_STOP=the", "QUERN_TOP=20"}) {
		t.Errorf("env %q", env)
	}
}

func TestParseDefaults(t *testing.T) {
	got, err := Parse([]byte("version: 1\nwasm: /k.wasm\ninputs: /a//b/\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Spec{
		Map: Step{Wasm: "/k.wasm", KernelLine: 2}, Inputs: []Input{{Pattern: "/a/b", Line: 3}},
		Split: SplitFile, Header: -1, Output: "output", Timeout: 10 * time.Minute, Retries: 2, Memory: 256 << 20,
		Life: Life{IfExists: Replace}, Placement: Placement{Locality: Prefer}, LogLimit: 8 << 20,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSpeculation(t *testing.T) {
	for value, off := range map[string]bool{"true": false, "false": true} {
		got, err := Parse([]byte("version: 1\nkernel: grep\ninputs: /a\nspeculation: " + value + "\n"))
		if err != nil || got.NoSpeculation != off {
			t.Errorf("%s: %v, %v", value, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "version: 1\nkernel: k\ninputs: [/a]\n"
	for _, c := range []struct{ file, want string }{
		{"", `a job file is empty`},
		{"# only a comment\n", `a job file is empty`},
		{"hello", `line 1: a job file is a list of fields such as "kernel: wordcount", not "hello"`},
		{"- a\n", `line 1: a job file is a list of fields such as "kernel: wordcount", not a list`},
		{"version: 1\nkernel: [\n", `line 2: not valid YAML: did not find expected node content`},
		{"version: 1\n\tkernel: k\n", `line 2: not valid YAML: found a tab character that violates indentation`},
		{"version: 1\nkernel: k\x00\n", `line 2: a job file is text, this is a byte 0`},
		{head + "---\nversion: 1\n", `line 4: a job file holds one document, here begins another`},
		{"kernel: k\ninputs: [/a]\n", `line 1: a job file begins with "version: 1"`},
		{"version: 2\n", `line 1: version must be 1, not the number 2`},
		{"version: 1\nkernel: wordcount\nparams: {top: 3}\nintputs: [/src]\n", `line 4: unknown field "intputs"; did you mean "inputs"?`},
		{"version: 1\nkrenel: k\n", `line 2: unknown field "krenel"; did you mean "kernel"?`},
		{head + "colour: red\n", `line 4: unknown field "colour"`},
		{head + "kernel: l\n", `line 4: field "kernel" is here a second time; the first is on line 2`},
		{"version: 1\ninputs: [/a]\n", `the job names no kernel: give "kernel: NAME", "wasm: /PATH" or "exec: {argv: [PROGRAM, …]}"`},
		{"version: 1\nkernel: k\n", `the job has no inputs: give "inputs:" and a list of paths`},
		{"version: 1\nkernel: k\ninputs: []\n", `line 3: inputs must name at least one path`},
		{"version: 1\nkernel: k\ninputs:\n", `line 3: inputs must be a list, not nothing`},
		{"version: 1\nkernel: k\ninputs: {a: b}\n", `line 3: inputs must be a list, not a mapping`},
		{"version: 1\nkernel: k\ninputs:\n- /a\n- [/b]\n", `line 5: entry 2 of inputs must be text, not a list`},
		{"version: 1\nkernel: k\ninputs: [src]\n", `line 3: an input must begin with "/", the root of the mount; "src" does not`},
		{"version: 1\nkernel: k\ninputs: [/a/../b]\n", `line 3: an input must not contain ".."`},
		{"version: 1\nkernel: k\ninputs: ['/a/[x']\n", `line 3: input "/a/[x": a [ without its ]`},
		{"version: 1\nkernel: k\ninputs: ['/a/x**']\n", `line 3: input "/a/x**": ** must stand alone between two slashes`},
		{"version: 1\nkernel: K!\ninputs: [/a]\n", `line 2: kernel must be NAME or NAME@VERSION, or ~/NAME, one of your own, not "K!"`},
		{"version: 1\nkernel: k@\ninputs: [/a]\n", `line 2: kernel must be NAME or NAME@VERSION, or ~/NAME, one of your own, not "k@"`},
		{"version: 1\nkernel: k\nwasm: /k.wasm\ninputs: [/a]\n", `line 3: kernel and wasm are both given; keep one`},
		{"version: 1\nkernel: null\ninputs: [/a]\n", `line 2: kernel must be text, not nothing`},
		{"version: 1\nwasm: k.wasm\n", `line 2: wasm must begin with "/", the root of the mount; "k.wasm" does not`},
		{head + "split: page\n", `line 4: split must be file, none, shard, block, lines or bytes, not "page"`},
		{head + "split: [file]\n", `line 4: split must be text, not a list`},
		{head + "task_bytes: 2TiB\n", `line 4: task_bytes must be a size from 4KiB to 1TiB such as 64MiB, not "2TiB"`},
		{head + "task_bytes: 1\n", `line 4: task_bytes must be a size from 4KiB to 1TiB such as 64MiB, not the number 1`},
		{head + "task_bytes: []\n", `line 4: task_bytes must be a size from 4KiB to 1TiB such as 64MiB, not a list`},
		{head + "args: x\n", `line 4: args must be a list, not "x"`},
		{head + "params: [top]\n", `line 4: params must be a mapping such as {top: 20}, not a list`},
		{head + "params: {a-b: 1}\n", `line 4: a name in params is made of letters, digits and _, not "a-b"`},
		{head + "params:\n  a: 1\n  A: 2\n", `line 6: params has "A" twice`},
		{head + "params: {job: 1}\n", `line 4: the name "job" in params is taken: the agent itself sets QUERN_JOB`},
		{head + "params: {a: [1]}\n", `line 4: params.a must be text, not a list`},
		{head + "reduce: wordcount\n", `line 4: reduce must be a mapping such as {kernel: wordcount}, not "wordcount"`},
		{head + "reduce:\n  inputs: [/a]\n", `line 5: unknown field "inputs"`},
		{head + "reduce:\n  arg: [a]\n", `line 5: unknown field "arg"; did you mean "args"?`},
		{head + "reduce: {kernel: a, wasm: /b}\n", `line 4: reduce kernel and wasm are both given; keep one`},
		{head + "output: a/b\n", `line 4: output must be a plain file name, not "a/b"`},
		{head + "output: .x\n", `line 4: output must not begin with a dot, ".x" does`},
		{head + "output: ''\n", `line 4: output must not be ""`},
		{head + "name: a/b\n", `line 4: name must be a plain file name, not "a/b"`},
		{head + "timeout: 10\n", `line 4: timeout must be a duration from 1s to 24h such as 90s or 10m, not the number 10`},
		{head + "timeout: abc\n", `line 4: timeout must be a duration from 1s to 24h such as 90s or 10m, not "abc"`},
		{head + "timeout: 25h\n", `line 4: timeout must be a duration from 1s to 24h such as 90s or 10m, not "25h"`},
		{head + "retries: -1\n", `line 4: retries must be a number from 0 to 20, not the number -1`},
		{head + "retries: many\n", `line 4: retries must be a number from 0 to 20, not "many"`},
		{head + "speculation: maybe\n", `line 4: speculation must be true or false, not "maybe"`},
		{head + "retries: 1.5\n", `line 4: retries must be a number from 0 to 20, not the number 1.5`},
		{head + "memory: lots\n", `line 4: memory must be a size from 1MiB to 4GiB such as 256MiB, not "lots"`},
		{head + "memory: 8GiB\n", `line 4: memory must be a size from 1MiB to 4GiB such as 256MiB, not "8GiB"`},
		{head + "memory: [1]\n", `line 4: memory must be a size from 1MiB to 4GiB such as 256MiB, not a list`},
		{"version: 1\nkernel: &x k\ninputs: [*x]\n", `line 3: entry 1 of inputs must be text, not an alias`},
		{"? [a]\n: b\n", `line 1: a field's name is a word, not a list`},
		{strings.Repeat("#", MaxFile+1), `a job file is larger than 64 KiB`},
	} {
		_, err := Parse([]byte(c.file))
		if err == nil {
			t.Errorf("%q was accepted", c.file)
			continue
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: the error is a %T", c.file, err)
		}
		if err.Error() != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.file, err, c.want)
		}
	}
}

func TestParseKernel(t *testing.T) {
	k, err := ParseKernel([]byte("version: 1\nabout: counts\nwasm: count.wasm\nargs: [a, 1]\n"))
	if err != nil || !reflect.DeepEqual(k, &Kernel{About: "counts", Wasm: "count.wasm", Args: []string{"a", "1"}, Compare: Compare{As: "bytes"}}) {
		t.Errorf("%+v, %v", k, err)
	}
	if k, err = ParseKernel([]byte("version: 1\n")); err != nil || k.Wasm != "k.wasm" {
		t.Errorf("%+v, %v", k, err)
	}
	for file, want := range map[string]string{
		"about: x\n":                 `line 1: a kernel's manifest begins with "version: 1"`,
		"version: 1\nwasm: a/b.wasm": `line 2: wasm must be a plain file name, not "a/b.wasm"`,
		"version: 1\nwasm: k.so":     `line 2: wasm must name a file that ends in .wasm, not "k.so"`,
		"version: 1\nabuot: k.so":    `line 2: unknown field "abuot"; did you mean "about"?`,
		"version: 1\nargs: {a: b}\n": `line 2: args must be a list, not a mapping`,
		"version: 1\nversion: 1\n":   `line 2: field "version" is here a second time; the first is on line 1`,
	} {
		if _, err := ParseKernel([]byte(file)); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", file, err, want)
		}
	}
}

func TestInherit(t *testing.T) {
	m := Step{Kernel: "k", KernelLine: 2, Args: []string{"a"}, Params: []Param{{"top", "3"}}}
	if got := Inherit(Step{}, m); !reflect.DeepEqual(got, m) {
		t.Errorf("%+v", got)
	}
	other := Step{Kernel: "l", KernelLine: 9}
	if got := Inherit(other, m); !reflect.DeepEqual(got, other) {
		t.Errorf("%+v", got)
	}
	if got := Inherit(Step{Args: []string{}}, m); len(got.Args) != 0 || got.Kernel != "k" {
		t.Errorf("%+v", got)
	}
}

// TestSchema holds docs/job.schema.json and the parser together: the same
// fields, the same defaults.
func TestSchema(t *testing.T) {
	data, err := os.ReadFile("../../docs/job.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Required             []string
		AdditionalProperties *bool
		Properties           map[string]struct {
			Default    any
			Properties map[string]any
		}
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range schema.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	want := []string{"after", "args", "array", "combine", "deadline", "exec", "gang", "header", "if_exists", "inputs", "kernel", "log_limit", "max_failed", "memoise", "memory", "name", "notify", "objective", "on_failure", "output", "output_limit", "parallel", "params", "placement", "priority", "reduce", "reduce_rest", "resources", "retries", "runtime", "share", "speculation", "split", "task_bytes", "timeout", "ttl", "version", "visibility", "wasm"}
	if !slices.Equal(names, want) {
		t.Errorf("the schema has the fields %v", names)
	}
	for _, name := range names {
		file := "version: 1\nkernel: k\ninputs: [/a]\n" + name + ": {unexpected: 1}\n"
		if _, err := Parse([]byte(file)); err != nil && strings.Contains(err.Error(), "unknown field \""+name) {
			t.Errorf("the parser does not know the schema's field %s: %v", name, err)
		}
	}
	var reduce []string
	for name := range schema.Properties["reduce"].Properties {
		reduce = append(reduce, name)
	}
	slices.Sort(reduce)
	if !slices.Equal(reduce, []string{"args", "exec", "kernel", "params", "wasm"}) {
		t.Errorf("the schema's reduce has the fields %v", reduce)
	}
	if schema.AdditionalProperties == nil || *schema.AdditionalProperties {
		t.Error("the schema allows unknown fields")
	}
	for name, def := range map[string]any{"split": "file", "output": "output", "timeout": "10m", "retries": 2.0, "memory": "256MiB", "output_limit": "16GiB"} {
		if schema.Properties[name].Default != def {
			t.Errorf("the schema's default of %s is %v", name, schema.Properties[name].Default)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		full, prefix  bool
	}{
		{"/a/*.go", "/a/x.go", true, false},
		{"/a/*.go", "/a/b/x.go", false, false},
		{"/a/*.go", "/a", false, true},
		{"/a/*.go", "/b", false, false},
		{"/a/**/*.go", "/a/x.go", true, true},
		{"/a/**/*.go", "/a/b/c/x.go", true, true},
		{"/a/**/*.go", "/a/b/c", false, true},
		{"/a/**/*.go", "/a/.git/x.go", false, false},
		{"/a/**", "/a/b", true, true},
		{"/**", "/x/y", true, true},
		{"/a/*", "/a/.hidden", false, false},
		{"/a/.*", "/a/.hidden", true, false},
		{"/a/[xy]/z", "/a/x/z", true, false},
		{"/a/[xy]/z", "/a/x", false, true},
		{"/a/**/b/**/c", "/a/1/b/2/3/c", true, true},
		{"/a/**/b/**/c", "/a/b/c", true, true},
	} {
		if got := Match(c.pattern, c.path); got != c.full {
			t.Errorf("Match(%s, %s) = %v", c.pattern, c.path, got)
		}
		if got := MayHold(c.pattern, c.path); got != c.prefix {
			t.Errorf("MayHold(%s, %s) = %v", c.pattern, c.path, got)
		}
	}
	for pattern, want := range map[string]string{"/a/b": "/a/b", "/a/*/b": "/a", "/*": "/", "/a/b/**": "/a/b"} {
		if got := Base(pattern); got != want {
			t.Errorf("Base(%s) = %s", pattern, got)
		}
	}
}

// FuzzParse: whatever comes, it is a spec that keeps its promises or one
// sentence.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("version: 1\nkernel: k\ninputs: [/a]\nafter: {a: ok, b: any}\noutput: /r/{name}.{ext}\nttl: 7d\ndeadline: 2026-01-31T18:00:00Z\n"))
	f.Add([]byte("version: 1\nkernel: &x k\ninputs: [*x, <<: *x]\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("version: 1\nkernel: !!binary aGk=\ninputs: [!<tag:x> /a]\n"))
	f.Add([]byte("%YAML 1.1\n---\n? {a: b}\n: c"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := ParseKernel(data); err == nil && len(k.Runtimes()) == 0 {
			t.Error("a manifest without a module")
		}
		s, err := Parse(data)
		if err != nil {
			if text := err.Error(); text == "" || strings.ContainsAny(text, "\n\x00") {
				t.Errorf("not one sentence: %q", text)
			}
			return
		}
		dir, name := s.OutputDir()
		if out := s.OutputName("job", "/in/a.b", 7, true); out == "" || strings.HasPrefix(out, "/") || dir != "" && dir[0] != '/' {
			t.Errorf("the output %q, %q is called %q", dir, name, out)
		}
		if s.Map.KernelLine == 0 || len(s.Inputs) == 0 && s.Array == 0 || s.Timeout < time.Second || s.Timeout > MaxTimeout ||
			s.Memory < MinMemory || s.Memory > MaxMemory || name == "" || strings.HasPrefix(name, "/") {
			t.Errorf("%+v", s)
		}
		for _, in := range s.Inputs {
			if in.Pattern[0] != '/' || CheckPattern(in.Pattern) != nil {
				t.Errorf("input %q", in.Pattern)
			}
			Match(in.Pattern, "/a/b/c")
		}
	})
}
