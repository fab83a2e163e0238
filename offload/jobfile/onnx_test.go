package jobfile

import (
	"reflect"
	"testing"
)

func TestParseONNX(t *testing.T) {
	k, err := ParseKernel([]byte(`version: 1
onnx:
  file: digits.onnx
  input: {name: x, type: uint8, shape: [8, 8], scale: 0.0625}
  output: {name: p, as: labels, labels: [zero, one]}
  batch: 32
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &ONNX{
		File: "digits.onnx", Batch: 32,
		Input:  ONNXInput{Name: "x", Type: "uint8", Shape: []int{8, 8}, Scale: 0.0625},
		Output: ONNXOutput{Name: "p", Labels: true, Names: []string{"zero", "one"}},
	}
	if !reflect.DeepEqual(k.ONNX, want) {
		t.Errorf("got %+v", k.ONNX)
	}
	if k.Wasm != "" || !reflect.DeepEqual(k.Runtimes(), []string{RuntimeONNX}) || !reflect.DeepEqual(k.Files(), []string{"digits.onnx"}) || k.DeviceFile(RuntimeONNX) != "digits.onnx" {
		t.Errorf("runtimes %v, files %v", k.Runtimes(), k.Files())
	}
	if n := k.ONNX.Input.RecordSize(); n != 64 {
		t.Errorf("a record of %d bytes", n)
	}
	k, err = ParseKernel([]byte("version: 1\nonnx: {input: {shape: [3]}}\n"))
	if err != nil || k.ONNX.File != "model.onnx" || k.ONNX.Batch != 256 || k.ONNX.Input.RecordSize() != 12 || k.ONNX.Memory() != 256*24 {
		t.Errorf("defaults: %+v, %v", k, err)
	}
}

func TestParseONNXErrors(t *testing.T) {
	for in, want := range map[string]string{
		"x":                       `line 2: onnx must be a mapping such as {file: model.onnx, input: {shape: [8, 8]}}, not "x"`,
		"{}":                      "line 2: onnx needs an input with a shape, such as input: {shape: [8, 8]}",
		"{input: {shape: []}}":    "line 2: onnx.input.shape must be a list of 1 to 8 numbers such as [8, 8], not a list",
		"{input: {shape: [0]}}":   `line 2: onnx.input.shape must be a number from 1 to 16777216, not the number 0`,
		"{input: {shape: [x]}}":   `line 2: onnx.input.shape must be a number from 1 to 16777216, not "x"`,
		"{input: {shape: 3}}":     `line 2: onnx.input.shape must be a list of 1 to 8 numbers such as [8, 8], not the number 3`,
		"{file: a.pt}":            `line 2: onnx.file must name a file that ends in .onnx, not "a.pt"`,
		"{input: {type: int}}":    `line 2: onnx.input.type must be one of float32, uint8, not "int"`,
		"{input: {scale: much}}":  `line 2: onnx.input.scale must be a number, not "much"`,
		"{input: {size: 3}}":      `line 2: unknown field "size"`,
		"{output: {as: text}}":    `line 2: onnx.output.as must be one of raw, labels, not "text"`,
		"{output: {labels: [a]}}": "line 2: onnx.output.labels needs as: labels",
		`{output: {as: labels, labels: ["a\nb"]}}`: `line 2: onnx.output.labels: "a\nb" cannot be a label`,
		"{batch: 0}": `line 2: onnx.batch must be a number from 1 to 65536, not the number 0`,
		"{input: {shape: [4096, 4096]}, batch: 5}":                 "line 2: onnx.batch: 5 records of 16777216 elements are more than 67108864 at once",
		"{input: {shape: [4096, 4097]}}":                           "line 2: onnx.input.shape: a record of more than 16777216 elements",
		"{input: {shape: [2, 2, 2, 2, 2, 2, 2, 2, 2]}, batch: 12}": "line 2: onnx.input.shape must be a list of 1 to 8 numbers such as [8, 8], not a list",
	} {
		_, err := ParseKernel([]byte("version: 1\nonnx: " + in + "\n"))
		if err == nil || err.Error() != want {
			t.Errorf("%s\n got %v\nwant %s", in, err, want)
		}
	}
}
