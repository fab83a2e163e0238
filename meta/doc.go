// Package meta is the metadata server: the state machine of meta/state,
// replicated by Raft, and the leader's half of sessions, leases, file locks,
// placement and maintenance.
//
//	client ──Mutate──▶ admit ─▶ names held ─▶ leases recalled ─▶ stamped ─▶ log ─▶ state ─▶ grants ─▶ Result
//	       ──Query───▶ leadership verified ─▶ WRITE recalled to READ ─▶ grants ─▶ state ─▶ Answer
//	       ◀─Recall── push stream ──Recalled, Renew, Release──▶
//
// Only the leader serves; the others answer NotLeader and say where to go. Who
// belongs to the servers that elect it, and what becomes of one that has lost its
// directory, is told in package group.
//
// # Promises
//
//   - A command is durable on a majority before its Result is sent. One that
//     carries (session, seq) takes effect once, whoever leads, however often it
//     is sent.
//   - Answers are linearizable: the leader has verified within a fraction of its
//     own lease that no other can have been elected, and what other sessions
//     delay under WRITE has been recalled first.
//   - No lease conflicts with another one, with a change under way, or with one
//     given by an earlier leader: package lease, and the grace below.
//   - What a lease covers never changes without a recall that was answered,
//     unless the holder has been fenced.
//   - Every wait ends: with its condition, with Timing.OpTimeout (code Timeout),
//     with the caller's context, or with the term (NotLeader).
//
// # Turns
//
// At most 256 commands, and 4 MiB of them, are in the log and not applied yet; and
// some queries read the state at a time. Others wait for their turn (turnstile.go), for
// which users share alike, and the sessions of each: so a storm of one user, or of
// one mount, delays others by what goes on in this moment only. One session has at
// most a quarter of the commands that may be under way. The leader's own commands
// wait for nobody.
//
// # Records that come with leases
//
// A record may be cached only together with the lease it came with. The lease
// is given first, under the leader's mutex, and the record read afterwards:
// whoever changes it later has to recall the lease, whoever had begun before
// kept it from being given. A directory whose entries another session is
// changing may be leased, but its own record is then left out of the reply.
//
// # Look-ups, and who changed a name last
//
// A look-up of a name that is being changed waits for the change, unless somebody
// waits for its session to forget a name: the session's kernel may hold the
// directory's lock over the look-up (lease.Urgent). Then it is told what the name
// still is.
//
// A session's own change recalls nothing from the session, whose kernel believes the
// old name until it has looked at the result. So for a second (freshFor) the name is
// recalled from the session before anybody else is told of it: in answer to a look-up
// or a listing, or by the failure of a command (fresh.go).
//
// # Sessions and time
//
// A session's life is a time on the leader's clock, extended by each renewal.
// No life is given beyond the replicated LeaseHorizon; it is moved ahead
// rarely, so that renewing costs nothing. A session whose life has run out is
// kept (courtesy) until somebody has to wait for it, or for Timing.Courtesy;
// then EndSession{fenced} is put into the log, and what it still sends finds
// no session.
//
// A new leader forgets all leases and locks. Until every session has come back
// and said what it holds, or the recorded horizon has passed, or a lease time
// since its election (the last leader had stepped down by then), it serves only
// what nothing can conflict with: hellos, renewals, heartbeats, allocation.
// Then it fences those who are missing. Clocks of members are assumed to agree
// within a second or so; only the first of these limits depends on that.
//
// # Who may say what
//
// permits.go has a row for each method and query: which roles may send it. commands.go has
// one for each command: that, and all else that the leader has to know of it. What
// a peer says is of itself: of the session that its certificate opened, the node that it
// registered, the attempt that was given to it. The leader stamps role and
// name of the certificate into OpenSession and PutNode, so that the next leader knows
// them too. docs/security.md says who is trusted with what.
//
// # Disk format
//
//	DIR/quern-meta          "quern metadata 1\n"
//	DIR/lock                flock: held while the server runs
//	DIR/member              "quern member 1\nid ID\ncluster HEX\n": who it is in the group (package group)
//	DIR/log/                raft-wal: the log, and raft's term and vote
//	DIR/current             "state-N\n": the state directory in use
//	DIR/state-N/            Pebble, without a log of its own
//	DIR/snapshots/TERM-INDEX/
//	      meta.json         raft's description of the snapshot
//	      state/            a checkpoint of this server's state, linked files; or
//	      stream.tar        one that the leader sent
//	DIR/tmp-*               work in progress, removed at the start
//
// A snapshot travels as an uncompressed USTAR archive of the checkpoint's files.
// Taking one flushes the state, so the log is needed from there on only. After
// a crash raft replays the log from the last snapshot, and the state machine
// passes over what it has, if index and term are those of its last entry: at the start, at
// each replay, and when a leader cuts the log or sends a snapshot, what the
// state has applied is held against the log, and a server that does not agree with
// it stops as damaged. Installing one writes state-N+1 beside state-N, and
// replaces `current`: a crash leaves one or the other.
//
// # What chunk servers are told
//
// They ask, by their heartbeats. Freed blocks older than Config.DeleteDelay (a
// second where room runs short) are deleted on each server and purged once all have confirmed, or are out or
// silent for Config.DeadAfter. Missing shards, and those on servers that are
// draining, out or silent, are rebuilt on others, fewest spare shards first, a
// bounded number at once. A client's report of a bad shard has a new one made;
// the old one is counted on until then. All of it is planned again from the
// state every second, so a change of leaders loses nothing.
//
// # Shards that belong to nobody
//
// A writer that dies between storing a block and committing it leaves shards that
// no record names, and a put that seemed to fail and did not leaves a surplus copy.
// Chunk servers therefore list all they hold, a page a heartbeat, about once an
// hour. A shard is deleted when
//
//   - its block id is below the floor of meta/state, and there is no record of the
//     block: none can be made any more, so nobody will ever read it; or
//   - its block id is below the floor, the block's record names another server for
//     it, which is alive, and no rebuild of it on this one has been ordered. Only a rebuild could
//     make the record name this server; package chunkd excludes one from being
//     carried out together with the removal, and the leader verifies that it
//     still leads after it has read the state and before it asks for a removal.
//
// The floor follows the ids handed out, Timing.TicketLife later: each leader notes
// every quarter of it which id is next, and proposes ExpireTickets when a note has
// become old enough. A new leader starts with no notes, so a change of leaders
// only delays. That clocks are wrong, or a writer slower than TicketLife, costs the
// writer one more upload, never a byte: its commit is refused as a whole.
//
// A shard that is recorded on a server and missing in a page is recorded as lost, as
// if the server had said so itself, and made anew. The page is evidence only against
// what was recorded before it was listed: blocks committed up to the log index
// that the server had been told before, and shards rebuilt there that it reported
// in this heartbeat or an earlier one, which is why one that a later heartbeat has
// overtaken is no evidence.
package meta
