package table

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// node is a part of an expression.
type node struct {
	op   string // "number", "text", "column", a function's name, or an operator
	args []*node
	text string
	num  float64
	re   *regexp.Regexp // of ~ and !~
}

// kind is what a node gives.
type kind int

const (
	cell   kind = iota // a text that may be a number
	number             // or none
	str
	truth
)

// functions are those there are: what they take, all texts, and give.
var functions = map[string]struct {
	args int
	kind kind
}{
	"lower": {1, str}, "upper": {1, str}, "trim": {1, str}, "length": {1, number},
	"contains": {2, truth}, "starts": {2, truth}, "ends": {2, truth}, "isnumber": {1, truth},
}

var words = []string{"and", "or", "not", "in"}

// parser reads an expression.
type parser struct {
	tokens []token
	i      int
	depth  int
}

type token struct {
	kind byte // 'n' number, 't' text, 'c' name, 'q' quoted name, 'o' operator, 0 end
	text string
	at   int
}

// Bounds of an expression.
const (
	maxExpression = 16 << 10
	maxDepth      = 100
)

// parseExpression reads a condition.
func parseExpression(s string) (n *node, err error) {
	p := &parser{}
	if p.tokens, err = scan(s); err != nil {
		return nil, err
	}
	if n, err = p.or(); err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != 0 {
		return nil, fmt.Errorf("%q is not expected at %q", s, rest(s, t.at))
	}
	k, err := n.check()
	if err == nil && k != truth {
		err = fmt.Errorf("%q is a value, not a condition: compare it with something", s)
	}
	return n, err
}

func rest(s string, at int) string {
	if s = s[at:]; len(s) > 20 {
		s = s[:20] + "…"
	}
	return s
}

// operators, the longer first.
var operators = []string{"==", "!=", "<>", "<=", ">=", "!~", "&&", "||", "=", "<", ">", "~", "!", "+", "-", "*", "/", "(", ")", ","}

// scan cuts an expression into tokens.
func scan(s string) (out []token, err error) {
	if len(s) > maxExpression {
		return nil, fmt.Errorf("an expression of more than %d bytes", maxExpression)
	}
	for i := 0; i < len(s); {
		c := s[i]
		start := i
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case c == '\'' || c == '"' || c == '`':
			text, end, ok := quoted(s, i)
			if !ok {
				return nil, fmt.Errorf("the %c at %q is not closed", c, rest(s, i))
			}
			k := byte('t')
			if c == '`' {
				k = 'q'
			}
			out, i = append(out, token{k, text, start}), end
		case c >= '0' && c <= '9' || c == '.':
			for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.' || s[i] == 'e' || s[i] == 'E' || (s[i] == '-' || s[i] == '+') && (s[i-1] == 'e' || s[i-1] == 'E')) {
				i++
			}
			out = append(out, token{'n', s[start:i], start})
		case nameByte(c):
			for i < len(s) && (nameByte(s[i]) || s[i] >= '0' && s[i] <= '9') {
				i++
			}
			out = append(out, token{'c', s[start:i], start})
		default:
			k := slices.IndexFunc(operators, func(o string) bool { return strings.HasPrefix(s[i:], o) })
			if k < 0 {
				return nil, fmt.Errorf("%q is not understood", rest(s, i))
			}
			i += len(operators[k])
			out = append(out, token{'o', operators[k], start})
		}
	}
	return append(out, token{at: len(s)}), nil
}

// quoted reads what stands in the quotes that begin at i; end is behind them.
func quoted(s string, i int) (text string, end int, ok bool) {
	q := s[i]
	var b strings.Builder
	for i++; i < len(s); i++ {
		if s[i] == q {
			if i+1 == len(s) || s[i+1] != q {
				return b.String(), i + 1, true
			}
			i++
		}
		b.WriteByte(s[i])
	}
	return "", 0, false
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= utf8.RuneSelf
}

func (p *parser) peek() token { return p.tokens[p.i] }

// take takes one of the operators or words, if it is next.
func (p *parser) take(of ...string) (string, bool) {
	t := p.peek()
	if t.kind == 'o' && slices.Contains(of, t.text) || t.kind == 'c' && slices.Contains(words, strings.ToLower(t.text)) && slices.Contains(of, strings.ToLower(t.text)) {
		p.i++
		return strings.ToLower(t.text), true
	}
	return "", false
}

func (p *parser) need(op string) error {
	if _, ok := p.take(op); !ok {
		return fmt.Errorf("a %q is missing %s", op, p.where())
	}
	return nil
}

func (p *parser) where() string {
	if t := p.peek(); t.kind != 0 {
		return "before " + strconv.Quote(t.text)
	}
	return "at the end"
}

// chain reads operands between operators that join from the left.
func (p *parser) chain(operand func() (*node, error), of ...string) (*node, error) {
	n, err := operand()
	for err == nil {
		op, ok := p.take(of...)
		if !ok {
			return n, nil
		}
		var m *node
		if m, err = operand(); err == nil {
			n = &node{op: canonical(op), args: []*node{n, m}}
		}
	}
	return nil, err
}

func canonical(op string) string {
	switch op {
	case "||":
		return "or"
	case "&&":
		return "and"
	case "==":
		return "="
	case "<>":
		return "!="
	}
	return op
}

func (p *parser) or() (*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("an expression that is nested deeper than %d", maxDepth)
	}
	defer func() { p.depth-- }()
	return p.chain(p.and, "or", "||")
}

func (p *parser) and() (*node, error) { return p.chain(p.not, "and", "&&") }

func (p *parser) not() (*node, error) {
	negate := false
	for {
		if _, ok := p.take("not", "!"); !ok {
			break
		}
		negate = !negate
	}
	n, err := p.compare()
	if err == nil && negate {
		n = &node{op: "not", args: []*node{n}}
	}
	return n, err
}

func (p *parser) compare() (*node, error) {
	left, err := p.sum()
	if err != nil {
		return nil, err
	}
	if op, ok := p.take("~", "!~"); ok {
		t := p.peek()
		if t.kind != 't' {
			return nil, fmt.Errorf("after %s a text in quotes is needed, a regular expression", op)
		}
		p.i++
		re, err := regexp.Compile(t.text)
		if err != nil {
			return nil, err
		}
		return &node{op: op, args: []*node{left}, re: re}, nil
	}
	from := p.i
	_, negate := p.take("not")
	if _, ok := p.take("in"); ok {
		n, err := p.list(left)
		if err == nil && negate {
			n = &node{op: "not", args: []*node{n}}
		}
		return n, err
	}
	p.i = from
	op, ok := p.take("=", "==", "!=", "<>", "<", "<=", ">", ">=")
	if !ok {
		return left, nil
	}
	right, err := p.sum()
	if err != nil {
		return nil, err
	}
	return &node{op: canonical(op), args: []*node{left, right}}, nil
}

// list reads what follows "in": it is the same as = with any of the elements.
func (p *parser) list(left *node) (*node, error) {
	if err := p.need("("); err != nil {
		return nil, err
	}
	var any *node
	for {
		right, err := p.sum()
		if err != nil {
			return nil, err
		}
		same := &node{op: "=", args: []*node{left, right}}
		if any == nil {
			any = same
		} else {
			any = &node{op: "or", args: []*node{any, same}}
		}
		if _, ok := p.take(","); !ok {
			return any, p.need(")")
		}
	}
}

func (p *parser) sum() (*node, error)     { return p.chain(p.product, "+", "-") }
func (p *parser) product() (*node, error) { return p.chain(p.unary, "*", "/") }

func (p *parser) unary() (*node, error) {
	negate := false
	for {
		if _, ok := p.take("-"); !ok {
			break
		}
		negate = !negate
	}
	n, err := p.primary()
	if err == nil && negate {
		n = &node{op: "negate", args: []*node{n}}
	}
	return n, err
}

func (p *parser) primary() (*node, error) {
	if _, ok := p.take("("); ok {
		n, err := p.or()
		if err != nil {
			return nil, err
		}
		return n, p.need(")")
	}
	t := p.peek()
	switch t.kind {
	case 'n':
		d, err := parseDecimal(t.text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", t.text)
		}
		p.i++
		f, _ := strconv.ParseFloat(d.String(), 64)
		return &node{op: "number", num: f}, nil
	case 't':
		p.i++
		return &node{op: "text", text: t.text}, nil
	case 'q':
		p.i++
		return &node{op: "column", text: t.text}, nil
	case 'c':
		p.i++
		if slices.Contains(words, strings.ToLower(t.text)) {
			return nil, fmt.Errorf("%q is not expected here; a column of that name is written `%s`", t.text, t.text)
		}
		if _, ok := p.take("("); ok {
			return p.call(t.text)
		}
		return &node{op: "column", text: t.text}, nil
	}
	return nil, fmt.Errorf("a column, a number or a text is missing %s", p.where())
}

func (p *parser) call(name string) (*node, error) {
	n := &node{op: strings.ToLower(name)}
	f, ok := functions[n.op]
	if !ok {
		var all []string
		for k := range functions {
			all = append(all, k)
		}
		slices.Sort(all)
		return nil, fmt.Errorf("there is no function %q; there are %s", name, strings.Join(all, ", "))
	}
	for {
		a, err := p.sum()
		if err != nil {
			return nil, err
		}
		n.args = append(n.args, a)
		if _, ok := p.take(","); !ok {
			break
		}
	}
	if len(n.args) != f.args {
		return nil, fmt.Errorf("%s takes %d values, not %d", name, f.args, len(n.args))
	}
	return n, p.need(")")
}

// check finds out what n gives, and whether its parts fit.
func (n *node) check() (kind, error) {
	var kinds []kind
	for _, a := range n.args {
		k, err := a.check()
		if err != nil {
			return 0, err
		}
		kinds = append(kinds, k)
	}
	all := func(what string, ok ...kind) error {
		for _, k := range kinds {
			if !slices.Contains(ok, k) {
				return fmt.Errorf("%s is for %s", n.op, what)
			}
		}
		return nil
	}
	switch n.op {
	case "number":
		return number, nil
	case "text":
		return str, nil
	case "column":
		return cell, nil
	case "and", "or", "not":
		return truth, all("conditions", truth)
	case "+", "-", "*", "/", "negate":
		return number, all("numbers, not for texts and conditions", number, cell)
	case "~", "!~":
		return truth, all("columns and texts", cell, str)
	case "=", "!=", "<", "<=", ">", ">=":
		if err := all("columns, numbers and texts", number, str, cell); err != nil {
			return 0, err
		}
		if slices.Contains(kinds, number) && slices.Contains(kinds, str) {
			return 0, fmt.Errorf("%s compares a number with a text", n.op)
		}
		return truth, nil
	}
	return functions[n.op].kind, all("columns and texts", cell, str)
}

// columns calls f with the name of every column in n.
func (n *node) columns(f func(string)) {
	if n.op == "column" {
		f(n.text)
	}
	for _, a := range n.args {
		a.columns(f)
	}
}

// A row's cells, and what is made of them.
type (
	row       []string
	condition func(row) bool
	numeric   func(row) (float64, bool) // false: it is no number
	textual   func(row) string
)

// condition compiles n for columns at these places.
func (n *node) condition(at map[string]int) condition {
	switch n.op {
	case "and":
		a, b := n.args[0].condition(at), n.args[1].condition(at)
		return func(r row) bool { return a(r) && b(r) }
	case "or":
		a, b := n.args[0].condition(at), n.args[1].condition(at)
		return func(r row) bool { return a(r) || b(r) }
	case "not":
		a := n.args[0].condition(at)
		return func(r row) bool { return !a(r) }
	case "~", "!~":
		a, re, want := n.args[0].textual(at), n.re, n.op == "~"
		return func(r row) bool { return re.MatchString(a(r)) == want }
	case "contains", "starts", "ends":
		a, b := n.args[0].textual(at), n.args[1].textual(at)
		f := map[string]func(string, string) bool{"contains": strings.Contains, "starts": strings.HasPrefix, "ends": strings.HasSuffix}[n.op]
		return func(r row) bool { return f(a(r), b(r)) }
	case "isnumber":
		a := n.args[0].textual(at)
		return func(r row) bool { _, ok := parseNumber(a(r)); return ok }
	}
	return comparison(n.op, n.args[0], n.args[1], at)
}

func comparison(op string, x, y *node, at map[string]int) condition {
	holds := map[string]func(int) bool{
		"=": func(c int) bool { return c == 0 }, "!=": func(c int) bool { return c != 0 },
		"<": func(c int) bool { return c < 0 }, "<=": func(c int) bool { return c <= 0 },
		">": func(c int) bool { return c > 0 }, ">=": func(c int) bool { return c >= 0 },
	}[op]
	kx, _ := x.check()
	ky, _ := y.check()
	if kx == number || ky == number {
		a, b := x.numeric(at), y.numeric(at)
		return func(r row) bool {
			u, ok := a(r)
			if !ok {
				return false
			}
			v, ok := b(r)
			return ok && holds(order(u, v))
		}
	}
	a, b := x.textual(at), y.textual(at)
	if kx == str || ky == str {
		return func(r row) bool { return holds(strings.Compare(a(r), b(r))) }
	}
	return func(r row) bool {
		s, t := a(r), b(r)
		u, ok := parseNumber(s)
		v, ok2 := parseNumber(t)
		if ok && ok2 {
			return holds(order(u, v))
		}
		return holds(strings.Compare(s, t))
	}
}

func order(u, v float64) int {
	switch {
	case u < v:
		return -1
	case u > v:
		return 1
	}
	return 0
}

// numeric compiles n as a number.
func (n *node) numeric(at map[string]int) numeric {
	switch n.op {
	case "number":
		v := n.num
		return func(row) (float64, bool) { return v, true }
	case "column":
		i := at[n.text]
		return func(r row) (float64, bool) { return parseNumber(r[i]) }
	case "negate":
		a := n.args[0].numeric(at)
		return func(r row) (float64, bool) { v, ok := a(r); return -v, ok }
	case "length":
		a := n.args[0].textual(at)
		return func(r row) (float64, bool) { return float64(utf8.RuneCountInString(a(r))), true }
	}
	a, b, op := n.args[0].numeric(at), n.args[1].numeric(at), n.op
	return func(r row) (float64, bool) {
		u, ok := a(r)
		v, ok2 := b(r)
		if !ok || !ok2 {
			return 0, false
		}
		switch op {
		case "+":
			u += v
		case "-":
			u -= v
		case "*":
			u *= v
		default:
			u /= v
		}
		return u, !math.IsNaN(u) && !math.IsInf(u, 0)
	}
}

// textual compiles n as a text.
func (n *node) textual(at map[string]int) textual {
	switch n.op {
	case "text":
		s := n.text
		return func(row) string { return s }
	case "column":
		i := at[n.text]
		return func(r row) string { return r[i] }
	}
	a := n.args[0].textual(at)
	f := map[string]func(string) string{"lower": strings.ToLower, "upper": strings.ToUpper, "trim": strings.TrimSpace}[n.op]
	return func(r row) string { return f(a(r)) }
}

// parseNumber reads a cell as a number: what parseDecimal takes, as float64.
func parseNumber(s string) (float64, bool) {
	d, err := parseDecimal(s)
	if err != nil {
		return 0, false
	}
	if d.large == nil && d.m < 1<<53 && d.m > -1<<53 && d.e <= 0 && d.e >= -22 {
		return float64(d.m) / math.Pow10(-d.e), true // both exact, so rounded once
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	return f, err == nil || errors.Is(err, strconv.ErrRange) // then it is infinite
}
