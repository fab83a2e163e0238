package fs

import (
	"testing"

	"quernfs/internal/wire"
)

// A rename of one name of a file to another of its names does nothing: the
// session that asked for it must not believe that the first is gone. Found by
// the simulation.
func TestRenameToOwnLinkKeepsBothNames(t *testing.T) {
	c := newCluster(t, 1, "1+0")
	fs := c.fs()
	for _, flags := range []uint32{0, renameExchange} {
		in, err := fs.CreateNew(t.Context(), wire.RootIno, "a", 0o644)
		must(t, err)
		must(t, fs.Link(t.Context(), in.Attr.Ino, wire.RootIno, "b"))
		must(t, fs.RenameAs(t.Context(), wire.RootIno, "a", wire.RootIno, "b", flags))
		for _, name := range []string{"a", "b"} {
			if ino, err := fs.Lookup(t.Context(), wire.RootIno, name); err != nil || ino != in.Attr.Ino {
				t.Errorf("flags %d: %s is %d, %v", flags, name, ino, err)
			}
			must(t, fs.Remove(t.Context(), wire.RootIno, name, false))
		}
	}
}
