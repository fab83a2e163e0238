//go:build linux && cgo && cuda

package cudaworker

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"

	"quernfs/offload/jobfile"
	"quernfs/offload/recipe"
	"quernfs/offload/worker"
)

const usage = `usage: quern-cuda --probe cuda [--device ID] | quern-cuda cuda --device ID [--cache DIR]
Agents start it; people may probe.`

// Main is the program. It returns the exit status. It runs on the thread that it
// is called on, and so does the driver.
func Main(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("quern-cuda", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprintln(stderr, usage) }
	probe := flags.String("probe", "", "")
	id := flags.String("device", "", "")
	flags.String("cache", "", "") // see CUDA_CACHE_PATH
	serve := len(args) > 0 && args[0] == jobfile.RuntimeCUDA
	if serve {
		args = args[1:]
	}
	if flags.Parse(args) != nil {
		return 2
	}
	if flags.NArg() > 0 || serve == (*probe != "") || serve && *id == "" || !serve && *probe != jobfile.RuntimeCUDA {
		flags.Usage()
		return 2
	}
	if serve && !worker.HasKeeper() {
		fmt.Fprintln(stderr, "quern-cuda: descriptor 3 is not a socket; agents start workers, people need not")
		return 2
	}
	if serve {
		worker.Restrain(4096) // the driver opens many files
	}
	if err := run(serve, *id, stdout); err != nil {
		fmt.Fprintln(stderr, "quern-cuda:", err)
		return 1
	}
	return 0
}

func run(serve bool, id string, stdout io.Writer) error {
	gpus, err := list()
	if err != nil {
		return err
	}
	report := worker.Report{Runtime: jobfile.RuntimeCUDA, Devices: []worker.Device{}}
	if id == "" {
		for _, g := range gpus {
			report.Devices = append(report.Devices, g.info)
		}
		return json.NewEncoder(stdout).Encode(report)
	}
	for _, g := range gpus {
		if g.info.ID != id {
			continue
		}
		m, err := newMachine(g)
		if err != nil {
			return err
		}
		if serve {
			return worker.Serve(m.run)
		}
		if err := recipe.Prove(m, recipe.KnownPTX); err != nil {
			return fmt.Errorf("device %s (%s): %w", id, g.info.Name, err)
		}
		report.Devices = append(report.Devices, g.info)
		return json.NewEncoder(stdout).Encode(report)
	}
	return fmt.Errorf("there is no device %s here; there are %d", id, len(gpus))
}
