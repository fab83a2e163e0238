// Command quern is every role of QuernFS in one binary: metadata server, chunk
// server, mount, and the commands that make, run and watch a cluster. It holds
// flags, wiring and printing; what the roles do is in meta, chunkd, fs and
// offload.
//
// # A data directory
//
// Everything that one host keeps lies below one directory, DIR:
//
//	DIR/cluster.json    members, policy, the chunk servers `quern up` runs here
//	DIR/cluster.key     32 random bytes, of meta and chunk servers only
//	DIR/pki/ca/         the cluster's certificate authority (where it was made)
//	DIR/pki/NAME/       certificate and key of one process
//	DIR/meta-N/         a metadata server's log and state
//	DIR/chunkd-N/       a chunk server's segments and index
//	DIR/compute/        compiled kernels of the agent
//	DIR/lock            locked by `quern up`; its process id
//	DIR/run/NAME.pid    locked by the process NAME as long as it lives
//	DIR/run/NAME.log    its output, when it does not run in the foreground
//	DIR/run/NAME.session  the session that a mount has open
//	DIR/run/NAME.sock   its Unix socket
//
// cluster.json is written last when a DIR is made, so a DIR with one is whole.
//
// # Where to read
//
//	up.go         everything in one process
//	processes.go  a process for each role; start and down
//	roles.go      how each role is put together from its package
//	cluster.go    the data directory
//	mount.go      mount, and mount.fuse.quern
//	status.go     status; job.go: jobs
package main
