// Package block says how the bytes of a block become shards, and how a shard
// is proved to be what it claims. It is pure: no I/O, no clock, no state but
// caches of tables.
//
// # Layout
//
// A block of length bytes (1 .. 4 MiB) under policy k+m becomes k data and m
// parity shards of L = ceil(length/k) bytes each. The code is systematic and
// contiguous: data shard i holds bytes [i·L, (i+1)·L) of the block, and what
// lies beyond the block's end is zero.
//
//	block    |0123456789abcdefghi|                  length 19, k = 4, L = 5
//	shards   |01234|56789|abcde|fghi0| p p p p p | q q q q q |
//
// So a small read touches one shard, and a range of a lost shard is decoded
// from the same range of any k others: byte x of the parity shards depends on
// byte x of the data shards only. The matrix is the Vandermonde matrix of
// klauspost/reedsolomon over GF(2^8) with polynomial 29, made systematic by
// Gauss-Jordan elimination (its default); it is part of the disk format. With
// k = 1 every parity shard equals the data shard: replication.
//
// # Digest tree
//
// A shard is cut into leaves of 64 KiB, the last one shorter. Two levels:
//
//	leaves = SHA-256(leaf 0) ‖ SHA-256(leaf 1) ‖ …          32 bytes each
//	root   = SHA-256("quern shard v1" ‖ length u64 LE ‖ leaves)
//
// The root is in the block's record in the metadata, the leaves lie beside the
// shard. Who has a root that he trusts checks the leaf digests against it once
// and then each leaf that he touches, and nothing else.
//
// # Proofs and capabilities
//
// Both are made with the cluster key (32 random bytes that only meta and chunk
// servers hold). All numbers are little-endian.
//
//	proof = HMAC-SHA256(key, "proof" ‖ node u32 ‖ block u64 ‖ index u32 ‖ length u32 ‖ root)
//	token = session u64 ‖ expiry u64 (Unix seconds) ‖ HMAC-SHA256(key, "cap" ‖ session ‖ expiry)
//
// A proof is a chunk server's word that it holds a shard durably; meta commits
// no block without the proofs of its shards. A token is meta's word that a
// session may use the chunk servers until expiry.
package block
