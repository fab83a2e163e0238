//go:build linux && (amd64 || arm64)

package clworker

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quernfs/offload/rtl/rtltest"
	"quernfs/offload/sign"
	"quernfs/offload/trial"
	"quernfs/offload/worker"
)

const fpgaManifest = "version: 1\ntest: {input: in, output: out}\nfpga:\n  file: k.aocx\n" + rawRecipe

// bitstream is what PoCL makes of a source: it takes this as other drivers take
// bitstreams.
func bitstream(t *testing.T, m *machine, source string) []byte {
	t.Helper()
	p, err := m.ctx.Build(source, options)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	b, err := p.Binary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFPGA: a bitstream that somebody trusted has signed is loaded, and no other;
// what is none is told in words; one takes the place of another.
func TestFPGA(t *testing.T) {
	m := testMachine(t, "")
	keys := filepath.Join(t.TempDir(), "keys")
	signature, trusted := rtltest.Key(t)
	stranger, _ := rtltest.Key(t)
	if err := os.WriteFile(keys, []byte(trusted), 0o600); err != nil {
		t.Fatal(err)
	}
	f := fpga{m, keys}
	upper, lower := bitstream(t, m, rawSource), bitstream(t, m, strings.NewReplacer("'a'", "'A'", "'z'", "'Z'", "- 32", "+ 32").Replace(rawSource))
	manifest := []byte(fpgaManifest)
	run := func(file []byte, sig []byte) *worker.Run {
		name := filepath.Join(t.TempDir(), "k.aocx")
		if err := os.WriteFile(name, file, 0o600); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(file)
		return &worker.Run{Module: name, Digest: sum[:], Manifest: manifest, Signature: sig, Memory: 64 << 20}
	}
	noise := []byte("no bitstream at all")
	for _, c := range []struct {
		name string
		run  *worker.Run
		want string // of the output; else of the standard error
		code int
	}{
		{"upper", run(upper, signature(upper, manifest)), "HELLO, WORLD", 0},
		{"upper again", run(upper, signature(upper, manifest)), "HELLO, WORLD", 0},
		{"lower", run(lower, signature(lower, manifest)), "hello, world", 0},
		{"unsigned", run(upper, nil), "k.aocx is not loaded: it is not signed", 1},
		{"by a stranger", run(upper, stranger(upper, manifest)), "nobody whom this host trusts", 1},
		{"of another", run(upper, signature(lower, manifest)), "its signature is wrong", 1},
		{"of another manifest", run(upper, signature(upper, nil)), "its signature is wrong", 1},
		{"nonsense", run(noise, signature(noise, manifest)), "the bitstream is not one for", 1},
		{"upper at last", run(upper, signature(upper, manifest)), "HELLO, WORLD", 0},
	} {
		var stdout, stderr bytes.Buffer
		exit := f.run(c.run, strings.NewReader("Hello, World"), &stdout, &stderr)
		got := stdout.String()
		if c.code != 0 {
			got = stderr.String()
		}
		if exit.Code != c.code || exit.Fault || !strings.Contains(got, c.want) {
			t.Errorf("%s: %+v, %q, %q; want %q", c.name, exit, &stdout, &stderr, c.want)
		}
		if len(f.ready) > 1 {
			t.Errorf("%s: %d bitstreams are on the device", c.name, len(f.ready))
		}
	}
}

// TestFPGAProbe: a device that is no FPGA is none, but for development; it is a
// simulated one then, and is proved by the test of a signed kernel.
func TestFPGAProbe(t *testing.T) {
	m := testMachine(t, "")
	d := m.ctx.Device()
	if d.Type == typeFPGA {
		t.Skip("the first device of this host is an FPGA")
	}
	probe := func(args ...string) (r worker.Report, text string, code int) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		code = Main(append([]string{"--probe", "fpga"}, args...), &stdout, &stderr)
		if err := json.Unmarshal(stdout.Bytes(), &r); code == 0 && err != nil {
			t.Errorf("%q: %v", &stdout, err)
		}
		return r, stderr.String(), code
	}
	if r, text, code := probe(); code != 0 || len(r.Devices) != 0 {
		t.Errorf("status %d, %q: %+v", code, text, r)
	}
	t.Setenv(AnyEnv, "1")
	if r, text, code := probe(); code != 0 || len(r.Devices) == 0 || r.Devices[0].ID != d.ID || !r.Devices[0].Simulated || r.Runtime != "fpga" {
		t.Errorf("status %d, %q: %+v", code, text, r)
	}
	signature, trusted := rtltest.Key(t)
	dir, manifest, file := t.TempDir(), []byte(fpgaManifest), bitstream(t, m, rawSource)
	rtltest.Write(t, dir, map[string][]byte{
		"kernel.yaml": manifest, "k.aocx": file, "k.aocx.sig": signature(file, manifest), "in": []byte("abcd"), "out": []byte("ABCD"), "keys": []byte(trusted),
	})
	if _, text, code := probe("--device", d.ID); code != 1 || !strings.Contains(text, "no kernel with a known answer") {
		t.Errorf("status %d, %q", code, text)
	}
	t.Setenv(trial.KnownEnv("fpga"), dir)
	if _, text, code := probe("--device", d.ID); code != 1 || !strings.Contains(text, "trusts no key") {
		t.Errorf("status %d, %q", code, text)
	}
	t.Setenv(sign.KeysEnv, filepath.Join(dir, "keys"))
	if _, text, code := probe("--device", d.ID); code != 0 {
		t.Errorf("status %d, %q", code, text)
	}
	rtltest.Write(t, dir, map[string][]byte{"out": []byte("abcd")})
	if _, text, code := probe("--device", d.ID); code != 1 || !strings.Contains(text, "computes the known answer wrongly") {
		t.Errorf("status %d, %q", code, text)
	}
}
