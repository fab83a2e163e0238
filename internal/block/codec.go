package block

import (
	"sync"

	"github.com/klauspost/reedsolomon"

	"quernfs/internal/wire"
)

// Codec encodes and decodes blocks of one k+m. It is stateless, shared, and
// may be used concurrently.
type Codec struct {
	k, m int
	rs   reedsolomon.Encoder // nil with m = 0 or k = 1
}

var codecs sync.Map // [2]int{k, m} → *Codec

// NewCodec returns the codec of k+m, made once a process.
func NewCodec(k, m int) (*Codec, error) {
	if c, ok := codecs.Load([2]int{k, m}); ok {
		return c.(*Codec), nil
	}
	if err := (Policy{K: k, M: m}).Validate(); err != nil {
		return nil, err
	}
	c := &Codec{k: k, m: m}
	if k > 1 && m > 0 {
		// A block is encoded in a tenth of a millisecond; spreading that over
		// goroutines costs more than it gives, and blocks run in parallel anyway.
		rs, err := reedsolomon.New(k, m, reedsolomon.WithMaxGoroutines(1))
		if err != nil {
			return nil, wire.Errorf(wire.Internal, "codec", "", "%w", err)
		}
		c.rs = rs
	}
	got, _ := codecs.LoadOrStore([2]int{k, m}, c)
	return got.(*Codec), nil
}

// K is the number of data shards.
func (c *Codec) K() int { return c.k }

// M is the number of parity shards.
func (c *Codec) M() int { return c.m }

// whole is the number of data shards that lie entirely within length bytes.
func (c *Codec) whole(length int) int {
	return length / ShardLength(length, c.k)
}

// BufferSize is how many bytes Encode needs beside the data: the padded data
// shards and the parity shards.
func (c *Codec) BufferSize(length int) int {
	if c.k == 1 {
		return 0
	}
	return (c.k - c.whole(length) + c.m) * ShardLength(length, c.k)
}

// Encode cuts data (1 .. MaxBlockSize bytes) into k+m shards. Whole data shards are
// slices of data; the padded ones and the parity lie in buf, which is used if
// its capacity reaches BufferSize, else allocated. With k = 1 all shards are
// data itself.
func (c *Codec) Encode(data, buf []byte) ([][]byte, error) {
	shards, err := c.split(data, buf, c.m)
	if err != nil || c.rs == nil {
		return shards, err
	}
	if err := c.rs.Encode(shards); err != nil {
		return nil, wire.Errorf(wire.Internal, "encode", "", "%w", err)
	}
	return shards, nil
}

// Split returns the k data shards of data without computing parity. Whole
// shards are slices of data, padded ones are copies.
func (c *Codec) Split(data []byte) ([][]byte, error) {
	return c.split(data, nil, 0)
}

func (c *Codec) split(data, buf []byte, parity int) ([][]byte, error) {
	if len(data) < 1 || len(data) > MaxBlockSize {
		return nil, wire.Errorf(wire.Invalid, "encode", "", "a block of %d bytes: must be 1 to %d", len(data), MaxBlockSize)
	}
	shards := make([][]byte, c.k+parity)
	if c.k == 1 {
		for i := range shards {
			shards[i] = data
		}
		return shards, nil
	}
	length, whole := ShardLength(len(data), c.k), c.whole(len(data))
	need := (c.k - whole + parity) * length
	if cap(buf) < need {
		buf = make([]byte, need)
	}
	buf = buf[:need]
	for i := range shards {
		switch {
		case i < whole:
			shards[i] = data[i*length : (i+1)*length : (i+1)*length]
		default:
			shards[i], buf = buf[:length:length], buf[length:]
			if i < c.k {
				n := copy(shards[i], data[min(i*length, len(data)):])
				clear(shards[i][n:])
			}
		}
	}
	return shards, nil
}

// Reconstruct fills in the missing ones (length 0) of the k+m shards, or of
// equal ranges of them, from any k that are there. A missing shard with enough
// capacity is decoded in place. With fewer than k it fails with
// wire.Unavailable. What it gets it believes: verify first.
func (c *Codec) Reconstruct(shards [][]byte) error {
	return c.reconstruct(shards, nil)
}

// ReconstructSome is Reconstruct for the shards with want[i] only (k+m long).
func (c *Codec) ReconstructSome(shards [][]byte, want []bool) error {
	return c.reconstruct(shards, want)
}

func (c *Codec) reconstruct(shards [][]byte, want []bool) error {
	if len(shards) != c.k+c.m || (want != nil && len(want) != len(shards)) {
		return wire.Errorf(wire.Invalid, "decode", "", "%d shards given for %d+%d", len(shards), c.k, c.m)
	}
	have, from, size := 0, -1, 0
	for i, s := range shards {
		if len(s) == 0 {
			continue
		}
		if size != 0 && len(s) != size {
			return wire.Errorf(wire.Invalid, "decode", "", "shards of %d and %d bytes", size, len(s))
		}
		have, from, size = have+1, i, len(s)
	}
	if have < c.k {
		return wire.Errorf(wire.Unavailable, "decode", "", "%d of the %d shards needed", have, c.k)
	}
	if c.k == 1 {
		for i, s := range shards {
			if len(s) == 0 && (want == nil || want[i]) {
				shards[i] = append(s[:0], shards[from]...)
			}
		}
		return nil
	}
	if c.rs == nil {
		return nil // m = 0 and all k are there
	}
	var err error
	if want == nil {
		err = c.rs.Reconstruct(shards)
	} else {
		err = c.rs.ReconstructSome(shards, want)
	}
	if err != nil {
		return wire.Errorf(wire.Internal, "decode", "", "%w", err)
	}
	return nil
}
