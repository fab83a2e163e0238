package trial

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"quernfs/offload/worker"
)

// KnownEnv is the variable of the environment that tells the worker of a runtime
// of the kernel by which a device is proved.
func KnownEnv(runtime string) string { return "QUERN_" + strings.ToUpper(runtime) + "_KNOWN" }

// Prove has a device whose kernels cannot be made on the spot compute a known
// answer: the test of the kernel whose directory KnownEnv names. run carries out
// one run on it.
func Prove(runtime string, run func(r *worker.Run, stdin io.Reader, stdout, stderr io.Writer) worker.Exit) error {
	dir := os.Getenv(KnownEnv(runtime))
	if dir == "" {
		return errors.New("there is no kernel with a known answer to prove it by")
	}
	b, err := FromDir(dir)
	if err != nil {
		return err
	}
	if b.Kernel.Test == nil || b.Kernel.Test.Output == "" {
		return fmt.Errorf("the kernel in %s has no test with an input and an output, by which a device could be proved", dir)
	}
	in, err := b.Sample(0, 0)
	if err != nil {
		return err
	}
	file := b.Kernel.DeviceFile(runtime)
	if file == "" {
		return fmt.Errorf("the kernel in %s has no variant for %s", dir, runtime)
	}
	_, digest, err := b.File(file)
	if err != nil {
		return err
	}
	t := Task(b, runtime, filepath.Join(dir, file), digest, in)
	var stdout bytes.Buffer
	stderr := worker.NewTail(4 << 10)
	if exit := run(&t.Run, bytes.NewReader(in.Data), &stdout, stderr); exit.Code != 0 || exit.Trap != "" {
		return errors.New(cmp.Or(exit.Trap, strings.TrimSpace(stderr.String()), "the known answer was not computed"))
	}
	if err := Same(b.Kernel.Compare, in.Want, stdout.Bytes()); err != nil {
		return fmt.Errorf("it computes the known answer wrongly: %w", err)
	}
	return nil
}
