// Package fs is the mount: it turns the kernel's FUSE requests into commands and
// queries to meta and reads and writes of fs/data, and believes what it has been
// told for as long as it holds a lease. Without a kernel the same FS serves jobs
// and tools (api.go).
//
//	kernel ── /dev/fuse ── conn.go ── raw*.go ── name, setattr, file, dir, xattr, lock ─┬─ meta/client
//	   ▲                                            │ inode.go, op.go                   └─ fs/data ── chunkd
//	   └───────── notices: kernel.go ──── recall.go, holder.go ◄── recalls ── meta/client
//
// # What it promises
//
//   - What one mount has written and closed, any other reads at once, and a name
//     that it made, renamed or removed any other sees, or misses, at once. There
//     is no time-out to wait for.
//   - A write is seen by every read, on any mount, that begins after the write
//     has returned, whether or not the file was closed. O_APPEND records of
//     several mounts stay whole.
//   - What fsync has said is stored is stored. A file that replaces another by
//     rename is flushed first. Commands about names are durable when they return.
//   - No request waits longer than opTimeout, and no system call that comes as
//     several (call.go), but for locks and for synthetic files that are read until
//     something happens, which honour interrupts. No other request does: what a
//     signal ends half way its caller does again, and it may have been done.
//   - When meta ends the session, data not yet stored is lost; the next fsync of
//     each file concerned says EIO, once.
//
// # Leases
//
// Each inode has one lease (held, in lease.go): NONE < OPEN < READ < WRITE. READ
// covers attributes, names, xattrs, extents, data; WRITE lets data and attributes
// of a regular file be deferred. A reply is believed if it carries a grant that no
// recall has overtaken: the ids of grants and recalls come from one counter, so a
// grant with an id below that of the newest recall of its inode is void, as is one
// from before a reconnection (client.Floor). Everything believed of a directory is
// stamped with inode.gen, which moves with each recall: what was true when a call
// began is not recorded if gen moved before it ended.
//
// The kernel may keep for kernelTTL what is believed here; else its time-out is 0.
// Pages stay over opens: recalls take them away.
//
// # Recalls, and why they do not wait for themselves
//
// Before a recall is answered the kernel must have dropped what the lease covered.
// The kernel takes locks to do so, which requests hold that are being answered by
// this very process, perhaps waiting for meta, which waits for the answer to the
// recall. The rules:
//
//	notice                     takes in the kernel    waited for
//	forgetAttrs                nothing                always
//	newEpoch (all names)       nothing                always
//	forgetEntry, expireEntry   the directory's lock   noticeWait, but changeWait while an operation of ours changes the
//	 (one name)                                       directory, elsewhereWait while one changes another: then newEpoch
//
// A change of attributes leaves all names alone, that of a directory too
// (Recall.attrs). The name of a directory is expired, not dropped: if it is still
// there, so is what is mounted below it, and who works there. A name that the kernel
// was never shown, nor told to be absent, needs no notice (inode.showing). An epoch makes
// the kernel drop directories as well, at their next look-up, so it is the last resort:
// where an operation keeps the lock that may wait for this very recall. A session that
// lapses or ends has notices sent for all names, one by one, in the time in
// which nobody else may change them yet; an epoch follows if some are still
// on their way then.
//
// Attributes: a reply under way when they are forgotten would bring them back into
// an inode that the kernel only makes for that reply. So each reply that lets the
// kernel keep attributes is a promise; recalls make that no new ones are given and
// wait until those given have been written to the device. This is why conn.go has
// the loop around the device, and go-fuse only decodes. While a reply that makes
// the inode in the kernel has been written and not been looked at, the notice finds
// nothing there: it is sent again (forgetAttrs).
//
// The kernel passes over attributes that a notice has overtaken, also of a reply
// that was written before. So its size of a file may stay behind what it was
// told, and a read through its cache ends there without asking. Before attributes
// of an open file that has grown elsewhere are answered, the size is set by a
// notice (raiseSize).
//
// Pages (recall.go, drain), for a lease that falls below READ:
//
//	draining   all goes on under the old lease, pages touched are noted; all pages are dropped
//	closing    what touches noted pages goes on, all else waits; noted pages are dropped,
//	           until there are none
//	shut       nothing goes on; data is flushed; the recall is answered
//
// The kernel writes back what was changed through a mapping while it drops pages,
// by write requests, which draining and closing admit. Operations that wait may
// hold locks: their pages are dropped on the side (pages.go), and one that cannot be
// dropped is locked by a write that found it not valid, and stays so.
// From WRITE to READ only writes wait and data is flushed: pages stay.
//
// Before a lease is given up under which the size or content was changed by a command, the
// kernel has done what it does with the reply (late.go): it sets its size and cuts pages
// off, and would do so to what came later.
//
// The kernel copies a write into its cache before it sends it. Where the page was
// dropped and read again in between (op.end), or the write went to another place
// than the kernel thought (O_APPEND), the page is dropped before the write is
// answered. Handles that append go past the cache; what they write is dropped
// from it where it had been read. What was stored through a mapping beyond the end of
// the file is made zeros before the file grows (tail.go). Dropped, too, is what a direct write (O_DIRECT) has written:
// the kernel drops its pages itself, but not after one that is asynchronous. A record may still come in several requests:
// append.go.
//
// A recall never waits for meta, except for the commit of its flush, which
// conflicts with nobody. It flushes until it succeeds.
//
// # Names, and operations that look up two
//
// The kernel looks up both names of a rename under the locks of their directories, one
// after the other, and may then ask nobody: both are one inode, or the target
// exists and must not. That is right if both names were so at one moment. So a recall
// of a name is not answered before the kernel has taken the notice, for which it
// needs the directory's lock: whoever was shown the name while he held the lock is
// done, or has asked for the operation, and then meta decides (newEpoch: what is
// known of names afterwards is looked up again).
//
// So a recall may wait for a look-up, and that must not wait for who waits for the
// recall: meta answers it at once, with what the name is until the recall is
// answered (Answer.owed, lease.Urgent). It is told to the kernel only while the
// recall has not been answered (tellsLeaving), and whoever was told it after the
// notice had been taken is waited for again.
//
// The kernel believes a name that this mount changes until it looks at the reply,
// but others may see the change before. Meta has the name recalled before it tells
// them (meta, fresh names).
//
// Its count of links is the kernel's own: links.go.
//
// # Files that lose their name
//
// Meta asks every holder of a lease whether the file is open; it keeps the inode for
// those who say so, and has it only for them. Open is also what the kernel
// may be about to open: what it was given a name for in the last foundFor, and what an
// answer with a lease that is still on its way (Recall.grant) is about; of both, OPEN
// is kept whatever is recalled for another reason, until a removal asks or the kernel
// forgets the file. So a name is not answered from the directory's cache when its
// file has come without a lease: meta is asked for the name. A file that an open
// makes counts as open from the moment when its lease is recorded. Who said so and
// does not open it tells meta after foundFor. So an open fails only if the name was
// found before its file was replaced, under an older lease; the kernel then
// looks the name up again, once, and what that finds can be opened: meta answers a
// look-up of a name that is being changed when the change is done, with a lease.
//
// What was written to a file that has no name any more goes with the last handle
// if no other session has it open, as the result of its removal says (kept). Else it
// is stored first, and only then the file is released.
//
// # Deferred attributes
//
// Under WRITE, times, mode and owner of a regular file are changed here (planLocal)
// and go with the next commit. What meta is to judge by them waits for that
// commit first (settle): a removal from a sticky directory by one who is not root,
// an ACL, a truncate by path. A command that changes content, or sets attributes that
// meta is to judge, takes them along (doAfter; before, in the message): meta sets them
// first, and then does what the command does to attributes. Committed later, a mode
// would bring back the suid that a stranger's truncate had taken away, and a time the
// one from before a punch. Dirty data stays dirty, and its commit repeats the times
// that the command has set: that of an earlier command would undo a touch.
//
// The bits and capabilities that a change of content takes away are those that
// Linux's own filesystems take: suid, and sgid where the group may execute or who
// changes it is not in the group, unless root does; security.capability always. Of a
// write the kernel says whether it takes them, of all else meta judges.
//
// # What a file occupies
//
// Under WRITE st_blocks is what the dirty data will occupy too, exactly
// (File.Allocated). A reply that could not ask meta for the extents below dirty
// data says the most that it can be, and the kernel may not keep it. Should a commit
// show another number than the kernel may believe, its attributes are dropped.
//
// # Locks of this package
//
// inode.mu is a leaf but for calls of fs/data that only ask or tell (Size, SetAttr,
// Reset, Dirty, AllocatedNow); no two inodes are locked at once; none is held over a call to meta
// or to the kernel. FS.mu guards the table only. Goroutines that may be stuck in a
// notice are counted in FS.wg; they end when the request ends that is in their way.
package fs
