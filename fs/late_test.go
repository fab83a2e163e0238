package fs

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"quernfs/internal/wire"
)

// cutting is a kernel that has the reply to a truncate, and is not done with it.
type cutting struct {
	asked, done chan struct{}
	end         func()
}

func (k *cutting) forgetAttrs(uint64) bool    { return true }
func (k *cutting) forgetPages(uint64, span)   {}
func (k *cutting) clear(uint64, span, *zeros) {}
func (k *cutting) raiseSize(uint64, int64)    {}
func (k *cutting) forgetEntry(uint64, string) {}
func (k *cutting) expireEntry(uint64, string) {}
func (k *cutting) newEpoch() bool             { return true }
func (k *cutting) settle(uint64)              { close(k.asked); <-k.done }

// TestRecallWaitsForTheKernel: a lease under which a file was truncated is not given up
// before the kernel has cut off the pages, or an operation has come for which it has
// let go of the lock. Else it would cut off what another mount has written then.
func TestRecallWaitsForTheKernel(t *testing.T) {
	for name, end := range map[string]func(k *cutting, in *inode){
		"it is done":         func(k *cutting, _ *inode) { k.end() },
		"an operation comes": func(_ *cutting, in *inode) { in.locked() },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, "1+0")
			here := c.fs()
			f, err := here.Create(t.Context(), wire.RootIno, "f", 0o644)
			must(t, err)
			defer f.Close()
			k := &cutting{asked: make(chan struct{}), done: make(chan struct{})}
			k.end = sync.OnceFunc(func() { close(k.done) })
			t.Cleanup(k.end) // before the FS waits for its goroutines
			here.kern.Store(&kernelRef{k})
			defer here.kern.Store(nil)
			in := here.inode(f.Inode().Attr.Ino)
			in.mu.Lock()
			in.lookups++
			in.mu.Unlock()
			must(t, f.Truncate(t.Context(), 100))

			written := make(chan error, 1)
			go func() {
				other, err := c.fs().OpenFile(t.Context(), "f")
				if err == nil {
					_, err = other.WriteAt(t.Context(), []byte("other"), 50)
				}
				written <- err
			}()
			<-k.asked
			select {
			case err := <-written:
				t.Errorf("another mount has written, %v, while the kernel cuts pages off here", err)
			default:
			}
			end(k, in)
			must(t, <-written)
			if in.late.Load() {
				t.Error("the kernel is done, and waited for")
			}
		})
	}
}

// TestSettle: the kernel's lock of a file can be had by its number.
func TestSettle(t *testing.T) {
	a, b := two(t)
	path := filepath.Join(a, "f")
	write1(t, path, "some text")
	must(t, os.Truncate(path, 4))
	write1(t, filepath.Join(b, "f"), "another text") // recalled, after the lock was had
	expect(t, path, "another text")
}
