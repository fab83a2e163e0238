// Package integration tests QuernFS as its users meet it: the real binary, real
// processes, real mounts. It needs root and /dev/fuse and says so where they are
// missing. Each test has a cluster of its own in a temporary directory.
//
//	harness_test.go   starts, kills and inspects clusters
//	apps_test.go      real input: cp, diff, go build, git, sqlite, rsync
//	lost_test.go      nothing lost: kill -9 of servers and of everything
//	corrupt_test.go   bit flips
//	power_test.go     power cuts
//	two_test.go       two mounts, one truth
//	bad_test.go       bad input: one clear sentence
//	hang_test.go      never a hang
//	job_test.go       a job from /.compute end to end
//	net_test.go       everything over QUIC
//	process_test.go   processes of one host, servers of many
//	linear_test.go    several mounts, leaders and mounts killed: one order explains it
//	journal_test.go   a writer that remembers what was acknowledged
//	imports_test.go   imports point down
//
// QUERN_LONG=1 runs the long versions. QUERN_BIN names a binary to test instead
// of building one. QUERN_KEEP=1 keeps the directories of failed tests.
package integration
