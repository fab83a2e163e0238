//go:build linux && cgo

package onnxworker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"

	"quernfs/offload/jobfile"
)

// knownAnswer has the library compute, with a model made here, what this process
// computes, too: y = max(0, x·W), with numbers for which float32 is exact.
func (m *machine) knownAnswer() error {
	const rows, in, out = 37, 16, 8
	weight := func(i, k int) float32 { return float32((i*7+k*3)%11 - 5) }
	w := make([]float32, in*out)
	for i := range in {
		for k := range out {
			w[i*out+k] = weight(i, k)
		}
	}
	var data, want []byte
	for r := range rows {
		for i := range in {
			data = append(data, byte((r*5+i*13)%256))
		}
		for k := range out {
			var sum float32
			for i := range in {
				sum += float32(data[r*in+i]) * weight(i, k)
			}
			want = binary.LittleEndian.AppendUint32(want, math.Float32bits(max(sum, 0)))
		}
	}
	o := &jobfile.ONNX{File: "the known answer", Input: jobfile.ONNXInput{Type: "uint8", Shape: []int{in}, Scale: 1}, Batch: 10}
	x, err := m.load(o, Dense(w, in, out), "known")
	if err != nil {
		return err
	}
	var got bytes.Buffer
	if err := x.infer(o, bytes.NewReader(data), &got); err != nil {
		return err
	}
	if !bytes.Equal(got.Bytes(), want) {
		return errors.New("it computes the known answer wrongly")
	}
	return nil
}
