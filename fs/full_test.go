package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
)

// TestFull fills a cluster. The writer is told ENOSPC, by write, fsync and close,
// and goes on soon after something was removed.
func TestFull(t *testing.T) {
	c := newCluster(t, 3, "1+1", func(c *cluster) { c.store.Capacity = 80 << 20 }) // of which 16 MiB are used
	fs, mnt := c.mountFS(func(cfg *Config) { cfg.DirtyLimit = 16 << 20 })
	chunk := bytes.Repeat([]byte("full"), 1<<18)
	must(t, os.WriteFile(filepath.Join(mnt, "before"), chunk, 0o644))
	f, err := os.Create(filepath.Join(mnt, "f"))
	must(t, err)
	for i := 0; err == nil; i++ {
		if i > 400 {
			t.Fatal("400 MiB found room in 48 MiB")
		}
		_, err = f.Write(chunk)
	}
	wantErr(t, err, syscall.ENOSPC)
	wantErr(t, f.Sync(), syscall.ENOSPC)
	wantErr(t, f.Sync(), syscall.ENOSPC) // as long as it is true
	wantErr(t, unix.Close(dup(t, f)), syscall.ENOSPC)
	eventually(t, "the status says which servers are full", func() bool {
		ans, err := fs.meta.Ask(t.Context(), &wire.Query{Cred: rootCred, Op: &wire.Query_Status{Status: &wire.Status{}}})
		must(t, err)
		full := 0
		for _, n := range ans.GetStatus().GetNodes() {
			if n.Full {
				full++
			}
		}
		return full == 3
	})
	// A new file too: it is not closed as if it were stored.
	eventually(t, "the mount knows", fs.short.Load)
	g, err := os.Create(filepath.Join(mnt, "g"))
	must(t, err)
	if _, err = g.Write(chunk); err == nil {
		err = g.Close()
	}
	wantErr(t, err, syscall.ENOSPC)
	var st unix.Statfs_t
	must(t, unix.Statfs(mnt, &st))
	if st.Bavail != 0 {
		t.Errorf("%d blocks are available", st.Bavail)
	}
	expect(t, filepath.Join(mnt, "before"), string(chunk))

	must(t, f.Close())
	must(t, os.Remove(f.Name()))
	must(t, os.Remove(g.Name()))
	n := 0
	eventually(t, "there is room again", func() bool {
		n++
		p := filepath.Join(mnt, fmt.Sprint("after-", n))
		h, err := os.Create(p)
		must(t, err)
		_, err = h.Write(chunk)
		err = errors.Join(err, h.Sync(), h.Close())
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		return err == nil
	})
	expect(t, filepath.Join(mnt, fmt.Sprint("after-", n)), string(chunk))
}

// dup returns another descriptor of the same open file.
func dup(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.Dup(int(f.Fd()))
	must(t, err)
	return fd
}
