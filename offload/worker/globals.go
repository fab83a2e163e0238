package worker

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"

	"github.com/tetratelabs/wazero/api"
)

// Sections of a module, see
// https://www.w3.org/TR/wasm-core-1/#binary-modules.
const (
	sectionGlobal = 6
	sectionExport = 7
	exportGlobal  = 3
)

var errNoModule = errors.New("it is not a WebAssembly module")

// globalName is what withGlobals exports a global as.
func globalName(i uint32) string { return "\x00global" + strconv.FormatUint(uint64(i), 10) }

// withGlobals returns the module with all globals that it defines exported, and
// how many these are: only those that are exported can be set from outside. A
// module without an export section is returned as it is.
func withGlobals(wasm []byte) (out []byte, n uint32, err error) {
	const head = 8
	if len(wasm) < head {
		return nil, 0, errNoModule
	}
	out = slices.Clone(wasm[:head])
	exported := false
	for rest := wasm[head:]; len(rest) > 0; {
		id := rest[0]
		content, after, err := bounded(rest[1:])
		if err != nil {
			return nil, 0, err
		}
		switch id {
		case sectionGlobal:
			if n, _, err = leb(content); err != nil {
				return nil, 0, err
			}
			if int(n) > len(content) {
				return nil, 0, errNoModule
			}
		case sectionExport:
			count, entries, err := leb(content)
			if err != nil || count > 1<<31 {
				return nil, 0, errNoModule
			}
			content = append(binary.AppendUvarint(nil, uint64(count)+uint64(n)), entries...)
			for i := range n {
				name := globalName(i)
				content = append(binary.AppendUvarint(content, uint64(len(name))), name...)
				content = binary.AppendUvarint(append(content, exportGlobal), uint64(i))
			}
			exported = true
		}
		out = append(binary.AppendUvarint(append(out, id), uint64(len(content))), content...)
		rest = after
	}
	if !exported {
		return wasm, 0, nil
	}
	return out, n, nil
}

// leb reads an unsigned number of 32 bits. Signed LEB128 has other numbers, the
// unsigned kind is what package binary calls uvarint.
func leb(b []byte) (v uint32, rest []byte, err error) {
	x, k := binary.Uvarint(b)
	if k <= 0 || x > 1<<32-1 {
		return 0, nil, errNoModule
	}
	return uint32(x), b[k:], nil
}

// bounded reads a length and so many bytes.
func bounded(b []byte) (content, rest []byte, err error) {
	n, b, err := leb(b)
	if err != nil || uint64(n) > uint64(len(b)) {
		return nil, nil, errNoModule
	}
	return b[:n], b[n:], nil
}

// globals are the values of an instance's mutable globals.
type globals struct {
	vars   []api.MutableGlobal
	values []uint64
}

// keepGlobals reads the n globals of a module that withGlobals has made. ok: they
// can all be put back.
func keepGlobals(m api.Module, n uint32) (g globals, ok bool) {
	for i := range n {
		switch v := m.ExportedGlobal(globalName(i)).(type) {
		case api.MutableGlobal:
			switch v.Type() {
			case api.ValueTypeI32, api.ValueTypeI64, api.ValueTypeF32, api.ValueTypeF64:
			default:
				return globals{}, false // a vector has more than 64 bits
			}
			g.vars, g.values = append(g.vars, v), append(g.values, v.Get())
		case nil:
			return globals{}, false
		}
	}
	return g, true
}

func (g *globals) restore() {
	for i, v := range g.vars {
		v.Set(g.values[i])
	}
}
