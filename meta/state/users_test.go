package state

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"quernfs/internal/wire"
)

// TestUsersHaveTheirOwn: of /.compute/users a user makes the directory with his number,
// which is his alone until he lets others in, and nothing else, by no way.
func TestUsersHaveTheirOwn(t *testing.T) {
	r := newRig(t)
	ann, bob := &wire.Cred{Uid: 1000, Gid: 100}, &wire.Cred{Uid: 1001, Gid: 100}
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: wire.RootIno, Mask: wire.SetMode, Mode: 0o777}}})
	create := func(cred *wire.Cred, parent uint64, name string, mode uint32) *wire.Result {
		return r.do(&wire.Command{Cred: cred, Op: &wire.Command_Create{Create: &wire.Create{Parent: parent, Name: name, Mode: mode, Exclusive: true, Symlink: map[bool]string{true: "1000"}[mode&sIFMT == sIFLNK]}}})
	}
	rename := func(cred *wire.Cred, from uint64, name string, to uint64, as string, flags uint32) string {
		return codeName(r.do(&wire.Command{Cred: cred, Op: &wire.Command_Rename{Rename: &wire.Rename{Parent: from, Name: name, NewParent: to, NewName: as, Flags: flags}}}).Code)
	}
	for _, c := range []struct {
		what string
		cred *wire.Cred
		name string
		mode uint32
		want string
	}{
		{"another's", bob, "1000", sIFDIR | 0o755, "Perm"},
		{"a name", bob, "ann", sIFDIR | 0o755, "Perm"},
		{"another spelling", ann, "01000", sIFDIR | 0o755, "Perm"},
		{"a file", ann, "1000", sIFREG | 0o644, "Perm"},
		{"a link", bob, "1001", sIFLNK | 0o777, "Perm"},
		{"a temporary file", ann, ".x", sIFREG | 0o644, "Perm"},
		{"his own", ann, "1000", sIFDIR | 0o755, "ok"},
		{"again", ann, "1000", sIFDIR | 0o755, "Exists"},
		{"by root", &wire.Cred{}, "1002", sIFDIR | 0o755, "ok"},
	} {
		res := create(c.cred, wire.UsersIno, c.name, c.mode)
		expect(t, c.what, codeName(res.Code), c.want)
		if want := uint32(sIFDIR | 0o700); c.want == "ok" && !isRoot(c.cred) && res.Inode.Attr.Mode != want {
			t.Errorf("%s: mode %o", c.what, res.Inode.Attr.Mode)
		}
	}
	file := create(bob, wire.RootIno, "file", sIFREG|0o666).Inode.Attr.Ino
	create(bob, wire.RootIno, "dir", sIFDIR|0o777)
	create(bob, wire.UsersIno, "1001", sIFDIR|0o777)
	expect(t, "a link of a file", codeName(r.do(&wire.Command{Cred: bob, Op: &wire.Command_Link{Link: &wire.Link{Ino: file, NewParent: wire.UsersIno, NewName: "1001x"}}}).Code), "Perm")
	for _, c := range []struct {
		from  uint64
		name  string
		to    uint64
		as    string
		flags uint32
		want  string
	}{
		{wire.RootIno, "dir", wire.UsersIno, "1003", 0, "Perm"},
		{wire.RootIno, "file", wire.UsersIno, "1003", 0, "Perm"},
		{wire.UsersIno, "1001", wire.UsersIno, "1003", 0, "Perm"},
		{wire.UsersIno, "1001", wire.UsersIno, "1000", 0, "Perm"}, // sticky
		{wire.UsersIno, "1000", wire.RootIno, "ann", 0, "Perm"},
		{wire.RootIno, "file", wire.UsersIno, "1001", renameExchange, "Perm"},
		{wire.UsersIno, "1001", wire.RootIno, "file", renameExchange, "Perm"},
		{wire.UsersIno, "1001", wire.RootIno, "moved", renameWhiteout, "Perm"},
		{wire.UsersIno, "1001", wire.RootIno, "moved", 0, "ok"},
		{wire.RootIno, "moved", wire.UsersIno, "1001", 0, "ok"},
	} {
		expect(t, c.name+" to "+c.as, rename(bob, c.from, c.name, c.to, c.as, c.flags), c.want)
	}
	expect(t, "the directory itself", rename(&wire.Cred{}, wire.ComputeIno, "users", wire.RootIno, "u", 0), "Busy")
	r.check()

	// A cluster of before has none: root makes it by its name.
	r = newRig(t)
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: wire.ComputeIno, Mask: wire.SetMode, Mode: 0o777}}})
	without(t, r, wire.ComputeIno, "users", wire.UsersIno)
	create = func(cred *wire.Cred, parent uint64, name string, mode uint32) *wire.Result {
		return r.do(&wire.Command{Cred: cred, Op: &wire.Command_Create{Create: &wire.Create{Parent: parent, Name: name, Mode: mode, Exclusive: true}}})
	}
	if in := create(&wire.Cred{}, wire.ComputeIno, "users", sIFDIR|0o755).Inode; in.GetAttr().GetIno() != wire.UsersIno || in.Attr.Mode != sIFDIR|usersMode {
		t.Errorf("%v", in)
	}
	expect(t, "another's", codeName(create(bob, wire.UsersIno, "1000", sIFDIR|0o755).Code), "Perm")
	expect(t, "his own", codeName(create(ann, wire.UsersIno, "1000", sIFDIR|0o755).Code), "ok")
	r.check()
}

// without takes an empty directory out of a state, as if it had never been made.
func without(t *testing.T, r *rig, parent uint64, name string, ino uint64) {
	t.Helper()
	x := &r.s.tx
	x.batch = r.s.db.NewIndexedBatch()
	x.view = view{r: x.batch}
	defer func() { x.batch.Close(); x.batch, x.view.r = nil, nil }()
	x.delDentry(parent, name)
	x.inodes.put(ino, nil)
	dir := edit(x.inode(parent))
	dir.Entries--
	dir.Attr.Nlink--
	x.putInode(dir)
	x.counts[countInodes]--
	x.flush()
	if err := x.batch.Commit(pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	r.check()
}
