package block

import (
	"crypto/hmac"
	"encoding/binary"
	"time"

	"github.com/minio/sha256-simd"

	"quernfs/internal/wire"
)

// KeySize is the length of the cluster key.
const KeySize = 32

// CapabilitySize is the length of a capability token.
const CapabilitySize = 8 + 8 + HashSize

func mac(key []byte, tag string, rest []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(tag))
	h.Write(rest)
	return h.Sum(nil)
}

func proofBody(node uint32, block uint64, index, length uint32, root []byte) []byte {
	b := make([]byte, 0, 20+HashSize)
	b = binary.LittleEndian.AppendUint32(b, node)
	b = binary.LittleEndian.AppendUint64(b, block)
	b = binary.LittleEndian.AppendUint32(b, index)
	b = binary.LittleEndian.AppendUint32(b, length)
	return append(b, root...)
}

// Proof is the word of server node that it holds shard index of block, of
// length bytes with this root, durably.
func Proof(key []byte, node uint32, block uint64, index, length uint32, root []byte) []byte {
	return mac(key, "proof", proofBody(node, block, index, length, root))
}

// VerifyProof checks a Proof, in constant time.
func VerifyProof(key []byte, node uint32, block uint64, index, length uint32, root, proof []byte) bool {
	return len(root) == HashSize && hmac.Equal(proof, Proof(key, node, block, index, length, root))
}

// Capability is the right of session to use the chunk servers until expiry
// (whole seconds).
func Capability(key []byte, session uint64, expiry time.Time) []byte {
	b := make([]byte, 0, CapabilitySize)
	b = binary.LittleEndian.AppendUint64(b, session)
	b = binary.LittleEndian.AppendUint64(b, uint64(expiry.Unix()))
	return append(b, mac(key, "cap", b)...)
}

// VerifyCapability returns the session that token was made for, or
// wire.Forbidden when it is malformed, forged or expired.
func VerifyCapability(key, token []byte, now time.Time) (session uint64, err error) {
	if len(token) != CapabilitySize {
		return 0, wire.Errorf(wire.Forbidden, "capability", "", "a capability of %d bytes", len(token))
	}
	if !hmac.Equal(token[16:], mac(key, "cap", token[:16])) {
		return 0, wire.Errorf(wire.Forbidden, "capability", "", "the capability was not made by this cluster")
	}
	session = binary.LittleEndian.Uint64(token)
	if expiry := int64(binary.LittleEndian.Uint64(token[8:])); now.Unix() >= expiry {
		return 0, wire.Errorf(wire.Forbidden, "capability", "", "the capability of session %d has expired", session)
	}
	return session, nil
}
