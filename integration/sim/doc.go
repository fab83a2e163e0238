// Package sim runs a whole cluster in one process, in simulated time, with faults
// that a seed chooses: the real metadata servers over the real raft, the real
// chunk servers, the real data path and clients. What is not real is what lies
// around them.
//
//	workload ─▶ fs.FS ×3 ─┐            ┌─▶ meta.Server ×3 ─▶ disk
//	                      ├─▶ network ─┤
//	history, journals     │            └─▶ chunkd.Store ×5 ─▶ disk
//	   │                  │                     ▲
//	   ▼                faults ── crash, cut, slow, lose, start again
//	 checks
//
// # What is simulated
//
//   - Time: the bubble of testing/synctest. Its clock moves when every goroutine
//     waits, so a second costs what is done in it.
//   - The network (net.go): a connection is a pair of directions between two
//     hosts. Each message is delayed by itself; messages of one stream keep their
//     order, as over QUIC, calls overtake each other. A cut holds messages back;
//     a connection that is cut for as long as QUIC's idle time-out ends. Loss is
//     delay, for the transport sends again, or the end of the connection, with
//     the call carried out or not. Messages are copied, as by an encoding.
//   - Disks (disk.go): Pebble's crashable MemFS, for the state, the indices, the
//     snapshots, raft's log (raft-wal's own code over it) and the segments. A
//     crash keeps what was synced, and of the rest what the seed says, in blocks
//     of 4 KiB and single directory entries.
//   - Hosts (cluster.go): a process that crashes is cut off first, then its disk
//     is copied as it would be found; what it still does reaches nobody. Its
//     peers are told at once (the process died) or find out (the host died).
//
// # What is not
//
//   - The kernel and FUSE: clients are of fs/api.go. integration has the same
//     histories over real mounts.
//   - QUIC itself, Unix sockets and passed files: internal/transport tests them.
//   - Disks that are slow. A goroutine that waits for a mutex does not count as
//     waiting in a bubble, so nobody may hold one while time passes; Pebble and
//     the chunk server hold theirs while they sync.
//   - raft-wal's BoltDB, which needs a real file: a file of the simulated disk
//     stands in.
//
// The same rule, no mutex is held while time passes, is checked of all of the
// project's code along the way: where it is broken the simulation stands still.
//
// # What is checked
//
// At every moment: no two clients believe what one of them may change
// (checkLeases); members that have applied the same entries have the same state
// (checkDigests); no operation takes longer than its 30 s; no error is one that
// the operation could not have on one machine.
//
// After each round, with everything mended: the cluster becomes whole by itself
// (settle), the state does not contradict itself, every shard matches its
// digests, every journal (journal.go) has in every cell, for every client, what
// was acknowledged and flushed, or a later write, and never bytes that nobody
// wrote. At the end package linear judges the history of names, contents and
// locks.
//
// # How far a seed reproduces a run
//
// The seed decides the faults, their times, the delays, what disks lose, and the
// operations. It does not decide what Go's runtime draws by itself: which of
// several ready cases a select takes, the order of a map, that of timers of one
// moment. With GOMAXPROCS=1, which the tests set, that is what remains. A failing
// seed so is a schedule of faults under which a fault was seen: it goes into
// testdata/seeds with what it had found, and the short test runs it each time.
package sim
