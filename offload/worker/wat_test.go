package worker

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
)

// Small modules, assembled by hand. Function 0 is proc_exit, 1 is fd_write, 2
// is _start.
var bodies = map[string][]byte{
	// loop br 0 end
	"loop": {0x03, 0x40, 0x0c, 0, 0x0b},
	"trap": {0x00},
	// i32.const 3; call proc_exit
	"exit": {0x41, 3, 0x10, 0},
	"ok":   {},
	// loop: memory.grow(16) != -1: again; then unreachable
	"grow": {0x03, 0x40, 0x41, 16, 0x40, 0, 0x41, 0x7f, 0x47, 0x0d, 0, 0x0b, 0x00},
	// loop: fd_write(1, 0, 1, 8)
	"spam": {0x03, 0x40, 0x41, 1, 0x41, 0, 0x41, 1, 0x41, 8, 0x10, 1, 0x1a, 0x0c, 0, 0x0b},
	// fd_write(2, 0, 1, 8); proc_exit(1)
	"complain": {0x41, 2, 0x41, 0, 0x41, 1, 0x41, 8, 0x10, 1, 0x1a, 0x41, 1, 0x10, 0},
}

func vec(parts ...[]byte) []byte {
	out := []byte{byte(len(parts))}
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func str(s string) []byte { return append([]byte{byte(len(s))}, s...) }

func section(id byte, content []byte) []byte {
	return append([]byte{id, byte(len(content))}, content...)
}

func cat(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func assemble(body []byte) []byte {
	const wasi = "wasi_snapshot_preview1"
	code := cat([]byte{0}, body, []byte{0x0b}) // no locals
	return cat(
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, vec([]byte{0x60, 0, 0}, []byte{0x60, 1, 0x7f, 0}, []byte{0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f})),
		section(2, vec(cat(str(wasi), str("proc_exit"), []byte{0, 1}), cat(str(wasi), str("fd_write"), []byte{0, 2}))),
		section(3, vec([]byte{0})),
		section(5, vec([]byte{0, 1})),
		section(7, vec(cat(str("_start"), []byte{0, 2}), cat(str("memory"), []byte{2, 0}))),
		section(10, vec(cat([]byte{byte(len(code))}, code))),
		// An iovec of 12 bytes at 16, then the bytes.
		section(11, vec(cat([]byte{0, 0x41, 0, 0x0b}, []byte{28, 16, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []byte("out of time\n")))),
	)
}

// module writes a small module to a file.
func module(t *testing.T, name string) Run {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".wasm")
	if err := os.WriteFile(file, assemble(bodies[name]), 0o600); err != nil {
		t.Fatal(err)
	}
	return Run{Module: file, Digest: digestOf(file), Args: []string{name}, Memory: 4 << 20}
}

func digestOf(file string) []byte {
	data, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(data)
	return sum[:]
}
