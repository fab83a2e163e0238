package fs

import (
	"bytes"
	"context"
	"testing"

	"quernfs/internal/wire"
)

// unheard carries out commands, and says that no answer came.
type unheard struct{ metaClient }

func (m unheard) Do(ctx context.Context, cmd *wire.Command) (*wire.Result, error) {
	r, err := m.metaClient.Do(ctx, cmd)
	if err != nil {
		return r, err
	}
	return nil, wire.Errorf(wire.Timeout, "mutate", "", "no answer")
}

// A truncate that was carried out, though nobody here knows: what is read next
// is what meta has, not what is to be lost.
func TestTruncateOfUnknownOutcome(t *testing.T) {
	c := newCluster(t, 3, "1+1")
	fs := c.fs()
	f, err := fs.Create(t.Context(), wire.RootIno, "f", 0o644)
	must(t, err)
	old := bytes.Repeat([]byte("old"), 1<<20)
	_, err = f.WriteAt(t.Context(), old, 0)
	must(t, err)
	must(t, f.Flush(t.Context()))

	real := fs.meta
	fs.meta = unheard{real}
	if err := f.Truncate(t.Context(), 0); err == nil {
		t.Fatal("the truncate succeeded")
	}
	fs.meta = real
	got := make([]byte, 100)
	n, err := f.ReadAt(t.Context(), got, 0)
	t.Logf("here: %d bytes, %v, size %d", n, err, f.Size())
	_, err = f.WriteAt(t.Context(), []byte("new"), f.Size())
	must(t, err)
	must(t, f.Flush(t.Context()))
	want := make([]byte, 100)
	other, err := c.fs().OpenFile(t.Context(), "f")
	must(t, err)
	m, err := other.ReadAt(t.Context(), want, 0)
	t.Logf("there: %d bytes, %v, size %d", m, err, other.Size())
	if !bytes.Equal(got[:n], want[:min(n, m)]) {
		t.Errorf("here it begins with %s, elsewhere with %s", short(got[:n]), short(want[:m]))
	}
	must(t, other.Close())
	must(t, f.Close())
}

// The same of changes of attributes, and of directories and links.
func TestAttributesOfUnknownOutcome(t *testing.T) {
	c := newCluster(t, 1, "1+0")
	fs := c.fs()
	d, err := fs.Mkdir(t.Context(), wire.RootIno, "d", 0o755)
	must(t, err)
	file, err := fs.CreateNew(t.Context(), d.Attr.Ino, "f", 0o644)
	must(t, err)
	before, err := fs.Stat(t.Context(), "d")
	must(t, err)

	real := fs.meta
	fs.meta = unheard{real}
	if err := fs.setattr(t.Context(), fs.inode(d.Attr.Ino), rootCred, &wire.SetAttr{Ino: d.Attr.Ino, Mask: wire.SetMode, Mode: 0o700}); err == nil {
		t.Error("the change of the mode succeeded")
	}
	if _, err := fs.Mkdir(t.Context(), d.Attr.Ino, "e", 0o755); err == nil {
		t.Error("mkdir succeeded")
	}
	if err := fs.Link(t.Context(), file.Attr.Ino, d.Attr.Ino, "g"); err == nil {
		t.Error("link succeeded")
	}
	fs.meta = real

	after, err := fs.Stat(t.Context(), "d")
	must(t, err)
	if m := after.Attr.Mode & permMask; m != 0o700 {
		t.Errorf("the mode is %o", m)
	}
	if after.Attr.Nlink != before.Attr.Nlink+1 {
		t.Errorf("the directory has %d links, before it was given another one %d", after.Attr.Nlink, before.Attr.Nlink)
	}
	f, err := fs.Stat(t.Context(), "d/f")
	must(t, err)
	if f.Attr.Nlink != 2 {
		t.Errorf("the file has %d links", f.Attr.Nlink)
	}
}

// unsettled says that no answer came, carries nothing out before it is told to, and
// cannot settle before that.
type unsettled struct {
	metaClient
	late   chan *wire.Command
	settle chan struct{}
}

func (m unsettled) Do(ctx context.Context, cmd *wire.Command) (*wire.Result, error) {
	m.late <- cmd
	return nil, wire.Errorf(wire.Timeout, "mutate", "", "no answer")
}

func (m unsettled) Settle(ctx context.Context) error {
	select {
	case <-m.settle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A command that is carried out after it has failed: what it is about is not believed
// before that is settled.
func TestLateCommand(t *testing.T) {
	c := newCluster(t, 1, "1+0")
	fs := c.fs()
	f, err := fs.CreateNew(t.Context(), wire.RootIno, "f", 0o644)
	must(t, err)

	real := fs.meta
	late := unsettled{real, make(chan *wire.Command, 1), make(chan struct{})}
	fs.meta = late
	if err := fs.Remove(t.Context(), wire.RootIno, "f", false); err == nil {
		t.Fatal("the removal succeeded")
	}
	fs.meta = real
	ino, err := fs.Lookup(t.Context(), wire.RootIno, "f")
	must(t, err)
	if ino != f.Attr.Ino {
		t.Fatalf("f is %d", ino)
	}
	_, err = real.Do(t.Context(), <-late.late)
	must(t, err)
	if _, err := fs.Lookup(t.Context(), wire.RootIno, "f"); wire.CodeOf(err) != wire.NotFound {
		t.Errorf("after the removal: %v", err)
	}
	close(late.settle)
	eventually(t, "the name is believed again", func() bool {
		if _, err := fs.Lookup(t.Context(), wire.RootIno, "f"); wire.CodeOf(err) != wire.NotFound {
			t.Errorf("at last: %v", err)
		}
		_, ok := fs.inode(wire.RootIno).remembered("f")
		return ok
	})
}
