package interp

import (
	"math"
	"slices"

	"quernfs/offload/ptx"
)

func toFloat(v uint64, t string) float64 {
	if t == ".f32" {
		return float64(math.Float32frombits(uint32(v)))
	}
	return math.Float64frombits(v)
}

// floatCompares: those that end in u are true if an operand is not a number.
var floatCompares = map[string]func(a, b float64) bool{
	"eq": func(a, b float64) bool { return a == b }, "equ": func(a, b float64) bool { return a == b || a != a || b != b },
	"ne": func(a, b float64) bool { return a < b || a > b }, "neu": func(a, b float64) bool { return a != b },
	"lt": func(a, b float64) bool { return a < b }, "ltu": func(a, b float64) bool { return !(a >= b) },
	"le": func(a, b float64) bool { return a <= b }, "leu": func(a, b float64) bool { return !(a > b) },
	"gt": func(a, b float64) bool { return a > b }, "gtu": func(a, b float64) bool { return !(a <= b) },
	"ge": func(a, b float64) bool { return a >= b }, "geu": func(a, b float64) bool { return !(a < b) },
	"num": func(a, b float64) bool { return a == a && b == b }, "nan": func(a, b float64) bool { return a != a || b != b },
}

// floating is arithmetic on floats, rounded to the nearest, ties to even.
// Approximate forms are refused: what they give depends on the GPU.
func floating(op opcode) (rule, error) {
	rounded := op.take("rn")
	t, ok := op.only(floats...)
	if !ok {
		return rule{}, errUnknown
	}
	single := t == ".f32"
	one := []string{t}
	two := []string{t, t}
	unary := func(f32 func(float32) float32, f64 func(float64) float64) rule {
		if single {
			return rule{t, one, func(a, _, _ uint64) uint64 { return b32(f32(s32(a))) }}
		}
		return rule{t, one, func(a, _, _ uint64) uint64 { return math.Float64bits(f64(math.Float64frombits(a))) }}
	}
	binary := func(f32 func(a, b float32) float32, f64 func(a, b float64) float64) rule {
		if single {
			return rule{t, two, func(a, b, _ uint64) uint64 { return b32(f32(s32(a), s32(b))) }}
		}
		return rule{t, two, func(a, b, _ uint64) uint64 {
			return math.Float64bits(f64(math.Float64frombits(a), math.Float64frombits(b)))
		}}
	}
	switch op.base {
	case "add":
		return binary(func(a, b float32) float32 { return a + b }, func(a, b float64) float64 { return a + b }), nil
	case "sub":
		return binary(func(a, b float32) float32 { return a - b }, func(a, b float64) float64 { return a - b }), nil
	case "mul":
		return binary(func(a, b float32) float32 { return a * b }, func(a, b float64) float64 { return a * b }), nil
	case "div":
		if rounded {
			return binary(func(a, b float32) float32 { return a / b }, func(a, b float64) float64 { return a / b }), nil
		}
	case "rcp":
		if rounded {
			return unary(func(a float32) float32 { return 1 / a }, func(a float64) float64 { return 1 / a }), nil
		}
	case "sqrt":
		if rounded { // a root of 24 bits from one of 53 is rounded rightly
			return unary(func(a float32) float32 { return float32(math.Sqrt(float64(a))) }, math.Sqrt), nil
		}
	case "fma":
		if rounded && single {
			return rule{t, []string{t, t, t}, func(a, b, c uint64) uint64 { return b32(fma32(s32(a), s32(b), s32(c))) }}, nil
		}
		if rounded {
			return rule{t, []string{t, t, t}, func(a, b, c uint64) uint64 {
				return math.Float64bits(math.FMA(math.Float64frombits(a), math.Float64frombits(b), math.Float64frombits(c)))
			}}, nil
		}
	case "min", "max":
		if !rounded {
			smaller := op.base == "min"
			return rule{t, two, func(a, b, _ uint64) uint64 { return pick(a, b, t, smaller) }}, nil
		}
	case "neg":
		if !rounded {
			top := uint64(1) << (8*ptx.TypeSize(t) - 1)
			return rule{t, one, func(a, _, _ uint64) uint64 { return a ^ top }}, nil
		}
	case "abs":
		if !rounded {
			top := uint64(1) << (8*ptx.TypeSize(t) - 1)
			return rule{t, one, func(a, _, _ uint64) uint64 { return a &^ top }}, nil
		}
	}
	return rule{}, errUnknown
}

func s32(v uint64) float32 { return math.Float32frombits(uint32(v)) }

// b32 is the bits of v; that which is no number has one form.
func b32(v float32) uint64 {
	if v != v {
		return 0x7fffffff
	}
	return uint64(math.Float32bits(v))
}

// pick is min and max: of a number and what is none the number, and -0 is less
// than +0.
func pick(a, b uint64, t string, smaller bool) uint64 {
	x, y := toFloat(a, t), toFloat(b, t)
	switch {
	case x != x && y != y:
		if t == ".f32" {
			return 0x7fffffff
		}
		return math.Float64bits(math.NaN())
	case x != x:
		return b
	case y != y:
		return a
	case x == y:
		if math.Signbit(x) == smaller {
			return a
		}
		return b
	case (x < y) == smaller:
		return a
	}
	return b
}

// fma32 is a*b+c rounded once. The product of two float32 is exact in float64;
// the sum is rounded to odd, after which rounding it to float32 is the one
// rounding that counts (Boldo and Melquiond, "Emulation of FMA and correctly
// rounded sums: proved algorithms using rounding to odd", 2008).
func fma32(a, b, c float32) float32 {
	p, d := float64(a)*float64(b), float64(c)
	s := p + d
	if math.IsInf(s, 0) || s != s {
		return float32(s)
	}
	// What the sum lost (Knuth's TwoSum).
	t := s - p
	lost := (p - (s - t)) + (d - t)
	if bits := math.Float64bits(s); lost != 0 && bits&1 == 0 {
		if (lost > 0) == (s > 0) {
			bits++
		} else {
			bits--
		}
		s = math.Float64frombits(bits)
	}
	return float32(s)
}

// convert is cvt.
func convert(op opcode) (rule, error) {
	if len(op.mods) < 2 {
		return rule{}, errUnknown
	}
	to, from := "."+op.mods[len(op.mods)-2], "."+op.mods[len(op.mods)-1]
	mods := op.mods[:len(op.mods)-2]
	rounding := ""
	if len(mods) == 1 {
		rounding = mods[0]
	} else if len(mods) > 1 {
		return rule{}, errUnknown
	}
	ints := slices.Concat([]string{".u8", ".s8"}, whole)
	// An instruction names its operands by their own width, and reads and writes
	// registers that may be wider.
	toInt, fromInt := slices.Contains(ints, to), slices.Contains(ints, from)
	toFloat64, fromFloat := slices.Contains(floats, to), slices.Contains(floats, from)
	signed := from[1] == 's'
	size := ptx.TypeSize(from)
	value := func(a uint64) uint64 {
		if signed {
			return uint64(sign(a, size))
		}
		return a & mask(8*size)
	}
	switch {
	case toInt && fromInt && rounding == "":
		m := mask(8 * ptx.TypeSize(to))
		return rule{to, []string{from}, func(a, _, _ uint64) uint64 { return value(a) & m }}, nil
	case toFloat64 && fromInt && rounding == "rn":
		return rule{to, []string{from}, func(a, _, _ uint64) uint64 {
			v := value(a)
			switch {
			case to == ".f32" && signed:
				return b32(float32(int64(v)))
			case to == ".f32":
				return b32(float32(v))
			case signed:
				return math.Float64bits(float64(int64(v)))
			}
			return math.Float64bits(float64(v))
		}}, nil
	case toInt && fromFloat:
		round, ok := map[string]func(float64) float64{"rni": math.RoundToEven, "rzi": math.Trunc, "rmi": math.Floor, "rpi": math.Ceil}[rounding]
		if ok {
			return rule{to, []string{from}, func(a, _, _ uint64) uint64 { return clamp(round(toFloat(a, from)), to) }}, nil
		}
	case to == ".f64" && from == ".f32" && rounding == "":
		return rule{to, []string{from}, func(a, _, _ uint64) uint64 { return math.Float64bits(float64(s32(a))) }}, nil
	case to == ".f32" && from == ".f64" && rounding == "rn":
		return rule{to, []string{from}, func(a, _, _ uint64) uint64 { return b32(float32(math.Float64frombits(a))) }}, nil
	case to == from && toFloat64:
		round, ok := map[string]func(float64) float64{"rni": math.RoundToEven, "rzi": math.Trunc, "rmi": math.Floor, "rpi": math.Ceil}[rounding]
		if ok && to == ".f32" {
			return rule{to, []string{from}, func(a, _, _ uint64) uint64 { return b32(float32(round(float64(s32(a))))) }}, nil
		}
		if ok {
			return rule{to, []string{from}, func(a, _, _ uint64) uint64 { return math.Float64bits(round(math.Float64frombits(a))) }}, nil
		}
	}
	return rule{}, errUnknown
}

// clamp makes a whole float an integer of type t: what is too large becomes the
// largest, and what is no number 0.
func clamp(v float64, t string) uint64 {
	bits := 8 * ptx.TypeSize(t)
	if v != v {
		return 0
	}
	if t[1] == 's' {
		top := math.Ldexp(1, bits-1)
		switch {
		case v >= top:
			return mask(bits - 1)
		case v < -top:
			return 1 << (bits - 1)
		}
		return uint64(int64(v)) & mask(bits)
	}
	switch {
	case v <= 0:
		return 0
	case v >= math.Ldexp(1, bits):
		return mask(bits)
	}
	return uint64(v)
}
