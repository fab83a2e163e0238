package table

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// aggregate is one number, or text, of each group.
type aggregate struct {
	op     string
	column string // "" of a count of records
	as     string
}

// operations are what there is, and how many cells the state of each has.
var operations = map[string]int{"count": 1, "sum": 1, "mean": 2, "min": 1, "max": 1, "first": 1, "last": 1}

// parseAggregates reads "count, sum(a), mean(b) as avg".
func parseAggregates(s string) (out []aggregate, err error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	l := list{field: "aggregate"}
	if l.tokens, err = scan(s); err != nil {
		return nil, fmt.Errorf("aggregate: %w", err)
	}
	for {
		name, err := l.name()
		if err != nil {
			return nil, err
		}
		a := aggregate{op: strings.ToLower(name)}
		if operations[a.op] == 0 {
			return nil, fmt.Errorf("there is no aggregate %q; there are count, sum, mean, min and max of numbers, and first and last in the order of bytes", name)
		}
		title := a.op
		switch {
		case l.is("("):
			if !l.is("*") || a.op != "count" {
				if a.column, err = l.name(); err != nil {
					return nil, err
				}
				title = a.op + "(" + a.column + ")"
			}
			if !l.is(")") {
				return nil, l.bad(`")"`)
			}
		case a.op != "count":
			return nil, fmt.Errorf("%s needs a column: %s(NAME)", a.op, a.op)
		}
		if a.as, err = l.as(title); err != nil {
			return nil, err
		}
		out = append(out, a)
		more, err := l.more()
		if err != nil || !more {
			return out, err
		}
	}
}

// state is an aggregate of a group, so far. Empty cells count in none but a
// count of records.
type state struct {
	n    int64
	sum  *sum
	best decimal // of min and max
	text string  // of first and last
}

// groups are the aggregates of all groups.
type groups struct {
	q      *Query
	index  map[string]int // by key
	all    []group
	key    []byte
	by     []int // places of columns in the file that is read
	column []int // the same of the aggregates; -1: none
}

type group struct {
	cells  []string
	states []state
}

func newGroups(q *Query) *groups { return &groups{q: q, index: map[string]int{}} }

func (g *groups) begin(at map[string]int) {
	g.by, g.column = g.by[:0], g.column[:0]
	for _, p := range g.q.by {
		g.by = append(g.by, at[p.column])
	}
	for _, a := range g.q.aggregates {
		i := -1
		if a.column != "" {
			i = at[a.column]
		}
		g.column = append(g.column, i)
	}
}

// find returns the group of these cells of a record.
func (g *groups) find(record []string, places []int) *group {
	g.key = g.key[:0]
	for _, i := range places {
		g.key = binary.AppendUvarint(g.key, uint64(len(record[i])))
		g.key = append(g.key, record[i]...)
	}
	if i, ok := g.index[string(g.key)]; ok {
		return &g.all[i]
	}
	g.index[string(g.key)] = len(g.all)
	n := group{states: make([]state, len(g.q.aggregates))}
	for _, i := range places {
		n.cells = append(n.cells, strings.Clone(record[i]))
	}
	g.all = append(g.all, n)
	return &g.all[len(g.all)-1]
}

// add counts a record.
func (g *groups) add(record []string) error {
	x := g.find(record, g.by)
	for i := range x.states {
		a, c := &g.q.aggregates[i], ""
		if k := g.column[i]; k >= 0 {
			if c = record[k]; c == "" {
				continue
			}
		}
		if err := x.states[i].add(a, c); err != nil {
			if errors.Is(err, errNumber) && g.q.skip {
				continue
			}
			return fmt.Errorf("%s(%s): %q is not a number (invalid: skip leaves such out)", a.op, a.column, shorten(c))
		}
	}
	return nil
}

// add counts a cell.
func (s *state) add(a *aggregate, c string) error {
	switch a.op {
	case "count":
	case "first", "last":
		if s.n == 0 || (c < s.text) == (a.op == "first") {
			s.text = strings.Clone(c)
		}
	default:
		d, err := parseDecimal(c)
		if err != nil {
			return err
		}
		s.number(a, d)
	}
	s.n++
	return nil
}

// number counts a number.
func (s *state) number(a *aggregate, d decimal) {
	switch a.op {
	case "sum", "mean":
		if s.sum == nil {
			s.sum = new(sum)
		}
		s.sum.add(d)
	default:
		if s.n == 0 || (d.compare(s.best) < 0) == (a.op == "min") {
			s.best = d
		}
	}
}

// result is what is written of the aggregate in the end: nothing if it has no
// value.
func (s *state) result(a *aggregate) string {
	switch {
	case a.op == "count":
		return strconv.FormatInt(s.n, 10)
	case s.n == 0:
		return ""
	case a.op == "mean":
		return s.sum.total().quotient(s.n)
	}
	return s.partial(a)[0]
}

// partial is the state as cells.
func (s *state) partial(a *aggregate) []string {
	if a.op == "count" {
		return []string{strconv.FormatInt(s.n, 10)}
	}
	out := make([]string, operations[a.op])
	if s.n == 0 {
		return out
	}
	switch a.op {
	case "first", "last":
		out[0] = s.text
	case "min", "max":
		out[0] = s.best.String()
	default:
		out[0] = s.sum.total().String()
	}
	if a.op == "mean" {
		out[1] = strconv.FormatInt(s.n, 10)
	}
	return out
}

// merge adds what partial wrote.
func (s *state) merge(a *aggregate, cells []string) error {
	count := int64(1)
	if cells[0] == "" {
		return nil
	}
	if a.op == "count" || a.op == "mean" {
		n, err := strconv.ParseInt(cells[len(cells)-1], 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is not a count", shorten(cells[len(cells)-1]))
		}
		count = n
	}
	if a.op != "count" {
		if err := s.add(a, cells[0]); err != nil {
			return fmt.Errorf("%q is %w", shorten(cells[0]), err)
		}
		count-- // add counted one
	}
	s.n += count
	return nil
}

// partHeading is the header of what a map step writes. It says what the states
// are of, so that parts of another query are found out.
func (g *groups) partHeading() (out []string) {
	for _, p := range g.q.by {
		out = append(out, p.column)
	}
	for _, a := range g.q.aggregates {
		name := a.op + "(" + a.column + ")"
		for i := range operations[a.op] {
			out = append(out, name+[]string{"", "#"}[i])
		}
	}
	return out
}

// merge reads a part, whose header is head.
func (r *Run) merge(name string, c *reader, head []string) error {
	g := r.g
	if !slices.Equal(head, g.partHeading()) {
		return &FileError{name, 1, errors.New("it was not written by a map step with these params")}
	}
	places := make([]int, len(g.q.by))
	for i := range places {
		places[i] = i
	}
	for {
		record, err := c.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fileError(name, c, err)
		}
		x, rest := g.find(record, places), record[len(places):]
		for i := range x.states {
			a := &g.q.aggregates[i]
			n := operations[a.op]
			if err := x.states[i].merge(a, rest[:n]); err != nil {
				return &FileError{name, c.at, err}
			}
			rest = rest[n:]
		}
	}
}

// write writes all groups, in the order of their cells. Without columns that make
// groups there is one, even of no records.
func (g *groups) write(r *Run) error {
	if len(g.q.by) == 0 && len(g.all) == 0 {
		g.find(nil, nil)
	}
	head := g.q.heading()
	if r.phase == Map {
		head = g.partHeading()
	}
	if err := r.write(head); err != nil {
		return err
	}
	slices.SortFunc(g.all, func(a, b group) int { return slices.Compare(a.cells, b.cells) })
	for _, x := range g.all {
		cells := x.cells
		for i := range x.states {
			if a := &g.q.aggregates[i]; r.phase == Map {
				cells = append(cells, x.states[i].partial(a)...)
			} else {
				cells = append(cells, x.states[i].result(a))
			}
		}
		if err := r.write(cells); err != nil {
			return err
		}
	}
	return nil
}
