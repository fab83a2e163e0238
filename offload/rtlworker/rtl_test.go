//go:build linux && (amd64 || arm64)

package rtlworker

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"quernfs/offload/rtl"
	"quernfs/offload/rtl/rtltest"
	"quernfs/offload/sign"
	"quernfs/offload/trial"
	"quernfs/offload/worker"
)

// bench is a machine, and the kernel threshold on disk.
type bench struct {
	*machine
	dir   string
	files map[string][]byte
}

func newBench(t *testing.T) *bench {
	t.Helper()
	files, trusted := rtltest.Threshold(t)
	b := &bench{dir: t.TempDir(), files: files}
	rtltest.Write(t, b.dir, files)
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte(trusted), 0o600); err != nil {
		t.Fatal(err)
	}
	b.machine = newMachine(keys)
	return b
}

// task is a run of the kernel as it lies on the disk.
func (b *bench) task(t *testing.T, env ...string) *worker.Run {
	t.Helper()
	bundle, err := trial.FromDir(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	_, digest, err := bundle.File("k.so")
	if err != nil {
		t.Fatal(err)
	}
	r := trial.Task(bundle, "rtl", filepath.Join(b.dir, "k.so"), digest, &trial.Input{}).Run
	r.Env = env
	return &r
}

func numbers(rnd *rand.Rand, n int) []byte {
	var out []byte
	for range n {
		v := math.Float32bits(rnd.Float32()*2 - 1)
		switch rnd.IntN(8) {
		case 0:
			v = rnd.Uint32() // what may be no number, or none of this size
		case 1:
			v = math.Float32bits(0.25)
		}
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	return out
}

// reference is what threshold does.
func reference(in []byte, t float32) []byte {
	out := make([]byte, len(in))
	for i := 0; i < len(in); i += 4 {
		if v := binary.LittleEndian.Uint32(in[i:]); math.Float32frombits(v) >= t {
			binary.LittleEndian.PutUint32(out[i:], v)
		}
	}
	return out
}

// TestBackPressure: whatever gaps there are in TVALID and TREADY, and however
// long the stream is (none, one beat, a last one of one number), the kernel gives
// the same result, and breaks no rule of AXI4-Stream.
func TestBackPressure(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	b := newBench(t)
	run := b.task(t, "QUERN_THRESHOLD=0.25")
	for _, stall := range []uint32{0, 20, 128, 240} {
		for _, n := range []int{0, 1, 2, 3, 4, 5, 64, 1001} {
			b.gaps = gaps{stall, rnd.Uint64()}
			in := numbers(rnd, n)
			var stdout, stderr bytes.Buffer
			exit := b.run(run, iotest.HalfReader(bytes.NewReader(in)), &stdout, &stderr)
			if exit.Code != 0 || !bytes.Equal(stdout.Bytes(), reference(in, 0.25)) {
				t.Fatalf("stall %d, %d numbers, seed %d: %+v, %q, %x instead of %x", stall, n, b.gaps.seed, exit, &stderr, stdout.Bytes(), reference(in, 0.25))
			}
			beats := int64(max((n+1)/2, 1))
			if least := beats + 1; exit.Cycles < least || stall == 0 && exit.Cycles > least+2 {
				t.Errorf("stall %d: %d beats took %d cycles", stall, beats, exit.Cycles)
			}
			if want := exit.Cycles * 4; exit.Device != want { // ns at 250 MHz
				t.Errorf("%d cycles are %d ns", exit.Cycles, exit.Device)
			}
		}
	}
}

// TestLongStream: pieces of the worker's buffers, whole and not, are one stream.
func TestLongStream(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := newBench(t)
	run := b.task(t, "QUERN_THRESHOLD=-0.5")
	for _, n := range []int{inChunk / 4, inChunk/4 + 1, inChunk / 2, 3*inChunk/4 - 1} {
		in := numbers(rnd, n)
		var stdout, stderr bytes.Buffer
		if exit := b.run(run, bytes.NewReader(in), &stdout, &stderr); exit.Code != 0 || !bytes.Equal(stdout.Bytes(), reference(in, -0.5)) {
			t.Errorf("%d numbers: %+v, %q, %d bytes", n, exit, &stderr, stdout.Len())
		}
	}
}

// TestOutOfWords: what is wrong with kernel, signature or input is told in words,
// and the machine is of use afterwards.
func TestOutOfWords(t *testing.T) {
	b := newBench(t)
	signature, _ := rtltest.Key(t) // of one whom nobody trusts
	other := signature(b.files["k.so"], b.files["kernel.yaml"])
	good := b.task(t)
	change := func(f func(r *worker.Run)) *worker.Run {
		r := *good
		f(&r)
		return &r
	}
	torn := filepath.Join(t.TempDir(), "torn.so")
	if err := os.WriteFile(torn, b.files["k.so"][:1000], 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		run  *worker.Run
		in   io.Reader
		want string
	}{
		"unsigned":         {change(func(r *worker.Run) { r.Signature = nil }), nil, "k.so is not loaded: it is not signed"},
		"by a stranger":    {change(func(r *worker.Run) { r.Signature = other }), nil, "nobody whom this host trusts has signed it"},
		"another manifest": {change(func(r *worker.Run) { r.Manifest = append(bytes.Clone(r.Manifest), '\n') }), nil, "its signature is wrong"},
		"another file":     {change(func(r *worker.Run) { r.Module = torn }), nil, "not the one that was submitted"},
		"no variant":       {change(func(r *worker.Run) { r.Manifest = []byte("version: 1\n") }), nil, "no variant for rtl"},
		"manifest":         {change(func(r *worker.Run) { r.Manifest = []byte("version: 2\n") }), nil, "kernel.yaml: line 1"},
		"param":            {change(func(r *worker.Run) { r.Env = []string{"QUERN_THRESHOLD=x"} }), nil, "threshold must be a number"},
		"left over":        {good, strings.NewReader("12345"), "1 are left over"},
		"lost":             {good, iotest.ErrReader(errors.New("lost")), "lost"},
	} {
		in := c.in
		if in == nil {
			in = strings.NewReader("")
		}
		var stdout, stderr bytes.Buffer
		if exit := b.run(c.run, in, &stdout, &stderr); exit.Code != 1 || exit.Fault || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: %+v, %q; want %q", name, exit, &stderr, c.want)
		}
	}
	if len(b.ready) != 1 {
		t.Errorf("%d models have been opened; only one may be", len(b.ready))
	}
	b.keys = ""
	var stderr bytes.Buffer
	if exit := b.run(good, strings.NewReader(""), io.Discard, &stderr); exit.Code != 1 || !strings.Contains(stderr.String(), "trusts no key") {
		t.Errorf("without keys: %+v, %q", exit, &stderr)
	}
}

// vouched makes a run of a model that is signed, and of the manifest.
func (b *bench) vouched(t *testing.T, model []byte, manifest string) *worker.Run {
	t.Helper()
	signature, trusted := rtltest.Key(t)
	b.keys = filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(b.keys, []byte(trusted), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := map[string][]byte{"k.so": model, "kernel.yaml": []byte(manifest)}
	files["k.so.sig"] = signature(model, files["kernel.yaml"])
	rtltest.Write(t, dir, files)
	c := &bench{b.machine, dir, files}
	return c.task(t)
}

// TestSignedNonsense: a signature does not make a model of what is none, nor one
// of another manifest.
func TestSignedNonsense(t *testing.T) {
	b := newBench(t)
	manifest := string(b.files["kernel.yaml"])
	for name, c := range map[string]struct {
		model    []byte
		manifest string
		want     string
	}{
		"text":   {[]byte("no model"), manifest, "no shared object"},
		"width":  {b.files["k.so"], strings.Replace(manifest, "width: 8", "width: 4", 1), "built for a beat of 8 bytes"},
		"params": {b.files["k.so"], strings.Replace(manifest, "    threshold: {type: float, default: 0}\n", "    limit: {type: float}\n", 2), "build it again"},
	} {
		// The wasm and opencl variants are not of interest.
		_, part, ok := strings.Cut(c.manifest, "rtl:\n")
		if !ok {
			t.Fatal("the manifest has changed")
		}
		run := b.vouched(t, c.model, "version: 1\nrtl:\n"+part)
		var stderr bytes.Buffer
		if exit := b.run(run, strings.NewReader(""), io.Discard, &stderr); exit.Code != 1 || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: %+v, %q; want %q", name, exit, &stderr, c.want)
		}
	}
}

// ports of a kernel with beats of one byte.
const ports = `input wire aclk, input wire aresetn,
	input wire [7:0] s_axis_tdata, input wire s_axis_tkeep, input wire s_axis_tlast, input wire s_axis_tvalid, output wire s_axis_tready,
	output wire [7:0] m_axis_tdata, output wire m_axis_tkeep, output wire m_axis_tlast, output wire m_axis_tvalid, input wire m_axis_tready`

// TestBrokenKernels: one model, in which the first byte says how it misbehaves,
// so that one is built. Each is told in words; none holds the worker up.
func TestBrokenKernels(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles a model")
	}
	b := newBench(t)
	dir := t.TempDir()
	source := "module broken(" + ports + `);
	reg [7:0] mode, shift;
	reg known;
	wire [7:0] m = known ? mode : s_axis_tdata;
	always @(posedge aclk) begin
		shift <= shift + 8'd1;
		if (!aresetn) begin known <= 1'b0; shift <= 8'd0; end
		else if (s_axis_tvalid && s_axis_tready && !known) begin known <= 1'b1; mode <= s_axis_tdata; end
		if (aresetn && known && mode == "f") $finish;
	end
	assign s_axis_tready = aresetn && !(known && mode == "r") && (m_axis_tready || known && mode == "g");
	assign m_axis_tvalid = (s_axis_tvalid && !(known && mode == "r") || known && mode == "u" && shift[0]) && !(known && mode == "g");
	assign m_axis_tdata = known && mode == "u" ? shift : s_axis_tdata;
	assign m_axis_tkeep = s_axis_tkeep;
	assign m_axis_tlast = s_axis_tlast && m != "l" || known && mode == "e";
endmodule
`
	if err := os.WriteFile(filepath.Join(dir, "broken.v"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	model := rtltest.Model(t, rtl.Design{Dir: dir, Sources: []string{"broken.v"}, Top: "broken", Width: 1})
	run := b.vouched(t, model, "version: 1\nrtl: {width: 1, clock: 1MHz}\n")
	for in, want := range map[string]string{
		"r123": "its TREADY stays low", "g123": "no beat with TLAST", "l": "no beat with TLAST", "e12": "before the end of the input",
		"u12345678": "breaks the rules", "f123": "stopped by itself", "ok": "", "": "",
	} {
		b.gaps = gaps{}
		if in != "" && in[0] == 'u' {
			b.gaps = gaps{128, 5}
		}
		var stdout, stderr bytes.Buffer
		exit := b.run(run, strings.NewReader(in), &stdout, &stderr)
		if want == "" && (exit.Code != 0 || stdout.String() != in) || want != "" && (exit.Code != 1 || !strings.Contains(stderr.String(), want)) {
			t.Errorf("%q: %+v, %q, %q; want %q", in, exit, &stderr, &stdout, want)
		}
	}
	// Two models are in one process, and do not disturb each other.
	if len(b.ready) != 1 {
		t.Errorf("%d models are open", len(b.ready))
	}
}

func TestMainProgram(t *testing.T) {
	for _, args := range [][]string{nil, {"wasm"}, {"--probe", "opencl"}, {"rtl"}, {"rtl", "--device", "0", "--probe", "rtl"}, {"--probe", "rtl", "more"}, {"rtl", "--device", "0"}} {
		var stdout, stderr bytes.Buffer
		if code := Main(args, &stdout, &stderr); code != 2 || stdout.Len() > 0 || stderr.Len() == 0 {
			t.Errorf("%q: status %d, %q, %q", args, code, &stdout, &stderr)
		}
	}
	b := newBench(t)
	t.Setenv(sign.KeysEnv, b.keys)
	probe := func(args ...string) (string, int) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		code := Main(append([]string{"--probe", "rtl"}, args...), &stdout, &stderr)
		if code == 0 {
			var r worker.Report
			if err := json.Unmarshal(stdout.Bytes(), &r); err != nil || len(r.Devices) != 1 || !r.Devices[0].Simulated {
				t.Errorf("%q: %q", args, &stdout)
			}
		}
		return stderr.String(), code
	}
	if text, code := probe(); code != 0 {
		t.Error(text, code)
	}
	for name, c := range map[string]struct {
		dir    string
		change func(dir string)
		want   string // "": it is proved
	}{
		"proved":  {b.dir, nil, ""},
		"nothing": {"", nil, "no kernel with a known answer"},
		"nowhere": {"/nonexistent", nil, "no such file"},
		"wrong": {"", func(dir string) {
			rtltest.Write(t, dir, b.files)
			rtltest.Write(t, dir, map[string][]byte{"test.out": make([]byte, len(b.files["test.out"]))})
		}, "computes the known answer wrongly"},
		"unsigned": {"", func(dir string) {
			rtltest.Write(t, dir, b.files)
			if err := os.Remove(filepath.Join(dir, "k.so.sig")); err != nil {
				t.Fatal(err)
			}
		}, "it is not signed"},
	} {
		dir := c.dir
		if c.change != nil {
			dir = t.TempDir()
			c.change(dir)
		}
		t.Setenv(trial.KnownEnv("rtl"), dir)
		text, code := probe("--device", "0")
		if c.want == "" && code != 0 || c.want != "" && (code != 1 || !strings.Contains(text, c.want)) {
			t.Errorf("%s: status %d, %q; want %q", name, code, text, c.want)
		}
	}
	if text, code := probe("--device", "1"); code != 1 || !strings.Contains(text, "no device 1") {
		t.Errorf("status %d, %q", code, text)
	}
}
