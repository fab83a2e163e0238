package integration

import (
	"encoding/binary"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSimulatedFPGA: a circuit is built, signed, tried, registered and run with the
// commands and flags that docs/compute.md names; a copy that was changed is refused.
func TestSimulatedFPGA(t *testing.T) {
	needMount(t)
	for _, tool := range []string{"verilator", "g++", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("no models can be built here: ", err)
		}
	}
	dir := t.TempDir()
	key, kernel := filepath.Join(dir, "fpga.key"), filepath.Join(dir, "threshold")
	mustQuern(t, "kernel", "keygen", key, "--name", "a test")
	mustQuern(t, "kernel", "build-rtl", "threshold", "--out", kernel)
	if out, err := runQuern("kernel", "test", kernel+"/", "--fpga-keys", key+".pub"); err != nil || !strings.Contains(out, "not here: rtl: k.so is not signed") {
		t.Errorf("before it is signed: %v, %s", err, out)
	}
	mustQuern(t, "kernel", "sign", kernel, "--key", key)
	if out := mustQuern(t, "kernel", "test", kernel+"/", "--fpga-keys", key+".pub"); !strings.Contains(out, "rtl:0") {
		t.Errorf("quern kernel test: %s", out)
	}
	if out, err := runQuern("kernel", "test", kernel+"/"); err == nil || !strings.Contains(err.Error(), "this host trusts no key") {
		t.Errorf("without keys: %v, %s", err, out)
	}
	if out, err := runQuern("kernel", "sign", kernel); err == nil || !strings.Contains(err.Error(), "--key") {
		t.Errorf("without a key: %v, %s", err, out)
	}
	if out, err := runQuern("up", "--data", filepath.Join(dir, "no"), "--mount", t.TempDir(), "--fpga-simulate", kernel); err == nil || !strings.Contains(err.Error(), "need --fpga-keys") {
		t.Errorf("without keys: %v, %s", err, out)
	}

	c := startCluster(t, "--fpga-keys", key+".pub", "--fpga-simulate", kernel)
	compute := filepath.Join(c.mnt, ".compute")
	for _, version := range []string{"2", "3"} {
		to := filepath.Join(compute, "kernels", "threshold", version)
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		files, err := os.ReadDir(kernel)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			data := readFile(t, filepath.Join(kernel, f.Name()))
			if version == "3" && f.Name() == "k.so" {
				data += "\x00"
			}
			writeFile(t, filepath.Join(to, f.Name()), data)
		}
	}
	const n = 100_001
	var in, want []byte
	for i := range n {
		v := float32(i%201)/100 - 1
		in = binary.LittleEndian.AppendUint32(in, math.Float32bits(v))
		if v < 0.5 {
			v = 0
		}
		want = binary.LittleEndian.AppendUint32(want, math.Float32bits(v))
	}
	writeFile(t, filepath.Join(c.mnt, "samples.f32"), string(in))
	for version, ends := range map[string]string{"2": "succeeded: all tasks done", "3": "failed: "} {
		name := "v" + version
		writeFile(t, filepath.Join(c.mnt, name+".yaml"), "version: 1\nkernel: threshold@"+version+"\nruntime: rtl\nparams: {threshold: 0.5}\ninputs: /samples.f32\nretries: 0\nplacement: {simulated: true}\n")
		if err := os.Rename(filepath.Join(c.mnt, name+".yaml"), filepath.Join(compute, "queue", name+".yaml")); err != nil {
			t.Fatalf("%s: %v: %s", name, err, readFile(t, filepath.Join(compute, "errors", name)))
		}
		if how := readFile(t, filepath.Join(compute, "by-name", name, "wait")); !strings.HasPrefix(how, ends) {
			t.Errorf("%s: %s", name, how)
		}
	}
	if got := readFile(t, filepath.Join(compute, "by-name", "v2", "out", "output")); got != string(want) {
		t.Errorf("the result of %d bytes is wrong", len(got))
	}
	usage := readFile(t, filepath.Join(compute, "by-name", "v2", "usage"))
	if !strings.Contains(usage, "\ncycles 50") || !strings.Contains(usage, "\ndevice_seconds 0.0002") { // 50,001 beats at 250 MHz
		t.Errorf("usage: %s", usage)
	}
	if reason := readFile(t, filepath.Join(compute, "by-name", "v3", "tasks", "0", "state")); !strings.Contains(reason, "k.so is not loaded: its signature is wrong") {
		t.Errorf("what was changed: %s", reason)
	}
}
