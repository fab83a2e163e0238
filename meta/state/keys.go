package state

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// The first byte of every key. doc.go draws what follows each.
const (
	kInode   = 'i'
	kDentry  = 'd'
	kXattr   = 'x'
	kExtent  = 'e'
	kBlock   = 'b'
	kSession = 's'
	kReply   = 'r'
	kOrphan  = 'o'
	kHeld    = 'w'
	kFreed   = 'g'
	kNode    = 'n'
	kJob     = 'j'
	kParam   = 'p'
	kTrash   = 'z'
)

// The second byte of a kJob key.
const (
	jRecord = 0 // id → Job
	jTask   = 1 // id n → Task
	jName   = 2 // name → id
	jActive = 3 // id → nothing: jobs that have not ended
	jOpen   = 4 // not written any more
	jUser   = 5 // uid id → nothing: jobs that have not ended, by owner
	jMemo   = 7 // digest of a task → Memo
	jDue    = 6 // time id → nothing: jobs that have ended, by when they are removed

	jTemplate = 8  // id → Task: what the tasks of its array are like
	jStaged   = 9  // id → Staged
	jDropped  = 10 // id → nothing: staged tasks that are to be removed
	jLoad     = 11 // uid → UserJobs
	jEnded    = 12 // uid time id → nothing: jobs that have ended then and are kept

	jAccount     = 13 // time id → Account
	jUserAccount = 14 // uid time id → nothing: accounts, by owner
	jSum         = 15 // day uid kernel → UsageSum

	jRefusal      = 20 // number → Refusal
	jRefusalName  = 21 // name → number
	jRefusalAbout = 22 // ino number → nothing
)

// Names of the kParam keys.
const (
	pApplied  = "applied"  // index, term
	pFormat   = "format"   // version of this layout
	pCluster  = "cluster"  // 16 bytes
	pHorizon  = "horizon"  // ns
	pPolicy   = "policy"   // the Policy given at Bootstrap
	pCounters = "counter/" // + name → 8 bytes
)

func be32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }
func be64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// ordered maps signed times to bytes that sort as they do.
func ordered(ns int64) uint64                { return uint64(ns) ^ 1<<63 }
func unordered(v uint64) int64               { return int64(v ^ 1<<63) }
func num32(b []byte) uint32                  { return binary.BigEndian.Uint32(b) }
func num64(b []byte) uint64                  { return binary.BigEndian.Uint64(b) }
func key8(b []byte, p byte, v uint64) []byte { return be64(append(b, p), v) }

// Cookie is the place of name in the order of a directory: the hash in its
// key. 0, 1 and 2 stand for the start, "." and "..".
func Cookie(name string) uint64 {
	h := xxhash.Sum64String(name) >> 1
	if h <= 2 {
		h = 3
	}
	return h
}

func inodeKey(b []byte, ino uint64) []byte  { return key8(b, kInode, ino) }
func blockKey(b []byte, id uint64) []byte   { return key8(b, kBlock, id) }
func sessionKey(b []byte, id uint64) []byte { return key8(b, kSession, id) }
func trashKey(b []byte, ino uint64) []byte  { return key8(b, kTrash, ino) }
func nodeKey(b []byte, id uint32) []byte    { return be32(append(b, kNode), id) }
func paramKey(b []byte, name string) []byte { return append(append(b, kParam), name...) }
func xattrKey(b []byte, ino uint64, name string) []byte {
	return append(key8(b, kXattr, ino), name...)
}
func extentKey(b []byte, ino, end uint64) []byte     { return be64(key8(b, kExtent, ino), end) }
func replyKey(b []byte, session, seq uint64) []byte  { return be64(key8(b, kReply, session), seq) }
func orphanKey(b []byte, ino, session uint64) []byte { return be64(key8(b, kOrphan, ino), session) }
func heldKey(b []byte, server uint32, block uint64) []byte {
	return be64(be32(append(b, kHeld), server), block)
}
func freedKey(b []byte, ns int64, block uint64) []byte {
	return be64(key8(b, kFreed, ordered(ns)), block)
}

func dentryKey(b []byte, parent uint64, name string) []byte {
	return append(be64(key8(b, kDentry, parent), Cookie(name)), name...)
}

func jobKey(b []byte, id uint64) []byte            { return be64(append(b, kJob, jRecord), id) }
func taskKey(b []byte, id uint64, n uint32) []byte { return be32(be64(append(b, kJob, jTask), id), n) }
func jobTemplateKey(b []byte, id uint64) []byte    { return be64(append(b, kJob, jTemplate), id) }
func stagedKey(b []byte, id uint64) []byte         { return be64(append(b, kJob, jStaged), id) }
func droppedKey(b []byte, id uint64) []byte        { return be64(append(b, kJob, jDropped), id) }
func userJobsKey(b []byte, uid uint32) []byte      { return be32(append(b, kJob, jLoad), uid) }
func jobNameKey(b []byte, name string) []byte      { return append(append(b, kJob, jName), name...) }
func jobUserKey(b []byte, uid uint32, id uint64) []byte {
	return be64(be32(append(b, kJob, jUser), uid), id)
}
func jobMemoKey(b, digest []byte) []byte { return append(append(b, kJob, jMemo), digest...) }
func jobDueKey(b []byte, ns int64, id uint64) []byte {
	return be64(be64(append(b, kJob, jDue), ordered(ns)), id)
}
func jobEndedKey(b []byte, uid uint32, ns int64, id uint64) []byte {
	return be64(be64(be32(append(b, kJob, jEnded), uid), ordered(ns)), id)
}
func accountKey(b []byte, ns int64, id uint64) []byte {
	return be64(be64(append(b, kJob, jAccount), ordered(ns)), id)
}
func userAccountKey(b []byte, uid uint32, ns int64, id uint64) []byte {
	return be64(be64(be32(append(b, kJob, jUserAccount), uid), ordered(ns)), id)
}
func sumKey(b []byte, day int32, uid uint32, kernel string) []byte {
	return append(be32(be32(append(b, kJob, jSum), uint32(day)^1<<31), uid), kernel...)
}
func refusalKey(b []byte, number uint64) []byte { return be64(append(b, kJob, jRefusal), number) }
func refusalNameKey(b []byte, uid uint32, name string) []byte {
	return append(be32(append(b, kJob, jRefusalName), uid), name...)
}
func refusalAboutKey(b []byte, ino, number uint64) []byte {
	return be64(be64(append(b, kJob, jRefusalAbout), ino), number)
}
func jobActiveKey(b []byte, id uint64) []byte { return be64(append(b, kJob, jActive), id) }

// after returns the first key that does not start with prefix; nil if there
// is none.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
