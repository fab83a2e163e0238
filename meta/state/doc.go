// Package state is the metadata of QuernFS as a deterministic state machine
// over Pebble: commands in, results out. It knows nothing of raft, leases or
// the network, and reads no clock and no random number: replicas that apply the
// same log hold the same bytes, however the log was cut into batches (Digest).
//
// # Flow
//
//	raft log ──▶ Apply(entries) ──▶ for each: once ─▶ run ─▶ a check phase that only reads,
//	                                   │                     then a write phase that cannot fail
//	                                   │ (session, seq)
//	                                   ▼
//	                               stored reply               tx: decoded records in front of
//	                                                          one indexed Pebble batch
//	             ◀── results ────── batch + applied index, committed at once, unsynced
//	queries  ──▶ Query, Inode, … ─▶ a Pebble snapshot: beside Apply and beside each other
//
// apply.go has the one switch over all commands; create.go, unlink.go,
// rename.go, attr.go, xattr.go are the namespace; commit.go, extents.go,
// rangeops.go, blocks.go the data; session.go, node.go, jobs.go the rest. perm.go and
// acl.go decide on permissions and are pure. check.go holds the parts of a
// state against each other.
//
// # Promises
//
//   - One Apply is one Pebble batch with the applied index in it. Pebble has no
//     log of its own: after a crash the state is that of some batch not before
//     the last Flush, and raft replays what follows; Apply passes over entries
//     that the state has.
//   - A command with a code other than 0 has changed nothing but the stored
//     reply of its session.
//   - A command of a session with a sequence number runs once. A repeated one
//     gets the reply of the first run, until the session has acknowledged it
//     (ack_below); after that, Stale. Of a Commit, files that are inline are
//     in a repeated reply as they are now. A command without a
//     sequence number runs each time. Of a session that is not there: NoSession,
//     not stored.
//   - Numbers (inodes, blocks, sessions, nodes, jobs) are never given twice.
//   - No input makes Apply panic. An error from Apply means that the
//     database failed; the State then refuses everything, and is to be
//     opened again.
//   - A Result shares its inodes with the state: read them, never change them.
//
// # Permissions
//
// An entry of /.compute/users that a user makes is a directory whose name is his number
// (users.go); the rest is as in any directory.
//
// Every command that names entries or attributes is checked with its
// credentials, by the rules and in the order of Linux's VFS, so that the errno is the
// one that a local filesystem gives; uid 0, or no credentials at all (the
// leader's own commands), pass. What comes with an open file needs no check,
// as in any POSIX system: Commit, Fallocate, Clone, SetAttr with handle; ReadDir and
// GetExtents among the queries. The caller asks Access when it opens.
// LeaseHorizon, ReserveBlocks, ExpireTickets, PutNode, MoveShard, LoseShard, PurgeBlocks
// and Bootstrap are refused to sessions.
//
// # Keys
//
// One byte of kind, then big-endian numbers, so that Pebble's order is the
// order of the numbers. Values are the messages of internal/wire, encoded
// deterministically; "-" is an empty value.
//
//	i ino(8)                         Inode
//	d parent(8) hash(8) name         Dentry         hash = Cookie(name): the order of ReadDir
//	x ino(8) name                    bytes          extended attribute, ACLs among them
//	e ino(8) end(8)                  Extent         the first key above off is the extent at off
//	b block(8)                       Block
//	s session(8)                     Session        with what it has acknowledged and reserved
//	r session(8) seq(8)              Result         stored reply
//	o ino(8) session(8)              -              the session holds the nameless inode
//	w server(4) block(8)             -              server holds a shard of block; server 0: blocks
//	                                                in use that miss a shard
//	g time(8) block(8)               -              freed then; time is ns with its sign bit flipped
//	n node(4)                        Node
//	j 0 job(8)                       Job
//	j 1 job(8) n(4)                  Task
//	j 2 name                         job(8)
//	j 3 job(8)                       -              has not ended
//	j 5 uid(4) job(8)                -              of that user, has not ended
//	j 6 time(8) job(8)               -              has ended, to be removed then
//	j 7 digest                       Memo           result of a task with this digest
//	j 8 job(8)                       Task           what the tasks of its array are like
//	j 9 job(8)                       Staged         tasks under j 1 of a job that is being submitted
//	j 10 job(8)                      -              such tasks, to be removed
//	j 11 uid(4)                      UserJobs       sums over the jobs of j 5, numbers of those of j 12 and j 14
//	j 12 uid(4) time(8) job(8)       -              has ended then, is kept
//	j 13 time(8) job(8)              Account        of a job that ended then
//	j 14 uid(4) time(8) job(8)       -              is an account of that user
//	j 15 day(4) uid(4) kernel        UsageSum       over the accounts of that day
//	j 20 number(8)                   Refusal
//	j 21 uid(4) name                 number(8)      of who was refused
//	j 22 ino(8) number(8)            -              is about the inode
//	z ino(8)                         -              deleted, but has extents left
//	p applied                        index(8) term(8)
//	p format                         1(8)
//	p cluster                        16 bytes
//	p horizon                        ns(8), sign bit flipped
//	p policy                         Policy         that of Bootstrap
//	p counter/NAME                   n(8)           absent: as in an empty state
//
// # Files and blocks
//
// The content of a regular file is its extents, or bytes in its inode
// (has_inline). Where there is neither, up to the size, it is zeros: inline data
// may be shorter than the file. A new file is neither: size 0, no inline.
// A Commit puts extents in place of what was in their ranges; splitting,
// trimming and joining keep the references and live bytes of every block
// they touch. Extents of inode numbers that do not exist (any more) are passed
// over, so that the other files of the block are not lost: the result then has
// an empty inode there.
//
// A block without references is freed: stamped with index and time, put under g,
// taken out of the list of blocks to repair. Its record and its place in the
// index of its servers stay until PurgeBlocks. It cannot come back to life:
// only blocks in use may be named by extents.
//
// # Tickets that have expired
//
// A block id below the floor (ExpireTickets, which the leader gives an hour or so
// after the last id below was handed out) cannot be committed any more: Stale, for the
// whole Commit, upon which the writer stores the bytes again under a new id. One
// that has been committed before still is Exists. The floor never falls, and an id
// is never given twice. So a block below the floor without a record is one of
// which no record will ever be made, in this state or a later one, and its shards
// belong to nobody: Expired finds those. A replica that lags says so of
// fewer blocks, never of others.
//
// A deleted file loses up to 512 extents at once. What is left is noted
// under z, and each later command, whatever it is, removes 512 more. So no
// command takes long because of a large file's removal. (Truncating,
// punching and inlining go through all extents of their range at once: about 3 s for
// a file of a terabyte in 4 MiB blocks. A Clone stops after 65,536 extents
// and says how far it came.)
//
// # Orphans
//
// An inode whose last name goes lives on for the sessions that Unlink or Rename
// name and that exist, and for the session that made it without a name. The last of
// them to release it, or to end, removes it. A file that was made without a name
// may be given one (Link) by the session that holds it; nobody holds it then.
//
// # Jobs
//
// SubmitJob is idempotent by name and digest. A command about a job reads and
// writes a bounded number of records, however many tasks the job has, so that none
// holds up those behind it in the log (TestCommandsStayShort):
//
//   - The tasks of an array have no records until they start; template is what
//     they are like.
//   - Other tasks come in pieces of at most 1024: StageTasks puts them aside for a
//     session, and SubmitJob makes a job of all that were put aside under a number.
//     DropStaged, or the end of the session, gives them up; later commands remove
//     them bit by bit. A job that waits for others gets its tasks by several
//     UpdateJob, the last of which makes it pending; drop_tasks begins anew.
//   - The end of a job, and its repetition, write the job's record alone. A task's
//     record says in which round of the job it was written: an open task of a job
//     that has ended reads as cancelled, one of an earlier round that has not
//     succeeded as pending (current).
//   - RemoveJob takes a thousand outputs and tasks at once.
//
// What the jobs of a user that have not ended amount to, in number, tasks and bytes,
// is kept (UserJobs), and the leader says with each command how much it may be: more
// is refused with Quota. Root has no limit.
//
// A task moves on by UpdateTask: with
// attempt one above the stored one a new attempt begins; with the
// stored one it is the report of an attempt that is staging, running
// or committing. Everything else is Stale, except that the leader itself (no
// session) may also put a pending or failed task aside or back. With
// succeeded and out_ino, all entries of that directory move into the job's
// out_dir in the same command: files replace files of their name, directories
// merge, and a file that would meet a directory refuses all of it.
//
// The state of a job follows from its tasks: running once one of them is; failed as
// soon as one has failed for good, unless the job goes on then (on_failure), up to
// max_failed; when none is left open, succeeded, failed, or cancelled. A job that
// names more than one kernel and has no task of phase "reduce" waits, running, for
// UpdateJob to add it, once all others have succeeded, or have ended and reduce_rest
// is set. UpdateJob to an ended state ends the open tasks as
// cancelled; to pending, of a job that has not succeeded, starts
// all its unfinished tasks again; a reduce task that ran over a part of the others is
// then taken back. What has ended accepts no report.
//
// A job that names others (after) is waiting until UpdateJob makes it pending;
// its tasks may come then. Where a job names a directory (out_parent), the results
// of its last step go there instead of to out_dir, as its owner may: they
// replace what has their name, are refused (Exists), or are left out, as if_exists
// says. RemoveJob forgets a job that has ended, a thousand outputs and tasks
// at once; those that have another name elsewhere live on.
//
// The command that ends a job also settles what hangs on its end: the source of
// a rule's job is removed, if the job file says so for this result, if it is what it was
// when it landed (inode, size, mtime, ctime), and as the job's owner may; a line
// about the end goes into the file that the job names (notify), which lives in
// its inode up to 16 KiB and is then renamed. Neither can fail the command: what is
// in the way becomes an event of the job.
//
// # Accounts
//
// What the attempts of a job use is added up in the job's record by the commands that
// begin and end them (JobUsage): their time is the sum, over all spans between two such
// commands, of the span times the number of attempts that were under way, so none is
// looked at when the job ends, however many that stops. The command that ends a job
// writes an Account, and adds it to the sum of its day, user and kernel. So sums are
// exact, whatever is repeated, lost or done by another leader. A job that is tried again
// begins with no usage, and has another account when it ends again: accounts
// never change, and sums only grow.
//
//	job's record (usage) ──its end──▶ Account   400 days, 100,000 of a user
//	                             └──▶ UsageSum  5 years; of a user and day 64 kernels
//
// Each account that is added lets two of the oldest go that are too old, two of its user's,
// if he has too many, and two sums. Where the oldest are is kept (first-account,
// UserJobs), so that a scan does not pass over what was removed before.
//
// A job is forgotten ttl_ns after its end (j 6), which the leader gives a job that does
// not say. The command that ends a job also says how many of its owner's that have
// ended are kept; the two oldest of more are made due (overdue). What is due the leader
// removes by RemoveJob, in small steps.
//
// # Refusals
//
// Why a job file, a rule or an attribute was refused is remembered by name, until
// it is taken, for 30 days, and up to 1024 of them.
package state
