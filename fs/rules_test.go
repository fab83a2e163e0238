package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"quernfs/internal/wire"
)

// ruleOverlay is a fakeOverlay with a standing rule for all below /in, once there
// is a file in the directory of rules.
type ruleOverlay struct {
	*fakeOverlay
	rules, lands []string // guarded by mu
	asked        int      // guarded by mu: how often about a path
	err          error    // guarded by mu: of Standing
	own          uint64   // guarded by mu: a directory of rules of the caller's own
}

func (o *ruleOverlay) OwnRules(_ context.Context, _ *wire.Cred, dir uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return dir == o.own
}

func (o *ruleOverlay) CheckRule(_ context.Context, _ *wire.Cred, _ uint64, name string, _ uint64) error {
	if name == "bad.yaml" {
		return wire.Errorf(wire.Invalid, "rule", name, "a typo")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rules = append(o.rules, name)
	return nil
}

func (o *ruleOverlay) RuleGone(_ context.Context, _ *wire.Cred, _ uint64, name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rules = slices.DeleteFunc(o.rules, func(n string) bool { return n == name })
}

func (o *ruleOverlay) Standing(_ context.Context, _ *wire.Cred, moved bool, at func() (string, uint64)) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil || len(o.rules) == 0 || at == nil {
		return len(o.rules) > 0, o.err
	}
	o.asked++
	p, _ := at()
	return strings.HasPrefix(p, "/in/"), nil
}

func (o *ruleOverlay) GetAttribute(context.Context, *wire.Cred, *Target, string) ([]byte, error) {
	return nil, wire.Errorf(wire.NoAttr, "getxattr", "", "none")
}
func (o *ruleOverlay) SetAttribute(_ context.Context, _ *wire.Cred, _ *Target, name string, value []byte) (map[string][]byte, error) {
	return map[string][]byte{name: value}, nil
}
func (o *ruleOverlay) ListAttributes(context.Context, *wire.Cred, *Target) []string { return nil }

func (o *ruleOverlay) Landed(_ context.Context, _ *wire.Cred, t *Target, attribute []byte, moved bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lands = append(o.lands, fmt.Sprintf("%s %d %q %v", t.Path, t.Inode.Attr.Size, attribute, moved))
	return nil
}

// TestRuleEntries: a file is checked before it becomes a rule, and the overlay is
// told of what lands.
func TestRuleEntries(t *testing.T) {
	o := &ruleOverlay{fakeOverlay: &fakeOverlay{ready: make(chan struct{})}}
	c := newCluster(t, 6, "4+2")
	mnt := c.mount(func(cfg *Config) { cfg.Overlay = o })
	must(t, os.Mkdir(filepath.Join(mnt, "in"), 0o755))
	in := func(name string) string { return filepath.Join(mnt, "in", name) }
	lands := func(want ...string) {
		t.Helper()
		if got := o.seen(&o.lands); !slices.Equal(got, want) {
			t.Errorf("landed %q, want %q", got, want)
		}
		o.mu.Lock()
		o.lands = nil
		o.mu.Unlock()
	}
	write1(t, in("before"), "x")
	must(t, os.Rename(in("before"), in("renamed")))
	if lands(); o.asked != 0 {
		t.Errorf("asked %d times about a path while there is no rule", o.asked)
	}

	dir := filepath.Join(mnt, ".compute", "rules")
	write1(t, filepath.Join(dir, "placed.yaml"), "in place")
	write1(t, filepath.Join(mnt, "r"), "moved in")
	must(t, os.Rename(filepath.Join(mnt, "r"), filepath.Join(dir, "moved.yaml")))
	write1(t, filepath.Join(mnt, "r"), "linked in")
	must(t, os.Link(filepath.Join(mnt, "r"), filepath.Join(dir, "linked.yaml")))
	if err := os.Rename(filepath.Join(mnt, "r"), filepath.Join(dir, "bad.yaml")); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a bad rule: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bad.yaml"), []byte("x"), 0o644); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a bad rule in place: %v", err)
	}
	expect(t, filepath.Join(dir, "moved.yaml"), "moved in")
	if got := o.seen(&o.rules); !slices.Equal(got, []string{"placed.yaml", "moved.yaml", "linked.yaml"}) {
		t.Errorf("rules %q", got)
	}
	must(t, os.Remove(filepath.Join(dir, "linked.yaml")))
	must(t, os.Rename(filepath.Join(dir, "moved.yaml"), filepath.Join(mnt, "r")))
	if got := o.seen(&o.rules); !slices.Equal(got, []string{"placed.yaml"}) {
		t.Errorf("rules %q", got)
	}
	lands() // a rule is no file of the tree

	// A directory of the caller's own rules.
	must(t, os.Mkdir(filepath.Join(mnt, "own"), 0o755))
	var st syscall.Stat_t
	must(t, syscall.Stat(filepath.Join(mnt, "own"), &st))
	o.mu.Lock()
	o.own = st.Ino
	o.mu.Unlock()
	write1(t, filepath.Join(mnt, "r2"), "moved in")
	if err := os.Rename(filepath.Join(mnt, "r2"), filepath.Join(mnt, "own", "bad.yaml")); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a bad rule of one's own: %v", err)
	}
	if err := os.Link(filepath.Join(mnt, "r2"), filepath.Join(mnt, "own", "bad.yaml")); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a bad rule of one's own: %v", err)
	}
	must(t, os.Rename(filepath.Join(mnt, "r2"), filepath.Join(mnt, "own", "good.yaml")))
	if got := o.seen(&o.rules); !slices.Equal(got, []string{"placed.yaml", "good.yaml"}) {
		t.Errorf("rules %q", got)
	}
	must(t, os.Remove(filepath.Join(mnt, "own", "good.yaml")))
	if got := o.seen(&o.rules); !slices.Equal(got, []string{"placed.yaml"}) {
		t.Errorf("rules %q", got)
	}

	write1(t, in("a"), "one")
	lands(`/in/a 3 "" false`)
	write1(t, filepath.Join(mnt, "b"), "elsewhere")
	lands()
	must(t, os.Rename(filepath.Join(mnt, "b"), in("b")))
	lands(`/in/b 9 "" true`)
	write1(t, in(".c"), "half")
	lands()
	must(t, os.Rename(in(".c"), in("c")))
	lands(`/in/c 4 "" true`)
	f, err := os.Open(in("c"))
	must(t, err)
	must(t, f.Close())
	lands() // read only
	must(t, os.Remove(in("c")))
	lands()

	// With an attribute of the directory, too.
	must(t, syscall.Setxattr(filepath.Join(mnt, "in"), OnCloseXattr, []byte("wordcount"), 0))
	write1(t, in("d"), "both")
	lands(`/in/d 4 "wordcount" false`)

	// No answer from meta: the close says so.
	o.mu.Lock()
	o.err = wire.Errorf(wire.Timeout, "rules", "", "no answer")
	o.mu.Unlock()
	if err := os.WriteFile(filepath.Join(mnt, "e"), []byte("x"), 0o644); !errors.Is(err, syscall.EIO) {
		t.Errorf("a close under rules that cannot be read: %v", err)
	}
}
