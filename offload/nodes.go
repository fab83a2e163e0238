package offload

import "quernfs/internal/wire"

// A synthetic inode number says what it is, so that none has to be remembered:
//
//	partition 16 bits, all ones | kind 5 | job 26 | task 17
//
// For errors/NAME and hosts/HOST the low 43 bits are a number of another kind.
// Job numbers wrap at 2^26; a job that old has long been collected.
type kind uint8

const (
	// In wire.ComputeIno.
	kindReadme kind = iota + 1
	kindJobs
	kindByName
	kindErrors
	kindHosts

	// Of a job.
	kindJob
	kindJobFile0                     // + index in jobFiles
	kindTasks    = kindJobFile0 + 10 // jobs/ID/tasks
	kindLink     = kindTasks + 1     // by-name/NAME

	// Of a task.
	kindTask      = kindLink + 1
	kindTaskFile0 = kindTask + 1 // + index in taskFiles (8)

	// Others.
	kindError     = kindTaskFile0 + 8
	kindHost      = kindError + 1
	kindHostFile0 = kindHost + 1 // + index in hostFiles (2)
)

// kindAPI is .compute/api; its number has task 1. That of .compute/accounting has
// task 2.
const kindAPI kind = 0

const (
	taskBits = 17
	jobBits  = 26
	lowBits  = taskBits + jobBits
	virtual  = uint64(wire.VirtualPartition) << 48
)

type node struct {
	kind kind
	job  uint64
	task uint32
}

func (n node) ino() uint64 {
	return virtual | uint64(n.kind)<<lowBits | n.job&(1<<jobBits-1)<<taskBits | uint64(n.task)&(1<<taskBits-1)
}

// low is a node of a kind that has one number of up to 43 bits.
func low(k kind, v uint64) node {
	v &= 1<<lowBits - 1
	return node{k, v >> taskBits, uint32(v & (1<<taskBits - 1))}
}

func (n node) low() uint64 { return n.job<<taskBits | uint64(n.task) }

func parseNode(ino uint64) (node, bool) {
	if wire.PartitionOf(ino) != wire.VirtualPartition {
		return node{}, false
	}
	return node{
		kind: kind(ino >> lowBits & (1<<(48-lowBits) - 1)),
		job:  ino >> taskBits & (1<<jobBits - 1),
		task: uint32(ino & (1<<taskBits - 1)),
	}, true
}

var (
	apiNode        = node{kind: kindAPI, task: 1}
	accountingNode = node{kind: kindAPI, task: 2}
)

// isDir says whether an entry of wire.ComputeIno is a directory.
func (n node) isDir() bool { return n.kind != kindAPI && n.kind != kindReadme }

var (
	jobFiles  = []string{"ctl", "events", "failed", "plan", "provenance", "reason", "spec", "state", "usage", "wait"}
	taskFiles = []string{"attempt", "device", "exit", "host", "state", "stderr", "stdout", "usage"}
	hostFiles = []string{"devices", "load"}
	topNames  = []string{"README", "accounting", "api", "by-name", "errors", "hosts", "jobs"}
	topNodes  = []node{{kind: kindReadme}, accountingNode, apiNode, {kind: kindByName}, {kind: kindErrors}, {kind: kindHosts}, {kind: kindJobs}}
)
