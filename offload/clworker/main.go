//go:build linux && (amd64 || arm64)

package clworker

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"quernfs/offload/jobfile"
	"quernfs/offload/opencl"
	"quernfs/offload/recipe"
	"quernfs/offload/sign"
	"quernfs/offload/trial"
	"quernfs/offload/worker"
)

const usage = `usage: quern-opencl --probe opencl|fpga [--device ID] | quern-opencl opencl|fpga --device ID [--cache DIR]
Agents start it; people may probe.`

// Main is the program. It returns the exit status.
func Main(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("quern-opencl", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprintln(stderr, usage) }
	probe := flags.String("probe", "", "")
	id := flags.String("device", "", "")
	cache := flags.String("cache", "", "")
	runtime := ""
	serve := len(args) > 0 && known(args[0])
	if serve {
		runtime, args = args[0], args[1:]
	}
	if flags.Parse(args) != nil {
		return 2
	}
	if flags.NArg() > 0 || serve == (*probe != "") || serve && *id == "" || !serve && !known(*probe) {
		flags.Usage()
		return 2
	}
	if serve && !worker.HasKeeper() {
		fmt.Fprintln(stderr, "quern-opencl: descriptor 3 is not a socket; agents start workers, people need not")
		return 2
	}
	clean, err := privateCache(*cache)
	if err != nil {
		fmt.Fprintln(stderr, "quern-opencl:", err)
		return 1
	}
	defer clean()
	if serve {
		worker.Restrain(4096) // drivers of GPUs open many files
	}
	if err := run(serve, cmp.Or(runtime, *probe), *id, *cache, stdout); err != nil {
		fmt.Fprintln(stderr, "quern-opencl:", err)
		return 1
	}
	return 0
}

func known(runtime string) bool {
	return runtime == jobfile.RuntimeOpenCL || runtime == jobfile.RuntimeFPGA
}

// privateCache tells PoCL to keep what it compiles below cache, or in a
// directory that clean removes: else it would write below the home directory,
// which a worker lacks.
func privateCache(cache string) (clean func(), err error) {
	if os.Getenv("POCL_CACHE_DIR") != "" {
		return func() {}, nil
	}
	if cache != "" {
		return func() {}, os.Setenv("POCL_CACHE_DIR", filepath.Join(cache, "pocl"))
	}
	dir, err := os.MkdirTemp("", "quern-opencl-")
	if err != nil {
		return nil, err
	}
	return func() { _ = os.RemoveAll(dir) }, os.Setenv("POCL_CACHE_DIR", dir)
}

func run(serve bool, runtime, id, cache string, stdout io.Writer) error {
	lib, err := opencl.Open("")
	if err != nil {
		return err
	}
	devices, err := lib.Devices()
	if err != nil {
		return err
	}
	devices = usable(devices, runtime, os.Getenv(AnyEnv) != "")
	if id != "" {
		if devices, err = only(devices, id); err != nil {
			return err
		}
	}
	if serve {
		m, err := newMachine(devices[0], cache)
		if err != nil {
			return err
		}
		defer m.close()
		return worker.Serve(m.runs(runtime))
	}
	if id != "" {
		m, err := newMachine(devices[0], "") // the compiler is a part of what is proved
		if err != nil {
			return err
		}
		defer m.close()
		if err := m.prove(runtime); err != nil {
			return fmt.Errorf("device %s (%s): %w", id, devices[0].Name, err)
		}
	}
	report := worker.Report{Runtime: runtime, Devices: []worker.Device{}}
	for _, d := range devices {
		report.Devices = append(report.Devices, describe(d, runtime))
	}
	return json.NewEncoder(stdout).Encode(report)
}

func only(devices []*opencl.Device, id string) ([]*opencl.Device, error) {
	for _, d := range devices {
		if d.ID == id {
			return []*opencl.Device{d}, nil
		}
	}
	return nil, fmt.Errorf("there is no device %s here; there are %d", id, len(devices))
}

// runs is the function for a runtime that worker.Serve calls.
func (m *machine) runs(runtime string) func(r *worker.Run, stdin io.Reader, stdout, stderr io.Writer) worker.Exit {
	if runtime == jobfile.RuntimeFPGA {
		return fpga{m, os.Getenv(sign.KeysEnv)}.run
	}
	return m.run
}

// prove has the device compute a known answer.
func (m *machine) prove(runtime string) error {
	if runtime == jobfile.RuntimeFPGA {
		return trial.Prove(runtime, m.runs(runtime))
	}
	return recipe.Prove(m, recipe.KnownSource)
}

// run carries out one run on a device that compiles what it runs.
func (m *machine) run(r *worker.Run, stdin io.Reader, stdout, stderr io.Writer) worker.Exit {
	return recipe.Run(m, jobfile.RuntimeOpenCL, r, stdin, stdout, stderr)
}
