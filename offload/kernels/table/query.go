package table

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Params say what is to be done, as texts.
type Params struct {
	Where     string // an expression; "": every record
	Select    string // columns, "a, b as c"; "": all
	Aggregate string // "count, sum(a), mean(b) as avg"; "": none, records are passed on
	By        string // columns that make groups
	Delimiter string // "": a comma; "tab" or one character
	Columns   string // names of the columns of files that have no header
	Header    string // "0": files have no header; "", "1": one
	Encoding  string // of files: "": by the mark at their beginning, else UTF-8
	Ranges    string // not "": what is read may be parts of files, cut at lines
	Invalid   string // "skip": what is no number is left out of aggregates; "", "fail"
}

// Phase says what a Query reads and writes.
type Phase int

const (
	Single Phase = iota // files in, the result out
	Map                 // files in, a part out
	Reduce              // parts in, the result out
)

// Query is what Params say.
type Query struct {
	where      *node
	picks      []pick // nil: all columns
	by         []pick
	aggregates []aggregate // nil: records are passed on
	delimiter  rune
	names      []string // of the columns, where files have no header
	header     bool
	skip       bool
	encoding   string
	ranges     bool
}

// pick is a column and what it is called in the result.
type pick struct{ column, as string }

// Parse checks params.
func Parse(p Params) (q *Query, err error) {
	q = &Query{delimiter: ','}
	switch d, n := utf8.DecodeRuneInString(p.Delimiter); {
	case p.Delimiter == "":
	case p.Delimiter == "tab", p.Delimiter == `\t`:
		q.delimiter = '\t'
	case n != len(p.Delimiter) || d == utf8.RuneError || d == '"' || d == '\n' || d == '\r':
		return nil, fmt.Errorf("delimiter must be one character or tab, not %q", p.Delimiter)
	default:
		q.delimiter = d
	}
	switch p.Header {
	case "", "1":
		q.header = true
		if p.Columns != "" {
			return nil, errors.New("columns names the columns of files without a header: it needs header: 0 in the job file")
		}
	case "0":
		if q.names, err = columnNames(p.Columns); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("a header has one line or none (header: 0), not %s", p.Header)
	}
	q.ranges = p.Ranges != ""
	switch q.encoding = strings.ToLower(p.Encoding); q.encoding {
	case "", "utf-8", "utf-16", "utf-16le", "utf-16be", "latin1":
	default:
		return nil, fmt.Errorf("encoding must be utf-8, utf-16, utf-16le, utf-16be or latin1, not %q", p.Encoding)
	}
	switch p.Invalid {
	case "", "fail":
	case "skip":
		q.skip = true
	default:
		return nil, fmt.Errorf("invalid must be fail or skip, not %q", p.Invalid)
	}
	if strings.TrimSpace(p.Where) != "" {
		if q.where, err = parseExpression(p.Where); err != nil {
			return nil, fmt.Errorf("where: %w", err)
		}
	}
	if q.picks, err = parsePicks("select", p.Select); err != nil {
		return nil, err
	}
	if q.by, err = parsePicks("by", p.By); err != nil {
		return nil, err
	}
	if q.aggregates, err = parseAggregates(p.Aggregate); err != nil {
		return nil, err
	}
	switch {
	case q.picks != nil && q.aggregates != nil:
		return nil, errors.New("select passes records on and aggregate does not: give one of them; the columns of groups are those of by")
	case q.by != nil && q.aggregates == nil:
		return nil, errors.New("by needs an aggregate, such as count")
	}
	return q, q.unique()
}

func columnNames(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	picks, err := parsePicks("columns", s)
	var names []string
	for _, p := range picks {
		names = append(names, p.column)
	}
	return names, err
}

// parsePicks reads columns: a name, in ` if need be, and perhaps "as" and
// another.
func parsePicks(field, s string) (out []pick, err error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	l := list{field: field}
	if l.tokens, err = scan(s); err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	for {
		var p pick
		if p.column, err = l.name(); err != nil {
			return nil, err
		}
		if p.as, err = l.as(p.column); err != nil {
			return nil, err
		}
		out = append(out, p)
		more, err := l.more()
		if err != nil || !more {
			return out, err
		}
	}
}

// list reads a list of columns or aggregates.
type list struct {
	field  string
	tokens []token
	i      int
}

func (l *list) is(op string) bool {
	if t := l.tokens[l.i]; t.kind == 'o' && t.text == op {
		l.i++
		return true
	}
	return false
}

func (l *list) name() (string, error) {
	t := l.tokens[l.i]
	switch t.kind {
	case 'c', 'q', 't':
		l.i++
		return t.text, nil
	}
	return "", l.bad("a name")
}

func (l *list) bad(want string) error {
	t := l.tokens[l.i]
	if t.kind == 0 {
		return fmt.Errorf("%s ends where %s is expected", l.field, want)
	}
	return fmt.Errorf("%s has %q where %s is expected; names with other characters than letters, digits and _ are written in `", l.field, t.text, want)
}

func (l *list) as(otherwise string) (string, error) {
	if t := l.tokens[l.i]; t.kind == 'c' && strings.EqualFold(t.text, "as") {
		l.i++
		return l.name()
	}
	return otherwise, nil
}

func (l *list) more() (bool, error) {
	if l.is(",") {
		return true, nil
	}
	if l.tokens[l.i].kind != 0 {
		return false, l.bad("a comma")
	}
	return false, nil
}

// unique refuses a result that has two columns of one name.
func (q *Query) unique() error {
	seen := map[string]bool{}
	for _, name := range q.heading() {
		if seen[name] {
			return fmt.Errorf("the result has the column %q twice: call one of them otherwise, with as", name)
		}
		seen[name] = true
	}
	return nil
}

// heading is the header of the result; nil if it is that of the files.
func (q *Query) heading() (out []string) {
	for _, p := range append(slices.Clone(q.picks), q.by...) {
		out = append(out, p.as)
	}
	for _, a := range q.aggregates {
		out = append(out, a.as)
	}
	return out
}

// Run is a query under way.
type Run struct {
	q     *Query
	phase Phase
	out   *csv.Writer
	raw   io.Writer // what out writes to
	head  []string  // what was written first, or found
	// Of the file that is read:
	where condition
	picks []int
	cells []string
	g     *groups
}

// Start begins a run that writes to out.
func (q *Query) Start(phase Phase, out io.Writer) *Run {
	r := &Run{q: q, phase: phase, out: csv.NewWriter(out), raw: out}
	r.out.Comma = q.delimiter
	if q.aggregates != nil {
		r.g = newGroups(q)
	}
	return r
}

// FileError is what is wrong with an input.
type FileError struct {
	Name string
	Line int // 0: unknown
	Err  error
}

func (e *FileError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("%s, line %d: %v", e.Name, e.Line, e.Err)
}

func (e *FileError) Unwrap() error { return e.Err }

// File reads one input. An empty one is passed over.
func (r *Run) File(name string, in io.Reader) error {
	encoding := r.q.encoding
	if r.phase == Reduce {
		encoding = "" // parts are our own
	}
	in, err := decode(in, encoding, r.q.ranges && r.phase != Reduce)
	if err != nil {
		return &FileError{name, 0, err}
	}
	c := newReader(in, r.q.delimiter)
	c.strict = r.q.ranges && r.phase != Reduce
	if r.phase == Reduce && r.g == nil {
		return r.concat(name, c)
	}
	record, err := c.Read()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fileError(name, c, err)
	}
	if r.phase == Reduce {
		return r.merge(name, c, record)
	}
	names := r.q.names
	if r.q.header {
		names = slices.Clone(record)
	} else if names == nil {
		for i := range record {
			names = append(names, "c"+strconv.Itoa(i+1))
		}
	}
	if err := r.begin(names); err != nil {
		return &FileError{name, 0, err}
	}
	c.fields = len(names)
	if r.q.header {
		record, err = c.Read()
	} else if len(record) != len(names) {
		err = errFieldCount
	}
	for ; err == nil; record, err = c.Read() {
		if r.where != nil && !r.where(record) {
			continue
		}
		if r.g == nil {
			err = r.pass(record)
		} else {
			err = r.g.add(record)
		}
		if err != nil {
			return &FileError{name, c.at, err}
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fileError(name, c, err)
}

// fileError says where and why a file cannot be read.
func fileError(name string, c *reader, err error) error {
	switch {
	case errors.Is(err, errFieldCount):
		return &FileError{name, c.at, fmt.Errorf("%w (%d)", err, c.fields)}
	case errors.Is(err, errQuote), errors.Is(err, errBareQuote):
		return &FileError{name, c.at, err}
	}
	return &FileError{name, 0, err}
}

// begin prepares for a file with these columns.
func (r *Run) begin(names []string) error {
	at := map[string]int{}
	twice := map[string]bool{}
	for i, n := range names {
		if _, ok := at[n]; ok {
			twice[n] = true
		}
		at[n] = i
	}
	var err error
	find := func(column string) {
		switch {
		case err != nil:
		case twice[column]:
			err = fmt.Errorf("there are two columns %q", column)
		default:
			if _, ok := at[column]; !ok {
				err = fmt.Errorf("there is no column %q; the columns are %s", column, shorten(strings.Join(names, ", ")))
			}
		}
	}
	if r.q.where != nil {
		r.q.where.columns(find)
	}
	for _, p := range append(slices.Clone(r.q.picks), r.q.by...) {
		find(p.column)
	}
	for _, a := range r.q.aggregates {
		if a.column != "" {
			find(a.column)
		}
	}
	if err != nil {
		return err
	}
	r.where = nil
	if r.q.where != nil {
		r.where = r.q.where.condition(at)
	}
	if r.g != nil {
		r.g.begin(at)
		return nil
	}
	head := names
	r.picks = r.picks[:0]
	if r.q.picks != nil {
		head = r.q.heading()
		for _, p := range r.q.picks {
			r.picks = append(r.picks, at[p.column])
		}
	}
	return r.heading(head)
}

// heading writes the header of records that are passed on, once. A file whose
// header is another does not belong to the others.
func (r *Run) heading(head []string) error {
	if r.head != nil {
		if !slices.Equal(r.head, head) {
			return fmt.Errorf("its columns are %s, those of the files before are %s: select what all have", shorten(strings.Join(head, ", ")), shorten(strings.Join(r.head, ", ")))
		}
		return nil
	}
	r.head = slices.Clone(head)
	return r.write(head)
}

// write writes one record. One that is a single empty field would be an empty
// line, which readers pass over: it gets quotes.
func (r *Run) write(record []string) error {
	if len(record) != 1 || record[0] != "" {
		return r.out.Write(record)
	}
	r.out.Flush()
	if err := r.out.Error(); err != nil {
		return err
	}
	_, err := io.WriteString(r.raw, "\"\"\n")
	return err
}

func (r *Run) pass(record []string) error {
	if r.q.picks == nil {
		return r.write(record)
	}
	r.cells = r.cells[:0]
	for _, i := range r.picks {
		r.cells = append(r.cells, record[i])
	}
	return r.write(r.cells)
}

// concat passes on the records of a part, which have been chosen already.
func (r *Run) concat(name string, c *reader) error {
	record, err := c.Read()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if err := r.heading(record); err != nil {
			return &FileError{name, 0, err}
		}
		for record, err = c.Read(); err == nil; record, err = c.Read() {
			if err := r.write(record); err != nil {
				return err
			}
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fileError(name, c, err)
}

// End writes what is left.
func (r *Run) End() error {
	if r.g != nil {
		if err := r.g.write(r); err != nil {
			return err
		}
	}
	r.out.Flush()
	return r.out.Error()
}

func shorten(s string) string {
	if len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}
