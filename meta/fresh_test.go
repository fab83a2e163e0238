package meta

import (
	"slices"
	"testing"

	"quernfs/internal/wire"
)

func about(dir uint64, names ...string) func(*wire.Recall) bool {
	return func(r *wire.Recall) bool { return r.Ino == dir && slices.Equal(r.Names, names) }
}

// A kernel believes a name that its own mount has changed until it has looked at
// the result. Nobody else is told of the change before that is over.
func TestOwnChangesAreForgottenBeforeOthersSeeThem(t *testing.T) {
	r := newRig(t, 1)
	a, b := r.user("a"), r.user("b")
	a.must(create(wire.RootIno, "made"))
	for _, u := range []*user{a, b} {
		u.mustAsk(lookup(wire.RootIno, "made"))
	}
	for _, x := range []struct {
		name  string
		learn func(name string)
	}{
		{"looked up", func(n string) { b.mustAsk(lookup(wire.RootIno, n)) }},
		{"exists", func(n string) {
			if _, err := b.do(create(wire.RootIno, n)); wire.CodeOf(err) != wire.Exists {
				t.Errorf("create: %v", err)
			}
		}},
		{"listed", func(string) {
			b.mustAsk(&wire.Query{Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: wire.RootIno, Limit: 100}}})
		}},
	} {
		a.must(create(wire.RootIno, x.name))
		if a.had(about(wire.RootIno, x.name)) {
			t.Errorf("%s: it was recalled though nobody asked", x.name)
		}
		told := func() (n int) {
			a.had(func(rc *wire.Recall) bool {
				if slices.Contains(rc.Names, x.name) {
					n++
				}
				return false
			})
			return n
		}
		for range 2 {
			x.learn(x.name)
			if n := told(); n != 1 {
				t.Errorf("%s: it was recalled %d times from the session that has changed it", x.name, n)
			}
		}
	}
}

// A look-up is what the answer to a recall may wait for: it does not wait for the
// operation that waits for this.
func TestLookupOfANameThatItsSessionOwes(t *testing.T) {
	r := newRig(t, 1)
	a, b := r.user("a"), r.user("b")
	ino := b.must(create(wire.RootIno, "x")).Inode.Attr.Ino
	a.mustAsk(lookup(wire.RootIno, "x"))
	asked, answer := make(chan struct{}), make(chan struct{})
	a.onRecall = func(rc *wire.Recall) {
		if about(wire.RootIno, "x")(rc) {
			close(asked)
			<-answer
		}
	}
	gone := make(chan error, 1)
	go func() {
		_, err := b.do(unlink(wire.RootIno, "x"))
		gone <- err
	}()
	<-asked
	ans := a.mustAsk(lookup(wire.RootIno, "x"))
	if got := ans.GetInode().GetInode().GetAttr().GetIno(); got != ino || !ans.Owed {
		t.Errorf("%d, owed %t", got, ans.Owed)
	}
	for _, g := range ans.Grants {
		if g.Ino == wire.RootIno {
			t.Error("it came with a grant on the directory")
		}
	}
	select {
	case err := <-gone:
		t.Errorf("the name went before the recall was answered: %v", err)
	default:
	}
	close(answer)
	if err := <-gone; err != nil {
		t.Error(err)
	}
	if _, err := a.ask(lookup(wire.RootIno, "x")); wire.CodeOf(err) != wire.NotFound {
		t.Error(err)
	}
}
