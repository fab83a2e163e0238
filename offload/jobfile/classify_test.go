package jobfile

import (
	"reflect"
	"testing"
)

func TestParseClassify(t *testing.T) {
	k, err := ParseKernel([]byte(`version: 1
onnx:
  batch: 8
  input: {name: x}
  output: {name: p}
  classify: {shape: [224, 224, 3], layout: nhwc, scale: 1, mean: 127.5, std: [1, 2, 3], fit: contain, labels: [cat, dog], softmax: true, top: 2, as: csv, broken: skip}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &ONNX{
		File: "model.onnx", Batch: 8, Input: ONNXInput{Name: "x", Type: "float32", Scale: 1}, Output: ONNXOutput{Name: "p"},
		Classify: &Classify{Shape: []int{224, 224, 3}, Layout: "nhwc", Scale: 1, Mean: []float64{127.5}, Std: []float64{1, 2, 3}, Fit: "contain",
			Labels: []string{"cat", "dog"}, Softmax: true, Top: 2, As: "csv", Broken: "skip"},
	}
	if !reflect.DeepEqual(k.ONNX, want) {
		t.Errorf("got %+v, %+v", k.ONNX, k.ONNX.Classify)
	}
	k, err = ParseKernel([]byte("version: 1\nonnx: {classify: {}}\n"))
	if want := (&Classify{Scale: 1. / 255, Fit: "cover", Top: 1, As: "jsonl", Broken: "fail"}); err != nil || !reflect.DeepEqual(k.ONNX.Classify, want) {
		t.Errorf("defaults: %+v, %v", k, err)
	}
	for in, want := range map[string]string{
		"[]":                      "line 2: onnx.classify must be a mapping such as {labels: [cat, dog]}, not a list",
		"{shape: [3]}":            "line 2: onnx.classify.shape must have 2 or 3 numbers, such as [3, 224, 224]",
		"{shape: 3}":              "line 2: onnx.classify.shape must be a list of 1 to 8 numbers such as [8, 8], not the number 3",
		"{layout: hwc}":           `line 2: onnx.classify.layout must be one of nchw, nhwc, not "hwc"`,
		"{mean: [1, 2]}":          "line 2: onnx.classify.mean must be one number, or three of them",
		"{std: 0}":                "line 2: onnx.classify.std must not be 0",
		"{scale: .nan}":           "line 2: onnx.classify.scale must be a number, not the number .nan",
		"{softmax: 1}":            "line 2: onnx.classify.softmax must be true or false, not the number 1",
		"{top: 0}":                "line 2: onnx.classify.top must be a number from 1 to 65536, not the number 0",
		"{as: json}":              `line 2: onnx.classify.as must be one of jsonl, csv, not "json"`,
		"{lables: [a]}":           `line 2: unknown field "lables"; did you mean "labels"?`,
		"{}, input: {shape: [3]}": "line 2: onnx.classify says what goes in and out: onnx.input and onnx.output may have names only",
	} {
		if _, err := ParseKernel([]byte("version: 1\nonnx: {classify: " + in + "}\n")); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}

func TestParseSplitsAndHeader(t *testing.T) {
	k, err := ParseKernel([]byte("version: 1\nwasm: k.wasm\nheader: 2\nsplits: [file, lines]\n"))
	if err != nil || k.Header != 2 || !reflect.DeepEqual(k.Splits, []Split{SplitFile, SplitLines}) {
		t.Errorf("%+v, %v", k, err)
	}
	for in, want := range map[string]string{
		"splits: file":         `line 2: splits must be a list such as [file, none], not "file"`,
		"splits: []":           "line 2: splits must be a list such as [file, none], not a list",
		"splits: [fil]":        `line 2: splits must be of file, none, shard, block, lines and bytes, not "fil"`,
		"splits: [{}]":         "line 2: splits must be text, not a mapping",
		"header: -1":           "line 2: header must be a number from 0 to 100, not the number -1",
		"header: many":         `line 2: header must be a number from 0 to 100, not "many"`,
		"header: 1\nheader: 2": `line 3: field "header" is here a second time; the first is on line 2`,
	} {
		if _, err := ParseKernel([]byte("version: 1\n" + in + "\n")); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
	s, err := Parse([]byte("version: 1\nkernel: csv\ninputs: /a\nsplit: lines\nheader: 0\n"))
	if err != nil || s.Header != 0 || s.SplitLine != 4 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := Parse([]byte("version: 1\nkernel: csv\ninputs: /a\nparams: {header: 0}\n")); err == nil || err.Error() != "line 4: header is a field of the job file itself, not one of params" {
		t.Error(err)
	}
}
