package interp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"quernfs/offload/ptx"
)

// specials are the registers that say where a thread is; a thread finds them at
// these indices.
var specials = []string{
	"%tid.x", "%tid.y", "%tid.z", "%ntid.x", "%ntid.y", "%ntid.z",
	"%ctaid.x", "%ctaid.y", "%ctaid.z", "%nctaid.x", "%nctaid.y", "%nctaid.z",
}

// kind is what an instruction is to the thread that comes to it.
type kind uint8

const (
	kindCompute kind = iota // d = f(a, b, c)
	kindJump
	kindExit
	kindBarrier
	kindLoad
	kindStore
	kindAtomic // d = memory; memory = f(memory, b, c)
)

type space uint8

const (
	spaceGlobal space = iota
	spaceShared
	spaceParam
)

// instr is one instruction. Operands are indices of registers; numbers are
// registers that nobody writes.
type instr struct {
	kind    kind
	guard   int // a predicate, or -1
	not     bool
	d       int // -1: the result is not wanted
	a, b, c int
	f       func(a, b, c uint64) uint64
	target  int // of a jump

	space  space
	size   int    // bytes of an element in memory
	signed bool   // a load extends the sign
	offset uint64 // added to register a
	regs   []int  // of a load or store, one for each element
	text   string // for people
}

// opcode is the name of an instruction cut at its dots.
type opcode struct {
	base string
	mods []string
}

// take removes modifiers that are there.
func (o *opcode) take(names ...string) bool {
	n := len(o.mods)
	o.mods = slices.DeleteFunc(o.mods, func(m string) bool { return slices.Contains(names, m) })
	return len(o.mods) < n
}

// only says whether typ is all that is left, and one of those given.
func (o *opcode) only(typ ...string) (string, bool) {
	if len(o.mods) == 1 && slices.Contains(typ, "."+o.mods[0]) {
		return "." + o.mods[0], true
	}
	return "", false
}

var errUnknown = fmt.Errorf("the instruction is not known to this interpreter")

// instruction compiles one instruction.
func (c *compiler) instruction(s string) error {
	in := instr{guard: -1, d: -1, text: s}
	if rest, guarded := strings.CutPrefix(s, "@"); guarded {
		name, after, _ := strings.Cut(rest, " ")
		name, in.not = strings.CutPrefix(name, "!")
		var err error
		if in.guard, err = c.source(name, ".pred"); err != nil {
			return err
		}
		s = after
	}
	name, rest, _ := strings.Cut(s, " ")
	parts := strings.Split(name, ".")
	op := opcode{parts[0], parts[1:]}
	args := operands(rest)
	var err error
	switch op.base {
	case "bra":
		op.take("uni")
		if len(op.mods) > 0 || len(args) != 1 {
			return errUnknown
		}
		in.kind = kindJump
		c.jumps[len(c.k.code)] = args[0]
	case "ret", "exit":
		if op.take("uni"); len(op.mods) > 0 || len(args) > 0 {
			return errUnknown
		}
		in.kind = kindExit
	case "bar", "barrier":
		// Of all threads of the block, which is what barrier 0 without a count is.
		if !op.take("sync") || op.take("aligned") && op.base == "bar" || len(op.mods) > 0 || len(args) != 1 || args[0] != "0" || in.guard >= 0 {
			return errUnknown
		}
		in.kind = kindBarrier
	case "membar", "fence":
		return nil // there is one thread at a time
	case "ld", "st":
		err = c.memory(&in, op, args)
	case "atom", "red":
		err = c.atomic(&in, op, args)
	default:
		err = c.compute(&in, op, args)
	}
	if err != nil {
		return err
	}
	c.k.code = append(c.k.code, in)
	return nil
}

// operands cuts at the commas that are not in braces or brackets.
func operands(s string) (out []string) {
	depth, from := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, strings.TrimSpace(s[from:i]))
				from = i + 1
			}
		}
	}
	if last := strings.TrimSpace(s[from:]); last != "" || from > 0 {
		out = append(out, last)
	}
	return out
}

// where reads [REGISTER+8] or [NAME+8].
func (c *compiler) where(in *instr, s string) error {
	inner, ok := strings.CutPrefix(s, "[")
	inner, ok2 := strings.CutSuffix(inner, "]")
	if !ok || !ok2 {
		return fmt.Errorf("%s is no address", s)
	}
	name, plus, more := strings.Cut(inner, "+")
	if more {
		v, err := strconv.ParseInt(plus, 0, 32)
		if err != nil {
			return fmt.Errorf("%s is no address", s)
		}
		in.offset = uint64(v)
	}
	if in.space == spaceParam {
		i, known := c.params[name]
		if !known {
			return fmt.Errorf("there is no argument %s", name)
		}
		if end := int64(in.offset) + int64(in.size*max(len(in.regs), 1)); int64(in.offset) < 0 || end > int64(c.k.Params[i].Size) {
			return fmt.Errorf("argument %s has %d bytes", name, c.k.Params[i].Size)
		}
		in.offset += uint64(c.k.offset[i])
		in.a = c.constant(0)
		return nil
	}
	if _, isVariable := c.symbols[name]; isVariable != (in.space == spaceShared) && isVariable {
		return fmt.Errorf("%s is in shared memory", name)
	}
	var err error
	in.a, err = c.source(name, ".u64")
	return err
}

// memory compiles ld and st.
func (c *compiler) memory(in *instr, op opcode, args []string) error {
	in.kind = kindLoad
	if op.base == "st" {
		in.kind = kindStore
	}
	switch {
	case op.take("global"):
		in.space = spaceGlobal
	case op.take("shared"):
		in.space = spaceShared
	case op.base == "ld" && op.take("param"):
		in.space = spaceParam
	default:
		return errUnknown // a generic address
	}
	op.take("volatile")
	if in.kind == kindLoad && in.space == spaceGlobal {
		op.take("nc") // by another cache
	}
	n := 1
	switch {
	case op.take("v2"):
		n = 2
	case op.take("v4"):
		n = 4
	}
	if len(op.mods) != 1 || len(args) != 2 {
		return errUnknown
	}
	typ := "." + op.mods[0]
	if in.size = ptx.TypeSize(typ); in.size == 0 || typ == ".f16" {
		return errUnknown
	}
	in.signed = typ[1] == 's'
	at, value := args[1], args[0]
	if in.kind == kindStore {
		at, value = value, at
	}
	values := []string{value}
	if n > 1 {
		inner, ok := strings.CutPrefix(value, "{")
		inner, ok2 := strings.CutSuffix(inner, "}")
		if values = operands(inner); !ok || !ok2 || len(values) != n {
			return fmt.Errorf("%s is not %d registers", value, n)
		}
	}
	for _, v := range values {
		find := c.source
		if in.kind == kindLoad {
			find = c.target
		}
		r, err := find(v, typ)
		if err != nil {
			return err
		}
		in.regs = append(in.regs, r)
	}
	return c.where(in, at)
}

// atomic compiles atom, and red, which is atom without a result.
func (c *compiler) atomic(in *instr, op opcode, args []string) error {
	in.kind = kindAtomic
	switch {
	case op.take("global"):
		in.space = spaceGlobal
	case op.take("shared"):
		in.space = spaceShared
	default:
		return errUnknown
	}
	op.take("relaxed", "gpu", "cta")
	if len(op.mods) != 2 {
		return errUnknown
	}
	typ := "." + op.mods[1]
	in.size = ptx.TypeSize(typ)
	if in.size < 4 {
		return errUnknown
	}
	want := 2
	if op.mods[0] == "cas" {
		want = 3
	}
	var err error
	if op.base == "atom" {
		if len(args) == 0 {
			return errUnknown
		}
		if args[0] != "_" {
			if in.d, err = c.target(args[0], typ); err != nil {
				return err
			}
		}
		args = args[1:]
	}
	if len(args) != want {
		return errUnknown
	}
	if in.f = atomicOf(op.mods[0], typ); in.f == nil {
		return errUnknown
	}
	if in.b, err = c.source(args[1], typ); err != nil {
		return err
	}
	if want == 3 {
		if in.c, err = c.source(args[2], typ); err != nil {
			return err
		}
	}
	return c.where(in, args[0])
}

// compute compiles what works on registers.
func (c *compiler) compute(in *instr, op opcode, args []string) error {
	r, err := ruleOf(op)
	if err != nil {
		return err
	}
	if len(args) != 1+len(r.in) {
		return fmt.Errorf("%d operands, not %d", len(args), 1+len(r.in))
	}
	in.f = r.f
	if in.d, err = c.target(args[0], r.out); err != nil {
		return err
	}
	if size, wide := ptx.TypeSize(r.out), c.k.bits[in.d]; r.out[1] == 's' && 8*size < wide { // cvt into a wider register
		in.f = func(a, b, c uint64) uint64 { return uint64(sign(r.f(a, b, c), size)) & mask(wide) }
	}
	for i, to := range []*int{&in.a, &in.b, &in.c}[:len(r.in)] {
		if *to, err = c.source(args[1+i], r.in[i]); err != nil {
			return err
		}
	}
	return nil
}
