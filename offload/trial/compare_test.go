package trial

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"quernfs/offload/jobfile"
)

func f32(values ...float64) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v)))
	}
	return b
}

func arr(rows, cols uint32, values ...float64) []byte {
	b := binary.LittleEndian.AppendUint32([]byte("QNA1"), rows)
	return append(binary.LittleEndian.AppendUint32(b, cols), f32(values...)...)
}

func TestSame(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for name, c := range map[string]struct {
		as        string
		tolerance float64
		want, got []byte
		err       string // "": they are the same
	}{
		"bytes":           {"bytes", 0, []byte("abc"), []byte("abc"), ""},
		"a byte":          {"bytes", 0, []byte("abc"), []byte("abd"), "byte 2"},
		"shorter":         {"bytes", 0, []byte("abc"), []byte("ab"), "2 bytes instead of 3"},
		"floats":          {"float32", 0, f32(1, nan, inf, -0.5), f32(1, nan, inf, -0.5), ""},
		"zeros":           {"float32", 0, f32(0), f32(math.Copysign(0, -1)), ""},
		"near":            {"float32", 1e-3, f32(1000), f32(1000.5), ""},
		"near 0":          {"float32", 1e-3, f32(0), f32(0.0005), ""},
		"far":             {"float32", 1e-3, f32(1000), f32(1002), "number 0 is 1002 instead of 1000"},
		"exact":           {"float32", 0, f32(1, 2), f32(1, 2.0000002), "number 1"},
		"nan for 1":       {"float32", 1, f32(1), f32(nan), "number 0"},
		"1 for nan":       {"float32", 1, f32(nan), f32(1), "number 0"},
		"inf":             {"float32", 1, f32(inf), f32(1), "number 0"},
		"inf for 1":       {"float32", 1, f32(1), f32(inf), "number 0"},
		"half a float":    {"float32", 0, []byte{1, 2}, []byte{1, 2}, "whole number"},
		"array":           {"array", 0, arr(1, 2, 3, 4), arr(1, 2, 3, 4), ""},
		"arrays":          {"array", 0, append(arr(1, 1, 3), arr(0, 7)...), append(arr(1, 1, 3), arr(0, 7)...), ""},
		"shape":           {"array", 1, arr(1, 2, 3, 4), arr(2, 1, 3, 4), "another shape"},
		"element":         {"array", 1e-6, arr(1, 2, 3, 4), arr(1, 2, 3, 5), "number 1 is 5 instead of 4"},
		"second array":    {"array", 0, append(arr(1, 1, 3), arr(1, 1, 4)...), append(arr(1, 1, 3), arr(1, 1, 5)...), "is 5"},
		"cut":             {"array", 0, arr(9, 9, 1), arr(9, 9, 1), "cut short"},
		"no array":        {"array", 0, []byte("hello, world"), []byte("hello, world"), "no array"},
		"huge dimensions": {"array", 0, arr(math.MaxUint32, math.MaxUint32), arr(math.MaxUint32, math.MaxUint32), "cut short"},
	} {
		err := Same(jobfile.Compare{As: c.as, Tolerance: c.tolerance}, c.want, c.got)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
	}
}

func FuzzSame(f *testing.F) {
	f.Add("array", arr(1, 2, 3, 4), arr(1, 2, 3, 4))
	f.Add("float32", f32(1), f32(2))
	f.Fuzz(func(t *testing.T, as string, want, got []byte) {
		c := jobfile.Compare{As: as, Tolerance: 1e-3}
		_ = Same(c, want, got)
		if err := Same(jobfile.Compare{As: "bytes"}, want, want); err != nil {
			t.Fatal("not the same as itself: ", err)
		}
	})
}
