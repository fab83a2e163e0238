package jobfile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// HostExpr says which hosts a job may run on. The zero value allows all.
//
//	EXPR = TERM {or TERM}
//	TERM = FACTOR {and FACTOR}
//	FACTOR = not FACTOR | ( EXPR ) | KEY=PATTERN | PATTERN
//
// A pattern alone is of the host's name, KEY=PATTERN of one of its labels; a label
// that a host does not have matches no pattern. In patterns * is any number of
// characters and ? is one.
type HostExpr struct{ root *hostNode }

type hostNode struct {
	op           string // "and", "or", "not", ""
	kids         []*hostNode
	key, pattern string // of a leaf; key "": the name
}

// Host is what an expression is about.
type Host struct {
	Names  []string
	Labels map[string]string
}

// Limits of a host expression.
const (
	MaxHostExpr  = 1024 // bytes
	maxHostDepth = 16
)

var (
	hostToken = regexp.MustCompile(`^\s*([()]|[^\s()]+)`)
	labelKey  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,62}$`)
)

// ParseHosts reads a host expression.
func ParseHosts(s string) (HostExpr, error) {
	if len(s) > MaxHostExpr {
		return HostExpr{}, fmt.Errorf("it is longer than %d bytes", MaxHostExpr)
	}
	p := &hostParser{}
	for rest := s; strings.TrimSpace(rest) != ""; {
		m := hostToken.FindStringSubmatch(rest)
		p.tokens = append(p.tokens, m[1])
		rest = rest[len(m[0]):]
	}
	if len(p.tokens) == 0 {
		return HostExpr{}, fmt.Errorf("it is empty")
	}
	n, err := p.or(0)
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("%q is where \"and\", \"or\" or the end is expected", shorten(p.tokens[0]))
	}
	if err != nil {
		return HostExpr{}, err
	}
	return HostExpr{n}, nil
}

// HostNames allows the hosts whose names match one of the patterns.
func HostNames(patterns []string) HostExpr {
	n := &hostNode{op: "or"}
	for _, p := range patterns {
		n.kids = append(n.kids, &hostNode{pattern: p})
	}
	return HostExpr{n}
}

type hostParser struct{ tokens []string }

func (p *hostParser) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	t := p.tokens[0]
	p.tokens = p.tokens[1:]
	return t
}

func (p *hostParser) at(word string) bool { return len(p.tokens) > 0 && p.tokens[0] == word }

func (p *hostParser) or(depth int) (*hostNode, error) { return p.list("or", depth, p.and) }

func (p *hostParser) and(depth int) (*hostNode, error) { return p.list("and", depth, p.factor) }

// list reads what an operator joins.
func (p *hostParser) list(op string, depth int, part func(int) (*hostNode, error)) (*hostNode, error) {
	first, err := part(depth)
	if err != nil || !p.at(op) {
		return first, err
	}
	n := &hostNode{op: op, kids: []*hostNode{first}}
	for p.at(op) {
		p.next()
		k, err := part(depth)
		if err != nil {
			return nil, err
		}
		n.kids = append(n.kids, k)
	}
	return n, nil
}

func (p *hostParser) factor(depth int) (*hostNode, error) {
	if depth > maxHostDepth {
		return nil, fmt.Errorf("it is nested more than %d deep", maxHostDepth)
	}
	switch t := p.next(); t {
	case "":
		return nil, fmt.Errorf("it ends where a host is expected")
	case "and", "or", ")":
		return nil, fmt.Errorf("%q is where a host is expected", t)
	case "not":
		k, err := p.factor(depth + 1)
		return &hostNode{op: "not", kids: []*hostNode{k}}, err
	case "(":
		n, err := p.or(depth + 1)
		if err == nil && p.next() != ")" {
			err = fmt.Errorf("a \")\" is missing")
		}
		return n, err
	default:
		key, pattern, labelled := strings.Cut(t, "=")
		switch {
		case !labelled:
			return &hostNode{pattern: t}, nil
		case !labelKey.MatchString(key) || pattern == "":
			return nil, fmt.Errorf("%q is not a label and its value, such as rack=r1", shorten(t))
		}
		return &hostNode{key: key, pattern: pattern}, nil
	}
}

// Any says whether all hosts are allowed.
func (e HostExpr) Any() bool { return e.root == nil }

// Match says whether a host is allowed.
func (e HostExpr) Match(h Host) bool { return e.root == nil || e.root.match(h) }

func (n *hostNode) match(h Host) bool {
	matches := func(k *hostNode) bool { return k.match(h) }
	switch n.op {
	case "or":
		return slices.ContainsFunc(n.kids, matches)
	case "and":
		return !slices.ContainsFunc(n.kids, func(k *hostNode) bool { return !k.match(h) })
	case "not":
		return !matches(n.kids[0])
	}
	if n.key == "" {
		return slices.ContainsFunc(h.Names, func(name string) bool { return wildcard(n.pattern, name) })
	}
	v, ok := h.Labels[n.key]
	return ok && wildcard(n.pattern, v)
}

// String is the expression as it could be written.
func (e HostExpr) String() string {
	if e.root == nil {
		return "*"
	}
	return e.root.text()
}

func (n *hostNode) text() string {
	switch n.op {
	case "not":
		return "not " + n.kids[0].inner()
	case "":
		if n.key == "" {
			return n.pattern
		}
		return n.key + "=" + n.pattern
	}
	var words []string
	for _, k := range n.kids {
		words = append(words, k.inner())
	}
	return strings.Join(words, " "+n.op+" ")
}

// inner is text in parentheses where they are needed.
func (n *hostNode) inner() string {
	if n.op == "and" || n.op == "or" {
		return "(" + n.text() + ")"
	}
	return n.text()
}

// wildcard matches s with a pattern of * and ?. It takes at most
// len(pattern)·len(s) steps.
func wildcard(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p, i = p+1, i+1
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
