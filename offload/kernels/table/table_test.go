package table

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func query(t testing.TB, p Params) *Query {
	t.Helper()
	q, err := Parse(p)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// over runs a query over files.
func over(q *Query, phase Phase, files ...string) (string, error) {
	var out bytes.Buffer
	r := q.Start(phase, &out)
	for i, f := range files {
		if err := r.File(fmt.Sprintf("/f%d", i), strings.NewReader(f)); err != nil {
			return "", err
		}
	}
	err := r.End()
	return out.String(), err
}

const sales = "\xef\xbb\xbfid,shop,price,qty,note\r\n1,north,1.50,2,\r\n2,south,0.1,3,\"a \"\"b\"\"\"\r\n3,north,,1,\"x,y\nz\"\r\n4,east,-2,10,none\r\n"

func TestQueries(t *testing.T) {
	for name, c := range map[string]struct {
		p    Params
		want string
	}{
		"all":            {Params{}, "id,shop,price,qty,note\n1,north,1.50,2,\n2,south,0.1,3,\"a \"\"b\"\"\"\n3,north,,1,\"x,y\nz\"\n4,east,-2,10,none\n"},
		"where and pick": {Params{Where: "price * qty >= 0.3 and shop != 'east'", Select: "id, price as cost"}, "id,cost\n1,1.50\n2,0.1\n"},
		"not a number":   {Params{Where: "price != 0", Select: "id"}, "id\n1\n2\n4\n"},
		"not":            {Params{Where: "not price > 0", Select: "id"}, "id\n3\n4\n"},
		"in, or":         {Params{Where: "shop in ('south', 'east') or qty in (1)", Select: "id"}, "id\n2\n3\n4\n"},
		"not in":         {Params{Where: "shop not in ('south', 'east')", Select: "id"}, "id\n1\n3\n"},
		"regexp":         {Params{Where: `note ~ '^x,y\s' || note !~ "o|^$|b"`, Select: "`id`"}, "id\n3\n"},
		"functions":      {Params{Where: "contains(upper(shop), 'OR') and length(note) = 5 or ends(trim(note), 'ne') and isnumber(qty)", Select: "id"}, "id\n3\n4\n"},
		"negative":       {Params{Where: "-price = 2 and qty / 4 = 2.5", Select: "id"}, "id\n4\n"},
		"cells":          {Params{Where: "price < qty and id < shop", Select: "id"}, "id\n1\n2\n3\n4\n"},
		"count":          {Params{Aggregate: "count, count(*) as n, count(price)"}, "count,n,count(price)\n4,4,3\n"},
		"none":           {Params{Aggregate: "count, sum(price), mean(price), min(price), first(note)", Where: "id > 9"}, "count,sum(price),mean(price),min(price),first(note)\n0,,,,\n"},
		"groups": {Params{By: "shop", Aggregate: "count, sum(price), mean(qty), min(qty), max(price), first(id), last(id)"},
			"shop,count,sum(price),mean(qty),min(qty),max(price),first(id),last(id)\neast,1,-2,10,10,-2,4,4\nnorth,2,1.5,1.5,1,1.5,1,3\nsouth,1,0.1,3,3,0.1,2,2\n"},
		"two columns": {Params{By: "shop as s, note", Aggregate: "count", Where: "qty > 2"}, "s,note,count\neast,none,1\nsouth,\"a \"\"b\"\"\",1\n"},
	} {
		if got, err := over(query(t, c.p), Single, sales); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
	for name, c := range map[string]struct {
		p    Params
		in   []string
		want string
	}{
		"no header":       {Params{Header: "0", Where: "c2 > 1"}, []string{"a,1\nb,2\n"}, "c1,c2\nb,2\n"},
		"named":           {Params{Header: "0", Columns: "k, v", Select: "v"}, []string{"a,1\nb,2\n", "c,3\n"}, "v\n1\n2\n3\n"},
		"tab":             {Params{Delimiter: "tab"}, []string{"a\tb\n1\t2,\n"}, "a\tb\n1\t2,\n"},
		"semicolon":       {Params{Delimiter: ";", Select: "b"}, []string{"a;b\n1;\n"}, "b\n\"\"\n"},
		"empty files":     {Params{}, []string{"", "a\n", "", "a\n1\n"}, "a\n1\n"},
		"another order":   {Params{Select: "a"}, []string{"a,b\n1,2\n", "b,a\n3,4\n"}, "a\n1\n4\n"},
		"odd names":       {Params{Where: "`a b` > 1 and `or` = 2", Select: "`or`"}, []string{"a b,or\n2,2\n"}, "or\n2\n"},
		"skip":            {Params{Aggregate: "count, count(a), sum(a)", Invalid: "skip"}, []string{"a\n1\nx\n2\n"}, "count,count(a),sum(a)\n3,3,3\n"},
		"exact":           {Params{Aggregate: "sum(a), mean(a)"}, []string{"a\n1e16\n0.1\n-1e16\n0.2\n"}, "sum(a),mean(a)\n0.3,0.075\n"},
		"short mark":      {Params{}, []string{"a\n"}, "a\n"},
		"groups of blank": {Params{By: "a", Aggregate: "count"}, []string{"a,b\n,1\n,2\n x,1\n"}, "a,count\n,2\n\" x\",1\n"},
	} {
		if got, err := over(query(t, c.p), Single, c.in...); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		p    Params
		want string
	}{
		{Params{Where: "a >"}, "a column, a number or a text is missing at the end"},
		{Params{Where: "a = 'x"}, "is not closed"},
		{Params{Where: "a"}, "is a value, not a condition"},
		{Params{Where: "a + 'x' > 2"}, "+ is for numbers"},
		{Params{Where: "1 = 'x'"}, "compares a number with a text"},
		{Params{Where: "(a > 1"}, `")" is missing at the end`},
		{Params{Where: "a > 1 b"}, `not expected at "b"`},
		{Params{Where: "a ~ b"}, "a text in quotes is needed"},
		{Params{Where: "a ~ '('"}, "missing closing )"},
		{Params{Where: "foo(a)"}, "there is no function"},
		{Params{Where: "lower(a, b) = 'x'"}, "takes 1 values, not 2"},
		{Params{Where: "a = 1.2.3"}, "not a number"},
		{Params{Where: "a = #"}, "not understood"},
		{Params{Where: "and = 1"}, "is written `and`"},
		{Params{Where: "a > 1 and b"}, "and is for conditions"},
		{Params{Where: strings.Repeat("(", 200) + "a > 1" + strings.Repeat(")", 200)}, "nested deeper"},
		{Params{Select: "a, a"}, "twice"},
		{Params{Select: "a b"}, "a comma is expected"},
		{Params{Select: "a,"}, "select ends where a name"},
		{Params{Aggregate: "median(a)"}, "there is no aggregate"},
		{Params{Aggregate: "sum"}, "sum needs a column"},
		{Params{Aggregate: "sum(a"}, `")"`},
		{Params{By: "a"}, "by needs an aggregate"},
		{Params{Select: "a", Aggregate: "count"}, "give one of them"},
		{Params{Delimiter: ",,"}, "delimiter"},
		{Params{Header: "2"}, "header"},
		{Params{Columns: "a"}, "header: 0"},
		{Params{Invalid: "no"}, "invalid"},
	} {
		if _, err := Parse(c.p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.p, err, c.want)
		}
	}
	for name, c := range map[string]struct {
		p    Params
		in   []string
		want string
	}{
		"no such column":    {Params{Where: "c = 1"}, []string{"a,b\n"}, `/f0: there is no column "c"; the columns are a, b`},
		"twice":             {Params{Select: "a"}, []string{"a,a\n"}, `two columns "a"`},
		"other columns":     {Params{}, []string{"a,b\n", "a,c\n"}, "/f1: its columns are a, c"},
		"fields":            {Params{}, []string{"a,b\n1,2\n3\n"}, "/f0, line 3: the record has not as many fields"},
		"first record":      {Params{Header: "0", Columns: "a,b"}, []string{"1\n"}, "the record has not as many fields"},
		"open quote":        {Params{}, []string{"a,b\n1,\"2\n3\n"}, "/f0, line 2: a quoted field is not closed"},
		"quote in a part":   {Params{Ranges: "1"}, []string{"a,b\n1,2\"\n"}, "split: file"},
		"behind a quote":    {Params{}, []string{"a,b\n1,\"2\"3\n"}, "goes on behind its quote"},
		"utf-16 in parts":   {Params{Ranges: "1"}, []string{"\xff\xfea\x00\n\x00"}, "it needs split: file"},
		"utf-16 unmarked":   {Params{Encoding: "utf-16"}, []string{"a\x00\n\x00"}, "give encoding: utf-16le or utf-16be"},
		"half a character":  {Params{Encoding: "utf-16le"}, []string{"a\x00\n"}, "an odd number of bytes"},
		"not a number":      {Params{Aggregate: "sum(b)"}, []string{"a,b\n1,2\n\n1,x\n"}, `/f0, line 4: sum(b): "x" is not a number`},
		"infinity is none":  {Params{Aggregate: "sum(a)"}, []string{"a\nInf\n"}, `"Inf" is not a number`},
		"a large exponent":  {Params{Aggregate: "sum(a)"}, []string{"a\n1e4000\n"}, "is not a number"},
		"a larger exponent": {Params{Aggregate: "sum(a)"}, []string{"a\n1e99999999999999\n"}, "is not a number"},
	} {
		_, err := over(query(t, c.p), Single, c.in...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	q := query(t, Params{Aggregate: "sum(a)"})
	for _, part := range []string{"sum(b)\n1\n", "sum(a)\nx\n", "sum(a)\n1,2\n"} {
		if _, err := over(q, Reduce, part); err == nil {
			t.Errorf("the part %q is taken", part)
		}
	}
	if _, err := over(query(t, Params{Aggregate: "count"}), Reduce, "count()\n-1\n"); err == nil {
		t.Error("a negative count is taken")
	}
	if _, err := over(query(t, Params{}), Reduce, "a\n1\n", "b\n1\n"); err == nil {
		t.Error("parts with other columns are put together")
	}
}

// randomTable makes a header and records: quoted texts, some with line breaks
// if broken, decimals of all sizes, empty cells.
func randomTable(r *rand.Rand, n int, broken bool) (header string, records [][]string) {
	words := []string{"north", "south", "", "a,b", `say "x"`, "ü", " pad "}
	if broken {
		words = append(words, "two\nlines", "\n", "\"\n,\"", "1,2,3,4\n5,6")
	}
	for range n {
		records = append(records, []string{
			words[r.IntN(len(words))], number1(r), number1(r), words[r.IntN(len(words))],
		})
	}
	return "g,x,y,t\n", records
}

func number1(r *rand.Rand) string {
	switch r.IntN(8) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("%de%d", r.IntN(2000)-1000, r.IntN(60)-30)
	case 2:
		return fmt.Sprintf("-%d%018d.%05d", r.IntN(99), r.Int64N(1e18), r.IntN(1e5))
	case 3:
		return fmt.Sprintf("0.%03d", r.IntN(1000))
	}
	return fmt.Sprintf("%d.%02d", r.IntN(20000)-10000, r.IntN(100))
}

func text(t testing.TB, records [][]string) string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	if err := w.WriteAll(records); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var everything = Params{Where: "x > -5000 or y < 3 or t = 'ü'", By: "g",
	Aggregate: "count, count(y), sum(x), sum(y), mean(x), min(x), max(y), first(t), last(t)"}

// TestParts: however records are put into parts, the merged result is the one of
// all at once, to the last digit.
func TestParts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 60 {
		header, records := randomTable(r, r.IntN(200), true)
		for _, p := range []Params{everything, {Where: "y > 0"}, {Select: "t, x as `g h`"}, {By: "t, g", Aggregate: "mean(y)"}, {Aggregate: "sum(x)"}} {
			q := query(t, p)
			want, err := over(q, Single, header+text(t, records))
			if err != nil {
				t.Fatal(err)
			}
			var parts []string
			for from := 0; from < len(records) || from == 0; {
				to := min(from+1+r.IntN(60), len(records))
				part, err := over(q, Map, header+text(t, records[from:to]))
				if err != nil {
					t.Fatal(err)
				}
				parts = append(parts, part)
				from = max(to, 1)
			}
			if p.Aggregate != "" {
				r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
			}
			got, err := over(q, Reduce, parts...)
			if err != nil || got != want {
				t.Fatalf("%+v in %d parts: %v\n%s\nat once:\n%s", p, len(parts), err, got, want)
			}
		}
	}
}

// TestCuts: files are cut at lines, also within quoted fields. Either a part
// fails, or the result is right.
func TestCuts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	q := query(t, Params{By: "g", Aggregate: "count, sum(x), last(t)", Invalid: "skip", Ranges: "1"})
	failed := 0
	for range 300 {
		header, records := randomTable(r, 1+r.IntN(30), true)
		body := text(t, records)
		want, err := over(q, Single, header+body)
		if err != nil {
			t.Fatal(err)
		}
		// whole says whether the bytes before a place are whole records.
		whole := func(at int) bool {
			c := csv.NewReader(strings.NewReader(body[:at]))
			_, err := c.ReadAll()
			return err == nil
		}
		lines := strings.SplitAfter(body, "\n")
		bad, at := false, 0
		var parts []string
		part := header
		for _, l := range lines {
			part, at = part+l, at+len(l)
			if r.IntN(3) == 0 || at == len(body) {
				bad = bad || !whole(at)
				parts, part = append(parts, part), header
			}
		}
		var maps []string
		fails := false
		for _, p := range parts {
			m, err := over(q, Map, p)
			fails = fails || err != nil
			maps = append(maps, m)
		}
		if fails != bad {
			t.Fatalf("a cut within a field: %v; failed: %v\n%q", bad, fails, parts)
		}
		if fails {
			failed++
		} else if got, err := over(q, Reduce, maps...); err != nil || got != want {
			t.Fatalf("%v: %q, want %q", err, got, want)
		}
	}
	if failed < 20 {
		t.Errorf("only %d of 300 cuts were in fields", failed)
	}
}

// reference does what a query with everything does, with Python's csv, decimal
// and fractions.
const reference = `
import csv, io, json, sys
from fractions import Fraction
from decimal import Decimal
rows = list(csv.DictReader(io.StringIO(sys.stdin.buffer.read().decode(), newline="")))
def num(s): return float(s) if s != "" else None
groups = {}
for r in rows:
    x, y = num(r["x"]), num(r["y"])
    if (x is not None and x > -5000) or (y is not None and y < 3) or r["t"] == "ü":
        groups.setdefault(r["g"], []).append(r)
out = []
for g in sorted(groups, key=lambda s: s.encode()):
    rs = groups[g]
    xs = [Fraction(Decimal(r["x"])) for r in rs if r["x"] != ""]
    ys = [Fraction(Decimal(r["y"])) for r in rs if r["y"] != ""]
    ts = sorted((r["t"] for r in rs if r["t"] != ""), key=lambda s: s.encode())
    out.append([g, str(len(rs)), str(len(ys))] + [str(v) for v in (
        sum(xs) if xs else "", sum(ys) if ys else "", float(sum(xs) / len(xs)) if xs else "", min(xs) if xs else "", max(ys) if ys else "")]
        + [ts[0] if ts else "", ts[-1] if ts else ""])
json.dump(out, sys.stdout)
`

// TestPython compares with another implementation.
func TestPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 to compare with")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	header, records := randomTable(rand.New(rand.NewPCG(seed, 1)), 3000, true)
	in := header + text(t, records)
	got, err := over(query(t, everything), Single, in)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(python, "-c", reference)
	c.Stdin = strings.NewReader(in)
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var want [][]string
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	all, err := csv.NewReader(strings.NewReader(got)).ReadAll()
	if err != nil || len(all) != len(want)+1 {
		t.Fatalf("%d groups, want %d: %v", len(all)-1, len(want), err)
	}
	for i, w := range want {
		for k := range w {
			g := all[i+1][k]
			if k >= 3 && k <= 7 && w[k] != "" { // as numbers, however written
				a, ok := new(big.Rat).SetString(g)
				b, ok2 := new(big.Rat).SetString(w[k])
				if !ok || !ok2 || a.Cmp(b) != 0 {
					t.Errorf("group %q, %s: %s, want %s", w[0], all[0][k], g, w[k])
				}
			} else if g != w[k] {
				t.Errorf("group %q, %s: %q, want %q", w[0], all[0][k], g, w[k])
			}
		}
	}
}

// TestDecimals: what is read is written again as the same number, and sums and
// comparisons are those of big.Rat.
func TestDecimals(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "-0.0": "0", "00012.3400": "12.34", "+5": "5", ".5": "0.5", "5.": "5", " 7 ": "7", "1e3": "1000", "12e-3": "0.012",
		"1e300": "1e300", "-1.25E-300": "-1.25e-300", "123456789012345678901234567890": "123456789012345678901234567890", "0e99999": "0",
		"-0.00000000000000000000000000000000000001": "-0.00000000000000000000000000000000000001",
	} {
		d, err := parseDecimal(in)
		if err != nil || d.String() != want {
			t.Errorf("%q is %v, %v; want %s", in, d, err, want)
		}
	}
	for _, in := range []string{"", ".", "-", "e5", "1e", "0x10", "1_000", "1,5", "Inf", "nan", "1 2", "1e+-2", "--1", "1e401", "1e-801", strings.Repeat("9", 401)} {
		if d, err := parseDecimal(in); err == nil {
			t.Errorf("%q is the number %v", in, d)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var s sum
	want := new(big.Rat)
	last, lastRat := decimal{}, new(big.Rat)
	for range 5000 {
		text := number1(r)
		if text == "" {
			text = fmt.Sprint(r.Int64() - r.Int64())
		}
		d, err := parseDecimal(text)
		if err != nil {
			t.Fatal(text, err)
		}
		x, _ := new(big.Rat).SetString(text)
		if y, ok := new(big.Rat).SetString(d.String()); !ok || x.Cmp(y) != 0 {
			t.Fatalf("%s is written %s", text, d)
		}
		if got := d.compare(last); got != x.Cmp(lastRat) {
			t.Fatalf("%s compared with %s: %d", text, last, got)
		}
		s.add(d)
		want.Add(want, x)
		last, lastRat = d, x
	}
	if got, _ := new(big.Rat).SetString(s.total().String()); got.Cmp(want) != 0 {
		t.Errorf("the sum is %s, want %s", s.total(), want)
	}
}

// FuzzParse: no param panics, and neither does what it makes of a file.
func FuzzParse(f *testing.F) {
	f.Add("a > 1 and not (b in ('x', `c`) or lower(a) ~ 'y+')", "a, b as c", "")
	f.Add("-a * 2 / (b - 1) <= 1e5", "", "count, sum(a), mean(`b`) as m, first(a)")
	f.Fuzz(func(t *testing.T, where, picks, aggregate string) {
		q, err := Parse(Params{Where: where, Select: picks, Aggregate: aggregate, Invalid: "skip"})
		if err != nil {
			return
		}
		_, err = over(q, Single, "a,b,c\n1,x,\n2.5,1e3,ü\n")
		var bad *FileError
		if err != nil && !errors.As(err, &bad) {
			t.Error(err)
		}
	})
}

// FuzzFile: whatever a file holds, it is an error or a table, and a table that is
// written is read again as itself; numbers that add up are numbers.
func FuzzFile(f *testing.F) {
	f.Add(sales)
	f.Add("a,b\n\"1\n2\",\"\"\"\"\n")
	f.Add("\xef\xbb\xbf")
	f.Fuzz(func(t *testing.T, in string) {
		if once, err := over(query(t, Params{}), Single, in); err == nil {
			again, err := over(query(t, Params{}), Single, once)
			if err != nil || again != once {
				t.Errorf("%q becomes %q, then %q, %v", in, once, again, err)
			}
		}
		q := query(t, Params{Header: "0", By: "c1", Aggregate: "count, sum(c1), mean(c1), min(c1), last(c1)", Invalid: "skip"})
		want, err := over(q, Single, in)
		if err != nil {
			return
		}
		part, err := over(q, Map, in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := over(q, Reduce, part); in != "" && (err != nil || got != want) {
			t.Errorf("%q: %q, want %q, %v", in, got, want, err)
		}
	})
}

func BenchmarkAggregate(b *testing.B) {
	header, records := randomTable(rand.New(rand.NewPCG(1, 1)), 20000, false)
	in := header + text(b, records)
	q := query(b, everything)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if _, err := over(q, Single, in); err != nil {
			b.Fatal(err)
		}
	}
}
