package interp

import (
	"math"
	"math/bits"
	"slices"
	"strings"

	"quernfs/offload/ptx"
)

// rule is what an instruction on registers does. Values are as wide as their
// type, in the low bits; what is above them is 0.
type rule struct {
	out string   // type of the result
	in  []string // of the operands
	f   func(a, b, c uint64) uint64
}

var (
	whole  = []string{".u16", ".s16", ".u32", ".s32", ".u64", ".s64"}
	floats = []string{".f32", ".f64"}
	plain  = []string{".b16", ".b32", ".b64"}
)

// ruleOf finds the rule of an instruction.
func ruleOf(op opcode) (rule, error) {
	op.mods = slices.Clone(op.mods)
	switch op.base {
	case "mov":
		if t, ok := op.only(slices.Concat([]string{".pred"}, plain, whole, floats)...); ok {
			return rule{t, []string{t}, func(a, _, _ uint64) uint64 { return a }}, nil
		}
	case "cvta":
		// Addresses in global memory are the same in either form.
		op.take("to")
		if !op.take("global") {
			break
		}
		if t, ok := op.only(".u64"); ok {
			return rule{t, []string{t}, func(a, _, _ uint64) uint64 { return a }}, nil
		}
	case "setp":
		return compare(op)
	case "selp":
		if t, ok := op.only(slices.Concat(plain, whole, floats)...); ok {
			return rule{t, []string{t, t, ".pred"}, func(a, b, p uint64) uint64 {
				if p != 0 {
					return a
				}
				return b
			}}, nil
		}
	case "cvt":
		return convert(op)
	case "and", "or", "xor", "not", "shl", "shr", "shf", "popc", "clz", "bfe":
		return bitwise(op)
	case "add", "sub", "mul", "mad", "fma", "div", "rem", "min", "max", "neg", "abs", "sqrt", "rcp":
		if len(op.mods) > 0 && slices.Contains(floats, "."+op.mods[len(op.mods)-1]) {
			return floating(op)
		}
		return integer(op)
	}
	return rule{}, errUnknown
}

// sign extends the sign of a value of size bytes.
func sign(v uint64, size int) int64 {
	shift := 64 - 8*size
	return int64(v<<shift) >> shift
}

// integer is arithmetic on integers.
func integer(op opcode) (rule, error) {
	form := ""
	if op.base == "mul" || op.base == "mad" {
		for _, f := range []string{"lo", "hi", "wide"} {
			if op.take(f) {
				form = f
				break
			}
		}
		if form == "" {
			return rule{}, errUnknown
		}
	}
	t, ok := op.only(whole...)
	if !ok {
		return rule{}, errUnknown
	}
	size, signed := ptx.TypeSize(t), t[1] == 's'
	m := mask(8 * size)
	two := func(f func(a, b uint64) uint64) (rule, error) {
		return rule{t, []string{t, t}, func(a, b, _ uint64) uint64 { return f(a&m, b&m) & m }}, nil
	}
	less := func(a, b uint64) bool {
		if signed {
			return sign(a, size) < sign(b, size)
		}
		return a < b
	}
	switch op.base {
	case "add":
		return two(func(a, b uint64) uint64 { return a + b })
	case "sub":
		return two(func(a, b uint64) uint64 { return a - b })
	case "min":
		return two(func(a, b uint64) uint64 {
			if less(b, a) {
				return b
			}
			return a
		})
	case "max":
		return two(func(a, b uint64) uint64 {
			if less(a, b) {
				return b
			}
			return a
		})
	case "div", "rem":
		// Division by 0 gives what the hardware likes; all ones is what is seen.
		return two(func(a, b uint64) uint64 {
			switch {
			case b == 0:
				return math.MaxUint64
			case op.base == "div" && signed:
				return uint64(sign(a, size) / sign(b, size))
			case op.base == "div":
				return a / b
			case signed:
				return uint64(sign(a, size) % sign(b, size))
			}
			return a % b
		})
	case "neg", "abs":
		if !signed {
			return rule{}, errUnknown
		}
		return rule{t, []string{t}, func(a, _, _ uint64) uint64 {
			if op.base == "abs" && sign(a, size) >= 0 {
				return a & m
			}
			return -a & m
		}}, nil
	case "mul", "mad":
		return product(op.base, form, t)
	}
	return rule{}, errUnknown
}

// product is mul and mad in their forms: the low half, the high half, and the
// whole of a product of half the width.
func product(base, form, t string) (rule, error) {
	size, signed := ptx.TypeSize(t), t[1] == 's'
	m := mask(8 * size)
	out := t
	mul := func(a, b uint64) uint64 { return a * b & m }
	switch {
	case form == "wide" && size == 8:
		return rule{}, errUnknown
	case form == "wide":
		out = map[string]string{".u16": ".u32", ".s16": ".s32", ".u32": ".u64", ".s32": ".s64"}[t]
		mul = func(a, b uint64) uint64 {
			if signed {
				return uint64(sign(a, size)*sign(b, size)) & mask(16*size)
			}
			return (a & m) * (b & m)
		}
	case form == "hi" && size == 8:
		mul = func(a, b uint64) uint64 {
			hi, _ := bits.Mul64(a, b)
			if signed && int64(a) < 0 {
				hi -= b
			}
			if signed && int64(b) < 0 {
				hi -= a
			}
			return hi
		}
	case form == "hi":
		mul = func(a, b uint64) uint64 {
			if signed {
				return uint64(sign(a, size)*sign(b, size)>>(8*size)) & m
			}
			return (a & m) * (b & m) >> (8 * size)
		}
	}
	if base == "mul" {
		return rule{out, []string{t, t}, func(a, b, _ uint64) uint64 { return mul(a, b) }}, nil
	}
	width := mask(8 * ptx.TypeSize(out))
	return rule{out, []string{t, t, out}, func(a, b, c uint64) uint64 { return (mul(a, b) + c) & width }}, nil
}

// bitwise is what looks at bits.
func bitwise(op opcode) (rule, error) {
	funnel := ""
	if op.base == "shf" {
		switch {
		case op.take("l"):
			funnel = "l"
		case op.take("r"):
			funnel = "r"
		}
		if funnel == "" || !op.take("wrap") {
			return rule{}, errUnknown
		}
	}
	allowed := map[string][]string{
		"and": {".pred", ".b16", ".b32", ".b64"}, "or": {".pred", ".b16", ".b32", ".b64"}, "xor": {".pred", ".b16", ".b32", ".b64"}, "not": {".pred", ".b16", ".b32", ".b64"},
		"shl": plain, "shr": slices.Concat(plain, whole), "shf": {".b32"}, "popc": {".b32", ".b64"}, "clz": {".b32", ".b64"}, "bfe": {".u32", ".u64"},
	}
	t, ok := op.only(allowed[op.base]...)
	if !ok {
		return rule{}, errUnknown
	}
	size := ptx.TypeSize(t)
	width := uint64(8 * size)
	m := mask(8 * size)
	if t == ".pred" {
		m = 1
	}
	two := []string{t, t}
	switch op.base {
	case "and":
		return rule{t, two, func(a, b, _ uint64) uint64 { return a & b & m }}, nil
	case "or":
		return rule{t, two, func(a, b, _ uint64) uint64 { return (a | b) & m }}, nil
	case "xor":
		return rule{t, two, func(a, b, _ uint64) uint64 { return (a ^ b) & m }}, nil
	case "not":
		return rule{t, []string{t}, func(a, _, _ uint64) uint64 { return ^a & m }}, nil
	case "shl": // too far gives 0, as in Go
		return rule{t, []string{t, ".u32"}, func(a, n, _ uint64) uint64 { return (a & m) << (n & mask(32)) & m }}, nil
	case "shr":
		if t[1] == 's' {
			return rule{t, []string{t, ".u32"}, func(a, n, _ uint64) uint64 { return uint64(sign(a, size)>>(n&mask(32))) & m }}, nil
		}
		return rule{t, []string{t, ".u32"}, func(a, n, _ uint64) uint64 { return (a & m) >> (n & mask(32)) }}, nil
	case "shf": // of the 64 bits b:a
		return rule{t, []string{t, t, ".u32"}, func(a, b, n uint64) uint64 {
			both := b&m<<32 | a&m
			if funnel == "l" {
				return both << (n & 31) >> 32 & m
			}
			return both >> (n & 31) & m
		}}, nil
	case "popc":
		return rule{".u32", []string{t}, func(a, _, _ uint64) uint64 { return uint64(bits.OnesCount64(a & m)) }}, nil
	case "clz":
		return rule{".u32", []string{t}, func(a, _, _ uint64) uint64 { return uint64(bits.LeadingZeros64(a&m)) - (64 - width) }}, nil
	}
	return rule{t, []string{t, ".u32", ".u32"}, func(a, pos, n uint64) uint64 { // bfe
		return (a & m) >> (pos & 0xff) & mask(int(min(n&0xff, 64)))
	}}, nil
}

// compare is setp with one result.
func compare(op opcode) (rule, error) {
	if len(op.mods) != 2 {
		return rule{}, errUnknown
	}
	how, t := op.mods[0], "."+op.mods[1]
	pred := func(f func(a, b uint64) bool) (rule, error) {
		return rule{".pred", []string{t, t}, func(a, b, _ uint64) uint64 {
			if f(a, b) {
				return 1
			}
			return 0
		}}, nil
	}
	if slices.Contains(floats, t) {
		f, ok := floatCompares[how]
		if !ok {
			return rule{}, errUnknown
		}
		return pred(func(a, b uint64) bool { return f(toFloat(a, t), toFloat(b, t)) })
	}
	size := ptx.TypeSize(t)
	if size < 2 || !slices.Contains(slices.Concat(plain, whole), t) {
		return rule{}, errUnknown
	}
	m, signed := mask(8*size), t[1] == 's'
	if t[1] == 'b' && how != "eq" && how != "ne" {
		return rule{}, errUnknown
	}
	if unsigned, ok := map[string]string{"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}[how]; ok {
		if signed {
			return rule{}, errUnknown
		}
		how = unsigned
	}
	less := func(a, b uint64) bool {
		if signed {
			return sign(a, size) < sign(b, size)
		}
		return a&m < b&m
	}
	switch how {
	case "eq":
		return pred(func(a, b uint64) bool { return a&m == b&m })
	case "ne":
		return pred(func(a, b uint64) bool { return a&m != b&m })
	case "lt":
		return pred(less)
	case "le":
		return pred(func(a, b uint64) bool { return !less(b, a) })
	case "gt":
		return pred(func(a, b uint64) bool { return less(b, a) })
	case "ge":
		return pred(func(a, b uint64) bool { return !less(a, b) })
	}
	return rule{}, errUnknown
}

// atomicOf is what an atomic operation leaves in memory; nil: it is not known.
func atomicOf(name, t string) func(old, b, c uint64) uint64 {
	switch name {
	case "exch":
		if t[1] == 'b' {
			return func(_, b, _ uint64) uint64 { return b & mask(8*ptx.TypeSize(t)) }
		}
	case "cas":
		if t[1] == 'b' {
			m := mask(8 * ptx.TypeSize(t))
			return func(old, b, c uint64) uint64 {
				if old == b&m {
					return c & m
				}
				return old
			}
		}
	case "and", "or", "xor", "add", "min", "max":
		op := opcode{name, []string{strings.TrimPrefix(t, ".")}}
		if t == ".f32" || t == ".f64" {
			if name != "add" {
				return nil
			}
			op.mods = []string{"rn", op.mods[0]}
		}
		if r, err := ruleOf(op); err == nil {
			return r.f
		}
	}
	return nil
}
