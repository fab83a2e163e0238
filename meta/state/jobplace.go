package state

import (
	"quernfs/internal/wire"
)

// toParent says whether what a task leaves goes to the directory that the job
// names: what a reduce step is still to read does not.
func toParent(j *wire.Job, task *wire.Task) bool {
	return j.OutParent != 0 && (len(j.Kernels) < 2 || task.Phase == phaseReduce)
}

// resultDir is the directory that the results of a task go to, or why they
// cannot. below is a directory below the one that the job names, or 0.
func (t *tx) resultDir(j *wire.Job, task *wire.Task, below uint64) (*wire.Inode, *wire.Result) {
	if !toParent(j, task) {
		dir, code := t.dir(j.OutDir)
		if code != wire.OK {
			return nil, failf(code, "the output directory of the job: %v", code)
		}
		return dir, nil
	}
	dir, code := t.dir(j.OutParent)
	if code == wire.OK && below != 0 {
		if dir, code = t.dir(below); code == wire.OK && !t.below(dir, j.OutParent) {
			return nil, failf(wire.NotFound, "the directory for a result has been moved away")
		}
	}
	switch {
	case code != wire.OK || dir.Attr.Nlink == 0:
		return nil, failf(wire.NotFound, "the directory for the results is gone")
	case !t.allowed(dir, j.Cred, MayWrite|MayExec):
		return nil, failf(wire.Denied, "the job's owner may not write to the directory for the results")
	}
	return dir, nil
}

// mayTake says why a result cannot have a name in the directory for results.
func (t *tx) mayTake(j *wire.Job, dir *wire.Inode, name string) *wire.Result {
	d := t.dentry(dir.Attr.Ino, name)
	if d == nil {
		return nil
	}
	old := t.inode(d.Ino)
	switch {
	case old == nil:
		return fail(wire.Internal)
	case j.IfExists == wire.IfExists_SKIP:
		return nil
	case j.IfExists == wire.IfExists_FAIL:
		return failf(wire.Exists, "the result %s exists already (if_exists: fail)", name)
	case isDir(old):
		return failf(wire.Exists, "the result %s cannot replace a directory", name)
	case protected(d.Ino):
		return fail(wire.Busy)
	case Sticky(dir, old, j.Cred):
		return failf(wire.Denied, "the result %s cannot replace another user's file", name)
	}
	return nil
}

// mayPlace says why the entries of an attempt's directory cannot go to the
// directory for results.
func (t *tx) mayPlace(j *wire.Job, src, dir *wire.Inode) *wire.Result {
	for _, e := range t.entries(src.Attr.Ino) {
		in := t.inode(e.ino)
		if in == nil || protected(e.ino) {
			return fail(wire.Busy)
		}
		if d := t.dentry(dir.Attr.Ino, e.name); d != nil && isDir(in) && j.IfExists != wire.IfExists_SKIP {
			return failf(wire.Exists, "the result %s is a directory, and the name is taken", e.name)
		}
		if r := t.mayTake(j, dir, e.name); r != nil {
			return r
		}
	}
	return nil
}

// place moves the entries of an attempt's directory to the directory for
// results. What is replaced lives on while one of open has it open.
func (t *tx) place(j *wire.Job, src, dir *wire.Inode, open []uint64) {
	t.putInode(t.touch(src))
	for _, e := range t.entries(src.Attr.Ino) {
		old := t.dentry(dir.Attr.Ino, e.name)
		if old != nil && j.IfExists == wire.IfExists_SKIP {
			continue // left behind, and removed with the attempt
		}
		in := t.changed(t.inode(e.ino))
		t.delDentry(src.Attr.Ino, e.name)
		from := edit(t.inode(src.Attr.Ino))
		from.Entries--
		to := t.touch(t.inode(dir.Attr.Ino))
		if old != nil {
			t.dropName(t.inode(old.Ino), open)
		} else {
			to.Entries++
		}
		t.putDentry(dir.Attr.Ino, e.name, e.ino, e.kind)
		if isDir(in) {
			in.Parent = dir.Attr.Ino
			from.Attr.Nlink--
			to.Attr.Nlink++
		}
		t.putInode(in)
		t.putInode(from)
		t.putInode(to)
	}
}
