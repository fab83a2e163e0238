package jobfile

import (
	"testing"

	"gopkg.in/yaml.v3"
)

// TestBytes: names in a job file are bytes, written as they are or escaped.
func TestBytes(t *testing.T) {
	const head = "version: 1\nname: n\xff\nkernel: wordcount\n"
	for text, want := range map[string]string{
		head + "inputs: [/caf\xe9/*]\n":                        "/caf\xe9/*",
		head + "inputs: [\"/caf\xe9\"]  # \xff\n":              "/caf\xe9",
		head + `inputs: ["/caf\udce9/\uDCFF", x]`:              "/caf\xe9/\xff",
		head + `inputs: ['/caf\udce9']`:                        `/caf\udce9`,
		head + `inputs: [/caf\udce9]`:                          `/caf\udce9`,
		head + "inputs: ['/\x93\xfa\x96{\x95\\\\']\n":          "/\x93\xfa\x96{\x95\\\\",
		head + "inputs: [/\U0010F7E9, \"/\\U0001F480\"]\n":     "/\U0010F7E9",
		head + "inputs: [\"/\\U0001F480\"]\noutput: {a: b}\n#": "",
	} {
		s, err := Parse([]byte(text))
		if want == "" || text[len(text)-2:] == "x]" {
			if err == nil {
				t.Errorf("%q is taken", text)
			}
			if want == "" {
				continue
			}
			s, err = Parse([]byte(text[:len(text)-4] + "]"))
		}
		if err != nil || s.Inputs[0].Pattern != want || s.Name != "n\xff" {
			t.Errorf("%q: %+v %v, wanted %q", text, s, err, want)
		}
	}
}

// TestBytesMarshalled: what is written can be read, in UTF-8.
func TestBytesMarshalled(t *testing.T) {
	for _, name := range []string{"/caf\xe9 x", "\xff", "/\U0010F7E9", `/\udce9`, `/\U0010f7E`, "/a\nb\xe9", "/日本\x80"} {
		n := &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}}}
		text, err := Marshal(n)
		var back yaml.Node
		if err == nil {
			err = Unmarshal(text, &back)
		}
		if err != nil || back.Content[0].Content[0].Value != name {
			t.Errorf("%q is written as %q, and read as %+v %v", name, text, back.Content, err)
		}
	}
}

// TestBytesInPatterns: a byte that is not part of UTF-8 is a character.
func TestBytesInPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"/*.txt", "/caf\xe9.txt", true},
		{"/caf?", "/caf\xe9", true},
		{"/caf??", "/caf\xe9", false},
		{"/caf[\xe0-\xef]", "/caf\xe9", true},
		{"/caf[^\xe9]", "/caf\xe9", false},
		{"/caf\xe9", "/caf\xe8", false},
		{"/caf?", "/café", true},
		{"/**/\xe9", "/\xff/\xfe/\xe9", true},
		{"/\ufffd", "/\xe9", false},
	} {
		if err := CheckPattern(c.pattern); err != nil {
			t.Errorf("%q: %v", c.pattern, err)
		}
		if got := Match(c.pattern, c.name); got != c.want {
			t.Errorf("%q and %q: %t", c.pattern, c.name, got)
		}
	}
}
