// Package worker runs WebAssembly modules in a process of their own.
//
// A Process (the keeper's side) starts `quern worker wasm` with one end of a
// socket pair as file descriptor 3, gives it one run after the other, and feeds
// it. What goes wrong inside costs a SIGKILL: a time-out, a cancelled run and a
// peer that breaks the protocol all end so. Nothing in a worker is ever asked
// to stop. A worker dies with the thread that started it (PDEATHSIG), which
// lives as long as the worker does, so a killed agent leaves none behind.
//
// # Frames
//
//	length uint32 LE (of kind and body) | kind uint8 | body
//
//	keeper → worker
//	  1 run    JSON Run
//	  2 input  size uint64 LE | path          one for each input, in order, after run
//	  3 data   status uint8 | bytes           the answer to read: 0 and the bytes, or 1 and a reason
//	  4 content bytes                         after each input, if Run.Contents: all of it
//	worker → keeper
//	  16 ready                                once, after the start
//	  17 read  input uint32 | offset uint64 | length uint32, all LE
//	  18 out   bytes of the standard output
//	  19 err   bytes of the standard error
//	  20 exit  JSON Exit                      ends the run
//
// The worker speaks only while it runs something, and waits for data after
// read: so it needs no second goroutine, which a module that loops without a
// call would starve. No frame is longer than MaxFrame. Inputs that are small
// together go with the run; who has them does not ask.
//
// # What a module sees
//
// Its arguments and environment; /in, read-only, with the inputs under their
// paths in the namespace; the standard input, which is the inputs in order, one
// after the other; clocks; a random source that is the same in every run.
// Nothing else: no network, no place to write but standard output and error.
//
// # Commands and reactors
//
// A module with _start is a command: each run has an instance of its own. One with
// quern_task instead is a reactor: one instance serves run after run, and is made
// after each what it was after its _initialize (reactor.go).
package worker
