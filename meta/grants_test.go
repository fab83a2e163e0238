package meta

import (
	"testing"

	"quernfs/internal/wire"
)

// TestCommitOfAGoneFile: a commit of several files, one of which has been
// removed meanwhile, is carried out for the others; the server goes on.
func TestCommitOfAGoneFile(t *testing.T) {
	r := newRig(t, 1)
	a := r.user("a")
	gone := a.must(create(wire.RootIno, "gone")).Inode.Attr.Ino
	kept := a.must(create(wire.RootIno, "kept")).Inode.Attr.Ino
	a.must(&wire.Command{Op: &wire.Command_Unlink{Unlink: &wire.Unlink{Parent: wire.RootIno, Name: "gone"}}})
	a.must(&wire.Command{Op: &wire.Command_ReleaseOrphans{ReleaseOrphans: &wire.ReleaseOrphans{Inos: []uint64{gone}}}})
	inline := func(ino uint64) *wire.FileUpdate {
		return &wire.FileUpdate{Ino: ino, Inline: []byte("x"), HasInline: true, MinSize: 1}
	}
	res := a.must(&wire.Command{Op: &wire.Command_Commit{Commit: &wire.Commit{Files: []*wire.FileUpdate{inline(gone), inline(kept)}}}})
	if len(res.Inodes) != 2 || res.Inodes[0].GetAttr() != nil || res.Inodes[1].GetAttr().GetSize() != 1 {
		t.Fatalf("the commit answered %v", res.Inodes)
	}
	if in := a.mustAsk(getInode(kept, true)).GetInode().Inode; in.Attr.Size != 1 {
		t.Fatalf("afterwards the file that is left is %v", in)
	}
}
