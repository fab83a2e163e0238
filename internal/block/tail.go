package block

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
)

// The end of a leaf can be verified without the rest of it: SHA-256 works
// through its input 64 bytes at a time, and between two of these its state is
// 32 bytes. From the state before the tail, and the tail, follows the digest of
// the leaf. To find another state and tail with the same digest is as hard as to
// find another leaf (a preimage of the compression function; FIPS 180-4, 6.2).

// tailUnit is what SHA-256 takes at once.
const tailUnit = sha256.BlockSize

// TailStart is where the tail of at least n bytes of a leaf of length bytes
// begins: on a multiple of 64 bytes.
func TailStart(length, n int) int { return max(0, length-n) / tailUnit * tailUnit }

// The form in which crypto/sha256 keeps its state: a mark, the state, the
// unfinished 64 bytes, the length so far.
const stateMark = "sha\x03"

var errTail = errors.New("a tail begins on a multiple of 64 bytes")

// TailState returns the state of SHA-256 after head, whose length is a multiple
// of 64.
func TailState(head []byte) ([]byte, error) {
	if len(head)%tailUnit != 0 {
		return nil, errTail
	}
	h := sha256.New()
	h.Write(head)
	b, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, err
	}
	return b[len(stateMark) : len(stateMark)+HashSize], nil
}

// VerifyTail says whether tail is the end of leaf i, which has length bytes, by
// the state of the digest before it.
func VerifyTail(leaves []byte, i, length int, state, tail []byte) bool {
	head := length - len(tail)
	if i < 0 || (i+1)*HashSize > len(leaves) || head < 0 || head%tailUnit != 0 || len(state) != HashSize {
		return false
	}
	b := make([]byte, 0, 128)
	b = append(b, stateMark...)
	b = append(b, state...)
	b = append(b, make([]byte, tailUnit)...)
	b = binary.BigEndian.AppendUint64(b, uint64(head))
	h := sha256.New()
	if h.(encoding.BinaryUnmarshaler).UnmarshalBinary(b) != nil {
		return false
	}
	h.Write(tail)
	return bytes.Equal(h.Sum(nil), leaves[i*HashSize:(i+1)*HashSize])
}
