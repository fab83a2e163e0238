package trial

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"quernfs/offload/jobfile"
	"quernfs/offload/kernels"
	"quernfs/offload/kernels/squeeze"
	"quernfs/offload/worker"
)

// Bundle is a kernel with its files.
type Bundle struct {
	Name     string
	Manifest []byte // kernel.yaml
	Kernel   *jobfile.Kernel
	files    map[string][]byte
}

// Bundled returns a kernel of the binary.
func Bundled(name string) (*Bundle, error) {
	k, ok := kernels.Find(name, "")
	if !ok {
		return nil, fmt.Errorf("there is no bundled kernel %q; quern kernel ls lists them, and the directory of one of your own has a / in it", name)
	}
	manifest := kernels.Manifest(name)
	if manifest == nil {
		return &Bundle{Name: name, Kernel: &jobfile.Kernel{About: k.About, Wasm: "k.wasm", Args: k.Args, Compare: jobfile.Compare{As: "bytes"}}}, nil
	}
	return parse(name, manifest, func(file string) ([]byte, error) {
		if b := kernels.File(name, file); b != nil {
			return b, nil
		}
		return nil, os.ErrNotExist
	})
}

// FromDir reads a bundle from a directory.
func FromDir(dir string) (*Bundle, error) {
	manifest, err := readFile(filepath.Join(dir, "kernel.yaml"), jobfile.MaxFile)
	if err != nil {
		return nil, err
	}
	return parse(filepath.Base(dir), manifest, func(file string) ([]byte, error) {
		return readFile(filepath.Join(dir, file), worker.MaxModule)
	})
}

// NewBundle makes a bundle of files that the caller has; only those that its
// test needs must be there.
func NewBundle(name string, manifest []byte, files map[string][]byte) (*Bundle, error) {
	k, err := jobfile.ParseKernel(manifest)
	if err != nil {
		return nil, err
	}
	return &Bundle{Name: name, Manifest: manifest, Kernel: k, files: files}, nil
}

func readFile(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s is larger than %d KiB", name, most>>10)
	}
	return data, err
}

func parse(name string, manifest []byte, read func(string) ([]byte, error)) (*Bundle, error) {
	k, err := jobfile.ParseKernel(manifest)
	if err != nil {
		return nil, fmt.Errorf("kernel.yaml of %s: %w", name, err)
	}
	b := &Bundle{Name: name, Manifest: manifest, Kernel: k, files: map[string][]byte{}}
	for _, file := range k.Files() {
		data, err := read(file)
		if errors.Is(err, os.ErrNotExist) && file == k.Wasm {
			if _, ok := kernels.Find(name, ""); ok {
				continue // the module that all share
			}
		}
		if errors.Is(err, os.ErrNotExist) && b.made(file) {
			continue // see lacks
		}
		if err != nil {
			return nil, fmt.Errorf("kernel %s: %w", name, err)
		}
		b.files[file] = data
	}
	return b, nil
}

// made says whether a file is one that is built and signed where it is used.
func (b *Bundle) made(file string) bool {
	for _, r := range b.Kernel.Runtimes() {
		if f := b.Kernel.DeviceFile(r); jobfile.Signed(r) && (file == f || file == f+jobfile.SignatureSuffix) {
			return true
		}
	}
	return false
}

// Complete are the runtimes for which all that runs is there.
func (b *Bundle) Complete() []string {
	return slices.DeleteFunc(b.Kernel.Runtimes(), func(r string) bool { return b.lacks(r) != nil })
}

// lacks is why the variant for a runtime is not complete: nil if it is.
func (b *Bundle) lacks(runtime string) error {
	file := b.Kernel.DeviceFile(runtime)
	switch {
	case !jobfile.Signed(runtime) || b.files[file] != nil && b.files[file+jobfile.SignatureSuffix] != nil:
		return nil
	case b.files[file] == nil && runtime == jobfile.RuntimeRTL && b.Kernel.RTL.Source != nil:
		return fmt.Errorf("%s has not been built: quern kernel build-rtl %s", file, b.Name)
	case b.files[file] == nil:
		return fmt.Errorf("there is no file %s", file)
	}
	return fmt.Errorf("%s is not signed, so it is not loaded: quern kernel sign", file)
}

// File returns a file of the bundle and its digest.
func (b *Bundle) File(name string) (data, digest []byte, err error) {
	if data = b.files[name]; data == nil && name == b.Kernel.Wasm {
		if k, ok := kernels.Find(b.Name, ""); ok {
			return k.Module()
		}
	}
	if data == nil {
		return nil, nil, fmt.Errorf("kernel %s has no file %s", b.Name, name)
	}
	sum := sha256.Sum256(data)
	return data, sum[:], nil
}

// Input is what a kernel is tried on.
type Input struct {
	Data   []byte
	Args   []string
	Params []jobfile.Param
	Want   []byte // the result; nil: that of the wasm variant
}

// Sample makes an input of about size bytes: the one that the bundle has for
// that, whatever its size, else, and for a kernel that comes with quern, a random
// one such as it takes.
func (b *Bundle) Sample(size int, seed uint64) (*Input, error) {
	if t := b.Kernel.Test; t != nil {
		in := &Input{Data: b.files[t.Input], Params: t.Params}
		if t.Output != "" {
			in.Want = b.files[t.Output]
		}
		return in, nil
	}
	return b.Random(size, seed)
}

// Random makes a random input of about size bytes for a bundled kernel.
func (b *Bundle) Random(size int, seed uint64) (*Input, error) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	switch b.Name {
	case "histogram", "sha256sum", "cat":
		return &Input{Data: noise(rnd, size)}, nil
	case "csv":
		params := []jobfile.Param{{Key: "where", Value: "price > 5"}, {Key: "by", Value: "shop"}, {Key: "aggregate", Value: "count, sum(price), mean(qty)"}}
		return &Input{Data: sales(rnd, size), Params: params}, nil
	case "gunzip":
		return squeezed(squeeze.Gzip, text(rnd, size))
	case "unzstd":
		return squeezed(squeeze.Zstd, text(rnd, size))
	case "resize":
		data, err := photo(rnd, size)
		return &Input{Data: data, Params: []jobfile.Param{{Key: "width", Value: "256"}, {Key: "height", Value: "256"}}}, err
	case "wordcount", "gzip", "zstd":
		return &Input{Data: text(rnd, size)}, nil
	case "grep":
		return &Input{Data: text(rnd, size), Args: []string{"qu.*ck"}}, nil
	case "threshold":
		return &Input{Data: floats(nil, rnd, size/4), Params: []jobfile.Param{{Key: "threshold", Value: "0.25"}}}, nil
	case "matmul":
		// An odd shape, so that no side is a multiple of a group's.
		n := max(int(math.Sqrt(float64(size)/8)), 2)
		return &Input{Data: append(randomArray(rnd, n+1, n), randomArray(rnd, n, n-1)...)}, nil
	case "kmeans":
		const k, d = 7, 5
		return &Input{Data: append(randomArray(rnd, k, d), randomArray(rnd, max(size/(4*d), 1), d)...)}, nil
	}
	return nil, fmt.Errorf("kernel %s has no test in its kernel.yaml: give --input FILE", b.Name)
}

func noise(rnd *rand.Rand, n int) []byte {
	out := make([]byte, 0, n+8)
	for len(out) < n {
		out = binary.LittleEndian.AppendUint64(out, rnd.Uint64())
	}
	return out[:n]
}

func text(rnd *rand.Rand, n int) []byte {
	words := []string{"the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog\n", "quack"}
	var out []byte
	for len(out) < n {
		out = append(append(out, words[rnd.IntN(len(words))]...), ' ')
	}
	return append(out[:n:n], '\n')
}

func floats(out []byte, rnd *rand.Rand, n int) []byte {
	for range n {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(rnd.Float32()*2-1))
	}
	return out
}

func randomArray(rnd *rand.Rand, rows, cols int) []byte {
	out := binary.LittleEndian.AppendUint32([]byte("QNA1"), uint32(rows))
	return floats(binary.LittleEndian.AppendUint32(out, uint32(cols)), rnd, rows*cols)
}
