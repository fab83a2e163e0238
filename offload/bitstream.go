package offload

import (
	"context"
	"errors"
	"fmt"
	"os"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/sign"
	"quernfs/offload/trial"
)

// FPGAConfig says what an agent does with bitstreams and with models of circuits,
// which run as they are and so are loaded only if somebody whom the host trusts
// has signed them. The zero value offers no such device.
type FPGAConfig struct {
	Keys     string // file of trusted keys (package sign); "": nobody is trusted
	Known    string // directory of a signed kernel, with a test that proves an FPGA; "": none is offered
	Simulate string // the same for a simulated device
}

// known are the directories of the kernels that prove devices, by runtime.
func (c FPGAConfig) known() map[string]string {
	out := map[string]string{}
	if c.Known != "" {
		out[jobfile.RuntimeFPGA] = c.Known
	}
	if c.Simulate != "" {
		out[jobfile.RuntimeRTL] = c.Simulate
	}
	return out
}

// env is what workers are told.
func (c FPGAConfig) env() (env []string) {
	if c.Keys != "" {
		env = append(env, sign.KeysEnv+"="+c.Keys)
	}
	for runtime, dir := range c.known() {
		env = append(env, trial.KnownEnv(runtime)+"="+dir)
	}
	return env
}

// signature fetches the signature of a kernel's file; nil: there is none. modules
// is held.
func (a *Agent) signature(ctx context.Context, ref *wire.KernelRef, file string) ([]byte, error) {
	for _, f := range ref.Files {
		if f.Name == file+jobfile.SignatureSuffix {
			return a.content(ctx, ref, f)
		}
	}
	return nil, nil
}

// vouched is an error unless v needs nobody to vouch for it, or somebody whom this
// host trusts does. The worker asks again, of the bytes that it loads.
func (a *Agent) vouched(ref *wire.KernelRef, v variant) error {
	if !jobfile.Signed(v.runtime) {
		return nil
	}
	data, err := os.ReadFile(v.module)
	if err != nil {
		return err
	}
	who, err := sign.Check(a.cfg.FPGA.Keys, v.file.Name, data, v.manifest, v.signature)
	if err != nil {
		return fmt.Errorf("%w: kernel %s: %w", errModule, ref.Name, err)
	}
	a.log.Debug("signature found good", "kernel", ref.Name, "file", v.file.Name, "by", who)
	return nil
}

// unusable says whether err means that a variant is of no use on this host, while
// another may be.
func unusable(err error) bool {
	var unsigned *sign.Error
	return errors.Is(err, trial.ErrDiffers) || errors.As(err, &unsigned)
}
