// Package kernels holds the kernels that come inside the quern binary: one
// WASI module, built from src with Go's own wasip1 port, that looks at its
// first argument.
//
// bundled.wasm.gz is generated and committed, so that `go build` needs nothing
// but Go: run `go generate ./offload/kernels` after a change in src. The build
// is reproducible; a test compares, with the toolchain named in bundled.go.txt.
//
// Some have variants for OpenCL and CUDA, too: bundled/NAME has a manifest, as a
// bundle in /.compute/kernels would, the source, and the PTX that genptx makes of
// it, which is committed like the module. File has them.
//
// # Arrays
//
// Kernels that compute with matrices read and write arrays:
//
//	"QNA1" | rows uint32 | columns uint32 | rows × columns float32, row by row
//
// all little-endian. Several arrays follow each other without a gap, so cat puts
// them together.
package kernels

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"fmt"
	"io"
	"sync"
)

//go:generate go run ./gen
//go:generate go run ./genptx

//go:embed bundled.wasm.gz
var packed []byte

//go:embed bundled
var bundles embed.FS

// Manifest returns the kernel.yaml of a bundled kernel; nil if it has none,
// because all it has is a wasm variant.
func Manifest(name string) []byte { return File(name, "kernel.yaml") }

// File returns a file of the bundle of a kernel; nil if there is no such. The
// module, which all share, is Module.
func File(name, file string) []byte {
	data, err := bundles.ReadFile("bundled/" + name + "/" + file)
	if err != nil {
		return nil
	}
	return data
}

// Version is the version of every bundled kernel.
const Version = "1"

// Kernel is one bundled kernel.
type Kernel struct {
	Name  string
	About string   // one line
	Args  []string // put before the job's own
}

// Bundled lists the kernels, sorted by name.
var Bundled = []Kernel{
	{"grep", "lines that match a regular expression, as PATH:LINE:TEXT; args: [PATTERN]", []string{"grep"}},
	{"histogram", "how often each value of a byte occurs; with reduce: {} in all inputs together", []string{"histogram"}},
	{"kmeans", "one step of k-means: an array of centroids, then one of points, give the new centroids; split: none", []string{"kmeans"}},
	{"matmul", "the product of two matrices, arrays one after the other; split: none", []string{"matmul"}},
	{"sha256sum", "the SHA-256 of every input, as the command of that name prints it", []string{"sha256sum"}},
	{"threshold", "little-endian float32 numbers, those below a threshold set to 0; params: {threshold: X}", []string{"threshold"}},
	{"wordcount", "the most frequent words; needs reduce: {}; params: {top: N, words: space or identifiers}", []string{"wordcount"}},
}

// Find returns the bundled kernel of that name and version ("": any).
func Find(name, version string) (Kernel, bool) {
	for _, k := range Bundled {
		if k.Name == name && (version == "" || version == Version) {
			return k, true
		}
	}
	return Kernel{}, false
}

type module struct {
	wasm   []byte
	digest [sha256.Size]byte
}

var unpacked = sync.OnceValues(func() (module, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return module{}, fmt.Errorf("bundled kernels: %w", err)
	}
	wasm, err := io.ReadAll(z)
	if err != nil {
		return module{}, fmt.Errorf("bundled kernels: %w", err)
	}
	return module{wasm, sha256.Sum256(wasm)}, nil
})

// Module returns the WebAssembly module of all bundled kernels, and its
// SHA-256. Nobody may change the bytes.
func Module() (wasm, digest []byte, err error) {
	m, err := unpacked()
	return m.wasm, m.digest[:], err
}
