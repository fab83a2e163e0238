package fs

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
)

func TestJoin(t *testing.T) {
	for _, c := range []struct {
		sec  int64
		nsec uint32
		want int64
	}{
		{0, 0, 0},
		{1, 5, 1_000_000_005},
		{-1, 999_999_999, -1},
		{-2_000_000_000, 1, -2_000_000_000*1e9 + 1},
		{maxTime - 1, 999_999_999, maxTime*1e9 - 1},
		{maxTime, 999_999_999, maxTime * 1e9},
		{253402300799, 0, maxTime * 1e9}, // the end of 9999
		{math.MaxInt64, 999_999_999, maxTime * 1e9},
		{minTime + 1, 7, (minTime+1)*1e9 + 7},
		{minTime, 7, minTime * 1e9},
		{math.MinInt64, 0, minTime * 1e9},
	} {
		got := join(uint64(c.sec), c.nsec)
		if got != c.want {
			t.Errorf("%d.%09d is %d, wanted %d", c.sec, c.nsec, got, c.want)
		}
		sec, nsec := split(got)
		if back := join(sec, nsec); back != got {
			t.Errorf("%d comes back as %d", got, back)
		}
	}
	old := &wire.Attr{AtimeNs: minTime * 1e9, MtimeNs: minTime*1e9 - 1, CtimeNs: minTime*1e9 - 1}
	if !relatime(old, time.Now().UnixNano()) {
		t.Error("the access time of 1677 is taken for a recent one")
	}
}

// TestTimes: a time that cannot be kept becomes the nearest that can, for good and
// for every mount, and never another.
func TestTimes(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	a, b := c.mount(), c.mount()
	for name, at := range map[string][2]time.Time{
		"9999": {time.Date(9999, 12, 31, 23, 59, 59, 5, time.UTC), time.Unix(maxTime, 0)},
		"2500": {time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(maxTime, 0)},
		"2261": {time.Date(2261, 1, 1, 0, 0, 0, 7, time.UTC), time.Date(2261, 1, 1, 0, 0, 0, 7, time.UTC)},
		"1900": {time.Date(1900, 1, 1, 0, 0, 0, 7, time.UTC), time.Date(1900, 1, 1, 0, 0, 0, 7, time.UTC)},
		"1600": {time.Date(1600, 1, 1, 0, 0, 0, 7, time.UTC), time.Unix(minTime, 0)},
	} {
		file, dir := filepath.Join(a, name), filepath.Join(a, name+".d")
		write1(t, file, "x")
		must(t, os.Mkdir(dir, 0o755))
		// os.Chtimes would wrap by itself.
		ts := unix.Timespec{Sec: at[0].Unix(), Nsec: int64(at[0].Nanosecond())}
		for _, path := range []string{file, dir} {
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, 0))
			for _, seen := range []string{path, filepath.Join(b, filepath.Base(path))} {
				var st unix.Stat_t
				must(t, unix.Stat(seen, &st))
				for what, got := range map[string]unix.Timespec{"access": st.Atim, "modification": st.Mtim} {
					if got.Sec != at[1].Unix() || got.Nsec != int64(at[1].Nanosecond()) {
						t.Errorf("%s: the time of %s is %d.%09d, wanted %d.%09d", seen, what, got.Sec, got.Nsec, at[1].Unix(), at[1].Nanosecond())
					}
				}
			}
		}
	}
}

// TestTimesOfDirtyData: who may write to a file, and does not own it, sets its times
// to now, which meta judges. Data that is committed later does not bring back the
// time of the truncate before, nor of a read.
func TestTimesOfDirtyData(t *testing.T) {
	c := newCluster(t, 1, "1+0")
	fs := c.fs(func(cfg *Config) { cfg.FlushAfter = time.Hour })
	const size = 300_000 // not inline: nothing of it is committed before it is stored
	f, err := fs.Create(t.Context(), wire.RootIno, "f", 0o666)
	must(t, err)
	in := f.(*apiFile).in
	_, err = f.WriteAt(t.Context(), make([]byte, size), 0)
	must(t, err)
	must(t, f.Truncate(t.Context(), size-1))
	_, err = f.ReadAt(t.Context(), make([]byte, 1), 0)
	must(t, err)
	if !in.dirty() {
		t.Fatal("nothing is dirty: the test shows nothing")
	}
	before := f.Inode().Attr
	must(t, fs.setattr(t.Context(), in, &wire.Cred{Uid: 1002, Gid: 1002}, &wire.SetAttr{Mask: wire.AtimeNow | wire.MtimeNow}))
	touched := f.Inode().Attr
	if touched.MtimeNs <= before.MtimeNs || touched.AtimeNs != touched.MtimeNs {
		t.Errorf("touched: %v, before %v", touched, before)
	}
	if !in.dirty() {
		t.Error("the data was flushed: the commit shows nothing")
	}
	must(t, f.Flush(t.Context()))
	in.mu.Lock()
	stored := in.rec.Attr
	in.mu.Unlock()
	if stored.MtimeNs != touched.MtimeNs || stored.AtimeNs != touched.AtimeNs {
		t.Errorf("after the commit meta has mtime %d, atime %d; wanted %d", stored.MtimeNs, stored.AtimeNs, touched.MtimeNs)
	}
	must(t, f.Close())
}

// TestCloneLeavesSource: a clone that makes the inline content of its source extents
// changes nothing that is seen of the source.
func TestCloneLeavesSource(t *testing.T) {
	c := newCluster(t, 1, "1+0")
	made := c.fs()
	f, err := made.Create(t.Context(), wire.RootIno, "src", 0o755)
	must(t, err)
	_, err = f.WriteAt(t.Context(), make([]byte, 300), 0)
	must(t, err)
	must(t, f.Flush(t.Context()))
	must(t, f.Close())
	ino := f.Inode().Attr.Ino
	must(t, made.setxattr(t.Context(), made.inode(ino), rootCred, &wire.SetXattr{Name: capability, Value: netRaw}))
	before, err := made.StatInode(t.Context(), ino)
	must(t, err)

	fs := c.fs()
	dst, err := fs.Create(t.Context(), wire.RootIno, "dst", 0o644)
	must(t, err)
	_, err = dst.WriteAt(t.Context(), make([]byte, 300_000), 0)
	must(t, err)
	must(t, fs.know(t.Context(), rootCred, fs.inode(ino)))
	n, err := fs.clone(t.Context(), rootCred, fs.inode(ino), 0, fs.inode(dst.Inode().Attr.Ino), 0, 300)
	if err != nil || n != 300 {
		t.Fatal(n, err)
	}
	after, err := c.fs().StatInode(t.Context(), ino)
	must(t, err)
	if after.HasInline {
		t.Error("the source is inline: the test shows nothing")
	}
	if after.Attr.MtimeNs != before.Attr.MtimeNs || after.Attr.CtimeNs != before.Attr.CtimeNs {
		t.Errorf("the source was cloned: times %d, %d became %d, %d", before.Attr.MtimeNs, before.Attr.CtimeNs, after.Attr.MtimeNs, after.Attr.CtimeNs)
	}
	if v, err := fs.getxattr(t.Context(), fs.inode(ino), rootCred, capability); err != nil || len(v) != len(netRaw) {
		t.Errorf("its capability is %x, %v", v, err)
	}
	must(t, dst.Close())
}
