package jobfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"quernfs/internal/rawtext"
)

// document parses data into the one mapping that it must hold.
func document(data []byte, what string) (*yaml.Node, error) {
	if len(data) > MaxFile {
		return nil, Errorf(0, "%s is larger than %d KiB", what, MaxFile>>10)
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return nil, Errorf(1+bytes.Count(data[:i], []byte{'\n'}), "%s is text, this is a byte 0", what)
	}
	dec := yaml.NewDecoder(bytes.NewReader(hide(data)))
	var doc yaml.Node
	switch err := decode(dec, &doc); {
	case errors.Is(err, io.EOF):
		return nil, Errorf(0, "%s is empty", what)
	case err != nil:
		return nil, syntaxError(err)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, Errorf(root.Line, "%s is a list of fields such as \"kernel: wordcount\", not %s", what, describe(root))
	}
	var next yaml.Node
	switch err := decode(dec, &next); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, syntaxError(err)
	default:
		return nil, Errorf(next.Line, "%s holds one document, here begins another", what)
	}
	return root, nil
}

// decode turns a panic of the YAML parser, which malformed input has caused
// before, into an error. What was hidden is shown in n.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not valid YAML (%v)", r)
		}
	}()
	if err := dec.Decode(n); err != nil {
		return err
	}
	walkNodes(n, show)
	return nil
}

// YAML is UTF-8, and names are bytes: they stand in a job file as they are, or
// within double quotes with the escapes \udc80 to \udcff for bytes that are not
// UTF-8 (package rawtext).

func hide(data []byte) []byte { return rawtext.UnescapeTo8([]byte(rawtext.Hide(string(data)))) }

// longEscape is what hide makes of an escape, written what the writer of YAML
// makes of what Hide has made.
var (
	longEscape = regexp.MustCompile(`\\U0010f7([89a-fA-F][0-9a-fA-F])`)
	written    = regexp.MustCompile(`\\U0010F7([89A-F][0-9A-F])`)
)

// show takes back what hide has done. Only within double quotes were there
// escapes.
func show(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Style&yaml.DoubleQuotedStyle == 0 {
		n.Value = longEscape.ReplaceAllString(n.Value, `\udc$1`)
	}
	for _, s := range []*string{&n.Value, &n.HeadComment, &n.LineComment, &n.FootComment} {
		*s = rawtext.Show(*s)
	}
}

func walkNodes(n *yaml.Node, f func(*yaml.Node)) {
	f(n)
	for _, c := range n.Content {
		walkNodes(c, f)
	}
}

// Unmarshal reads YAML with any bytes in it.
func Unmarshal(data []byte, n *yaml.Node) error {
	err := decode(yaml.NewDecoder(bytes.NewReader(hide(data))), n)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Marshal writes YAML that Unmarshal and Parse read.
func Marshal(n *yaml.Node) ([]byte, error) {
	text, err := yaml.Marshal(hidden(n))
	if err != nil {
		return nil, err
	}
	// The writer escapes all that is beyond its idea of what can be printed.
	return []byte(rawtext.Show(written.ReplaceAllString(string(text), `\udc$1`))), nil
}

// hidden is a copy of n with its strings hidden.
func hidden(n *yaml.Node) *yaml.Node {
	c := *n
	c.Value = rawtext.Hide(n.Value)
	for _, s := range []*string{&c.HeadComment, &c.LineComment, &c.FootComment} {
		*s = rawtext.Hide(*s)
	}
	c.Content = nil
	for _, child := range n.Content {
		c.Content = append(c.Content, hidden(child))
	}
	return &c
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)

func syntaxError(err error) *Error {
	text := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", " "), "yaml: ")
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1])
		return Errorf(n, "not valid YAML: %s", m[2])
	}
	return Errorf(0, "not valid YAML: %s", text)
}

// fields walks a mapping. known has the handler of each field.
func fields(n *yaml.Node, known map[string]func(*yaml.Node) error) error {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			return Errorf(k.Line, "a field's name is a word, not %s", describe(k))
		}
		if at, ok := seen[k.Value]; ok {
			return Errorf(k.Line, "field %q is here a second time; the first is on line %d", k.Value, at)
		}
		seen[k.Value] = k.Line
		set, ok := known[k.Value]
		if !ok {
			names := make([]string, 0, len(known))
			for name := range known {
				names = append(names, name)
			}
			return Errorf(k.Line, "unknown field %q%s", k.Value, DidYouMean(k.Value, names))
		}
		if err := set(v); err != nil {
			return err
		}
	}
	return nil
}

// describe names what a node is, for sentences.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping"
	case yaml.AliasNode:
		return "an alias"
	case yaml.ScalarNode:
		switch n.Tag {
		case "!!null":
			return "nothing"
		case "!!int", "!!float":
			return "the number " + n.Value
		case "!!bool":
			return n.Value
		case "!!str":
			return strconv.Quote(shorten(n.Value))
		}
		return "a " + strings.TrimPrefix(n.Tag, "!!")
	}
	return "something else"
}

func shorten(s string) string {
	if len(s) > 60 {
		return s[:57] + "..."
	}
	return s
}

// text reads a string. Numbers and booleans pass as they are written: a name
// may well be 2024.
func text(n *yaml.Node, field string) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Tag == "!!binary" {
		return "", Errorf(n.Line, "%s must be text, not %s", field, describe(n))
	}
	if strings.ContainsRune(n.Value, 0) {
		return "", Errorf(n.Line, "%s must not contain a byte 0", field)
	}
	return n.Value, nil
}

// texts reads a list of strings.
func texts(n *yaml.Node, field string, most int) ([]*yaml.Node, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, Errorf(n.Line, "%s must be a list, not %s", field, describe(n))
	}
	if len(n.Content) > most {
		return nil, Errorf(n.Line, "%s has %d entries; at most %d are allowed", field, len(n.Content), most)
	}
	for i, c := range n.Content {
		if _, err := text(c, fmt.Sprintf("entry %d of %s", i+1, field)); err != nil {
			return nil, err
		}
	}
	return n.Content, nil
}

// DidYouMean asks whether the known word next to the given one was meant, if
// one is near; else it returns "".
func DidYouMean(word string, known []string) string {
	best, bestDist := "", 3
	for _, k := range known {
		d := distance(strings.ToLower(word), k)
		if d < bestDist || d == bestDist && best != "" && k < best {
			best, bestDist = k, d
		}
	}
	if best == "" || bestDist >= len(best) {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours between a and b (optimal string alignment).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var prev2 []int
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, cur
	}
	return prev[len(b)]
}
