package interp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// kernelOf is a module with one kernel k(p): body may use %r, %rd, %f, %d, %p
// and %rs; %rd1 is p.
func kernelOf(body string) string {
	return `.version 4.0
.target sm_50
.address_size 64
.visible .entry k(.param .u64 p) {
	.reg .pred %p<9>;
	.reg .b16 %rs<9>;
	.reg .b32 %r<9>;
	.reg .f32 %f<9>;
	.reg .f64 %fd<9>;
	.reg .b64 %rd<9>;
	ld.param.u64 %rd1, [p];
` + body + "\n}\n"
}

// exec runs a kernel over memory of 64-bit numbers and returns what they are
// then.
func exec(t *testing.T, source string, grid, block [3]uint32, memory ...uint64) ([]uint64, error) {
	t.Helper()
	m, err := Parse([]byte(source))
	if err != nil {
		t.Fatal(err)
	}
	heap := new(Heap)
	p := heap.Alloc(int64(8 * len(memory)))
	mem, err := heap.At(p, 8*len(memory))
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range memory {
		binary.LittleEndian.PutUint64(mem[8*i:], v)
	}
	err = m.Kernel("k").Launch(heap, grid, block, [][]byte{binary.LittleEndian.AppendUint64(nil, p)}, 1<<20)
	out := make([]uint64, len(memory))
	for i := range out {
		out[i] = binary.LittleEndian.Uint64(mem[8*i:])
	}
	return out, err
}

var once = [3]uint32{1, 1, 1}

func f32(v float32) uint64 { return uint64(math.Float32bits(v)) }

// TestInstructions: d = op(a, b, c), with the values as 64-bit memory.
func TestInstructions(t *testing.T) {
	const minus = math.MaxUint64 // -1
	for _, c := range []struct {
		op      string // with the types of the registers
		a, b, c uint64
		want    uint64
	}{
		{"add.s32 %r4, %r1, %r2", 0xffffffff, 2, 0, 1},
		{"sub.s64 %rd5, %rd2, %rd3", 1, 3, 0, minus - 1},
		{"mul.lo.s32 %r4, %r1, %r2", 0x10001, 0x10001, 0, 0x20001},
		{"mul.hi.u32 %r4, %r1, %r2", 0x10001, 0x10001, 0, 1},
		{"mul.hi.s32 %r4, %r1, %r2", 0xffffffff, 2, 0, 0xffffffff},
		{"mul.hi.u64 %rd5, %rd2, %rd3", 1 << 63, 6, 0, 3},
		{"mul.hi.s64 %rd5, %rd2, %rd3", minus, 5, 0, minus},
		{"mul.wide.s32 %rd5, %r1, %r2", 0xffffffff, 7, 0, minus - 6},
		{"mul.wide.u32 %rd5, %r1, %r2", 0xffffffff, 7, 0, 0x6fffffff9},
		{"mad.lo.s32 %r4, %r1, %r2, %r3", 3, 4, 5, 17},
		{"mad.wide.u32 %rd5, %r1, %r2, %rd4", 1 << 31, 4, 1, 1<<33 + 1},
		{"div.s32 %r4, %r1, %r2", 0xfffffff9, 2, 0, 0xfffffffd}, // -7/2 = -3
		{"div.u32 %r4, %r1, %r2", 0xfffffff9, 2, 0, 0x7ffffffc},
		{"rem.s32 %r4, %r1, %r2", 0xfffffff9, 2, 0, 0xffffffff},
		{"rem.u64 %rd5, %rd2, %rd3", 17, 5, 0, 2},
		{"div.u32 %r4, %r1, %r2", 1, 0, 0, 0xffffffff},
		{"min.s32 %r4, %r1, %r2", 0xffffffff, 1, 0, 0xffffffff},
		{"min.u32 %r4, %r1, 16", 17, 0, 0, 16},
		{"max.s64 %rd5, %rd2, %rd3", minus, 1, 0, 1},
		{"neg.s32 %r4, %r1", 1, 0, 0, 0xffffffff},
		{"abs.s32 %r4, %r1", 0xfffffffe, 0, 0, 2},
		{"and.b32 %r4, %r1, -2", 7, 0, 0, 6},
		{"or.b64 %rd5, %rd2, %rd3", 1, 4, 0, 5},
		{"xor.b32 %r4, %r1, %r2", 5, 4, 0, 1},
		{"not.b32 %r4, %r1", 0, 0, 0, 0xffffffff},
		{"shl.b32 %r4, %r1, 4", 0xf0000001, 0, 0, 0x10},
		{"shl.b32 %r4, %r1, %r2", 1, 32, 0, 0},
		{"shr.s32 %r4, %r1, 31", 0x80000000, 0, 0, 0xffffffff},
		{"shr.u32 %r4, %r1, 31", 0x80000000, 0, 0, 1},
		{"shr.s64 %rd5, %rd2, %r2", 1 << 63, 63, 0, minus},
		{"shf.l.wrap.b32 %r4, %r1, %r2, %r3", 0x80000000, 1, 4, 0x18},
		{"shf.r.wrap.b32 %r4, %r1, %r2, 4", 0x12345678, 0xabc, 0, 0xc1234567},
		{"popc.b32 %r4, %r1", 0xf0f, 0, 0, 8},
		{"clz.b32 %r4, %r1", 1, 0, 0, 31},
		{"clz.b64 %r4, %rd2", 1, 0, 0, 63},
		{"bfe.u32 %r4, %r1, 8, 4", 0xabcd, 0, 0, 0xb},
		{"cvt.s64.s32 %rd5, %r1", 0x80000000, 0, 0, 0xffffffff80000000},
		{"cvt.u64.u32 %rd5, %r1", 0x80000000, 0, 0, 0x80000000},
		{"cvt.u32.u64 %r4, %rd2", 0x100000002, 0, 0, 2},
		{"cvt.s32.s8 %r4, %r1", 0x180, 0, 0, 0xffffff80},
		{"cvt.s8.s32 %r4, %r1", 0x180, 0, 0, 0xffffff80},
		{"cvt.u8.u32 %r4, %r1", 0x180, 0, 0, 0x80},
		{"cvt.rn.f32.u32 %f4, %r1", 16777217, 0, 0, f32(16777216)},
		{"cvt.rn.f32.s32 %f4, %r1", 0xffffffff, 0, 0, f32(-1)},
		{"cvt.rzi.s32.f32 %r4, %f1", f32(-2.7), 0, 0, 0xfffffffe},
		{"cvt.rni.s32.f32 %r4, %f1", f32(2.5), 0, 0, 2},
		{"cvt.rzi.u32.f32 %r4, %f1", f32(-2.7), 0, 0, 0},
		{"cvt.rzi.s32.f32 %r4, %f1", f32(3e9), 0, 0, 0x7fffffff},
		{"cvt.rzi.u32.f32 %r4, %f1", f32(float32(math.NaN())), 0, 0, 0},
		{"cvt.rmi.f32.f32 %f4, %f1", f32(-1.5), 0, 0, f32(-2)},
		{"cvt.f64.f32 %fd5, %f1", f32(1.5), 0, 0, math.Float64bits(1.5)},
		{"cvt.rn.f32.f64 %f4, %fd2", math.Float64bits(0.1), 0, 0, f32(0.1)},
		{"add.rn.f32 %f4, %f1, %f2", f32(0.1), f32(0.2), 0, f32(float32(0.1) + float32(0.2))},
		{"sub.rn.f32 %f4, %f1, %f2", f32(1), f32(3), 0, f32(-2)},
		{"mul.rn.f32 %f4, %f1, %f2", f32(0.1), f32(0.1), 0, f32(float32(0.1) * float32(0.1))},
		{"div.rn.f32 %f4, %f1, %f2", f32(1), f32(3), 0, f32(float32(1) / 3)},
		{"sqrt.rn.f32 %f4, %f1", f32(2), 0, 0, f32(float32(math.Sqrt2))},
		{"rcp.rn.f64 %fd5, %fd2", math.Float64bits(3), 0, 0, math.Float64bits(1.0 / 3)},
		{"fma.rn.f32 %f4, %f1, %f2, %f3", f32(3), f32(4), f32(5), f32(17)},
		{"add.f64 %fd5, %fd2, %fd3", math.Float64bits(1), math.Float64bits(2), 0, math.Float64bits(3)},
		{"min.f32 %f4, %f1, %f2", f32(float32(math.NaN())), f32(2), 0, f32(2)},
		{"max.f32 %f4, %f1, %f2", f32(3), f32(2), 0, f32(3)},
		{"neg.f32 %f4, %f1", f32(3), 0, 0, f32(-3)},
		{"abs.f32 %f4, %f1", f32(-3), 0, 0, f32(3)},
		{"setp.lt.s32 %p1, %r1, %r2; selp.b32 %r4, 7, 9, %p1", 0xffffffff, 0, 0, 7},
		{"setp.lt.u32 %p1, %r1, %r2; selp.b32 %r4, 7, 9, %p1", 0xffffffff, 0, 0, 9},
		{"setp.hs.u32 %p1, %r1, %r2; selp.b32 %r4, 7, 9, %p1", 3, 3, 0, 7},
		{"setp.ne.s64 %p1, %rd2, %rd3; selp.b32 %r4, 7, 9, %p1", 1, 2, 0, 7},
		{"setp.ltu.f32 %p1, %f1, %f2; selp.b32 %r4, 7, 9, %p1", f32(float32(math.NaN())), f32(1), 0, 7},
		{"setp.lt.f32 %p1, %f1, %f2; selp.b32 %r4, 7, 9, %p1", f32(float32(math.NaN())), f32(1), 0, 9},
		{"setp.eq.s32 %p1, %r1, 1; not.pred %p2, %p1; @!%p2 mov.u32 %r4, 5", 1, 0, 0, 5},
		{"mov.f32 %f4, 0f3F800000", 0, 0, 0, f32(1)},
		{"mov.u64 %rd5, 0x10", 0, 0, 0, 16},
		{"mov.u32 %r4, %ntid.x", 0, 0, 0, 1},
		{"cvta.to.global.u64 %rd5, %rd2", 9, 0, 0, 9},
		{"st.global.u8 [%rd1+24], %r1; ld.global.s8 %r4, [%rd1+24]", 0x80, 0, 0, 0xffffff80},
		{"st.global.v2.u32 [%rd1], {%r2, %r3}; ld.global.v2.f32 {%f2, %f4}, [%rd1]", 1, 2, 3, 3},
		{"atom.global.add.u32 %r4, [%rd1], 5", 0x700000002, 0, 0, 2},
		{"atom.global.cas.b32 %r4, [%rd1], 2, 9; ld.global.u32 %r4, [%rd1]", 2, 0, 0, 9},
		{"atom.global.max.s32 %r4, [%rd1], -1; ld.global.u32 %r4, [%rd1]", 0xfffffff0, 0, 0, 0xffffffff},
		{"red.global.add.f32 [%rd1], %f2; ld.global.u32 %r4, [%rd1]", f32(1), f32(2), 0, f32(3)},
		{"atom.global.exch.b64 %rd5, [%rd1], %rd3", 4, 5, 0, 4},
	} {
		body := `ld.global.u32 %r1, [%rd1]; ld.global.u32 %r2, [%rd1+8]; ld.global.u32 %r3, [%rd1+16];
	ld.global.f32 %f1, [%rd1]; ld.global.f32 %f2, [%rd1+8]; ld.global.f32 %f3, [%rd1+16];
	ld.global.f64 %fd2, [%rd1]; ld.global.f64 %fd3, [%rd1+8]; ld.global.f64 %fd4, [%rd1+16];
	ld.global.u64 %rd2, [%rd1]; ld.global.u64 %rd3, [%rd1+8]; ld.global.u64 %rd4, [%rd1+16];
	` + c.op + "; "
		switch {
		case strings.Contains(c.op, "%rd5"):
			body += "st.global.u64 [%rd1+24], %rd5; ret;"
		case strings.Contains(c.op, "%fd5"):
			body += "st.global.f64 [%rd1+24], %fd5; ret;"
		case strings.Contains(c.op, "%f4"):
			body += "mov.u64 %rd5, 0; st.global.u64 [%rd1+24], %rd5; st.global.f32 [%rd1+24], %f4; ret;"
		default:
			body += "mov.u64 %rd5, 0; st.global.u64 [%rd1+24], %rd5; st.global.u32 [%rd1+24], %r4; ret;"
		}
		got, err := exec(t, kernelOf(body), once, once, c.a, c.b, c.c, 0)
		if err != nil || got[3] != c.want {
			t.Errorf("%s of %#x, %#x, %#x: %#x, %v; want %#x", c.op, c.a, c.b, c.c, got[3], err, c.want)
		}
	}
}

// TestFMA: rounded once, as arithmetic without limits says.
func TestFMA(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	number := func() float32 {
		for {
			if v := math.Float32frombits(rnd.Uint32()&0x807fffff | (100+rnd.Uint32N(50))<<23); v == v {
				return v
			}
		}
	}
	for range 100_000 {
		a, b, c := number(), number(), number()
		if rnd.IntN(4) == 0 {
			c = -a * b // so that little is left
		}
		exact := new(big.Float).SetPrec(500)
		exact.Mul(big.NewFloat(float64(a)), new(big.Float).SetPrec(500).SetFloat64(float64(b)))
		exact.Add(exact, new(big.Float).SetPrec(500).SetFloat64(float64(c)))
		want, _ := exact.Float32()
		if got := fma32(a, b, c); got != want {
			t.Fatalf("%g * %g + %g is %g, not %g", a, b, c, got, want)
		}
	}
}

// TestBarrier: threads of a block see what the others wrote before a barrier, in
// a block of three dimensions, and each block has its own memory.
func TestBarrier(t *testing.T) {
	const body = `.shared .align 8 .b8 part[192];
	mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z;
	mad.lo.s32 %r1, %r2, 2, %r1; mad.lo.s32 %r1, %r3, 6, %r1; // 0 to 11
	mov.u32 %r4, %ctaid.x; mov.u32 %r5, %nctaid.x; mov.u32 %r6, %ctaid.y;
	mad.lo.s32 %r4, %r6, %r5, %r4;
	mul.wide.u32 %rd2, %r1, 8; mov.u64 %rd3, part; add.s64 %rd4, %rd3, %rd2;
	mad.lo.s32 %r5, %r4, 100, %r1;
	cvt.u64.u32 %rd5, %r5;
	st.shared.u64 [%rd4], %rd5;
	bar.sync 0;
	sub.s64 %rd6, %rd3, %rd2;
	ld.shared.u64 %rd7, [%rd6+88]; // of the opposite thread
	mad.lo.s32 %r7, %r4, 12, %r1;
	mul.wide.u32 %rd2, %r7, 8; add.s64 %rd2, %rd1, %rd2;
	st.global.u64 [%rd2], %rd7;
	ret;`
	got, err := exec(t, kernelOf(body), [3]uint32{3, 2, 1}, [3]uint32{2, 3, 2}, make([]uint64, 72)...)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range got {
		if want := uint64(i/12*100 + 11 - i%12); v != want {
			t.Fatalf("thread %d: %d, not %d", i, v, want)
		}
	}
	without, err := exec(t, kernelOf(strings.Replace(body, "bar.sync 0;", "", 1)), [3]uint32{3, 2, 1}, [3]uint32{2, 3, 2}, make([]uint64, 72)...)
	if err == nil && fmt.Sprint(without) == fmt.Sprint(got) {
		t.Error("the missing barrier does not show")
	}
}

// TestRefused: what is not known is refused when the module is loaded.
func TestRefused(t *testing.T) {
	for body, want := range map[string]string{
		"sin.approx.f32 %f1, %f2;":                    "not known",
		"div.approx.f32 %f1, %f2, %f3;":               "not known",
		"add.rz.f32 %f1, %f2, %f3;":                   "not known",
		"add.ftz.f32 %f1, %f2, %f3;":                  "not known",
		"ld.u32 %r1, [%rd1];":                         "not known", // a generic address
		"shfl.sync.bfly.b32 %r1, %r2, %r3, %r4, %r5;": "not known",
		"call.uni foo, ();":                           "not known",
		"bar.sync 1;":                                 "not known",
		"@%p1 bar.sync 0;":                            "not known",
		"setp.lt.and.s32 %p1, %r1, %r2, %p2;":         "not known",
		"bra there;":                                  "no label there",
		"here: ret; here: ret;":                       "twice",
		"add.s32 %r1, %r2, %x;":                       "neither a register nor a number",
		"add.s32 %r1, %r2;":                           "2 operands, not 3",
		"add.s64 %rd1, %r1, %rd2;":                    "too small",
		"add.s32 %p1, %r1, %r2;":                      "does not take",
		"add.s32 %tid.x, %r1, %r2;":                   "no register",
		"mov.u32 %r1, %p1;":                           "of type .pred",
		"ld.param.u64 %rd2, [q];":                     "no argument q",
		"ld.param.u64 %rd2, [p+4];":                   "has 8 bytes",
		"ld.global.u32 %r1, %rd1;":                    "no address",
		"ld.global.v2.u32 %r1, [%rd1];":               "not 2 registers",
		".reg .b32 %r<3>;":                            "declared twice",
		".local .b8 stack[4];":                        "not known",
		".shared .align 4 .b8 big[100000];":           "no size",
		".shared .b32 big[12289];":                    "shared memory",
		"mov.u32 %laneid, 1;":                         "no register",
		"mov.u32 %r1, %laneid;":                       "neither a register nor a number",
		"setp.eq.f32 %p1, %f1, 0;":                    "not known as a .f32",
		"and.b16 %rs1, %rs2, 65536;":                  "neither a register nor a number",
	} {
		if _, err := Parse([]byte(kernelOf(body))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", body, err, want)
		}
	}
	for _, s := range []string{"", ".version 4.0\n.target sm_50\n.global .b32 x;\n", ".version 9.0\n.target sm_50\n", ".version 4.0\n.target sm_50\n.address_size 32\n"} {
		if _, err := Parse([]byte(s)); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

// TestFaults: a kernel that leaves its memory, or does not end, is told of.
func TestFaults(t *testing.T) {
	for body, misaligned := range map[string]bool{
		"ld.global.u64 %rd2, [%rd1+8]; ret;":                                  false,
		"st.global.u8 [%rd1+-1], %r1; ret;":                                   false,
		"ld.global.u32 %r1, [%rd1+6]; ret;":                                   true,
		"mov.u64 %rd2, 0; ld.global.u8 %r1, [%rd2]; ret;":                     false,
		".shared .b64 s; mov.u64 %rd2, s; st.shared.u64 [%rd2+8], %rd1; ret;": false,
	} {
		_, err := exec(t, kernelOf(body), once, once, 7)
		var fault *Fault
		if !errors.As(err, &fault) || fault.Misaligned != misaligned {
			t.Errorf("%s: %v", body, err)
		}
	}
	if _, err := exec(t, kernelOf("again: bra again;"), once, once, 7); !errors.Is(err, ErrSteps) {
		t.Errorf("a loop without end: %v", err)
	}
	for _, c := range []struct{ grid, block [3]uint32 }{{[3]uint32{0, 1, 1}, once}, {once, [3]uint32{1025, 1, 1}}, {once, [3]uint32{64, 32, 1}}, {[3]uint32{1, 65536, 1}, once}} {
		if _, err := exec(t, kernelOf("ret;"), c.grid, c.block, 7); !errors.Is(err, ErrArguments) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

func TestHeap(t *testing.T) {
	h := &Heap{Limit: 1000}
	a, b := h.Alloc(600), h.Alloc(300)
	if a == 0 || b == 0 || h.Alloc(200) != 0 || h.Alloc(0) != 0 || h.Used() != 900 {
		t.Fatalf("%#x, %#x, %d", a, b, h.Used())
	}
	for _, c := range []struct {
		addr uint64
		size int
		ok   bool
	}{{a, 600, true}, {a, 601, false}, {a + 599, 1, true}, {a + 600, 1, false}, {b, 300, true}, {b - 1, 1, false}, {0, 1, false}, {math.MaxUint64, 8, false}, {a, 1, true}} {
		if _, err := h.At(c.addr, c.size); (err == nil) != c.ok {
			t.Errorf("%d bytes at %#x: %v", c.size, c.addr, err)
		}
	}
	if !h.Free(a) || h.Free(a) || h.Free(b+1) || h.Used() != 300 {
		t.Error("free")
	}
	if _, err := h.At(a, 1); err == nil {
		t.Error("memory that was freed is there")
	}
	if c := h.Alloc(600); c == 0 || c == a {
		t.Errorf("%#x", c)
	}
}

// FuzzModule: whatever comes is refused, or runs to its end, a fault or its
// limit.
func FuzzModule(f *testing.F) {
	f.Add(kernelOf("ret;"))
	f.Add(kernelOf(".shared .align 4 .b8 s[64]; mov.u64 %rd2, s; L: bar.sync 0; ld.shared.v2.u32 {%r1, %r2}, [%rd2+8]; setp.lt.s32 %p1, %r1, 9; @!%p1 bra L; atom.global.add.u32 %r3, [%rd1], 1; ret;"))
	f.Fuzz(func(t *testing.T, source string) {
		m, err := Parse([]byte(source))
		if err != nil {
			return
		}
		for _, k := range m.kernels {
			heap := new(Heap)
			var args [][]byte
			for _, p := range k.Params {
				a := make([]byte, p.Size)
				if p.Size == 8 {
					binary.LittleEndian.PutUint64(a, heap.Alloc(64))
				}
				args = append(args, a)
			}
			_ = k.Launch(heap, [3]uint32{2, 1, 1}, [3]uint32{2, 2, 1}, args, 1000)
		}
	})
}
