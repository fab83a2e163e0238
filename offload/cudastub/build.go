package cudastub

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoCompiler is a machine without a C compiler.
var ErrNoCompiler = errors.New("no gcc on this host, which quern-cuda is built with")

// GPU is the UUID of the stub's first GPU, as CUDA_VISIBLE_DEVICES has it.
const GPU = "GPU-51756572-6e00-4000-8000-000000000000"

// Build makes quern-cuda in dir, and the driver that it finds there. See
// libcuda/main.go for what the environment tells the driver.
func Build(dir string) (program string, err error) {
	if _, err := exec.LookPath("gcc"); err != nil {
		return "", ErrNoCompiler
	}
	source, err := exec.Command("go", "list", "-f", "{{.Dir}}", "quernfs/offload/cudastub").Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	include := filepath.Join(strings.TrimSpace(string(source)), "include")
	lib := filepath.Join(dir, "libcuda")
	program = filepath.Join(dir, "quern-cuda")
	if err := gobuild(nil, "-buildmode=c-shared", "-ldflags", "-extldflags=-Wl,-soname,libcuda.so.1", "-o", filepath.Join(lib, "libcuda.so"), "quernfs/offload/cudastub/libcuda"); err != nil {
		return "", err
	}
	if err := os.Symlink("libcuda.so", filepath.Join(lib, "libcuda.so.1")); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	// The library is given to the linker of the program alone, so that what is
	// compiled does not depend on dir.
	return program, gobuild([]string{"CGO_CFLAGS=-O2 -g -I" + include}, "-tags", "cuda",
		"-ldflags", "-extldflags '-L"+lib+" -Wl,-rpath,"+lib+"'", "-o", program, "quernfs/cmd/quern-cuda")
}

func gobuild(env []string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=1"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}
