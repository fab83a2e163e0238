package table

import (
	"errors"
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
)

// decimal is the number m × 10^e, or, if large is set, large × 10^e.
type decimal struct {
	m     int64
	e     int
	large *big.Int
}

// maxExponent bounds exponents and the number of digits: float64 fits.
const maxExponent = 400

var errNumber = errors.New("not a number")

// parseDecimal reads [+-]digits[.digits][e[+-]digits], with spaces around it. A
// number needs a digit before its exponent.
func parseDecimal(s string) (decimal, error) {
	s = strings.TrimSpace(s)
	i, negative := 0, false
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		negative = s[i] == '-'
		i++
	}
	var m uint64
	digits, point, significant := 0, -1, 0
	start := i
	for ; i < len(s); i++ {
		c := s[i]
		if c == '.' && point < 0 {
			point = digits
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		digits++
		if significant > 0 || c != '0' {
			significant++
		}
		if significant <= 18 {
			m = m*10 + uint64(c-'0')
		}
	}
	if digits == 0 || significant > maxExponent {
		return decimal{}, errNumber
	}
	e, end := 0, i
	if point >= 0 {
		e = point - digits
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		if len(s)-i > 12 {
			return decimal{}, errNumber
		}
		x, err := strconv.Atoi(s[i+1:])
		if err != nil {
			return decimal{}, errNumber
		}
		e, i = e+x, len(s)
	}
	if i != len(s) || significant > 0 && (e < -2*maxExponent || e > maxExponent) {
		return decimal{}, errNumber
	}
	if significant == 0 {
		return decimal{}, nil
	}
	if significant <= 18 {
		if negative {
			return decimal{m: -int64(m), e: e}, nil
		}
		return decimal{m: int64(m), e: e}, nil
	}
	large, ok := new(big.Int).SetString(strings.Replace(s[start:end], ".", "", 1), 10)
	if !ok {
		return decimal{}, errNumber
	}
	if negative {
		large.Neg(large)
	}
	return decimal{e: e, large: large}, nil
}

func (d decimal) int() *big.Int {
	if d.large != nil {
		return d.large
	}
	return big.NewInt(d.m)
}

func pow10(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

// at is d as a multiple of 10^e, which must not be above d.e.
func (d decimal) at(e int) *big.Int {
	if d.e == e {
		return d.int()
	}
	return new(big.Int).Mul(d.int(), pow10(d.e-e))
}

// compare is -1, 0 or 1.
func (d decimal) compare(o decimal) int {
	if d.large == nil && o.large == nil {
		if d.e == o.e {
			switch {
			case d.m < o.m:
				return -1
			case d.m > o.m:
				return 1
			}
			return 0
		}
		// Far enough apart for the rounding of floats not to matter.
		x, y := float64(d.m)*math.Pow10(d.e), float64(o.m)*math.Pow10(o.e)
		if far := 1e-12 * max(math.Abs(x), math.Abs(y)); far > 1e-290 && !math.IsInf(far, 0) {
			if x-y > far {
				return 1
			}
			if y-x > far {
				return -1
			}
		}
	}
	e := min(d.e, o.e)
	return d.at(e).Cmp(o.at(e))
}

// String is the number without superfluous zeroes; numbers with many are
// written with an exponent.
func (d decimal) String() string {
	n := d.int()
	if n.Sign() == 0 {
		return "0"
	}
	text, sign := n.String(), ""
	if text[0] == '-' {
		text, sign = text[1:], "-"
	}
	short := strings.TrimRight(text, "0")
	e := d.e + len(text) - len(short)
	if e >= 0 && len(short)+e <= 40 {
		return sign + short + strings.Repeat("0", e)
	}
	if e < 0 && e >= -40 {
		if len(short) <= -e {
			short = strings.Repeat("0", 1-e-len(short)) + short
		}
		return sign + short[:len(short)+e] + "." + short[len(short)+e:]
	}
	e += len(short) - 1
	if len(short) > 1 {
		short = short[:1] + "." + short[1:]
	}
	return sign + short + "e" + strconv.Itoa(e)
}

// sum adds up decimals exactly. Those of up to 18 digits are added in 128 bits,
// by the number of their decimal places.
type sum struct {
	small [19]struct {
		hi int64
		lo uint64
	}
	rest *big.Int // times 10^e; nil: none
	e    int
}

func (s *sum) add(d decimal) {
	if d.large == nil && d.e <= 0 && -d.e < len(s.small) {
		a := &s.small[-d.e]
		var carry uint64
		a.lo, carry = bits.Add64(a.lo, uint64(d.m), 0)
		a.hi += d.m>>63 + int64(carry)
		return
	}
	s.addLarge(d)
}

func (s *sum) addLarge(d decimal) {
	if s.rest == nil {
		s.rest, s.e = new(big.Int), d.e
	}
	if d.e < s.e {
		s.rest.Mul(s.rest, pow10(s.e-d.e))
		s.e = d.e
	}
	s.rest.Add(s.rest, d.at(s.e))
}

// total is the sum.
func (s *sum) total() decimal {
	t := sum{rest: new(big.Int)}
	if s.rest != nil {
		t.rest.Set(s.rest)
		t.e = s.e
	}
	for places, a := range s.small {
		if a.hi == 0 && a.lo == 0 {
			continue
		}
		n := new(big.Int).Lsh(big.NewInt(a.hi), 64)
		n.Add(n, new(big.Int).SetUint64(a.lo))
		t.addLarge(decimal{e: -places, large: n})
	}
	return decimal{e: t.e, large: t.rest}
}

// quotient is the float64 nearest to d / n, as text.
func (d decimal) quotient(n int64) string {
	r := new(big.Rat)
	if d.e >= 0 {
		r.SetFrac(d.at(0), big.NewInt(n))
	} else {
		r.SetFrac(d.int(), new(big.Int).Mul(pow10(-d.e), big.NewInt(n)))
	}
	f, _ := r.Float64()
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}
