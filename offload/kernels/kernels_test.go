package kernels

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"quernfs/offload/kernels/build"
)

func TestFind(t *testing.T) {
	if !slices.IsSortedFunc(Bundled, func(a, b Kernel) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the kernels are not sorted")
	}
	for _, k := range Bundled {
		if got, ok := Find(k.Name, Version); !ok || got.Name != k.Name {
			t.Errorf("%s is not found", k.Name)
		}
		if _, ok := Find(k.Name, "0"); ok {
			t.Errorf("%s is found in a version that does not exist", k.Name)
		}
	}
	wasm, digest, err := Module()
	if err != nil || len(digest) != 32 || !bytes.HasPrefix(wasm, []byte("\x00asm")) {
		t.Errorf("module of %d bytes, digest %x, %v", len(wasm), digest, err)
	}
}

// TestReproducible builds the sources again and compares: what is committed is
// what src says.
func TestReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds for another architecture")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no Go toolchain")
	}
	version, err := build.Toolchain()
	if err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadFile("bundled.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(made)) != version {
		t.Skipf("bundled.wasm.gz was made by %s, here is %s", strings.TrimSpace(string(made)), version)
	}
	got, err := build.Bundle("src")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, packed) {
		t.Error("bundled.wasm.gz is not what src gives: run go generate ./offload/kernels")
	}
}
