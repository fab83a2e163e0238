package rawtext

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestJSON(t *testing.T) {
	for s, want := range map[string]string{
		"plain":          `"plain"`,
		"caf\xe9":        `"caf\udce9"`,
		"日本\xff":         `"日本\udcff"`,
		"\U0010F7E9":     `"\udcf4\udc8f\udc9f\udca9"`,
		`\udce9`:         `"\\udce9"`,
		"\ufffd":         "\"\ufffd\"",
		"a\x00\"\\\x80b": `"a\u0000\"\\\udc80b"`,
	} {
		got, err := Marshal(s)
		if err != nil || string(got) != want {
			t.Errorf("%q: %s %v, wanted %s", s, got, err, want)
		}
		var back string
		if err := Unmarshal(got, &back); err != nil || back != s {
			t.Errorf("%q comes back as %q %v", s, back, err)
		}
	}
	// A pair of surrogates is one character, whatever its halves look like.
	var s string
	if err := Unmarshal([]byte(`"\ud83d\udc80 \uDCE9"`), &s); err != nil || s != "\U0001F480 \xe9" {
		t.Errorf("%q %v", s, err)
	}
}

type inner struct{ Name string }

type outer struct {
	inner
	List  []string
	Map   map[string]*inner
	Any   any
	When  time.Time
	Bytes []byte
	none  string
}

// TestStructs: strings are found wherever encoding/json finds them, and what was
// given stays as it is.
func TestStructs(t *testing.T) {
	const x = "\xe9\xff"
	v := outer{inner{x}, []string{x, "b"}, map[string]*inner{x: {x}}, []any{x}, time.Unix(1, 0).UTC(), []byte(x), x}
	was := outer{inner{x}, []string{x, "b"}, map[string]*inner{x: {x}}, []any{x}, time.Unix(1, 0).UTC(), []byte(x), x}
	text, err := MarshalIndent(&v, "", " ")
	if err != nil || !utf8.Valid(text) || strings.Count(string(text), `\udce9\udcff`) != 5 {
		t.Fatalf("%s %v", text, err)
	}
	if !reflect.DeepEqual(v, was) {
		t.Errorf("the value was changed: %+v", v)
	}
	back := outer{none: x}
	if err := Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, was) {
		t.Errorf("%+v %v", back, err)
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("a\xe9\U0010F7E9\ufffd\\udce9")
	f.Fuzz(func(t *testing.T, s string) {
		hidden := Hide(s)
		if !utf8.ValidString(hidden) || Show(hidden) != s {
			t.Errorf("%q is hidden as %q, and shown as %q", s, hidden, Show(hidden))
		}
		text, err := Marshal([]string{s})
		if err != nil || !json.Valid(text) {
			t.Fatalf("%q: %s %v", s, text, err)
		}
		var back []string
		if err := Unmarshal(text, &back); err != nil || back[0] != s {
			t.Errorf("%q comes back as %q %v", s, back, err)
		}
	})
}
