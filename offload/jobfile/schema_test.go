package jobfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// values are of every kind that YAML has, and few are right for any field.
var values = []string{
	"", "~", "true", "7", "-1", "1.5", "1e300", ".nan", "0x10", `""`, `" "`, "text", "a/b", "../x", "/", "/../x", "/a[", "'[ä'", `"\u0001"`, `"a\nb"`,
	"[]", "[7]", "[text, text]", "[[x]]", "[~]", "[{a: b}]", "{}", "{a: b}", "{a: [1]}", "{'': 1}", "{text: ~}", "2026-01-01", "!!binary aGk=", "&a [*a]",
	strings.Repeat("x", 5000), "[" + strings.Repeat("x, ", 300) + "x]", "99999999999999999999", "12 parsecs", "-5m", "0", "1000000TiB", "no",
}

// field is one of the schema, by the names that lead to it.
type field struct {
	path     []string
	required []string // beside it, in the mapping that it belongs to
}

// fieldsOf lists those of a schema and of what lies within.
func fieldsOf(defs, schema map[string]any, path []string) (out []field) {
	if ref, ok := schema["$ref"].(string); ok {
		schema = defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
	}
	properties, _ := schema["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		f := field{path: append(slices.Clone(path), name)}
		required, _ := schema["required"].([]any)
		for _, r := range required {
			if r != name {
				f.required = append(f.required, r.(string))
			}
		}
		out = append(append(out, f), fieldsOf(defs, properties[name].(map[string]any), f.path)...)
	}
	return out
}

// example is a right value of a field that others need.
var example = map[string]string{
	"version": "1", "kernel": "k", "inputs": "[/a]", "argv": "[x]", "exec": "{argv: [x]}", "wasm": "/k.wasm", "output": "/out/{name}",
}

// with is a file in which a field has a value, and the line on which it begins.
func (f field) with(value string) (file string, line int) {
	var b strings.Builder
	top := f.path[0]
	for _, name := range []string{"version", "kernel", "inputs"} {
		if name != top && (name != "kernel" || top != "exec" && top != "wasm") {
			fmt.Fprintf(&b, "%s: %s\n", name, example[name])
		}
	}
	for i, name := range f.path {
		indent := strings.Repeat("  ", i)
		if i < len(f.path)-1 {
			fmt.Fprintf(&b, "%s%s:\n", indent, name)
			continue
		}
		if i > 0 {
			for _, r := range f.required {
				fmt.Fprintf(&b, "%s%s: %s\n", indent, r, example[r])
			}
		}
		line = 1 + strings.Count(b.String(), "\n")
		fmt.Fprintf(&b, "%s%s: %s\n", indent, name, value)
	}
	return b.String(), line
}

// TestWrongValues gives every field of docs/job.schema.json, those within others
// too, values of every kind. What the schema refuses the parser refuses, in one
// sentence that begins with the line; but a number or the like is text where text
// is wanted.
func TestWrongValues(t *testing.T) {
	const file = "../../docs/job.schema.json"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	compiled, err := jsonschema.NewCompiler().Compile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := fieldsOf(schema["$defs"].(map[string]any), schema, nil)
	refused, taken := 0, 0
	for _, f := range all {
		wrong := 0
		for _, value := range values {
			text, line := f.with(value)
			_, err := Parse([]byte(text))
			if err == nil {
				taken++
			} else if wrong++; !oneSentence(err, line) {
				t.Errorf("%q, of line %d: %v", text, line, err)
			}
			var root yaml.Node
			if yaml.Unmarshal([]byte(text), &root) != nil {
				continue // an alias within itself: no JSON
			}
			if !valid(compiled, &root) && !valid(compiled, asText(&root)) {
				refused++
				if err == nil {
					t.Errorf("%q is taken, and the schema refuses it", text)
				}
			}
		}
		if wrong == 0 {
			t.Errorf("%s takes anything", strings.Join(f.path, "."))
		}
	}
	t.Logf("%d fields: %d values refused by the schema, %d files taken by the parser", len(all), refused, taken)
}

func valid(schema *jsonschema.Schema, n *yaml.Node) bool {
	var v any
	return n.Decode(&v) == nil && schema.Validate(v) == nil
}

// asText makes text of the number, date or the like that a file ends with.
func asText(root *yaml.Node) *yaml.Node {
	n := root
	for len(n.Content) > 0 {
		n = n.Content[len(n.Content)-1]
	}
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		n.Tag = "!!str"
	}
	return root
}

// oneSentence: the error is one, which begins with the line.
func oneSentence(err error, line int) bool {
	var e *Error
	text := err.Error()
	return errors.As(err, &e) && strings.HasPrefix(text, fmt.Sprintf("line %d: ", line)) && !strings.ContainsAny(text, "\n\x00\x01") && len(text) < 500
}
