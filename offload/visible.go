package offload

import (
	"slices"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// What a job is, does and leaves is its owner's: params may be secrets, the plan names
// his files, and the results are made of what only he may read. Names and owners of
// jobs are seen by all, as in any queue.

// seenBy is who may read a job's files, and the permissions of what it leaves: those of
// the file that it was submitted with, which had its owner's umask.
func seenBy(v jobfile.Visibility, file uint32) (wire.Visibility, uint32) {
	mode := 0o600 | file&0o066
	switch v {
	case jobfile.All:
		return wire.Visibility_EVERYBODY, mode | 0o044
	case jobfile.Group:
		return wire.Visibility_GROUP, mode | 0o040
	}
	return wire.Visibility_OWNER, mode
}

// dirMode are the permissions of a directory of files with the permissions mode.
func dirMode(mode uint32) uint32 { return mode | mode>>2&0o111 }

// readable are the permissions of a synthetic file or directory of a job.
func readable(v wire.Visibility, dir bool) uint32 {
	mode := uint32(0o400)
	switch v {
	case wire.Visibility_EVERYBODY:
		mode = 0o444
	case wire.Visibility_GROUP:
		mode = 0o440
	}
	if dir {
		return dirMode(mode)
	}
	return mode
}

// visible says whether cred may read what a job says of itself.
func (s shape) visible(cred *wire.Cred) bool {
	switch uid := cred.GetUid(); {
	case uid == 0, uid == s.uid, s.seen == wire.Visibility_EVERYBODY:
		return true
	case s.seen == wire.Visibility_GROUP:
		return cred.GetGid() == s.gid || slices.Contains(cred.GetGroups(), s.gid)
	}
	return false
}

func visible(cred *wire.Cred, job *wire.Job) bool {
	return shape{uid: job.Cred.GetUid(), gid: job.Cred.GetGid(), seen: job.Visibility}.visible(cred)
}

// resultMode are the permissions of the files that a job leaves.
func resultMode(job *wire.Job) uint32 {
	if job.Mode == 0 {
		return 0o644
	}
	return job.Mode & 0o777
}
