package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"quernfs/chunkd"
	"quernfs/meta"
)

// disk is what one host's directory lies on: Pebble's file system in memory,
// which knows what was synced.
type disk struct {
	mem  *vfs.MemFS
	full atomic.Bool // takes no more shards
}

func newDisk() *disk { return &disk{mem: vfs.NewCrashableMem()} }

// touch makes an empty file, durably.
func (d *disk) touch(path string) {
	f, err := d.mem.Create(path, vfs.WriteCategoryUnspecified)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close(), syncDir(d.mem, filepath.Dir(path)))
	}
	if err != nil {
		panic(err) // memory does not fail
	}
}

// crash is the disk as the next process finds it: with all that was synced, and
// some of the rest. What the last process still writes does not count.
func (d *disk) crash(r *rand.Rand) *disk {
	percent := [...]int{0, 0, 20, 50, 80, 100}[r.IntN(6)]
	return &disk{mem: d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: r})}
}

// meta is the disk of a metadata server.
func (d *disk) meta() meta.Disk {
	return meta.Disk{FS: d.mem, OpenLog: func(dir string, size int, log hclog.Logger) (meta.RaftLog, error) {
		w, err := wal.Open(dir, wal.WithLogger(log), wal.WithSegmentSize(size),
			wal.WithMetaStore(&walMeta{fs: d.mem}), wal.WithSegmentFiler(segment.NewFiler(dir, walFS{d.mem})))
		if err != nil {
			return nil, err
		}
		return w, nil
	}}
}

// walFS is the disk as raft-wal sees it.
type walFS struct{ fs *vfs.MemFS }

var _ types.VFS = walFS{}

func (w walFS) ListDir(dir string) ([]string, error) {
	names, err := w.fs.List(dir)
	slices.Sort(names)
	return names, err
}

func (w walFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	path := filepath.Join(dir, name)
	if _, err := w.fs.Stat(path); err == nil {
		return nil, &os.PathError{Op: "create", Path: path, Err: os.ErrExist}
	}
	f, err := w.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(make([]byte, size)); err != nil {
		return nil, err
	}
	return &walFile{File: f, fs: w.fs, dir: dir}, nil
}

func (w walFS) Delete(dir, name string) error {
	if err := w.fs.Remove(filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(w.fs, dir)
}

func (w walFS) OpenReader(dir, name string) (types.ReadableFile, error) {
	return w.fs.Open(filepath.Join(dir, name))
}

func (w walFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	path := filepath.Join(dir, name)
	if _, err := w.fs.Stat(path); err != nil {
		return nil, err
	}
	return w.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
}

// walFile syncs its directory with its first sync, as raft-wal's own does.
type walFile struct {
	vfs.File
	fs   *vfs.MemFS
	dir  string
	once sync.Once
}

func (f *walFile) Sync() (err error) {
	if err := f.File.Sync(); err != nil {
		return err
	}
	f.once.Do(func() { err = syncDir(f.fs, f.dir) })
	return err
}

func syncDir(fs *vfs.MemFS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// walMeta has raft's votes and raft-wal's list of segments in one file, which
// each change replaces: BoltDB maps files into memory, and so needs real ones.
type walMeta struct {
	fs  *vfs.MemFS
	dir string

	mu   sync.Mutex
	held struct {
		State  types.PersistentState
		Stable map[string][]byte
	}
}

var _ types.MetaStore = (*walMeta)(nil)

func (w *walMeta) path() string { return filepath.Join(w.dir, "wal-meta.json") }

func (w *walMeta) Load(dir string) (types.PersistentState, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dir = dir
	f, err := w.fs.Open(w.path())
	if errors.Is(err, os.ErrNotExist) {
		w.held.Stable = map[string][]byte{}
		return types.PersistentState{}, nil
	}
	if err != nil {
		return types.PersistentState{}, err
	}
	defer f.Close()
	err = json.NewDecoder(f).Decode(&w.held)
	return w.held.State, err
}

func (w *walMeta) store() error {
	text, err := json.Marshal(w.held)
	if err != nil {
		return err
	}
	f, err := w.fs.Create(w.path()+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := w.fs.Rename(w.path()+".new", w.path()); err != nil {
		return err
	}
	return syncDir(w.fs, w.dir)
}

func (w *walMeta) CommitState(s types.PersistentState) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held.State = s
	return w.store()
}

func (w *walMeta) GetStable(key []byte) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held.Stable[string(key)], nil
}

func (w *walMeta) SetStable(key, value []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held.Stable[string(key)] = slices.Clone(value)
	return w.store()
}

func (w *walMeta) Close() error { return nil }

// flip turns over one bit of a segment, and says where.
func (d *disk) flip(r *rand.Rand) string {
	const dir = "/chunkd/segments"
	names, err := d.mem.List(dir)
	if err != nil || len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	path := filepath.Join(dir, names[r.IntN(len(names))])
	f, err := d.mem.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	const header = 4096 // without it the segment is refused, as a whole
	if err != nil || st.Size() <= header {
		return ""
	}
	at := header + r.Int64N(st.Size()-header)
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return ""
	}
	b[0] ^= 1 << r.IntN(8)
	if _, err := f.WriteAt(b[:], at); err != nil {
		return ""
	}
	return fmt.Sprintf("%s byte %d", path, at)
}

// The disk of a chunk server.
var _ chunkd.Disk = (*disk)(nil)

func (d *disk) FS() vfs.FS { return d.mem }

func (d *disk) Lock(path string) (io.Closer, error) { return d.mem.Lock(path) }

func (d *disk) Space(string) (total, free int64, name string, err error) {
	if d.full.Load() {
		return 1 << 40, 0, "", nil
	}
	return 1 << 40, 1 << 39, "", nil
}

func (d *disk) OpenSegment(path string, create bool) (chunkd.File, error) {
	_, err := d.mem.Stat(path)
	if create && err == nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrExist}
	}
	if !create && err != nil {
		return nil, err
	}
	f, err := d.mem.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &segmentFile{d: d, f: f}, nil
}

// segmentFile is an open segment. Space is not modelled but by disk.full.
type segmentFile struct {
	d  *disk
	mu sync.RWMutex
	f  vfs.File // nil: closed
}

func (s *segmentFile) with(f func(vfs.File) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.f == nil {
		return os.ErrClosed
	}
	return f(s.f)
}

func (s *segmentFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = s.with(func(f vfs.File) error { n, err = f.ReadAt(p, off); return err })
	return n, err
}

func (s *segmentFile) WriteAt(p []byte, off int64) (n int, err error) {
	if s.d.full.Load() {
		return 0, syscall.ENOSPC
	}
	// MemFS grows a file byte by byte.
	err = s.with(func(f vfs.File) error { n, err = f.WriteAt(p, off); return err })
	return n, err
}

func (s *segmentFile) Size() (size int64, err error) {
	err = s.with(func(f vfs.File) error {
		st, err := f.Stat()
		if err == nil {
			size = st.Size()
		}
		return err
	})
	return size, err
}

func (s *segmentFile) Datasync() error { return s.with(vfs.File.SyncData) }

func (s *segmentFile) Allocate(off, n int64) error {
	if s.d.full.Load() {
		return syscall.ENOSPC
	}
	return nil
}

// Punch leaves zeros, which a crash may or may not keep.
func (s *segmentFile) Punch(off, n int64) error {
	size, err := s.Size()
	if n = min(n, size-off); err != nil || n <= 0 {
		return err
	}
	return s.with(func(f vfs.File) error { _, err := f.WriteAt(make([]byte, n), off); return err })
}

// Truncate only ever gives back what was allocated beyond the end.
func (s *segmentFile) Truncate(size int64) error {
	if now, err := s.Size(); err != nil || now <= size {
		return err
	}
	return errors.New("a segment is not cut")
}

func (s *segmentFile) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f == nil {
		return os.ErrClosed
	}
	err := s.f.Close()
	s.f = nil
	return err
}
