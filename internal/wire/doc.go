// Package wire holds every message that QuernFS sends, logs or stores, the
// codes of its errors, and the numbers of its calls.
//
// quern.proto is the one source. A mutation has one encoding: the Command that
// a client sends is the entry of the Raft log, with the time and the ids that
// the leader stamped into it. Fields are only added; numbers are never reused.
//
// Regenerate quern.pb.go with `make proto` after a change.
package wire
