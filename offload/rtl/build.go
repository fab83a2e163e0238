package rtl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"quernfs/offload/jobfile"
)

//go:embed harness
var harness embed.FS

// Header is the C interface of a model.
func Header() string {
	b, err := harness.ReadFile("harness/quern_rtl.h")
	if err != nil {
		panic(err) // it is embedded
	}
	return string(b)
}

// MaxWidth is the bytes of the widest beat.
const MaxWidth = 64

// Design is what a model is made of.
type Design struct {
	Dir     string   // of the sources
	Sources []string // files of Verilog
	Top     string   // module
	Width   int      // bytes of TDATA
	Params  []string // names, in the order in which the model numbers them
}

// DesignOf is what the model of a kernel in dir is made of.
func DesignOf(k *jobfile.RTL, dir string) Design {
	d := Design{Dir: dir, Sources: k.Source, Top: k.Top, Width: k.Width}
	for _, p := range k.Params {
		d.Params = append(d.Params, p.Name)
	}
	return d
}

// Key tells apart how models are made, so that one made before can be kept.
func Key() string {
	h := sha256.New()
	for _, name := range []string{"harness/quern_rtl.h", "harness/harness.cpp"} {
		text, err := harness.ReadFile(name)
		if err != nil {
			panic(err) // it is embedded
		}
		h.Write(text)
	}
	fmt.Fprint(h, arguments(Design{}, "", ""), exports)
	return hex.EncodeToString(h.Sum(nil))
}

// ErrNoVerilator is a host that cannot make models.
var ErrNoVerilator = errors.New("a model is made by the program verilator, a C++ compiler and make (Debian: verilator g++ make)")

// Missing is an error that tells which program is missing here; nil if none is.
func Missing() error {
	for _, name := range []string{"verilator", "g++", "make"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is not installed: %w", name, ErrNoVerilator)
		}
	}
	return nil
}

// buildLimit bounds the compilation of a model.
const buildLimit = 15 * time.Minute

// Build makes the model of d and returns the shared object. Its error has what
// the tools have said.
func Build(ctx context.Context, d Design) ([]byte, error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	if d.Width < 1 || d.Width > MaxWidth {
		return nil, fmt.Errorf("a beat has 1 to %d bytes, not %d", MaxWidth, d.Width)
	}
	work, err := os.MkdirTemp("", "quern-rtl-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	for name, text := range map[string]string{"quern_rtl.h": Header(), "kernel_config.h": config(d), "exports": exports} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	code, err := harness.ReadFile("harness/harness.cpp")
	if err != nil {
		return nil, err
	}
	main := filepath.Join(work, "harness.cpp")
	if err := os.WriteFile(main, code, 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, buildLimit, fmt.Errorf("the model takes longer than %s to compile", buildLimit))
	defer cancel()
	cmd := exec.CommandContext(ctx, "verilator", arguments(d, work, main)...)
	cmd.Dir = d.Dir
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, fmt.Errorf("the model of %s does not compile (%w):\n%s", d.Top, err, strings.TrimSpace(said.String()))
	}
	return os.ReadFile(filepath.Join(work, "obj", "k.so"))
}

// exports is a version script: a shared object shows nothing but the interface,
// so that several models can be in one process.
const exports = "{ global: quern_rtl_*; local: *; };\n"

// arguments of verilator. The shared object brings the C++ library along. What is
// called in each cycle is optimised, and Verilator's own library little.
func arguments(d Design, work, main string) []string {
	args := []string{
		"--cc", "--exe", "--build", "-j", strconv.Itoa(min(runtime.NumCPU(), 4)), "-O3", "--x-assign", "0", "--x-initial", "0",
		"-Wall", "-Wno-fatal", "-Wno-DECLFILENAME", "--top-module", d.Top, "--prefix", "Vkernel", "-Mdir", filepath.Join(work, "obj"),
		"-CFLAGS", "-std=c++17 -fPIC -fvisibility=hidden -fno-gnu-unique -I" + work,
		"-MAKEFLAGS", "OPT_FAST=-O2 OPT_SLOW=-O0 OPT_GLOBAL=-O0",
		"-LDFLAGS", "-shared -static-libstdc++ -static-libgcc -Wl,-Bsymbolic -Wl,--version-script=" + filepath.Join(work, "exports"),
		"-o", "k.so", main,
	}
	return append(args, d.Sources...)
}

// config is the header that tells the harness of the kernel.
func config(d Design) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#define KERNEL_WIDTH %d\n#define KERNEL_PARAMS", d.Width)
	for _, p := range d.Params {
		fmt.Fprintf(&b, " PARAM(%s)", p)
	}
	b.WriteString("\n")
	return b.String()
}
