package trial

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"quernfs/offload/jobfile"
	"quernfs/offload/ptx/interp"
	"quernfs/offload/recipe"
)

// simulated is a device that executes PTX on the host.
type simulated struct{ heap interp.Heap }

type simulatedProgram struct {
	d *simulated
	m *interp.Module
}

type simulatedKernel struct {
	d    *simulated
	k    *interp.Kernel
	args [][]byte
}

type simulatedBuffer struct {
	d    *simulated
	at   uint64
	size int
}

func (d *simulated) Name() string      { return "simulated" }
func (d *simulated) MaxAlloc() int64   { return 1 << 30 }
func (d *simulated) Failed(error) bool { return false }

func (d *simulated) Program(file []byte) (recipe.Program, error) {
	m, err := interp.Parse(file)
	if err != nil {
		return nil, &recipe.BuildError{Log: err.Error()}
	}
	return simulatedProgram{d, m}, nil
}

func (d *simulated) Buffer(size int) (recipe.Buffer, error) {
	return &simulatedBuffer{d, d.heap.Alloc(int64(size)), size}, nil
}

func (p simulatedProgram) Kernel(name string) (recipe.Kernel, error) {
	k := p.m.Kernel(name)
	if k == nil {
		return nil, errors.New("not there")
	}
	return &simulatedKernel{p.d, k, make([][]byte, len(k.Params))}, nil
}

func (k *simulatedKernel) Args() int     { return len(k.k.Params) }
func (k *simulatedKernel) MaxGroup() int { return 1024 }
func (k *simulatedKernel) Close() error  { return nil }

func (k *simulatedKernel) SetBuffer(i int, b recipe.Buffer) error {
	return k.SetScalar(i, binary.LittleEndian.AppendUint64(nil, b.(*simulatedBuffer).at))
}

func (k *simulatedKernel) SetScalar(i int, value []byte) error {
	if len(value) != k.k.Params[i].Size {
		return fmt.Errorf("argument %d has %d bytes", i, k.k.Params[i].Size)
	}
	k.args[i] = value
	return nil
}

func (k *simulatedKernel) Run(global, local []int) (time.Duration, error) {
	grid, block := [3]uint32{1, 1, 1}, [3]uint32{1, 1, 1}
	for i := range global {
		grid[i], block[i] = uint32(global[i]/local[i]), uint32(local[i])
	}
	start := time.Now()
	err := k.k.Launch(&k.d.heap, grid, block, k.args, 0)
	return time.Since(start), err
}

func (b *simulatedBuffer) Size() int { return b.size }

func (b *simulatedBuffer) Close() error {
	b.d.heap.Free(b.at)
	return nil
}

func (b *simulatedBuffer) memory(n int) []byte {
	mem, err := b.d.heap.At(b.at, n)
	if err != nil {
		panic(err)
	}
	return mem
}

func (b *simulatedBuffer) Write(p []byte) error {
	copy(b.memory(len(p)), p)
	return nil
}

func (b *simulatedBuffer) Read(p []byte) error {
	copy(p, b.memory(len(p)))
	return nil
}

func (b *simulatedBuffer) Zero() error {
	clear(b.memory(b.size))
	return nil
}

// TestBundledPTX: the PTX of each bundled kernel, executed on the host, gives
// what its reference in Go gives. No GPU has a part in it.
func TestBundledPTX(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	tried := 0
	for _, name := range []string{"histogram", "threshold", "matmul", "kmeans"} {
		b, err := Bundled(name)
		if err != nil {
			t.Fatal(err)
		}
		file, digest, err := b.File(b.Kernel.DeviceFile(jobfile.RuntimeCUDA))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		path := filepath.Join(t.TempDir(), "k.ptx")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{8, 2000, 20_000} {
			in, err := b.Random(size, seed)
			if err != nil {
				t.Fatal(err)
			}
			d := new(simulated)
			task := Task(b, jobfile.RuntimeCUDA, path, digest, in)
			var stdout, stderr bytes.Buffer
			exit := recipe.Run(d, jobfile.RuntimeCUDA, &task.Run, bytes.NewReader(in.Data), &stdout, &stderr)
			if exit.Code != 0 {
				t.Errorf("%s on %d bytes: %+v, %s", name, len(in.Data), exit, &stderr)
				continue
			}
			if err := Same(b.Kernel.Compare, reference(t, name, in), stdout.Bytes()); err != nil {
				t.Errorf("%s on %d bytes: %v", name, len(in.Data), err)
			}
			if d.heap.Used() != 0 {
				t.Errorf("%s leaves %d bytes on the device", name, d.heap.Used())
			}
			tried++
		}
	}
	if tried != 12 {
		t.Errorf("%d runs", tried)
	}
	if err := recipe.Prove(new(simulated), recipe.KnownPTX); err != nil {
		t.Error(err)
	}
	var build *recipe.BuildError
	if err := recipe.Prove(new(simulated), recipe.KnownSource); !errors.As(err, &build) {
		t.Errorf("a source is taken for PTX: %v", err)
	}
}
