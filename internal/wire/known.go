package wire

import "fmt"

// Well-known inode numbers. The top 16 bits of every number are its
// partition; ordinary inodes of partition 0 start at FirstIno.
const (
	RootIno    uint64 = 1
	ComputeIno uint64 = 2 // /.compute
	QueueIno   uint64 = 3 // /.compute/queue
	KernelsIno uint64 = 4 // /.compute/kernels
	OutputsIno uint64 = 5 // has no name: holds the jobs' output directories
	RulesIno   uint64 = 6 // /.compute/rules
	UsersIno   uint64 = 7 // /.compute/users
	FirstIno   uint64 = 1024
)

// VirtualPartition marks inode numbers that no metadata server knows: the
// synthetic entries below /.compute.
const VirtualPartition = 0xFFFF

// PartitionOf returns the partition of an inode number.
func PartitionOf(ino uint64) uint32 { return uint32(ino >> 48) }

// AttemptDir is the name, below OutputsIno, of the directory that an attempt of a
// task leaves its results in.
func AttemptDir(node uint32, job uint64, n, attempt uint32) string {
	return fmt.Sprintf("attempt.%d.%d.%d.%d", node, job, n, attempt)
}

// Bits of SetAttr.mask.
const (
	SetMode  = 1
	SetUID   = 2
	SetGID   = 4
	SetSize  = 8
	SetAtime = 16
	SetMtime = 32
	SetCtime = 64
	AtimeNow = 128 // the leader's clock, in place of atime_ns
	MtimeNow = 256
)

// Values of Lock.type.
const (
	ReadLock  = 0
	WriteLock = 1
	Unlock    = 2
)

// Limits.
const (
	MaxName    = 255
	MaxSymlink = 4095
	MaxLinks   = 65000
	MaxXattr   = 65536
	MaxFile    = 1<<63 - 1
	BlockSize  = 4 << 20 // largest block
	LeafSize   = 64 << 10
	InlineMax  = 2 << 10
)
