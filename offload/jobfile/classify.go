package jobfile

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// Classify is what a model that tells classes does with files: with pictures, and
// with arrays, of which each row is a record.
//
//	onnx:
//	  file: model.onnx
//	  classify: {shape: [3, 224, 224], mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], labels: [cat, dog], softmax: true}
//
// A picture, JPEG or PNG, is turned as its EXIF orientation says and scaled to the
// size that the model takes; then each byte of a colour becomes
// (byte × scale − mean) / std. An array (package kernels) is taken as it is.
//
// For each record the result has the classes with the largest scores, the
// largest first.
type Classify struct {
	// Shape is that of one picture, where the model's input leaves it open: [colours,
	// height, width], or as the layout has it; with [height, width] in gray.
	Shape   []int
	Layout  string    // "nchw", "nhwc"; "": as the shape has it, of which 1 or 3 are colours
	Scale   float64   // default 1/255
	Mean    []float64 // of each colour, or of all; nil: 0
	Std     []float64 // the same; nil: 1
	Fit     string    // "cover", "contain" or "fill"; see package picture
	Labels  []string  // nil: classes have numbers only
	Softmax bool      // scores become probabilities
	Top     int       // classes of each record
	As      string    // "jsonl" or "csv"
	Broken  string    // what becomes of a file that cannot be read: "fail" or "skip"
}

func parseClassify(n *yaml.Node) (*Classify, error) {
	if err := mapping(n, "onnx.classify", "{labels: [cat, dog]}"); err != nil {
		return nil, err
	}
	c := &Classify{Scale: 1. / 255, Fit: "cover", Top: 1, As: "jsonl", Broken: "fail"}
	word := func(field string, to *string, of ...string) func(*yaml.Node) error {
		return func(n *yaml.Node) error { return oneOf(n, "onnx.classify."+field, to, of...) }
	}
	err := fields(n, map[string]func(*yaml.Node) error{
		"shape": func(n *yaml.Node) (err error) {
			c.Shape, err = parseShape(n, "onnx.classify.shape")
			if err == nil && len(c.Shape) != 2 && len(c.Shape) != 3 {
				err = Errorf(n.Line, "onnx.classify.shape must have 2 or 3 numbers, such as [3, 224, 224]")
			}
			return err
		},
		"layout": word("layout", &c.Layout, "nchw", "nhwc"),
		"fit":    word("fit", &c.Fit, "cover", "contain", "fill"),
		"as":     word("as", &c.As, "jsonl", "csv"),
		"broken": word("broken", &c.Broken, "fail", "skip"),
		"scale": func(n *yaml.Node) (err error) {
			c.Scale, err = finite(n, "onnx.classify.scale")
			return err
		},
		"mean": func(n *yaml.Node) (err error) {
			c.Mean, err = perColour(n, "onnx.classify.mean")
			return err
		},
		"std": func(n *yaml.Node) (err error) {
			c.Std, err = perColour(n, "onnx.classify.std")
			if err == nil && slices.Contains(c.Std, 0) {
				err = Errorf(n.Line, "onnx.classify.std must not be 0")
			}
			return err
		},
		"labels": func(n *yaml.Node) (err error) {
			c.Labels, err = parseLabels(n, "onnx.classify.labels")
			return err
		},
		"softmax": func(n *yaml.Node) error {
			if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
				return Errorf(n.Line, "onnx.classify.softmax must be true or false, not %s", describe(n))
			}
			c.Softmax = n.Value == "true"
			return nil
		},
		"top": func(n *yaml.Node) (err error) {
			c.Top, err = whole(n, "onnx.classify.top", 1, maxLabels)
			return err
		},
	})
	return c, err
}

// finite reads a number.
func finite(n *yaml.Node, field string) (float64, error) {
	v, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || err != nil || math.IsNaN(v) || math.Abs(v) > math.MaxFloat32 {
		return 0, Errorf(n.Line, "%s must be a number, not %s", field, describe(n))
	}
	return v, nil
}

// perColour reads a number, or one or three in a list.
func perColour(n *yaml.Node, field string) (out []float64, err error) {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	if len(nodes) != 1 && len(nodes) != 3 {
		return nil, Errorf(n.Line, "%s must be one number, or three of them", field)
	}
	for _, c := range nodes {
		v, err := finite(c, field)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// parseLabels reads the names of classes.
func parseLabels(n *yaml.Node, field string) ([]string, error) {
	names, err := words(n, field, maxLabels)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(names, func(s string) bool { return s == "" || strings.ContainsFunc(s, unicode.IsControl) }); i >= 0 {
		return nil, Errorf(n.Line, "%s: %q cannot be a label", field, shorten(names[i]))
	}
	return names, nil
}

// parseShape reads the sizes of a record.
func parseShape(n *yaml.Node, field string) (out []int, err error) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 || len(n.Content) > maxDims {
		return nil, Errorf(n.Line, "%s must be a list of 1 to %d numbers such as [8, 8], not %s", field, maxDims, describe(n))
	}
	size := 1
	for _, c := range n.Content {
		d, err := whole(c, field, 1, maxRecord)
		if err != nil {
			return nil, err
		}
		if size *= d; size > maxRecord {
			return nil, Errorf(c.Line, "%s: a record of more than %d elements", field, maxRecord)
		}
		out = append(out, d)
	}
	return out, nil
}
