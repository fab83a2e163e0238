package worker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// workerCommand is what starts a worker: this test binary, or under the race
// detector one that is built without it, in dir.
func workerCommand(dir string) ([]string, error) {
	if !raceDetector {
		return []string{os.Args[0], "wasm"}, nil
	}
	out := filepath.Join(dir, "worker")
	cmd := exec.Command("go", "build", "-o", out, "quernfs/offload/worker/workercmd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building a worker: %w\n%s", err, text)
	}
	return []string{out, "wasm"}, nil
}
