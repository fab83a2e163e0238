package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// Probe is `quern worker --probe exec`: it prints a Report as JSON and returns
// 0, or says why programs cannot be run here and returns 1.
func Probe(stdout, stderr io.Writer) int {
	exe, err := os.Executable()
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "quern-probe-")
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	h, err := Open(context.Background(), Config{Dir: dir, Init: []string{exe, "worker", "exec"}})
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	out, err := json.Marshal(h.Report())
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	fmt.Fprintf(stdout, "%s\n", out)
	return 0
}
