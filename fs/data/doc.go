// Package data is the data path of a mount: the contents of regular files. It
// buffers writes, packs them into blocks, commits them; it reads through caches
// and ahead of sequential readers. It knows neither FUSE nor leases: its caller
// holds the write lease of a file that it writes, at least a read lease of one
// that it reads from the cache, and says with File.Reset when what it knew of an
// inode may be out of date.
//
// # What it promises
//
//   - A read sees every earlier write of this mount, committed or not; bytes of
//     a block are verified before they are returned.
//   - When Flush has returned nil, all writes and attributes before it are
//     committed, in blocks that are durable.
//   - Of two writes to one byte the later wins, in memory and in meta.
//   - An extent never names a block that is not committed by the same or an
//     earlier commit. Inline content is only dropped by a commit whose extents
//     hold all its bytes.
//   - Dirty data is dropped by Discard, by Abandon, by a successful Truncate or
//     Punch of its range, and when meta says that the inode is gone: never
//     because of a failure. Uploads and commits that fail are tried again for
//     ever, with growing pauses up to two seconds (30 seconds where meta refuses
//     a block, which then is stored under a new id).
//   - Memory is bounded whatever the size of files: DirtyLimit for what is dirty
//     or being uploaded (overrun only by copies of one part, at most 256 KiB
//     each, and by one gathered draft an upload), CacheBytes for what is cached,
//     64 MiB of free buffers, and per file 32,768 cached extents.
//   - Every call ends: by its context, or after Config.FlushTimeout, which all its
//     steps share.
//
// # Writing
//
//	WriteAt → draft (open) → sealed → stored → committed
//	          │ a buffer of up to a policy's block size, shared by small files or
//	          │ private to one with more than 256 KiB in it: each write is copied
//	          │ once, behind what is there, or over the same range of the file
//	          │
//	          ├ full: sealed and uploaded in the background, Uploads at once
//	          ├ FlushAfter old, or memory is short: when an upload is free
//	          └ flushed: before all others. It stays open until an upload is free,
//	            and whatever is flushed meanwhile joins it (group commit). Of a
//	            shared draft above 256 KiB only the flushed file's part goes.
//
// A file's share of a draft is a part: a sorted map from file ranges to places
// in the draft's buffer. At most the last part of a file is in an open draft, so
// the parts of a file are in the order in which they were written, and reading
// looks through them from the newest to the oldest, then at the extents. When
// the upload begins a draft with many fragments or dead bytes is gathered: parts
// are copied in the order of their offsets, which merges extents.
//
// One commit is in flight at a time; all that is stored by then goes together
// into the next, up to about 1 MiB of message. Of each file it takes the oldest
// parts as far as they are stored, never a later one before an earlier one;
// later parts hide earlier ones in the same commit. A draft whose files cannot
// all be committed now (one is being truncated) is committed for some first and
// for the others later. A commit that meta refuses is taken apart, file by file,
// so that one bad file does not hold up the others.
//
// Files of up to the policy's inline_max without extents are inline: their
// content goes with the commit itself. Growing beyond, the content becomes a
// dirty range (spill), and the commit of that range drops the inline content.
//
// Deferred attributes (SetAttr) go with the file's next commit of data; without
// dirty data they wait FlushAfter at most. Each commit of data repeats the last deferred mtime and ctime, since
// meta stamps its own clock on data that comes without.
//
// # What a file occupies
//
// Allocated says what a file will occupy when all that is dirty is stored: what
// meta counts (the bytes of extents, or of the inline content), and the dirty
// bytes that lie over no extent. So the answer is the same before a commit and
// after it. Programs decide by it whether a file has holes (tar, cp, rsync): too
// little loses their data.
//
// # No space
//
// When meta or the chunk servers say NoSpace (or Quota) the data concerned stays
// dirty and readable and is tried again, one draft at a time, every two seconds
// at most. Until all of it has been stored, or dropped by truncating or deleting
// its files, WriteAt and Flush of files with unstored data fail with NoSpace at
// once, in every file of the mount: fsync reports the error as often as it is
// asked, as long as it is true, and never says that data is safe which is not.
// What was written before is not lost. Refused tells a close of it, which does not
// flush. Once one draft was stored the others are tried at once.
//
// # Changing a file in meta
//
// Truncate (any size, O_TRUNC too), Punch (PUNCH_HOLE, ZERO_RANGE, and with
// n = 0 plain allocation, and SetAttr that sets times) and Mutate (Clone: the destination; the source is
// flushed before) run the caller's command while commits of the file pause.
// Dirty data that the command supersedes is dropped after it has succeeded. The
// command takes the deferred attributes along (TakeDeferred): what it does to
// attributes comes after them. Data that is committed later repeats the times that
// the command has set. The caller needs no other order, and no flush before Truncate or Punch. Writes
// that come meanwhile are as if they came before the command, in the range that
// it changes, or after it, elsewhere.
//
// # Reading
//
// Extents are fetched in pages as reads need them, and updated in place by this
// mount's own commits. Small reads (below 64 KiB) go through a cache of cells, a
// digest leaf each, that brings in more at once the longer reads go through a
// block in order: files that were written together are read together. Large
// reads go straight into the caller's buffer. A file read in order has whole
// blocks fetched ahead, up to ReadAhead at once, doubling the window from two;
// they are kept apart from the cells until they were read once, since what has
// been read lies in the kernel's page cache.
//
// # Locks
//
// In this order: File.mu, draft.mu, Path.mu. Two files' mu are never held
// together. Of two drafts' mu the older draft's is taken first, except that a
// private draft's is taken before a shared one's: both only with the mu of the
// one file that is in both, so that there is no circle. Path.filesMu, cells.mu,
// ahead.mu, records.mu and readers.mu are leaves, except that Path.File takes
// nothing else, and that freeing a draft takes buffers.mu. No lock is held
// during a call to Meta or Blocks.
package data
