package offload

import (
	"testing"

	"quernfs/offload/kernels"
)

func bundledWasm(t *testing.T) string {
	t.Helper()
	wasm, _, err := kernels.Module()
	if err != nil {
		t.Fatal(err)
	}
	return string(wasm)
}

// testModules are misbehaving modules, assembled by hand: types () → (), i32
// → (), i32×4 → i32; imports proc_exit and fd_write; one page of memory; an
// iovec of 12 bytes at 0; and the body of _start.
var testModules = map[string][]byte{
	"loop": assemble(0x03, 0x40, 0x0c, 0, 0x0b),
	"trap": assemble(0x00),
	"exit": assemble(0x41, 3, 0x10, 0),
	"data": assemble(0x41, 0xc1, 0, 0x10, 0), // status 65
	"grow": assemble(0x03, 0x40, 0x41, 16, 0x40, 0, 0x41, 0x7f, 0x47, 0x0d, 0, 0x0b, 0x00),
	"spam": assemble(0x03, 0x40, 0x41, 1, 0x41, 0, 0x41, 1, 0x41, 8, 0x10, 1, 0x1a, 0x0c, 0, 0x0b),
}

func assemble(body ...byte) []byte {
	m := []byte("\x00asm\x01\x00\x00\x00" +
		"\x01\x10\x03\x60\x00\x00\x60\x01\x7f\x00\x60\x04\x7f\x7f\x7f\x7f\x01\x7f" +
		"\x02\x46\x02\x16wasi_snapshot_preview1\x09proc_exit\x00\x01\x16wasi_snapshot_preview1\x08fd_write\x00\x02" +
		"\x03\x02\x01\x00" +
		"\x05\x03\x01\x00\x01" +
		"\x07\x13\x02\x06_start\x00\x02\x06memory\x02\x00")
	n := byte(len(body))
	m = append(m, 10, n+4, 1, n+2, 0)
	m = append(append(m, body...), 0x0b)
	return append(m, "\x0b\x1a\x01\x00\x41\x00\x0b\x14\x08\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
}
