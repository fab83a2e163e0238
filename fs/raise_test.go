package fs

import (
	"testing"

	"quernfs/internal/wire"
)

// storing is a kernel in which a file becomes smaller just before it takes a size.
type storing struct {
	kernel
	shrink func()
	told   []string
}

func (k *storing) raiseSize(uint64, int64) {
	k.shrink()
	k.told = append(k.told, "size")
}

func (k *storing) forgetAttrs(uint64) bool {
	k.told = append(k.told, "attributes")
	return true
}

// TestSizeOfAShrunkFile: a size that was true when it was looked up, and is not when
// the kernel takes it, does not stay.
func TestSizeOfAShrunkFile(t *testing.T) {
	c := newCluster(t, 1, "1+0")
	fs := c.fs()
	f, err := fs.Create(t.Context(), wire.RootIno, "f", 0o644)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(t.Context(), make([]byte, 100), 0)
	must(t, err)
	in := fs.inode(f.Inode().Attr.Ino)
	k := &storing{shrink: func() { must(t, f.Truncate(t.Context(), 10)) }}
	fs.kern.Store(&kernelRef{k})
	defer fs.kern.Store(nil)
	in.mu.Lock()
	in.grown, in.raised = 100, 0
	in.mu.Unlock()
	fs.raiseSize(in)
	if n := len(k.told); n == 0 || k.told[n-1] != "attributes" {
		t.Errorf("the kernel was told of %v: it keeps a size that is too large", k.told)
	}
}
