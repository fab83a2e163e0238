// Package edgecache will hold the site cache, `quern edge`: a process at a
// remote site that stands between the clients there and the chunk servers far
// away. It is not built yet; this page fixes what it is to promise, so that
// nothing else is built in its way.
//
// # What it will be
//
//	clients of the site ──GetShard, GetBlock──▶ edge ──GetShard──▶ chunk servers (uplink)
//	                    ◀──────verified──────── disk
//	                     ──Lookup, GetInode───▶ edge ──Query, leases──▶ meta
//
// It speaks the chunk server's read protocol (wire.MethodGetShard), so a client
// reads through it without knowing. It verifies every shard against the root in
// the block's record before it keeps or serves a byte, decodes once, and keeps
// whole blocks on its own disk.
//
// # Invariants
//
//   - Blocks never change and their ids are never reused: a kept block is right
//     for ever. Only metadata needs leases, which the origin recalls.
//   - No byte that fails its digest is served or kept.
//   - Nothing that the edge loses is lost: it holds copies only.
//   - With the uplink cut it goes on serving what it has, read-only, and says so.
//
// # Parts
//
// S3-FIFO eviction under a size limit, with pins; pre-fetching; a limit on the
// use of the uplink; sharing of blocks with sibling edges; metadata under
// leases; rules that pre-process what is born at the site and then keep, drop or
// upload it; `quern warmup PATH`.
package edgecache
