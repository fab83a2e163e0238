package meta

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"quernfs/internal/wire"
	"quernfs/meta/lease"
)

type fakeTree map[string]uint64 // "dir/name" → inode

func (t fakeTree) entry(parent uint64, name string) *wire.Dentry {
	if ino, ok := t[fmt.Sprintf("%d/%s", parent, name)]; ok {
		return &wire.Dentry{Ino: ino}
	}
	return nil
}

func (t fakeTree) outDir(job uint64) uint64 { return t[fmt.Sprintf("job/%d", job)] }

func (t fakeTree) outParent(job uint64) uint64 { return t[fmt.Sprintf("results/%d", job)] }

// ending has job 6, whose source is 12 and whose notices go to 1/a.
func (t fakeTree) ending(job uint64) (*wire.Source, *wire.Entry) {
	if job != 6 {
		return nil, nil
	}
	return &wire.Source{Parent: 2, Name: "c", Ino: 12, Drop: wire.Drop_ALWAYS}, &wire.Entry{Parent: 1, Name: "a"}
}

func (t fakeTree) isDir(uint64) bool { return false }

func (t fakeTree) node(name string) *wire.Node {
	if id, ok := t["node/"+name]; ok {
		return &wire.Node{Id: uint32(id), Name: name, State: "draining"}
	}
	return nil
}

func showClaims(all []lease.Claim) string {
	var out []string
	for _, c := range all {
		switch {
		case c.Kind == lease.Peek:
			out = append(out, fmt.Sprintf("peek %d", c.Ino))
		case c.Victim:
			out = append(out, fmt.Sprintf("victim %d", c.Ino))
		case c.Kind == lease.Change:
			out = append(out, fmt.Sprintf("change %d", c.Ino))
		case c.Kind == lease.Names:
			out = append(out, fmt.Sprintf("names %d %s", c.Ino, strings.Join(c.Names, " ")))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func TestTargets(t *testing.T) {
	tree := fakeTree{"1/a": 10, "1/b": 11, "2/c": 12, "1/a2": 10, "job/5": 50}
	rename := func(d1 uint64, n1 string, d2 uint64, n2 string, flags uint32) *wire.Command {
		return &wire.Command{Op: &wire.Command_Rename{Rename: &wire.Rename{Parent: d1, Name: n1, NewParent: d2, NewName: n2, Flags: flags}}}
	}
	open := func(name string, exclusive bool) *wire.Command {
		return &wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: 1, Name: name, Exclusive: exclusive}}}
	}
	for _, c := range []struct {
		name  string
		cmd   *wire.Command
		names int
		want  string
	}{
		{"create", open("new", true), 1, "names 1 new"},
		{"open what exists", open("a", false), 1, "peek 10"},
		{"create what exists", open("a", true), 1, ""},
		{"unlink", unlink(1, "a"), 1, "names 1 a, victim 10"},
		{"unlink nothing", unlink(1, "zz"), 1, ""},
		{"rename", rename(1, "a", 2, "x", 0), 2, "change 10, names 1 a, names 2 x"},
		{"rename over", rename(1, "a", 2, "c", 0), 2, "change 10, names 1 a, names 2 c, victim 12"},
		{"rename to another name of it", rename(1, "a", 1, "a2", 0), 2, "change 10, names 1 a, names 1 a2"},
		{"exchange", rename(1, "a", 2, "c", renameExchange), 2, "change 10, change 12, names 1 a, names 2 c"},
		{"link", &wire.Command{Op: &wire.Command_Link{Link: &wire.Link{Ino: 10, NewParent: 2, NewName: "l"}}}, 1, "change 10, names 2 l"},
		{"chmod", chmod(10, 0), 0, "change 10"},
		{"clone", &wire.Command{Op: &wire.Command_Clone{Clone: &wire.Clone{Src: 10, Dst: 11}}}, 0, "change 11, peek 10"},
		{"commit", &wire.Command{Op: &wire.Command_Commit{Commit: &wire.Commit{Files: []*wire.FileUpdate{{Ino: 10}, {Ino: 11}}}}}, 0, "change 10, change 11"},
		{"task done", &wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: &wire.Task{Job: 5}, OutIno: 51}}}, 0, "change 50, change 51"},
		{"task done, small output", &wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: &wire.Task{Job: 5}, Files: []*wire.OutputFile{{Name: "o"}}}}}, 0, "names 50 o"},
		{"a rule's job succeeds", taskEnds(6, "succeeded"), 0, "change 10, names 1 a a.6, names 2 c, victim 12"},
		{"a rule's job fails", taskEnds(6, "failed"), 0, "change 10, names 1 a a.6"},
		{"a rule's job goes on", taskEnds(6, "running"), 0, ""},
		{"a job is cancelled", &wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: 6, State: "cancelled"}}}, 0, "change 10, names 1 a a.6"},
		{"batch", &wire.Command{Op: &wire.Command_Batch{Batch: &wire.Batch{Commands: []*wire.Command{unlink(1, "a"), chmod(11, 0)}}}}, 1, "change 11, names 1 a, victim 10"},
	} {
		if got := showClaims(targets(c.cmd, tree)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := len(names(c.cmd)); got != c.names {
			t.Errorf("%s: %d names, want %d", c.name, got, c.names)
		}
	}
}

func taskEnds(job uint64, state string) *wire.Command {
	return &wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: &wire.Task{Job: job, State: state}}}}
}

// TestStampedSource: who has a source open is told with the end of its job, and
// only the leader says so.
func TestStampedSource(t *testing.T) {
	cmd := taskEnds(6, "succeeded")
	cmd.GetUpdateTask().SourceSessions = []uint64{99}
	got := stamped(cmd, stamping{tree: fakeTree{}, open: func(ino uint64) []uint64 { return []uint64{ino} }})
	if !slices.Equal(got.GetUpdateTask().SourceSessions, []uint64{12}) || got.GetUpdateTask().OpenSessions != nil {
		t.Errorf("%v", got)
	}
}

func TestStampedLeavesTheCommandAlone(t *testing.T) {
	tree := fakeTree{"1/a": 10}
	cmd := unlink(1, "a")
	got := stamped(cmd, stamping{tree: tree, open: func(ino uint64) []uint64 { return []uint64{ino, 3} }})
	if !slices.Equal(got.GetUnlink().OpenSessions, []uint64{10, 3}) || cmd.GetUnlink().OpenSessions != nil {
		t.Errorf("stamped %v, given %v", got, cmd)
	}
}

func TestRegisteringAgainKeepsTheState(t *testing.T) {
	tree := fakeTree{"node/old": 3}
	put := func(name string, id uint32) *wire.Command {
		return &wire.Command{Op: &wire.Command_PutNode{PutNode: &wire.PutNode{Node: &wire.Node{Id: id, Name: name, State: "up"}}}}
	}
	for _, c := range []struct {
		cmd  *wire.Command
		want string
	}{{put("old", 0), "draining"}, {put("old", 3), "up"}, {put("new", 0), "up"}} {
		if got := stamped(c.cmd, stamping{tree: tree}).GetPutNode().Node.State; got != c.want {
			t.Errorf("%v: %s, want %s", c.cmd, got, c.want)
		}
	}
}
