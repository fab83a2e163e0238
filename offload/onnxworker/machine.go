//go:build linux && cgo

package onnxworker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	ort "github.com/yalue/onnxruntime_go"

	"quernfs/offload/jobfile"
	"quernfs/offload/worker"
)

// machine runs models. One goroutine uses it.
type machine struct {
	ready []*model // the most recently used last
}

// model is one that is loaded, for one manifest.
type model struct {
	key     string
	session *ort.DynamicAdvancedSession
	dims    []int64 // of its input; what is below 1 may be anything
}

// keep is how many models stay in memory.
const keep = 4

func (m *machine) close() {
	for _, x := range m.ready {
		_ = x.session.Destroy()
	}
	m.ready = nil
}

// run carries out one run: the function that worker.ServeFiles calls.
func (m *machine) run(r *worker.Run, files fs.FS, stdin io.Reader, stdout, stderr io.Writer) worker.Exit {
	before := worker.CPU()
	exit := worker.Exit{}
	if err := m.do(r, files, stdin, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, err)
		exit.Code = 1
	}
	exit.CPU = worker.CPU() - before
	return exit
}

func (m *machine) do(r *worker.Run, files fs.FS, stdin io.Reader, stdout, stderr io.Writer) error {
	manifest, err := jobfile.ParseKernel(r.Manifest)
	if err != nil {
		return fmt.Errorf("kernel.yaml: %w", err)
	}
	if manifest.ONNX == nil {
		return errors.New("the kernel has no variant for onnx")
	}
	data, err := worker.ReadModule(r.Module, r.Digest)
	if err != nil {
		return err
	}
	x, err := m.load(manifest.ONNX, data, string(r.Digest)+string(r.Manifest))
	if err != nil || r.Prepare {
		return err
	}
	if manifest.ONNX.Classify != nil {
		return x.classify(manifest.ONNX, r.Memory, files, stdout, stderr)
	}
	if need := manifest.ONNX.Memory(); need > r.Memory {
		return fmt.Errorf("out of memory: %d records at once need %d bytes (onnx.batch in kernel.yaml, memory in the job file)", manifest.ONNX.Batch, need)
	}
	return x.infer(manifest.ONNX, stdin, stdout)
}

// load returns the model, from memory or made of its file.
func (m *machine) load(o *jobfile.ONNX, data []byte, key string) (*model, error) {
	for i, x := range m.ready {
		if x.key == key {
			m.ready = append(append(m.ready[:i:i], m.ready[i+1:]...), x)
			return x, nil
		}
	}
	ins, outs, err := ort.GetInputOutputInfoWithONNXData(data)
	if err != nil {
		return nil, fmt.Errorf("%s is no model that onnxruntime %s takes: %w", o.File, ort.GetVersion(), err)
	}
	in, err := pick(ins, o.Input.Name, "input")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.File, err)
	}
	if o.Input.Name == "" && len(ins) > 1 {
		return nil, fmt.Errorf("%s has %d inputs: name one of them in onnx.input", o.File, len(ins))
	}
	out, err := pick(outs, o.Output.Name, "output")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.File, err)
	}
	if o.Classify == nil {
		if err := fits(in, o.Input.Shape); err != nil {
			return nil, fmt.Errorf("%s: %w", o.File, err)
		}
	}
	options, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer func() { _ = options.Destroy() }()
	// A task has one slot of its host, that is one processor.
	if err := errors.Join(options.SetIntraOpNumThreads(1), options.SetInterOpNumThreads(1)); err != nil {
		return nil, err
	}
	s, err := ort.NewDynamicAdvancedSessionWithONNXData(data, []string{in.Name}, []string{out.Name}, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.File, err)
	}
	x := &model{key, s, in.Dimensions}
	if m.ready = append(m.ready, x); len(m.ready) > keep {
		_ = m.ready[0].session.Destroy()
		m.ready = m.ready[1:]
	}
	return x, nil
}

// pick finds the tensor of a name, or the first one.
func pick(list []ort.InputOutputInfo, name, what string) (ort.InputOutputInfo, error) {
	i := slices.IndexFunc(list, func(x ort.InputOutputInfo) bool { return name == "" || x.Name == name })
	switch {
	case i < 0 && name == "":
		return ort.InputOutputInfo{}, fmt.Errorf("the model has no %s", what)
	case i < 0:
		return ort.InputOutputInfo{}, fmt.Errorf("the model has no %s %q", what, name)
	case list[i].OrtValueType != ort.ONNXTypeTensor || list[i].DataType != ort.TensorElementDataTypeFloat:
		return ort.InputOutputInfo{}, fmt.Errorf("the %s %q of the model is no tensor of float32", what, list[i].Name)
	}
	return list[i], nil
}

// fits compares the model's shape, in which -1 is any number, with [records, …shape].
func fits(in ort.InputOutputInfo, shape []int) error {
	ok := len(in.Dimensions) == len(shape)+1
	for i := 0; ok && i < len(shape); i++ {
		d := in.Dimensions[i+1]
		ok = d < 0 || d == int64(shape[i])
	}
	if !ok {
		return fmt.Errorf("the model's input %q has the shape %v, onnx.input.shape says %v for each record", in.Name, in.Dimensions, shape)
	}
	return nil
}

// infer has the model compute all records of the input.
func (x *model) infer(o *jobfile.ONNX, in io.Reader, out io.Writer) error {
	size, elements := o.Input.RecordSize(), o.Input.Elements()
	buf := make([]byte, o.Batch*size)
	values := make([]float32, o.Batch*elements)
	w := writer{out: out, output: &o.Output}
	for first := 0; ; {
		n, err := io.ReadFull(in, buf)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		if n%size != 0 {
			return fmt.Errorf("the input ends within record %d: %d bytes of %d", first+n/size, n%size, size)
		}
		if records := n / size; records > 0 {
			decode(&o.Input, buf[:n], values)
			if err := x.batch(&w, o.Input.Shape, values[:records*elements], first, records); err != nil {
				return err
			}
			first += records
		}
		if last {
			return nil
		}
	}
}

// decode makes floats of records.
func decode(in *jobfile.ONNXInput, b []byte, to []float32) {
	scale := float32(in.Scale)
	if in.Type == "uint8" {
		for i, v := range b {
			to[i] = float32(v) * scale
		}
		return
	}
	for i := range len(b) / 4 {
		to[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])) * scale
	}
}

// batch has the model compute records, the first of which has the number first.
func (x *model) batch(w *writer, shape []int, values []float32, first, records int) error {
	err := x.compute(shape, values, records, func(out []float32) error { return w.write(out, first, records) })
	if err != nil {
		return fmt.Errorf("records %d to %d: %w", first, first+records-1, err)
	}
	return nil
}

// compute has the model compute records of this shape. use must not keep what it
// is given.
func (x *model) compute(shape []int, values []float32, records int, use func([]float32) error) error {
	dims := ort.NewShape(int64(records))
	for _, d := range shape {
		dims = append(dims, int64(d))
	}
	in, err := ort.NewTensor(dims, values)
	if err != nil {
		return err
	}
	defer func() { _ = in.Destroy() }()
	outs := []ort.Value{nil}
	if err := x.session.Run([]ort.Value{in}, outs); err != nil {
		return err
	}
	defer func() { _ = outs[0].Destroy() }()
	out, ok := outs[0].(*ort.Tensor[float32])
	if !ok {
		return errors.New("the model's output is no tensor of float32")
	}
	return use(out.GetData())
}

// writer turns output tensors into bytes.
type writer struct {
	out    io.Writer
	output *jobfile.ONNXOutput
	buf    []byte
}

func (w *writer) write(values []float32, first, records int) error {
	if len(values)%records != 0 {
		return fmt.Errorf("the model gives %d numbers for %d records", len(values), records)
	}
	w.buf = w.buf[:0]
	if !w.output.Labels {
		for _, v := range values {
			w.buf = binary.LittleEndian.AppendUint32(w.buf, math.Float32bits(v))
		}
		_, err := w.out.Write(w.buf)
		return err
	}
	each := len(values) / records
	if each == 0 {
		return errors.New("the model gives no number for a record")
	}
	for i := range records {
		scores := values[i*each : (i+1)*each]
		best := 0
		for k, v := range scores {
			if v > scores[best] || math.IsNaN(float64(scores[best])) {
				best = k
			}
		}
		label := fmt.Sprint(best)
		if w.output.Names != nil {
			if best >= len(w.output.Names) {
				return fmt.Errorf("the model gives %d scores, there are %d labels", each, len(w.output.Names))
			}
			label = w.output.Names[best]
		}
		w.buf = fmt.Appendf(w.buf, "%d %s %.6g\n", first+i, label, scores[best])
	}
	_, err := w.out.Write(w.buf)
	return err
}
