//go:build linux && cgo

package onnxworker

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	ort "github.com/yalue/onnxruntime_go"

	"quernfs/offload/worker"
)

const usage = `usage: quern-onnx --probe onnx [--device cpu] | quern-onnx onnx --device cpu
Agents start it; people may probe. QUERN_ONNXRUNTIME names the file of the library, libonnxruntime.so.1.`

// device is the only one: the library's own, on the processor.
const device = "cpu"

// Main is the program. It returns the exit status.
func Main(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("quern-onnx", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprintln(stderr, usage) }
	probe := flags.String("probe", "", "")
	id := flags.String("device", "", "")
	flags.String("cache", "", "") // of no use here
	serve := len(args) > 0 && args[0] == "onnx"
	if serve {
		args = args[1:]
	}
	if flags.Parse(args) != nil {
		return 2
	}
	if flags.NArg() > 0 || serve == (*probe != "") || serve && *id == "" || !serve && *probe != "onnx" {
		flags.Usage()
		return 2
	}
	if serve && !worker.HasKeeper() {
		fmt.Fprintln(stderr, "quern-onnx: descriptor 3 is not a socket; agents start workers, people need not")
		return 2
	}
	if serve {
		worker.Restrain(1024)
	}
	if err := run(serve, *id, stdout); err != nil {
		fmt.Fprintln(stderr, "quern-onnx:", err)
		return 1
	}
	return 0
}

func run(serve bool, id string, stdout io.Writer) error {
	if id != "" && id != device {
		return fmt.Errorf("there is no device %s here, only %s", id, device)
	}
	if err := open(); err != nil {
		return err
	}
	defer func() { _ = ort.DestroyEnvironment() }()
	m := new(machine)
	defer m.close()
	if serve {
		return worker.ServeFiles(m.run)
	}
	if id != "" {
		if err := m.knownAnswer(); err != nil {
			return err
		}
	}
	return json.NewEncoder(stdout).Encode(worker.Report{Runtime: "onnx", Devices: []worker.Device{{
		ID: device, Name: "onnxruntime on the processor", Vendor: "onnxruntime", Platform: "onnxruntime",
		Version: ort.GetVersion(), Driver: ort.GetVersion(), Type: "cpu", Units: runtime.NumCPU(),
	}}})
}

// open loads the library.
func open() error {
	names := []string{os.Getenv("QUERN_ONNXRUNTIME")}
	if names[0] == "" {
		names = nil
		if exe, err := os.Executable(); err == nil {
			names = append(names, filepath.Join(filepath.Dir(exe), "libonnxruntime.so.1"))
		}
		names = append(names, "libonnxruntime.so.1", "libonnxruntime.so")
	}
	var errs []error
	for _, name := range names {
		ort.SetSharedLibraryPath(name)
		err := ort.InitializeEnvironment(ort.WithLogLevelError())
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	return errors.Join(errs...)
}
