//go:build linux && (amd64 || arm64)

package clworker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"quernfs/offload/jobfile"
	"quernfs/offload/opencl"
	"quernfs/offload/recipe"
	"quernfs/offload/sign"
	"quernfs/offload/worker"
)

// AnyEnv is the variable of the environment that has every device of OpenCL
// taken for an FPGA, a simulated one if it is none: for development, where
// there is only a driver that computes on the processor, and takes what it has
// compiled before for a bitstream.
const AnyEnv = "QUERN_FPGA_ANY"

// fpga is a device that is programmed with bitstreams.
type fpga struct {
	*machine
	keys string // the file of trusted keys
}

// run carries out one run, once it is known who vouches for the bitstream.
func (f fpga) run(r *worker.Run, stdin io.Reader, stdout, stderr io.Writer) worker.Exit {
	if err := f.check(r); err != nil {
		fmt.Fprintln(stderr, err)
		return worker.Exit{Code: 1}
	}
	return recipe.Run(f, jobfile.RuntimeFPGA, r, stdin, stdout, stderr)
}

func (f fpga) check(r *worker.Run) error {
	k, err := jobfile.ParseKernel(r.Manifest)
	if err != nil {
		return fmt.Errorf("kernel.yaml: %w", err)
	}
	if k.FPGA == nil {
		return errors.New("the kernel has no variant for fpga")
	}
	// What is loaded has the same digest.
	data, err := worker.ReadModule(r.Module, r.Digest)
	if err != nil {
		return err
	}
	_, err = sign.Check(f.keys, k.FPGA.File, data, r.Manifest, r.Signature)
	return err
}

// Program is that of recipe.Device: it programs the device. One bitstream is on
// it at a time.
func (f fpga) Program(bitstream []byte) (recipe.Program, error) {
	sum := sha256.Sum256(bitstream)
	key := hex.EncodeToString(sum[:])
	if len(f.ready) > 0 && f.ready[0].key == key {
		return program{f.ctx, f.ready[0].program}, nil
	}
	for _, c := range f.ready {
		_ = c.program.Close()
	}
	f.ready = nil
	p, err := f.ctx.Load(bitstream, "")
	var build *opencl.BuildError
	switch {
	case errors.As(err, &build):
		return nil, &recipe.BuildError{Log: build.Log}
	case err != nil:
		return nil, fmt.Errorf("the bitstream is not one for %s: %w", f.Name(), err)
	}
	f.ready = []*compiled{{key, p}}
	return program{f.ctx, p}, nil
}

// usable are those of devices that a runtime can use.
func usable(all []*opencl.Device, runtime string, any bool) (out []*opencl.Device) {
	for _, d := range all {
		if runtime == jobfile.RuntimeOpenCL && d.Compiler || runtime == jobfile.RuntimeFPGA && (any || d.Type == typeFPGA) {
			out = append(out, d)
		}
	}
	return out
}

// typeFPGA is what drivers say that an FPGA is.
const typeFPGA = "accelerator"

// describe is what others are told of a device.
func describe(d *opencl.Device, runtime string) worker.Device {
	return worker.Device{
		ID: d.ID, Name: d.Name, Vendor: d.Vendor, Platform: d.Platform, Version: d.Version, Driver: d.Driver, Type: d.Type,
		Memory: d.Memory, LocalMemory: d.LocalMemory, MaxAlloc: d.MaxAlloc, Units: d.Units, MaxGroup: d.MaxGroup,
		Simulated: runtime == jobfile.RuntimeFPGA && d.Type != typeFPGA,
	}
}
