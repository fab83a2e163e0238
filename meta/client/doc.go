// Package client talks to the metadata servers: it finds the leader, carries
// out commands exactly once, keeps a session and its leases alive, and hands
// what the leader pushes to its Holder.
//
// # Exactly once
//
// Do numbers each command within the session and repeats it, with the same
// number, at whoever leads, until it has an answer or CallTimeout has passed.
// The servers carry out a number once and answer a repetition with the stored
// reply. A Do that returned Timeout, Unavailable or Interrupted may have been
// carried out, once. Without a session (no Holder) a command may be carried
// out twice: only commands that do no harm so are allowed then.
//
// # Leases
//
// A session is alive at meta as long as it renews; all of its leases share
// that one life. The client renews every quarter of the lease time over the
// push stream, counts from the moment it sent the renewal, and takes a tenth
// off, so that its own view always ends before the leader's.
//
// The callbacks of a Holder come one after another, on one goroutine, except
// Recall. Their order:
//
//	Capability, Nodes            any time after Open began
//	Lapsed                       no renewal in time: nothing cached is valid now
//	Reclaimed                    after each reconnection: what is held from now on
//	Ended                        meta had ended the session; a new one is open
//
// Lapsed is called at most once between two of {Open, Reclaimed, Ended}; a
// short interruption leads to Reclaimed without Lapsed. After a reconnection
// exactly one of Reclaimed and Ended is called. Recalls that a leader sends
// are handed over only after the Reclaimed or Ended that came before them has
// returned; each then runs on a goroutine of its own.
//
// # Grants that come late
//
// A reply and a recall travel on different streams and may overtake each
// other. A Holder records a grant out of a Result or Answer only if its id is
// above
//
//   - the id of every Recall of that inode seen so far, those with names
//     included, and
//   - Client.Floor(), asked under the same lock under which Held is answered.
//
// The floor rises, before Held is called, over every grant received so far;
// so a grant is either recorded in time to be listed in Held, or void. A
// leader may believe that a session holds more than it knows of; that does no
// harm, for a recall of an unknown lease is answered with NONE.
//
// What may be cached: attributes and names that came in a reply which also
// carried a valid grant for their inode (for a name: for its directory). A
// reply without a grant is a true answer, but may be out of date at once,
// also when an older lease on the inode is held.
package client
