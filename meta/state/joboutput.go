package state

import (
	"cmp"

	"quernfs/internal/wire"
)

// outputMode is the mode of a file that a job leaves.
func outputMode(j *wire.Job) uint32 { return sIFREG | cmp.Or(j.Mode, 0o644)&0o777 }

// checkOutputs says why the files of op cannot be made; nil: they can, or there
// are none.
func (t *tx) checkOutputs(j *wire.Job, task *wire.Task, op *wire.UpdateTask) *wire.Result {
	if len(op.Files) == 0 || op.Task.State != stateSucceeded {
		return nil
	}
	dir, r := t.resultDir(j, task, op.ResultDir)
	if r != nil {
		return r
	}
	limit := max(dir.Policy.GetInlineMax(), wire.InlineMax)
	for _, f := range op.Files {
		if code := checkName(f.GetName()); code != wire.OK {
			return failf(code, "an output cannot be called %q: %v", f.GetName(), code)
		}
		if len(f.Content) > int(limit) {
			return failf(wire.Invalid, "output %s: %d bytes, at most %d go with the report", f.Name, len(f.Content), limit)
		}
		if dir.Attr.Ino != j.OutDir {
			if r := t.mayTake(j, dir, f.Name); r != nil {
				return r
			}
			continue
		}
		d := t.dentry(j.OutDir, f.Name)
		if d == nil {
			continue
		}
		switch old := t.inode(d.Ino); {
		case old == nil:
			return fail(wire.Internal)
		case isDir(old):
			return failf(wire.Exists, "output %s: there is a directory of that name", f.Name)
		case protected(d.Ino):
			return fail(wire.Busy)
		}
	}
	return nil
}

// putOutputs makes the files of op in the job's output directory; one replaces
// what has its name. It returns them.
func (t *tx) putOutputs(j *wire.Job, task *wire.Task, op *wire.UpdateTask) (made []uint64) {
	if op.Task.State != stateSucceeded {
		return nil
	}
	cred := t.cred
	defer func() { t.cred = cred }()
	t.cred = nil // its outputs are the job's right
	at := j.OutDir
	if toParent(j, task) {
		at = cmp.Or(op.ResultDir, j.OutParent)
	}
	for _, f := range op.Files {
		d := t.dentry(at, f.Name)
		if d != nil && at != j.OutDir && j.IfExists == wire.IfExists_SKIP {
			continue
		}
		dir := t.touch(t.inode(at))
		c := &wire.Create{Mode: outputMode(j)}
		in, acls, _ := t.newInode(c, dir, sIFREG)
		in.Attr.Uid = j.Cred.GetUid()
		if dir.Attr.Mode&sISGID == 0 {
			in.Attr.Gid = j.Cred.GetGid()
		}
		in.Inline, in.HasInline = f.Content, true
		in.Attr.Size, in.Attr.Allocated = uint64(len(f.Content)), uint64(len(f.Content))
		t.addInode(c, in, acls)
		if d != nil {
			t.dropName(t.inode(d.Ino), op.OpenSessions)
		} else {
			dir.Entries++
		}
		t.putDentry(at, f.Name, in.Attr.Ino, sIFREG)
		t.putInode(dir)
		made = append(made, in.Attr.Ino)
	}
	return made
}
