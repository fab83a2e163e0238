//go:build linux && (amd64 || arm64)

package clworker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"quernfs/offload/opencl"
)

// known computes with integers and floats, in local memory and with a barrier,
// what every device must get right: a fixed mix of the number of each work
// item, and the sum over each group of 64.
const known = `
#pragma OPENCL FP_CONTRACT OFF
__kernel void known(__global uint *mixed, __global float *sums) {
	__local float part[64];
	uint i = get_global_id(0), l = get_local_id(0);
	uint x = i * 2654435761u;
	x ^= x >> 15;
	x *= 2246822519u;
	x ^= x >> 13;
	mixed[i] = x;
	part[l] = (float)(i & 1023u) * 0.5f;
	barrier(CLK_LOCAL_MEM_FENCE);
	for (uint half_ = 32; half_ > 0; half_ >>= 1) {
		if (l < half_)
			part[l] += part[l + half_];
		barrier(CLK_LOCAL_MEM_FENCE);
	}
	if (l == 0)
		sums[i / 64] = part[0];
}`

// knownItems is how many work items compute the known answer.
const knownItems = 4096

// knownAnswer has the device compute what this process computes, too.
func (m *machine) knownAnswer() error {
	wantMixed, wantSums := make([]byte, 4*knownItems), make([]byte, 4*knownItems/64)
	for g := range knownItems / 64 {
		var sum float32
		for l := range 64 {
			i := uint32(g*64 + l)
			x := i * 2654435761
			x ^= x >> 15
			x *= 2246822519
			x ^= x >> 13
			binary.LittleEndian.PutUint32(wantMixed[4*i:], x)
			sum += float32(i&1023) * 0.5 // exact in any order
		}
		binary.LittleEndian.PutUint32(wantSums[4*g:], math.Float32bits(sum))
	}
	// Not from the cache: the compiler is a part of what is proved.
	p, err := m.ctx.Build(known, options)
	if err != nil {
		return err
	}
	defer p.Close()
	k, err := p.Kernel("known")
	if err != nil {
		return err
	}
	defer k.Close()
	mixed, err := m.ctx.Buffer(len(wantMixed))
	if err != nil {
		return err
	}
	defer mixed.Close()
	sums, err := m.ctx.Buffer(len(wantSums))
	if err != nil {
		return err
	}
	defer sums.Close()
	if err := errors.Join(mixed.Zero(), sums.Zero(), k.SetBuffer(0, mixed), k.SetBuffer(1, sums)); err != nil {
		return err
	}
	if _, err := m.ctx.Run(k, []int{knownItems}, []int{64}); err != nil {
		return err
	}
	for _, x := range []struct {
		what string
		b    *opencl.Buffer
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
