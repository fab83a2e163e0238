package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"

	"quernfs/offload"
	"quernfs/offload/jobfile"
	"quernfs/offload/sign"
	"quernfs/offload/trial"
)

// fpgaFlags say what this host does with bitstreams and models of circuits.
type fpgaFlags struct {
	keys, known, simulate string
}

func (f *fpgaFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.keys, "fpga-keys", "", "file of the keys (\"quern kernel keygen\") that this host trusts: a bitstream, or a model of a circuit, that none of them has signed is never loaded")
	flags.StringVar(&f.known, "fpga", "", "directory of a signed kernel with a bitstream and a test: a device of OpenCL of the type accelerator that passes it is offered as an FPGA")
	flags.StringVar(&f.simulate, "fpga-simulate", "", "directory of a signed kernel with a model (\"quern kernel build-rtl\") and a test: if it passes, a simulated FPGA is offered to jobs that allow one")
}

// config checks the flags as far as that can be done before a device is tried.
func (f *fpgaFlags) config() (c offload.FPGAConfig, err error) {
	if (f.known != "" || f.simulate != "") && f.keys == "" {
		return c, usagef("--fpga and --fpga-simulate need --fpga-keys: what nobody whom this host trusts has signed is never loaded")
	}
	if f.keys != "" {
		if c.Keys, err = filepath.Abs(f.keys); err != nil {
			return c, err
		}
		if _, err := sign.ReadKeys(c.Keys); err != nil {
			return c, fmt.Errorf("--fpga-keys: %w", err)
		}
	}
	for _, x := range []struct {
		flag, runtime, value string
		to                   *string
	}{{"fpga", jobfile.RuntimeFPGA, f.known, &c.Known}, {"fpga-simulate", jobfile.RuntimeRTL, f.simulate, &c.Simulate}} {
		if x.value == "" {
			continue
		}
		if *x.to, err = filepath.Abs(x.value); err != nil {
			return c, err
		}
		b, err := trial.FromDir(*x.to)
		if err != nil {
			return c, fmt.Errorf("--%s: %w", x.flag, err)
		}
		if b.Kernel.DeviceFile(x.runtime) == "" || b.Kernel.Test == nil || b.Kernel.Test.Output == "" {
			return c, usagef("--%s %s: the kernel there needs a variant for %s, and a test with an input and an output", x.flag, x.value, x.runtime)
		}
	}
	return c, nil
}
