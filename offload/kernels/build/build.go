// Package build makes WASI modules out of Go sources, and PTX out of OpenCL C,
// reproducibly: the same sources and toolchain give the same bytes wherever they
// lie.
package build

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Wasm builds the main package in dir, as a reactor: what it exports can be
// called after _initialize.
func Wasm(dir string) ([]byte, error) {
	tmp, err := os.MkdirTemp("", "quern-kernel-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "k.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOWASM=", "GOFLAGS=", "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build in %s: %w\n%s", dir, err, msg)
	}
	return os.ReadFile(out)
}

// Bundle builds dir and compresses the module.
func Bundle(dir string) ([]byte, error) {
	wasm, err := Wasm(dir)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(wasm); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// Toolchain names the Go release that Wasm would use.
func Toolchain() (string, error) {
	out, err := exec.Command("go", "env", "GOVERSION").Output()
	return strings.TrimSpace(string(out)), err
}
