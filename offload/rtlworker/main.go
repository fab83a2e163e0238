//go:build linux && (amd64 || arm64)

package rtlworker

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"

	"quernfs/offload/jobfile"
	"quernfs/offload/sign"
	"quernfs/offload/trial"
	"quernfs/offload/worker"
)

const usage = `usage: quern-opencl --probe rtl [--device 0] | quern-opencl rtl --device 0 [--cache DIR]
Agents start it; people may probe.`

// Device is the simulated device of every host.
var Device = worker.Device{
	ID: "0", Name: "simulated FPGA", Vendor: "quern", Platform: "Verilator model", Version: fmt.Sprint(version), Driver: "quern_rtl " + fmt.Sprint(version),
	Type: "accelerator", Units: 1, Simulated: true,
}

// Main is the program. It returns the exit status.
func Main(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("quern-opencl", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprintln(stderr, usage) }
	probe := flags.String("probe", "", "")
	id := flags.String("device", "", "")
	flags.String("cache", "", "") // nothing is kept
	serve := len(args) > 0 && args[0] == jobfile.RuntimeRTL
	if serve {
		args = args[1:]
	}
	if flags.Parse(args) != nil {
		return 2
	}
	if flags.NArg() > 0 || serve == (*probe != "") || serve && *id == "" || !serve && *probe != jobfile.RuntimeRTL {
		flags.Usage()
		return 2
	}
	if serve && !worker.HasKeeper() {
		fmt.Fprintln(stderr, "quern-opencl: descriptor 3 is not a socket; agents start workers, people need not")
		return 2
	}
	if err := run(serve, *id, stdout); err != nil {
		fmt.Fprintln(stderr, "quern-opencl:", err)
		return 1
	}
	return 0
}

func run(serve bool, id string, stdout io.Writer) error {
	if id != "" && id != Device.ID {
		return fmt.Errorf("there is no device %s here", id)
	}
	m := newMachine(os.Getenv(sign.KeysEnv))
	// Models may use the stack of their thread as they like, and keep things for
	// their thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if serve {
		worker.Restrain(256)
		return worker.Serve(m.run)
	}
	if id != "" {
		if err := trial.Prove(jobfile.RuntimeRTL, m.run); err != nil {
			return fmt.Errorf("device %s (%s): %w", id, Device.Name, err)
		}
	}
	return json.NewEncoder(stdout).Encode(worker.Report{Runtime: jobfile.RuntimeRTL, Devices: []worker.Device{Device}})
}
