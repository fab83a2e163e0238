package jobfile

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Rule is a file of /.compute/rules that has been checked:
//
//	version: 1
//	about: what the cameras see      # one line
//	match:
//	  path: /camera/**/*.raw         # files, trees, patterns, as inputs have them; or a list
//	  except: [/camera/test]         # but not these
//	  min_size: 1KiB
//	  max_size: 1GiB
//	when: [close, rename]            # a written file is closed, a file gets a name; default: both
//	where: here                      # on the host of the mount that the file came through; default: any
//	job:                             # a job file without version, name and inputs
//	  kernel: digits
//	  output: /seen/{name}.labels
//	then: keep                       # what becomes of the file; or drop, {keep_if: …}, {drop_if: …}
type Rule struct {
	About            string
	Match, Except    []Input
	MinSize, MaxSize int64 // bytes; MaxSize 0: any
	Close, Rename    bool
	Here             bool  // the job runs on the host that the file came through
	Job              *Spec // without inputs
	Then             Then

	job *yaml.Node
}

// Then is what becomes of the file that a rule's job was submitted for, once
// that has succeeded.
type Then struct {
	Drop    Drop
	Pattern string // a regular expression, for Found and NotFound
}

// Drop says when the file is removed.
type Drop string

const (
	Never    Drop = "never"
	Always   Drop = "always"
	Empty    Drop = "empty"     // if the results are empty
	NotEmpty Drop = "not empty" // if they are not
	Found    Drop = "found"     // if a line of them fits the pattern
	NotFound Drop = "not found" // if none does
)

// String is then as a rule has it.
func (t Then) String() string {
	switch t.Drop {
	case Always:
		return "drop"
	case Empty:
		return "drop_if: empty"
	case NotEmpty:
		return "drop_if: nonempty"
	case Found:
		return fmt.Sprintf("drop_if: {matches: %q}", t.Pattern)
	case NotFound:
		return fmt.Sprintf("keep_if: {matches: %q}", t.Pattern)
	}
	return "keep"
}

// MaxThenPattern bounds the regular expression of then, in bytes.
const MaxThenPattern = 1 << 10

var errTemplate = errors.New("the input is the file that the rule is for")

// ParseRule reads and checks a rule. Its error is an *Error.
func ParseRule(data []byte) (*Rule, error) {
	root, err := document(data, "a rule")
	if err != nil {
		return nil, err
	}
	r := &Rule{Close: true, Rename: true, Then: Then{Drop: Never}}
	version, thenLine := false, 0
	err = fields(root, map[string]func(*yaml.Node) error{
		"version": func(n *yaml.Node) error {
			version = true
			return versionOne(n)
		},
		"about": func(n *yaml.Node) (err error) {
			if r.About, err = text(n, "about"); err == nil && (len(r.About) > 200 || strings.ContainsAny(r.About, "\r\n")) {
				err = Errorf(n.Line, "about must be one line of at most 200 bytes")
			}
			return err
		},
		"where": func(n *yaml.Node) error {
			if n.Kind != yaml.ScalarNode || n.Value != "any" && n.Value != "here" {
				return Errorf(n.Line, "where must be any or here, not %s", describe(n))
			}
			r.Here = n.Value == "here"
			return nil
		},
		"match": r.parseMatch,
		"when":  r.parseWhen,
		"job": func(n *yaml.Node) (err error) {
			if n.Kind != yaml.MappingNode {
				return Errorf(n.Line, "job must be a mapping such as {kernel: wordcount}, not %s", describe(n))
			}
			r.job = n
			r.Job, err = parse(n, errTemplate)
			return err
		},
		"then": func(n *yaml.Node) (err error) {
			thenLine = n.Line
			r.Then, err = then(n)
			return err
		},
	})
	switch {
	case err != nil:
		return nil, err
	case !version:
		return nil, Errorf(root.Line, "a rule begins with \"version: 1\"")
	case len(r.Match) == 0:
		return nil, Errorf(0, "the rule matches nothing: give \"match: {path: /DIRECTORY}\"")
	case r.Job == nil:
		return nil, Errorf(0, "the rule has no job: give \"job:\" and what it runs, such as {kernel: wordcount}")
	case r.Then.Drop != Never && r.Job.IfExists == Skip:
		return nil, Errorf(thenLine, "then removes the file once its results are there, but with \"if_exists: skip\" they may be left out: use fail or replace")
	}
	return r, nil
}

func (r *Rule) parseMatch(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return Errorf(n.Line, "match must be a mapping such as {path: /camera/**}, not %s", describe(n))
	}
	paths := func(field string, to *[]Input) func(*yaml.Node) error {
		return func(n *yaml.Node) (err error) {
			*to, err = patterns(n, field)
			return err
		}
	}
	least, most := 0, 0
	err := fields(n, map[string]func(*yaml.Node) error{
		"path":   paths("match.path", &r.Match),
		"except": paths("match.except", &r.Except),
		"min_size": func(n *yaml.Node) (err error) {
			least = n.Line
			r.MinSize, err = sizeBetween(n, "match.min_size", 0, 1<<60, "0 to 1048576TiB such as 64KiB")
			return err
		},
		"max_size": func(n *yaml.Node) (err error) {
			most = n.Line
			r.MaxSize, err = sizeBetween(n, "match.max_size", 1, 1<<60, "1 to 1048576TiB such as 1GiB")
			return err
		},
	})
	if err == nil && most > 0 && r.MinSize > r.MaxSize {
		err = Errorf(max(least, most), "match.min_size is above match.max_size: no file fits")
	}
	if err == nil && len(r.Match) == 0 {
		err = Errorf(n.Line, "match has no path: give \"path: /DIRECTORY\" or a pattern")
	}
	return err
}

func (r *Rule) parseWhen(n *yaml.Node) error {
	r.Close, r.Rename = false, false
	nodes := []*yaml.Node{n}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		var err error
		if nodes, err = texts(n, "when", 2); err != nil {
			return err
		}
	}
	for _, c := range nodes {
		switch c.Value {
		case "close":
			r.Close = true
		case "rename":
			r.Rename = true
		default:
			return Errorf(c.Line, "when must be close, rename or both, not %s", describe(c))
		}
	}
	if !r.Close && !r.Rename {
		return Errorf(n.Line, "when must be close, rename or both, not an empty list")
	}
	return nil
}

func then(n *yaml.Node) (t Then, err error) {
	bad := Errorf(n.Line, "then must be keep, drop, or a mapping such as {keep_if: nonempty} or {drop_if: {matches: PATTERN}}, not %s", describe(n))
	switch {
	case n.Kind == yaml.ScalarNode && n.Value == "keep":
		return Then{Drop: Never}, nil
	case n.Kind == yaml.ScalarNode && n.Value == "drop":
		return Then{Drop: Always}, nil
	case n.Kind != yaml.MappingNode || len(n.Content) == 0:
		return t, bad
	}
	first := ""
	condition := func(field string, yes, no [2]Drop) func(*yaml.Node) error {
		return func(n *yaml.Node) error {
			if first != "" {
				return Errorf(n.Line, "then has %s and %s; keep one", first, field)
			}
			first = field
			switch {
			case n.Kind == yaml.ScalarNode && n.Value == "nonempty":
				t.Drop = yes[0]
				return nil
			case n.Kind == yaml.ScalarNode && n.Value == "empty":
				t.Drop = no[0]
				return nil
			case n.Kind != yaml.MappingNode || len(n.Content) == 0:
				return Errorf(n.Line, "then.%s must be empty, nonempty or {matches: PATTERN}, not %s", field, describe(n))
			}
			t.Drop = yes[1]
			return fields(n, map[string]func(*yaml.Node) error{"matches": func(n *yaml.Node) (err error) {
				if t.Pattern, err = text(n, "then."+field+".matches"); err != nil {
					return err
				}
				if len(t.Pattern) == 0 || len(t.Pattern) > MaxThenPattern {
					return Errorf(n.Line, "then.%s.matches must have 1 to %d bytes, not %d", field, MaxThenPattern, len(t.Pattern))
				}
				if _, err := regexp.Compile(t.Pattern); err != nil {
					return Errorf(n.Line, "then.%s.matches is not a regular expression: %v", field, err)
				}
				return nil
			}})
		}
	}
	err = fields(n, map[string]func(*yaml.Node) error{
		"drop_if": condition("drop_if", [2]Drop{NotEmpty, Found}, [2]Drop{Empty}),
		"keep_if": condition("keep_if", [2]Drop{Empty, NotFound}, [2]Drop{NotEmpty}),
	})
	return t, err
}

// Applies says whether the rule is for the file at a path (absolute, clean) of
// so many bytes. A path without wildcards stands for the file of that name, and
// for all below it but what begins with a dot.
func (r *Rule) Applies(p string, size int64) bool {
	if size < r.MinSize || r.MaxSize > 0 && size > r.MaxSize {
		return false
	}
	fits := func(in Input) bool {
		if Wild(in.Pattern) {
			return Match(in.Pattern, p)
		}
		rest, below := strings.CutPrefix(p, strings.TrimSuffix(in.Pattern, "/")+"/")
		return p == in.Pattern || below && !strings.HasPrefix(rest, ".") && !strings.Contains(rest, "/.")
	}
	return slices.ContainsFunc(r.Match, fits) && !slices.ContainsFunc(r.Except, fits)
}

// JobFile is the job file of the rule for the file at a path, which came through
// a mount on that host. The job is to begin once those of the names in after
// have ended, however that was.
func (r *Rule) JobFile(p, host string, after ...string) ([]byte, error) {
	n := &yaml.Node{Kind: yaml.MappingNode}
	var placement *yaml.Node
	for i := 0; i+1 < len(r.job.Content); i += 2 {
		switch field := r.job.Content[i].Value; {
		case field == "after" && len(after) > 0:
		case field == "placement" && r.Here:
			placement = r.job.Content[i+1]
		default:
			n.Content = append(n.Content, r.job.Content[i], r.job.Content[i+1])
		}
	}
	str := func(s string) *yaml.Node {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
	}
	add := func(field string, value *yaml.Node) {
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: field}, value)
	}
	if len(after) > 0 {
		all := &yaml.Node{Kind: yaml.MappingNode}
		for _, a := range r.Job.After {
			all.Content = append(all.Content, str(a.Name), str(a.When))
		}
		for _, name := range after {
			if !slices.ContainsFunc(r.Job.After, func(a After) bool { return a.Name == name }) {
				all.Content = append(all.Content, str(name), str("any"))
			}
		}
		add("after", all)
	}
	if r.Here {
		if host == "" {
			return nil, errors.New("the host of this mount has no name, and the rule says \"where: here\"")
		}
		add("placement", on(host, placement))
	}
	add("version", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: "1"})
	add("inputs", &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{str(r.input(p))}})
	return Marshal(n)
}

// input is the entry of inputs for the file at p. If its place below the tree that
// the rule looks at is in the name of the result, the entry says where that begins.
func (r *Rule) input(p string) string {
	if r.Job.outputHas("{dir}", "{path}") {
		for _, in := range r.Match {
			if rest, ok := in.below(p); ok {
				return Literal(strings.TrimSuffix(p, "/"+rest)) + "/./" + Literal(rest)
			}
		}
	}
	return Literal(p)
}

// on is a placement on one host, among those that another placement (nil: none)
// allows.
func on(host string, p *yaml.Node) *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode}
	expr := "host=" + host
	for i := 0; p != nil && i+1 < len(p.Content); i += 2 {
		switch v := p.Content[i+1]; {
		case p.Content[i].Value != "hosts":
			out.Content = append(out.Content, p.Content[i], v)
		case v.Kind == yaml.SequenceNode:
			var names []string
			for _, name := range v.Content {
				names = append(names, name.Value)
			}
			expr = "(" + strings.Join(names, " or ") + ") and " + expr
		default:
			expr = "(" + v.Value + ") and " + expr
		}
	}
	out.Content = append(out.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "hosts"},
		&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: expr, Style: yaml.DoubleQuotedStyle})
	return out
}

// Literal is the pattern that matches exactly this path.
func Literal(p string) string {
	var b strings.Builder
	for i := range len(p) {
		switch c := p[i]; c {
		case '*', '?', '[':
			b.WriteString("[" + string(rune(c)) + "]")
		case '\\':
			b.WriteString(`\\`)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
