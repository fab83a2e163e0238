package meta

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"quernfs/internal/wire"
	"quernfs/meta/client"
)

// begin makes a rig of which the members that up names run.
func (r *rig) startOnly(up ...int) {
	r.t.Helper()
	for _, i := range up {
		r.start(i)
	}
}

func (r *rig) wipe(i int) {
	r.t.Helper()
	if err := os.RemoveAll(r.nodes[i].dir); err != nil {
		r.t.Fatal(err)
	}
}

// A member that comes back empty is no voice for electing those who lack what
// it had acknowledged. A and B have X, C does not; B loses its directory. C and
// the empty B may not lead without A.
func TestEmptiedMemberDoesNotVote(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, func(r *rig) { r.timing.Heartbeat, r.timing.LeaderLease = 300*time.Millisecond, 200*time.Millisecond })
	a := r.leader()
	b, c := (a+1)%3, (a+2)%3
	r.stop(c)
	u := r.user("one")
	x := u.must(create(wire.RootIno, "x")).Inode.Attr.Ino
	r.stop(b)
	r.kill(a)
	r.wipe(b)
	r.startOnly(b, c)

	ctx, done := context.WithTimeout(context.Background(), 3*time.Second)
	defer done()
	pool := r.newPool("client", "asking")
	defer pool.Close()
	asking, err := client.Open(ctx, client.Config{Servers: r.servers(), Pool: pool, Name: "asking"})
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := asking.Ask(ctx, &wire.Query{Op: &wire.Query_Status{Status: &wire.Status{}}}); err == nil {
		t.Fatalf("a leader was elected without the state: %v", answer)
	}
	short, done := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer done()
	if err := r.nodes[b].meta.WaitLeader(short); err == nil || !strings.Contains(err.Error(), "waits until a majority of the others") {
		t.Errorf("the emptied member does not say what it waits for: %v", err)
	}
	if r.nodes[b].meta.group.ID() == raft.ServerID(r.nodes[b].Name) {
		t.Errorf("the emptied member is its old self: %s", r.nodes[b].meta.group.ID())
	}

	// With A back, X is there, and the emptied member is filled and votes.
	r.start(a)
	r.whole()
	if got := u.mustAsk(lookup(wire.RootIno, "x")).GetInode().Inode.Attr.Ino; got != x {
		t.Errorf("x is inode %d, it was %d", got, x)
	}
	sameState(t, r)
	r.kill(a)
	if got := r.user("two").mustAsk(lookup(wire.RootIno, "x")).GetInode().Inode.Attr.Ino; got != x {
		t.Errorf("x is inode %d, it was %d", got, x)
	}
}

// Members start in any order, and none begins a cluster but the one with the
// right to.
func TestOnlyOneBegins(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	for i := range r.nodes {
		r.kill(i)
		r.wipe(i)
	}
	for i := range r.nodes {
		r.start(i) // the right has been used
	}
	ctx, done := context.WithTimeout(context.Background(), 2*time.Second)
	defer done()
	for _, n := range r.nodes {
		if err := n.meta.WaitLeader(ctx); err == nil {
			t.Fatalf("%s has a leader: who may have made it one?", n.Name)
		}
	}
}

// The only server of a filesystem whose directory is gone says so, and begins
// nothing.
func TestOnlyMemberLosesItsDirectory(t *testing.T) {
	r := newRig(t, 1, func(r *rig) { r.adjust = func(c *Config) { c.LostHint = ", or do without" } })
	r.user("one").must(create(wire.RootIno, "x"))
	r.stop(0)
	r.wipe(0)
	err := r.tryStart(0, r.members, nil)
	if wire.CodeOf(err) != wire.Corrupt || !strings.Contains(err.Error(), "restore it from a copy, or do without") {
		t.Fatalf("it started: %v", err)
	}
	if err := os.WriteFile(r.right(), nil, 0o600); err != nil { // what the flag of quern up does
		t.Fatal(err)
	}
	r.start(0)
	r.leader()
}

// Directories of a version that kept no record of itself, and made all members
// voters at once, go on as they were.
func TestDirectoriesWithoutRecord(t *testing.T) {
	t.Parallel()
	var conf raft.Configuration
	for i := range 3 {
		name := fmt.Sprintf("meta-%d", i+1)
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(name)})
	}
	r := newRig(t, 3, func(r *rig) {
		for _, m := range conf.Servers {
			dir := filepath.Join(r.dir, string(m.ID))
			h, err := openHome(Disk{}, dir, r.key)
			if err != nil {
				t.Fatal(err)
			}
			snaps, err := openSnapshots(h)
			if err != nil {
				t.Fatal(err)
			}
			os.Mkdir(filepath.Join(dir, "log"), 0o700)
			w := openWAL(t, filepath.Join(dir, "log"))
			c := raft.DefaultConfig()
			c.LocalID = m.ID
			_, trans := raft.NewInmemTransport(m.Address)
			if err := raft.BootstrapCluster(c, w, w, snaps, trans, conf); err != nil {
				t.Fatal(err)
			}
			w.Close()
			h.close()
		}
	})
	u := r.user("one")
	x := u.must(create(wire.RootIno, "x")).Inode.Attr.Ino
	for i := range r.nodes {
		r.stop(i)
		r.start(i)
	}
	r.whole()
	if got := u.mustAsk(lookup(wire.RootIno, "x")).GetInode().Inode.Attr.Ino; got != x {
		t.Errorf("x is inode %d, it was %d", got, x)
	}
	for _, n := range r.nodes {
		if id := n.meta.group.ID(); string(id) != n.Name {
			t.Errorf("%s is now %s", n.Name, id)
		}
	}
	if _, err := os.Stat(r.right()); err == nil {
		t.Error("the right to begin is still there")
	}
}

// A log with other entries than the state has applied is not taken for its own,
// nor is a directory without its log, which holds raft's votes.
func TestLogThatIsNotTheStates(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	u := r.user("one")
	for _, name := range []string{"a", "b", "c"} {
		u.must(create(wire.RootIno, name))
	}
	s := r.nodes[0].meta
	applied, _ := s.fsm.state().Applied()
	if err := s.fsm.state().Flush(); err != nil {
		t.Fatal(err)
	}
	r.kill(0)
	dir := r.nodes[0].dir

	w := openWAL(t, filepath.Join(dir, "log"))
	last, _ := w.LastIndex()
	var logs []*raft.Log
	for i := applied; i <= last; i++ {
		var l raft.Log
		if err := w.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		l.Term++
		logs = append(logs, &l)
	}
	if err := w.DeleteRange(applied, last); err != nil {
		t.Fatal(err)
	}
	if err := w.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.tryStart(0, r.members, nil); wire.CodeOf(err) != wire.Corrupt || !strings.Contains(err.Error(), "the log has one of term") {
		t.Fatalf("another log was taken: %v", err)
	}
}

func openWAL(t *testing.T, dir string) *wal.WAL {
	t.Helper()
	w, err := wal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return w
}
