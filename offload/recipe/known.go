package recipe

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

//go:generate go run ../kernels/genptx known.cl

// The kernel of Prove in OpenCL C, and what was made of it for CUDA.
var (
	//go:embed known.cl
	KnownSource []byte
	//go:embed known.ptx
	KnownPTX []byte
)

// knownItems is how many work items compute the known answer.
const knownItems = 4096

// Prove has a device compute with file, which is KnownSource or KnownPTX, what this process computes, too.
func Prove(d Device, file []byte) error {
	wantMixed, wantSums := knownAnswer()
	p, err := d.Program(file)
	if err != nil {
		return err
	}
	k, err := p.Kernel("known")
	if err != nil {
		return err
	}
	defer k.Close()
	mixed, err := d.Buffer(len(wantMixed))
	if err != nil {
		return err
	}
	defer mixed.Close()
	sums, err := d.Buffer(len(wantSums))
	if err != nil {
		return err
	}
	defer sums.Close()
	if err := errors.Join(mixed.Zero(), sums.Zero(), k.SetBuffer(0, mixed), k.SetBuffer(1, sums)); err != nil {
		return err
	}
	if _, err := k.Run([]int{knownItems}, []int{64}); err != nil {
		return err
	}
	for _, x := range []struct {
		what string
		b    Buffer
		want []byte
	}{{"integers", mixed, wantMixed}, {"sums of floats", sums, wantSums}} {
		got := make([]byte, len(x.want))
		if err := x.b.Read(got); err != nil {
			return err
		}
		if !bytes.Equal(got, x.want) {
			return fmt.Errorf("it computes the known answer wrongly: %s", x.what)
		}
	}
	return nil
}

// knownAnswer is what known.cl must get.
func knownAnswer() (mixed, sums []byte) {
	for g := range knownItems / 64 {
		var sum float32
		for l := range 64 {
			i := uint32(g*64 + l)
			x := i * 2654435761
			x ^= x >> 15
			x *= 2246822519
			x ^= x >> 13
			mixed = binary.LittleEndian.AppendUint32(mixed, x)
			sum += float32(i&1023) * 0.5 // exact in any order
		}
		sums = binary.LittleEndian.AppendUint32(sums, math.Float32bits(sum))
	}
	return mixed, sums
}
