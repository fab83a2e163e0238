package state

import (
	"math"
	"slices"
	"sort"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// Limits of one answer, whatever was asked for.
const (
	maxEntries = 16384
	maxExtents = 65536
	maxBlocks  = 4096
	maxJobs    = 4096
)

// Query answers all reads that need nothing but the state. Like a system
// call on an open file, ReadDir and GetExtents need no permission: the caller
// asks Access when it opens. A refusal is a code in the answer; an error means
// that the database failed. Operations that only the leader can answer get
// Unsupported; StatFS gets what the state knows.
func (s *State) Query(q *wire.Query) (*wire.Answer, error) {
	var a *wire.Answer
	index, _ := s.Applied()
	err := s.read(func(v *view) {
		if q.GetPartition() != 0 {
			a = refuse(wire.CrossPart)
			return
		}
		a = v.answer(q)
	})
	if err != nil {
		return nil, err
	}
	a.Index = index
	return a, nil
}

func refuse(code wire.Code) *wire.Answer { return &wire.Answer{Code: uint32(code)} }

func (v *view) answer(q *wire.Query) *wire.Answer {
	switch op := q.GetOp().(type) {
	case *wire.Query_Lookup:
		return v.lookup(q.Cred, op.Lookup)
	case *wire.Query_GetInode:
		if in := v.inode(op.GetInode.GetIno()); in != nil {
			return inodeAnswer(in, nil)
		}
		return refuse(wire.NotFound)
	case *wire.Query_Access:
		return v.access(q.Cred, op.Access)
	case *wire.Query_ReadDir:
		return v.readDir(op.ReadDir)
	case *wire.Query_GetXattr:
		return v.getXattr(q.Cred, op.GetXattr)
	case *wire.Query_ListXattr:
		return v.listXattr(q.Cred, op.ListXattr)
	case *wire.Query_GetExtents:
		return v.getExtents(op.GetExtents)
	case *wire.Query_GetBlocks:
		return v.getBlocks(op.GetBlocks)
	case *wire.Query_StatFs:
		return &wire.Answer{Op: &wire.Answer_StatFs{StatFs: &wire.StatFSAnswer{Inodes: v.counters()[countInodes]}}}
	case *wire.Query_ListJobs:
		return v.listJobs(op.ListJobs)
	case *wire.Query_GetMemo:
		return v.getMemo(op.GetMemo)
	case *wire.Query_GetJob:
		return v.getJob(op.GetJob)
	case *wire.Query_ListRefusals:
		return v.listRefusals(op.ListRefusals)
	case *wire.Query_ListAccounts:
		return v.listAccounts(op.ListAccounts)
	case *wire.Query_ListUsage:
		return v.listUsage(op.ListUsage)
	}
	return refuse(wire.Unsupported)
}

func inodeAnswer(in, parent *wire.Inode) *wire.Answer {
	return &wire.Answer{Op: &wire.Answer_Inode{Inode: &wire.InodeAnswer{Inode: in, Parent: parent}}}
}

// lookup returns the parent too, also when there is no entry.
func (v *view) lookup(cred *wire.Cred, op *wire.Lookup) *wire.Answer {
	dir := v.inode(op.GetParent())
	switch {
	case dir == nil || dir.Attr.Nlink == 0:
		return refuse(wire.NotFound)
	case !isDir(dir):
		return refuse(wire.NotDir)
	}
	if code := checkName(op.Name); code != wire.OK {
		return refuse(code)
	}
	if !v.allowed(dir, cred, MayExec) {
		return refuse(wire.Denied)
	}
	d := v.dentry(op.Parent, op.Name)
	if d == nil {
		a := inodeAnswer(nil, dir)
		a.Code = uint32(wire.NotFound)
		return a
	}
	in := v.inode(d.Ino)
	if in == nil {
		return refuse(wire.Internal)
	}
	return inodeAnswer(in, dir)
}

func (v *view) access(cred *wire.Cred, op *wire.Access) *wire.Answer {
	in := v.inode(op.GetIno())
	switch {
	case in == nil:
		return refuse(wire.NotFound)
	case !v.allowed(in, cred, op.Mask):
		return refuse(wire.Denied)
	}
	return inodeAnswer(in, nil)
}

func (v *view) readDir(op *wire.ReadDir) *wire.Answer {
	dir := v.inode(op.GetIno())
	switch {
	case dir == nil:
		return refuse(wire.NotFound)
	case !isDir(dir):
		return refuse(wire.NotDir)
	}
	limit := int(min(op.Limit, maxEntries))
	if limit == 0 {
		limit = 1024
	}
	out := &wire.DirAnswer{Eof: true, Parent: dir.Parent}
	if op.After != math.MaxUint64 {
		lo, hi := be64(key8(nil, kDentry, op.Ino), op.After+1), after(key8(nil, kDentry, op.Ino))
		v.scan(lo, hi, func(key, value []byte) bool {
			d := new(wire.Dentry)
			_, cookie, name, err := splitDentry(key)
			if err != nil {
				v.fail(corrupt(key, err))
				return false
			}
			n := len(out.Entries)
			if n >= limit && out.Entries[n-1].Cookie != cookie {
				out.Eof = false
				return false
			}
			if !v.decode(key, value, d) {
				return false
			}
			out.Entries = append(out.Entries, &wire.DirEntry{Name: name, Ino: d.Ino, Type: d.Type, Cookie: cookie})
			return true
		})
	}
	if op.Plus {
		for _, e := range out.Entries {
			e.Inode = v.inode(e.Ino)
		}
	}
	return &wire.Answer{Op: &wire.Answer_Dir{Dir: out}}
}

func xattrAnswer(x *wire.XattrAnswer) *wire.Answer {
	return &wire.Answer{Op: &wire.Answer_Xattr{Xattr: x}}
}

func (v *view) getXattr(cred *wire.Cred, op *wire.GetXattr) *wire.Answer {
	in := v.inode(op.GetIno())
	if in == nil {
		return refuse(wire.NotFound)
	}
	if code := v.mayXattr(in, cred, op.Name, false); code != wire.OK {
		return refuse(code)
	}
	if op.Name == PolicyXattr {
		return xattrAnswer(&wire.XattrAnswer{Value: []byte(block.FromWire(in.Policy).String())})
	}
	value, ok := v.xattr(op.Ino, op.Name)
	if !ok {
		return refuse(wire.NoAttr)
	}
	return xattrAnswer(&wire.XattrAnswer{Value: value})
}

// listXattr hides trusted attributes from everyone but root, as Linux does.
func (v *view) listXattr(cred *wire.Cred, op *wire.ListXattr) *wire.Answer {
	in := v.inode(op.GetIno())
	if in == nil {
		return refuse(wire.NotFound)
	}
	x := new(wire.XattrAnswer)
	if in.HasXattr {
		v.prefix(key8(nil, kXattr, op.Ino), func(key, _ []byte) bool {
			name := string(key[9:])
			if isRoot(cred) || len(name) < 8 || name[:8] != "trusted." {
				x.Names = append(x.Names, name)
			}
			return true
		})
	}
	return xattrAnswer(x)
}

func (v *view) getExtents(op *wire.GetExtents) *wire.Answer {
	in := v.inode(op.GetIno())
	switch {
	case in == nil:
		return refuse(wire.NotFound)
	case isDir(in):
		return refuse(wire.IsDir)
	}
	limit := int(min(op.Limit, maxExtents))
	if limit == 0 {
		limit = 4096
	}
	upto := uint64(wire.MaxFile)
	if op.Len != 0 && op.Off < upto && op.Len < upto-op.Off {
		upto = op.Off + op.Len
	}
	out := &wire.ExtentsAnswer{Inode: in, Upto: upto}
	seen := map[uint64]bool{}
	if !in.HasInline && in.Attr.Allocated > 0 {
		v.extents(op.Ino, op.Off, func(ex *wire.Extent) bool {
			if ex.Off >= upto {
				return false
			}
			if len(out.Extents) == limit {
				out.Upto = ex.Off
				return false
			}
			out.Extents = append(out.Extents, ex)
			seen[ex.Block] = true
			return true
		})
	}
	ids := make([]uint64, 0, len(seen))
	for id := range seen {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	for _, id := range ids {
		b := v.block(id)
		if b == nil {
			v.fail(corrupt(blockKey(nil, id), errLost))
			break
		}
		out.Blocks = append(out.Blocks, b)
	}
	return &wire.Answer{Op: &wire.Answer_Extents{Extents: out}}
}

// getBlocks passes over ids that have no record.
func (v *view) getBlocks(op *wire.GetBlocks) *wire.Answer {
	if len(op.GetIds()) > maxBlocks {
		return refuse(wire.Range)
	}
	out := new(wire.BlocksAnswer)
	for _, id := range op.GetIds() {
		if b := v.block(id); b != nil {
			out.Blocks = append(out.Blocks, b)
		}
	}
	return &wire.Answer{Op: &wire.Answer_Blocks{Blocks: out}}
}

func (v *view) listJobs(op *wire.ListJobs) *wire.Answer {
	out := new(wire.JobsAnswer)
	if op.DueNs != 0 {
		v.scan([]byte{kJob, jDue}, jobDueKey(nil, op.DueNs, 0), func(key, _ []byte) bool {
			if j := v.job(num64(key[10:])); j != nil {
				out.Jobs = append(out.Jobs, j)
			}
			return len(out.Jobs) < int(min(max(op.Limit, 1), maxJobs))
		})
		return &wire.Answer{Op: &wire.Answer_Jobs{Jobs: out}}
	}
	if op.GetName() != "" {
		if id, ok := v.jobNamed(op.Name); ok {
			if j := v.job(id); j != nil {
				out.Jobs = append(out.Jobs, j)
			}
		}
	} else if op.After != math.MaxUint64 {
		limit := int(min(op.Limit, maxJobs))
		if limit == 0 {
			limit = 1024
		}
		v.scan(jobKey(nil, op.After+1), after([]byte{kJob, jRecord}), func(key, value []byte) bool {
			j := new(wire.Job)
			if v.decode(key, value, j) {
				if op.Brief {
					j.Spec, j.Events, j.Kernels = nil, nil, nil
				}
				out.Jobs = append(out.Jobs, j)
			}
			return len(out.Jobs) < limit
		})
	}
	return &wire.Answer{Op: &wire.Answer_Jobs{Jobs: out}}
}

func (v *view) getJob(op *wire.GetJob) *wire.Answer {
	j := v.job(op.GetId())
	if j == nil {
		return refuse(wire.NotFound)
	}
	out := &wire.JobsAnswer{Jobs: []*wire.Job{j}}
	if op.Tasks {
		each := v.tasks
		if op.Recorded {
			each, out.Template = v.recorded, v.template(j)
		}
		each(j, op.First, func(task *wire.Task) bool {
			if len(op.States) == 0 || slices.Contains(op.States, task.State) {
				out.Tasks = append(out.Tasks, task)
			}
			return op.Count == 0 || len(out.Tasks) < int(op.Count)
		})
	}
	return &wire.Answer{Op: &wire.Answer_Jobs{Jobs: out}}
}
