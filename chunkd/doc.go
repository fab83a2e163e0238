// Package chunkd is the chunk server, which stores shards, and its client,
// which turns blocks into shards on many servers and back.
//
//	WriteBlock                                        ReadBlock
//	  encode → k+m shards, leaf digests, roots          range → the data shards that hold it
//	  PutShard to k+m servers at once       ⇄  Store    OpenShard + pread, or GetShard
//	  a failed one goes to a spare                      verify each leaf against the root
//	  Block record with roots and proofs                slow, lost or corrupt: decode from k others
//
// # Promises of the store
//
//   - A shard that was acknowledged is never lost by a crash or a power cut.
//   - A shard never changes. Put again with the same root it succeeds; with
//     another root it is refused.
//   - What a Delete has acknowledged stays deleted.
//   - Two processes never share a directory.
//   - A full disk is wire.NoSpace for puts until there is room again; reads
//     and deletions go on. A failed fdatasync fails the puts that waited for it
//     and closes the segment: nothing is ever acknowledged from it again.
//
// # Disk format
//
//	DIR/lock                 flock: held while a Store is open
//	DIR/store                "quern chunk store 1 node N\n"
//	DIR/segments/ID.seg      the log: ID is 16 hex digits, growing, never reused
//	DIR/index/               Pebble, without a log of its own
//
// All numbers are little-endian except in index keys. A segment is a header of
// 4 KiB and then records, each starting on a multiple of 4 KiB, so that a
// deleted record gives all its space back when a hole is punched:
//
//	segment header   magic "QRNSEG01" ‖ crc u32 ‖ version u32 ‖ id u64 ‖ nonce u64 ‖ created u64 (Unix ns)
//	                 crc: CRC-32C of what follows it; the rest of the 4 KiB is zero
//
//	shard record     0    magic "QRNSHARD"
//	                 8    header crc u32: CRC-32C of bytes 12 .. 128
//	                 12   body crc u32: CRC-32C of the body
//	                 16   nonce u64, 24 segment u64, 32 offset u64: this record is of this place
//	                 40   block u64, 48 index u32
//	                 52   length u32: bytes of the shard
//	                 56   leaves u32: bytes of leaf digests
//	                 60   zero u32
//	                 64   root, 32 bytes
//	                 96   zero, 32 bytes
//	                 128  body: leaf digests ‖ shard
//
//	tombstone        the same with magic "QRNTOMBS", block, index, leaves and root zero;
//	                 body: (block u64 ‖ index u32) of each deleted shard
//
// The index maps
//
//	'b' ‖ block u64 BE ‖ index u32 BE  →  segment u64 ‖ offset u64 ‖ length u32 ‖ root
//	's' ‖ segment u64 BE               →  live shards u64 ‖ live bytes u64
//	'c'                                →  version u32 ‖ segment u64 ‖ offset u64 ‖ next segment u64
//
// The leaf digests stay in the record, just before the bytes that they prove: a
// reader of a cold shard needs them together, and the index stays small.
//
// # Order of events, and why nothing is lost
//
// The segments together are one log; (segment, offset) orders it, and one
// segment at a time is appended to: two or four at once made large concurrent puts
// at most a third faster, and small ones a third slower, since fewer of
// them share an fdatasync. Space is allocated ahead without growing the file, which
// made the fdatasync of a small put about a tenth cheaper.
//
//	put      reserve a place → write the record (many at once) → fdatasync (shared) → index → acknowledge
//	delete   append a tombstone → fdatasync → index → acknowledge → punch holes
//	reap     a segment without a live shard is unlinked once a checkpoint behind it is durable
//
// The index has no log and is never synced for a put. That is safe since an
// entry is written only after its record is durable, and since the index keeps
// a checkpoint: the key 'c' says "everything before this place of the log is
// in the index". It is written after those entries; Pebble without a log
// recovers a prefix of what was written, so whatever 'c' a crash leaves, it
// is true. Opening replays the log from there: complete records are indexed
// again, torn ones (bad checksum, or zeros where a writer had reserved space) are
// dropped, tombstones delete. Then the replayed segments are synced, because a
// killed process may have left a complete record only in the page cache and a
// second Put of it will be acknowledged from the index. An acknowledged shard is
// therefore in the index or in a durable record that replay will find.
//
// A relaxed Put is acknowledged and indexed before the fdatasync: it survives
// the death of the process, not a power cut, after which its digest tells.
//
// # Inventory
//
// What nobody knows to be here, or is known to be here and is not, is found by
// telling the leader: once an hour (Config.InventoryEvery), and at the start, each
// heartbeat lists one page of the index, in order, until all of it was listed.
//
//	Run      page (after, upto] ─▶ all shards in it, listed after the leader's last answer
//	leader   shards that belong to nobody        ─▶ remove: a crashed writer's, surplus copies
//	         shards recorded here and not listed ─▶ recorded as lost, and repaired
//
// A writer's Put may be under way while the leader decides; that is no danger.
// The leader asks only for the deletion of shards whose block id has expired, and
// that can never be committed any more (see meta/state): a Put of it that comes
// after the deletion makes another orphan, for the next round, and the
// writer, whose commit is refused, stores its bytes under a new id. Surplus
// copies of committed blocks are deleted only when no record names this server,
// and only a rebuild here could make one do so. Therefore a rebuild and a
// removal of one shard exclude each other, until the leader has been told how the
// first of them ended.
//
// A page is true for what was committed before it was listed: the heartbeat says
// the log index that the leader had applied when it last answered, and shards of
// later commits are not looked for. Heartbeats are numbered, so that
// one which was delayed proves nothing.
package chunkd
