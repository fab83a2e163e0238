package state

import (
	"fmt"
	"time"

	"quernfs/internal/rawtext"
	"quernfs/internal/wire"
)

// notifyFile is how large a file of notices grows. Notices live in the inode, so
// that one is there if, and only if, the job has ended; a file that has become
// too large gets another name (notifyOld), and a new one begins.
const notifyFile = 16 << 10

// notice is one line of a file of notices. Fields are only ever added.
type notice struct {
	Job       uint64 `json:"job"`
	Name      string `json:"name"`
	State     string `json:"state"`
	Reason    string `json:"reason"`
	Rule      string `json:"rule,omitempty"`
	UID       uint32 `json:"uid"`
	Tasks     uint32 `json:"tasks"`
	Failed    uint32 `json:"tasks_failed"`
	Submitted string `json:"submitted"`
	Ended     string `json:"ended"`
}

func utc(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

// announce appends a line about a job that has ended to the file that it names,
// as the job's owner may. What is in the way is told among the job's events.
func (t *tx) announce(j *wire.Job) {
	n := j.Notify
	if n == nil {
		return
	}
	line, err := rawtext.Marshal(notice{
		Job: j.Id, Name: j.Name, State: j.State, Reason: j.Reason, Rule: j.Rule, UID: j.Cred.GetUid(),
		Tasks: j.Tasks, Failed: j.TasksFailed, Submitted: utc(j.SubmittedNs), Ended: utc(j.EndedNs),
	})
	why := "it cannot be written"
	if err == nil {
		cred := t.cred
		t.cred = j.Cred
		why = t.append(j, append(line, '\n'))
		t.cred = cred
	}
	if why != "" {
		t.event(j, fmt.Sprintf("no notice in %s: %s", n.Name, why))
	}
}

// append adds a line to the file of notices of a job, and says what is in the
// way.
func (t *tx) append(j *wire.Job, line []byte) (why string) {
	parent, name, old := j.Notify.Parent, j.Notify.Name, wire.NotifyOld(j.Notify.Name, j.Id)
	dir, code := t.dir(parent)
	switch {
	case code != wire.OK || dir.Attr.Nlink == 0:
		return "its directory is gone"
	case checkName(name) != wire.OK || checkName(old) != wire.OK:
		return "a file cannot have this name"
	}
	d := t.dentry(parent, name)
	var full *wire.Inode
	if d != nil {
		in := t.inode(d.Ino)
		empty := in != nil && in.Attr.Size == 0 && in.Attr.Allocated == 0
		switch {
		case in == nil || !isRegular(in) || protected(d.Ino):
			return "it is not a regular file"
		case !t.allowed(in, t.cred, MayWrite):
			return "the job's owner may not write to it"
		case (in.HasInline || empty) && in.Attr.Size+uint64(len(line)) <= notifyFile:
			in = edit(in)
			content := make([]byte, in.Attr.Size, in.Attr.Size+uint64(len(line)))
			copy(content, in.Inline)
			setInline(in, append(content, line...))
			in.Attr.Size, in.Attr.MtimeNs, in.Attr.CtimeNs = uint64(len(in.Inline)), t.now, t.now
			t.putInode(in)
			return ""
		case t.dentry(parent, old) != nil:
			return "it is full, and there is a file " + old
		case Sticky(dir, in, t.cred):
			return "it is full, and the job's owner may not give it another name"
		}
		full = in
	}
	c := &wire.Create{Mode: outputMode(j)}
	in, acls, code := t.newInode(c, dir, sIFREG)
	if code != wire.OK {
		return "the job's owner may not make a file in its directory"
	}
	dir = t.touch(dir)
	dir.Entries++
	t.putInode(dir)
	if full != nil {
		t.delDentry(parent, name)
		t.putDentry(parent, old, full.Attr.Ino, sIFREG)
		t.putInode(t.changed(full))
	}
	setInline(in, line)
	in.Attr.Size = uint64(len(line))
	t.addInode(c, in, acls)
	t.putDentry(parent, name, in.Attr.Ino, sIFREG)
	return ""
}
