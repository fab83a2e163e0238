package meta

import (
	"cmp"
	"slices"

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
	if r := rowOf(cmd); r.names != nil {
		return r.names(cmd)
	}
	return nil
}

// targets lists what a command will change or must see flushed, given its names
// are held so that the entries read here stay what they are. A command that is
// bound to fail may list too much or too little: then nothing changes.
func targets(cmd *wire.Command, t tree) []lease.Claim {
	if r := rowOf(cmd); r.targets != nil {
		return r.targets(cmd, t)
	}
	return nil
}

func createNames(cmd *wire.Command) []lease.Name {
	q := cmd.GetCreate()
	if q.GetTmpfile() {
		return nil
	}
	return []lease.Name{{Dir: q.GetParent(), Name: q.GetName()}}
}

func unlinkNames(cmd *wire.Command) []lease.Name {
	q := cmd.GetUnlink()
	return []lease.Name{{Dir: q.GetParent(), Name: q.GetName()}}
}

func renameNames(cmd *wire.Command) []lease.Name {
	q := cmd.GetRename()
	return []lease.Name{{Dir: q.GetParent(), Name: q.GetName()}, {Dir: q.GetNewParent(), Name: q.GetNewName()}}
}

func linkNames(cmd *wire.Command) []lease.Name {
	q := cmd.GetLink()
	return []lease.Name{{Dir: q.GetNewParent(), Name: q.GetNewName()}}
}

func batchNames(cmd *wire.Command) (all []lease.Name) {
	for _, c := range cmd.GetBatch().GetCommands() {
		all = append(all, names(c)...)
	}
	return all
}

// change is a claim on an inode whose content changes, or of which everything may.
func change(ino uint64) lease.Claim { return lease.Claim{Ino: ino, Kind: lease.Change} }

// listed is a claim on a name in a directory.
func listed(dir uint64, name string) lease.Claim {
	return lease.Claim{Ino: dir, Kind: lease.Names, Names: []string{name}}
}

func noTargets(*wire.Command, tree) []lease.Claim { return nil }

func createTargets(cmd *wire.Command, t tree) []lease.Claim {
	q := cmd.GetCreate()
	if q.GetTmpfile() {
		return nil
	}
	d := t.entry(q.GetParent(), q.GetName())
	switch {
	case d == nil:
		return []lease.Claim{listed(q.GetParent(), q.GetName())}
	case q.GetExclusive():
		return nil
	}
	return []lease.Claim{{Ino: d.Ino, Kind: lease.Peek}}
}

func unlinkTargets(cmd *wire.Command, t tree) []lease.Claim {
	q := cmd.GetUnlink()
	d := t.entry(q.GetParent(), q.GetName())
	if d == nil {
		return nil
	}
	return []lease.Claim{listed(q.Parent, q.Name), victimOf(d)}
}

func linkTargets(cmd *wire.Command, _ tree) []lease.Claim {
	q := cmd.GetLink()
	return []lease.Claim{listed(q.GetNewParent(), q.GetNewName()), change(q.GetIno())}
}

func setAttrTargets(cmd *wire.Command, t tree) []lease.Claim {
	ino := cmd.GetSetAttr().GetIno()
	return []lease.Claim{attributes(ino, t.isDir(ino))}
}

func setXattrTargets(cmd *wire.Command, t tree) []lease.Claim {
	ino := cmd.GetSetXattr().GetIno()
	return []lease.Claim{attributes(ino, t.isDir(ino))}
}

func commitTargets(cmd *wire.Command, _ tree) (all []lease.Claim) {
	for _, f := range cmd.GetCommit().GetFiles() {
		all = append(all, change(f.GetIno()))
	}
	return all
}

func fallocateTargets(cmd *wire.Command, _ tree) []lease.Claim {
	return []lease.Claim{change(cmd.GetFallocate().GetIno())}
}

func cloneTargets(cmd *wire.Command, _ tree) []lease.Claim {
	q := cmd.GetClone()
	return []lease.Claim{{Ino: q.GetSrc(), Kind: lease.Peek}, change(q.GetDst())}
}

func updateTaskTargets(cmd *wire.Command, t tree) []lease.Claim {
	u := cmd.GetUpdateTask()
	all := slices.Concat(outputTargets(u, t), resultTargets(u, t), endTargets(u.GetTask().GetJob(), u.GetTask().GetState(), t))
	// The entries of out_ino move to the job's output directory.
	if from := u.GetOutIno(); from != 0 {
		all = append(all, change(from))
		if to := t.outDir(u.GetTask().GetJob()); to != 0 {
			all = append(all, change(to))
		}
	}
	return all
}

func updateJobTargets(cmd *wire.Command, t tree) []lease.Claim {
	u := cmd.GetUpdateJob()
	return endTargets(u.GetId(), u.GetState(), t)
}

func submitJobTargets(*wire.Command, tree) []lease.Claim {
	return []lease.Claim{change(wire.OutputsIno)}
}

func removeJobTargets(cmd *wire.Command, t tree) []lease.Claim {
	all := []lease.Claim{change(wire.OutputsIno)}
	if dir := t.outDir(cmd.GetRemoveJob().GetId()); dir != 0 {
		all = append(all, change(dir))
	}
	return all
}

func batchTargets(cmd *wire.Command, t tree) (all []lease.Claim) {
	for _, c := range cmd.GetBatch().GetCommands() {
		all = append(all, targets(c, t)...)
	}
	return all
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

func renameTargets(cmd *wire.Command, t tree) []lease.Claim {
	r := cmd.GetRename()
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
