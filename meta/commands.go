package meta

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"quernfs/internal/wire"
	"quernfs/meta/lease"
)

// permit is who may give a command from outside, and how.
type permit struct {
	roles   []string // none: only the leader itself gives it
	session bool     // within a session
	check   func(admission, *wire.Command) error
}

var (
	clients = []string{roleClient}
	holders = []string{roleClient, roleAgent} // of sessions
)

// commandRow is all that the leader has to know of one command.
type commandRow struct {
	permit
	calm  bool // it conflicts with nothing, and is carried out in the grace too
	leads bool // the state takes it of the leader itself only, never in a session
	jobs  bool // the scheduler wants to know of it

	names   func(*wire.Command) []lease.Name        // nil: it is about no name
	targets func(*wire.Command, tree) []lease.Claim // of what others cache it changes, or must see flushed
	sign    func(admission, *wire.Command)          // adds who sent it; nil: nobody keeps that
	stamp   func(*wire.Command, stamping)           // adds what the leader knows; nil: nothing
	after   func(*leader, *wire.Command, *wire.Result)
	// after follows the command when it has succeeded; nil: the session gets leases
	// on what the result shows.
}

// commands has a row for every command. Root on the filesystem is whoever has a
// client's certificate; an agent reports on the tasks that it runs, and a
// server registers itself.
var commands map[protoreflect.Name]commandRow

func init() { // the functions of a batch look its commands up here
	ofClient := permit{roles: clients}
	inSession := permit{roles: clients, session: true}
	commands = map[protoreflect.Name]commandRow{
		"create":          {permit: inSession, names: createNames, targets: createTargets},
		"unlink":          {permit: inSession, names: unlinkNames, targets: unlinkTargets, stamp: stampUnlink},
		"rename":          {permit: inSession, names: renameNames, targets: renameTargets, stamp: stampRename},
		"link":            {permit: inSession, names: linkNames, targets: linkTargets},
		"set_attr":        {permit: inSession, targets: setAttrTargets},
		"set_xattr":       {permit: inSession, targets: setXattrTargets},
		"commit":          {permit: inSession, targets: commitTargets},
		"fallocate":       {permit: inSession, targets: fallocateTargets},
		"clone":           {permit: inSession, targets: cloneTargets},
		"release_orphans": {permit: inSession, targets: noTargets, after: afterReleaseOrphans},
		"reserve_inodes":  {permit: inSession, targets: noTargets},
		// Of a batch each command is looked at.
		"batch": {permit: permit{roles: holders}, names: batchNames, targets: batchTargets, sign: signBatch, stamp: stampBatch},

		"open_session": {permit: permit{roles: holders, check: outsideOfSession}, targets: noTargets, sign: signOpenSession},
		"end_session":  {permit: permit{roles: holders, session: true, check: ownSession}, calm: true, targets: noTargets, after: afterEndSession},

		"put_node": {
			permit: permit{roles: []string{roleClient, roleChunkd, roleAgent, roleEdge}, check: ownRecord},
			calm:   true, leads: true, targets: noTargets, sign: signPutNode, stamp: stampPutNode, after: afterPutNode,
		},

		"submit_job":    {permit: ofClient, jobs: true, targets: submitJobTargets, stamp: stampSubmitJob},
		"stage_tasks":   {permit: inSession, targets: noTargets, stamp: stampStageTasks}, // without a session nothing would ever remove what is not submitted
		"drop_staged":   {permit: ofClient, targets: noTargets},
		"update_job":    {permit: ofClient, jobs: true, targets: updateJobTargets, stamp: stampUpdateJob},
		"remove_job":    {permit: ofClient, jobs: true, targets: removeJobTargets},
		"update_task":   {permit: permit{roles: holders, check: ownTask}, jobs: true, targets: updateTaskTargets, stamp: stampUpdateTask},
		"put_refusal":   {permit: ofClient, targets: noTargets},
		"clear_refusal": {permit: ofClient, targets: noTargets},

		"lease_horizon":  {leads: true, targets: noTargets},
		"reserve_blocks": {leads: true, targets: noTargets},
		"move_shard":     {leads: true, targets: noTargets},
		"lose_shard":     {leads: true, targets: noTargets},
		"expire_tickets": {leads: true, targets: noTargets},
		"purge_blocks":   {leads: true, targets: noTargets},
		"bootstrap":      {leads: true, targets: noTargets},
	}
}

// rowOf is the row of a command; that of an empty one has nothing.
func rowOf(cmd *wire.Command) commandRow {
	name, _ := opOf(cmd.ProtoReflect())
	return commands[name]
}

// calm commands conflict with nothing, and are carried out in the grace too.
func calm(cmd *wire.Command) bool { return rowOf(cmd).calm }

// aboutJobs: the scheduler wants to know of it, or of one in a batch.
func aboutJobs(cmd *wire.Command) bool {
	if rowOf(cmd).jobs {
		return true
	}
	for _, c := range cmd.GetBatch().GetCommands() {
		if aboutJobs(c) {
			return true
		}
	}
	return false
}

func afterEndSession(l *leader, cmd *wire.Command, _ *wire.Result) {
	l.drop(cmd.GetEndSession().GetId())
}

func afterReleaseOrphans(l *leader, cmd *wire.Command, _ *wire.Result) {
	l.forgetGone(cmd.Session, cmd.GetReleaseOrphans().GetInos())
}

func afterPutNode(l *leader, _ *wire.Command, r *wire.Result) { l.nodes.changed(l, uint32(r.Value)) }
