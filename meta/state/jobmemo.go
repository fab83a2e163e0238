package state

import (
	"quernfs/internal/wire"
)

// ProvenanceXattr is the attribute of a result that says what made it.
const ProvenanceXattr = "user.compute.provenance"

// maxMemo bounds the digest of a task, in bytes.
const maxMemo = 64

// movable lists the files in an attempt's directory, before they are moved.
func (t *tx) movable(dir *wire.Inode) (files []entry) {
	if dir == nil {
		return nil
	}
	for _, e := range t.entries(dir.Attr.Ino) {
		if e.kind == sIFREG {
			files = append(files, e)
		}
	}
	return files
}

// results marks the files that a task left, those moved to dir and those made
// in place, with what made them; and remembers a single one.
func (t *tx) results(j *wire.Job, op *wire.UpdateTask, task *wire.Task, dir *wire.Inode, moved []entry, made []uint64) {
	for _, e := range moved {
		// One that was left behind has no name there.
		if d := t.dentry(dir.Attr.Ino, e.name); d != nil && d.Ino == e.ino {
			made = append(made, e.ino)
		}
	}
	if p := op.Provenance; len(p) > 0 && len(p) <= wire.MaxXattr {
		for _, ino := range made {
			in := edit(t.inode(ino))
			t.writeXattr(in, ProvenanceXattr, p, true)
			t.putInode(in)
		}
	}
	if n := len(task.Memo); n == 0 || n > maxMemo || len(made) != 1 {
		return
	}
	a := t.inode(made[0]).Attr
	t.set(jobMemoKey(nil, task.Memo), &wire.Memo{Ino: a.Ino, Size: a.Size, MtimeNs: a.MtimeNs, Job: j.Id, N: task.N})
}

func (v *view) memo(digest []byte) *wire.Memo {
	m := new(wire.Memo)
	if len(digest) == 0 || len(digest) > maxMemo || !v.load(jobMemoKey(nil, digest), m) {
		return nil
	}
	return m
}

// forgetMemo forgets the result of a task of a job that is being removed.
func (t *tx) forgetMemo(task *wire.Task) {
	if m := t.memo(task.Memo); m != nil && m.Job == task.Job {
		t.del(jobMemoKey(nil, task.Memo))
	}
}

func (v *view) getMemo(op *wire.GetMemo) *wire.Answer {
	m := v.memo(op.Key)
	if m == nil {
		return refuse(wire.NotFound)
	}
	return &wire.Answer{Op: &wire.Answer_Memo{Memo: m}}
}
