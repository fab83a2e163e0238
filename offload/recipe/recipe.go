package recipe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"quernfs/offload/jobfile"
	"quernfs/offload/worker"
)

// Run carries out one run on d with the variant of the kernel for runtime: what
// worker.Serve calls.
func Run(d Device, runtime string, r *worker.Run, stdin io.Reader, stdout, stderr io.Writer) worker.Exit {
	before := worker.CPU()
	x := &recipe{dev: d, runtime: runtime, run: r, in: stdin, out: stdout, dims: map[string]int64{}, buffers: map[string]*buffer{}}
	err := x.do()
	x.close()
	exit := worker.Exit{}
	var build *BuildError
	switch {
	case err == nil:
	case errors.As(err, &build):
		fmt.Fprintln(stderr, build.Log)
		exit = fail(stderr, fmt.Errorf("%s does not build on %s", x.file, d.Name()))
	case d.Failed(err):
		exit = worker.Exit{Code: -1, Trap: fmt.Sprintf("the device %s failed: %v", d.Name(), err), Fault: true}
	default:
		exit = fail(stderr, err)
	}
	exit.CPU, exit.Device, exit.PeakMemory = worker.CPU()-before, x.device, x.peak
	return exit
}

// fail is the Exit of a run that did not come to its end by a fault of kernel
// or input, told on the standard error.
func fail(stderr io.Writer, err error) worker.Exit {
	fmt.Fprintln(stderr, err)
	return worker.Exit{Code: 1}
}

// recipe is one run of a jobfile.OpenCL.
type recipe struct {
	dev     Device
	runtime string
	run     *worker.Run
	in      io.Reader
	out     io.Writer
	cl      *jobfile.OpenCL
	file    string // of the variant, for people

	params  map[string][]byte
	dims    map[string]int64
	buffers map[string]*buffer
	passes  []Kernel
	peak    int64 // bytes of all buffers
	device  int64 // ns
}

// buffer is one buffer of the recipe, on the device and as it is read back.
type buffer struct {
	mem  Buffer
	typ  string
	n    int64   // elements in use
	ints []int64 // sums so far, of an int or uint buffer
	sums []float64
}

func (b *buffer) bytes() int { return int(b.n) * jobfile.TypeSize[b.typ] }

func (x *recipe) close() {
	for _, k := range x.passes {
		_ = k.Close()
	}
	for _, b := range x.buffers {
		_ = b.mem.Close()
	}
}

func (x *recipe) do() error {
	manifest, err := jobfile.ParseKernel(x.run.Manifest)
	if err != nil {
		return fmt.Errorf("kernel.yaml: %w", err)
	}
	if x.cl = manifest.Recipe(x.runtime); x.cl == nil {
		return fmt.Errorf("the kernel has no variant for %s", x.runtime)
	}
	x.file = x.cl.File
	source, err := worker.ReadModule(x.run.Module, x.run.Digest)
	if err != nil {
		return err
	}
	p, err := x.dev.Program(source)
	if err != nil || x.run.Prepare {
		return err
	}
	for _, pass := range x.cl.Run {
		k, err := p.Kernel(pass.Entry)
		if err != nil {
			return fmt.Errorf("%s has no kernel %s that can be run: %w", x.file, pass.Entry, err)
		}
		x.passes = append(x.passes, k)
		if k.Args() != len(pass.Args) {
			return fmt.Errorf("%s: kernel %s takes %d arguments, kernel.yaml gives %d", x.file, pass.Entry, k.Args(), len(pass.Args))
		}
		if g := product(pass.Local); pass.Local != nil && g > k.MaxGroup() {
			return fmt.Errorf("%s: groups of %d work items are more than the %d that %s can have of kernel %s", x.file, g, k.MaxGroup(), x.dev.Name(), pass.Entry)
		}
	}
	if err := x.readParams(); err != nil {
		return err
	}
	return x.feed()
}

func product(sizes []int) int {
	p := 1
	for _, n := range sizes {
		p *= n
	}
	return p
}

// readParams takes the params from the environment of the run.
func (x *recipe) readParams() (err error) {
	x.params, err = Params(x.cl.Params, x.run.Env)
	return err
}

// Params takes the values of params from the environment of a run, each as the
// bytes of its type.
func Params(params []jobfile.CLParam, env []string) (map[string][]byte, error) {
	given := map[string]string{}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		given[k] = v
	}
	out := map[string][]byte{}
	for _, p := range params {
		s, ok := given["QUERN_"+strings.ToUpper(p.Name)]
		if !ok || s == "" {
			s = p.Default
		}
		v, err := p.Encode(s)
		if err != nil {
			return nil, err
		}
		out[p.Name] = v
	}
	return out, nil
}

// feed reads the input and runs the passes over it.
func (x *recipe) feed() error {
	for _, in := range x.cl.Input {
		if in.Stream {
			return x.stream(in)
		}
		if err := x.array(in.Name); err != nil {
			return err
		}
	}
	var one [1]byte
	if n, err := x.in.Read(one[:]); n > 0 || err == nil {
		return errors.New("there is something after the last array of the input")
	} else if err != io.EOF {
		return err
	}
	if err := x.piece(); err != nil {
		return err
	}
	return x.finish()
}

// array reads one array: see package kernels.
func (x *recipe) array(name string) error {
	var head [12]byte
	if err := full(x.in, head[:]); err != nil {
		return ended(err, "the input ends before the array of %s", name)
	}
	if string(head[:4]) != "QNA1" {
		return fmt.Errorf("the array of %s does not begin with QNA1", name)
	}
	rows, cols := int64(binary.LittleEndian.Uint32(head[4:])), int64(binary.LittleEndian.Uint32(head[8:]))
	if rows != 0 && cols > math.MaxInt64/8/rows {
		return fmt.Errorf("out of memory: the array of %s has %d rows of %d numbers", name, rows, cols)
	}
	x.dims[name+".rows"], x.dims[name+".cols"] = rows, cols
	b, err := x.buffer(name, "float", rows*cols)
	if err != nil {
		return err
	}
	data := make([]byte, b.bytes())
	if err := full(x.in, data); err != nil {
		return ended(err, "the input ends in the array of %s", name)
	}
	return b.mem.Write(data)
}

// ended words a short read; other errors are told as they are.
func ended(err error, format string, args ...any) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf(format, args...)
	}
	return err
}

func full(in io.Reader, p []byte) error {
	_, err := io.ReadFull(in, p)
	return err
}

// stream runs the passes over piece after piece of what is left of the input.
func (x *recipe) stream(in jobfile.CLInput) error {
	size := jobfile.TypeSize[in.Type]
	// Leave room for what the recipe makes of a piece.
	if most := x.run.Memory / 4 / int64(size); int64(in.Chunk) > most {
		in.Chunk = int(max(most, 1))
	}
	data := make([]byte, in.Chunk*size)
	for {
		n, err := io.ReadFull(x.in, data)
		last := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !last {
			return err
		}
		if n%size != 0 {
			return fmt.Errorf("the input is not a whole number of %s: %d bytes are left over", in.Type, n%size)
		}
		x.dims[in.Name+".n"] = int64(n / size)
		if n > 0 {
			b, err := x.buffer(in.Name, in.Type, int64(n/size))
			if err != nil {
				return err
			}
			if err := b.mem.Write(data[:n]); err != nil {
				return err
			}
			if err := x.piece(); err != nil {
				return err
			}
		}
		if last {
			break
		}
	}
	return x.finish()
}

// buffer makes the buffer called name, or reuses it if it is large enough. New
// memory is zero: what others left there is none of this kernel's business.
func (x *recipe) buffer(name, typ string, n int64) (*buffer, error) {
	b := x.buffers[name]
	size := n * int64(jobfile.TypeSize[typ])
	if b != nil && size <= int64(b.mem.Size()) {
		b.n = n
		return b, nil
	}
	if b != nil {
		_ = b.mem.Close()
		delete(x.buffers, name)
	}
	used := size
	for _, o := range x.buffers {
		used += int64(o.mem.Size())
	}
	switch {
	case size < 0 || used > x.run.Memory:
		return nil, fmt.Errorf("out of memory: buffer %s makes it %d bytes on the device, memory: in the job file allows %d", name, used, x.run.Memory)
	case size > x.dev.MaxAlloc():
		return nil, fmt.Errorf("out of memory: buffer %s has %d bytes, a buffer on %s at most %d", name, size, x.dev.Name(), x.dev.MaxAlloc())
	}
	mem, err := x.dev.Buffer(max(int(size), 1))
	if err != nil {
		return nil, fmt.Errorf("buffer %s of %d bytes: %w", name, size, err)
	}
	x.peak = max(x.peak, used)
	b = &buffer{mem: mem, typ: typ, n: n}
	x.buffers[name] = b
	return b, mem.Zero()
}

// piece runs all passes over what the input buffers hold now.
func (x *recipe) piece() error {
	for _, e := range x.cl.Equal {
		a, err := e[0].Eval(x.dims)
		if err != nil {
			return err
		}
		b, err := e[1].Eval(x.dims)
		if err != nil {
			return err
		}
		if a != b {
			return fmt.Errorf("the input does not fit together: %s is %d and %s is %d", e[0], a, e[1], b)
		}
	}
	for _, c := range x.cl.Buffers {
		n, err := c.Count.Eval(x.dims)
		if err != nil {
			return fmt.Errorf("buffer %s: %w", c.Name, err)
		}
		if n > math.MaxInt64/8 {
			return fmt.Errorf("out of memory: buffer %s has %d elements", c.Name, n)
		}
		b, err := x.buffer(c.Name, c.Type, n)
		if err == nil && c.Sum {
			err = b.mem.Zero()
		}
		if err != nil {
			return err
		}
	}
	for i, pass := range x.cl.Run {
		if err := x.pass(pass, x.passes[i]); err != nil {
			return fmt.Errorf("kernel %s: %w", pass.Entry, err)
		}
	}
	for _, c := range x.cl.Buffers {
		if c.Sum {
			if err := x.buffers[c.Name].add(); err != nil {
				return fmt.Errorf("buffer %s: %w", c.Name, err)
			}
		}
	}
	if x.cl.Output.Form == "raw" {
		return x.write(x.cl.Output.Buffer)
	}
	return nil
}

func (x *recipe) pass(pass jobfile.CLPass, k Kernel) error {
	for i, name := range pass.Args {
		var err error
		if param, ok := strings.CutPrefix(name, "param."); ok {
			err = k.SetScalar(i, x.params[param])
		} else if b := x.buffers[name]; b != nil {
			err = k.SetBuffer(i, b.mem)
		} else {
			n := x.dims[name]
			if n > math.MaxUint32 {
				return fmt.Errorf("%s is %d, more than a uint holds", name, n)
			}
			err = k.SetScalar(i, binary.LittleEndian.AppendUint32(nil, uint32(n)))
		}
		if err != nil {
			return fmt.Errorf("argument %d, %s: %w", i+1, name, err)
		}
	}
	global := make([]int, len(pass.Global))
	for i, e := range pass.Global {
		n, err := e.Eval(x.dims)
		if err != nil {
			return err
		}
		if n == 0 {
			return nil // nothing to do
		}
		if pass.Local != nil {
			l := int64(pass.Local[i])
			n = (n + l - 1) / l * l
		}
		if n < 0 || n > math.MaxUint32 {
			return fmt.Errorf("a global size of %d", n)
		}
		global[i] = int(n)
	}
	took, err := k.Run(global, pass.Local)
	x.device += int64(took)
	return err
}

// add reads a sum back and adds it to those before.
func (b *buffer) add() error {
	data := make([]byte, b.bytes())
	if err := b.mem.Read(data); err != nil {
		return err
	}
	if b.ints == nil && b.sums == nil {
		b.ints, b.sums = make([]int64, b.n), make([]float64, b.n)
	}
	if len(b.ints) != int(b.n) {
		return fmt.Errorf("a sum has as many elements in each piece; here are %d after %d", b.n, len(b.ints))
	}
	for i := range b.ints {
		v := binary.LittleEndian.Uint32(data[4*i:])
		switch b.typ {
		case "float":
			b.sums[i] += float64(math.Float32frombits(v))
		case "int":
			b.ints[i] += int64(int32(v))
		default:
			b.ints[i] += int64(v)
		}
	}
	return nil
}
