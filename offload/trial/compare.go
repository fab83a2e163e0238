package trial

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"quernfs/offload/jobfile"
)

// Same says, as a nil error, that got is what want is under the rule c; else
// the error tells the first difference.
func Same(c jobfile.Compare, want, got []byte) error {
	if len(want) != len(got) {
		return fmt.Errorf("the result has %d bytes instead of %d", len(got), len(want))
	}
	switch c.As {
	case "float32":
		return sameFloats(c.Tolerance, want, got)
	case "array":
		for at := 0; at < len(want); {
			if len(want)-at < 12 || string(want[at:at+4]) != "QNA1" {
				return fmt.Errorf("the reference holds no array at byte %d", at)
			}
			if !bytes.Equal(want[at:at+12], got[at:at+12]) {
				return fmt.Errorf("the array at byte %d has another shape", at)
			}
			n := uint64(binary.LittleEndian.Uint32(want[at+4:])) * uint64(binary.LittleEndian.Uint32(want[at+8:]))
			at += 12
			if n > uint64(len(want)-at)/4 {
				return fmt.Errorf("the array before byte %d of the reference is cut short", at)
			}
			end := at + int(n)*4
			if err := sameFloats(c.Tolerance, want[at:end], got[at:end]); err != nil {
				return err
			}
			at = end
		}
		return nil
	}
	for i := range want {
		if want[i] != got[i] {
			return fmt.Errorf("the result differs at byte %d", i)
		}
	}
	return nil
}

// sameFloats: what is no number is the same as what is no number.
func sameFloats(tolerance float64, want, got []byte) error {
	if len(want)%4 != 0 {
		return fmt.Errorf("the reference is not a whole number of float32")
	}
	for i := 0; i < len(want); i += 4 {
		w := float64(math.Float32frombits(binary.LittleEndian.Uint32(want[i:])))
		g := float64(math.Float32frombits(binary.LittleEndian.Uint32(got[i:])))
		if w == g || math.IsNaN(w) && math.IsNaN(g) {
			continue
		}
		if !(math.Abs(w-g) <= tolerance*max(math.Abs(w), 1)) || math.IsInf(w, 0) {
			return fmt.Errorf("number %d is %g instead of %g", i/4, g, w)
		}
	}
	return nil
}
