package sandbox

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxEntries bounds how many files and directories /scratch and /out hold each.
const maxEntries = 200_000

// usage is what lies below dir: bytes on disk, and how many entries; it stops
// counting once there are more than maxEntries.
func usage(dir string) (bytes int64, entries int) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone, or not to be entered: not counted
		}
		if entries++; entries > maxEntries {
			return fs.SkipAll
		}
		if fi, err := d.Info(); err == nil && !d.IsDir() {
			if st, ok := fi.Sys().(*syscall.Stat_t); ok {
				bytes += st.Blocks * 512
			}
		}
		return nil
	})
	return bytes, entries
}

// deleted is how many bytes files hold that processes of a pid namespace have
// open, and that have no name any more below the directories named, which are
// those that the processes see.
func deleted(ns string, first int, below ...string) (bytes int64) {
	seen := map[[2]uint64]bool{}
	for _, pid := range members(ns, first) {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		fds, _ := os.ReadDir(dir)
		for _, fd := range fds {
			name := filepath.Join(dir, fd.Name())
			// Only what lies below: looking at a file of the mount would be a request
			// to this very process.
			target, _ := os.Readlink(name)
			if !strings.HasSuffix(target, " (deleted)") || !belowAny(target, below) {
				continue
			}
			var st unix.Stat_t
			if unix.Stat(name, &st) == nil && !seen[[2]uint64{st.Dev, st.Ino}] {
				seen[[2]uint64{st.Dev, st.Ino}] = true
				bytes += st.Blocks * 512
			}
		}
	}
	return bytes
}

func belowAny(p string, dirs []string) bool {
	for _, d := range dirs {
		// Read from outside of its mount namespace a path may come with the part
		// above the bind mount.
		if strings.HasPrefix(p, d+"/") || strings.Contains(p, d+"/") {
			return true
		}
	}
	return false
}

// nearlyFull says whether the filesystem of dir has too little left for others,
// once it holds so many bytes more: less than a twentieth, and less than 1 GiB.
func nearlyFull(dir string, more int64) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false
	}
	free := st.Bavail * uint64(st.Bsize)
	free -= min(free, uint64(more))
	return free < 1<<30 && free < st.Blocks*uint64(st.Bsize)/20
}

// LimitError is a limit that a program ran into. Its sentence names it.
type LimitError struct{ Text string }

func (e *LimitError) Error() string { return e.Text }

// overLimit looks at the directories of a run.
func (b *box) overLimit() error {
	for _, d := range []struct {
		dir, name, field string
		most             int64
	}{
		{b.run.Dir.Scratch(), "/scratch", " (resources.scratch in the job file)", b.run.Limits.Scratch},
		{b.run.Dir.Out(), "/out", "", b.run.Limits.Output},
	} {
		bytes, entries := usage(d.dir)
		bytes += deleted(b.ns, b.first, d.name)
		switch {
		case bytes > d.most:
			return &LimitError{fmt.Sprintf("it wrote more than %s to %s%s", Bytes(d.most), d.name, d.field)}
		case entries > maxEntries:
			return &LimitError{fmt.Sprintf("it made more than %d files in %s", maxEntries, d.name)}
		}
	}
	if nearlyFull(b.run.Dir.Out(), 0) {
		return errDiskFull
	}
	return nil
}

// Bytes writes a size as people do.
func Bytes(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size && n%u.size == 0 || n >= 10*u.size {
			return fmt.Sprintf("%d %s", n/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
