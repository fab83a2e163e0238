package meta

import (
	"slices"

	"quernfs/internal/wire"
)

// stamping is what the leader knows when it completes a command, and carries it out.
type stamping struct {
	tree   tree
	open   func(ino uint64) []uint64 // the sessions that have an inode open
	limits Limits
}

// stamped is cmd with what the leader adds to it. cmd itself is not changed.
func stamped(cmd *wire.Command, s stamping) *wire.Command {
	c := wire.Shallow(cmd)
	c.TimeNs = 0 // the leader's to say, when it is proposed
	if r := rowOf(cmd); r.stamp != nil {
		r.stamp(c, s)
	}
	return c
}

func stampUnlink(c *wire.Command, s stamping) {
	q := wire.Shallow(c.GetUnlink())
	q.OpenSessions = nil
	if d := s.tree.entry(q.Parent, q.Name); d != nil {
		q.OpenSessions = s.open(d.Ino)
	}
	c.Op = &wire.Command_Unlink{Unlink: q}
}

func stampRename(c *wire.Command, s stamping) {
	q := wire.Shallow(c.GetRename())
	q.OpenSessions = nil
	if d := s.tree.entry(q.NewParent, q.NewName); d != nil && q.Flags&renameExchange == 0 {
		q.OpenSessions = s.open(d.Ino)
	}
	c.Op = &wire.Command_Rename{Rename: q}
}

func stampUpdateTask(c *wire.Command, s stamping) {
	q := wire.Shallow(c.GetUpdateTask())
	q.OpenSessions, q.SourceSessions = nil, nil
	q.MaxEnded = s.limits.Ended
	c.Op = &wire.Command_UpdateTask{UpdateTask: q}
	if dir := placeOf(q, s.tree); dir != 0 {
		for _, name := range q.GetNames() {
			if d := s.tree.entry(dir, name); d != nil {
				q.OpenSessions = append(q.OpenSessions, s.open(d.Ino)...)
			}
		}
		slices.Sort(q.OpenSessions)
		q.OpenSessions = slices.Compact(q.OpenSessions)
	}
	if source, _ := s.tree.ending(q.GetTask().GetJob()); q.GetTask().GetState() == "succeeded" && source.GetDrop() != wire.Drop_NEVER {
		q.SourceSessions = s.open(source.Ino)
	}
}

// stampPutNode: a change of a node is the leader's own, on an operator's behalf, and
// harmless if it is repeated. A server that registers again at its start is still to
// be emptied.
func stampPutNode(c *wire.Command, s stamping) {
	c.Session, c.Seq, c.AckBelow = 0, 0, 0
	n := c.GetPutNode().GetNode()
	if old := s.tree.node(n.GetName()); old != nil && n.GetId() == 0 && !inService(&wire.NodeStatus{Node: old}) {
		n = wire.Shallow(n)
		n.State = old.State
		c.Op = &wire.Command_PutNode{PutNode: &wire.PutNode{Node: n}}
	}
}

// What a user's jobs may amount to, and how long they are kept, is the administrator's
// to say.

func stampSubmitJob(c *wire.Command, s stamping) {
	q := wire.Shallow(c.GetSubmitJob())
	q.MaxOpen, q.MaxTasks, q.MaxBytes, q.TtlNs = s.limits.Jobs, s.limits.Tasks, s.limits.Bytes, int64(s.limits.TTL)
	c.Op = &wire.Command_SubmitJob{SubmitJob: q}
}

func stampStageTasks(c *wire.Command, s stamping) {
	q := wire.Shallow(c.GetStageTasks())
	q.MaxTasks, q.MaxBytes = s.limits.Tasks, s.limits.Bytes
	c.Op = &wire.Command_StageTasks{StageTasks: q}
}

func stampUpdateJob(c *wire.Command, s stamping) {
	q := wire.Shallow(c.GetUpdateJob())
	q.MaxTasks, q.MaxBytes, q.MaxEnded = s.limits.Tasks, s.limits.Bytes, s.limits.Ended
	c.Op = &wire.Command_UpdateJob{UpdateJob: q}
}

func stampBatch(c *wire.Command, s stamping) {
	b := &wire.Batch{Commands: make([]*wire.Command, len(c.GetBatch().GetCommands()))}
	for i, inner := range c.GetBatch().GetCommands() {
		b.Commands[i] = stamped(inner, s)
	}
	c.Op = &wire.Command_Batch{Batch: b}
}
