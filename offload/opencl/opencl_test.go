//go:build linux && (amd64 || arm64)

package opencl

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	// PoCL keeps what it compiles; not in the home of whoever runs tests.
	if os.Getenv("POCL_CACHE_DIR") == "" {
		dir, err := os.MkdirTemp("", "quern-pocl-")
		if err != nil {
			panic(err)
		}
		os.Setenv("POCL_CACHE_DIR", dir)
		code := m.Run()
		os.RemoveAll(dir)
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// device is the first device of this host; the test is skipped without one.
func device(t *testing.T) *Device {
	t.Helper()
	lib, err := Open("")
	if err != nil {
		t.Skip("no OpenCL on this host: ", err)
	}
	all, err := lib.Devices()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Skip("libOpenCL is here, but no device (Debian: pocl-opencl-icd)")
	}
	return all[0]
}

func open(t *testing.T) *Context {
	t.Helper()
	c, err := device(t).Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestOpenMissing(t *testing.T) {
	if _, err := Open("libNoSuchOpenCL.so.1"); err == nil || !strings.Contains(err.Error(), "OpenCL is not installed here") {
		t.Errorf("got %v", err)
	}
	if _, err := Open("libc.so.6"); err == nil || !strings.Contains(err.Error(), "clGetPlatformIDs") {
		t.Errorf("a library that is not OpenCL: %v", err)
	}
}

func TestDevices(t *testing.T) {
	d := device(t)
	t.Logf("%+v", d.Info)
	if d.ID == "" || d.Name == "" || d.Driver == "" || d.Memory <= 0 || d.MaxAlloc <= 0 || d.Units <= 0 || d.MaxGroup <= 0 {
		t.Errorf("a device says too little of itself: %+v", d.Info)
	}
}

const scale = `__kernel void scale(__global const uint *in, __global uint *out, uint factor, uint n) {
	size_t i = get_global_id(0);
	if (i < n) out[i] = in[i] * factor;
}`

// run multiplies 1000 numbers by factor with p.
func run(t *testing.T, c *Context, p *Program, factor uint32) {
	t.Helper()
	const n = 1000
	in, out := make([]byte, 4*n), make([]byte, 4*n)
	for i := range n {
		binary.LittleEndian.PutUint32(in[4*i:], uint32(i))
	}
	a, err := c.Buffer(len(in))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := c.Buffer(len(out))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	k, err := p.Kernel("scale")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if k.Args != 4 || k.MaxGroup < 1 {
		t.Errorf("%d arguments, groups of %d", k.Args, k.MaxGroup)
	}
	if err := errors.Join(a.Write(in), b.Zero(), k.SetBuffer(0, a), k.SetBuffer(1, b),
		k.SetScalar(2, binary.LittleEndian.AppendUint32(nil, factor)), k.SetScalar(3, binary.LittleEndian.AppendUint32(nil, n-1))); err != nil {
		t.Fatal(err)
	}
	took, err := c.Run(k, []int{1024}, []int{64})
	if err != nil || took <= 0 {
		t.Fatal(took, err)
	}
	if err := b.Read(out); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		want := uint32(i) * factor
		if i == n-1 {
			want = 0 // not written: zeroed before
		}
		if got := binary.LittleEndian.Uint32(out[4*i:]); got != want {
			t.Fatalf("%d times %d is %d", i, factor, got)
		}
	}
	if err := b.Read(make([]byte, 4*n+1)); err == nil {
		t.Error("more was read than there is")
	}
}

// TestRun: from source, and from the binary of it.
func TestRun(t *testing.T) {
	c := open(t)
	p, err := c.Build(scale, "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	run(t, c, p, 3)
	bin, err := p.Binary()
	if err != nil {
		t.Fatal(err)
	}
	q, err := c.Load(bin, "")
	if err != nil {
		t.Fatalf("a binary of %d bytes is not taken back: %v", len(bin), err)
	}
	defer q.Close()
	run(t, c, q, 5)
}

func TestBadPrograms(t *testing.T) {
	c := open(t)
	var build *BuildError
	if _, err := c.Build("__kernel void f(__global uint *p) { p[0] = nothing; }", ""); !errors.As(err, &build) || !strings.Contains(build.Log, "nothing") {
		t.Errorf("the log of the compiler is missing: %v", err)
	}
	p, err := c.Build(scale, "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Kernel("shrink"); err == nil || !strings.Contains(err.Error(), "clCreateKernel: invalid kernel name") {
		t.Errorf("got %v", err)
	}
	if _, err := c.Load([]byte("garbage"), ""); err == nil {
		t.Error("garbage is taken as a binary")
	}
	if _, err := c.Load(nil, ""); err == nil {
		t.Error("nothing is taken as a binary")
	}
	k, err := p.Kernel("scale")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := c.Run(k, []int{64}, nil); err == nil {
		t.Error("a kernel without arguments was run")
	}
	if _, err := c.Run(k, nil, nil); err == nil {
		t.Error("a kernel was run over nothing")
	}
}
