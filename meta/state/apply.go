package state

import (
	"fmt"
	"strings"

	"quernfs/internal/wire"
)

func fail(code wire.Code) *wire.Result { return &wire.Result{Code: uint32(code)} }

func failf(code wire.Code, format string, args ...any) *wire.Result {
	return &wire.Result{Code: uint32(code), Message: fmt.Sprintf(format, args...)}
}

// apply applies one entry of the log.
func (t *tx) apply(e Entry) *wire.Result {
	c := e.Command
	if c == nil {
		c = new(wire.Command)
	}
	t.index, t.now, t.session, t.cred = e.Index, c.TimeNs, c.Session, c.Cred
	t.wrote, t.bytes, t.read = 0, 0, 0
	var r *wire.Result
	if c.Session != 0 {
		r = t.once(c)
	} else {
		r = t.run(c)
	}
	t.collect()
	return r
}

// run carries out a command, and stamps the log index into its result.
func (t *tx) run(c *wire.Command) *wire.Result {
	var r *wire.Result
	if c.Partition != 0 {
		r = fail(wire.CrossPart)
	} else {
		r = t.dispatch(c)
	}
	t.settle()
	r.Index = t.index
	return r
}

func (t *tx) dispatch(c *wire.Command) *wire.Result {
	switch op := c.Op.(type) {
	case *wire.Command_Create:
		return t.create(op.Create)
	case *wire.Command_Unlink:
		return t.unlink(op.Unlink)
	case *wire.Command_Rename:
		return t.rename(op.Rename)
	case *wire.Command_Link:
		return t.link(op.Link)
	case *wire.Command_SetAttr:
		return t.setAttr(op.SetAttr)
	case *wire.Command_SetXattr:
		return t.setXattr(op.SetXattr)
	case *wire.Command_Commit:
		return t.commit(op.Commit)
	case *wire.Command_Fallocate:
		return t.fallocate(op.Fallocate)
	case *wire.Command_Clone:
		return t.clone(op.Clone)
	case *wire.Command_ReleaseOrphans:
		return t.releaseOrphans(op.ReleaseOrphans)
	case *wire.Command_Batch:
		return t.batched(op.Batch)
	case *wire.Command_OpenSession:
		return t.openSession(op.OpenSession)
	case *wire.Command_EndSession:
		return t.endSession(op.EndSession)
	case *wire.Command_ReserveInodes:
		return t.reserveInodes(op.ReserveInodes)
	case *wire.Command_SubmitJob:
		return t.submitJob(op.SubmitJob)
	case *wire.Command_UpdateTask:
		return t.updateTask(op.UpdateTask)
	case *wire.Command_UpdateJob:
		return t.updateJob(op.UpdateJob)
	case *wire.Command_RemoveJob:
		return t.removeJob(op.RemoveJob)
	case *wire.Command_StageTasks:
		return t.stageTasks(op.StageTasks)
	case *wire.Command_DropStaged:
		return t.dropStaged(op.DropStaged)
	case *wire.Command_PutRefusal:
		return t.putRefusal(op.PutRefusal)
	case *wire.Command_ClearRefusal:
		return t.clearRefusal(op.ClearRefusal)
	}
	if c.Op != nil && t.session != 0 {
		return failf(wire.Perm, "a session cannot give this command")
	}
	switch op := c.Op.(type) {
	case *wire.Command_LeaseHorizon:
		return t.leaseHorizon(op.LeaseHorizon)
	case *wire.Command_ReserveBlocks:
		return t.reserveBlocks(op.ReserveBlocks)
	case *wire.Command_PutNode:
		return t.putNode(op.PutNode)
	case *wire.Command_MoveShard:
		return t.moveShard(op.MoveShard)
	case *wire.Command_LoseShard:
		return t.loseShard(op.LoseShard)
	case *wire.Command_ExpireTickets:
		return t.expireTickets(op.ExpireTickets)
	case *wire.Command_PurgeBlocks:
		return t.purgeBlocks(op.PurgeBlocks)
	case *wire.Command_Bootstrap:
		return t.bootstrap(op.Bootstrap)
	}
	return fail(wire.Unsupported)
}

// batched applies the commands of a Batch in the session, and with the time,
// of the outer command; each may have credentials of its own.
func (t *tx) batched(op *wire.Batch) *wire.Result {
	cred := t.cred
	defer func() { t.cred = cred }()
	r := &wire.Result{Results: make([]*wire.Result, len(op.Commands))}
	for i, c := range op.Commands {
		_, nested := c.GetOp().(*wire.Command_Batch)
		_, ends := c.GetOp().(*wire.Command_EndSession)
		if c == nil || nested || ends && t.session != 0 {
			r.Results[i] = failf(wire.Invalid, "this command cannot be part of a batch")
			continue
		}
		if t.cred = c.Cred; t.cred == nil {
			t.cred = cred
		}
		r.Results[i] = t.run(c)
	}
	return r
}

// checkName says what is wrong with the name of an entry.
func checkName(name string) wire.Code {
	switch {
	case len(name) > wire.MaxName:
		return wire.NameTooLong
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return wire.Invalid
	}
	return wire.OK
}

// protected says whether ino is one of the inodes that stay where they are.
func protected(ino uint64) bool { return ino < wire.FirstIno }
