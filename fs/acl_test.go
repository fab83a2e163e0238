package fs

import (
	"testing"
	"time"

	"quernfs/internal/wire"
)

func TestPlainACL(t *testing.T) {
	acl := func(entries ...string) []byte { // tag, permissions
		b := []byte{2, 0, 0, 0}
		for _, e := range entries {
			b = append(b, e[0], 0, e[1], 0, 0xff, 0xff, 0xff, 0xff)
		}
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		perm uint32
		ok   bool
	}{
		"0640":        {acl("\x01\x06", "\x04\x04", "\x20\x00"), 0o640, true},
		"0777":        {acl("\x01\x07", "\x04\x07", "\x20\x07"), 0o777, true},
		"named user":  {acl("\x01\x07", "\x02\x07", "\x04\x07", "\x10\x07", "\x20\x07"), 0, false},
		"with a mask": {acl("\x01\x07", "\x04\x07", "\x10\x07", "\x20\x07"), 0, false},
		"wrong order": {acl("\x04\x07", "\x01\x07", "\x20\x07"), 0, false},
		"wrong bits":  {acl("\x01\x08", "\x04\x07", "\x20\x07"), 0, false},
		"version 3":   {append([]byte{3}, acl("\x01\x07", "\x04\x07", "\x20\x07")[1:]...), 0, false},
		"empty":       {nil, 0, false},
		"no entries":  {acl(), 0, false},
	} {
		if perm, ok := plainACL(c.b); perm != c.perm || ok != c.ok {
			t.Errorf("%s: %o, %v", name, perm, ok)
		}
	}
}

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
		return a.setxattr(t.Context(), in, rootCred, &wire.SetXattr{Name: accessACL, Value: []byte{
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
