package fs

import (
	"testing"

	"quernfs/internal/wire"
)

// newcomer is a kernel that has been given an inode, and looks at the reply only
// after some notices about it.
type newcomer struct {
	kernel
	misses, notices int
}

func (k *newcomer) forgetAttrs(uint64) bool {
	k.notices++
	return k.notices > k.misses
}

func TestAttributesInAReplyThatMakesTheInode(t *testing.T) {
	fs := newCluster(t, 1, "1+0").fs()
	in := fs.inode(wire.RootIno)
	for _, x := range []struct {
		lookups uint64
		notices int
	}{{1, 6}, {0, 1}} {
		in.mu.Lock()
		in.lookups = x.lookups
		in.mu.Unlock()
		k := &newcomer{misses: 5}
		fs.forgetAttrs(k, in)
		if k.notices != x.notices {
			t.Errorf("given %d times: %d notices, want %d", x.lookups, k.notices, x.notices)
		}
	}
	in.mu.Lock()
	in.lookups = 0
	in.mu.Unlock()
}
