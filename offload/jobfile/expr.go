package jobfile

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Expr is a number that a recipe computes: a product of numbers and names,
// perhaps divided by one of them (rounded up): "a.rows * b.cols", "in.n / 64".
type Expr struct {
	factors []factor
	divisor *factor
}

type factor struct {
	name  string // "": value counts
	value int64
}

var (
	exprName   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}(\.[a-z]{1,8})?$`)
	exprNumber = regexp.MustCompile(`^[0-9]{1,12}$`)
)

// maxFactors bounds an expression.
const maxFactors = 8

// ParseExpr reads an expression.
func ParseExpr(s string) (Expr, error) {
	var e Expr
	product, divisor, divided := strings.Cut(s, "/")
	for word := range strings.SplitSeq(product, "*") {
		f, err := parseFactor(word)
		if err != nil {
			return Expr{}, err
		}
		if e.factors = append(e.factors, f); len(e.factors) > maxFactors {
			return Expr{}, fmt.Errorf("%q has more than %d factors", shorten(s), maxFactors)
		}
	}
	if divided {
		f, err := parseFactor(divisor)
		if err != nil {
			return Expr{}, err
		}
		if f.name == "" && f.value == 0 {
			return Expr{}, fmt.Errorf("%q divides by 0", shorten(s))
		}
		e.divisor = &f
	}
	return e, nil
}

func parseFactor(s string) (factor, error) {
	s = strings.TrimSpace(s)
	switch {
	case exprNumber.MatchString(s):
		v, err := strconv.ParseInt(s, 10, 64)
		return factor{value: v}, err
	case exprName.MatchString(s):
		return factor{name: s}, nil
	}
	return factor{}, fmt.Errorf("%q is neither a number nor a name such as in.n", shorten(s))
}

// Zero says whether e was never set.
func (e Expr) Zero() bool { return len(e.factors) == 0 }

// names calls f with every name in e.
func (e Expr) names(f func(string)) {
	for _, x := range e.factors {
		if x.name != "" {
			f(x.name)
		}
	}
	if e.divisor != nil && e.divisor.name != "" {
		f(e.divisor.name)
	}
}

// Eval computes e. Names that dims lacks, a division by 0, and what does not
// fit into an int64 are errors.
func (e Expr) Eval(dims map[string]int64) (int64, error) {
	value := func(f factor) (int64, error) {
		if f.name == "" {
			return f.value, nil
		}
		v, ok := dims[f.name]
		if !ok {
			return 0, fmt.Errorf("nothing is called %s", f.name)
		}
		return v, nil
	}
	product := int64(1)
	for _, f := range e.factors {
		v, err := value(f)
		if err != nil {
			return 0, err
		}
		if v < 0 || v != 0 && product > math.MaxInt64/v {
			return 0, fmt.Errorf("%s is too large", e)
		}
		product *= v
	}
	if e.divisor == nil {
		return product, nil
	}
	d, err := value(*e.divisor)
	if err != nil {
		return 0, err
	}
	if d <= 0 {
		return 0, fmt.Errorf("%s divides by %d", e, d)
	}
	q := product / d
	if product%d != 0 {
		q++
	}
	return q, nil
}

func (e Expr) String() string {
	var b strings.Builder
	text := func(f factor) string {
		if f.name != "" {
			return f.name
		}
		return strconv.FormatInt(f.value, 10)
	}
	for i, f := range e.factors {
		if i > 0 {
			b.WriteString(" * ")
		}
		b.WriteString(text(f))
	}
	if e.divisor != nil {
		b.WriteString(" / " + text(*e.divisor))
	}
	return b.String()
}
