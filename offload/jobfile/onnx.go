package jobfile

import "gopkg.in/yaml.v3"

// ONNX is the variant of a kernel that is a model: a file, and how bytes become
// tensors and tensors bytes.
//
//	onnx:
//	  file: model.onnx
//	  input: {name: x, type: uint8, shape: [8, 8], scale: 0.0625}
//	  output: {name: probabilities, as: labels, labels: [cat, dog]}
//	  batch: 256
//
// The standard input is one record after the other, each of as many elements of
// the type (uint8, or float32 little-endian) as the shape has. The model gets a
// tensor of float32 of the shape [records, …shape], at most batch records at
// once, of which each element is its value times scale. Without names the model
// must have one input, and its first output is taken.
//
// The output is raw, the output tensors' float32 one after the other, or labels:
// for each record the line "NUMBER LABEL SCORE", of the largest element of its
// part of the output. With classify the standard input is not read, but the
// files; see Classify.
type ONNX struct {
	File   string
	Input  ONNXInput
	Output ONNXOutput
	// Classify, if it is not nil, takes the place of Input and Output, which then
	// have names at most.
	Classify *Classify
	Batch    int // records; 0: as the size of one has it
}

// ONNXInput says what a record is.
type ONNXInput struct {
	Name  string // "": the only one
	Type  string // "float32" or "uint8"
	Shape []int  // of one record
	Scale float64
}

// ONNXOutput says what is written.
type ONNXOutput struct {
	Name   string // "": the first one
	Labels bool
	Names  []string // of the labels; nil: their numbers
}

// Elements is how many a record has.
func (in *ONNXInput) Elements() int {
	n := 1
	for _, d := range in.Shape {
		n *= d
	}
	return n
}

// RecordSize is the bytes of a record.
func (in *ONNXInput) RecordSize() int {
	if in.Type == "uint8" {
		return in.Elements()
	}
	return 4 * in.Elements()
}

// Memory is what a batch of records takes before the model sees it, in bytes.
func (m *ONNX) Memory() int64 {
	return int64(m.Batch) * int64(m.Input.RecordSize()+4*m.Input.Elements())
}

const (
	maxRecord = 1 << 24 // elements
	maxDims   = 8
	maxBatch  = 1 << 16
	maxLabels = 1 << 16
	maxTensor = 1 << 26 // elements of one batch
)

func parseONNX(n *yaml.Node) (*ONNX, error) {
	if err := mapping(n, "onnx", "{file: model.onnx, input: {shape: [8, 8]}}"); err != nil {
		return nil, err
	}
	m := &ONNX{File: "model.onnx", Input: ONNXInput{Type: "float32", Scale: 1}}
	err := fields(n, map[string]func(*yaml.Node) error{
		"file": func(n *yaml.Node) (err error) {
			m.File, err = bundleFile(n, "onnx.file", ".onnx")
			return err
		},
		"input":  func(n *yaml.Node) error { return m.Input.parse(n) },
		"output": func(n *yaml.Node) error { return m.Output.parse(n) },
		"classify": func(n *yaml.Node) (err error) {
			m.Classify, err = parseClassify(n)
			return err
		},
		"batch": func(n *yaml.Node) (err error) {
			m.Batch, err = whole(n, "onnx.batch", 1, maxBatch)
			return err
		},
	})
	switch {
	case err != nil:
		return nil, err
	case m.Classify != nil && (m.Input.Shape != nil || m.Output.Labels):
		return nil, Errorf(n.Line, "onnx.classify says what goes in and out: onnx.input and onnx.output may have names only")
	case m.Classify != nil:
		return m, nil
	case m.Input.Shape == nil:
		return nil, Errorf(n.Line, "onnx needs an input with a shape, such as input: {shape: [8, 8]}")
	}
	if m.Batch == 0 {
		m.Batch = 256
	}
	if m.Batch > maxTensor/m.Input.Elements() {
		return nil, Errorf(n.Line, "onnx.batch: %d records of %d elements are more than %d at once", m.Batch, m.Input.Elements(), maxTensor)
	}
	return m, nil
}

func (in *ONNXInput) parse(n *yaml.Node) error {
	if err := mapping(n, "onnx.input", "{type: uint8, shape: [8, 8]}"); err != nil {
		return err
	}
	return fields(n, map[string]func(*yaml.Node) error{
		"name": func(n *yaml.Node) (err error) {
			in.Name, err = text(n, "onnx.input.name")
			return err
		},
		"type": func(n *yaml.Node) error { return oneOf(n, "onnx.input.type", &in.Type, "float32", "uint8") },
		"shape": func(n *yaml.Node) (err error) {
			in.Shape, err = parseShape(n, "onnx.input.shape")
			return err
		},
		"scale": func(n *yaml.Node) (err error) {
			in.Scale, err = finite(n, "onnx.input.scale")
			return err
		},
	})
}

func (o *ONNXOutput) parse(n *yaml.Node) error {
	if err := mapping(n, "onnx.output", "{as: labels, labels: [cat, dog]}"); err != nil {
		return err
	}
	as := "raw"
	err := fields(n, map[string]func(*yaml.Node) error{
		"name": func(n *yaml.Node) (err error) {
			o.Name, err = text(n, "onnx.output.name")
			return err
		},
		"as": func(n *yaml.Node) error { return oneOf(n, "onnx.output.as", &as, "raw", "labels") },
		"labels": func(n *yaml.Node) (err error) {
			o.Names, err = parseLabels(n, "onnx.output.labels")
			return err
		},
	})
	o.Labels = as == "labels"
	if err == nil && !o.Labels && o.Names != nil {
		return Errorf(n.Line, "onnx.output.labels needs as: labels")
	}
	return err
}
