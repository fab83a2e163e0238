package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"quernfs/offload/jobfile"
	"quernfs/offload/sign"
	"quernfs/offload/worker"
)

func newKernelKeygen() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "keygen FILE", Short: "Make a key that vouches for bitstreams and models of circuits",
		Long: `Make a key of Ed25519: the private one in FILE, which signs, and the public one in
FILE.pub, a line for the file that hosts name with --fpga-keys.`,
		Example: `  quern kernel keygen fpga.key --name ann
  cat fpga.key.pub >> /etc/quern/fpga-keys   # on each host that is to trust it`,
		Args: exactArgs(1, "a file for the private key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if name == "" {
				host, err := os.Hostname()
				if err != nil {
					return err
				}
				name = filepath.Base(args[0]) + " of " + host
			}
			private, line, err := sign.NewKey(name)
			if err != nil {
				return usagef("--name: %w", err)
			}
			if err := writeNew(args[0], private, 0o600); err != nil {
				return err
			}
			if err := writeNew(args[0]+".pub", []byte(line), 0o644); err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), line)
			return err
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "whose it is, for people (default: FILE of this host)")
	return cmd
}

// writeNew writes a file that does not exist yet.
func writeNew(name string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func newKernelSign() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use: "sign DIR/", Short: "Vouch for the bitstream and the model in a kernel's directory",
		Long: `Sign the files of a kernel that run as they are: its bitstream (fpga) and the model
of its circuit (rtl), each together with kernel.yaml. The signature of FILE is FILE.sig;
those of others in it are kept. After a change of FILE or of kernel.yaml sign again.

Sign only what you have built yourself, or whose maker you trust: a model is native code
that runs with the rights of the agent, and a bitstream drives the board.`,
		Example: `  quern kernel sign ./threshold --key fpga.key`,
		Args:    exactArgs(1, "the directory of a kernel"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" {
				return usagef("--key FILE is needed: a private key that \"quern kernel keygen\" has made")
			}
			signed, err := signKernel(args[0], key)
			for _, file := range signed {
				fmt.Fprintln(cmd.OutOrStdout(), file)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "file of the private key")
	return cmd
}

// signKernel signs what is to be signed of the kernel in dir, and names the
// signatures.
func signKernel(dir, key string) (signed []string, err error) {
	text, err := os.ReadFile(key)
	if err != nil {
		return nil, err
	}
	private, err := sign.ParsePrivate(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "kernel.yaml"))
	if err != nil {
		return nil, err
	}
	k, err := jobfile.ParseKernel(manifest)
	if err != nil {
		return nil, fmt.Errorf("kernel.yaml: %w", err)
	}
	var absent error
	for _, r := range k.Runtimes() {
		if !jobfile.Signed(r) {
			continue
		}
		file := filepath.Join(dir, k.DeviceFile(r))
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			absent = errors.Join(absent, fmt.Errorf("%s is not there: build it first", file))
			continue
		}
		if err != nil {
			return signed, err
		}
		if len(data) > worker.MaxModule {
			return signed, fmt.Errorf("%s is larger than %d MiB", file, worker.MaxModule>>20)
		}
		old, err := os.ReadFile(file + jobfile.SignatureSuffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return signed, err
		}
		if err := os.WriteFile(file+jobfile.SignatureSuffix, sign.Add(old, sign.Sign(private, data, manifest)), 0o644); err != nil {
			return signed, err
		}
		signed = append(signed, file+jobfile.SignatureSuffix)
	}
	if signed == nil && absent == nil {
		return nil, fmt.Errorf("the kernel in %s has neither a bitstream (fpga) nor a model (rtl) that could be signed", dir)
	}
	if signed == nil {
		return nil, absent
	}
	return signed, nil
}
