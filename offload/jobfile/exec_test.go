package jobfile

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseExec(t *testing.T) {
	s, err := Parse([]byte(`version: 1
exec:
  argv: [python3, /in/code/run.py, "{inputs}", 7]
  env: {OMP_NUM_THREADS: 2, A: ""}
  binds: [/code/, /model.onnx]
  network: host
inputs: /data
resources: {cpu: 1.5, memory: 6GiB, scratch: 2TB, gpu: 1, gpu_memory: 16GiB}
`))
	if err == nil || err.Error() != `line 8: resources.scratch must be a size from 1MiB to 1TiB such as 10GiB, not "2TB"` {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = Parse([]byte(`version: 1
exec:
  argv: [python3, /in/code/run.py, "{inputs}", 7]
  env: {OMP_NUM_THREADS: 2, A: ""}
  binds: [/code/, /model.onnx]
  network: host
inputs: /data
reduce: {exec: {argv: [/usr/bin/sort]}}
resources: {cpu: 1.5, memory: 6GiB, scratch: 0.5TiB, gpu: 1, gpu_memory: 16GiB}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Exec{
		Argv: []string{"python3", "/in/code/run.py", "{inputs}", "7"}, Env: []Param{{"A", ""}, {"OMP_NUM_THREADS", "2"}},
		Binds: []Input{{Pattern: "/code", Line: 5}, {Pattern: "/model.onnx", Line: 5}}, Network: true, Line: 3,
	}
	if !reflect.DeepEqual(s.Map.Exec, want) || s.Map.KernelLine != 3 || s.Reduce.Exec == nil || s.Memory != 6<<30 ||
		s.Resources != (Resources{CPU: 1.5, Scratch: 512 << 30, GPU: 1, GPUMemory: 16 << 30}) {
		t.Errorf("%+v\n%+v", s, s.Map.Exec)
	}
	if got := s.Map.Exec.Environ(); !slices.Equal(got, []string{"A=", "OMP_NUM_THREADS=2"}) {
		t.Error(got)
	}
	s, err = Parse([]byte("version: 1\nexec: {argv: [true]}\ninputs: /data\nreduce: {}\n"))
	if err != nil || s.Resources.Scratch != DefaultScratch || s.Memory != DefaultMemory || Inherit(*s.Reduce, s.Map).Exec != s.Map.Exec {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestParseExecRefuses(t *testing.T) {
	const head = "version: 1\ninputs: [/a]\n"
	const job = head + "exec: {argv: [a]}\n"
	for _, c := range []struct{ file, want string }{
		{head + "exec: python3\n", `line 3: exec must be a mapping such as {argv: [python3, /in/run.py]}, not "python3"`},
		{head + "exec: {}\n", `line 3: exec names no program: give "argv: [PROGRAM, ARGUMENT, …]"`},
		{head + "exec: {arg: [a]}\n", `line 3: unknown field "arg"; did you mean "argv"?`},
		{head + "exec: {argv: a}\n", `line 3: exec.argv must be a list, not "a"`},
		{head + "exec: {argv: []}\n", `line 3: exec.argv must name a program first`},
		{head + "exec: {argv: ['']}\n", `line 3: exec.argv must name a program first`},
		{head + "exec:\n  argv:\n    - a\n    - [b]\n", `line 6: entry 2 of exec.argv must be text, not a list`},
		{head + "exec: {argv: ['{inputs}']}\n", `line 3: exec.argv must name a program first, not {inputs}`},
		{head + "exec: {argv: [./a]}\n", `line 3: the program of exec.argv must be a name such as python3 or a plain path from "/", not "./a"`},
		{head + "exec: {argv: [/a/../b]}\n", `line 3: the program of exec.argv must be a name such as python3 or a plain path from "/", not "/a/../b"`},
		{head + "exec: {argv: [a], env: [b]}\n", `line 3: exec.env must be a mapping such as {LANG: C}, not a list`},
		{head + "exec: {argv: [a], env: {a-b: c}}\n", `line 3: a name in exec.env is made of letters, digits and _, not "a-b"`},
		{head + "exec: {argv: [a], env: {A: [c]}}\n", `line 3: exec.env.A must be text, not a list`},
		{head + "exec: {argv: [a], env: {A: 1, A: 2}}\n", `line 3: exec.env has "A" twice`},
		{head + "exec: {argv: [a], env: {QUERN_JOB: 1}}\n", `line 3: the name "QUERN_JOB" in exec.env is taken: the agent itself sets it`},
		{head + "exec: {argv: [a], binds: /a}\n", `line 3: exec.binds must be a list, not "/a"`},
		{head + "exec: {argv: [a], binds: [b]}\n", `line 3: an entry of exec.binds must begin with "/", the root of the mount; "b" does not`},
		{head + "exec: {argv: [a], binds: [/b/*]}\n", `line 3: exec.binds takes files and directories, not patterns such as "/b/*"`},
		{head + "exec: {argv: [a], network: yes}\n", `line 3: exec.network must be "none" or "host", not "yes"`},
		{head + "exec: {argv: [a], network: {}}\n", `line 3: exec.network must be "none" or "host", not a mapping`},
		{head + "exec: {argv: [a]}\nkernel: k\n", `line 4: exec and a kernel are both given; keep one`},
		{head + "exec: {argv: [a]}\nargs: [x]\n", `line 3: args are a kernel's; put the arguments of a program into exec.argv`},
		{head + "kernel: k\nreduce: {exec: {argv: 1}}\n", `line 4: reduce.exec.argv must be a list, not the number 1`},
		{head + "kernel: k\nreduce: {wasm: /k, exec: {argv: [a]}}\n", `line 4: reduce exec and a kernel are both given; keep one`},
		{job + "resources: 2\n", `line 4: resources must be a mapping such as {cpu: 2, memory: 1GiB}, not the number 2`},
		{job + "resources: {cpus: 2}\n", `line 4: unknown field "cpus"; did you mean "cpu"?`},
		{job + "resources: {cpu: 0}\n", `line 4: resources.cpu must be a number of processors from 0.01 to 1024, not the number 0`},
		{job + "resources: {cpu: .nan}\n", `line 4: resources.cpu must be a number of processors from 0.01 to 1024, not the number .nan`},
		{job + "resources: {cpu: two}\n", `line 4: resources.cpu must be a number of processors from 0.01 to 1024, not "two"`},
		{job + "resources: {memory: 2TiB}\n", `line 4: resources.memory must be a size from 32MiB to 1TiB such as 256MiB, not "2TiB"`},
		{job + "memory: 1MiB\n", `line 4: memory must be a size from 32MiB to 1TiB such as 256MiB, not "1MiB"`},
		{job + "memory: 1GiB\nresources:\n  memory: 1GiB\n", `line 6: the memory is here a second time; the first is on line 4`},
		{job + "reduce: {kernel: k}\nmemory: 5GiB\n", `line 5: memory must be a size from 32MiB to 4GiB such as 256MiB, not "5GiB"`},
		{job + "resources: {scratch: 1}\n", `line 4: resources.scratch must be a size from 1MiB to 1TiB such as 10GiB, not the number 1`},
		{job + "resources: {gpu: 17}\n", `line 4: resources.gpu must be a number from 0 to 16, not the number 17`},
		{job + "resources: {gpu: 0.5}\n", `line 4: resources.gpu must be a number from 0 to 16, not the number 0.5`},
		{job + "resources: {gpu: 1, gpu_memory: x}\n", `line 4: resources.gpu_memory must be a size from 1MiB to 1TiB such as 16GiB, not "x"`},
		{job + "resources: {gpu_memory: 1GiB}\n", `line 4: resources.gpu_memory is that of each GPU: give resources.gpu, too`},
		{head + "kernel: k\nresources: {cpu: 1}\n", `line 4: resources.cpu is for programs (exec), and this job runs none`},
		{head + "kernel: k\nresources:\n  scratch: 1GiB\n", `line 5: resources.scratch is for programs (exec), and this job runs none`},
		{head + "kernel: k\nresources: {memory: 5GiB}\n", `line 4: resources.memory must be a size from 1MiB to 4GiB such as 256MiB, not "5GiB"`},
	} {
		_, err := Parse([]byte(c.file))
		if err == nil {
			t.Errorf("%q was accepted", c.file)
		} else if err.Error() != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.file, err, c.want)
		}
	}
}

// TestExecSchema holds the schema of exec and resources and the parser
// together.
func TestExecSchema(t *testing.T) {
	data, err := os.ReadFile("../../docs/job.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type object struct {
		Properties map[string]struct{ Default any }
	}
	var schema struct {
		Defs       map[string]object `json:"$defs"`
		Properties map[string]object
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	for field, o := range map[string]object{"exec": schema.Defs["exec"], "resources": schema.Properties["resources"]} {
		for name := range o.Properties {
			_, err := Parse([]byte("version: 1\ninputs: /a\n" + field + ": {" + name + ": {unexpected: 1}}\n"))
			if err == nil || strings.Contains(err.Error(), "unknown field \""+name) {
				t.Errorf("the parser and the field %s.%s of the schema: %v", field, name, err)
			}
		}
	}
	if n, m := len(schema.Defs["exec"].Properties), len(schema.Properties["resources"].Properties); n != 4 || m != 5 {
		t.Errorf("the schema has %d fields of exec and %d of resources", n, m)
	}
	if d := schema.Properties["resources"].Properties["scratch"].Default; d != "1GiB" {
		t.Errorf("the schema's default of scratch is %v", d)
	}
}

// FuzzExec: whatever exec and resources hold, it is a program that can be
// started or one sentence.
func FuzzExec(f *testing.F) {
	f.Add("exec: {argv: [python3, '{inputs}'], env: {A: b}, binds: [/x], network: none}\nresources: {cpu: 1e-2, memory: 1TiB, gpu: 1}")
	f.Add("exec: {argv: [!!binary aGk=]}")
	f.Add("exec: {argv: &a [*a]}\nresources: {cpu: .inf}")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse([]byte("version: 1\ninputs: /a\n" + text))
		if err != nil {
			if text := err.Error(); text == "" || strings.ContainsAny(text, "\n\x00") {
				t.Errorf("not one sentence: %q", text)
			}
			return
		}
		x := s.Map.Exec
		if x == nil {
			return
		}
		r := s.Resources
		if len(x.Argv) == 0 || x.Argv[0] == "" || s.Memory < MinExecMemory || s.Memory > MaxExecMemory || r.Scratch < MinScratch ||
			r.Scratch > MaxScratch || r.CPU != 0 && !(r.CPU >= MinCPU && r.CPU <= MaxCPU) || r.GPU < 0 || r.GPU > MaxGPU {
			t.Errorf("%+v %+v", s, x)
		}
		for _, a := range append(slices.Clone(x.Argv), x.Environ()...) {
			if strings.ContainsRune(a, 0) {
				t.Errorf("%q", a)
			}
		}
		for _, b := range x.Binds {
			if b.Pattern[0] != '/' || Wild(b.Pattern) {
				t.Errorf("bind %q", b.Pattern)
			}
		}
	})
}
