package interp

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"quernfs/offload/ptx"
)

// Module is a file of PTX that can be executed.
type Module struct{ kernels map[string]*Kernel }

// Kernel is one entry point.
type Kernel struct {
	Name   string
	Params []ptx.Param
	offset []int    // of each argument
	bytes  int      // of all
	shared int      // bytes of shared memory of a block
	start  []uint64 // registers of a thread when it begins
	bits   []int    // how wide each is
	code   []instr
}

// Limits of a module.
const (
	maxRegisters = 1 << 16
	maxShared    = 48 << 10
)

// Parse reads a module. What the package does not know is an error that names
// the kernel and the instruction.
func Parse(source []byte) (*Module, error) {
	f, err := ptx.Parse(source)
	if err != nil {
		return nil, err
	}
	if err := preamble(f.Rest); err != nil {
		return nil, err
	}
	m := &Module{map[string]*Kernel{}}
	for _, e := range f.Entries {
		k, err := compile(e)
		if err != nil {
			return nil, fmt.Errorf("PTX: kernel %s: %w", e.Name, err)
		}
		m.kernels[e.Name] = k
	}
	return m, nil
}

// Kernel returns the entry point of that name, or nil.
func (m *Module) Kernel(name string) *Kernel { return m.kernels[name] }

// preamble takes a version, a target and a size of addresses, and nothing else.
func preamble(text string) error {
	for line := range strings.Lines(text) {
		words := strings.Fields(strings.ReplaceAll(line, ",", " "))
		switch {
		case len(words) == 0:
		case len(words) == 2 && words[0] == ".version":
			if major, _, _ := strings.Cut(words[1], "."); !slices.Contains([]string{"3", "4", "5", "6", "7", "8"}, major) {
				return fmt.Errorf("PTX: version %s is not known", words[1])
			}
		case len(words) >= 2 && words[0] == ".target" && strings.HasPrefix(words[1], "sm_"):
		case len(words) == 2 && words[0] == ".address_size" && words[1] == "64":
		default:
			return fmt.Errorf("PTX: %q outside of a kernel is not known", strings.TrimSpace(line))
		}
	}
	return nil
}

// compiler makes the body of a kernel executable.
type compiler struct {
	k       *Kernel
	names   map[string]int    // register by name
	kinds   map[int]string    // type by register, as declared
	symbols map[string]uint64 // offset by name of a variable in shared memory
	labels  map[string]int    // instruction by label
	jumps   map[int]string    // label by instruction that jumps there
	params  map[string]int    // argument by name
}

func compile(e ptx.Entry) (*Kernel, error) {
	c := &compiler{
		k: &Kernel{Name: e.Name, Params: e.Params}, names: map[string]int{}, kinds: map[int]string{},
		symbols: map[string]uint64{}, labels: map[string]int{}, jumps: map[int]string{}, params: map[string]int{},
	}
	for i, p := range e.Params {
		unit := ptx.TypeSize(p.Type)
		at := (c.k.bytes + unit - 1) / unit * unit
		c.k.offset = append(c.k.offset, at)
		c.k.bytes, c.params[p.Name] = at+p.Size, i
	}
	for _, name := range specials {
		c.register(name, ".u32")
	}
	for _, s := range statements(e.Body) {
		if err := c.statement(s); err != nil {
			return nil, fmt.Errorf("%q: %w", s, err)
		}
	}
	for at, label := range c.jumps {
		to, ok := c.labels[label]
		if !ok {
			return nil, fmt.Errorf("there is no label %s", label)
		}
		c.k.code[at].target = to
	}
	c.k.code = append(c.k.code, instr{kind: kindExit, guard: -1})
	return c.k, nil
}

// statements cuts a body into instructions, directives and labels ("NAME:").
func statements(body string) (out []string) {
	for s := range strings.SplitSeq(body, ";") {
		s = strings.TrimSpace(s)
		for {
			label, rest, found := strings.Cut(s, ":")
			if !found || strings.ContainsAny(label, " \t\n\"{[") {
				break
			}
			out = append(out, label+":")
			s = strings.TrimSpace(rest)
		}
		if s != "" {
			out = append(out, strings.Join(strings.Fields(s), " "))
		}
	}
	return out
}

func (c *compiler) statement(s string) error {
	switch {
	case strings.HasSuffix(s, ":"):
		name := strings.TrimSuffix(s, ":")
		if _, twice := c.labels[name]; twice {
			return fmt.Errorf("the label is there twice")
		}
		c.labels[name] = len(c.k.code)
		return nil
	case strings.HasPrefix(s, ".reg "):
		return c.declare(s)
	case strings.HasPrefix(s, ".shared "):
		return c.variable(s)
	case strings.HasPrefix(s, ".pragma "):
		return nil // advice to the compiler
	}
	return c.instruction(s)
}

// register makes or finds a register.
func (c *compiler) register(name, kind string) int {
	if i, ok := c.names[name]; ok {
		return i
	}
	i := len(c.k.start)
	c.k.start = append(c.k.start, 0)
	c.k.bits = append(c.k.bits, 8*ptx.TypeSize(kind))
	c.names[name], c.kinds[i] = i, kind
	return i
}

// declare reads .reg .b32 %r<5> or .reg .b32 %x, %y.
func (c *compiler) declare(s string) error {
	words := strings.SplitN(s, " ", 3)
	if len(words) != 3 || words[1] != ".pred" && ptx.TypeSize(words[1]) < 2 {
		return fmt.Errorf("not a declaration that is known")
	}
	for name := range strings.SplitSeq(words[2], ",") {
		name = strings.TrimSpace(name)
		base, count, many := strings.Cut(strings.TrimSuffix(name, ">"), "<")
		n := 1
		if many {
			var err error
			if n, err = strconv.Atoi(count); err != nil || n < 0 {
				return fmt.Errorf("%s is no number of registers", count)
			}
		}
		if n > maxRegisters-len(c.k.start) || !strings.HasPrefix(base, "%") {
			return fmt.Errorf("registers %s", name)
		}
		for i := range n {
			full := base
			if many {
				full += strconv.Itoa(i)
			}
			if _, twice := c.names[full]; twice {
				return fmt.Errorf("register %s is declared twice", full)
			}
			c.register(full, words[1])
		}
	}
	return nil
}

// variable reads .shared .align 4 .b8 NAME[1024].
func (c *compiler) variable(s string) error {
	words := strings.Fields(s)
	align, unit, count := 0, 0, 1
	var err error
	for i := 1; i < len(words)-1; i++ {
		switch size := ptx.TypeSize(words[i]); {
		case words[i] == ".align" && i+1 < len(words)-1:
			if align, err = strconv.Atoi(words[i+1]); err != nil || align < 1 || align > 128 {
				return fmt.Errorf("an alignment of %s", words[i+1])
			}
			i++
		case size > 0 && unit == 0:
			unit = size
		default:
			return fmt.Errorf("%s is not known", words[i])
		}
	}
	name, n, array := strings.Cut(words[len(words)-1], "[")
	if array {
		if count, err = strconv.Atoi(strings.TrimSuffix(n, "]")); err != nil || count < 1 || count > maxShared {
			return fmt.Errorf("%s is no size", n)
		}
	}
	if _, twice := c.symbols[name]; twice || unit == 0 {
		return fmt.Errorf("not a declaration that is known")
	}
	align = max(align, unit)
	at := (c.k.shared + align - 1) / align * align
	if c.k.shared = at + unit*count; c.k.shared > maxShared {
		return fmt.Errorf("more than %d bytes of shared memory", maxShared)
	}
	c.symbols[name] = uint64(at)
	return nil
}

// source is the register of an operand of type typ that is read: a register, a
// number, or the address of a variable in shared memory.
func (c *compiler) source(s, typ string) (int, error) {
	if i, ok := c.names[s]; ok {
		if (c.kinds[i] == ".pred") != (typ == ".pred") {
			return 0, fmt.Errorf("%s is of type %s", s, c.kinds[i])
		}
		if ptx.TypeSize(c.kinds[i]) < ptx.TypeSize(typ) {
			return 0, fmt.Errorf("%s is too small for %s", s, typ)
		}
		return i, nil
	}
	if at, ok := c.symbols[s]; ok {
		return c.constant(at), nil
	}
	v, err := literal(s, typ)
	if err != nil {
		return 0, err
	}
	return c.constant(v), nil
}

// constant is a register that holds v, and that no instruction writes.
func (c *compiler) constant(v uint64) int {
	i := c.register("="+strconv.FormatUint(v, 16), "")
	c.k.start[i] = v
	c.kinds[i] = ".b64"
	return i
}

// literal reads a number: 16, -1, 0x10, 0f3F800000, 0d3FF0000000000000.
func literal(s, typ string) (uint64, error) {
	float := typ == ".f32" || typ == ".f64"
	if bits, ok := strings.CutPrefix(s, "0f"); ok && typ == ".f32" && len(bits) == 8 {
		return strconv.ParseUint(bits, 16, 32)
	}
	if bits, ok := strings.CutPrefix(s, "0d"); ok && typ == ".f64" && len(bits) == 16 {
		return strconv.ParseUint(bits, 16, 64)
	}
	if float || typ == ".pred" {
		return 0, fmt.Errorf("%s is not known as a %s", s, typ)
	}
	bits := 8 * ptx.TypeSize(typ)
	if v, err := strconv.ParseInt(s, 0, 64); err == nil && (bits == 64 || v >= -1<<(bits-1) && v < 1<<bits) {
		return uint64(v) & mask(bits), nil
	}
	if v, err := strconv.ParseUint(s, 0, bits); err == nil {
		return v, nil
	}
	return 0, fmt.Errorf("%s is neither a register nor a number", s)
}

func mask(bits int) uint64 {
	if bits >= 64 {
		return math.MaxUint64
	}
	return 1<<bits - 1
}

// target is the register of an operand that is written.
func (c *compiler) target(s, typ string) (int, error) {
	i, ok := c.names[s]
	if !ok || slices.Contains(specials, s) {
		return 0, fmt.Errorf("%s is no register", s)
	}
	if (c.kinds[i] == ".pred") != (typ == ".pred") || ptx.TypeSize(c.kinds[i]) < ptx.TypeSize(typ) {
		return 0, fmt.Errorf("%s, of type %s, does not take a %s", s, c.kinds[i], typ)
	}
	return i, nil
}
