package kernels

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"quernfs/offload/kernels/build"
	"quernfs/offload/ptx/interp"
)

// TestPTX: what is committed is what the sources say, and is all of a kind that
// the interpreter of the tests knows.
func TestPTX(t *testing.T) {
	files, err := filepath.Glob("bundled/*/*.ptx")
	if err != nil || len(files) == 0 {
		t.Fatal("no PTX", err)
	}
	files = append(files, "../recipe/known.ptx")
	for _, file := range files {
		have, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := interp.Parse(have); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		source := file[:len(file)-len(".ptx")] + ".cl"
		if build.PTXName(source) != file {
			t.Errorf("%s is not called like its source", file)
		}
		want, err := build.PTX(source)
		if errors.Is(err, build.ErrNoClang) {
			t.Skip("not compared with the sources: ", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, want) {
			t.Errorf("%s is not what %s makes of its source: run go generate ./offload/kernels ./offload/recipe", file, build.Clang)
		}
	}
}

// TestPTXErrors: a source that does not compile is told of.
func TestPTXErrors(t *testing.T) {
	source := filepath.Join(t.TempDir(), "k.cl")
	if err := os.WriteFile(source, []byte("__kernel void k(oops"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := build.PTX(source)
	if errors.Is(err, build.ErrNoClang) {
		t.Skip(err)
	}
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("k.cl:1:")) {
		t.Errorf("%q, %v", out, err)
	}
}
