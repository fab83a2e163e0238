package onnxworker

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Dense makes a model of one layer, y = max(0, x·W), in the ONNX format: x has
// the shape [any, in], W, given row by row, [in, out]. Field numbers are those
// of onnx.proto.
func Dense(w []float32, in, out int) []byte { return layer(w, []int64{0, int64(in)}, out) }

// layer is Dense for an input of these dimensions, of which 0 may be anything;
// all but the first become one.
func layer(w []float32, dims []int64, out int) []byte {
	const float, opset = 1, 13
	node := func(op string, to string, from ...string) []byte {
		var b []byte
		for _, f := range from {
			b = field(b, 1, []byte(f))
		}
		b = field(b, 2, []byte(to))
		return field(b, 4, []byte(op))
	}
	tensor := func(name string, dims ...int64) []byte {
		var shape []byte
		for i, d := range dims {
			if d == 0 {
				shape = field(shape, 1, field(nil, 2, fmt.Appendf(nil, "n%d", i)))
				continue
			}
			shape = field(shape, 1, number(nil, 1, uint64(d)))
		}
		typ := field(number(nil, 1, float), 2, shape)
		return field(field(nil, 1, []byte(name)), 2, field(nil, 1, typ))
	}
	raw := make([]byte, 0, 4*len(w))
	for _, v := range w {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	weights := number(number(nil, 1, uint64(len(w)/out)), 1, uint64(out))
	weights = field(field(number(weights, 2, float), 8, []byte("w")), 9, raw)

	graph := field(nil, 1, node("Flatten", "f", "x"))
	graph = field(graph, 1, node("MatMul", "s", "f", "w"))
	graph = field(graph, 1, node("Relu", "y", "s"))
	graph = field(field(graph, 2, []byte("dense")), 5, weights)
	graph = field(field(graph, 11, tensor("x", dims...)), 12, tensor("y", dims[0], int64(out)))

	model := number(nil, 1, 8) // IR version
	return field(field(model, 7, graph), 8, number(nil, 2, opset))
}

func field(b []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}

func number(b []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}
