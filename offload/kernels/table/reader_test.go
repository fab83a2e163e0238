package table

import (
	"encoding/csv"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

func records(in io.Reader, comma rune) (out [][]string, err error) {
	r := newReader(in, comma)
	for {
		record, err := r.Read()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, append([]string(nil), record...))
	}
}

func TestReader(t *testing.T) {
	for _, c := range []struct {
		text  string
		comma rune
		want  [][]string
	}{
		{"a,b\r\n1,\"2\r\n3\"\r\n", ',', [][]string{{"a", "b"}, {"1", "2\r\n3"}}}, // kept within quotes
		{"a,b\r1,2\r\r3,4", ',', [][]string{{"a", "b"}, {"1", "2"}, {"3", "4"}}},
		{"a,b\n1,6\" pipe\n2,x\"y\"\n", ',', [][]string{{"a", "b"}, {"1", "6\" pipe"}, {"2", "x\"y\""}}},
		{"\"a\"\"b\",\"\"\n", ',', [][]string{{"a\"b", ""}}},
		{"a§b\n1§\"2§3\"\n", '§', [][]string{{"a", "b"}, {"1", "2§3"}}},
		{"a,\n,\n", ',', [][]string{{"a", ""}, {"", ""}}},
		{"\n\na", ',', [][]string{{"a"}}},
		{"", ',', nil},
		{"\"\"\n", ',', [][]string{{""}}},
	} {
		got, err := records(strings.NewReader(c.text), c.comma)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %q, %v", c.text, got, err)
		}
	}
}

// TestReaderAsLibrary compares with encoding/csv where that has the same rules.
func TestReaderAsLibrary(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 3000 {
		var b strings.Builder
		for range r.IntN(40) {
			b.WriteString([]string{"a", ",", "\"", "\n", "\"x,\n\"", "é", ",\"", "\"\n"}[r.IntN(8)])
		}
		lib := csv.NewReader(strings.NewReader(b.String()))
		want, err := lib.ReadAll()
		if err != nil {
			continue // quotes within fields, and records of other lengths
		}
		if got, err := records(strings.NewReader(b.String()), ','); err != nil || len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, %v, not %q", b.String(), got, err, want)
		}
	}
}

// TestEncodings has one table in each encoding.
func TestEncodings(t *testing.T) {
	const table = "name,n\nZoë 😀,1\n"
	utf := func(high bool, s string) string {
		var b strings.Builder
		for _, u := range utf16.Encode([]rune(s)) {
			two := []byte{byte(u), byte(u >> 8)}
			if high {
				two[0], two[1] = two[1], two[0]
			}
			b.Write(two)
		}
		return b.String()
	}
	for name, c := range map[string]struct{ encoding, text, want string }{
		"utf-8":              {"", table, table},
		"marked":             {"", "\ufeff" + table, table},
		"utf-16le":           {"", utf(false, "\ufeff"+table), table},
		"utf-16be":           {"", utf(true, "\ufeff"+table), table},
		"said and marked":    {"utf-16", utf(true, "\ufeff"+table), table},
		"said":               {"UTF-16LE", utf(false, table), table},
		"said, high first":   {"utf-16be", utf(true, table), table},
		"latin1":             {"latin1", "name\nZo\xeb\n", "name\nZoë\n"},
		"less than one mark": {"", "a", "a\n"},
	} {
		if got, err := over(query(t, Params{Encoding: c.encoding}), Single, c.text); err != nil || got != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestNumberRule: what a sum takes as a number is one where it is compared.
func TestNumberRule(t *testing.T) {
	for p, want := range map[Params]string{
		{Where: "a > 5", Aggregate: "count, sum(a)"}:     "count,sum(a)\n1,1e400\n",
		{Where: "isnumber(a)", Aggregate: "count"}:       "count\n2\n",
		{Where: "a < 5 or not (a >= 5)", Select: "a"}:    "a\n1\n",
		{Where: "a = b or a = 1", Aggregate: "count(a)"}: "count(a)\n2\n",
	} {
		if got, err := over(query(t, p), Single, "a,b\n1e400,1e400\n1,2\n"); err != nil || got != want {
			t.Errorf("%+v: %q, %v", p, got, err)
		}
	}
	// Two columns of one name are in the way of who names them only.
	if got, err := over(query(t, Params{Where: "a = 1"}), Single, "a,b,b\n1,2,3\n"); err != nil || got != "a,b,b\n1,2,3\n" {
		t.Errorf("%q, %v", got, err)
	}
}
