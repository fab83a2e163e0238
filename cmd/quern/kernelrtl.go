package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"quernfs/offload/jobfile"
	"quernfs/offload/kernels"
	"quernfs/offload/rtl"
)

func newKernelBuildRTL() *cobra.Command {
	var out string
	var header bool
	cmd := &cobra.Command{
		Use: "build-rtl NAME|DIR/", Short: "Build the model of a kernel's circuit from its Verilog",
		Long: `Build the model of a kernel's circuit, the file that "rtl:" in its kernel.yaml names,
from the Verilog beside it, with the program verilator, a C++ compiler and make. Of a
kernel that comes with quern, --out names a new directory for all of its files. Sign the
model (quern kernel sign); then "quern kernel test DIR/ --fpga-keys FILE" compares it with
the reference, hosts may prove their simulated device by it (--fpga-simulate DIR), and a
copy below .compute/kernels makes it available to jobs.

--header prints the C interface of a model, for those that other tools make.`,
		Example: `  quern kernel build-rtl threshold --out ./threshold
  quern kernel sign ./threshold --key fpga.key
  quern kernel test ./threshold --fpga-keys fpga.key.pub`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if header {
				_, err := fmt.Fprint(cmd.OutOrStdout(), rtl.Header())
				return err
			}
			if len(args) != 1 {
				return usagef("build-rtl needs a bundled kernel's name, or the directory of a kernel")
			}
			dir := args[0]
			if !strings.Contains(dir, "/") {
				if out == "" {
					return usagef("--out DIR is needed for a kernel that comes with quern (the directory of one of your own has a / in it)")
				}
				if err := exportKernel(dir, out); err != nil {
					return err
				}
				dir = out
			} else if out != "" {
				return usagef("--out is for kernels that come with quern; that of %s is built there", dir)
			}
			file, err := buildRTL(cmd, dir)
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), file)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "new directory, for a kernel that comes with quern")
	cmd.Flags().BoolVar(&header, "header", false, "print the C interface of a model")
	return cmd
}

func buildRTL(cmd *cobra.Command, dir string) (string, error) {
	manifest, err := os.ReadFile(filepath.Join(dir, "kernel.yaml"))
	if err != nil {
		return "", err
	}
	k, err := jobfile.ParseKernel(manifest)
	if err != nil {
		return "", fmt.Errorf("kernel.yaml: %w", err)
	}
	if k.RTL == nil || k.RTL.Source == nil {
		return "", fmt.Errorf("kernel.yaml of %s has no \"rtl:\" with a source", dir)
	}
	model, err := rtl.Build(cmd.Context(), rtl.DesignOf(k.RTL, dir))
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, k.RTL.File)
	// Not in place: a worker may have the old one open.
	tmp := file + ".new"
	if err := os.WriteFile(tmp, model, 0o644); err != nil {
		return "", err
	}
	return file, os.Rename(tmp, file)
}

// exportKernel writes all files of a kernel that comes with quern, and has a
// circuit, to a new directory.
func exportKernel(name, dir string) error {
	manifest := kernels.Manifest(name)
	if manifest == nil {
		return fmt.Errorf("there is no bundled kernel %q with the source of a circuit", name)
	}
	k, err := jobfile.ParseKernel(manifest)
	if err != nil {
		return err
	}
	if k.RTL == nil {
		return fmt.Errorf("there is no bundled kernel %q with the source of a circuit", name)
	}
	if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists: a model of your own version of the kernel is built with: quern kernel build-rtl %s/", dir, strings.TrimSuffix(dir, "/"))
	} else if err != nil {
		return err
	}
	wasm, _, err := kernels.Module()
	if err != nil {
		return err
	}
	for _, file := range append(append([]string{"kernel.yaml"}, k.RTL.Source...), k.Files()...) {
		data := kernels.File(name, file)
		if file == k.Wasm {
			data = bytes.Clone(wasm)
		}
		if data == nil {
			continue // it is built and signed here
		}
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
