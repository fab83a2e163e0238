package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quernfs/offload/jobfile"
	"quernfs/offload/kernels"
	"quernfs/offload/sign"
	"quernfs/offload/trial"
)

func newKernel() *cobra.Command {
	kernel := &cobra.Command{
		Use:   "kernel",
		Short: "List kernels, try their variants on this host, build and sign them",
		Long: `List the kernels that come with quern, and run the variants of a kernel on this
host: of a bundled one by its name, of one of your own by its directory (with a /
in it), which may be one below .compute/kernels of a mount. Bitstreams, and models of
circuits, are built and signed where their administrator is, and run only signed.`,
	}
	kernel.AddCommand(newKernelLs(), newKernelTest(), newKernelBench(), newKernelBuildRTL(), newKernelKeygen(), newKernelSign())
	return kernel
}

// kernelInfo is what quern kernel ls --json prints. Fields are only ever added.
type kernelInfo struct {
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Runtimes []string `json:"runtimes"`
	About    string   `json:"about"`
}

func newKernelLs() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List the kernels that come with quern", Example: `  quern kernel ls`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []kernelInfo
			for _, k := range kernels.Bundled {
				b, err := trial.Bundled(k.Name)
				if err != nil {
					return err
				}
				all = append(all, kernelInfo{k.Name, kernels.Version, b.Complete(), k.About})
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			t := newTable(cmd.OutOrStdout(), "NAME", "VERSION", "RUNTIMES", "ABOUT")
			for _, k := range all {
				t.row(k.Name, k.Version, strings.Join(k.Runtimes, ","), k.About)
			}
			return t.flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// trialFlags are those of test and bench.
type trialFlags struct {
	input  string
	args   []string
	params []string
	size   string
	seed   uint64
	keys   string
	json   bool
}

func (f *trialFlags) add(cmd *cobra.Command, size string) {
	cmd.Flags().StringVar(&f.input, "input", "", "file to run over, instead of one that the kernel has for tests or a random one")
	cmd.Flags().StringArrayVar(&f.args, "arg", nil, "argument of the kernel; may be repeated")
	cmd.Flags().StringArrayVar(&f.params, "param", nil, "parameter of the kernel, NAME=VALUE; may be repeated")
	cmd.Flags().StringVar(&f.size, "size", size, "size of a random input")
	cmd.Flags().Uint64Var(&f.seed, "seed", 1, "seed of a random input")
	cmd.Flags().StringVar(&f.keys, "fpga-keys", "", "file of the keys that this host trusts: bitstreams, and models of circuits, that one of them has signed are run, too")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
}

// bundle finds the kernel that people mean.
func findBundle(name string) (*trial.Bundle, error) {
	if strings.Contains(name, "/") {
		return trial.FromDir(name)
	}
	return trial.Bundled(name)
}

// sample makes the input that the flags ask for. The input of a kernel's own test
// is too small for a measurement.
func (f *trialFlags) sample(b *trial.Bundle, bench bool) (*trial.Input, error) {
	size, err := parseSize(f.size)
	if err != nil {
		return nil, usagef("--size: %w", err)
	}
	in := &trial.Input{}
	if f.input != "" {
		if in.Data, err = os.ReadFile(f.input); err != nil {
			return nil, err
		}
	} else {
		if bench {
			in, err = b.Random(int(size), f.seed)
		}
		if !bench || err != nil {
			in, err = b.Sample(int(size), f.seed)
		}
		if err != nil {
			return nil, err
		}
	}
	if f.args != nil {
		in.Args = f.args
	}
	for _, p := range f.params {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, usagef("--param %s: NAME=VALUE is needed", p)
		}
		in.Params = append(in.Params, jobfile.Param{Key: k, Value: v})
	}
	if len(f.params) > 0 || f.args != nil {
		in.Want = nil // the result that the kernel has is of its own test
	}
	return in, nil
}

// outcomeInfo is what --json prints of a variant. Fields are only ever added.
type outcomeInfo struct {
	Variant string  `json:"variant"`
	Device  string  `json:"device"`
	OK      bool    `json:"ok"`
	Reason  string  `json:"reason,omitempty"`
	Bytes   int     `json:"bytes"`
	Seconds float64 `json:"seconds"`
	MBs     float64 `json:"mb_per_s"`
}

func infoOf(o trial.Outcome, bytes int) outcomeInfo {
	info := outcomeInfo{Variant: o.Label(), Device: o.Device.Name, OK: o.Err == nil, Bytes: bytes, Seconds: o.Took.Seconds()}
	if info.Device == "" {
		info.Device = "cpu"
	}
	if o.Took > 0 {
		info.MBs = float64(bytes) / 1e6 / o.Took.Seconds()
	}
	if o.Err != nil {
		info.Reason = o.Err.Error()
	}
	return info
}

func newKernelTest() *cobra.Command {
	var f trialFlags
	cmd := &cobra.Command{
		Use: "test NAME|DIR/", Short: "Run every variant that this host can on the same data and compare",
		Long: `Run every variant of a kernel that this host can on the same data, and compare the
results with the reference: the result that comes with the kernel's test, else that
of its wasm variant. Fails if one differs.`,
		Example: `  quern kernel test matmul
  quern kernel test ./mine --input data.bin --param threshold=3`,
		Args: exactArgs(1, "a bundled kernel's name, or the directory of a kernel"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return tryKernel(cmd.Context(), cmd.OutOrStdout(), args[0], &f, 1, false)
		},
	}
	f.add(cmd, "1MiB")
	return cmd
}

func newKernelBench() *cobra.Command {
	var f trialFlags
	var runs int
	cmd := &cobra.Command{
		Use: "bench NAME|DIR/", Short: "Measure every variant that this host can run",
		Long: `Run every variant of a kernel that this host can several times on the same data, and
print the speed of the fastest run: bytes of input over the time from the first byte
sent to the worker to its last answer, without compilation.`,
		Example: `  quern kernel bench histogram --size 256MiB`,
		Args:    exactArgs(1, "a bundled kernel's name, or the directory of a kernel"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if runs < 1 || runs > 1000 {
				return usagef("--runs %d: 1 to 1000", runs)
			}
			return tryKernel(cmd.Context(), cmd.OutOrStdout(), args[0], &f, runs, true)
		},
	}
	f.add(cmd, "16MiB")
	cmd.Flags().IntVar(&runs, "runs", 3, "how often each variant is run")
	return cmd
}

// tryKernel runs all variants, and keeps the fastest of several runs.
func tryKernel(ctx context.Context, out io.Writer, name string, f *trialFlags, runs int, bench bool) error {
	b, err := findBundle(name)
	if err != nil {
		return err
	}
	in, err := f.sample(b, bench)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "quern-kernel-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	env := trial.Environ(os.Environ())
	if f.keys != "" {
		keys, err := filepath.Abs(f.keys)
		if err != nil {
			return err
		}
		env = append(env, sign.KeysEnv+"="+keys)
	}
	h := &trial.Bench{Command: []string{exe, "worker"}, Env: env, Dir: dir}
	variants, absent := h.Variants(ctx, b)
	if len(variants) == 0 {
		return fmt.Errorf("this host can run no variant of %s: %w", b.Name, errors.Join(absent...))
	}
	best := h.Test(ctx, b, in, variants)
	for range runs - 1 {
		for i, o := range h.Test(ctx, b, in, variants) {
			if o.Err != nil || best[i].Err == nil && o.Took < best[i].Took {
				best[i] = o
			}
		}
	}
	if err := printOutcomes(out, best, absent, len(in.Data), f.json); err != nil {
		return err
	}
	for _, o := range best {
		if o.Err != nil {
			return fmt.Errorf("%s of kernel %s is not to be used here: %w", o.Label(), b.Name, o.Err)
		}
	}
	return nil
}

func printOutcomes(out io.Writer, outcomes []trial.Outcome, absent []error, bytes int, asJSON bool) error {
	if asJSON {
		var all []outcomeInfo
		for _, o := range outcomes {
			all = append(all, infoOf(o, bytes))
		}
		return printJSON(out, all)
	}
	t := newTable(out, "VARIANT", "DEVICE", "RESULT", "INPUT", "TIME", "MB/S")
	for _, o := range outcomes {
		i := infoOf(o, bytes)
		result := "ok"
		if !i.OK {
			result = i.Reason
		}
		t.row(i.Variant, i.Device, result, size(uint64(bytes)), o.Took.Round(time.Millisecond/10), fmt.Sprintf("%.1f", i.MBs))
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, err := range absent {
		fmt.Fprintln(out, "not here:", err)
	}
	return nil
}
