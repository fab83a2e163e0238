// Package group is the raft group of the metadata servers: which server belongs
// to it, which of them votes, and which one may begin it.
//
// Raft promises that what was acknowledged is never lost, as long as each
// voter remembers its log and its votes. A directory that was lost breaks that
// promise silently: a server that comes back empty under its old identity can
// be the majority that elects a leader without what it had acknowledged. So
// here an empty server is never its old self again.
//
// # Promises
//
//   - A group is begun once, by the one server that has the right to
//     (Home.MayBegin), which is used up before anything can be acknowledged. A
//     server without a log and without the right begins nothing: it asks the
//     others, or, where there are none, refuses to start.
//   - A server that starts without a log takes a new id, NAME/INCARNATION. Votes
//     and acknowledgements of the old id belong to the old id, which the leader
//     removes before it takes the new one in.
//   - Raft's messages name the member and the cluster that they are meant for, and are
//     refused by every other. So a leader or candidate that has not heard of
//     the change never counts the new server as the old one.
//   - A server votes only while its own log says that it is a voter. The leader
//     makes it one when it is at most a few entries behind.
//   - Where no majority of voters that have their logs can be reached, nobody leads,
//     and nobody new is taken in: the empty server says so and waits.
//   - What the state has applied stays in the log, or in a snapshot, with the same
//     index and term (Agree). A leader that contradicts it, by cutting that entry
//     off or by an older snapshot, stops the server as damaged.
//
// # The life of a member
//
//	no log, the right ──▶ begins: {itself} votes ─────────────────────────┐
//	no log, no right  ──▶ new id ──join──▶ leader: removes those of its name that do not answer
//	                                 ▲      leader: takes it in, without a vote
//	                                 │      log or snapshot comes; it catches up
//	                                 └───── leader: gives it its vote ────▶ votes
//	a log             ──▶ the id that it had; if no leader wants it for long, as above
//
// Each join does one of these steps, chosen by decide, and is sent again until
// the answer says "voter"; the leader keeps nothing about it between two. The group
// changes by one server at a time, and a change is committed before the next
// begins, so any two majorities that follow each other have a member in common.
//
// A server with a log that is in the group no more, since another of its name
// took its place, comes back by the same way: it has forgotten nothing.
//
// What cannot be seen here: a directory that was put back as it was some time
// ago. It has forgotten votes like an empty one, and looks whole.
package group
