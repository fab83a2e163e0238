package meta

import (
	"context"
	"fmt"
	"testing"
	"time"

	"quernfs/internal/wire"
	"quernfs/meta/lease"
)

func TestWriteLeaseIsHandedOver(t *testing.T) {
	r := newRig(t, 1)
	a, b := r.user("a"), r.user("b")
	ino := a.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	flushed := false
	a.onRecall = func(rc *wire.Recall) {
		if rc.Ino != ino || rc.Mode >= wire.Mode_WRITE || flushed {
			return
		}
		flushed = true // what a flush does: a command of the holder, under its lease
		a.must(&wire.Command{Op: &wire.Command_Commit{Commit: &wire.Commit{Files: []*wire.FileUpdate{{
			Ino: ino, Inline: []byte("written by a"), HasInline: true, MinSize: 12,
		}}}}})
	}
	got := b.mustAsk(acquire(ino, wire.Mode_WRITE))
	if !flushed || string(got.GetInode().Inode.Inline) != "written by a" {
		t.Fatalf("b got the lease before a had flushed: %v", got)
	}
	if a.mode(ino) != wire.Mode_NONE || b.mode(ino) != wire.Mode_WRITE {
		t.Fatalf("a holds %v, b holds %v", a.mode(ino), b.mode(ino))
	}

	// Reading takes WRITE down to READ only.
	a.onRecall = nil
	a.mustAsk(getInode(ino, true))
	if a.mode(ino) != wire.Mode_READ || b.mode(ino) != wire.Mode_READ {
		t.Fatalf("after a read: a holds %v, b holds %v", a.mode(ino), b.mode(ino))
	}

	// A change takes READ from the others, not from the one who makes it.
	a.must(chmod(ino, 0o600))
	if a.mode(ino) != wire.Mode_READ || b.mode(ino) != wire.Mode_NONE {
		t.Fatalf("after a change: a holds %v, b holds %v", a.mode(ino), b.mode(ino))
	}
}

func TestNamesAreRecalled(t *testing.T) {
	r := newRig(t, 1)
	a, b := r.user("a"), r.user("b")
	if _, err := a.ask(lookup(wire.RootIno, "x")); wire.CodeOf(err) != wire.NotFound {
		t.Fatal(err)
	}
	if a.mode(wire.RootIno) != wire.Mode_READ {
		t.Fatal("a negative lookup comes with a lease on the directory")
	}
	b.must(create(wire.RootIno, "x"))
	if !a.had(func(rc *wire.Recall) bool { return rc.Ino == wire.RootIno && len(rc.Names) == 1 && rc.Names[0] == "x" }) {
		t.Fatal("a was not told to forget x")
	}
	if a.mode(wire.RootIno) != wire.Mode_READ {
		t.Fatal("the lease on the directory went away")
	}
	a.mustAsk(lookup(wire.RootIno, "x"))
}

func TestVictimThatIsOpenLivesOn(t *testing.T) {
	r := newRig(t, 1)
	a, b := r.user("a"), r.user("b")
	ino := a.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	a.mu.Lock()
	a.open[ino] = true
	a.mu.Unlock()
	b.must(unlink(wire.RootIno, "f"))
	if a.mode(ino) != wire.Mode_OPEN {
		t.Fatalf("a holds %v", a.mode(ino))
	}
	got := a.mustAsk(getInode(ino, false))
	if got.GetInode().Inode.Attr.Nlink != 0 {
		t.Fatalf("nlink: %v", got)
	}
	a.must(&wire.Command{Op: &wire.Command_ReleaseOrphans{ReleaseOrphans: &wire.ReleaseOrphans{Inos: []uint64{ino}}}})
	if _, err := a.ask(getInode(ino, false)); wire.CodeOf(err) != wire.NotFound {
		t.Fatalf("after the last close: %v", err)
	}

	// One that is open nowhere goes at once.
	ino = a.must(create(wire.RootIno, "g")).Inode.Attr.Ino
	b.must(unlink(wire.RootIno, "g"))
	if _, err := a.ask(getInode(ino, false)); wire.CodeOf(err) != wire.NotFound {
		t.Fatalf("not open anywhere: %v", err)
	}
}

// An inode without a name is there only for those whom it is kept for: they may
// let go of it at any moment.
func TestNamelessIsForItsHoldersOnly(t *testing.T) {
	r := newRig(t, 1)
	a, b := r.user("a"), r.user("b")
	ino := a.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	a.mu.Lock()
	a.open[ino] = true
	a.mu.Unlock()
	b.must(unlink(wire.RootIno, "f"))
	for _, q := range []*wire.Query{acquire(ino, wire.Mode_OPEN), acquire(ino, wire.Mode_READ), getInode(ino, true), getInode(ino, false)} {
		if _, err := b.ask(q); wire.CodeOf(err) != wire.NotFound || b.mode(ino) != wire.Mode_NONE {
			t.Errorf("%v: %v, and a lease of %v", q, err, b.mode(ino))
		}
		a.mustAsk(q)
	}
}

// Telling meta that an inode is not used any more leaves the leases on one that
// has a name: it may be cached under them.
func TestReleaseKeepsLeasesOnWhatHasAName(t *testing.T) {
	r := newRig(t, 1)
	a, b := r.user("a"), r.user("b")
	ino := a.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	a.must(&wire.Command{Op: &wire.Command_ReleaseOrphans{ReleaseOrphans: &wire.ReleaseOrphans{Inos: []uint64{ino}}}})
	b.mustAsk(acquire(ino, wire.Mode_WRITE))
	if !a.had(func(rc *wire.Recall) bool { return rc.Ino == ino }) {
		t.Error("the lease went to b without a's being asked")
	}
}

// A look-up of a name that is being changed waits, and what it finds comes with
// a lease.
func TestLookupWaitsForTheName(t *testing.T) {
	r := newRig(t, 1)
	a, b, c := r.user("a"), r.user("b"), r.user("c")
	old := b.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	b.must(create(wire.RootIno, "new"))
	a.mustAsk(lookup(wire.RootIno, "f"))
	a.mu.Lock()
	a.stuck = true
	a.mu.Unlock()
	moved := make(chan error, 1)
	go func() {
		_, err := b.do(&wire.Command{Op: &wire.Command_Rename{Rename: &wire.Rename{Parent: wire.RootIno, Name: "new", NewParent: wire.RootIno, NewName: "f"}}})
		moved <- err
	}()
	eventually(t, "the recall has come to a", func() bool { return a.had(func(rc *wire.Recall) bool { return rc.Ino == old && rc.Victim }) })
	if !a.had(func(rc *wire.Recall) bool { return rc.Ino == old && rc.Grant != 0 }) {
		t.Error("the recall does not say which grant it is about")
	}
	found := make(chan *wire.Answer, 1)
	go func() {
		ans, _ := c.ask(lookup(wire.RootIno, "f"))
		found <- ans
	}()
	l := r.lead()
	eventually(t, "the look-up waits", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.table.Waiters(lease.Name{Dir: wire.RootIno, Name: "f"}) == 2
	})
	a.unstick()
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
	ans := <-found
	ino := ans.GetInode().GetInode().GetAttr().GetIno()
	if ino == old || ino == 0 || c.mode(ino) < wire.Mode_OPEN {
		t.Errorf("found %d (it was %d) with a lease of %v", ino, old, c.mode(ino))
	}
}

func TestDeadHolderIsFenced(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(r *rig) { r.lease = time.Second })
	a, b := r.user("a"), r.user("b")
	ino := a.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	// a falls silent: its stream is cut and never comes back.
	a.mu.Lock()
	a.stuck = true
	a.mu.Unlock()
	r.cut(a)
	began := time.Now()
	got := b.mustAsk(acquire(ino, wire.Mode_WRITE))
	t.Logf("handed over after %v", time.Since(began))
	if b.mode(ino) != wire.Mode_WRITE || got.GetInode().Inode.Attr.Ino != ino {
		t.Fatalf("b holds %v", b.mode(ino))
	}
	old := a.Session()
	a.gate.open()
	a.unstick()
	eventually(t, "a learns that it was ended", func() bool { return a.happened("ended") })
	eventually(t, "a has a new session", func() bool { return a.Session() != 0 && a.Session() != old })
	if _, err := a.Do(testCtx(t), &wire.Command{Session: old, Cred: root, Op: chmod(ino, 0o600).Op}); wire.CodeOf(err) != wire.NoSession {
		t.Fatalf("a change made under the old session: %v", err)
	}
	a.must(create(wire.RootIno, "again"))
}

// TestSilentHolderIsKept: the lease of a session that nobody minds outlasts
// its time.
func TestSilentHolderIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(r *rig) { r.lease = 500 * time.Millisecond })
	a := r.user("a")
	ino := a.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	r.cut(a)
	eventually(t, "a notices", func() bool { return a.happened("lapsed") })
	a.gate.open()
	eventually(t, "a is taken back", func() bool { return a.happened("reclaimed") })
	if a.mode(ino) != wire.Mode_WRITE || a.happened("ended") {
		t.Fatalf("a holds %v, %v", a.mode(ino), a.events)
	}
}

func TestHolderThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(r *rig) { r.timing.OpTimeout = 700 * time.Millisecond })
	a, b := r.user("a"), r.user("b")
	ino := a.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	a.mu.Lock()
	a.stuck = true
	a.mu.Unlock()
	if _, err := b.ask(acquire(ino, wire.Mode_WRITE)); wire.CodeOf(err) != wire.Timeout {
		t.Fatalf("got %v", err)
	}
	if a.mode(ino) != wire.Mode_WRITE {
		t.Fatal("a lost its lease without an answer")
	}
	a.unstick()
	eventually(t, "the lease goes over once a answers", func() bool {
		_, err := b.ask(acquire(ino, wire.Mode_WRITE))
		return err == nil
	})
}

func TestReadDirWithLeases(t *testing.T) {
	r := newRig(t, 1)
	a, b := r.user("a"), r.user("b")
	dir := a.must(mkdir(wire.RootIno, "d")).Inode.Attr.Ino
	var written uint64
	for i := range 10 {
		in := a.must(create(dir, fmt.Sprint(i))).Inode.Attr.Ino
		if i == 3 {
			written = in
		} else {
			a.Release(a.take(in))
		}
	}
	eventually(t, "the released leases are gone", func() bool {
		l := r.lead()
		l.mu.Lock()
		defer l.mu.Unlock()
		_, w := l.table.Counts(a.Session())
		return w == 1
	})
	got := b.mustAsk(&wire.Query{Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: dir, Plus: true, Lease: true}}})
	if len(got.GetDir().Entries) != 10 {
		t.Fatalf("%d entries", len(got.GetDir().Entries))
	}
	for _, e := range got.GetDir().Entries {
		if (e.Ino == written) != (e.Inode == nil) {
			t.Errorf("%s: inode %v", e.Name, e.Inode)
		}
		want := wire.Mode_READ
		if e.Ino == written {
			want = wire.Mode_NONE
		}
		if b.mode(e.Ino) != want {
			t.Errorf("%s: b holds %v", e.Name, b.mode(e.Ino))
		}
	}
	if a.mode(written) != wire.Mode_WRITE {
		t.Error("listing took a write lease away")
	}
	if b.mode(dir) != wire.Mode_READ {
		t.Error("no lease on the directory")
	}
}

// take gives up a lease and returns it for Release.
func (u *user) take(ino uint64) []*wire.Grant {
	u.mu.Lock()
	defer u.mu.Unlock()
	g := u.held[ino]
	delete(u.held, ino)
	if g == nil {
		return nil
	}
	return []*wire.Grant{g}
}

func TestLeaderChangeReclaims(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	a, b := r.user("a"), r.user("b")
	ino := a.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	lock := &wire.Lock{Ino: ino, Owner: 7, Type: wire.WriteLock, Start: 0, End: 9}
	if _, err := a.Lock(testCtx(t), lock); err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	a.locks = []*wire.LockClaim{{Lock: lock}}
	a.mu.Unlock()
	began := time.Now()
	r.kill(r.leader())
	// b's wish conflicts with what the new leader knows only from a.
	b.mustAsk(acquire(ino, wire.Mode_WRITE))
	t.Logf("handed over by the new leader after %v", time.Since(began))
	if !a.happened("reclaimed") || !a.had(func(rc *wire.Recall) bool { return rc.Ino == ino }) {
		t.Fatal("the new leader gave a's lease away without asking")
	}
	reply, err := b.Lock(testCtx(t), &wire.Lock{Ino: ino, Owner: 1, Type: wire.ReadLock, Start: 5, End: 5})
	if wire.CodeOf(err) != wire.Again || reply.GetConflict().GetOwner() != 7 {
		t.Fatalf("the lock was forgotten: %v %v", reply, err)
	}
}

func TestGraceWaitsForTheMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, func(r *rig) { r.lease = 5 * time.Second })
	a, b := r.user("a"), r.user("b")
	ino := a.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	r.cut(a) // and the leader changes: a cannot say what it holds
	r.kill(r.leader())
	began := time.Now()
	b.mustAsk(acquire(ino, wire.Mode_WRITE))
	if took := time.Since(began); took < time.Second {
		t.Errorf("the lease of a missing session was given away after %v", took)
	}
	a.gate.open()
	eventually(t, "a learns that it was fenced", func() bool { return a.happened("ended") })
}

func TestBlockingLocks(t *testing.T) {
	r := newRig(t, 1)
	a, b := r.user("a"), r.user("b")
	ino := a.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	lock := func(owner uint64, typ uint32, from, to uint64, wait bool) *wire.Lock {
		return &wire.Lock{Ino: ino, Owner: owner, Type: typ, Start: from, End: to, Wait: wait}
	}
	set := func(u *user, l *wire.Lock) error {
		_, err := u.Lock(testCtx(t), l)
		return err
	}
	if err := set(a, lock(1, wire.WriteLock, 0, 9, false)); err != nil {
		t.Fatal(err)
	}
	if err := set(b, lock(1, wire.WriteLock, 5, 6, false)); wire.CodeOf(err) != wire.Again {
		t.Fatalf("conflict: %v", err)
	}

	// A waiter gets it when it is released.
	got := make(chan error, 1)
	go func() { got <- set(b, lock(1, wire.WriteLock, 5, 6, true)) }()
	l := r.lead()
	waiting := func(n int) {
		eventually(t, "waiters", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.locks.Awaited()) >= n
		})
	}
	waiting(1)
	if err := set(a, lock(1, wire.Unlock, 0, 9, false)); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}

	// An interrupted one does not, and what it held before stays.
	if err := set(a, lock(1, wire.ReadLock, 20, 29, false)); err != nil {
		t.Fatal(err)
	}
	if err := set(b, lock(1, wire.ReadLock, 20, 29, false)); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(context.Background())
	go func() {
		_, err := a.Lock(ctx, lock(1, wire.WriteLock, 20, 29, true))
		got <- err
	}()
	waiting(1)
	interrupt()
	if err := <-got; wire.CodeOf(err) != wire.Interrupted {
		t.Fatalf("interrupted: %v", err)
	}
	if err := set(b, lock(2, wire.WriteLock, 20, 29, false)); wire.CodeOf(err) != wire.Again {
		t.Fatalf("the read lock went with the interrupted wait: %v", err)
	}

	// A circle is refused.
	if err := set(a, lock(1, wire.WriteLock, 100, 100, false)); err != nil {
		t.Fatal(err)
	}
	if err := set(b, lock(1, wire.WriteLock, 200, 200, false)); err != nil {
		t.Fatal(err)
	}
	go func() { got <- set(a, lock(1, wire.WriteLock, 200, 200, true)) }()
	waiting(1)
	if err := set(b, lock(1, wire.WriteLock, 100, 100, true)); wire.CodeOf(err) != wire.Deadlock {
		t.Fatalf("deadlock: %v", err)
	}

	// Locks die with their session.
	if err := b.Close(testCtx(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// TestSoleSessionReplacesItsDeadOne: a process that was killed and started
// again need not wait for its own old lease.
func TestSoleSessionReplacesItsDeadOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(r *rig) { r.lease = 10 * time.Minute })
	r.sole = true
	a := r.user("mnt")
	ino := a.must(create(wire.RootIno, "f")).Inode.Attr.Ino
	r.cut(a)
	began := time.Now()
	b := r.user("mnt")
	b.mustAsk(acquire(ino, wire.Mode_WRITE))
	if took := time.Since(began); took > 5*time.Minute {
		t.Errorf("it took %v", took)
	}
	a.gate.open()
	eventually(t, "the old one learns that it has ended", func() bool { return a.happened("ended") })
}
