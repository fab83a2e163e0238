package build

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// Clang is the compiler that makes PTX of OpenCL C, and libclc the functions of
// OpenCL for it (Debian: clang-14, libclc-14).
const (
	Clang  = "clang-14"
	libclc = "/usr/lib/clc/nvptx64--nvidiacl.bc"
)

// ErrNoClang is a machine without Clang or its functions of OpenCL.
var ErrNoClang = errors.New(Clang + " and libclc-14 are not installed")

// PTX compiles a source in OpenCL C for NVIDIA's GPUs from compute capability
// 5.0 on (2014), the oldest that the drivers of CUDA 12 run; newer ones compile
// it further when they load it.
//
// The target is nvptx64-nvidia-cuda: nvptx64-nvidia-nvcl, the one for OpenCL
// drivers, marks the file as such (texmode_independent) and leaves the kernels
// without .visible, by which the CUDA driver finds them.
func PTX(source string) ([]byte, error) {
	if _, err := exec.LookPath(Clang); err != nil {
		return nil, ErrNoClang
	}
	if _, err := os.Stat(libclc); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoClang
	}
	// The file is named as it lies, so that the result does not name a directory.
	cmd := exec.Command(Clang, "--target=nvptx64-nvidia-cuda", "-march=sm_50", "-nocudalib", "-x", "cl", "-cl-std=CL1.2", "-O2",
		"-Wall", "-Werror", "-Wno-linker-warnings", "-Wno-unused-command-line-argument",
		"-Xclang", "-mlink-builtin-bitcode", "-Xclang", libclc, "-S", "-o", "-", filepath.Base(source))
	cmd.Dir = filepath.Dir(source)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", Clang, source, err, &stderr)
	}
	if stderr.Len() > 0 {
		return nil, fmt.Errorf("%s %s: %s", Clang, source, &stderr)
	}
	return out, nil
}

// PTXName is the name of the file of PTX beside a source: k.cl, k.ptx.
func PTXName(source string) string {
	return source[:len(source)-len(filepath.Ext(source))] + ".ptx"
}
