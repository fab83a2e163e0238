// Package transport carries calls between the processes of a cluster: QUIC
// between hosts, a Unix socket on one host, a function call in one process,
// all behind the one interface of transport.go.
//
// # Promises
//
//   - The same call has the same outcome over every kind of connection; one test
//     suite (contract_test.go) holds them to it.
//   - No wait is without end. A call obeys its context, or DefaultTimeout; its
//     deadline and its cancellation reach the handler's context. Connecting takes
//     at most dialLimit. A connection or a stream ends when its peer has taken
//     nothing for stallLimit, or has not been heard of for idleLimit (QUIC).
//   - An answer is the peer's; no answer is wire.Timeout (the deadline),
//     wire.Interrupted (the caller gave up), wire.Unavailable (the connection)
//     or wire.Shutdown (the server is stopping). After those the call may have
//     been carried out all the same: whoever repeats it must be able to.
//   - Nothing is allocated for a length that a peer claims before it has been
//     compared with MaxMessage or MaxPayload.
//
// # Who is who
//
// Over QUIC both sides show a certificate of the cluster's own CA (Authority);
// its common name is "role:name". The server takes role and name from it and
// refuses what the method's roles do not allow; the client demands a server's
// role (meta, chunkd, edge), so that no mount can pose as a server. Host names
// are not compared, though certificates may list them: servers move between
// hosts and addresses, the CA certifies members of this cluster and nothing
// else, and what a caller wants of a server (this shard, that leader) is checked
// by the messages themselves. A Unix socket has mode 0600 and takes only
// processes of the same user or root (SO_PEERCRED), who could read the server's
// files and certificate anyway: there, as within a process, the caller's role
// and name are what it declares.
//
// # The parts
//
//	Pool ──finds or dials──▶ Conn ┬─ localConn ──────────── function call ──────────┐
//	                              └─ framedConn ─ pipes ─ frames ─▶ servedPipe ─▶ Mux ─▶ Handler
//
// A pipe is a two-way stream of bytes: a stream of the one QUIC connection
// (quicPipe), or a Unix socket (unixPipe). Everything above pipes is the same
// for both:
//
//	callPipe      few, long-lived, shared by all small calls, told apart by id;
//	              frames of calls that run at once leave in one write (sender)
//	bulkPipe      one call at a time, with payload; kept for the next one; giving
//	              a call up closes it
//	(files)       a bulkPipe whose reply has a descriptor beside its first byte
//	              (SCM_RIGHTS); Unix only
//	framedStream  one stream of messages
//	rawPipe       raft's own bytes; its opening says which member and cluster are meant
//
// A long request (over smallMessage) goes over a bulk pipe, so that calls never
// wait behind it. A pipe opened anew for each call would cost two to ten times
// the call.
//
// # The format
//
// Numbers are little-endian. A pipe carries frames, one after another:
//
//	 0         1      2        4                8                12           16      24
//	┌─────────┬──────┬────────┬────────────────┬────────────────┬────────────┬───────┬─────────┬─────────┐
//	│ version │ type │ method │ message length │ payload length │ millis     │ id    │ message │ payload │
//	│ u8 = 1  │ u8   │ u16    │ u32            │ u32            │ u32        │ u64   │         │         │
//	└─────────┴──────┴────────┴────────────────┴────────────────┴────────────┴───────┴─────────┴─────────┘
//
//	type         from    message        payload
//	 1 open      client  wire.Opening           the first frame: the pipe's use, and who calls
//	 2 accept    server  none                   the pipe is ready
//	 3 call      client  the request    bulk    millis: left to the deadline
//	 4 reply     server  the reply      bulk
//	 5 failure   server  wire.Failure           in place of accept or reply
//	 6 cancel    client  none                   nobody waits for call id any more
//	 7 message   both    of the stream          method's Req towards the server, Resp back
//	 8 end       both    none, Failure          the sender has left the stream
//	 9 bye       server  none                   no more calls on this connection
//	10 pulse     client  none                   so that a restarted server says so
//
// ALPN ("quern/1") and the version byte change together.
//
// # A server's end
//
// Server.Close accepts nothing more, ends the streams, says bye, and lets calls
// in flight finish. A client that has been told bye begins no call on that
// connection; once it has its last answer it closes it, which tells the server
// that nothing is left on its way.
package transport
