package ptx

import (
	"reflect"
	"strings"
	"testing"
)

const sample = `// a comment with .entry no(
.version 4.0
.target sm_50
.address_size 64
.global .align 4 .b8 table[16];
/* .entry hidden() { } */
	// .globl	one
.visible .entry one(
	.param .u64 .ptr .global .align 4 one_param_0, // the first
	.param .u32 one_param_1,
	.param .align 8 .b8 one_param_2[24]
)
.maxntid 256, 1, 1
{
	.reg .b32 	%r<2>;
	{ mov.u32 %r1, 1; }
	ret;
}
.func (.reg .b32 r) help(.reg .b32 x) { ret; }
.entry none
{ ret; }
`

func TestParse(t *testing.T) {
	f, err := Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	want := []Param{{"one_param_0", ".u64", 8}, {"one_param_1", ".u32", 4}, {"one_param_2", ".b8", 24}}
	if len(f.Entries) != 2 || !reflect.DeepEqual(f.Entry("one").Params, want) || !strings.Contains(f.Entry("one").Body, "{ mov.u32 %r1, 1; }") {
		t.Errorf("%+v", f)
	}
	if e := f.Entry("none"); e == nil || len(e.Params) != 0 || strings.TrimSpace(e.Body) != "ret;" {
		t.Errorf("%+v", e)
	}
	if f.Entry("hidden") != nil || f.Entry("no") != nil || strings.Contains(f.Rest, "one_param") || !strings.Contains(f.Rest, ".func") {
		t.Errorf("%+v", f)
	}
}

func TestParseErrors(t *testing.T) {
	const head = ".version 4.0\n.target sm_50\n"
	for text, want := range map[string]string{
		"":                                   "not PTX",
		"\x7fELF":                            "not PTX",
		head + ".entry":                      "no name",
		head + ".entry k(.param .u32 a":      "do not end",
		head + ".entry k(.param .u32 a);":    "no body",
		head + ".entry k() { ret;":           "does not end",
		head + ".entry k(.u32 a) { }":        "no argument",
		head + ".entry k(.param .pred a) {}": "no type",
		head + ".entry k(.param .b8 a[0]){}": "size",
		head + "/* ":                         "comment does not end",
		head + ".file \"a\n":                 "string does not end",
		head + ".entry k(){}.entry k(){}":    "two kernels are called k",
	} {
		if f, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", text, f, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			return
		}
		for _, e := range file.Entries {
			if e.Name == "" || strings.Count(e.Body, "{") != strings.Count(e.Body, "}") {
				t.Fatalf("%+v", e)
			}
			for _, p := range e.Params {
				if p.Size < 1 || TypeSize(p.Type) < 1 {
					t.Fatalf("%+v", p)
				}
			}
		}
	})
}
