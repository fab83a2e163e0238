package jobfile

import (
	"math"
	"testing"
)

func TestExpr(t *testing.T) {
	dims := map[string]int64{"a.rows": 7, "a.cols": 3, "in.n": 0, "big.n": math.MaxInt64}
	for s, want := range map[string]int64{
		"5": 5, "a.rows": 7, "a.rows*a.cols": 21, " a.rows * 2 * a.cols ": 42, "a.rows / 2": 4, "a.rows * a.cols / 7": 3,
		"in.n": 0, "in.n / 64": 0, "a.rows / a.cols": 3, "big.n": math.MaxInt64, "in.n * big.n * big.n": 0,
	} {
		e, err := ParseExpr(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		if got, err := e.Eval(dims); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", s, got, err, want)
		}
		again, err := ParseExpr(e.String())
		if err != nil || again.String() != e.String() {
			t.Errorf("%q as text is %q: %v", s, e, err)
		}
	}
	for _, s := range []string{"", "a +b", "-1", "1//2", "a/0", "a.b.c", "A", "2*", "1*1*1*1*1*1*1*1*1", "9999999999999"} {
		if e, err := ParseExpr(s); err == nil {
			t.Errorf("%q is taken: %s", s, e)
		}
	}
	for _, s := range []string{"nothing", "big.n * 2", "a.rows / in.n", "big.n * a.rows / 2"} {
		e, err := ParseExpr(s)
		if err != nil {
			t.Fatal(s, err)
		}
		if v, err := e.Eval(dims); err == nil {
			t.Errorf("%q is %d", s, v)
		}
	}
}
