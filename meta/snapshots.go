package meta

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// snapshots is a raft.SnapshotStore that keeps a snapshot of its own server
// as the checkpoint it is, linked files, and makes a tar stream of it only when
// another server needs it. One that came from another server is kept as the
// stream, until the next one of its own.
type snapshots struct {
	home *home
	dir  string
}

const snapshotsKept = 1

func openSnapshots(h *home) (*snapshots, error) {
	s := &snapshots{home: h, dir: h.path("snapshots")}
	if err := h.disk.makeDir(s.dir); err != nil {
		return nil, err
	}
	names, err := s.fs().List(s.dir)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if filepath.Ext(n) == ".tmp" {
			s.fs().RemoveAll(filepath.Join(s.dir, n))
		}
	}
	return s, nil
}

func (s *snapshots) fs() vfs.FS { return s.home.disk.fs() }

// sink is a snapshot being made: dir.tmp until Close renames it.
type sink struct {
	store *snapshots
	meta  raft.SnapshotMeta
	tmp   string
	file  vfs.File // the stream, unless a checkpoint was adopted
	over  bool
}

func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != raft.SnapshotVersionMax {
		return nil, fmt.Errorf("snapshot version %d is not supported", version)
	}
	k := &sink{store: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%016x-%016x", term, index), Index: index, Term: term,
		Configuration: conf, ConfigurationIndex: confIndex,
	}}
	k.tmp = filepath.Join(s.dir, k.meta.ID+".tmp")
	if err := s.fs().RemoveAll(k.tmp); err != nil {
		return nil, err
	}
	return k, s.fs().MkdirAll(k.tmp, 0o700)
}

func (k *sink) ID() string { return k.meta.ID }

// adopt takes a checkpoint directory as the content.
func (k *sink) adopt(dir string) error {
	return k.store.fs().Rename(dir, filepath.Join(k.tmp, "state"))
}

func (k *sink) Write(p []byte) (int, error) {
	if k.file == nil {
		f, err := k.store.fs().Create(filepath.Join(k.tmp, "stream.tar"), vfs.WriteCategoryUnspecified)
		if err != nil {
			return 0, err
		}
		k.file = f
	}
	n, err := k.file.Write(p)
	k.meta.Size += int64(n)
	return n, err
}

func (k *sink) Cancel() error {
	if k.over {
		return nil
	}
	k.over = true
	if k.file != nil {
		k.file.Close()
	}
	return k.store.fs().RemoveAll(k.tmp)
}

func (k *sink) Close() (err error) {
	if k.over {
		return nil
	}
	defer func() {
		if err != nil {
			k.Cancel()
		}
	}()
	if k.file != nil {
		if err := errors.Join(k.file.Sync(), k.file.Close()); err != nil {
			return err
		}
	} else if k.meta.Size, err = k.store.home.disk.packedSize(filepath.Join(k.tmp, "state")); err != nil {
		return err
	}
	text, err := json.Marshal(&k.meta)
	if err != nil {
		return err
	}
	if err := k.store.home.disk.writeSynced(filepath.Join(k.tmp, "meta.json"), text); err != nil {
		return err
	}
	final := filepath.Join(k.store.dir, k.meta.ID)
	if err := k.store.fs().RemoveAll(final); err != nil {
		return err
	}
	if err := errors.Join(k.store.fs().Rename(k.tmp, final), k.store.home.disk.syncDir(k.store.dir)); err != nil {
		return err
	}
	k.over = true
	return k.store.prune()
}

func (s *snapshots) prune() error {
	all, err := s.List()
	if err != nil || len(all) <= snapshotsKept {
		return err
	}
	for _, m := range all[snapshotsKept:] {
		// The rename makes it vanish at once, before its files do.
		old := filepath.Join(s.dir, m.ID+".old.tmp")
		if err := s.fs().Rename(filepath.Join(s.dir, m.ID), old); err != nil {
			return err
		}
		s.fs().RemoveAll(old)
	}
	return nil
}

// List gives the newest first.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	names, err := s.fs().List(s.dir)
	if err != nil {
		return nil, err
	}
	var all []*raft.SnapshotMeta
	for _, n := range names {
		if filepath.Ext(n) == ".tmp" {
			continue
		}
		m, err := s.meta(n)
		if err != nil {
			return nil, fmt.Errorf("snapshot %s is damaged: %w", n, err)
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *raft.SnapshotMeta) int {
		if a.Term != b.Term {
			return int(int64(b.Term) - int64(a.Term))
		}
		return int(int64(b.Index) - int64(a.Index))
	})
	return all, nil
}

func (s *snapshots) meta(id string) (*raft.SnapshotMeta, error) {
	text, err := s.home.disk.readFile(filepath.Join(s.dir, id, "meta.json"))
	if err != nil {
		return nil, err
	}
	m := new(raft.SnapshotMeta)
	return m, json.Unmarshal(text, m)
}

func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m, err := s.meta(id)
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(s.dir, id)
	if f, err := s.fs().Open(filepath.Join(dir, "stream.tar")); err == nil {
		return m, &received{File: f}, nil
	}
	// Open files survive a prune; a link of the directory keeps the others.
	hold, err := s.home.scratch("send")
	if err != nil {
		return nil, nil, err
	}
	if err := s.home.disk.linkTree(filepath.Join(dir, "state"), hold); err != nil {
		s.fs().RemoveAll(filepath.Dir(hold))
		return nil, nil, err
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(s.home.disk.pack(hold, w))
	}()
	return m, &packing{r, s.fs(), hold, done}, nil
}

// received is a snapshot from another server, being read. Raft closes it once
// more after the state has.
type received struct {
	vfs.File
	once sync.Once
	err  error
}

func (r *received) Close() error {
	r.once.Do(func() { r.err = r.File.Close() })
	return r.err
}

// packing is a checkpoint being read as a stream.
type packing struct {
	*io.PipeReader
	fs   vfs.FS
	hold string
	done chan struct{}
}

func (p *packing) Close() error {
	p.PipeReader.Close()
	<-p.done
	return p.fs.RemoveAll(filepath.Dir(p.hold))
}

// fileInfo is a file by its name.
type fileInfo struct {
	name string
	size int64
}

// files lists the regular files of a checkpoint, which has no directories in it.
func (d *Disk) files(dir string) ([]fileInfo, error) {
	names, err := d.fs().List(dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var all []fileInfo
	for _, n := range names {
		info, err := d.fs().Stat(filepath.Join(dir, n))
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			return nil, fmt.Errorf("%s in a checkpoint is no regular file", n)
		}
		all = append(all, fileInfo{n, info.Size()})
	}
	return all, nil
}

// packedSize is the length of what pack writes: a header of one 512-byte
// record for each file, its bytes in whole records, two records at the end.
func (d *Disk) packedSize(dir string) (int64, error) {
	all, err := d.files(dir)
	if err != nil {
		return 0, err
	}
	size := int64(1024)
	for _, f := range all {
		if f.size >= 1<<33 { // beyond the octal size of a USTAR header
			return 0, fmt.Errorf("%s in a checkpoint is too large: %d bytes", f.name, f.size)
		}
		size += 512 + (f.size+511)/512*512
	}
	return size, nil
}

func (d *Disk) pack(dir string, w io.Writer) error {
	all, err := d.files(dir)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, info := range all {
		head := &tar.Header{Name: info.name, Size: info.size, Mode: 0o600, Format: tar.FormatUSTAR, Typeflag: tar.TypeReg}
		if err := t.WriteHeader(head); err != nil {
			return err
		}
		f, err := d.fs().Open(filepath.Join(dir, info.name))
		if err != nil {
			return err
		}
		_, err = io.CopyN(t, f, info.size)
		f.Close()
		if err != nil {
			return err
		}
	}
	return t.Close()
}

// unpack writes a packed checkpoint to dir, durably.
func (d *Disk) unpack(r io.Reader, dir string) error {
	if err := d.fs().MkdirAll(dir, 0o700); err != nil {
		return err
	}
	t := tar.NewReader(r)
	for {
		head, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if head.Typeflag != tar.TypeReg || head.Name != filepath.Base(head.Name) || head.Name == ".." || head.Name == "." {
			return fmt.Errorf("the snapshot holds a strange name: %q", head.Name)
		}
		f, err := d.fs().Create(filepath.Join(dir, head.Name), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, t)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	if err := d.syncDir(dir); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(dir))
}

func (d *Disk) linkTree(from, to string) error {
	all, err := d.files(from)
	if err != nil {
		return err
	}
	if err := d.fs().MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, f := range all {
		if err := d.fs().Link(filepath.Join(from, f.name), filepath.Join(to, f.name)); err != nil {
			return err
		}
	}
	return nil
}
