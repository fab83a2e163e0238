package fs

import (
	"testing"
	"time"

	"quernfs/internal/acl"
	"quernfs/internal/wire"
)

// An ACL that is a mode costs no command under the write lease, and is seen by
// others all the same.
func TestPlainACLIsDeferred(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	a := c.fs(func(cfg *Config) { cfg.FlushAfter = time.Hour })
	b := c.fs()
	f, err := a.Create(t.Context(), wire.RootIno, "f", 0o600)
	must(t, err)
	defer f.Close()
	ino := f.Inode().Attr.Ino
	in := a.inode(ino)
	set := func(last byte) error {
		return a.setxattr(t.Context(), in, rootCred, &wire.SetXattr{Name: acl.Access, Value: []byte{
			2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 0x20, 0, last, 0, 255, 255, 255, 255,
		}})
	}
	must(t, set(1))
	in.mu.Lock()
	shown, known := in.attrs().mode, in.rec.Attr.Mode
	in.mu.Unlock()
	if shown&permMask != 0o641 || known&permMask != 0o600 {
		t.Errorf("mode %o, and meta has %o already", shown, known)
	}
	other := b.inode(ino)
	must(t, b.know(t.Context(), rootCred, other))
	other.mu.Lock()
	got := other.attrs().mode
	other.mu.Unlock()
	if got&permMask != 0o641 {
		t.Errorf("the other session sees %o", got)
	}
	if err := set(9); wire.CodeOf(err) != wire.Invalid {
		t.Errorf("an ACL with unknown permissions: %v", err)
	}
}
