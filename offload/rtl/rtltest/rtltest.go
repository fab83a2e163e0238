// Package rtltest gives tests the model of a kernel, which takes seconds to
// build: it is kept in the user's cache directory, under the digest of all that
// it is made of.
package rtltest

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"quernfs/offload/jobfile"
	"quernfs/offload/kernels"
	"quernfs/offload/rtl"
	"quernfs/offload/sign"
)

// Model builds the model of a design. The test is skipped where that cannot be
// done.
func Model(t testing.TB, d rtl.Design) []byte {
	t.Helper()
	if err := rtl.Missing(); err != nil {
		t.Skip("no models can be built here: ", err)
	}
	version, err := exec.Command("verilator", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%+v\n%s\n", version, rtl.Key(), d.Params, d.Top)
	fmt.Fprintln(h, d.Width)
	for _, f := range d.Sources {
		text, err := os.ReadFile(filepath.Join(d.Dir, f))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(h, "%d %s", len(text), text)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, fmt.Sprintf("quern-models-%d", os.Getuid()))
	file := filepath.Join(dir, fmt.Sprintf("%x.so", h.Sum(nil)))
	if data, err := os.ReadFile(file); err == nil {
		return data
	}
	data, err := rtl.Build(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	// That it could not be kept costs time, and nothing else.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return data
	}
	if tmp, err := os.CreateTemp(dir, ".new-*"); err == nil {
		_, err = tmp.Write(data)
		if tmp.Close() == nil && err == nil {
			err = os.Rename(tmp.Name(), file)
		}
		if err != nil {
			os.Remove(tmp.Name())
		}
	}
	return data
}

// Threshold is the bundled kernel threshold as files by name, with its model,
// signed, and the line that trusts who has signed it.
func Threshold(t testing.TB) (files map[string][]byte, trusted string) {
	t.Helper()
	manifest := kernels.Manifest("threshold")
	k, err := jobfile.ParseKernel(manifest)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string][]byte{"kernel.yaml": manifest}
	for _, name := range append(k.Files(), k.RTL.Source...) {
		if data := kernels.File("threshold", name); data != nil {
			files[name] = data
		}
	}
	if files["k.wasm"], _, err = kernels.Module(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "threshold.v"), files["threshold.v"], 0o600); err != nil {
		t.Fatal(err)
	}
	files["k.so"] = Model(t, rtl.DesignOf(k.RTL, dir))
	sign, trusted := Key(t)
	files["k.so.sig"] = sign(files["k.so"], files["kernel.yaml"])
	return files, trusted
}

// Key makes a key: what signs with it, and the line that trusts it.
func Key(t testing.TB) (signature func(file, manifest []byte) []byte, trusted string) {
	t.Helper()
	private, line, err := sign.NewKey("a test")
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.ParsePrivate(private)
	if err != nil {
		t.Fatal(err)
	}
	return func(file, manifest []byte) []byte { return []byte(sign.Sign(key, file, manifest)) }, line
}

// Write puts files into dir.
func Write(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
