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
	for _, k := range []string{"grep", "gzip"} {
		k, _ := Find(k, "")
		wasm, digest, err := k.Module()
		if err != nil || len(digest) != 32 || !bytes.HasPrefix(wasm, []byte("\x00asm")) {
			t.Errorf("module of %d bytes, digest %x, %v", len(wasm), digest, err)
		}
		if same, err := ByDigest(digest); err != nil || !bytes.Equal(same, wasm) {
			t.Errorf("by its digest there is a module of %d bytes, %v", len(same), err)
		}
	}
	if wasm, err := ByDigest(make([]byte, 32)); wasm != nil || err != nil {
		t.Error("there is a module of a digest that is no module's")
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
	for dir, want := range map[string][]byte{"src": packed, "media": packedMedia} {
		got, err := build.Bundle(dir)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("the module of %s is not what its sources give: run go generate ./offload/kernels", dir)
		}
	}
	// Both are in every quern.
	if len(packed) > 1200<<10 || len(packedMedia) > 2500<<10 {
		t.Errorf("the modules have %d and %d bytes: what made them so large?", len(packed), len(packedMedia))
	}
}
