// Package kernels holds the kernels that come inside the quern binary: two
// WASI modules, built with Go's own wasip1 port, that look at their first
// argument. One, from src, is small, so that tasks start soon; the other, from
// media, has the kernels that need libraries: compression, tables, pictures.
//
// bundled.wasm.gz and media.wasm.gz are generated and committed, so that `go
// build` needs nothing but Go: run `go generate ./offload/kernels` after a change
// in src, media, squeeze, table or picture. The build is reproducible; a test
// compares, with the toolchain named in bundled.go.txt.
//
// Some have more: bundled/NAME has a manifest, as a bundle in /.compute/kernels
// would, and what that names, such as the files of a test, the source of variants
// for OpenCL and CUDA, and the PTX that genptx makes of it, which is committed
// like the modules. File has them.
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

//go:embed media.wasm.gz
var packedMedia []byte

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
	media bool     // it is in that module
}

// Bundled lists the kernels, sorted by name.
var Bundled = []Kernel{
	{"cat", "the inputs, one after the other", []string{"cat"}, true},
	{"classify", "the classes that a model (ONNX) finds in pictures, or in arrays; params: {model: /PATH.onnx}", nil, false},
	{"csv", "records of CSV files that fit a condition, or aggregates of groups of them; params: {where: …, select: …, by: …, aggregate: …}", []string{"csv"}, true},
	{"grep", "lines that match a regular expression, as PATH:LINE:TEXT; args: [PATTERN]", []string{"grep"}, false},
	{"gunzip", "what gzip has compressed; split: file or none", []string{"gunzip"}, true},
	{"gzip", "the inputs compressed; parts, put together by reduce: {}, are a file of gzip; params: {level: 1 to 9}", []string{"gzip"}, true},
	{"histogram", "how often each value of a byte occurs; with reduce: {} in all inputs together", []string{"histogram"}, false},
	{"kmeans", "one step of k-means: an array of centroids, then one of points, give the new centroids; split: none", []string{"kmeans"}, false},
	{"matmul", "the product of two matrices, arrays one after the other; split: none", []string{"matmul"}, false},
	{"resize", "JPEG and PNG pictures made smaller; params: {width: 256, height: 256}", []string{"resize"}, true},
	{"sha256sum", "the SHA-256 of every input, as the command of that name prints it", []string{"sha256sum"}, false},
	{"threshold", "little-endian float32 numbers, those below a threshold set to 0; params: {threshold: X}", []string{"threshold"}, false},
	{"unzstd", "what zstd has compressed; split: file or none", []string{"unzstd"}, true},
	{"wordcount", "the most frequent words; needs reduce: {}; params: {top: N, words: space or identifiers}", []string{"wordcount"}, false},
	{"zstd", "the inputs compressed; parts, put together by reduce: {}, are a file of zstd; params: {level: 1 to 22}", []string{"zstd"}, true},
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

// unpack is a module that has been compressed, made once.
func unpack(packed []byte) func() (module, error) {
	return sync.OnceValues(func() (module, error) {
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
}

var unpacked, unpackedMedia = unpack(packed), unpack(packedMedia)

// Module returns the WebAssembly module of the kernel, and its SHA-256. Several
// kernels share one. Nobody may change the bytes.
func (k Kernel) Module() (wasm, digest []byte, err error) {
	m, err := unpacked()
	if k.media {
		m, err = unpackedMedia()
	}
	return m.wasm, m.digest[:], err
}

// Module returns the module of the kernels that need no library, and its
// SHA-256.
func Module() (wasm, digest []byte, err error) { return Kernel{}.Module() }

// ByDigest returns the module of this SHA-256; nil: there is no such.
func ByDigest(digest []byte) ([]byte, error) {
	for _, k := range []Kernel{{}, {media: true}} {
		if wasm, d, err := k.Module(); err != nil || bytes.Equal(d, digest) {
			return wasm, err
		}
	}
	return nil, nil
}
