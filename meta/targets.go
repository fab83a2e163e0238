package meta

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
	"quernfs/meta/lease"
)

// tree is what targets reads of the state; a missing thing is nil.
type tree interface {
	entry(parent uint64, name string) *wire.Dentry
	outDir(job uint64) uint64                      // 0: no such job
	outParent(job uint64) uint64                   // 0: no such job, or its results stay in its own directory
	ending(job uint64) (*wire.Source, *wire.Entry) // the job's source and notify
	node(name string) *wire.Node
	isDir(ino uint64) bool
}

// names lists the directory entries that a command is about. While it is under
// way no other command about one of them is.
func names(cmd *wire.Command) []lease.Name {
	switch op := cmd.Op.(type) {
	case *wire.Command_Create:
		if !op.Create.GetTmpfile() {
			return []lease.Name{{Dir: op.Create.GetParent(), Name: op.Create.GetName()}}
		}
	case *wire.Command_Unlink:
		return []lease.Name{{Dir: op.Unlink.GetParent(), Name: op.Unlink.GetName()}}
	case *wire.Command_Rename:
		r := op.Rename
		return []lease.Name{{Dir: r.GetParent(), Name: r.GetName()}, {Dir: r.GetNewParent(), Name: r.GetNewName()}}
	case *wire.Command_Link:
		return []lease.Name{{Dir: op.Link.GetNewParent(), Name: op.Link.GetNewName()}}
	case *wire.Command_Batch:
		var all []lease.Name
		for _, c := range op.Batch.GetCommands() {
			all = append(all, names(c)...)
		}
		return all
	}
	return nil
}

// targets lists what a command will change or must see flushed, given its names
// are held so that the entries read here stay what they are. A command that is
// bound to fail may list too much or too little: then nothing changes.
func targets(cmd *wire.Command, t tree) []lease.Claim {
	change := func(ino uint64) lease.Claim { return lease.Claim{Ino: ino, Kind: lease.Change} }
	attrs := func(ino uint64) lease.Claim { return attributes(ino, t.isDir(ino)) }
	listed := func(dir uint64, name string) lease.Claim {
		return lease.Claim{Ino: dir, Kind: lease.Names, Names: []string{name}}
	}
	switch op := cmd.Op.(type) {
	case *wire.Command_Create:
		c := op.Create
		if c.GetTmpfile() {
			return nil
		}
		if d := t.entry(c.Parent, c.Name); d != nil {
			if c.Exclusive {
				return nil
			}
			return []lease.Claim{{Ino: d.Ino, Kind: lease.Peek}}
		}
		return []lease.Claim{listed(c.Parent, c.Name)}
	case *wire.Command_Unlink:
		u := op.Unlink
		d := t.entry(u.GetParent(), u.GetName())
		if d == nil {
			return nil
		}
		return []lease.Claim{listed(u.Parent, u.Name), victimOf(d)}
	case *wire.Command_Rename:
		return renameTargets(op.Rename, t)
	case *wire.Command_Link:
		return []lease.Claim{listed(op.Link.GetNewParent(), op.Link.GetNewName()), change(op.Link.GetIno())}
	case *wire.Command_SetAttr:
		return []lease.Claim{attrs(op.SetAttr.GetIno())}
	case *wire.Command_SetXattr:
		return []lease.Claim{attrs(op.SetXattr.GetIno())}
	case *wire.Command_Commit:
		var all []lease.Claim
		for _, f := range op.Commit.GetFiles() {
			all = append(all, change(f.GetIno()))
		}
		return all
	case *wire.Command_Fallocate:
		return []lease.Claim{change(op.Fallocate.GetIno())}
	case *wire.Command_Clone:
		return []lease.Claim{{Ino: op.Clone.GetSrc(), Kind: lease.Peek}, change(op.Clone.GetDst())}
	case *wire.Command_UpdateTask:
		all := slices.Concat(outputTargets(op.UpdateTask, t), resultTargets(op.UpdateTask, t), endTargets(op.UpdateTask.GetTask().GetJob(), op.UpdateTask.GetTask().GetState(), t))
		// The entries of out_ino move to the job's output directory.
		if from := op.UpdateTask.GetOutIno(); from != 0 {
			all = append(all, change(from))
			if to := t.outDir(op.UpdateTask.GetTask().GetJob()); to != 0 {
				all = append(all, change(to))
			}
		}
		return all
	case *wire.Command_UpdateJob:
		return endTargets(op.UpdateJob.GetId(), op.UpdateJob.GetState(), t)
	case *wire.Command_SubmitJob:
		return []lease.Claim{change(wire.OutputsIno)}
	case *wire.Command_RemoveJob:
		all := []lease.Claim{change(wire.OutputsIno)}
		if dir := t.outDir(op.RemoveJob.GetId()); dir != 0 {
			all = append(all, change(dir))
		}
		return all
	case *wire.Command_Batch:
		var all []lease.Claim
		for _, c := range op.Batch.GetCommands() {
			all = append(all, targets(c, t)...)
		}
		return all
	}
	return nil
}

// attributes is for a change of an inode that leaves the names in it alone, if it
// is a directory.
func attributes(ino uint64, dir bool) lease.Claim {
	if dir {
		return lease.Claim{Ino: ino, Kind: lease.Names}
	}
	return lease.Claim{Ino: ino, Kind: lease.Change}
}

// victimOf is victim for an entry: a directory that can be removed has no names.
func victimOf(d *wire.Dentry) lease.Claim {
	c := victim(d.Ino)
	c.Dir = d.Type&typeMask == typeDir
	return c
}

func victim(ino uint64) lease.Claim {
	return lease.Claim{Ino: ino, Kind: lease.Change, Victim: true}
}

// outputTargets are the names that a task's small outputs get, and what had them.
func outputTargets(u *wire.UpdateTask, t tree) []lease.Claim {
	if len(u.GetFiles()) == 0 {
		return nil
	}
	dir := t.outDir(u.GetTask().GetJob())
	if dir == 0 {
		return nil
	}
	c := lease.Claim{Ino: dir, Kind: lease.Names}
	var all []lease.Claim
	for _, f := range u.Files {
		c.Names = append(c.Names, f.GetName())
		if d := t.entry(dir, f.GetName()); d != nil {
			all = append(all, lease.Claim{Ino: d.Ino, Kind: lease.Change})
		}
	}
	return append(all, c)
}

// resultTargets are the names that a task's results get in the directory that
// the job names, and what had them.
func resultTargets(u *wire.UpdateTask, t tree) []lease.Claim {
	if len(u.GetNames()) == 0 {
		return nil
	}
	dir := placeOf(u, t)
	if dir == 0 {
		return nil
	}
	all := []lease.Claim{{Ino: dir, Kind: lease.Names, Names: u.Names}}
	for _, name := range u.Names {
		if d := t.entry(dir, name); d != nil {
			all = append(all, victim(d.Ino))
		}
	}
	return all
}

// placeOf is the directory that the job has named for its results, or that below
// it which these go to; 0: there is none.
func placeOf(u *wire.UpdateTask, t tree) uint64 {
	dir := t.outParent(u.GetTask().GetJob())
	if dir == 0 {
		return 0
	}
	return cmp.Or(u.GetResultDir(), dir)
}

// endTargets are what the end of a job changes, which a change to state may be:
// its source, and the file that is told.
func endTargets(job uint64, state string, t tree) (all []lease.Claim) {
	switch state {
	case "succeeded", "failed", "cancelled", "expired":
	default:
		return nil
	}
	source, notify := t.ending(job)
	if source.GetDrop() != wire.Drop_NEVER && state == "succeeded" {
		all = append(all, lease.Claim{Ino: source.Parent, Kind: lease.Names, Names: []string{source.Name}}, victim(source.Ino))
	}
	if notify != nil {
		all = append(all, lease.Claim{Ino: notify.Parent, Kind: lease.Names, Names: []string{notify.Name, wire.NotifyOld(notify.Name, job)}})
		if d := t.entry(notify.Parent, notify.Name); d != nil {
			all = append(all, lease.Claim{Ino: d.Ino, Kind: lease.Change})
		}
	}
	return all
}

func renameTargets(r *wire.Rename, t tree) []lease.Claim {
	from := t.entry(r.GetParent(), r.GetName())
	if from == nil {
		return nil
	}
	all := []lease.Claim{
		{Ino: r.Parent, Kind: lease.Names, Names: []string{r.Name}},
		{Ino: r.NewParent, Kind: lease.Names, Names: []string{r.NewName}},
		attributes(from.Ino, from.Type&typeMask == typeDir),
	}
	if to := t.entry(r.NewParent, r.NewName); to != nil {
		if r.Flags&renameExchange != 0 {
			all = append(all, attributes(to.Ino, to.Type&typeMask == typeDir))
		} else if to.Ino != from.Ino {
			all = append(all, victimOf(to))
		}
	}
	return all
}

const renameExchange = 2

// stamped is cmd with what the leader adds to it: the sessions that have the
// victim open. open lists them for an inode. cmd itself is not changed.
func stamped(cmd *wire.Command, t tree, open func(ino uint64) []uint64) *wire.Command {
	c := &wire.Command{Partition: cmd.Partition, Session: cmd.Session, Seq: cmd.Seq, AckBelow: cmd.AckBelow, Cred: cmd.Cred, Op: cmd.Op}
	switch op := cmd.Op.(type) {
	case *wire.Command_PutNode: // the leader's own, on an operator's behalf; harmless if repeated
		c.Session, c.Seq, c.AckBelow = 0, 0, 0
		// A server that registers again at its start is still to be emptied.
		n := op.PutNode.GetNode()
		if old := t.node(n.GetName()); old != nil && n.GetId() == 0 && !inService(&wire.NodeStatus{Node: old}) {
			n = shallow(n)
			n.State = old.State
			c.Op = &wire.Command_PutNode{PutNode: &wire.PutNode{Node: n}}
		}
	case *wire.Command_Unlink:
		u := op.Unlink
		n := &wire.Unlink{Parent: u.GetParent(), Name: u.GetName(), Dir: u.GetDir()}
		if d := t.entry(n.Parent, n.Name); d != nil {
			n.OpenSessions = open(d.Ino)
		}
		c.Op = &wire.Command_Unlink{Unlink: n}
	case *wire.Command_Rename:
		r := op.Rename
		n := &wire.Rename{Parent: r.GetParent(), Name: r.GetName(), NewParent: r.GetNewParent(), NewName: r.GetNewName(), Flags: r.GetFlags()}
		if d := t.entry(n.NewParent, n.NewName); d != nil && n.Flags&renameExchange == 0 {
			n.OpenSessions = open(d.Ino)
		}
		c.Op = &wire.Command_Rename{Rename: n}
	case *wire.Command_UpdateTask:
		u := op.UpdateTask
		if len(u.GetNames()) == 0 && u.GetTask().GetState() != "succeeded" {
			break
		}
		dir := placeOf(u, t)
		source, _ := t.ending(u.GetTask().GetJob())
		if (dir == 0 || len(u.GetNames()) == 0) && source.GetDrop() == wire.Drop_NEVER {
			break
		}
		n := proto.CloneOf(u)
		n.OpenSessions, n.SourceSessions = nil, nil
		for _, name := range u.Names {
			if d := t.entry(dir, name); d != nil {
				n.OpenSessions = append(n.OpenSessions, open(d.Ino)...)
			}
		}
		slices.Sort(n.OpenSessions)
		n.OpenSessions = slices.Compact(n.OpenSessions)
		if source.GetDrop() != wire.Drop_NEVER {
			n.SourceSessions = open(source.Ino)
		}
		c.Op = &wire.Command_UpdateTask{UpdateTask: n}
	case *wire.Command_Batch:
		b := &wire.Batch{Commands: make([]*wire.Command, len(op.Batch.GetCommands()))}
		for i, inner := range op.Batch.GetCommands() {
			b.Commands[i] = stamped(inner, t, open)
		}
		c.Op = &wire.Command_Batch{Batch: b}
	}
	return c
}

// calm commands conflict with nothing, and are carried out in the grace too.
func calm(cmd *wire.Command) bool {
	switch cmd.Op.(type) {
	case *wire.Command_EndSession, *wire.Command_PutNode:
		return true
	}
	return false
}

// aboutJobs: the scheduler wants to know of it.
func aboutJobs(cmd *wire.Command) bool {
	switch op := cmd.Op.(type) {
	case *wire.Command_SubmitJob, *wire.Command_UpdateJob, *wire.Command_UpdateTask, *wire.Command_RemoveJob:
		return true
	case *wire.Command_Batch:
		return slices.ContainsFunc(op.Batch.GetCommands(), aboutJobs)
	}
	return false
}
