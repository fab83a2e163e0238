// Package lease holds the leader's tables of who may cache what and who has
// which file lock. They are data structures and nothing else: no clock (times
// are passed in), no goroutine, no I/O, no lock. The caller serialises the calls,
// sends the recalls that Take returns, and wakes the operations it names.
//
// # Leases
//
// A session holds at most one mode on an inode: OPEN < READ < WRITE. WRITE
// excludes READ and WRITE of other sessions; OPEN excludes nothing.
//
// An operation (Op) claims inodes and names before it looks at the state or
// changes it, and ends when it has answered or been given up:
//
//	Lock(names) ──► names are its own ──► Claim(inodes) ──► Ready ──► End
//	               (first in, first out)   (recalls go out)   │
//	                                                          └─ Grant
//
// What a claim asks of other sessions, and which grants it holds up until End:
//
//	kind     others come down to   no new grant of          meant for
//	Peek     READ                  WRITE                    reading attributes, extents
//	Change   OPEN                  READ, WRITE              a mutation of the inode
//	 victim  OPEN, and say if open OPEN, READ, WRITE        an inode that loses a name
//	  dir    READ, and say if open OPEN, READ, WRITE        a directory that does
//	Names    forget these names    WRITE; attributes        a directory whose entries change
//	 none    forget attributes     WRITE; attributes        a directory whose attributes change
//	Take m   what m leaves         what conflicts with m    acquiring a lease
//
// A session's own leases are never recalled, and its claims do not hold up its
// own Takes; but while a Change of its own is under way, no lease below WRITE is
// given along with a mere answer, for the answer may be older.
//
// # Waiting
//
// Mutations do not wait for each other: the log orders them. They wait for
// Takes that came before, and Takes wait for what came before and for
// whatever is Ready. The one exception: a mutation by the holder of WRITE waits
// for nobody, since it may be the flush that a Take is waiting for. Each wait
// therefore points to an operation that came earlier, or to a Ready one that
// waits for nothing, or to a holder that owes an answer; so every operation
// gets ready once the holders have answered, have been dropped, or the
// operations before it have ended.
//
// Look-ups wait for the operations on their name, but not while their session owes an
// answer about names: see look.go. So the wait for that answer, which may need the
// look-up to end first, ends too.
//
// # Ids
//
// Grants and recalls draw their ids from one counter. A recall's id is above
// those of all grants that it covers; a grant that is given later has a higher
// one. An answer to a recall changes nothing about a grant newer than the
// recall.
//
// # Locks
//
// Locks keeps POSIX byte-range locks and BSD locks in two spaces for each inode. An
// owner that holds nothing queues behind waiters that came before it; one that
// holds something waits for holders only, so that queueing can never be what
// closes a circle. A circle of POSIX holders is refused as a deadlock.
package lease
