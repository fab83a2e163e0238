// Package linear judges histories of a filesystem's operations: whether there is
// an order in which each happened at one moment between its call and its return,
// and in which a filesystem of one machine would have answered the same.
// porcupine does the search; this package has the model.
//
// # What is modelled
//
// Directories that are there from the start, and regular files in them. A
// partition is judged by itself, so that the search stays short:
//
//	a group of directories   create (O_EXCL), link, rename (plain, NOREPLACE,
//	                         EXCHANGE), unlink, look-up, list
//	the contents of a file   write, read, size, truncate
//	a lock                   take, give up
//
// Files are named by their inode number where an operation does not go by name:
// link and everything about contents. Names and contents so fall apart into
// partitions; what joins them (a look-up finds the file that was created, and
// its contents are those of that file) is the number.
//
// A read is not atomic beside a change of the size, as on those of Linux's own
// filesystems that take no lock for it: it may end where the file ended when it
// began, and show zeros for what has been cut off. A kernel copies a write into its
// cache before it asks for it to be carried out, so what a client reads while it
// writes tells nothing.
//
// # Outcomes that nobody knows
//
// An operation without an answer (a time-out, a client that was killed) may have
// happened, may happen at any later time, or never. It is given a return after
// everything else, and the model lets it act or not.
//
// What a client wrote and had not flushed when it was killed may be lost, in
// part too, as on any filesystem. Recorder.Killed takes back what that client
// was told: each of those writes becomes one of unknown outcome, and what the
// client itself read of the file since then, which may have been its own write,
// is no longer part of the history. What another client has read stays: it was
// stored by then. Locks end at an unknown moment after their owner's death.
//
// # Time
//
// Calls and returns are numbered in the order in which they happened, by one
// counter for all clients. So the clocks of clients do not matter.
package linear
